"""What a detector is worth on pictures whose objects are known: by the path that requests take."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from yoloserve.detections.postprocess import Detections, Options
from yoloserve.errors import BadImage, InvalidSettings
from yoloserve.quality.scores import Scores, Truth, score

if TYPE_CHECKING:
    from yoloserve.detector import Answer, Detector
    from yoloserve.quality.dataset import Labelled

AT_ONCE = 8  # pictures in flight
NO_DEADLINE = float("inf")
LEAST_CONFIDENCE = 0.001  # average precision wants the whole curve


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was found in each picture, and how that compares with what is there."""

    found: list[Detections]
    truth: list[Truth]
    seconds: float
    classes: int
    scores: Scores = field(init=False)

    def __post_init__(self) -> None:
        """Score what was found."""
        object.__setattr__(self, "scores", score(self.found, self.truth, self.classes))


def whole_curve(options: Options) -> Options:
    """Ask for all that average precision counts, however unsure."""
    return replace(options, confidence=LEAST_CONFIDENCE)


async def evaluate(
    detector: "Detector", pictures: "Sequence[Labelled]", options: Options
) -> Evaluation:
    """Look at every picture; raises `InvalidSettings` for one that cannot be looked at."""
    found, truth = [], []
    began = time.perf_counter()
    for first in range(0, len(pictures), AT_ONCE):
        some = pictures[first : first + AT_ONCE]
        answers = await asyncio.gather(*(_answer(detector, each, options) for each in some))
        for each, answer in zip(some, answers, strict=True):
            found.append(answer.detections)
            truth.append(each.truth(answer.width, answer.height))
    took = time.perf_counter() - began
    return Evaluation(found, truth, took, len(detector.info.classes))


async def _answer(detector: "Detector", picture: "Labelled", options: Options) -> "Answer":
    try:
        return await detector.detect(picture.encoded(), options, deadline=NO_DEADLINE)
    except BadImage as error:
        raise InvalidSettings(f"{picture.path}: {error}") from error


def table(evaluation: Evaluation, names: Sequence[str]) -> str:
    """Lay the scores out: all classes, then each."""
    scores = evaluation.scores
    rows = [("all", scores.map50_95, scores.map50)]
    rows += [
        (name, float(row.mean()), float(row[0]))
        for name, row in zip(names, scores.table, strict=True)
        if row[0] == row[0]  # a class without objects has no score
    ]
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{'':{width}}  mAP50-95   mAP50"]
    lines += [f"{name:{width}}  {high:8.4f}  {low:6.4f}" for name, high, low in rows]
    return "\n".join(lines)
