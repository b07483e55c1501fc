"""The numbers themselves: what an e-value promises, and where verdicts begin."""

from math import comb, exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolofleet.analysis.statistics import (
    BUCKETS,
    Demand,
    Tally,
    ceiling,
    evidence,
    floor,
    has_failed,
    has_passed,
    is_in_time,
    is_slow,
    looked,
    quantile_ms,
    slower_by,
)

KEPT = Demand(floor(0.9), 150)
ERRORS = Demand(ceiling(0.01), 100, design=3.0, patient=False)


def after(demand, *looks):
    tally = Tally()
    for k, n in looks:
        tally = looked(tally, k, n, demand)
    return tally


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8, 0.9, 0.99])
@pytest.mark.parametrize("beyond", [True, False])
def test_on_the_good_side_of_a_limit_evidence_is_worth_one_at_most(share, beyond):
    """The promise that everything rests on, reckoned out: no mean of e-values is above 1."""
    for limit, worse in ((floor(share), -1), (ceiling(share), 1)):
        weights = limit.beyond if beyond else limit.within
        side = worse if beyond else -worse
        for away in (0.0, 0.02, 0.09):
            p = share - side * away
            if not 0 < p < 1:
                continue
            mean = sum(
                comb(40, k) * p**k * (1 - p) ** (40 - k) * exp(evidence(k, 40, weights, 1.0))
                for k in range(41)
            )
            assert mean <= 1 + 1e-9


@given(st.integers(0, 300), st.integers(1, 300), st.floats(0.1, 0.99))
def test_no_count_is_proved_to_be_on_both_sides(k, n, share):
    k = min(k, n)
    for limit in (floor(share), ceiling(share)):
        beyond, within = (evidence(k, n, w, 1.0) for w in (limit.beyond, limit.within))
        assert min(beyond, within) < log(20)


@pytest.mark.parametrize(
    ("looks", "fails"),
    [
        ([(0, 75), (0, 75)], False),  # the first look had too few objects to say anything
        ([(0, 150)], False),  # one look is none
        ([(0, 150), (0, 1)], True),
        ([(0, 150)] * 2, True),
        ([(582, 600)] * 60 + [(0, 600)] * 5, True),  # it became blind
        ([(470, 600)] * 29, False),  # not gross: scenes drift
        ([(470, 600)] * 31, True),
        ([(582, 600)] * 40 + [(470, 600)] * 25, False),
        ([(582, 600)] * 40 + [(470, 600)] * 45, True),
        ([(545, 600)] * 200, False),
        ([(0, 0)] * 200, False),
    ],
)  # fmt: skip
def test_what_is_lost_fails_once_it_is_proved(looks, fails):
    assert has_failed(after(KEPT, *looks)) is fails


@pytest.mark.parametrize(
    ("looks", "passes"),
    [
        ([(588, 600)] * 5, False),  # a minute at least
        ([(588, 600)] * 6, True),
        ([(24, 25)] * 5, False),  # too few objects
        ([(541, 600)] * 60, False),  # too near the limit
        ([(0, 0)] * 100, False),
    ],
)
def test_what_is_kept_passes_once_it_is_proved(looks, passes):
    assert has_passed(after(KEPT, *looks), KEPT) is passes


@pytest.mark.parametrize(
    ("k", "n", "looks", "fails", "passes"),
    [(0, 200, 5, False, False), (0, 200, 8, False, True), (4, 200, 60, True, False),
     (40, 200, 3, True, False), (1, 10, 2, False, False)],
)  # fmt: skip
def test_errors_are_held_against_their_limit(k, n, looks, fails, passes):
    tally = after(ERRORS, *[(k, n)] * looks)
    assert (has_failed(tally), has_passed(tally, ERRORS)) == (fails, passes)


def test_frames_that_resemble_each_other_tell_less():
    steady = after(KEPT, *[(97, 100)] * 100)
    swinging = after(KEPT, *[(100, 100), (94, 100)] * 20, *[(60, 100), (100, 100)] * 30)
    assert steady.design() == pytest.approx(2.0)  # never less
    assert swinging.design() > 20
    assert Tally().design() == 20.0


def test_many_years_are_no_overflow():
    tally = after(KEPT, *[(0, 10**9)] * 3)
    assert has_failed(tally)


def at(bucket, n, far=0):
    counts = [0] * BUCKETS
    counts[bucket] = n - far
    counts[min(bucket + 20, 98)] += far
    return tuple(counts)


@pytest.mark.parametrize(("ratio", "buckets"), [(1.05, 1), (1.1, 1), (1.2, 2), (1.21, 2), (2, 8)])
def test_a_ratio_is_rounded_up_to_whole_buckets(ratio, buckets):
    assert slower_by(ratio) == buckets


@pytest.mark.parametrize(
    ("stable", "canary", "slow", "in_time"),
    [
        (at(30, 5000), at(30, 5000), False, True),
        (at(30, 5000), at(32, 5000), False, True),
        (at(30, 5000), at(33, 5000), True, False),
        (at(30, 5000), at(30, 5000, far=400), True, False),  # a tail
        (at(30, 99), at(60, 99), False, False),  # too few
        (at(30, 5000), at(25, 5000), False, True),
        (at(98, 5000), at(98, 5000), False, True),
        ((0,) * BUCKETS, at(30, 500), False, False),
        (at(0, 500), (0,) * BUCKETS, False, False),
    ],
)
def test_times_are_compared_in_whole_buckets(stable, canary, slow, in_time):
    assert (is_slow(stable, canary, 2), is_in_time(stable, canary, 2)) == (slow, in_time)


def test_less_has_to_be_proved_of_what_answers_little():
    stable, canary = at(30, 5000, far=50), at(30, 200, far=2)
    assert not is_in_time(stable, canary, 2)
    assert is_in_time(stable, canary, 2, stake=20)


def test_a_quantile_is_told_in_milliseconds():
    assert quantile_ms(at(30, 1000, far=20), 0.5) == pytest.approx(17.45, abs=0.01)
    assert quantile_ms(at(30, 1000, far=20), 0.99) == pytest.approx(117.4, abs=0.1)
    assert quantile_ms((0,) * BUCKETS, 0.5) == 0.0
