"""The few pictures on which two revisions differ most: in memory, for an hour, for one release.

People may be seen in them. So nothing is kept unless that is asked for and somebody may look, and
it goes with its hour, with the release or with the wish, whichever ends first.
"""

import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from yoloserve.shadow.pairs import Disagreement, Found

MOST_FRAMES = 24
MOST_BYTES = 32 * 2**20
LASTS_S = 3600.0
ALIKE_S = 1.0  # frames this close to each other look the same: of these, the one that differs most


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture, and what each of the two found in it."""

    name: str  # told to nobody but who may look; another pod has none of that name
    at: float  # on the album's clock
    taken: float  # seconds since 1970
    encoded: bytes
    stable: Found
    canary: Found
    apart: Disagreement
    size: int  # bytes of all of it


class Album:
    """Frames of one release, the one that differs most first. Of one event loop."""

    def __init__(
        self, clock: Callable[[], float], *, wall: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._frames: list[Frame] = []
        self.canary = ""  # whose differences are kept; nobody's: none are

    def follow(self, canary: str) -> None:
        """Keep from now on what differs in this revision's answers, and nothing of another's."""
        if canary != self.canary:
            self._frames = []
        self.canary = canary
        self._forget()

    def frames(self) -> list[Frame]:
        """Give what there is."""
        self._forget()
        return list(self._frames)

    def frame(self, name: str) -> Frame | None:
        """Give one."""
        return next((each for each in self.frames() if each.name == name), None)

    def offer(
        self, canary: str, encoded: bytes, stable: Found, found: Found, apart: Disagreement
    ) -> None:
        """Keep a frame, if it differs more than one that is here."""
        if not apart or canary != self.canary:
            return
        self._forget()
        now = self._clock()
        rest = [each for each in self._frames if now - each.at >= ALIKE_S]
        alike = [each for each in self._frames if now - each.at < ALIKE_S]
        if any(len(each.apart) >= len(apart) for each in alike):
            return
        size = _size(encoded, stable, found, apart)
        name, taken = secrets.token_hex(8), self._wall()
        frame = Frame(name, now, taken, encoded, stable, found, apart, size)
        # A new one goes before an old one that differs as much: what is shown stays recent.
        kept = sorted([frame, *rest], key=lambda each: -len(each.apart))[:MOST_FRAMES]
        while sum(each.size for each in kept) > MOST_BYTES:
            kept.pop()
        self._frames = kept

    def _forget(self) -> None:
        oldest = self._clock() - LASTS_S
        self._frames = [each for each in self._frames if each.at > oldest]


def _size(encoded: bytes, stable: Found, canary: Found, apart: Disagreement) -> int:
    found = stable.detections, canary.detections, apart.lost, apart.added, *apart.confused
    boxes = sum(each.boxes.nbytes + each.scores.nbytes + each.classes.nbytes for each in found)
    names = *stable.classes, *canary.classes, *apart.classes  # of the canary: its own words
    return len(encoded) + boxes + sum(map(sys.getsizeof, names))
