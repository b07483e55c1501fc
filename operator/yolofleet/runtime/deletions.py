"""Objects that others delete again and again: made again at once, then ever more seldom.

Whoever deletes is told to nobody, so that only the coming and going can be seen. One deletion is an
accident; one that comes back is a contest, which is reported, and bounded: each round costs writes,
and may cost pods.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from yolofleet.runtime import objects
from yolofleet.runtime.contests import QUICK_S, REMEMBERED_S, ROUNDS
from yolofleet.runtime.drift import Drift, Handling
from yolofleet.runtime.kind import kind_of
from yolofleet.runtime.objects import Manifest

_MANY: Final = 1000

Address = tuple[str, str, str, str]
"""Of an object that somebody may delete and make again: its owner's uid, kind, namespace, name."""


@dataclass(slots=True)
class _Made:
    """An object that was made at `at`. times: how often it was deleted; gap: after how long."""

    at: float
    most: float  # seconds from one making to the next
    times: int = 0
    quick: int = 0  # of these, in a row within `QUICK_S`
    gap: float = 0.0
    gone: bool = False

    @property
    def contested(self) -> bool:
        return self.times >= (2 if self.gap <= QUICK_S else 3)

    @property
    def pause(self) -> float:
        """From one making to the next, at least."""
        return min(2.0 ** (self.quick - ROUNDS - 1), self.most) if self.quick > ROUNDS else 0.0

    @property
    def over_at(self) -> float:
        return self.at + 2 * max(self.gap, self.pause, QUICK_S / 2)


class Deletions:
    """Remembers what was made, and whether it is still there."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[Address, _Made] = {}

    def made(self, manifest: Manifest) -> None:
        """Take note that an object was made."""
        now = self._clock()
        if len(self._known) >= _MANY and not len(self._known) % _MANY:
            self._known = {a: m for a, m in self._known.items() if now - m.at <= REMEMBERED_S}
        most = kind_of(manifest).gone_s  # what is missing may be what serves
        made = self._known.setdefault(address_of(manifest), _Made(now, most))
        made.at, made.gone = now, False

    def lost(self, address: Address) -> bool:
        """Take note that an object is not there; say whether it is left so for a moment."""
        made, now = self._known.get(address), self._clock()
        if made is None:
            return False
        if not made.gone:
            made.gone, made.gap = True, now - made.at
            if made.gap > REMEMBERED_S:
                del self._known[address]
                return False
            made.times += 1
            made.quick = made.quick + 1 if made.gap <= QUICK_S else 0
        return now < made.at + made.pause

    def found(self, address: Address) -> None:
        """Take note that an object is there: somebody else may have made it again."""
        made = self._known.get(address)
        if made is not None and made.gone:
            made.at, made.gone = self._clock(), False

    def repeated(self, address: Address) -> Drift | None:
        """Return what is to be reported of an object that is deleted again and again."""
        made = self._known.get(address)
        if made is None or not made.contested:
            return None
        over = not made.gone and self._clock() >= made.over_at
        if over:
            del self._known[address]
        _, kind, _, name = address
        handling = Handling.REPAIRED if over else Handling.DELETED
        return Drift(kind, name, ("deleted again and again",), handling)

    def again(self, address: Address) -> timedelta | None:
        """Return when to look at it once more; None when there is no contest."""
        made = self._known.get(address)
        if made is None or not made.contested:
            return None
        due = made.at + made.pause if made.gone else made.over_at
        return timedelta(seconds=max(due - self._clock(), 0.01))

    def forget(self, manifest: Manifest) -> None:
        """Forget an object: it was deleted because nobody wants it."""
        self._known.pop(address_of(manifest), None)


def address_of(manifest: Manifest) -> Address:
    """Return where what is deleted is found again, were it another object by then."""
    kind, name = objects.identity(manifest)
    return objects.controller_uid(manifest), kind, manifest["metadata"].get("namespace", ""), name
