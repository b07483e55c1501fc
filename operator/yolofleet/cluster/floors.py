"""Asks the pods of who is scaled by their load how much that is, beside all reconciles.

What they count goes to `floor`, and a floor that is news has its detector looked at. Nothing is
written here: the floor that was published last is in the status, and whoever begins without a
memory of more keeps it for a while.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import aiohttp

from yolofleet.analysis.evidence import parse
from yolofleet.api.names import Manifest
from yolofleet.cluster.cache import Cache
from yolofleet.cluster.rounds import Rounds
from yolofleet.cluster.sampler import Fetch
from yolofleet.plan.floor import EVERY, Floor, Look, Moved, PodLoad, begun, floor
from yolofleet.plan.scaler import Followed
from yolofleet.workloads.pods import evidence_url, is_ready, revision_of

AT_ONCE: Final = 64
TIMEOUT_S: Final = 1.0
"""A pod that takes longer to tell a few numbers is looked at again soon."""


@dataclass(slots=True)
class _Followed:
    """One that is looked at. floor: by the last look; published: by the last one that was news."""

    whom: Followed
    floor: Floor
    published: Moved | None = None

    @property
    def is_news(self) -> bool:
        """Whether people, or the autoscaler, are to know what the last look showed."""
        if self.published is None:
            return bool(self.floor.reason or self.floor.lost)
        return _shown(self.published.floor) != _shown(self.floor)


def _shown(floor: Floor) -> tuple[int, bool, bool]:
    return floor.replicas, bool(floor.lost), floor.beyond


class Floors:
    """Follows the detectors that reconciles name, and knows the floor of each."""

    def __init__(
        self,
        cache: Cache,
        fetch: Fetch,
        *,
        wake: Callable[[str], None],
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache = cache
        self._fetch = fetch
        self._wake = wake
        self._now = now
        self.rounds = Rounds(self._look, lambda _: EVERY.total_seconds(), clock=clock)
        self._places = asyncio.Semaphore(AT_ONCE)

    def follow(self, key: str, whom: Followed | None) -> None:
        """Look at the load of the detector `key` from now on; None: no more."""
        known = self.rounds.get(key)
        if whom is None:
            self.rounds.end(key)
        elif known:
            known.whom = whom
        else:
            self.rounds.begin(key, _Followed(whom, begun(whom.begins, self._now())))

    def found(self, key: str) -> Moved | None:
        """Return the floor of `key` as it was published last; None: nobody could look yet."""
        known = self.rounds.get(key)
        return known.published if known else None

    async def _look(self, key: str, known: _Followed) -> None:
        pods = [pod for pod in self._cache.pods(key) if "deletionTimestamp" not in pod["metadata"]]
        ready = [pod for pod in pods if is_ready(pod)]
        loads = await asyncio.gather(*(self._ask(pod, known.whom.revision) for pod in ready))
        if self.rounds.get(key) is not known:  # it ended meanwhile
            return
        now = self._now()
        by_uid = dict(zip(map(_uid, ready), loads, strict=True))
        look = Look(now, by_uid, frozenset(map(_uid, pods)) - by_uid.keys())
        known.floor = floor(look, known.whom.targets, known.floor)
        if known.is_news:
            known.published = Moved(known.floor, now)
            self._wake(key)

    async def _ask(self, pod: Manifest, stable: str) -> PodLoad | None:
        """Return what a pod counted; None: nothing that can be read."""
        url, revision = evidence_url(pod), revision_of(pod)
        if not url:
            return None
        try:
            async with self._places, asyncio.timeout(TIMEOUT_S):
                body = await self._fetch(url)
        except (OSError, TimeoutError, aiohttp.ClientError):
            return None
        evidence = parse(body, revision=revision)
        if isinstance(evidence, str):
            return None
        load = evidence.load
        if load.offered is None or load.inside_seconds is None:  # an older server's
            return None
        capacity, counts = load.capacity_per_second, revision == stable
        return PodLoad(evidence.started, load.offered, load.inside_seconds, capacity, counts)


def _uid(pod: Manifest) -> str:
    return str(pod["metadata"]["uid"])
