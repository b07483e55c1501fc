"""Who is let in, and who has to make room for others."""

from collections import Counter
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yoloserve.errors import Overloaded, OverQuota, TooLate
from yoloserve.scheduling.admission import (
    ANYBODY,
    MOST_KEPT,
    MOST_REMEMBERED,
    MOST_WAITING,
    RECENT_S,
    REGULAR,
    Admission,
    Flow,
    Quotas,
    slowest,
    waiting_limit,
)

LATER = 1e9


def camera_of(name: str) -> Flow:
    return Flow("client", name)


def let_in(admission: Admission, *flows: Flow) -> None:
    """Let each in, and out again, as often as those that come regularly."""
    for flow in flows * REGULAR:
        with admission.admit(LATER, flow):
            pass


def test_as_many_as_allowed_come_in_and_the_next_is_turned_away(clock) -> None:
    admission = Admission(lambda: 2, clock)
    with admission.admit(LATER), admission.admit(LATER):
        with pytest.raises(Overloaded, match="2 are allowed"), admission.admit(LATER):
            raise AssertionError("it came in")
        assert admission.inside == 2


def test_who_leaves_makes_room_even_by_an_error(clock) -> None:
    admission = Admission(lambda: 1, clock)
    with pytest.raises(KeyError), admission.admit(LATER):
        raise KeyError
    assert admission.inside == 0
    with admission.admit(LATER):
        assert admission.inside == 1


def test_the_seconds_inside_grow_by_as_many_as_are_inside(clock) -> None:
    admission = Admission(lambda: 9, clock)
    with admission.admit(LATER):
        clock.now += 2
        with admission.admit(LATER), admission.admit(LATER):
            clock.now += 0.5
            assert admission.inside_s == pytest.approx(3.5)
        clock.now += 1
    clock.now += 60
    assert admission.inside_s == pytest.approx(4.5)


def test_a_deadline_in_the_past_is_told_before_any_work(clock) -> None:
    admission = Admission(lambda: 1, clock)
    with pytest.raises(TooLate), admission.admit(clock.now):
        raise AssertionError("it came in")
    assert admission.inside == 0


def test_the_limit_follows_the_speed_of_the_server(clock) -> None:
    limits = iter((1, 1, 2))
    admission = Admission(lambda: next(limits), clock)
    with admission.admit(LATER):
        with pytest.raises(Overloaded):
            admission.check()
        admission.check()


@pytest.mark.parametrize(
    ("capacity_per_s", "deadline_s", "limit"),
    [
        (80, 0.5, 20),  # what can be answered in half of the time
        (1, 0.5, 1),  # a slow server still has a place to wait
        (float("inf"), 0.5, MOST_WAITING),  # nothing was measured yet
        (100_000, 1, MOST_WAITING),  # memory is bounded however fast the device
    ],
)
def test_the_queue_is_as_long_as_half_of_a_deadline(
    capacity_per_s: float, deadline_s: float, limit: int
) -> None:
    assert waiting_limit(capacity_per_s, deadline_s) == limit


@pytest.mark.parametrize(
    ("flow_of", "others"), [(camera_of, "cameras"), (lambda name: Flow(name), "clients")]
)
def test_places_are_kept_for_each_that_was_let_in_lately(clock, flow_of, others: str) -> None:
    admission = Admission(lambda: 7, clock)
    let_in(admission, *map(flow_of, ("a", "b", "loud")))
    with ExitStack() as inside:
        for _ in range(3):
            inside.enter_context(admission.admit(LATER, flow_of("loud")))
        with pytest.raises(Overloaded, match=f"4 places left are kept for {others}"):
            admission.check(flow_of("loud"))
        for camera in ("a", "b", "a", "b"):
            inside.enter_context(admission.admit(LATER, flow_of(camera)))
        with pytest.raises(Overloaded, match="7 are allowed"):
            admission.check(flow_of("late"))


def test_names_that_were_never_let_in_take_no_places(clock) -> None:
    admission = Admission(lambda: 23, clock)
    for number in range(30):
        admission.check(Flow("other", f"invented {number}"))
    with admission.admit(LATER, camera_of("a")), admission.admit(LATER, camera_of("a")):
        assert admission.inside == 2


@pytest.mark.parametrize("other", [lambda n: Flow(f"client {n}"), lambda n: Flow("gate", str(n))])
def test_who_came_once_keeps_half_of_an_idle_server_at_most(clock, other) -> None:
    admission = Admission(lambda: 23, clock)
    for number in range(30):
        with admission.admit(LATER, other(number)):
            pass
    with ExitStack() as inside:
        for _ in range(12):
            inside.enter_context(admission.admit(LATER, Flow("gate", "north")))
        with pytest.raises(Overloaded, match="the 11 places left are kept"):
            admission.check(Flow("gate", "north"))


def test_cameras_that_a_client_invents_take_no_places_from_another(clock) -> None:
    admission = Admission(lambda: 23, clock)
    let_in(admission, *(Flow("other", f"invented {number}") for number in range(30)))
    with ExitStack() as inside:
        for _ in range(21):  # all but the two that are kept for the other client
            inside.enter_context(admission.admit(LATER, camera_of("a")))
        with pytest.raises(Overloaded, match="2 places left are kept for clients"):
            admission.check(camera_of("a"))


def test_what_no_other_camera_needs_one_camera_may_have(clock) -> None:
    admission = Admission(lambda: 5, clock)
    let_in(admission, camera_of("a"))
    clock.now += RECENT_S + 1  # it has gone
    with ExitStack() as inside:
        for _ in range(5):
            inside.enter_context(admission.admit(LATER, camera_of("loud")))
        assert admission.inside == 5


def test_more_cameras_than_places_have_one_each(clock) -> None:
    admission = Admission(lambda: 3, clock)
    let_in(admission, *map(camera_of, "abcdef"))
    with ExitStack() as inside:
        for camera in "abc":
            inside.enter_context(admission.admit(LATER, camera_of(camera)))
            with pytest.raises(Overloaded):
                admission.check(camera_of(camera))


def test_names_without_end_take_no_memory_without_end(clock) -> None:
    admission, quotas = Admission(lambda: 5, clock), Quotas(clock)
    for number in range(MOST_REMEMBERED + 100):
        let_in(admission, Flow(str(number % 3), str(number)))
        quotas.take(str(number), 1)
    assert len(admission._let_in) == len(quotas._buckets) == MOST_REMEMBERED
    assert sum(map(len, admission._cameras.values())) == MOST_REMEMBERED
    clock.now += RECENT_S + 1
    let_in(admission, ANYBODY)
    assert list(admission._let_in) == [ANYBODY]
    assert list(admission._cameras) == [ANYBODY.client]


def by_definition(
    admission: Admission, flow: Flow, times: Counter[Flow], inside: list[Flow]
) -> bool:
    """Say whether `flow` comes in, by counting everybody each time."""

    limit = admission._limit()
    free = limit - len(inside)

    def spares(name: Any, places: Counter[Any], came: Counter[Any]) -> bool:
        level = min(places[name], MOST_KEPT)
        short = {each: max(0, level - places[each]) for each in came}
        passing = sum(short[each] for each in came if came[each] < REGULAR)
        regular = sum(short[each] for each in came if came[each] >= REGULAR)
        return free > regular + min(passing, limit // 2)

    clients = Counter(each.client for each in inside)
    came = Counter(each.client for each in times.elements())
    mine = Counter({each: times[each] for each in times if each.client == flow.client})
    return free > 0 and (
        not clients[flow.client]
        or (spares(flow.client, clients, came) and spares(flow, Counter(inside), mine))
    )


FLOWS = st.builds(Flow, st.sampled_from("ab"), st.sampled_from("xyz")) | st.builds(
    Flow, st.sampled_from("cdefg")
)


@given(st.integers(1, 9), st.lists(st.tuples(st.booleans(), FLOWS, st.integers(0, 9)), max_size=60))
def test_places_are_kept_as_if_everybody_were_counted_each_time(limit, events) -> None:
    """Events: somebody comes, or else one of those inside leaves."""
    admission = Admission(lambda: limit, lambda: 0.0)
    inside: list[tuple[Flow, Any]] = []
    times: Counter[Flow] = Counter()
    for comes, flow, leaver in events:
        if not comes and inside:
            _, place = inside.pop(leaver % len(inside))
            place.__exit__(None, None, None)
            continue
        place = admission.admit(LATER, flow)
        wanted = by_definition(admission, flow, times, [each for each, _ in inside])
        try:
            place.__enter__()
        except Overloaded:
            assert not wanted
            continue
        assert wanted
        times[flow] += 1
        inside.append((flow, place))


def test_the_slowest_stage_says_what_a_second_gives() -> None:
    assert slowest(1000.0, (2, 0.02), (1, 0.001)) == pytest.approx(100)
    assert slowest(50.0, (2, 0.02), (1, 0.001)) == 50
    assert slowest(1000.0, (2, 0.0), (1, 0.01)) == pytest.approx(100)
    assert slowest(float("inf"), (2, 0.0)) == float("inf")  # nothing was measured yet


def test_a_quota_is_so_many_a_second_and_as_many_at_once(clock) -> None:
    quotas = Quotas(clock)
    for _ in range(4):
        quotas.take("a", 4)
    with pytest.raises(OverQuota) as refused:
        quotas.take("a", 4)
    assert refused.value.retry_after_s == 1
    quotas.take("b", 4)  # another client has a bucket of its own
    clock.now += 0.25
    quotas.take("a", 4)
    with pytest.raises(OverQuota):
        quotas.take("a", 4)
    clock.now += 3600  # a bucket does not fill beyond its size
    for _ in range(4):
        quotas.take("a", 4)
    with pytest.raises(OverQuota):
        quotas.take("a", 4)


def test_a_batch_larger_than_the_quota_is_served_and_paid_for_afterwards(clock) -> None:
    quotas = Quotas(clock)
    quotas.take("a", 2, images=6)
    with pytest.raises(OverQuota) as refused:
        quotas.take("a", 2)
    assert refused.value.retry_after_s == 3  # -4 to 1, at 2 a second
    clock.now += 2.5
    quotas.take("a", 2)


@pytest.mark.parametrize("per_second", [0.5, 1, 2, 4.5])
@pytest.mark.parametrize("images", [2, 3, 5, 16])
def test_a_batch_whose_first_image_is_paid_for_is_served_once_the_bucket_is_full(
    clock, per_second: float, images: int
) -> None:
    """A refusal tells how long that takes: for the first one, and then for all."""
    quotas = Quotas(clock)

    def send() -> float:
        try:
            quotas.take("a", per_second)
            quotas.take("a", per_second, images - 1, paid=1)
        except OverQuota as refused:
            return refused.retry_after_s
        return 0

    assert send() == 0
    refusals = 0
    while wait_s := send():
        clock.now += wait_s
        refusals += 1
    assert refusals <= 2


def test_of_two_batches_that_come_at_a_time_one_is_served_whenever_the_bucket_is_full(
    clock,
) -> None:
    quotas, waiting, rounds = Quotas(clock), {"first", "second"}, 0
    while waiting:
        wait_s, come = 0.0, []
        for each in sorted(waiting):  # the heads of both, then the bodies of both
            try:
                quotas.take("a", 4)
                come.append(each)
            except OverQuota as refused:
                wait_s = max(wait_s, refused.retry_after_s)
        for each in come:
            try:
                quotas.take("a", 4, 4, paid=1)
                waiting.remove(each)
            except OverQuota as refused:
                wait_s = max(wait_s, refused.retry_after_s)
        clock.now += wait_s
        rounds += 1
        assert rounds <= 4, "each waits for what the other one spent"


def test_a_quota_of_next_to_nothing_lets_one_through_and_tells_of_a_day(clock) -> None:
    quotas = Quotas(clock)
    quotas.take("gate", 5e-324)
    with pytest.raises(OverQuota) as refused:
        quotas.take("gate", 5e-324)
    assert refused.value.retry_after_s == 86_400


def test_a_quota_below_one_a_second_lets_one_through_now_and_then(clock) -> None:
    quotas = Quotas(clock)
    quotas.take("a", 0.1)
    with pytest.raises(OverQuota) as refused:
        quotas.take("a", 0.1)
    assert refused.value.retry_after_s == 10
    clock.now += 10
    quotas.take("a", 0.1)
