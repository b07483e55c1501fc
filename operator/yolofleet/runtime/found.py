"""Attribution: whose doing it is that an object is not as desired; pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from yolofleet.runtime.compare import Difference, How
from yolofleet.runtime.ownership import Fields, setters


@dataclass(frozen=True, slots=True)
class Found:
    """What of one object is not as desired: by what we want anew, by what others did."""

    ours: list[Difference]
    changed: list[Difference]
    added: list[Difference]

    @property
    def drift(self) -> list[Difference]:
        """Return what others did, that we know of."""
        return [*self.changed, *self.added]

    @property
    def by_others(self) -> list[Difference]:
        """Return what others did, and what they set to what we want where that is all there is."""
        taken = [each for each in self.ours if each.how is How.UNOWNED]
        return [*self.drift, *(taken if len(taken) == len(self.ours) else ())]

    def without(self, left: Collection[Difference]) -> Found:
        """Return what is to be put right when `left` is not."""
        changed = [each for each in self.changed if each not in left]
        return Found(self.ours, changed, [each for each in self.added if each not in left])

    @property
    def can_wait(self) -> bool:
        """Return whether others alone made it differ: a fight never holds up what we want anew.

        A value that others set to what we want is ours to take back, but nothing new.
        """
        return all(each.how is How.UNOWNED for each in self.ours) and bool(self.drift or self.ours)


def attributed(
    each: Difference, settled: AbstractSet[str] | None, foreign: Sequence[tuple[str, Fields]]
) -> Difference:
    """Say whose doing it is, where we want what we wanted when we last wrote."""
    if settled is None or each.unit not in settled:
        return each
    if each.how is How.MISSING:
        return replace(each, how=How.REMOVED)
    if each.how is How.CHANGED and setters(foreign, each.path):
        return replace(each, how=How.TAKEN)  # we are left as the owner of an empty field
    return each
