"""Who is let in, and who has to make room for others."""

from contextlib import ExitStack

import pytest

from yoloserve.admission import (
    MOST_REMEMBERED,
    MOST_WAITING,
    RECENT_S,
    Admission,
    Quotas,
    waiting_limit,
)
from yoloserve.errors import Overloaded, OverQuota, TooLate

LATER = 1e9


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


def test_places_are_kept_for_each_camera_that_came_lately(clock) -> None:
    admission = Admission(lambda: 7, clock)
    for camera in ("a", "b", "loud"):
        admission.check(camera)
    with ExitStack() as inside:
        for _ in range(3):
            inside.enter_context(admission.admit(LATER, "loud"))
        with pytest.raises(Overloaded, match="4 places left are kept"):
            admission.check("loud")
        for camera in ("a", "b", "a", "b"):
            inside.enter_context(admission.admit(LATER, camera))
        with pytest.raises(Overloaded, match="7 are allowed"):
            admission.check("late")


def test_what_no_other_camera_needs_one_camera_may_have(clock) -> None:
    admission = Admission(lambda: 5, clock)
    admission.check("a")
    clock.now += RECENT_S + 1  # it has gone
    with ExitStack() as inside:
        for _ in range(5):
            inside.enter_context(admission.admit(LATER, "loud"))
        assert admission.inside == 5


def test_more_cameras_than_places_have_one_each(clock) -> None:
    admission = Admission(lambda: 3, clock)
    for camera in "abcdef":
        admission.check(camera)
    with ExitStack() as inside:
        for camera in "abc":
            inside.enter_context(admission.admit(LATER, camera))
            with pytest.raises(Overloaded):
                admission.check(camera)


def test_names_without_end_take_no_memory_without_end(clock) -> None:
    admission, quotas = Admission(lambda: 5, clock), Quotas(clock)
    for number in range(MOST_REMEMBERED + 100):
        admission.check(str(number))
        quotas.take(str(number), 1)
    assert len(admission._seen) == len(quotas._buckets) == MOST_REMEMBERED
    with admission.admit(LATER, "x"):
        pass
    assert not admission._places


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


def test_a_quota_below_one_a_second_lets_one_through_now_and_then(clock) -> None:
    quotas = Quotas(clock)
    quotas.take("a", 0.1)
    with pytest.raises(OverQuota) as refused:
        quotas.take("a", 0.1)
    assert refused.value.retry_after_s == 10
    clock.now += 10
    quotas.take("a", 0.1)
