"""Times that can be compared: a histogram whose buckets are all of one factor.

A quantile read from the usual buckets is up to 1.7 times the truth, and so says little about the
ratio of two revisions. By these it is off by a hundredth.
"""

from typing_extensions import TypedDict  # Python 3.11's own cannot be checked against

from yoloserve.telemetry.histograms import Histogram

# Bucket i holds what took longer than edge i-1 and no longer than edge i: 1 ms to 10.3 s.
EDGES = tuple(0.001 * 1.1**number for number in range(98))


class Buckets(TypedDict):
    """Counts by bucket, from the first that has any to the last."""

    first: int
    counts: list[int]


class Latency(Histogram):
    """How many took how long."""

    def __init__(self) -> None:
        super().__init__(EDGES)

    def buckets(self) -> Buckets:
        """Tell the counts, not cumulative."""
        used = [number for number, count in enumerate(self._counts) if count]
        if not used:
            return {"first": 0, "counts": []}
        return {"first": used[0], "counts": self._counts[used[0] : used[-1] + 1]}
