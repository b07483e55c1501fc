"""What kubelets say of pods that do not get to start: asked for only when a pod is long about it.

A missing Secret or ConfigMap, a volume that cannot be attached, a network that is not there: the
pod itself tells of none of these. Its Events do. They are listed for few pods and seldom, so they
need no watch; without the right to read them a reconcile goes on without.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from yolofleet.api.names import Manifest
from yolofleet.api.plain import plain
from yolofleet.runtime.client import Client
from yolofleet.runtime.errors import ClusterError
from yolofleet.runtime.kind import EVENT
from yolofleet.workloads.failures import ASK_AGAIN, Complaint, stuck

MOST: Final = 3  # pods of one detector; those of a revision have the same to say
FORGET_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class _Heard:
    at: float
    complaint: Complaint | None


class Complaints:
    """Asks for the Events of stuck pods, and remembers the answers for a while."""

    def __init__(self, client: Client, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._heard: dict[str, _Heard] = {}

    async def about(self, pods: Iterable[Manifest], now: datetime) -> Mapping[str, Complaint]:
        """Return by uid what is said of those of `pods` that are long about to start."""
        newest = sorted(
            (pod for pod in pods if stuck(pod, now)),
            key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")),
            reverse=True,
        )
        found = {}
        for pod in newest[:MOST]:
            if complaint := await self._of(pod):
                found[pod["metadata"]["uid"]] = complaint
        return found

    async def _of(self, pod: Manifest) -> Complaint | None:
        uid, now = pod["metadata"]["uid"], self._clock()
        known = self._heard.get(uid)
        if known and now - known.at < ASK_AGAIN.total_seconds() / 2:
            return known.complaint
        self._heard = {u: h for u, h in self._heard.items() if now - h.at < FORGET_S}
        try:
            listing = await self._client.list(
                EVENT,
                _reduced,
                namespace=pod["metadata"]["namespace"],
                fields=f"involvedObject.uid={uid},type=Warning",
            )
            last = max(listing.items, key=lambda each: each.rank, default=None)
        except ClusterError:  # no right to, or too busy: then nobody knows why
            last = known.complaint if known else None
        self._heard[uid] = _Heard(now, last)
        return last


def _reduced(event: Manifest) -> Complaint:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    when = next((str(each) for each in times if each), "")
    return Complaint(str(event.get("reason", "")), plain(str(event.get("message", ""))), when)
