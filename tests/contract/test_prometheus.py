"""What a server shows in `/metrics` is the evidence that it tells, once Prometheus has it."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from played_prometheus import Prometheus, Series
from yolofleet.analysis.evidence import Evidence, parse
from yolofleet.analysis.prometheus import Scraped, query, read
from yoloserve.detections.postprocess import Detections
from yoloserve.detector import Answer, Timing
from yoloserve.fronts.processes import Fronts
from yoloserve.shadow.pairs import Found, difference
from yoloserve.shadow.tally import Outcome, Tallies
from yoloserve.shadow.telling import Comparisons
from yoloserve.telemetry.evidence import Golden, Witness
from yoloserve.telemetry.golden import GoldenResults
from yoloserve.telemetry.metrics import Metrics
from yoloserve.telemetry.traffic import Traffic

REVISION, CANARY = "gate-0000aaaa", "gate-0000bbbb"
CLASSES = ("circle", 'a "square" \\ one\n', "", "x" * 200)


class Server:
    """All of a server that counts and tells."""

    def __init__(self, golden: Golden | None, capacity: float = 41.25) -> None:
        self.detector: Any = SimpleNamespace(
            info=SimpleNamespace(
                name="gate",
                version="1",
                revision=REVISION,
                sha256="ab",
                backend="onnxruntime",
                precision="fp32",
                device="cpu",
                classes=CLASSES,
            ),
            capacity_per_s=capacity,
            admission=SimpleNamespace(inside=2, inside_s=0.5),
            batcher=SimpleNamespace(waiting=1),
        )
        self.metrics, self.tallies, self.golden = Metrics(), Tallies(), golden
        self.metrics.watch(self.detector)
        self.metrics.registry.register(Comparisons(self.tallies))
        self.blind_in_a_row = 0
        self.metrics.watch_sight(lambda: self.blind_in_a_row)
        if golden:
            self.metrics.registry.register(GoldenResults(lambda: golden))

    def answers(self, classes: list[int], seconds: float, source: Traffic, among: int = 1) -> None:
        detections = Detections(
            np.zeros((len(classes), 4), np.float32),
            np.full(len(classes), 0.5, np.float32),
            np.array(classes, np.int64),
        )
        answer = Answer(detections, 9, 9, Timing(0, 0, 0, 0, 0, 0), 0, 0, 0)
        self.metrics.answered(answer, CLASSES, source, seconds, among)

    def compares(self, stable: list[int], canary: list[int], revision: str = CANARY) -> None:
        boxes = np.array([[0, 0, 9, 9], [100, 0, 150, 50], [200, 0, 400, 200]], np.float32)
        scores = np.array([0.9, 0.8, 0.7], np.float32)
        one, other = (
            Found(
                Detections(boxes[: len(each)], scores[: len(each)], np.array(each, np.int64)),
                CLASSES,
                0.25,
                0.003 * len(each),
            )
            for each in (stable, canary)
        )
        self.tallies.of(revision).compared(one, other, difference(one, other))

    def by_itself(self) -> Evidence:
        told = Witness(self.detector, self.metrics).tell(
            status="ready",
            blind_in_a_row=self.blind_in_a_row,
            golden=self.golden,
            shadow=self.tallies.as_dict(),
        )
        read = parse(orjson.dumps(told), revision=REVISION)
        assert isinstance(read, Evidence), read
        return read

    def by_prometheus(self) -> Evidence:
        prometheus = Prometheus()
        prometheus.scrape(self.series(), namespace="yards", pod="p", job="yards/gate")
        asked = query({"p": REVISION}, namespace="yards", canary=CANARY)
        told = read(prometheus.answer(asked), {"p": REVISION})["p"]
        assert isinstance(told, Scraped), told
        return told.evidence

    def series(self) -> Iterator[Series]:
        for family in text_string_to_metric_families(self.metrics.text().decode()):
            for sample in family.samples:
                yield sample.name, sample.labels, sample.value


def judged(told: Evidence) -> Any:
    """Return all that judging looks at, but for the moment at which the process began."""
    shadow = told.shadow.get(CANARY)
    return (
        (
            told.revision,
            told.of_requests(),
            told.images_squared,
            told.images,
            told.detections,
            told.probe,
            told.load.capacity_per_second,
        ),
        {k: v for k, v in told.requests.items() if v},
        told.latency["request"].whole(),
        told.golden and (told.golden.state, told.golden.map50),
        told.golden and told.golden.state == "done" and told.golden,
        shadow and shadow.model_dump(exclude={"compute"}),
        shadow and (shadow.compute.stable.whole(), shadow.compute.canary.whole()),
    )


DONE: Golden = {
    "set_sha256": "cd" * 32,
    "state": "done",
    "images": 20,
    "map50": 0.9312345,
    "map50_class": {"circle": 0.9},
    "message": "",
}


@pytest.mark.parametrize(
    "golden",
    [
        None,
        DONE,
        DONE | {"state": "running", "map50": None},
        DONE | {"state": "failed", "map50": None, "message": "a.jpg has no labels"},
    ],
    ids=["no set", "done", "running", "failed"],
)
def test_what_is_judged_is_the_same_whichever_way_it_came(golden: Any) -> None:
    server = Server(golden)
    assert judged(server.by_prometheus()) == judged(server.by_itself()), "before anything"
    for number in range(200):
        server.answers([number % 4] * (number % 3), 0.0005 * 1.07**number, Traffic.REQUEST, 4)
    server.answers([1], 0.02, Traffic.SHADOW)
    server.answers([1], 0.02, Traffic.GOLDEN)
    server.metrics.refused("overloaded", Traffic.REQUEST, 16)
    server.metrics.refused("invalid_image", Traffic.REQUEST, 1, 8)
    server.metrics.refused("internal", Traffic.SHADOW)
    for sees in (True, False, False):
        server.metrics.looked(sees=sees)
    server.blind_in_a_row = 2
    server.compares([0, 1, 2], [0, 0, 2])
    server.compares([3, 3, 1], [])
    server.compares([], [1])
    server.compares([0], [0], revision="gate-0000cccc")
    for outcome in Outcome:
        server.tallies.of(CANARY).frames[outcome] += 1
    ours, theirs = server.by_itself(), server.by_prometheus()
    told = ours.images_squared or {}
    assert (told["ok"], told["overloaded"], told["invalid_image"]) == (200 * 4, 16 * 16, 8)
    assert judged(theirs) == judged(ours)
    assert set(theirs.shadow) == {CANARY}, "of those that nobody asks for nothing is sent"
    assert theirs.started == server.by_prometheus().started, "the same process"


def test_a_capacity_that_is_not_known_yet_is_none() -> None:
    assert Server(None, math.inf).by_prometheus().load.capacity_per_second is None


def test_what_is_counted_while_the_page_is_made_leaves_no_part_above_its_whole() -> None:
    tallies = Tallies()
    server = Server(None)
    server.tallies = tallies
    told: dict[str, float] = {}
    tallies.of(CANARY)
    for family in Comparisons(tallies).collect():
        for sample in family.samples:
            told[sample.name] = told.get(sample.name, 0) + sample.value
        server.compares([0, 1, 2], [])
        server.compares([0, 1, 2], [0, 1, 2])
    prefix = "yoloserve_shadow"
    assert 0 < told.get(f"{prefix}_expected_total", 0) >= told.get(f"{prefix}_kept_total", 0)
    assert told[f"{prefix}_seen_total"] >= told[f"{prefix}_blind_total"] > 0


def test_the_guides_name_each_series_of_a_server_and_none_that_is_not_shown() -> None:
    docs = Path(__file__).resolve().parents[2] / "docs"
    golden = Golden(
        set_sha256="ab", state="done", images=3, map50=0.5, map50_class={"circle": 0.5}, message=""
    )
    server = Server(golden)
    server.metrics.watch_fronts(Fronts(count=1, threads=1))
    text = server.metrics.text().decode()
    shown = set(re.findall(r"^# TYPE (yoloserve_\w+)", text, re.MULTILINE))
    shown = {name for name in shown if not name.endswith("_created")}
    pages = [
        page.read_text() for kind in ("guides", "runbooks") for page in (docs / kind).iterdir()
    ]
    named = set(re.findall(r"(?<!\w)yoloserve_[a-z0-9_]+[a-z0-9]", "\n".join(pages)))
    assert not {re.sub("_(bucket|sum|count)$", "", name) for name in named} - shown
    told = (docs / "guides" / "serving.md").read_text()
    assert not {name for name in shown if name not in told}
