"""Workloads that never had a ready replica, and never will: taken away and made anew, a few times.

Some controllers leave what failed as it is: given the same again, they do nothing. One that was
ever ready is not for here, whatever is said of it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from yolofleet.api.status import Remade
from yolofleet.plan.observed import Observed

MOST: Final = 3
AFTER: Final = timedelta(minutes=1)
"""So long one is left to whoever looks at it; twice as long at each next time."""


@dataclass(frozen=True, slots=True)
class Remaking:
    """names: those to take away now. times: how often each was made anew, this time included."""

    names: frozenset[str] = frozenset()
    times: Mapping[str, int] = field(default_factory=dict)
    next_look: timedelta | None = None

    @property
    def status(self) -> list[Remade] | None:
        """Return what is to be remembered; None: nothing."""
        return [Remade(revision=name, times=n) for name, n in sorted(self.times.items())] or None


def remaking(
    observed: Observed, wanted: Iterable[str], *, suspended: bool, now: datetime
) -> Remaking:
    """Say which of `wanted` are made anew now. suspended: nothing is."""
    told = {each.revision: each.times for each in observed.status.remade or ()}
    names, times, looks = set(), dict[str, int](), []
    for name in wanted:
        seen = observed.revisions.get(name)
        done = max(told.get(name, 0), seen.remade if seen else 0)  # a status may be lost
        if done and not observed.ready(name):
            times[name] = done
        if seen is None or seen.hopeless is None or done >= MOST or suspended:
            continue
        left = seen.hopeless + AFTER * 2**done - now
        if left > timedelta():
            looks.append(left)
        else:
            names.add(name)
            times[name] = done + 1
    return Remaking(frozenset(names), times, min(looks, default=None))


def words(times: int) -> str:
    """Say what was done about it."""
    if not times:
        return ""
    if times < MOST:
        return f"; it was made anew {times} of {MOST} times"
    return (
        f"; it was made anew {times} times, and is left as it is now: change the spec, or delete"
        " what failed to have it tried once more"
    )
