"""The two revisions side by side, by what each answered itself: an A/B test, for people to read.

Counted are images and objects of looks in which both answered some: what a camera shows at noon is
no match for the night. Where no copies are compared, their mix of classes has a check of its own.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from yolofleet.analysis.increments import Answers, Look
from yolofleet.analysis.statistics import distance, quantile_ms
from yolofleet.analysis.sums import KEPT, LATENCY, OTHERS, Sums
from yolofleet.api.analysis import Arm, ArmName
from yolofleet.api.names import shortened

MOST_CLASSES = 8  # so that the whole status stays small

CLASS_SHIFT = "classShift"
LEAST_OBJECTS, LEAST_IMAGES = 1000, 1000
LOOKS = 3


def beside(
    before: Sequence[Arm], look: Look, sums: Sums, *, revision: str, against: str
) -> list[Arm]:
    """Return both arms with what one look adds; one of which nothing was counted is left out.

    sums: with that look in them.
    """
    was = {arm.name: arm for arm in before}
    both = look.canary.images > 0 and look.stable.images > 0
    known = list(dict.fromkeys(name for arm in before for name in arm.objects))
    named = _named([look.stable, look.canary], known) if both else {}
    stable_times, canary_times = sums.pair(LATENCY)
    kept = sums.tally(KEPT)
    arms = []
    for name, who, answers, times in (
        (ArmName.STABLE, against, look.stable, stable_times),
        (ArmName.CANARY, revision, look.canary, canary_times),
    ):
        old = was.get(name, Arm(name=name, revision=who))
        objects = Counter(old.objects)
        for class_ in named:
            objects[named[class_]] += answers.objects.get(class_, 0)
        arm = Arm(
            name=name,
            revision=who,
            requests=old.requests + answers.good + answers.bad,
            errors=old.errors + answers.bad,
            images=old.images + (answers.images if both else 0),
            objects={class_: objects[class_] for class_ in sorted(objects) if objects[class_]},
            p50_ms=_quantile(times, 0.5),
            p99_ms=_quantile(times, 0.99),
            kept=round(kept.share, 4) if name is ArmName.CANARY and kept.n else None,
        )
        if arm.requests:
            arms.append(arm)
    return arms


def _named(looks: Sequence[Answers], known: Sequence[str]) -> dict[str, str]:
    """Return by class under which name it is counted: the first eight have one of their own."""
    seen = sum((Counter(answers.objects) for answers in looks), Counter[str]())
    own = [name for name in known if name != OTHERS]
    named = {}
    for class_ in sorted(seen, key=lambda each: (-seen[each], each)):
        short = shortened(class_, 40)
        if short not in own and len(own) < MOST_CLASSES:
            own.append(short)
        named[class_] = short if short in own else OTHERS
    return named


def _quantile(times: tuple[int, ...], quantile: float) -> float | None:
    return float(f"{quantile_ms(times, quantile):.3g}") if sum(times) else None


def objects(arms: Sequence[Arm], name: ArmName) -> Mapping[str, int]:
    """Return how many objects of each class an arm found."""
    return next((arm.objects for arm in arms if arm.name is name), {})


def shift(arms: Sequence[Arm]) -> float:
    """Return how far the two mixes of classes are from each other."""
    return distance(objects(arms, ArmName.STABLE), objects(arms, ArmName.CANARY))


def are_enough(arms: Sequence[Arm]) -> bool:
    """Say whether mixes of so many objects mean anything.

    And of so many pictures: a crowd in one is a thousand objects that say but one thing.
    """
    return len(arms) == 2 and all(
        sum(arm.objects.values()) >= LEAST_OBJECTS and arm.images >= LEAST_IMAGES for arm in arms
    )


def watched(sums: Sums, arms: Sequence[Arm], before: Sequence[Arm], limit: float) -> Sums:
    """Count looks in a row at which the mixes are too far from each other; those that add some."""
    if list(arms) == list(before) or not are_enough(arms):
        return sums
    tally = sums.tally(CLASS_SHIFT)
    beyond = shift(arms) > limit
    tally = replace(tally.plus(0, 1), failing=tally.failing + 1 if beyond else 0)
    return replace(sums, tallies={**sums.tallies, CLASS_SHIFT: tally})
