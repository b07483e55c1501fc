"""Contests: others change again what was put right, at once or every ten minutes.

Of two writers who fight, one has to be slow: an object that was repaired is left alone for a
moment, which bounds how fast we write. Who comes back, however slowly, is reported. Where each
round kills pods there are but a few: then the field is left to the other, for longer each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from yolofleet.runtime.compare import Difference, How
from yolofleet.runtime.drift import Drift, Handling
from yolofleet.runtime.kind import Kind

CALM_S: Final = 1.0
"""After a repair of an object, this long for each write that it took, it is not repaired again."""

QUICK_S: Final = 60.0
"""What comes back within this is a contest; what takes longer is one the second time."""

REMEMBERED_S: Final = 2 * 3600.0
"""What comes back later than this is no contest, but the next change."""

ROUNDS: Final = 3
"""So often a field that pods are made of is put right; then it is left for a while."""

LEFT_FOR: Final = 20
"""Of the time in which the other came back: so long it is left, at first."""

LEFT_S: Final = (5.0, 3600.0)
"""At least and at most so long, but for one who comes back more seldom than every ten minutes."""


@dataclass(slots=True)
class _Field:
    """A field that was put right. back: others have changed it since, after `gap` seconds."""

    repaired_at: float
    returns: int = 0
    gap: float = 0.0
    back: bool = False
    left_until: float = 0.0

    @property
    def contested(self) -> bool:
        return self.returns >= (1 if self.gap <= QUICK_S else 2)


@dataclass(slots=True)
class _Contest:
    """All that was repaired of one object. over_at: until then others may still come back."""

    fields: dict[str, _Field] = field(default_factory=dict)
    calm_until: float = 0.0
    over_at: float = 0.0
    reported: Drift | None = None


class Contests:
    """Remembers for each object what was repaired, and whether it came back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, _Contest] = {}

    def calm(self, uid: str) -> bool:
        """Return whether the object was repaired just now, and is to be left for a moment."""
        contest = self._known.get(uid)
        return contest is not None and self._clock() < contest.calm_until

    def see(self, uid: str, drift: Sequence[Difference]) -> set[str]:
        """Take note of what differs by others' doing; return the fields that are contested."""
        contest, now = self._known.get(uid), self._clock()
        if contest is None:
            return set()
        for each in drift:
            known = contest.fields.get(each.field)
            if known is None or known.back:
                continue
            known.gap = now - known.repaired_at
            if known.gap > REMEMBERED_S:
                del contest.fields[each.field]
                continue
            known.back, known.returns = True, known.returns + 1
            pause = LEFT_FOR * known.gap * 2.0 ** (known.returns - ROUNDS)
            most = max(LEFT_S[1], 6 * known.gap)
            known.left_until = now + min(max(pause, LEFT_S[0]), most)
        seen = {each.field for each in drift}
        for name, known in contest.fields.items():
            known.back = known.back and name in seen
        return {name for name, known in contest.fields.items() if known.contested and name in seen}

    def left(self, kind: Kind, uid: str, drift: Sequence[Difference]) -> list[Difference]:
        """Return what is left to the other writer for now: putting it right would kill pods."""
        contest, now = self._known.get(uid), self._clock()
        if contest is None or not kind.pods:
            return []
        return [
            each
            for each in drift
            if each.unit in kind.pods
            and each.how is not How.UNOWNED
            and (known := contest.fields.get(each.field))
            and known.returns >= ROUNDS
            and now < known.left_until
        ]

    def leave(self, uid: str, name: str, seconds: float) -> None:
        """Leave a contested field for so long: who changes it is known, and there."""
        known = self._known[uid].fields[name]
        known.returns, known.left_until = max(known.returns, ROUNDS), self._clock() + seconds

    def repaired(self, uid: str, drift: Sequence[Difference], writes: int) -> None:
        """Take note of a repair; after its `writes` the object is not repaired again at once.

        No writes: there is more to be put right, which was refused, and is tried again.
        """
        contest, now = self._known.setdefault(uid, _Contest()), self._clock()
        contest.calm_until = now + CALM_S * writes
        for each in drift:
            known = contest.fields.setdefault(each.field, _Field(now))
            known.repaired_at, known.back = now, False
        slow = max((f.gap for f in contest.fields.values() if f.contested), default=0.0)
        contest.over_at = max(contest.calm_until, now + 2 * slow)

    def tell(self, uid: str, drift: Drift) -> None:
        """Take note of what is reported of a contest; it goes on in the same words."""
        contest = self._known[uid]
        fields = contest.reported.fields if contest.reported else ()
        names = {each.split(" ")[0] for each in fields}
        more = tuple(each for each in drift.fields if each.split(" ")[0] not in names)
        contest.reported = replace(drift, fields=fields + more)

    def reported(self, uid: str) -> Drift | None:
        """Return what was fought over until that has not come back for a while."""
        contest = self._known.get(uid)
        if contest is None or contest.reported is None:
            return None
        if self._clock() < contest.over_at or any(f.back for f in contest.fields.values()):
            return contest.reported
        over, contest.reported = replace(contest.reported, handling=Handling.REPAIRED), None
        contest.fields.clear()
        return over

    def again(self, uid: str) -> timedelta | None:
        """Return when to look at a contest once more; None when there is none."""
        contest = self._known.get(uid)
        if contest is None or contest.reported is None:
            return None
        left = [f.left_until for f in contest.fields.values() if f.back and f.returns >= ROUNDS]
        now = self._clock()
        due = min((t for t in left if t > now), default=max(contest.calm_until, contest.over_at))
        due = min(due, contest.calm_until) if contest.calm_until > now else due
        return timedelta(seconds=max(due - now, 0.01))

    def forget(self, keep: Callable[[str], bool]) -> None:
        """Forget the objects that are gone."""
        self._known = {uid: contest for uid, contest in self._known.items() if keep(uid)}


def names_of(found: Collection[Difference]) -> set[str]:
    """Return the fields of `found`."""
    return {each.field for each in found}
