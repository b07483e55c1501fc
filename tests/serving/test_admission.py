"""Who is let in."""

import pytest

from yoloserve.admission import MOST_WAITING, Admission, waiting_limit
from yoloserve.errors import Overloaded, TooLate

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
