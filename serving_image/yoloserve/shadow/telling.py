"""The shadow's counts, as Prometheus sees them."""

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from yoloserve.shadow.pairs import SIZES
from yoloserve.shadow.tally import Outcome, Rows, Tallies, Tally

Shown = Iterable[tuple[str, Tally]]
"""Each with its canary's name."""

BY_SIZE: Final = {
    "kept": "Objects that this revision is sure of, and that the canary found too",
    "expected": "Objects that this revision is sure of",
}
BY_CLASS: Final = {
    "sure": "Objects of the canary: kept, or sure and not nearly found by this revision",
    "only_stable": "Sure objects of a class that the canary's model does not know",
    "only_canary": "Sure objects of the canary of a class that only its model knows",
}
PICTURES: Final = {
    "blind": "Of those seen, pictures in which the canary found nothing",
    "seen": "Pictures in which this revision is sure of something",
}


class Comparisons(Collector):
    """What comparing with each canary has come to."""

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies

    def collect(self) -> Iterator[Metric]:
        """Tell the counts.

        On a thread, while pictures go on being compared: parts are read before their wholes, so
        that they are never more.
        """
        tallies = self._tallies.items()
        yield _frames(tallies)
        for what, text in BY_SIZE.items():
            yield _by_size(tallies, what, text)
        yield _confused(tallies)
        for what, text in BY_CLASS.items():
            yield _by_class(tallies, what, text)
        for what, text in PICTURES.items():
            yield _pictures(tallies, what, text)
        yield _compute(tallies)


def _frames(tallies: Shown) -> Metric:
    text = "Pictures to show to the canary, by what became of them"
    frames = _counter("frames", text, "outcome")
    for name, tally in tallies:
        for outcome in Outcome:
            frames.add_metric([name, outcome], tally.frames[outcome])
    return frames


def _by_size(tallies: Shown, what: str, text: str) -> Metric:
    by_size = _counter(what, text, "class", "size")
    for name, tally in tallies:
        rows: Rows = getattr(tally, what)
        for kind, row in list(rows.rows.items()):
            for size, count in zip(SIZES, row, strict=True):
                by_size.add_metric([name, kind, size], count)
    return by_size


def _confused(tallies: Shown) -> Metric:
    text = "Objects that the canary calls another class"
    confused = _counter("confused", text, "class", "other")
    for name, tally in tallies:
        for pair, count in list(tally.confused.items()):
            confused.add_metric([name, *pair], count)
    return confused


def _by_class(tallies: Shown, what: str, text: str) -> Metric:
    by_class = _counter(what, text, "class")
    for name, tally in tallies:
        rows: Rows = getattr(tally, what)
        for kind, row in list(rows.rows.items()):
            by_class.add_metric([name, kind], row[0])
    return by_class


def _pictures(tallies: Shown, what: str, text: str) -> Metric:
    pictures = _counter(what, text)
    for name, tally in tallies:
        pictures.add_metric([name], getattr(tally, what))
    return pictures


def _compute(tallies: Shown) -> Metric:
    compute = HistogramMetricFamily(
        "yoloserve_shadow_compute_seconds",
        "Work for the same pictures, without waiting, of this revision and of the canary",
        labels=["canary", "arm"],
    )
    for name, tally in tallies:
        for arm, times in tally.compute.items():
            compute.add_metric([name, arm], *times.shown())
    return compute


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"yoloserve_shadow_{name}", text, labels=["canary", *labels])
