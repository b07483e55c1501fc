"""What a release is judged by: raw counters since the process began, as one small value.

They only grow: whoever reads them twice knows what happened in between, and by `started` whether it
was the same process. Nothing in them tells what was in a picture beyond how many of which class.
"""

from typing import Any, Literal

from typing_extensions import TypedDict  # Python 3.11's own cannot be checked against

from yoloserve.core import EngineCore
from yoloserve.telemetry.latency import Buckets
from yoloserve.telemetry.metrics import Metrics
from yoloserve.telemetry.names import MOST_NAMES, Table, called
from yoloserve.telemetry.traffic import Traffic

FORMAT = 1
MOST_CLASSES = 1000  # that are listed
COMPARED = Traffic.REQUEST, Traffic.SHADOW  # whose latencies are of interest


class Load(TypedDict):
    """What autoscaling goes by."""

    offered: int  # by callers: what was answered, and what would have been with more replicas
    refused: int  # of these, what there was no time or place for
    inside: int
    inside_seconds: float  # by its growth: how many on average
    waiting: int
    capacity_per_second: float | None  # until it is known: nothing


class Probe(TypedDict):
    """The looks at the probe picture."""

    sees: int
    blind: int
    blind_in_a_row: int


class Golden(TypedDict):
    """How the network does on pictures whose objects are known."""

    set_sha256: str
    state: Literal["running", "done", "failed"]
    images: int
    map50: float | None  # until it is done: nothing
    map50_class: dict[str, float]
    message: str


class Evidence(TypedDict):
    """All of it; `docs/guides/serving.md` says what each counts."""

    format: int
    revision: str
    started: float
    status: str
    classes: list[str]
    requests: dict[str, dict[str, int]]
    images_squared: dict[str, int]  # of callers' pictures: each adds how many its request has
    images: int
    detections: dict[str, int]
    latency: dict[str, Buckets]
    load: Load
    probe: Probe
    golden: Golden | None
    shadow: dict[str, Any]


class Names:
    """What a model's classes are called in a table: it may have thousands, and two of one name."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self._labels = [called(name) for name in classes]
        self._table = (
            Table() if len(set(self._labels)) > MOST_NAMES else None
        )  # else all have a row

    def __getitem__(self, number: int) -> str:
        """Say in which row a class is counted."""
        name = self._labels[number]
        return self._table.row(name) if self._table else name


class Witness:
    """Tells the evidence of one server."""

    def __init__(self, core: EngineCore, metrics: Metrics) -> None:
        self._core = core
        self._metrics = metrics
        classes = core.info.classes
        self._names = Names(classes)
        self._classes = [called(name) for name in classes[:MOST_CLASSES]]

    def tell(
        self, *, status: str, blind_in_a_row: int, golden: Golden | None, shadow: dict[str, Any]
    ) -> Evidence:
        """Say what was counted until now."""
        requests, latency = self._metrics.requests.counts, self._metrics.requests.latency
        return {
            "format": FORMAT,
            "revision": self._core.info.revision,
            "started": self._metrics.started,
            "status": status,
            "classes": self._classes,
            "requests": {str(traffic): dict(counts) for traffic, counts in requests.items()},
            "images_squared": dict(self._metrics.requests.squared),
            "images": requests[Traffic.REQUEST]["ok"],
            "detections": self._detections(),
            "latency": {str(traffic): latency[traffic].buckets() for traffic in COMPARED},
            "load": self._load(),
            "probe": {
                "sees": self._metrics.looks["sees"],
                "blind": self._metrics.looks["blind"],
                "blind_in_a_row": blind_in_a_row,
            },
            "golden": golden,
            "shadow": shadow,
        }

    def _detections(self) -> dict[str, int]:
        seen: dict[str, int] = {}
        for number, count in self._metrics.seen_of_class():
            name = self._names[number]
            seen[name] = seen.get(name, 0) + count
        return seen

    def _load(self) -> Load:
        capacity, admission = self._core.capacity_per_s, self._core.admission
        return {
            "offered": self._metrics.requests.offered,
            "refused": self._metrics.requests.refused,
            "inside": admission.inside,
            "inside_seconds": round(admission.inside_s, 6),
            "waiting": self._core.batcher.waiting,
            "capacity_per_second": capacity if capacity < float("inf") else None,
        }
