"""Kubernetes Events: what a user sees in `kubectl describe`; said once, not once a reconcile."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from yolofleet.runtime import client as requests
from yolofleet.runtime.client import Client
from yolofleet.runtime.errors import ClusterError, NotFound
from yolofleet.runtime.objects import Manifest

logger = logging.getLogger(__name__)

WINDOW_S: Final = 600.0  # the same words about the same object are one Event this long
BURST: Final = 25  # different Events about one object in a window; client-go's limit
WAITING: Final = 1000  # Events not sent yet; beyond that they are dropped: status has it all
MAX_MESSAGE: Final = 1024


@dataclass(slots=True)
class _Said:
    """One thing that was said: the Event, how often, and when it was last written."""

    event: Manifest
    count: int = 0
    written_at: float = float("-inf")
    exists: bool = False


class Events:
    """Posts Events in the background: emitting waits for nothing and cannot fail."""

    def __init__(
        self,
        client: Client,
        *,
        instance: str,
        manager: str,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._instance = instance
        self._manager = manager
        self._clock = clock
        self._now = now
        self._said: dict[str, _Said] = {}
        self._by_object: dict[str, int] = {}
        self._window_began = clock()
        self._waiting: asyncio.Queue[_Said] = asyncio.Queue(WAITING)

    async def emit(self, raw: Manifest, type: str, reason: str, message: str) -> None:
        """Say `message` about the object `raw`; within ten minutes the same is only counted."""
        self._begin_window()
        uid = raw["metadata"]["uid"]
        words = hashlib.sha256("\0".join((uid, type, reason, message)).encode()).hexdigest()[:16]
        said = self._said.get(words)
        if said is None:
            if self._by_object.get(uid, 0) >= BURST:
                return
            self._by_object[uid] = self._by_object.get(uid, 0) + 1
            event = self._event(raw, type, reason, message, words)
            said = self._said[words] = _Said(event)
        said.count += 1
        if self._clock() - said.written_at >= WINDOW_S and not self._waiting.full():
            said.written_at = self._clock()
            self._waiting.put_nowait(said)

    async def run(self) -> None:
        """Post what was emitted, until cancelled."""
        while True:
            said = await self._waiting.get()
            try:
                await self._post(said)
            except ClusterError as error:
                fields = {"reason": said.event["reason"], "error": str(error)}
                logger.info("event not posted", extra={"fields": fields})
            finally:
                self._waiting.task_done()

    async def posted(self) -> None:
        """Return when all that was emitted was posted, or could not be; `run` does it."""
        await self._waiting.join()

    async def _post(self, said: _Said) -> None:
        stamp = self._stamp()
        if said.exists:
            change = {"count": said.count, "lastTimestamp": stamp}
            operations = [
                {"op": "replace", "path": f"/{name}", "value": value}
                for name, value in change.items()
            ]
            try:
                await self._client.send(requests.json_patch(said.event, operations, self._manager))
            except NotFound:  # Events live for an hour
                said.event["firstTimestamp"] = stamp
            else:
                return
        said.event |= {"count": said.count, "lastTimestamp": stamp}
        await self._client.send(requests.create(said.event, self._manager))
        said.exists = True

    def _begin_window(self) -> None:
        """Forget, once a window, what was not said again in it."""
        now = self._clock()
        if now - self._window_began < WINDOW_S:
            return
        self._window_began = now
        self._by_object.clear()
        fresh = {words: s for words, s in self._said.items() if now - s.written_at < 2 * WINDOW_S}
        self._said = fresh

    def _event(self, raw: Manifest, type: str, reason: str, message: str, words: str) -> Manifest:
        metadata = raw["metadata"]
        begun = f"{int(self._now().timestamp()):x}"  # a new name after the old one has expired
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name'][:200]}.{words}.{begun}",
                "namespace": metadata["namespace"],
            },
            "involvedObject": {
                "apiVersion": raw["apiVersion"],
                "kind": raw["kind"],
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
            "type": type,
            "reason": reason,
            "message": message[:MAX_MESSAGE],
            "firstTimestamp": self._stamp(),
            "source": {"component": self._manager, "host": self._instance},
            "reportingComponent": self._manager,
            "reportingInstance": self._instance,
        }

    def _stamp(self) -> str:
        return self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
