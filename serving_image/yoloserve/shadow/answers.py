"""What a canary's answer means; pure, and nothing in it is believed.

An error is held against the canary only if it is the canary's own: what stands between (a proxy, a
Service without endpoints, a server that does not know our key) says nothing of the model.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from yoloserve.detections.postprocess import Detections
from yoloserve.shadow.pairs import Found
from yoloserve.shadow.tally import Outcome

REVISION = "x-yolofleet-revision"
MOST_OBJECTS = 10_000  # that anybody may ask for
MOST_CLASSES = 100_000
FAR = 1e6  # pixels: no picture is as wide
OF_PROXIES = (502, 503, 504)
NOT_LET_IN = (401, 403, 404, 408, 429)
LOOKED = "preprocess", "inference", "postprocess"
COMPUTED = "decode", *LOOKED


def read(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    revision: str,
    stages: Sequence[str] = COMPUTED,
) -> Found | Outcome:
    """Read what came back: what the canary found, or what is to be counted.

    stages: those whose times are compared.
    """
    if headers.get(REVISION) != revision:
        own = status >= 500 and status not in OF_PROXIES
        return Outcome.FAILED if own else Outcome.UNREACHABLE
    if status == 200:
        return _found(body, stages)
    if status in NOT_LET_IN:
        return Outcome.UNREACHABLE
    if status == 504:
        return Outcome.LATE
    if status == 503 and _code(body) == "overloaded":  # by all it is asked, of which we are a part
        return Outcome.SKIPPED_BUSY
    return Outcome.FAILED  # stable took the same picture: a 400 is no better than a 500


def _found(body: bytes, stages: Sequence[str]) -> Found | Outcome:
    try:
        answer = orjson.loads(body)
        if "detections" in answer and "shadow" not in answer:  # it answers as to anybody
            return Outcome.UNREACHABLE
        classes, confidence = answer["shadow"]["classes"], float(answer["shadow"]["confidence"])
        rows = answer["detections"]
        numbers = np.array([each["class"] for each in rows], np.int64)
        scores = np.array([each["confidence"] for each in rows], np.float64)
        boxes = np.array([_corners(each["box"]) for each in rows], np.float64).reshape(-1, 4)
        compute_s = sum(float(answer["timing_ms"][stage]) for stage in stages) / 1000
    except (ValueError, TypeError, KeyError, OverflowError):
        return Outcome.FAILED
    sound = (
        len(rows) <= MOST_OBJECTS
        and numbers.shape == scores.shape == (len(rows),)
        and isinstance(classes, list)
        and 0 < len(classes) <= MOST_CLASSES
        and all(isinstance(name, str) for name in classes)
        and (np.abs(boxes) <= FAR).all()
        and ((scores >= 0) & (scores <= 1)).all()
        and ((numbers >= 0) & (numbers < len(classes))).all()
        and 0 <= confidence <= 1
        and 0 <= compute_s < np.inf
    )
    if not sound:
        return Outcome.FAILED
    found = Detections(boxes.astype(np.float32), scores.astype(np.float32), numbers)
    return Found(found, tuple(classes), confidence, compute_s)


def _corners(box: Mapping[str, Any]) -> tuple[float, float, float, float]:
    return box["x1"], box["y1"], box["x2"], box["y2"]


def _code(body: bytes) -> str:
    try:
        return str(orjson.loads(body)["error"]["code"])
    except (ValueError, TypeError, KeyError):
        return ""
