"""List and watch (client-go's Reflector): what there is of one collection, and what happens to it.

A watch goes on where the one before it ended. When the API server has forgotten that place, all is
listed anew, which also tells what was deleted meanwhile. Nothing ends it but its cancellation.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp

from yolofleet.runtime.client import Client
from yolofleet.runtime.errors import ClusterError, Forbidden, Throttled, Unanswered
from yolofleet.runtime.kind import Kind
from yolofleet.runtime.objects import Manifest

logger = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
PAUSE_WITHOUT_RIGHT_S: Final = 10.0
STEADY_S: Final = 5.0  # a watch that lasted so long is no failure, whatever ended it
JITTER: Final = 0.2


class Reflector:
    """Follows the objects of `kind` in one namespace, or in all.

    list: takes in all there is, and returns the version at which that was so. metadata_only: as of
    `Client.watch`. take: takes in an
    event, its type and the object. opened: told of each stream.
    """

    def __init__(
        self,
        client: Client,
        kind: Kind,
        list: Callable[[Reflector], Awaitable[int]],
        take: Callable[[str, Manifest], None],
        *,
        namespace: str = "",
        selector: str = "",
        metadata_only: bool = False,
        opened: Callable[[aiohttp.StreamReader], None] = lambda _: None,
    ) -> None:
        self._client = client
        self.kind = kind
        self._list = list
        self._take = take
        self.namespace = namespace
        self._selector = selector
        self._metadata_only = metadata_only
        self._opened = opened
        self._version: int | None = None
        self._failures = 0
        self._last_error = ""

    async def list(self) -> None:
        """Take in all there is; the watch goes on from there."""
        self._version = await self._list(self)

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            began, pause = time.monotonic(), 0.0
            try:
                if self._version is None:
                    await self.list()
                await self._watch()
            except ClusterError as error:
                self._tell(error)
                pause = self._pause_after(error)
                if not _keeps_place(error):
                    self._version = None
            steady = time.monotonic() - began > STEADY_S
            self._failures = 0 if steady else self._failures + 1
            most = min(FIRST_PAUSE_S * 2 ** min(self._failures - 1, 10), LONGEST_PAUSE_S)
            spread = random.uniform(1 - JITTER, 1 + JITTER)
            await asyncio.sleep(max(pause, 0.0 if steady else most * spread))

    async def _watch(self) -> None:
        assert self._version is not None
        await self._client.watch(
            self.kind,
            self._version,
            self._taken,
            namespace=self.namespace,
            selector=self._selector,
            opened=self._opened,
            metadata_only=self._metadata_only,
        )

    def _taken(self, type: str, manifest: Manifest) -> None:
        if type != "BOOKMARK":
            self._take(type, manifest)
        self._version = int(manifest["metadata"]["resourceVersion"])
        self._failures, self._last_error = 0, ""

    def _tell(self, error: ClusterError) -> None:
        """Log what is new about a watch that ended: servers restart, and connections break."""
        message = str(error)
        if message != self._last_error:
            fields = {"kind": self.kind.name, "namespace": self.namespace, "error": message}
            lasts = isinstance(error, Forbidden) or self._failures
            level = logging.WARNING if lasts else logging.DEBUG
            logger.log(level, "watch ended; it begins anew", extra={"fields": fields})
        self._last_error = message

    def _pause_after(self, error: ClusterError) -> float:
        if isinstance(error, Throttled):
            return error.retry_after
        return PAUSE_WITHOUT_RIGHT_S if isinstance(error, Forbidden) else 0.0


def _keeps_place(error: ClusterError) -> bool:
    """Say whether the watch can go on where it was: the server was not there, or had no time.

    After any other answer the place itself may be what is wrong: forgotten, or of a time that a
    restore from a backup has undone.
    """
    return isinstance(error, Unanswered | Throttled)
