"""The four promises of the batcher, early drop, and the service time it rests on."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from yoloserve.errors import TooLate
from yoloserve.scheduling.admission import Flow
from yoloserve.scheduling.batching import FLOWS_REMEMBERED, JITTER_MARGIN, Batcher, ServiceTime

NEVER = float("inf")


def camera_of(name: str) -> Flow:
    return Flow("client", name)


@dataclass
class Gate:
    """An executor that doubles numbers, each batch when it is let."""

    batches: list[list[int]] = field(default_factory=list)
    may_run: asyncio.Event = field(default_factory=asyncio.Event)
    most_at_once: int = 0
    running: int = 0

    async def __call__(self, _lane: int, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        await self.may_run.wait()
        self.running -= 1
        return [2 * item for item in items]


@pytest.fixture
def gate() -> Gate:
    return Gate()


def batcher_of(run, clock, *, lanes=1, max_batch=4, **options) -> Batcher[int, int]:
    return Batcher(run, lanes=lanes, max_batch=max_batch, clock=clock, **options)


async def submitted(batcher: Batcher[int, int], *items: int, deadline=NEVER) -> list[asyncio.Task]:
    """Submit in this order, and return when all of them wait or run; no time passes."""
    tasks = [asyncio.create_task(batcher.submit(item, deadline)) for item in items]
    await asyncio.sleep(0)  # lets the callers run up to their wait,
    await asyncio.sleep(0)  # and the batches that they started up to theirs
    return tasks


async def test_each_caller_gets_the_answer_to_its_own_question(gate, clock) -> None:
    batcher = batcher_of(gate, clock)
    tasks = await submitted(batcher, *range(10))
    gate.may_run.set()
    assert [ran.output for ran in await asyncio.gather(*tasks)] == [2 * n for n in range(10)]


async def test_what_comes_while_one_batch_runs_is_the_next_one(gate, clock) -> None:
    batcher = batcher_of(gate, clock)
    tasks = await submitted(batcher, *range(7))
    gate.may_run.set()
    await asyncio.gather(*tasks)
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6]]


async def test_each_lane_runs_one_batch_at_a_time(gate, clock) -> None:
    batcher = batcher_of(gate, clock, lanes=2, max_batch=1)
    tasks = await submitted(batcher, *range(6))
    gate.may_run.set()
    await asyncio.gather(*tasks)
    assert gate.most_at_once == 2


async def test_as_many_answers_as_inputs_or_an_error_for_all(clock) -> None:
    async def forgets_one(_lane: int, items: Sequence[int]) -> list[int]:
        return list(items[1:])

    batcher = batcher_of(forgets_one, clock)
    with pytest.raises(RuntimeError, match="1 inputs gave 0 outputs"):
        await batcher.submit(1, NEVER)


async def test_an_error_reaches_every_caller_of_its_batch_and_no_other(clock) -> None:
    async def fails_on_three(_lane: int, items: Sequence[int]) -> list[int]:
        await asyncio.sleep(0)
        if 3 in items:
            raise ValueError("three")
        return list(items)

    batcher = batcher_of(fails_on_three, clock, max_batch=3)
    tasks = await submitted(batcher, *range(8))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [number for number, result in enumerate(results) if isinstance(result, ValueError)]
    assert failed == [1, 2, 3]
    assert [r.output for r in results if not isinstance(r, ValueError)] == [0, 4, 5, 6, 7]


async def test_nothing_is_computed_for_a_caller_who_left(gate, clock) -> None:
    batcher = batcher_of(gate, clock)
    tasks = await submitted(batcher, 0, 1, 2, 3)
    tasks[2].cancel()
    await asyncio.wait([tasks[2]])
    assert batcher.waiting == 2
    gate.may_run.set()
    await asyncio.gather(tasks[0], tasks[1], tasks[3])
    assert gate.batches == [[0], [1, 3]]


async def test_closing_waits_until_the_last_caller_has_an_answer(gate, clock) -> None:
    batcher = batcher_of(gate, clock, max_batch=1)
    tasks = await submitted(batcher, 1, 2, 3)
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    assert not closing.done()
    gate.may_run.set()
    await closing
    assert [task.result().output for task in tasks] == [2, 4, 6]


async def test_only_items_of_one_kind_share_a_batch(gate, clock) -> None:
    batcher = batcher_of(gate, clock, kind=lambda item: item % 2)
    tasks = await submitted(batcher, 0, 1, 2, 3, 4)
    gate.may_run.set()
    await asyncio.gather(*tasks)
    assert gate.batches == [[0], [1, 3], [2, 4]]


async def test_the_nearest_deadline_goes_first(gate, clock) -> None:
    batcher = batcher_of(gate, clock, max_batch=1)
    tasks = await submitted(batcher, 0)
    for item, deadline in ((1, 300.0), (2, 200.0), (3, 250.0)):
        tasks += await submitted(batcher, item, deadline=deadline)
    gate.may_run.set()
    await asyncio.gather(*tasks)
    assert gate.batches == [[0], [2], [3], [1]]


async def test_cameras_take_turns(gate, clock) -> None:
    batcher = batcher_of(gate, clock, max_batch=1)
    tasks = [asyncio.create_task(batcher.submit(n, NEVER, camera_of("loud"))) for n in range(4)]
    await asyncio.sleep(0)
    tasks += [
        asyncio.create_task(batcher.submit(n, NEVER, camera_of(c)))
        for n, c in ((10, "a"), (20, "b"))
    ]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(batcher.submit(11, NEVER, camera_of("a"))))
    await asyncio.sleep(0)
    gate.may_run.set()
    await asyncio.gather(*tasks)
    assert gate.batches == [[0], [10], [20], [1], [11], [2], [3]]


async def test_a_batch_has_one_of_each_camera_before_two_of_any(gate, clock) -> None:
    batcher = batcher_of(gate, clock, max_batch=3)
    tasks = [asyncio.create_task(batcher.submit(n, NEVER, camera_of("loud"))) for n in range(4)]
    await asyncio.sleep(0)
    tasks += [
        asyncio.create_task(batcher.submit(n, NEVER, camera_of(c)))
        for n, c in ((10, "a"), (20, "b"))
    ]
    await asyncio.sleep(0)
    gate.may_run.set()
    await asyncio.gather(*tasks)
    assert [sorted(batch) for batch in gate.batches] == [[0], [1, 10, 20], [2, 3]]


async def test_a_camera_that_comes_back_does_not_always_go_first(gate, clock) -> None:
    batcher = batcher_of(gate, clock, max_batch=1)
    gate.may_run.set()
    order: list[str] = []

    async def camera(name: str, frames: int) -> None:
        for _ in range(frames):
            await batcher.submit(0, NEVER, camera_of(name))
            order.append(name)

    await asyncio.gather(camera("a", 6), camera("b", 6), camera("loud", 6), camera("loud", 6))
    assert Counter(order[:6]) == {"a": 2, "b": 2, "loud": 2}


async def test_whose_turn_it_was_is_forgotten_in_time(gate, clock) -> None:
    batcher = batcher_of(gate, clock)
    gate.may_run.set()
    for number in range(FLOWS_REMEMBERED + 50):
        await batcher.submit(1, NEVER, camera_of(str(number)))
    assert len(batcher._turns) == FLOWS_REMEMBERED


async def test_a_new_name_is_no_way_to_the_front(gate, clock) -> None:
    """Whoever invents a camera for each picture waits as long as one that keeps its name."""
    batcher = batcher_of(gate, clock, max_batch=1)
    tasks = []
    for number in range(3):
        tasks.append(asyncio.create_task(batcher.submit(number, NEVER, camera_of("honest"))))
        await asyncio.sleep(0)
        invented = camera_of(f"invented {number}")
        tasks.append(asyncio.create_task(batcher.submit(10 + number, NEVER, invented)))
        await asyncio.sleep(0)
    gate.may_run.set()
    await asyncio.gather(*tasks)
    late = asyncio.create_task(batcher.submit(20, NEVER, camera_of("invented 20")))
    gate.may_run.clear()
    await asyncio.sleep(0)
    waits = [
        asyncio.create_task(batcher.submit(number, NEVER, camera_of(name)))
        for number, name in ((30, "honest"), (31, "invented 31"))
    ]
    await asyncio.sleep(0)
    gate.may_run.set()
    await asyncio.gather(late, *waits)
    assert [batch[0] for batch in gate.batches[-2:]] == [30, 31]


async def test_clients_take_turns_however_many_cameras_one_names(gate, clock) -> None:
    batcher = batcher_of(gate, clock, max_batch=1)
    flows = [Flow("many", str(n)) for n in range(6)] + [Flow("one", "a"), Flow("one", "b")]
    tasks = []
    for number, flow in enumerate(flows):
        tasks.append(asyncio.create_task(batcher.submit(number, NEVER, flow)))
        await asyncio.sleep(0)
    gate.may_run.set()
    await asyncio.gather(*tasks)
    assert [batch[0] for batch in gate.batches] == [0, 6, 1, 7, 2, 3, 4, 5]


async def test_all_who_are_late_are_dropped_in_one_pass(gate, clock, monkeypatch) -> None:
    """One look for each of 512 froze the event loop for a tenth of a second."""
    batcher = batcher_of(gate, clock, max_batch=4)
    batcher.service.observe(1, 0.1)
    running = await submitted(batcher, 0)
    late = await submitted(batcher, *range(1, 513), deadline=clock.now + 10)
    in_time = await submitted(batcher, 600, 601, deadline=clock.now + 10_000)
    looks, look = [], batcher._whose_turn_it_is
    monkeypatch.setattr(batcher, "_whose_turn_it_is", lambda: looks.append(1) or look())
    clock.now += 50
    gate.may_run.set()
    await asyncio.gather(*running, *in_time)
    told = await asyncio.gather(*late, return_exceptions=True)
    assert all(isinstance(each, TooLate) for each in told)
    assert gate.batches == [[0], [600, 601]]
    assert len(looks) <= 1 + batcher._max_batch


async def test_dropping_many_drops_nobody_whom_a_smaller_batch_would_serve(gate, clock) -> None:
    batcher = batcher_of(gate, clock, max_batch=4)
    for size in (1, 2, 4):
        batcher.service.observe(size, 1.0 * size)
    running = await submitted(batcher, 0)
    hopeless = await submitted(batcher, *range(10, 30), deadline=clock.now + 1)
    tight = await submitted(batcher, 1, 2, deadline=clock.now + 1 + 2 * JITTER_MARGIN)
    clock.now += 1
    gate.may_run.set()
    await asyncio.gather(*running, *tight)
    await asyncio.gather(*hopeless, return_exceptions=True)
    assert gate.batches == [[0], [1, 2]]


async def test_a_batch_is_predicted_by_what_is_in_it(gate, clock) -> None:
    """Half the pixels take half the time: small ones are not dropped for what large ones took."""
    batcher = batcher_of(gate, clock, max_batch=1, work=float)
    for work in (1, 2, 4):
        batcher.learn([work], 1.0 * work)
    running = await submitted(batcher, 1)
    small = await submitted(batcher, 1, deadline=clock.now + 1 + JITTER_MARGIN + 0.01)
    large = await submitted(batcher, 4, deadline=clock.now + 1 + 2 * JITTER_MARGIN)
    patient = await submitted(batcher, 1)
    clock.now += 1
    gate.may_run.set()
    await asyncio.gather(*running, *small, *patient)
    with pytest.raises(TooLate):
        await large[0]


async def test_who_cannot_be_in_time_is_dropped_before_any_work(gate, clock) -> None:
    batcher = batcher_of(gate, clock, max_batch=1)
    batcher.service.observe(1, 1.0)
    running = await submitted(batcher, 0)
    late = await submitted(batcher, 1, deadline=clock.now + 1 + JITTER_MARGIN - 0.01)
    in_time = await submitted(batcher, 2, deadline=clock.now + 1 + JITTER_MARGIN + 0.01)
    clock.now += 1
    gate.may_run.set()
    await asyncio.gather(*running, *in_time)
    with pytest.raises(TooLate):
        await late[0]
    assert gate.batches == [[0], [2]]


async def test_the_prediction_is_for_the_whole_batch_about_to_run(gate, clock) -> None:
    batcher = batcher_of(gate, clock, max_batch=4)
    batcher.service.observe(1, 1.0)
    running = await submitted(batcher, 0)
    # Alone it would be in time; the batch of four it would run in would not.
    hasty = await submitted(batcher, 1, deadline=clock.now + 2)
    patient = await submitted(batcher, 2, 3, 4)
    gate.may_run.set()
    await asyncio.gather(*running, *patient)
    with pytest.raises(TooLate):
        await hasty[0]


async def test_one_slow_batch_does_not_make_an_idle_server_refuse_for_ever(gate, clock) -> None:
    batcher = batcher_of(gate, clock)
    batcher.service.observe(1, 3600.0)
    gate.may_run.set()
    for _ in range(200):
        await batcher.submit(1, clock.now + 1)
    assert batcher.service.predict(1) < 1


async def test_an_idle_server_does_not_start_what_is_late_already(gate, clock) -> None:
    batcher = batcher_of(gate, clock)
    with pytest.raises(TooLate):
        await batcher.submit(1, clock.now - 1)
    assert gate.batches == []


async def test_the_time_in_the_queue_is_told_apart_from_the_time_in_the_engine(clock) -> None:
    async def takes_two_seconds(_lane: int, items: Sequence[int]) -> list[int]:
        await asyncio.sleep(0)
        clock.now += 2
        return list(items)

    batcher = batcher_of(takes_two_seconds, clock, max_batch=1)
    first, second = await asyncio.gather(*await submitted(batcher, 1, 2))
    assert (first.queued_s, first.ran_s) == (0, 2)
    assert (second.queued_s, second.ran_s) == (2, 2)


async def test_each_batch_is_told_once_with_its_size_and_seconds(clock) -> None:
    told: list[tuple[int, float]] = []

    async def takes_half_a_second_each(_lane: int, items: Sequence[int]) -> list[int]:
        clock.now += len(items) / 2
        return list(items)

    batcher = batcher_of(
        takes_half_a_second_each, clock, on_batch=lambda size, seconds: told.append((size, seconds))
    )
    await asyncio.gather(*await submitted(batcher, *range(5)))
    assert told == [(1, 0.5), (4, 2)]


def test_a_straight_line_is_learned() -> None:
    service = ServiceTime()
    for _ in range(50):
        for size in (1, 2, 4, 8):
            service.observe(size, 0.003 + 0.0114 * size)
    assert service.predict(8) == pytest.approx(0.003 + 0.0114 * 8)
    assert service.predict(16) == pytest.approx(0.003 + 0.0114 * 16)


def test_from_one_size_alone_bigger_ones_are_taken_to_cost_in_proportion() -> None:
    service = ServiceTime()
    service.observe(2, 0.1)
    assert service.predict(1) == pytest.approx(0.1)
    assert service.predict(8) == pytest.approx(0.4)


def test_old_batches_fade() -> None:
    service = ServiceTime()
    service.observe(1, 10.0)
    for _ in range(200):
        service.observe(1, 0.1)
    assert service.predict(1) == pytest.approx(0.1, rel=0.1)


def test_nothing_is_predicted_before_anything_was_seen(gate, clock) -> None:
    assert ServiceTime().predict(4) == 0
    assert batcher_of(gate, clock).capacity_per_s == NEVER


def test_capacity_is_what_full_batches_on_all_lanes_give(gate, clock) -> None:
    batcher = batcher_of(gate, clock, lanes=2, max_batch=4)
    for size in (1, 4):
        batcher.service.observe(size, 0.1 * size)
    assert batcher.capacity_per_s == pytest.approx(20)
