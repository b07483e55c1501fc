"""What the golden set came to, as Prometheus sees it."""

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from yoloserve.telemetry.evidence import Golden

STATES = "running", "done", "failed"


class GoldenResults(Collector):
    """How far the run is, and what came of it: no result before it has ended.

    What is wrong with a set is for its owner, in the log and `/evidence`: it names files.
    """

    def __init__(self, progress: Callable[[], Golden]) -> None:
        self._progress = progress

    def collect(self) -> Iterator[Metric]:
        """Tell it."""
        progress = self._progress()
        prefix = "yoloserve_golden"
        state = GaugeMetricFamily(
            f"{prefix}_state",
            "How far the run over the golden set is: 1 for that",
            labels=["state"],
        )
        for name in STATES:
            state.add_metric([name], float(progress["state"] == name))
        yield state
        if progress["state"] != "done" or progress["map50"] is None:
            return
        yield GaugeMetricFamily(
            f"{prefix}_images", "Pictures of the golden set", progress["images"]
        )
        yield GaugeMetricFamily(
            f"{prefix}_map50", "Mean average precision at an overlap of 0.5", progress["map50"]
        )
        by_class = GaugeMetricFamily(
            f"{prefix}_map50_class", "Average precision of each class", labels=["class"]
        )
        for name, value in progress["map50_class"].items():
            by_class.add_metric([name], value)
        yield by_class
        done = GaugeMetricFamily(
            f"{prefix}_done", "Which set it was, as label; always 1", labels=["set_sha256"]
        )
        done.add_metric([progress["set_sha256"]], 1)
        yield done
