"""The work queue, on a clock that the test moves."""

import asyncio
from datetime import timedelta

import pytest

from yolofleet.runtime.errors import (
    ClusterError,
    Conflict,
    Invalid,
    NotLeading,
    Throttled,
    Unavailable,
    Unfinished,
)
from yolofleet.runtime.queue import (
    AHEAD_S,
    FIRST_BACKOFF_S,
    LONGEST_BACKOFF_S,
    STUCK_S,
    Outcome,
    Priority,
    Workers,
    WorkQueue,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> WorkQueue:
    return WorkQueue(clock=clock, word="detector")


def test_a_key_added_often_is_taken_once(queue: WorkQueue) -> None:
    for _ in range(3):
        queue.add("a")
    assert [queue.take(), queue.take()] == ["a", None]


def test_the_urgent_come_first_and_equals_in_order(queue: WorkQueue) -> None:
    queue.add("resync", Priority.RESYNC)
    queue.add("change-1", Priority.CHANGE)
    queue.add("change-2", Priority.CHANGE)
    queue.add("user", Priority.USER)
    assert [queue.take() for _ in range(4)] == ["user", "change-1", "change-2", "resync"]


@pytest.mark.parametrize(
    ("hot", "cold", "after"),
    [
        (Priority.CHANGE, Priority.RESYNC, AHEAD_S),
        (Priority.USER, Priority.CHANGE, AHEAD_S),
        (Priority.USER, Priority.RESYNC, 2 * AHEAD_S),
    ],
)
def test_the_less_urgent_has_its_turn_while_others_keep_moving(
    hot: Priority, cold: Priority, after: float, queue: WorkQueue, clock: Clock
) -> None:
    """Else a new leader never looks at a detector whose change nobody saw."""
    queue.add("cold", cold)
    taken = []
    while clock.now < 1000 + after + 2:
        queue.add("flapping", hot)
        taken.append(queue.take())
        queue.done(taken[-1])
        clock.now += 1
    assert taken.index("cold") == after
    assert taken.count("cold") == 1


def test_a_key_becomes_more_urgent_but_not_less(queue: WorkQueue) -> None:
    queue.add("a", Priority.RESYNC)
    queue.add("b", Priority.CHANGE)
    queue.add("a", Priority.USER)
    queue.add("a", Priority.RESYNC)
    assert [queue.take(), queue.take(), queue.take()] == ["a", "b", None]


def test_a_key_that_is_worked_on_is_not_given_to_a_second_worker(queue: WorkQueue) -> None:
    queue.add("a")
    assert queue.take() == "a"
    queue.add("a", Priority.USER)
    assert queue.take() is None
    queue.done("a")
    assert queue.take() == "a"
    queue.done("a")
    assert queue.take() is None


def test_of_several_delays_the_earliest_holds(queue: WorkQueue, clock: Clock) -> None:
    queue.add_after("a", 60)
    queue.add_after("a", 10)
    queue.add_after("a", 30)
    clock.now += 10
    assert queue.take() == "a"
    queue.done("a")
    clock.now += 100
    assert queue.take() is None


def test_backoff_doubles_up_to_a_limit_and_ends_with_success(
    queue: WorkQueue, clock: Clock
) -> None:
    delays = []
    for _ in range(30):
        delays.append(queue.retry("a"))
        clock.now += delays[-1]
        assert queue.take() == "a"
        queue.done("a")
    assert delays[:4] == [FIRST_BACKOFF_S * factor for factor in (1, 2, 4, 8)]
    assert delays[-1] == LONGEST_BACKOFF_S
    queue.forget("a")
    assert queue.retry("a") == FIRST_BACKOFF_S


def test_keys_that_nobody_takes_are_told_once_there_are_workers(
    queue: WorkQueue, clock: Clock
) -> None:
    queue.add("a")
    clock.now += 10 * STUCK_S
    assert not queue.stuck()  # a standby
    queue.begin()
    assert not queue.stuck()
    clock.now += STUCK_S + 1
    assert queue.stuck() == "the workers are stuck: 1 detectors wait, none was taken for 151 s"
    queue.take()
    assert not queue.stuck()


def test_workers_without_work_are_not_stuck(queue: WorkQueue, clock: Clock) -> None:
    queue.begin()
    queue.add_after("a", 20 * STUCK_S)
    clock.now += 10 * STUCK_S
    assert not queue.stuck()


async def test_a_waiting_worker_is_woken_by_a_key() -> None:
    queue = WorkQueue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    assert await asyncio.wait_for(waiting, 60) == "a"


async def test_a_waiting_worker_is_woken_when_a_delay_is_over() -> None:
    queue = WorkQueue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add_after("a", 0.01)
    assert await asyncio.wait_for(waiting, 60) == "a"


async def test_a_key_wakes_one_of_the_workers_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    queue, taken = WorkQueue[str](), list[str | None]()
    take = WorkQueue[str].take

    def counted(of: WorkQueue[str]) -> str | None:
        taken.append(take(of))
        return taken[-1]

    monkeypatch.setattr(WorkQueue, "take", counted)
    waiting = [asyncio.create_task(queue.get()) for _ in range(10)]
    await asyncio.sleep(0)
    taken.clear()
    queue.add("a")
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result() for task in done] == ["a"]
    assert taken.count(None) <= 1  # whoever is next looks whether there is more
    for task in waiting:
        task.cancel()


async def test_as_many_workers_wake_as_keys_are_added() -> None:
    queue = WorkQueue()
    waiting = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    for key in "abc":
        queue.add(key)
    assert sorted(await asyncio.gather(*waiting)) == ["a", "b", "c"]


class Counted:
    """Metrics that remember."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []
        self.failures: list[tuple[bool, bool]] = []

    def started(self) -> None:
        pass

    def ended(self, outcome: str, seconds: float) -> None:
        assert seconds >= 0
        self.outcomes.append(outcome)

    def failed(self, error: BaseException, *, terminal: bool, expected: bool) -> None:
        assert error
        self.failures.append((terminal, expected))


async def worked(
    queue: WorkQueue, result: timedelta | ClusterError | Exception | None
) -> tuple[str, Counted]:
    metrics = Counted()

    async def reconcile(_: str) -> timedelta | None:
        if isinstance(result, Exception):
            raise result
        return result

    outcome = await Workers(queue, reconcile, metrics).work_on("a")
    return outcome, metrics


@pytest.mark.parametrize(
    ("result", "outcome", "again_in_s", "failure"),
    [
        (None, Outcome.SUCCESS, None, None),
        (timedelta(seconds=30), Outcome.REQUEUE_AFTER, 30, None),
        (Conflict("stale"), Outcome.REQUEUE, FIRST_BACKOFF_S, None),
        (Throttled("slow down", 7.0), Outcome.ERROR, 7, (False, True)),
        (Unavailable("no answer"), Outcome.ERROR, FIRST_BACKOFF_S, (False, True)),
        (Invalid("spec.replicas"), Outcome.ERROR, LONGEST_BACKOFF_S, (True, True)),
        (Unfinished(Invalid("a")), Outcome.ERROR, LONGEST_BACKOFF_S, (True, True)),
        (Unfinished(Invalid("a"), timedelta(seconds=30)), Outcome.ERROR, 30, (True, True)),
        (Unfinished(Unavailable("a")), Outcome.ERROR, FIRST_BACKOFF_S, (False, True)),
        (ZeroDivisionError("a bug"), Outcome.ERROR, FIRST_BACKOFF_S, (False, False)),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_when_a_key_is_looked_at_again(
    queue: WorkQueue,
    clock: Clock,
    result: timedelta | Exception | None,
    outcome: str,
    again_in_s: float | None,
    failure: tuple[bool, bool] | None,
) -> None:
    got, metrics = await worked(queue, result)
    assert got == outcome
    assert metrics.failures == ([failure] if failure else [])
    if again_in_s is None:
        clock.now += 10 * LONGEST_BACKOFF_S
        assert queue.take() is None
        return
    clock.now += again_in_s * 0.99
    assert queue.take() is None
    clock.now += again_in_s * 0.02
    assert queue.take() == "a"


async def test_a_bug_is_logged_with_its_place(
    queue: WorkQueue, caplog: pytest.LogCaptureFixture
) -> None:
    await worked(queue, ZeroDivisionError("a bug"))
    (record,) = caplog.records
    assert record.exc_info
    assert record.__dict__["fields"]["detector"] == "a"


async def test_lost_leadership_ends_all_workers(queue: WorkQueue) -> None:
    async def reconcile(_: str) -> timedelta | None:
        raise NotLeading("another leads")

    queue.add("a")
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(Workers(queue, reconcile, Counted()).run(3), 60)
    assert raised.group_contains(NotLeading)


async def test_the_same_key_is_never_worked_on_twice_at_once() -> None:
    queue, working, most = WorkQueue(), 0, 0
    finished = asyncio.Event()
    rounds = 0

    async def reconcile(_: str) -> timedelta | None:
        nonlocal working, most, rounds
        working += 1
        most = max(most, working)
        await asyncio.sleep(0.001)
        working -= 1
        rounds += 1
        if rounds == 20:
            finished.set()
        return timedelta(0)

    queue.add("a")
    running = asyncio.create_task(Workers(queue, reconcile, Counted()).run(5))
    await asyncio.wait_for(finished.wait(), 60)
    running.cancel()
    assert most == 1


async def test_reconciles_that_wait_for_nothing_leave_the_loop_to_others() -> None:
    """The Lease is renewed by another task, also while a thousand detectors are looked at."""
    queue, turns, seen = WorkQueue(), 0, []
    finished = asyncio.Event()

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def reconcile(key: str) -> timedelta | None:
        seen.append((key, turns))
        if len(seen) == 100:
            finished.set()
        return None

    for number in range(100):
        queue.add(str(number))
    background = asyncio.create_task(others())
    running = asyncio.create_task(Workers(queue, reconcile, Counted()).run(10))
    await asyncio.wait_for(finished.wait(), 60)
    running.cancel()
    background.cancel()
    assert seen[-1][1] - seen[0][1] >= 9, "each worker has one key a turn"
