"""Times that can be compared: a histogram whose buckets are all of one factor.

A quantile read from the usual buckets is up to 1.7 times the truth, and so says little about the
ratio of two revisions. By these it is off by a hundredth.
"""

from bisect import bisect_left

from prometheus_client.utils import floatToGoString
from typing_extensions import TypedDict  # Python 3.11's own cannot be checked against

# Bucket i holds what took longer than edge i-1 and no longer than edge i: 1 ms to 10.3 s.
EDGES = tuple(0.001 * 1.1**number for number in range(98))
SHOWN = [*map(floatToGoString, EDGES), "+Inf"]


class Buckets(TypedDict):
    """Counts by bucket, from the first that has any to the last."""

    first: int
    counts: list[int]


class Latency:
    """How many took how long; to be counted by one thread, and read by any."""

    def __init__(self) -> None:
        self._counts = [0] * (len(EDGES) + 1)  # the last one: beyond
        self._sum = 0.0

    def count(self, seconds: float) -> None:
        """Count one that took so long."""
        self._counts[bisect_left(EDGES, seconds)] += 1
        self._sum += seconds

    def buckets(self) -> Buckets:
        """Tell the counts, not cumulative."""
        used = [number for number, count in enumerate(self._counts) if count]
        if not used:
            return {"first": 0, "counts": []}
        return {"first": used[0], "counts": self._counts[used[0] : used[-1] + 1]}

    def shown(self) -> tuple[list[tuple[str, float]], float]:
        """Tell them as Prometheus has them, cumulative, and the sum of all."""
        cumulative, total = [], 0
        for edge, count in zip(SHOWN, self._counts, strict=True):
            total += count
            cumulative.append((edge, float(total)))
        return cumulative, self._sum
