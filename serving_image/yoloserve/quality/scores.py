"""Mean average precision as COCO defines it: 101 recall points, IoU 0.50 to 0.95. Pure.

Own code: a hundred lines, for which the images need no compiled package; tests hold it against
faster-coco-eval, to 1e-6.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from yoloserve.detections.postprocess import Detections, intersection, iou

THRESHOLDS = np.linspace(0.5, 0.95, 10)
TINY = np.float32(1e-12)  # for an area that divides
RECALLS = np.linspace(0, 1, 101)
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Truth:
    """The objects of one picture."""

    boxes: Floats  # (N, 4)
    classes: npt.NDArray[np.int64]  # (N,)
    crowds: tuple[int, ...] = ()  # rows that are regions of many: what is found there is left out


@dataclass(frozen=True, slots=True)
class AreaRange:
    """Which objects count, by area in square pixels; the others are neither hit nor miss."""

    low: float = 0.0
    high: float = float("inf")

    def holds(self, boxes: Floats) -> Flags:
        """Tell for each box whether it counts."""
        areas = _areas(boxes)
        return np.asarray((areas >= self.low) & (areas < self.high))


def _areas(boxes: Floats) -> Floats:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


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
class Objects:
    """The objects of one class in one picture."""

    boxes: Floats  # (N, 4)
    counts: Flags  # (N,); the others are neither hit nor miss
    crowds: Flags  # (N,)


@dataclass(frozen=True, slots=True)
class Matches:
    """Detections of one class in one picture: confidence, and per threshold hit or left out."""

    scores: Floats  # (N,)
    hits: Flags  # (10, N)
    ignored: Flags  # (10, N)


class Tally:
    """Compares picture after picture; what each costs is paid with it, and little at the end."""

    def __init__(self, classes: int, areas: AreaRange | None = None) -> None:
        self._areas = areas or AreaRange()
        self._matches: list[list[Matches]] = [[] for _ in range(classes)]
        self._objects = [0] * classes

    def add(self, found: Detections, truth: Truth) -> None:
        """Compare what was found in one picture with what is there."""
        crowds = np.isin(np.arange(len(truth.boxes)), truth.crowds)
        counts = self._areas.holds(truth.boxes) & ~crowds
        for number in {*found.classes.tolist(), *truth.classes.tolist()}:
            mine, known = found[found.classes == number], truth.classes == number
            objects = Objects(truth.boxes[known], counts[known], crowds[known])
            self._objects[number] += int(objects.counts.sum())
            self._matches[number].append(match(mine.boxes, mine.scores, objects, self._areas))

    def scores(self) -> Scores:
        """Sum up."""
        pairs = zip(self._matches, self._objects, strict=True)
        return Scores(np.array([average_precision(*pair) for pair in pairs]))


def score(
    found: Sequence[Detections],
    truth: Sequence[Truth],
    classes: int,
    areas: AreaRange | None = None,
) -> Scores:
    """Compare what was found in each picture with what is there."""
    tally = Tally(classes, areas)
    for seen, known in zip(found, truth, strict=True):
        tally.add(seen, known)
    return tally.scores()


def match(boxes: Floats, scores: Floats, objects: Objects, areas: AreaRange) -> Matches:
    """Give each detection, best first, the free object it overlaps most, at each threshold.

    An object that counts is preferred to one that does not; a detection on the latter, or one
    without an object and itself out of range, is left out of the sum. A crowd is never taken.
    """
    order = np.argsort(-scores, kind="stable")
    boxes, scores = boxes[order], scores[order]
    overlaps, counts = _overlaps(boxes, objects), objects.counts
    hits = np.zeros((len(THRESHOLDS), len(boxes)), bool)
    ignored = np.tile(~areas.holds(boxes), (len(THRESHOLDS), 1))
    free = np.ones((len(THRESHOLDS), len(counts)), bool)
    for row in np.flatnonzero((overlaps >= THRESHOLDS[0]).any(axis=1)):
        within = free & (overlaps[row] >= THRESHOLDS[:, None])
        best = within & counts
        best = np.where(best.any(axis=1, keepdims=True), best, within)
        levels = np.flatnonzero(best.any(axis=1))
        taken = np.where(best, overlaps[row], -1).argmax(axis=1)[levels]
        free[levels, taken] = objects.crowds[taken]
        hits[levels, row] = counts[taken]
        ignored[levels, row] = ~counts[taken]
    return Matches(scores, hits, ignored)


def _overlaps(boxes: Floats, objects: Objects) -> Floats:
    """Return IoU; of a crowd, the share of the box that is in it."""
    overlaps, crowds = iou(boxes, objects.boxes), objects.crowds
    if crowds.any():
        shared = intersection(boxes, objects.boxes[crowds])
        overlaps[:, crowds] = shared / np.maximum(_areas(boxes), TINY)[:, None]
    return overlaps


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
