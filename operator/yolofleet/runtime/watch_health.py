"""Whether the watches still tell what happens: a watch can be open, and deaf.

A quiet cluster is healthy, so silence proves nothing: API servers need not send bookmarks. It only
makes the informer list that kind at once. What such a list finds, and a watch has not sent a minute
later, is the proof.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from yolofleet.runtime.kind import Kind

logger = logging.getLogger(__name__)

SILENCE_S: Final = (
    150.0  # two bookmarks, which mostly come each minute, and the time-out of a silent watch, 70 s
)
UNSEEN_SHARE: Final = 0.4  # of that: a watch that lost its connection may need a minute to be back


class Stream(Protocol):
    """The body of an answer, as aiohttp reads it."""

    total_bytes: int


@dataclass(slots=True)
class _Watch:
    """The present stream of one watch, and when last a byte came through it or one before it."""

    kind: Kind
    heard_at: float
    stream: Stream | None = None
    bytes: int = 0


class WatchHealth:
    """Compares what watches tell with what lists find."""

    def __init__(
        self,
        *,
        silence_s: float = SILENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._silence_s = silence_s
        self._unseen_s = UNSEEN_SHARE * silence_s
        self._clock = clock
        self._watches: dict[str, _Watch] = {}
        self._unseen: dict[Kind, dict[str, tuple[int, float]]] = {}
        self._told: set[Kind] = set()

    def expect(self, kind: Kind, path: str) -> None:
        """Say that `kind` is to be watched at the address `path`."""
        self._watches.setdefault(path, _Watch(kind, self._clock()))

    def opened(self, kind: Kind, path: str, stream: Stream) -> None:
        """Say that a watch, or the list it begins with, has an answer; its body is to come."""
        self.look()
        self.expect(kind, path)
        watch = self._watches[path]
        watch.stream, watch.bytes = stream, stream.total_bytes

    def reported(self, kind: Kind, uid: str, version: int) -> None:
        """Say that a watch sent an object, in this version or gone."""
        unseen = self._unseen.get(kind)
        if unseen and uid in unseen and version >= unseen[uid][0]:
            del unseen[uid]

    def missed(self, kind: Kind, versions: Mapping[str, int]) -> None:
        """Say that a list brought objects (uid: version) that no watch had sent until now.

        To be said at once, before any watch can tell of them.
        """
        if all(watch.kind is not kind for watch in self._watches.values()):
            return  # nobody watches it
        unseen = self._unseen.setdefault(kind, {})
        for uid, version in versions.items():
            unseen.setdefault(uid, (version, self._clock()))

    def listed(self, kind: Kind, there: Container[str]) -> None:
        """Say which objects a whole list held: what is gone by now need not be sent."""
        for uid in [uid for uid in self._unseen.get(kind, ()) if uid not in there]:
            del self._unseen[kind][uid]

    def begins_at(self, kind: Kind, version: int) -> None:
        """Say that a watch begins anew after a list of `version`: it tells of nothing older."""
        unseen = self._unseen.get(kind, {})
        for uid in [uid for uid, (missed, _) in unseen.items() if missed <= version]:
            del unseen[uid]

    def forget(self, kind: Kind) -> None:
        """Say that the API of `kind` is gone, and its watches with it."""
        self._unseen.pop(kind, None)
        self._watches = {p: watch for p, watch in self._watches.items() if watch.kind is not kind}

    def closed(self, path: str) -> None:
        """Say that nobody watches at the address `path` any more."""
        self._watches.pop(path, None)

    def look(self) -> None:
        """Notice which streams have moved, and log who is deaf; to be called every few seconds."""
        for watch in self._watches.values():
            if watch.stream and watch.stream.total_bytes != watch.bytes:
                watch.bytes, watch.heard_at = watch.stream.total_bytes, self._clock()
        deaf = self._deaf()
        for kind in deaf.keys() - self._told:
            logger.warning(deaf[kind], extra={"fields": {"kind": str(kind)}})
        self._told = set(deaf)

    def silent(self) -> set[Kind]:
        """Return the kinds to be listed, because a watch was silent for long; each once a while."""
        now, kinds = self._clock(), set()
        for watch in self._watches.values():
            if now - watch.heard_at > self._silence_s:
                watch.heard_at = now
                kinds.add(watch.kind)
        return kinds

    def unopened(self) -> str:
        """Say which watches have not begun yet; nothing when all have."""
        waiting = sorted({str(w.kind) for w in self._watches.values() if w.stream is None})
        return f"not watched yet: {', '.join(waiting)}" if waiting else ""

    def failing(self) -> str:
        """Say which watches have missed what lists found; nothing when all hear."""
        return "; ".join(self._deaf().values())

    def _deaf(self) -> dict[Kind, str]:
        now, deaf = self._clock(), dict[Kind, str]()
        for kind, unseen in self._unseen.items():
            waits = [now - since for _, since in unseen.values()]
            if waits and max(waits) > self._unseen_s:
                deaf[kind] = (
                    f"the watch of {kind} is deaf: it has not told {len(waits)} changes that a list"
                    " found"
                )
        return deaf
