"""Many callers, few calls: batches for whatever runs next, without waiting for company.

The rule is early drop. Whenever a lane is free, look at the request whose deadline is
nearest. If a full batch started now would end after that deadline, the request is dropped at once;
otherwise a batch runs. No delay is ever added: a batch is what has come while the last one ran.

Deadlines say who is dropped; turns say who runs. The flows (cameras) take turns, each with its
nearest deadline first, so that a long queue of one is nobody else's wait. With one flow, both are
the order of deadlines.
"""

import asyncio
from bisect import insort
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import itemgetter
from typing import Generic, TypeVar

from yoloserve.errors import Miss, TooLate

T = TypeVar("T")
R = TypeVar("R")

# Service times vary. With a spread of 10 % the plain prediction lets 1 to 5 % of the answers be
# late under overload; this much more leaves less than 0.1 %, and costs no goodput.
JITTER_MARGIN = 1.25
FLOWS_REMEMBERED = 1024  # whose turn it was; one that is forgotten is served a little early


class ServiceTime:
    """Seconds that a batch of n takes, `a * n + b`, fitted to recent batches.

    A least-squares fit over exponentially fading sums: each observation costs a few additions.
    """

    def __init__(self, fade: float = 0.95) -> None:
        self._fade = fade
        self._weight = self._n = self._t = self._nn = self._nt = 0.0

    def observe(self, size: int, seconds: float) -> None:
        """Learn that a batch of `size` took so long."""
        for name, value in (
            ("_weight", 1.0),
            ("_n", size),
            ("_t", seconds),
            ("_nn", size * size),
            ("_nt", size * seconds),
        ):
            setattr(self, name, getattr(self, name) * self._fade + value)

    def predict(self, size: int) -> float:
        """Say how long a batch of `size` will take; 0 before anything was observed."""
        if not self._weight:
            return 0.0
        mean_n, mean_t = self._n / self._weight, self._t / self._weight
        spread = self._nn / self._weight - mean_n**2
        if spread < 1e-6:  # only one size was seen: bigger ones take no less than in proportion
            return mean_t * max(1.0, size / mean_n)
        slope = max(0.0, (self._nt / self._weight - mean_n * mean_t) / spread)
        return max(0.0, mean_t + slope * (size - mean_n))


@dataclass(frozen=True, slots=True)
class Ran(Generic[R]):
    """One caller's answer, and where its time went."""

    output: R
    queued_s: float
    ran_s: float


@dataclass(order=True, slots=True)
class _Waiting(Generic[T, R]):
    deadline: float
    number: int  # first come, first served among equals
    since: float = field(compare=False)
    kind: Hashable = field(compare=False)
    flow: str = field(compare=False)
    item: T = field(compare=False)
    answer: asyncio.Future[Ran[R]] = field(compare=False)


class Batcher(Generic[T, R]):
    """One queue in the order of deadlines, and lanes that each run one batch at a time.

    It promises: as many answers as inputs; an error reaches every caller of its batch and no
    other; nothing is computed for a caller who has left; and `close` returns only after the last
    caller has an answer. To be used on one event loop.
    """

    def __init__(
        self,
        run: Callable[[int, Sequence[T]], Awaitable[Sequence[R]]],
        *,
        lanes: int,
        max_batch: int,
        clock: Callable[[], float],
        kind: Callable[[T], Hashable] = lambda _: None,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Batch calls of `run(lane, items)`; only items of one `kind` share a batch."""
        self._run = run
        self._lanes = lanes
        self._max_batch = max_batch
        self._clock = clock
        self._kind = kind
        self._on_batch = on_batch
        self._free = list(range(lanes))
        self._queue: list[_Waiting[T, R]] = []
        self._running: set[asyncio.Task[None]] = set()
        self._submitted = 0
        self._turns: OrderedDict[str, int] = OrderedDict()  # flow -> the batch it was last in
        self._turn = 0
        self.service = ServiceTime()

    @property
    def waiting(self) -> int:
        """Count the callers whose batch has not started."""
        return sum(not caller.answer.done() for caller in self._queue)

    @property
    def parallel(self) -> int:
        """Count the callers that can be served at the same moment."""
        return self._lanes * self._max_batch

    @property
    def capacity_per_s(self) -> float:
        """Estimate how many answers a second full batches give; infinite before the first one."""
        seconds = self.service.predict(self._max_batch)
        return self.parallel / seconds if seconds else float("inf")

    async def submit(self, item: T, deadline: float, flow: str = "") -> Ran[R]:
        """Run `item` with whatever else waits; raise `TooLate` when it cannot be in time."""
        self._submitted += 1
        caller = _Waiting[T, R](
            deadline=deadline,
            number=self._submitted,
            since=self._clock(),
            kind=self._kind(item),
            flow=flow,
            item=item,
            answer=asyncio.get_running_loop().create_future(),
        )
        insort(self._queue, caller)
        self._start_batches()
        return await caller.answer

    async def close(self) -> None:
        """Return when everybody has an answer."""
        while self._running:  # a batch that ends starts the next one
            await asyncio.wait(self._running)

    def _start_batches(self) -> None:
        while self._free and (batch := self._next_batch()):
            task = asyncio.create_task(self._run_batch(self._free.pop(), batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _next_batch(self) -> list[_Waiting[T, R]]:
        """Take the next batch off the queue, dropping what cannot be in time."""
        self._queue = [caller for caller in self._queue if not caller.answer.done()]
        while self._queue:
            head, batch = self._queue[0], self._whose_turn_it_is()
            seconds = JITTER_MARGIN * self.service.predict(len(batch))
            if self._clock() + seconds <= head.deadline:
                return self._take(batch)
            idle = len(self._free) == self._lanes and len(self._queue) == 1
            if idle and self._clock() < head.deadline:
                # Nothing runs and nobody else waits. Trying costs nothing, and without it one
                # slow batch could make the prediction refuse everybody for ever.
                return self._take(batch)
            self._queue.pop(0)
            head.answer.set_exception(
                TooLate("no answer could be ready before the deadline", Miss.DROPPED)
            )
        return []

    def _whose_turn_it_is(self) -> list[_Waiting[T, R]]:
        """Choose a batch of one kind: one of each flow, the longest unserved first, then again."""
        places: Counter[str] = Counter()
        keyed = []
        for caller in self._queue:  # in the order of deadlines, which the sort below keeps
            keyed.append(((places[caller.flow], self._turns.get(caller.flow, 0)), caller))
            places[caller.flow] += 1
        keyed.sort(key=itemgetter(0))
        kind = keyed[0][1].kind
        return list(islice((c for _, c in keyed if c.kind == kind), self._max_batch))

    def _take(self, batch: list[_Waiting[T, R]]) -> list[_Waiting[T, R]]:
        taken = {caller.number for caller in batch}
        self._queue = [caller for caller in self._queue if caller.number not in taken]
        self._turn += 1
        for caller in batch:
            self._turns[caller.flow] = self._turn
            self._turns.move_to_end(caller.flow)
        while len(self._turns) > FLOWS_REMEMBERED:
            self._turns.popitem(last=False)
        return batch

    async def _run_batch(self, lane: int, batch: list[_Waiting[T, R]]) -> None:
        started = self._clock()
        try:
            outputs = await self._run(lane, [caller.item for caller in batch])
            if len(outputs) != len(batch):
                raise RuntimeError(f"{len(batch)} inputs gave {len(outputs)} outputs")
        except Exception as error:  # handed on to every caller of this batch
            for caller in batch:
                if not caller.answer.done():
                    caller.answer.set_exception(error)
        else:
            ran_s = self._clock() - started
            self.service.observe(len(batch), ran_s)
            self._on_batch(len(batch))
            for caller, output in zip(batch, outputs, strict=True):
                if not caller.answer.done():
                    caller.answer.set_result(Ran(output, started - caller.since, ran_s))
        finally:
            self._free.append(lane)
            self._start_batches()
