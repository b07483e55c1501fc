"""The shadow, across the two programs: what one writes of it, the other reads."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import orjson
import pytest

from yolofleet.analysis.evidence import MOST_BYTES, MOST_VALUES, Evidence, Frames, parse
from yolofleet.analysis.evidence import Shadow as Reported
from yolofleet.api.detector import LogLevel
from yolofleet.plan.live import Shadow as Ordered
from yolofleet.plan.live import file
from yoloserve.detections.postprocess import Detections
from yoloserve.live import LiveSettings
from yoloserve.shadow.pairs import Found, difference
from yoloserve.shadow.tally import Outcome, Tallies
from yoloserve.telemetry.evidence import MOST_CLASSES, Names
from yoloserve.telemetry.names import MOST_NAMES, called

NOW = datetime(2026, 11, 29, 7, tzinfo=UTC)


@pytest.mark.parametrize("token", [None, "0123456789abcdef"])
def test_the_server_does_what_the_operator_writes(token: str | None) -> None:
    order = Ordered("gate-0000aaaa", 25, 2.5, NOW + timedelta(minutes=10), True, token)
    assert (read := LiveSettings.model_validate_json(file(order, LogLevel.INFO) or "").shadow)
    assert (read.revision, read.percent, read.max_per_second) == ("gate-0000aaaa", 25, 2.5)
    assert (read.until, read.keep_frames) == (order.until, True)
    assert (read.token and read.token.get_secret_value()) == token


@pytest.mark.parametrize("level", LogLevel)
def test_the_server_knows_each_level_of_its_log(level: LogLevel) -> None:
    assert LiveSettings.model_validate_json(file(None, level) or "{}").log_level == level


def test_the_operator_reads_what_the_server_counts() -> None:
    boxes = np.array([[0, 0, 50, 50], [100, 0, 300, 200]], np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    stable, canary = (
        Found(Detections(boxes, scores, np.array(classes)), ("circle", "square"), 0.25, 0.01)
        for classes in ([0, 0], [0, 1])
    )
    tallies = Tallies()
    tallies.of("gate-0000aaaa").compared(stable, canary, difference(stable, canary))
    tallies.of("gate-0000aaaa").frames[Outcome.LATE] += 1
    read = Reported.model_validate_json(orjson.dumps(tallies.as_dict()["gate-0000aaaa"]))
    assert (read.frames.compared, read.frames.late) == (1, 1)
    assert read.expected == {"circle": (0, 1, 1)}
    assert read.kept == {"circle": (0, 1, 0)}
    assert read.confused == {"circle": {"square": 1}}
    assert read.sure == {"circle": 1, "square": 1}
    assert (read.seen, read.blind) == (1, 0)
    assert sum(read.compute.stable.whole()) == sum(read.compute.canary.whole()) == 1


def test_the_operator_knows_each_thing_that_becomes_of_a_picture() -> None:
    assert set(Frames.model_fields) == set(Outcome)
    older = Frames.model_validate({"compared": 1})
    assert older.skipped_repeated == 0
    assert Frames.model_validate({"compared": 1, "of_a_newer_server": 9}) == older


def test_what_a_server_tells_at_most_is_read_whatever_its_classes_are_called() -> None:
    """Long names in four bytes a character, many of them, two canaries: all tables are full."""
    classes = tuple(f"{number:06d}\0" + "\U0001f600" * 200 for number in range(1200))
    box, score = np.array([[0, 0, 50, 50]], np.float32), np.array([0.9], np.float32)
    tallies, names = Tallies(), Names(classes)
    for revision in ("gate-0000aaaa", "gate-0000bbbb"):
        for number in range(0, 600, 2):
            one, other = classes[number : number + 2]
            stable, canary = (
                Found(Detections(box, score, np.array([kind])), (one, other), 0.25, 0.01)
                for kind in (0, 1)
            )
            tallies.of(revision).compared(stable, canary, difference(stable, canary))
            apart = (replace(stable, classes=(one, one)), replace(canary, classes=(other, other)))
            tallies.of(revision).compared(*apart, difference(*apart))
    told = {
        "format": 1,
        "revision": "gate-1111aaaa",
        "started": 1,
        "classes": [called(name) for name in classes[:MOST_CLASSES]],
        "detections": {names[number]: 2**53 for number in range(1200)},
        "golden": {"state": "done", "map50": 1},
        "shadow": tallies.as_dict(),
    }
    body = orjson.dumps(told)
    assert len(body) < MOST_BYTES * 0.8
    assert sum(map(body.count, (b",", b"[", b"{"))) < MOST_VALUES * 0.4  # names may have commas
    read = parse(body, revision="gate-1111aaaa")
    assert isinstance(read, Evidence)
    assert len(read.shadow["gate-0000aaaa"].expected) == MOST_NAMES
