"""Latency is judged by whole histograms, also where these are no bells."""

import pytest

from yolofleet.analysis.statistics import is_in_time, is_slow, slowness


def _all_in(bucket: int, n: int) -> tuple[int, ...]:
    return tuple(n if i == bucket else 0 for i in range(99))


@pytest.mark.parametrize("bucket", [0, 1, 25, 97, 98])
@pytest.mark.parametrize("n", [100, 5_000, 1_000_000])
def test_an_engine_that_always_takes_as_long_is_as_fast_as_itself(bucket, n):
    """GPUs do: no bucket has a part of the answers."""
    same = _all_in(bucket, n)
    assert slowness(same, same, 2) <= 0
    assert not is_slow(same, same, 2)
    if n >= 5_000:
        assert is_in_time(same, same, 2)


def test_one_that_always_takes_longer_fails_however_even_it_is():
    assert is_slow(_all_in(25, 2_000), _all_in(28, 2_000), 2)
    assert not is_in_time(_all_in(25, 2_000), _all_in(28, 2_000), 2)
    assert not is_slow(_all_in(25, 2_000), _all_in(27, 2_000), 2)
