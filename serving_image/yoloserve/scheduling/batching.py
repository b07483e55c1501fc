"""Many callers, few calls: batches for whatever runs next, without waiting for company.

The rule is early drop. Whenever a lane is free, look at the request whose deadline is
nearest. If a full batch started now would end after that deadline, the request is dropped at once;
otherwise a batch runs. No delay is ever added: a batch is what has come while the last one ran.

Deadlines say who is dropped; turns say who runs. Clients take turns, and so do the cameras of each,
each with its nearest deadline first, so that a long queue of one is nobody else's wait. Whoever is
new comes after those who wait already: a new name is no way to the front. With one flow, all this
is the order of deadlines.
"""

import asyncio
from bisect import bisect_left, insort
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from operator import attrgetter, itemgetter
from typing import Generic, TypeVar

from yoloserve.errors import Miss, TooLate
from yoloserve.scheduling.admission import ANYBODY, Flow

T = TypeVar("T")
R = TypeVar("R")
OnBatch = Callable[[int, float], None]  # how many ran in one call, and for how many seconds

# Service times vary. With a spread of 10 % the plain prediction lets 1 to 5 % of the answers be
# late under overload; this much more leaves less than 0.1 %, and costs no goodput.
JITTER_MARGIN = 1.25
USUAL_SHARE = 0.05  # of a batch in what items are usually like
FLOWS_REMEMBERED = 1024  # whose turn it was; one that is forgotten is served a little late


class ServiceTime:
    """Seconds that work of size n takes, `a * n + b`, fitted to what was done lately.

    A least-squares fit over exponentially fading sums: each observation costs a few additions.
    """

    def __init__(self, fade: float = 0.95) -> None:
        self._fade = fade
        self._weight = self._n = self._t = self._nn = self._nt = 0.0

    def observe(self, size: float, seconds: float) -> None:
        """Learn that work of `size` took so long."""
        fade = self._fade
        self._weight = self._weight * fade + 1
        self._n = self._n * fade + size
        self._t = self._t * fade + seconds
        self._nn = self._nn * fade + size * size
        self._nt = self._nt * fade + size * seconds

    def predict(self, size: float) -> float:
        """Say how long work of `size` will take; 0 before anything was observed."""
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
    flow: Flow = field(compare=False)
    turn: int = field(compare=False)  # where its flow stands when it is new
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
        work: Callable[[T], float] = lambda _: 1.0,
        usual_s: Callable[[Sequence[R], float], float] = lambda _outputs, seconds: seconds,
        on_batch: OnBatch = lambda _size, _seconds: None,
    ) -> None:
        """Batch calls of `run(lane, items)`; only items of one `kind` share a batch.

        work: of an item, by which the time of its batch is predicted. usual_s: of a batch's
        seconds, those that the next like it would take.
        """
        self._run = run
        self._lanes = lanes
        self._max_batch = max_batch
        self._clock = clock
        self._kind = kind
        self._work = work
        self._usual_s = usual_s
        self._usual_work = 0.0  # of an item; 0 before any was run
        self._on_batch = on_batch
        self._free = list(range(lanes))
        self._queue: list[_Waiting[T, R]] = []
        self._running: set[asyncio.Future[Sequence[R]]] = set()
        self._submitted = 0
        # The batch that a flow, or a client, was last in.
        self._turns: OrderedDict[Flow | str, int] = OrderedDict()
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
        seconds = self.service.predict(self._max_batch * (self._usual_work or 1.0))
        return self.parallel / seconds if seconds else float("inf")

    def learn(self, items: Sequence[T], seconds: float) -> None:
        """Observe how long a batch took."""
        work = sum(map(self._work, items))
        self.service.observe(work, seconds)
        usual = work / len(items)
        self._usual_work += (usual - self._usual_work) * (USUAL_SHARE if self._usual_work else 1)

    async def submit(self, item: T, deadline: float, flow: Flow = ANYBODY) -> Ran[R]:
        """Run `item` with whatever else waits; raise `TooLate` when it cannot be in time."""
        self._submitted += 1
        caller: _Waiting[T, R] = _Waiting(
            deadline=deadline,
            number=self._submitted,
            since=self._clock(),
            kind=self._kind(item),
            flow=flow,
            turn=self._turn - 1,  # before who was served just now, and nobody else
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
            lane, started = self._free.pop(), self._clock()
            ran = asyncio.ensure_future(self._run(lane, [caller.item for caller in batch]))
            self._running.add(ran)
            ran.add_done_callback(partial(self._ended, lane, batch, started))

    def _next_batch(self) -> list[_Waiting[T, R]]:
        """Take the next batch off the queue, dropping what cannot be in time."""
        self._queue = [caller for caller in self._queue if not caller.answer.done()]
        while self._queue:
            batch, now = self._whose_turn_it_is(), self._clock()
            ends = now + JITTER_MARGIN * self._predicted(batch)
            late = bisect_left(self._queue, ends, key=attrgetter("deadline"))
            if not late:
                return self._take(batch)
            idle = len(self._free) == self._lanes and len(self._queue) == 1
            if idle and now < self._queue[0].deadline:
                # Nothing runs and nobody else waits. Trying costs nothing, and without it one
                # slow batch could make the prediction refuse everybody for ever.
                return self._take(batch)
            # As long as a full batch remains, the prediction does too, and they go all at once.
            self._drop(min(late, max(1, len(self._queue) - self._max_batch)))
        return []

    def _drop(self, count: int) -> None:
        for caller in self._queue[:count]:
            caller.answer.set_exception(
                TooLate("no answer could be ready before the deadline", Miss.DROPPED)
            )
        del self._queue[:count]

    def _predicted(self, batch: Sequence[_Waiting[T, R]]) -> float:
        return self.service.predict(sum(self._work(caller.item) for caller in batch))

    def _whose_turn_it_is(self) -> list[_Waiting[T, R]]:
        """Choose a batch of one kind: one of each, the longest unserved first, then again.

        One of each client, that is; and which of theirs is told in the same way by their cameras.
        """
        if len(self._queue) == 1:
            return self._queue[:]
        places: Counter[Flow] = Counter()
        by_client: defaultdict[str, list[tuple[tuple[int, int], _Waiting[T, R]]]]
        by_client = defaultdict(list)
        for caller in self._queue:  # in the order of deadlines, which the sorts below keep
            turn = self._turns.get(caller.flow, caller.turn)
            by_client[caller.flow.client].append(((places[caller.flow], turn), caller))
            places[caller.flow] += 1
        keyed = []
        for client, own in by_client.items():
            own.sort(key=itemgetter(0))
            for number, (_, caller) in enumerate(own):
                turn = self._turns.get(client, caller.turn)
                keyed.append(((number, turn, caller.deadline, caller.number), caller))
        keyed.sort(key=itemgetter(0))
        kind = keyed[0][1].kind
        return list(islice((c for _, c in keyed if c.kind == kind), self._max_batch))

    def _take(self, batch: list[_Waiting[T, R]]) -> list[_Waiting[T, R]]:
        taken = {caller.number for caller in batch}
        self._queue = [caller for caller in self._queue if caller.number not in taken]
        self._turn += 1
        for caller in batch:
            for whose in (caller.flow, caller.flow.client):
                self._turns[whose] = self._turn
                self._turns.move_to_end(whose)
        while len(self._turns) > FLOWS_REMEMBERED:
            self._turns.popitem(last=False)
        return batch

    def _ended(
        self,
        lane: int,
        batch: list[_Waiting[T, R]],
        started: float,
        ran: asyncio.Future[Sequence[R]],
    ) -> None:
        self._running.discard(ran)
        try:
            outputs = ran.result()
            if len(outputs) != len(batch):
                raise RuntimeError(f"{len(batch)} inputs gave {len(outputs)} outputs")
        except (Exception, asyncio.CancelledError) as error:  # handed on to all of this batch
            for caller in batch:
                if not caller.answer.done():
                    caller.answer.set_exception(error)
        else:
            ran_s = self._clock() - started
            self.learn([caller.item for caller in batch], self._usual_s(outputs, ran_s))
            self._on_batch(len(batch), ran_s)
            for caller, output in zip(batch, outputs, strict=True):
                if not caller.answer.done():
                    caller.answer.set_result(Ran(output, started - caller.since, ran_s))
        finally:
            self._free.append(lane)
            self._start_batches()
