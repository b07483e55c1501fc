"""CPU work off the event loop: a pool for images, and one thread for each lane of the engine."""

import asyncio
import math
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

R = TypeVar("R")
CGROUP = Path("/sys/fs/cgroup")


class Lender(Protocol):
    """Lends an amount of something."""

    async def take(self, amount: int) -> None:
        """Return when there is room for so much; it is taken then."""

    def give(self, amount: int) -> None:
        """Give back what was taken; to be called on the event loop."""


class Room:
    """An amount of something, lent in the order of asking: no crowd of small ones passes a big one.

    Of one event loop; not to be used by two threads.
    """

    def __init__(self, size: int) -> None:
        self.size = self.free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, amount: int) -> None:
        """Return when there is room for `amount`, at most `size`; it is taken then."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, turn))
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:
            # Either it was taken in this very moment, or those behind it may fit now.
            self.give(0 if turn.cancelled() else amount)
            raise

    def give(self, amount: int) -> None:
        """Give back what was taken."""
        self.free += amount
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            amount, turn = self._waiting[0]
            if not turn.cancelled():
                if amount > self.free:
                    return
                self.free -= amount
                turn.set_result(None)
            self._waiting.popleft()


class Threads:
    """The process's worker threads. Decoders and engines release the GIL, so threads suffice."""

    def __init__(self, pool: int, lanes: int) -> None:
        self.pool = pool
        self._pool = ThreadPoolExecutor(pool, "image")
        self._big = ThreadPoolExecutor(pool, "big-image")
        # Nobody queues behind those of whom somebody wants all boxes, nor behind their answers.
        self._long = ThreadPoolExecutor(1, "long-finish")
        self._write = ThreadPoolExecutor(1, "write")
        # A lane of its own for each inference request: no runtime is entered by two threads.
        self._lanes = [ThreadPoolExecutor(1, f"lane-{lane}") for lane in range(lanes)]

    def run(self, work: Callable[..., R], *args: object) -> asyncio.Future[R]:
        """Run `work` in the pool."""
        return _run_on(self._pool, work, args)

    def run_long(self, work: Callable[..., R], *args: object) -> asyncio.Future[R]:
        """Run `work` that comes after the engine and takes long: one at a time."""
        return _run_on(self._long, work, args)

    def run_write(self, work: Callable[..., R], *args: object) -> asyncio.Future[R]:
        """Run `work` that writes a long answer."""
        return _run_on(self._write, work, args)

    async def run_within(
        self, room: Lender, amount: int, work: Callable[..., R], *args: object
    ) -> R:
        """Run `work` that needs `amount` of `room`, and never in the way of the pool.

        The thread gives it back, not its caller: one that was cancelled leaves a thread behind
        that still works, and still holds its memory.
        """
        await room.take(amount)
        loop = asyncio.get_running_loop()
        future = self._big.submit(work, *args)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(room.give, amount))
        return await asyncio.wrap_future(future)

    def run_on(self, lane: int, work: Callable[..., R], *args: object) -> asyncio.Future[R]:
        """Run `work` on the thread of this lane."""
        return _run_on(self._lanes[lane], work, args)

    def close(self) -> None:
        """Finish what runs, and end the threads."""
        for executor in (
            self._pool,
            self._big,
            self._long,
            self._write,
            *self._lanes,
        ):
            executor.shutdown()


def _run_on(
    executor: ThreadPoolExecutor, work: Callable[..., R], args: tuple[object, ...]
) -> asyncio.Future[R]:
    """Run `work` on a thread of `executor`, which tells the loop itself.

    As `run_in_executor` does by a second future with a lock of its own, for twice the loop's time.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[R] = loop.create_future()
    try:
        executor.submit(_answer, loop, answer, work, args)
    except RuntimeError as error:  # it was shut down, or the system gives no thread
        _fail(answer, error)
    return answer


def _answer(
    loop: asyncio.AbstractEventLoop,
    answer: asyncio.Future[R],
    work: Callable[..., R],
    args: tuple[object, ...],
) -> None:
    """Work, on a thread; not at all for who has left meanwhile."""
    try:
        if answer.cancelled():
            return
        result = work(*args)
    except BaseException as error:  # handed on to who waits
        loop.call_soon_threadsafe(_fail, answer, error)
        raise  # the executor lets go of what it holds, as the error does of this frame
    else:
        loop.call_soon_threadsafe(_settle, answer, result)
    finally:
        del answer, work, args


def _settle(answer: asyncio.Future[R], result: R) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: asyncio.Future[R], error: BaseException) -> None:
    if not answer.done():
        answer.set_exception(error)


def available_cpus(cgroup: Path = CGROUP) -> int:
    """Count the CPUs this process may use: its container's limit, or the cores it may run on.

    `os.cpu_count()` is the machine's. Threads beyond the limit do not add speed: the kernel stops
    the whole container for the rest of each period. cgroup v2 has `cpu.max` ("200000 100000" or
    "max 100000"), v1 has two files.
    """
    cores = len(os.sched_getaffinity(0))
    try:
        if (limit := cgroup / "cpu.max").exists():
            quota, period = limit.read_text().split()
        else:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text()
        if quota != "max" and int(quota) > 0:
            return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores
    return cores
