"""What two revisions found in one picture, object by object; pure.

Objects are told apart by the *names* of their classes: the numbers of two models mean different
things. What has a class that only one of the two models knows has no counterpart: it is counted
apart, so that whoever judges can say why it is lost, or added. People who look at the picture are
shown it as all else that differs.

Neither margin goes more than half of the way to the end of the scale: above a threshold of 0.85 no
score would be sure, and at one of 0.05 the faintest would be a counterpart. What moves scores moves
their odds, and to the halves these about double: as much as 0.15 is above a threshold of 0.25.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from yoloserve.detections.postprocess import Detections
from yoloserve.quality.agreement import paired

SURE = 0.15  # above the threshold: what moves about it is no difference between two models
NEARLY = 0.05  # below the threshold: down to there an object of the other model has a counterpart
SIZES = "small", "medium", "large"
EDGES = 32**2, 96**2  # of areas, in pixels of the picture: COCO's


@dataclass(frozen=True, slots=True)
class Found:
    """What one revision found in a picture, down to `NEARLY` below its threshold or further."""

    detections: Detections  # in pixels of the picture
    classes: tuple[str, ...]  # of its model
    confidence: float  # its threshold
    compute_s: float  # decoding to post-processing, without waiting

    def named(self, names: dict[str, int]) -> Self:
        """Number the classes by their names, as `names` does."""
        numbers = np.array([names[name] for name in self.classes], np.int64)
        found = self.detections
        renamed = Detections(found.boxes, found.scores, numbers[found.classes])
        return type(self)(renamed, tuple(names), self.confidence, self.compute_s)

    @property
    def surely(self) -> float:
        """Say from which score on something is surely there."""
        return self.confidence + min(SURE, (1 - self.confidence) / 2)

    @property
    def sure(self) -> Detections:
        """Give what is surely there."""
        return self.detections[self.detections.scores >= self.surely]

    @property
    def nearly(self) -> Detections:
        """Give what may be a counterpart."""
        nearly = self.confidence - min(NEARLY, self.confidence / 2)
        return self.detections[self.detections.scores >= nearly]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """The objects about which two answers disagree; classes are numbered as `classes` names them.

    Each is in one place only: what has another class is neither lost nor added. Classes that only
    one of the two models has are among them.
    """

    classes: tuple[str, ...]
    lost: Detections  # what stable is sure of, and the canary has not
    added: Detections  # what the canary is sure of, and stable has not even nearly
    confused: tuple[Detections, Detections]  # stable's, and what the canary has in its place

    def __len__(self) -> int:
        return len(self.lost) + len(self.added) + len(self.confused[0])


@dataclass(frozen=True, slots=True)
class Difference:
    """How the canary's answer for one picture differs from stable's."""

    expected: Counter[tuple[str, str]]  # by class and size: what stable is sure of
    kept: Counter[tuple[str, str]]  # of these, what the canary found too
    confused: Counter[tuple[str, str]]  # lost, but there as another class: (stable's, canary's)
    sure: Counter[str]  # kept, and what the canary is sure of and stable has not even nearly
    blind: bool | None  # whether the canary found nothing; None where stable is sure of nothing
    apart: Disagreement
    only_stable: Counter[str] = field(default_factory=Counter)  # sure, of a class that it has alone
    only_canary: Counter[str] = field(default_factory=Counter)


def difference(stable: Found, canary: Found) -> Difference:
    """Compare two answers for one picture."""
    names = {name: at for at, name in enumerate(dict.fromkeys(stable.classes + canary.classes))}
    known = tuple(names)
    ours, theirs = set(stable.classes), set(canary.classes)
    common = np.array([name in ours and name in theirs for name in known], np.bool_)
    stable, canary = stable.named(names), canary.named(names)
    expected, alone = _split(stable.sure, common)
    found = canary.nearly
    sure = found.scores >= canary.surely
    shared = common[found.classes]

    kept_pairs = paired(found, expected)
    kept = expected[_numbers(column for _, column in kept_pairs)]
    lost = _without(expected, [column for _, column in kept_pairs])
    lone = np.delete(np.arange(len(found)), [row for row, _ in kept_pairs])
    mistaken, missed = _in_its_place(lost, found, lone)
    # After what is counted as confused, of which what is alone must take none.
    renamed, left = _in_its_place(alone, found, np.setdiff1d(lone, mistaken))
    # Not simply what is left of `found`: there stable need not be sure to have seen it, too.
    added = np.flatnonzero(sure & shared)
    added = np.delete(added, [row for row, _ in paired(found[added], stable.nearly)])
    differs = sure & ~shared
    differs[added] = True
    differs[mistaken] = differs[renamed] = False
    was, became = lost[missed], found[mistaken]
    apart = Disagreement(
        classes=known,
        lost=_both(_without(lost, missed), _without(alone, left)),
        added=found[differs],
        confused=(_both(was, alone[left]), _both(became, found[renamed])),
    )
    return Difference(
        expected=_by_size(expected, known),
        kept=_by_size(kept, known),
        confused=Counter(
            (known[one], known[other])
            for one, other in zip(was.classes.tolist(), became.classes.tolist(), strict=True)
        ),
        sure=_by_class(kept, known) + _by_class(found[added], known),
        blind=len(found) == 0 if len(expected) else None,
        apart=apart,
        only_stable=_by_class(alone, known),
        only_canary=_by_class(found[sure & ~shared], known),
    )


def sizes(detections: Detections) -> list[str]:
    """Say of each object how large it is."""
    areas = np.prod(detections.boxes[:, 2:] - detections.boxes[:, :2], axis=1)
    return [SIZES[at] for at in np.searchsorted(EDGES, areas, side="right").tolist()]


def _split(found: Detections, common: np.ndarray) -> tuple[Detections, Detections]:
    shared = common[found.classes]
    return found[shared], found[~shared]


def _without(found: Detections, rows: Sequence[int] | NDArray[np.int64]) -> Detections:
    return found[np.delete(np.arange(len(found)), rows)]


def _both(one: Detections, other: Detections) -> Detections:
    return Detections(
        np.concatenate([one.boxes, other.boxes]),
        np.concatenate([one.scores, other.scores]),
        np.concatenate([one.classes, other.classes]),
    )


def _in_its_place(
    missing: Detections, found: Detections, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find what lies where something is missing, whatever its class, among these rows of `found`.

    Returns its rows of `found`, and those of `missing`.
    """
    pairs = paired(_of_one_class(found[rows]), _of_one_class(missing))
    return rows[_numbers(row for row, _ in pairs)], _numbers(column for _, column in pairs)


def _numbers(rows: Iterable[int]) -> NDArray[np.int64]:
    return np.fromiter(rows, np.int64)


def _of_one_class(found: Detections) -> Detections:
    return Detections(found.boxes, found.scores, np.zeros(len(found), np.int64))


def _by_class(found: Detections, names: Sequence[str]) -> Counter[str]:
    return Counter(names[index] for index in found.classes.tolist())


def _by_size(found: Detections, names: Sequence[str]) -> Counter[tuple[str, str]]:
    classes = [names[index] for index in found.classes.tolist()]
    return Counter(zip(classes, sizes(found), strict=True))
