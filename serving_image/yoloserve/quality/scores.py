"""Mean average precision as COCO defines it: 101 recall points, IoU 0.50 to 0.95. Pure.

Own code: a hundred lines, for which the images need no compiled package; tests hold it against
faster-coco-eval, to 1e-6.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from yoloserve.detections.postprocess import Detections, iou

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Truth:
    """The objects of one picture."""

    boxes: Floats  # (N, 4)
    classes: npt.NDArray[np.int64]  # (N,)


@dataclass(frozen=True, slots=True)
class AreaRange:
    """Which objects count, by area in square pixels; the others are neither hit nor miss."""

    low: float = 0.0
    high: float = float("inf")

    def holds(self, boxes: Floats) -> Flags:
        """Tell for each box whether it counts."""
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        return np.asarray((areas >= self.low) & (areas < self.high))


@dataclass(frozen=True, slots=True)
class Scores:
    """Average precision per class (rows) and IoU threshold (columns); NaN without any object."""

    table: npt.NDArray[np.float64]

    @property
    def map50(self) -> float:
        """Mean over the classes at IoU 0.5."""
        return float(np.nanmean(self.table[:, 0]))

    @property
    def map50_95(self) -> float:
        """Mean over the classes and IoU 0.5 to 0.95."""
        return float(np.nanmean(self.table))


@dataclass(frozen=True, slots=True)
class Matches:
    """Detections of one class in one picture: confidence, and per threshold hit or left out."""

    scores: Floats  # (N,)
    hits: Flags  # (10, N)
    ignored: Flags  # (10, N)


def score(
    found: Sequence[Detections],
    truth: Sequence[Truth],
    classes: int,
    areas: AreaRange | None = None,
) -> Scores:
    """Compare what was found in each picture with what is there."""
    areas = areas or AreaRange()
    rows = []
    for number in range(classes):
        matches, objects = [], 0
        for seen, known in zip(found, truth, strict=True):
            boxes = known.boxes[known.classes == number]
            counts = areas.holds(boxes)
            objects += int(counts.sum())
            mine = seen.classes == number
            matches.append(match(seen.boxes[mine], seen.scores[mine], boxes, counts, areas))
        rows.append(average_precision(matches, objects))
    return Scores(np.array(rows))


def match(boxes: Floats, scores: Floats, truth: Floats, counts: Flags, areas: AreaRange) -> Matches:
    """Give each detection, best first, the free object it overlaps most, at each threshold.

    An object that counts is preferred to one that does not; a detection on the latter, or one
    without an object and itself out of range, is left out of the sum.
    """
    order = np.argsort(-scores, kind="stable")
    boxes, scores = boxes[order], scores[order]
    overlaps = iou(boxes, truth)
    outside = ~areas.holds(boxes)
    hits = np.zeros((len(THRESHOLDS), len(boxes)), bool)
    ignored = np.zeros_like(hits)
    for level, threshold in enumerate(THRESHOLDS):
        free = np.ones(len(truth), bool)
        for row in range(len(boxes)):
            candidates = free & (overlaps[row] >= threshold)
            preferred = candidates & counts if (candidates & counts).any() else candidates
            if not preferred.any():
                ignored[level, row] = outside[row]
                continue
            taken = int(np.argmax(np.where(preferred, overlaps[row], -1)))
            free[taken] = False
            hits[level, row] = counts[taken]
            ignored[level, row] = not counts[taken]
    return Matches(scores, hits, ignored)


def average_precision(matches: Sequence[Matches], objects: int) -> npt.NDArray[np.float64]:
    """Return the average precision at each threshold, over all pictures; NaN without objects."""
    if objects == 0:
        return np.full(len(THRESHOLDS), np.nan)
    scores = np.concatenate([part.scores for part in matches])
    order = np.argsort(-scores, kind="stable")
    hits = np.concatenate([part.hits for part in matches], 1)[:, order]
    ignored = np.concatenate([part.ignored for part in matches], 1)[:, order]
    return np.array(
        [area_under(hit[~left_out], objects) for hit, left_out in zip(hits, ignored, strict=True)]
    )


def area_under(hits: Flags, objects: int) -> float:
    """Return the area under the curve of precision over recall, at 101 recalls."""
    right = hits.cumsum()
    recall = right / objects
    precision = right / np.arange(1, len(hits) + 1)
    # The precision at a recall is the best one at that recall or any higher.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, RECALLS, side="left")
    reached = places < len(hits)
    return float(np.where(reached, np.append(envelope, 0.0)[places], 0.0).mean())
