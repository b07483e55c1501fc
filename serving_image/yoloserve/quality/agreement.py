"""How far two answers for one picture agree; pure. What a conversion and a canary are judged by."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from yoloserve.detections.postprocess import Detections, Options, iou

SAME_OBJECT = 0.5  # IoU from which two boxes mean one object
BY_SCORE = 0.01  # of an overlap, for a difference of 1 in score
SAME_EDGES = 0.5  # pixels up to which two boxes without an area are the same
MARGIN = 0.01  # by which a score may differ: look for counterparts this much below the threshold


@dataclass(frozen=True, slots=True)
class Agreement:
    """Objects that both found, or only one; and how different the former are."""

    both: int = 0
    missing: int = 0  # only in what was expected
    extra: int = 0  # only in what was found
    worst_iou: float = 1.0
    worst_score: float = 0.0  # largest difference

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 when there was nothing to find."""
        lone = self.missing + self.extra
        return 2 * self.both / (2 * self.both + lone) if self.both + lone else 1.0

    def __add__(self, other: "Agreement") -> "Agreement":
        """Sum up two pictures."""
        return Agreement(
            self.both + other.both,
            self.missing + other.missing,
            self.extra + other.extra,
            min(self.worst_iou, other.worst_iou),
            max(self.worst_score, other.worst_score),
        )

    def __str__(self) -> str:
        """Tell the numbers in a line."""
        return (
            f"{self.both} objects in both, {self.missing} missing, {self.extra} extra "
            f"(F1 {self.f1:.4f}), IoU at least {self.worst_iou:.4f}, "
            f"scores at most {self.worst_score:.4f} apart"
        )


def comparable(options: Options) -> Options:
    """Let an answer go so far below its threshold that `agreement` can compare it.

    What is above the threshold in such an answer is the answer under `options`, in its order.
    """
    return options.lower(MARGIN)


def agreement(found: Detections, expected: Detections, *, confidence: float) -> Agreement:
    """Compare objects of one class that overlap.

    Both lists should be `comparable`: what is above `confidence` in one may be a little below it in
    the other, and is no difference.
    """
    overlaps = _overlaps(found, expected)
    pairs = paired(found, expected)
    ours, theirs = {row for row, _ in pairs}, {column for _, column in pairs}
    agreed = [
        (row, column)
        for row, column in pairs
        if max(found.scores[row], expected.scores[column]) > confidence
    ]
    return Agreement(
        both=len(agreed),
        missing=_surer(expected, confidence, theirs),
        extra=_surer(found, confidence, ours),
        worst_iou=min((float(overlaps[pair]) for pair in agreed), default=1.0),
        worst_score=max(
            (float(abs(found.scores[row] - expected.scores[column])) for row, column in agreed),
            default=0.0,
        ),
    )


def paired(found: Detections, expected: Detections) -> list[tuple[int, int]]:
    """Pair objects of one class by overlap, the closest first; by their numbers in the lists.

    Where boxes are all but the same, as those that both fill the picture, by score.
    """
    pairs: list[tuple[int, int]] = []
    overlaps = _overlaps(found, expected)
    apart = np.abs(found.scores[:, None] - expected.scores[None])
    free = np.where(overlaps >= SAME_OBJECT, overlaps - BY_SCORE * apart, 0)
    while free.size and free.max() > 0:
        row, column = divmod(int(free.argmax()), free.shape[1])
        pairs.append((row, column))
        free[row], free[:, column] = 0, 0
    return pairs


def _overlaps(found: Detections, expected: Detections) -> NDArray[np.float32]:
    same = found.classes[:, None] == expected.classes[None]
    apart = np.abs(found.boxes[:, None] - expected.boxes[None]).max(axis=2, initial=0)
    overlaps = iou(found.boxes, expected.boxes)
    # What lies outside the picture has no area left within it, and overlaps not even itself.
    return np.where(same, np.where((overlaps == 0) & (apart <= SAME_EDGES), 1, overlaps), 0)


def _surer(detections: Detections, confidence: float, paired: Iterable[int]) -> int:
    alone = set(range(len(detections))) - set(paired)
    return sum(bool(detections.scores[index] > confidence) for index in alone)
