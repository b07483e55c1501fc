"""Histograms that are counted by one thread, and read by any.

The client library's take a lock for each number and one more for each bucket on the way to it:
seven of them for each picture took a twentieth of the event loop's time.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Histogram:
    """How many were how large: bucket i holds what is above edge i-1, and no more than edge i."""

    def __init__(self, edges: Sequence[float]) -> None:
        self._edges = edges
        self._counts = [0] * (len(edges) + 1)  # the last one: beyond
        self._sum = 0.0

    def count(self, value: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._edges, value)] += 1
        self._sum += value

    def shown(self) -> tuple[list[tuple[str, float]], float]:
        """Tell them as Prometheus has them, cumulative, and the sum of all."""
        names = [*map(floatToGoString, self._edges), "+Inf"]
        return list(zip(names, map(float, accumulate(self._counts)), strict=True)), self._sum


class Histograms(Collector):
    """A metric: one histogram for each set of labels that came, or a single one without any."""

    def __init__(
        self, name: str, description: str, edges: Sequence[float], labels: Sequence[str] = ()
    ) -> None:
        self._described = name, description
        self._edges = edges
        self._labels = labels
        self._of: dict[tuple[str, ...], Histogram] = {} if labels else {(): Histogram(edges)}

    def observe(self, value: float, *labels: str) -> None:
        """Count one."""
        if (histogram := self._of.get(labels)) is None:
            histogram = self._of[labels] = Histogram(self._edges)
        histogram.count(value)

    def collect(self) -> Iterator[Metric]:
        """Tell what was counted."""
        family = HistogramMetricFamily(*self._described, labels=self._labels)
        for labels, histogram in list(self._of.items()):  # collected on a thread
            family.add_metric(labels, *histogram.shown())
        yield family
