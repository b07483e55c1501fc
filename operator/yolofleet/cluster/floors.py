"""Asks the pods of who is scaled by their load how much that is, beside all reconciles.

What they tell goes to `floor`, and a floor that is news has its detector looked at. Nothing is
written here: the floor that was told last is in the status, and whoever begins without a memory of
more keeps it for a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Final

import aiohttp

from yolofleet.analysis.evidence import parse
from yolofleet.api.names import REVISION_LABEL, Manifest
from yolofleet.cluster.cache import Cache
from yolofleet.cluster.sampler import PORT, Fetch
from yolofleet.plan.floor import EVERY, Floor, Look, Moved, PodLoad, begun, floor
from yolofleet.plan.scaler import Followed
from yolofleet.workloads.pods import is_ready

logger = logging.getLogger(__name__)

AT_ONCE: Final = 64
TIMEOUT_S: Final = 1.0
"""A pod that takes longer to tell a few numbers is looked at again soon."""


@dataclass(slots=True)
class _Followed:
    """One that is looked at. floor: by the last look; published: by the last one that was news.

    due: when it is looked at next; never, while it is looked at.
    """

    whom: Followed
    due: float
    floor: Floor
    published: Moved | None = None

    @property
    def is_news(self) -> bool:
        """Whether people, or the autoscaler, are to know what the last look showed."""
        if self.published is None:
            return bool(self.floor.reason or self.floor.lost)
        last = self.published.floor
        return (last.replicas, bool(last.lost)) != (self.floor.replicas, bool(self.floor.lost))


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
        self._clock = clock
        self._known: dict[str, _Followed] = {}
        self._places = asyncio.Semaphore(AT_ONCE)
        self._changed = asyncio.Event()

    def follow(self, key: str, whom: Followed | None) -> None:
        """Look at the load of the detector `key` from now on; None: no more."""
        known = self._known.get(key)
        if whom is None:
            self._known.pop(key, None)
        elif known:
            known.whom = whom
        else:
            self._known[key] = _Followed(whom, self._clock(), begun(whom.begins, self._now()))
            self._changed.set()

    def found(self, key: str) -> Moved | None:
        """Return the floor of `key` as it was told last; None: nobody could look yet."""
        known = self._known.get(key)
        return known.published if known else None

    def next_look_s(self) -> float | None:
        """Return in how many seconds somebody is due; None: nobody waits for that."""
        due = min((known.due for known in self._known.values()), default=inf)
        return None if due == inf else max(due - self._clock(), 0.0)

    async def run(self) -> None:
        """Look at whoever is due, each beside all others, until cancelled."""
        async with asyncio.TaskGroup() as looks:
            while True:
                self._changed.clear()
                try:
                    async with asyncio.timeout(self.next_look_s()):
                        await self._changed.wait()
                except TimeoutError:
                    for look in self._due():
                        looks.create_task(look)

    async def look_at_due(self) -> None:
        """Look once at each that is due."""
        await asyncio.gather(*self._due())

    def _due(self) -> list[Coroutine[None, None, None]]:
        now = self._clock()
        due = [(key, known) for key, known in self._known.items() if known.due <= now]
        for _, known in due:
            known.due = inf
        return [self._look_in_peace(key, known, now) for key, known in due]

    async def _look_in_peace(self, key: str, known: _Followed, began: float) -> None:
        try:
            await self._look(key, known)
        except Exception as error:  # a fault of ours ends no other look, and is seen
            logger.error(
                "a look at the load failed", exc_info=error, extra={"fields": {"key": key}}
            )
        known.due = max(began + EVERY.total_seconds(), self._clock())
        self._changed.set()

    async def _look(self, key: str, known: _Followed) -> None:
        pods = [pod for pod in self._cache.pods(key) if "deletionTimestamp" not in pod["metadata"]]
        ready = [pod for pod in pods if is_ready(pod)]
        loads = await asyncio.gather(*(self._ask(pod, known.whom.revision) for pod in ready))
        if self._known.get(key) is not known:  # it ended meanwhile
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
        address = (pod.get("status") or {}).get("podIP", "")
        host = f"[{address}]" if ":" in address else address
        revision = str((pod["metadata"].get("labels") or {}).get(REVISION_LABEL, ""))
        try:
            async with self._places, asyncio.timeout(TIMEOUT_S):
                body = await self._fetch(f"http://{host}:{PORT}/evidence")
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
