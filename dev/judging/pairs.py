"""What the shadow of a server would count of two models, and what the `judge` says of that."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demo.evaluate import Runner
from demo.pictures import Picture
from demo.shapes import NAMES
from played_pods import Played
from yolofleet.api.analysis import Analysis, Verdict
from yoloserve.quality.scores import Truth, score
from yoloserve.shadow.pairs import NEARLY, SIZES, Found, difference

CONFIDENCE = 0.25  # the server's
ENOUGH = 30  # objects of a class or size, below which none is judged
MOST_LOOKS = 90  # a quarter of an hour
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Seen:
    """What a model finds in each picture, and how good that is."""

    found: list[Found]
    map50: float


@dataclass(frozen=True)
class Pair:
    """What a shadow counts of one model beside another, picture by picture."""

    expected: Ints  # (pictures, classes, sizes)
    kept: Ints
    sure: Ints  # (pictures,)
    seen: Ints
    blind: Ints

    def shares(self) -> dict[str, float]:
        """Return what the checks hold against their limits."""
        expected, kept = self.expected.sum(axis=0), self.kept.sum(axis=0)
        known, more = kept.sum(), max(self.sure.sum() - kept.sum(), 0)
        by_class = _least(kept.sum(axis=1), expected.sum(axis=1))
        return {
            "kept": known / max(expected.sum(), 1),
            "class": by_class,
            "size": _least(kept.sum(axis=0), expected.sum(axis=0)),
            "added": more / max(more + known, 1),
            "blind": self.blind.sum() / max(self.seen.sum(), 1),
        }

    def verdict(self, analysis: Analysis, rng: np.random.Generator) -> tuple[str, int]:
        """Let the real `judge` look at 200 of the pictures every 10 s, and return what it says.

        With the names of the checks that failed or are not proved, and after how many looks.
        """
        played = Played(analysis)
        played.look()
        number, verdict = 0, Verdict.INCONCLUSIVE
        while number < MOST_LOOKS and verdict is Verdict.INCONCLUSIVE:
            number += 1
            often = rng.multinomial(200, [1 / len(self.seen)] * len(self.seen))
            show(played, self, often)
            verdict = played.look().verdict
        why = [name for name, told in played.verdicts().items() if told == str(verdict)]
        return f"{verdict}: {', '.join(why)}" if verdict is not Verdict.PASS else "Pass", number


def _least(kept: Ints, expected: Ints) -> float:
    enough = expected >= ENOUGH
    return float((kept[enough] / expected[enough]).min()) if enough.any() else 1.0


def show(played: Played, pair: Pair, often: Ints) -> None:
    """Count each picture so often as a pod of the stable revision would."""
    [pod] = played.stable
    for counted, counts in ((pod.expected, pair.expected), (pod.kept, pair.kept)):
        for name, sizes in zip(NAMES, np.tensordot(often, counts, 1).tolist(), strict=True):
            row = counted.setdefault(name, [0, 0, 0])
            row[:] = [one + more for one, more in zip(row, sizes, strict=True)]
    pod.sure[NAMES[0]] += int(often @ pair.sure)
    pod.seen += int(often @ pair.seen)
    pod.blind += int(often @ pair.blind)
    pod.frames["compared"] += int(often.sum())
    for arm in pod.compute.values():
        for bucket, share in ((30, 100), (31, 60), (32, 40)):
            arm[bucket] += share


def looked_at(path: Path, pictures: list[Picture]) -> Seen:
    """Let a model find what is in all pictures, and score that."""
    runner = Runner(path)
    found = [runner.find(picture.image, 0.01) for picture in pictures]
    truth = [Truth(picture.boxes, picture.classes) for picture in pictures]
    told = [
        Found(each[each.scores >= CONFIDENCE - NEARLY], tuple(NAMES), CONFIDENCE, 0.0)
        for each in found
    ]
    return Seen(told, score(found, truth, len(NAMES)).map50)


def paired(stable: Seen, canary: Seen) -> Pair:
    """Pair the answers of two models as a server's shadow does."""
    shape = len(stable.found), len(NAMES), len(SIZES)
    expected, kept = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    sure, seen, blind = (np.zeros(len(stable.found), np.int64) for _ in range(3))
    for at, both in enumerate(zip(stable.found, canary.found, strict=True)):
        told = difference(*both)
        for counts, counted in ((expected, told.expected), (kept, told.kept)):
            for (name, size), many in counted.items():
                counts[at, NAMES.index(name), SIZES.index(size)] = many
        sure[at], seen[at] = told.sure.total(), told.blind is not None
        blind[at] = bool(told.blind)
    return Pair(expected, kept, sure, seen, blind)
