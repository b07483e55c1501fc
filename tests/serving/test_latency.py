"""The histogram by which two revisions are compared."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from yoloserve.telemetry.latency import EDGES, Latency

SECONDS = st.floats(0, 60)


def counted(*times: float) -> Latency:
    latency = Latency()
    for seconds in times:
        latency.count(seconds)
    return latency


def test_a_bucket_holds_its_upper_edge() -> None:
    assert counted(EDGES[3]).buckets() == {"first": 3, "counts": [1]}
    assert counted(math.nextafter(EDGES[3], 1)).buckets() == {"first": 4, "counts": [1]}
    assert counted(0).buckets() == {"first": 0, "counts": [1]}
    assert counted(11).buckets() == {"first": 98, "counts": [1]}
    assert counted().buckets() == {"first": 0, "counts": []}


@given(st.lists(SECONDS))
def test_every_time_is_counted_once_and_shown_as_it_is_told(times: list[float]) -> None:
    latency = counted(*times)
    buckets, (shown, total) = latency.buckets(), latency.shown()
    assert sum(buckets["counts"]) == len(times) == shown[-1][1]
    assert math.isclose(total, sum(times), abs_tol=1e-9)
    alone = np.diff([0, *(count for _, count in shown)])
    first, counts = buckets["first"], buckets["counts"]
    assert alone[first : first + len(counts)].tolist() == counts
    assert alone.sum() == sum(counts)


def test_a_ratio_of_quantiles_is_measured_within_a_hundredth() -> None:
    rng = np.random.default_rng(12)
    for median in (0.004, 0.03, 0.2):
        one = median * np.exp(rng.normal(0, 0.35, 40_000))
        fast, slow = counted(*one), counted(*(1.3 * one))
        assert abs(quantile(slow) / quantile(fast) - 1.3) < 0.013


def quantile(latency: Latency, share: float = 0.99) -> float:
    """Read a quantile as Prometheus does: as if times were evenly spread within a bucket."""
    shown, _ = latency.shown()
    counts = [count for _, count in shown]
    rank = share * counts[-1]
    edges = [0.0, *EDGES]
    at = next(number for number, count in enumerate(counts) if count >= rank)
    before = counts[at - 1] if at else 0
    part = (rank - before) / (counts[at] - before)
    return edges[at] + part * (edges[at + 1] - edges[at])
