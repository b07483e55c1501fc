"""Repair of what watches lose: lists at the start, every ten minutes, and after a relist.

A watch that had to begin anew tells of the survivors and says nothing of what was deleted
meanwhile. Lists compared with the cache find these, and enqueue only what differs.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Final

from yolofleet.cluster import kinds
from yolofleet.cluster.cache import Cache, entry_of
from yolofleet.runtime.client import Client
from yolofleet.runtime.errors import Busy, ClusterError, Forbidden, NotFound
from yolofleet.runtime.hearing import Hearing
from yolofleet.runtime.kind import CRD, Kind
from yolofleet.runtime.queue import Priority, WorkQueue

logger = logging.getLogger(__name__)

PERIOD_S: Final = 600.0
JITTER: Final = 0.1  # replicas that start together should not list together
SETTLE_S: Final = 30.0  # then the watches have begun, and their first lists are over
RELIST_DELAY_S: Final = 2.0  # several watches may begin anew at once, one of them again and again
DISCOVERY_DELAYS_S: Final = (0.2, 2.0, 8.0)  # a new CRD is served a little after it is there
RETRY_S: Final = 1.0
LISTEN_S: Final = 5.0  # how often the streams of the watches are looked at


class Sweep:
    """Lists every kind into the cache, and asks which optional kinds exist."""

    def __init__(
        self,
        client: Client,
        cache: Cache,
        queue: WorkQueue,
        *,
        namespaces: Sequence[str] = (),
        relisted: Callable[[str], None] = lambda _kind: None,
        hearing: Hearing | None = None,
        swept: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._cache = cache
        self._queue = queue
        self._namespaces = tuple(namespaces) or ("",)
        self._relisted = relisted
        self._swept = swept
        self.hearing = hearing or Hearing()
        self._forbidden: set[Kind] = set()
        self._due: dict[Kind | None, float] = {}
        self._begun: set[str] = set()
        self._discoveries: list[float] = []
        self._changed = asyncio.Event()

    async def first(self) -> None:
        """Fill the cache; the operator must not decide anything before that."""
        await self._patiently(self.discover)
        for kind in kinds.CACHED:
            if self._cache.serves(kind):
                await self._patiently(partial(self._first_list, kind))
        await self._patiently(self._may_read_definitions)

    def readable(self, kind: Kind) -> bool:
        """Return whether RBAC lets us list `kind`; a watch of it would end the process if not."""
        return kind not in self._forbidden

    def watch_begun(self, kind: Kind, path: str) -> None:
        """Take note of a list that the watch at `path` begins with, whatever it holds.

        Any but the first means that the watch lost its place, and with it deletions.
        """
        if path in self._begun:
            self._relisted(kind.name)
            self._due.setdefault(kind, time.monotonic() + RELIST_DELAY_S)
            self._changed.set()
        self._begun.add(path)

    def definitions_changed(self) -> None:
        """Ask soon, and again, which optional kinds exist: a CRD was made, changed or deleted."""
        self._discoveries = list(DISCOVERY_DELAYS_S)
        self._after(self._discoveries.pop(0), None)

    async def run(self) -> None:
        """List what is due, until cancelled."""
        everything = time.monotonic() + SETTLE_S
        while True:
            listen = time.monotonic() + LISTEN_S
            await self._wait_until(min([everything, listen, *self._due.values()]))
            now = time.monotonic()
            self.hearing.look()
            self._due.update(dict.fromkeys(self.hearing.silent() - self._due.keys(), now))
            if whole := now >= everything:
                everything = now + PERIOD_S * random.uniform(1 - JITTER, 1 + JITTER)
                self._due.update(dict.fromkeys((None, *kinds.CACHED), now))
            for kind in [kind for kind, due in self._due.items() if due <= now]:
                del self._due[kind]
                await self._sweep(kind)
            if whole:
                self._swept()

    async def discover(self) -> None:
        """Ask which optional kinds exist; list those that appeared, wake all detectors on news."""
        for kind in filter(self.readable, kinds.OPTIONAL):
            served = await self._client.serves(kind)
            if not self._cache.set_served(kind, served):
                continue
            logger.info(
                "API appeared" if served else "API vanished",
                extra={"fields": {"kind": kind.name, "api": kind.api_version}},
            )
            if served:
                try:
                    await self.list(kind)
                except Forbidden as error:
                    self._forbid(kind, error)
                    continue
            else:
                self.hearing.forget(kind)
            for key in self._cache.detectors():
                self._queue.add(key, Priority.DRIFT)

    async def _discover_again(self) -> None:
        """Ask again, and list what is optional: its watch may have begun after our first list."""
        await self.discover()
        for kind in kinds.OPTIONAL:
            if self._cache.serves(kind):
                await self.list(kind)
        if self._discoveries:
            self._after(self._discoveries.pop(0), None)

    async def list(self, kind: Kind) -> None:
        """Bring the cache up to date with all objects of `kind`; enqueue who is concerned."""
        keys: Counter[str] = Counter()
        listed: set[str] = set()
        for namespace in self._namespaces if kind.namespaced else ("",):
            listing = await self._client.list(
                kind,
                lambda manifest: entry_of(kind, manifest),
                namespace=namespace,
                selector=kinds.selector_of(kind),
            )
            self.hearing.missed(kind, self._cache.unknown(kind, listing.items))
            listed.update(entry.uid for entry in listing.items)
            keys += self._cache.replace_all(kind, listing.items, listing.version, namespace)
        self.hearing.listed(kind, listed)
        self._enqueue(keys)

    async def _sweep(self, kind: Kind | None) -> None:
        try:
            if kind is None:
                await self._discover_again()
            elif self._cache.serves(kind) and self.readable(kind):
                await self.list(kind)
        except ClusterError as error:
            fields = {"kind": str(kind or "API"), "error": str(error)}
            logger.warning("list failed", extra={"fields": fields})
            if isinstance(error, NotFound):  # its CRD went
                self._after(RETRY_S, None)
            elif isinstance(error, Busy):
                self._after(RETRY_S, kind)

    async def _patiently(self, ask: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                return await ask()
            except Busy as error:
                logger.warning("the API server is busy", extra={"fields": {"error": str(error)}})
                await asyncio.sleep(RETRY_S)

    async def _first_list(self, kind: Kind) -> None:
        while True:
            try:
                return await self.list(kind)
            except NotFound as error:
                fields = {"kind": kind.name, "error": str(error)}
                logger.warning("cannot list yet; is its CRD installed?", extra={"fields": fields})
                await asyncio.sleep(RETRY_S)
            except Forbidden as error:
                if kind.namespaced and not kind.optional and kind is not kinds.RECORD:
                    raise  # without records it serves, and each detector's status says what lacks
                return self._forbid(kind, error)

    async def _may_read_definitions(self) -> None:
        try:
            await self._client.probe(CRD)
        except Forbidden as error:
            self._forbid(CRD, error)

    def _forbid(self, kind: Kind, error: Forbidden) -> None:
        self._forbidden.add(kind)
        if kind.optional:
            self._cache.set_served(kind, False)
        fields = {"kind": kind.name, "error": str(error)}
        logger.warning("no right to list; doing without", extra={"fields": fields})

    def _enqueue(self, keys: Iterable[str]) -> None:
        for key in {*keys, *self._cache.routes.stirred()}:
            self._queue.add(key, Priority.RESYNC)

    def _after(self, delay_s: float, kind: Kind | None) -> None:
        self._due[kind] = time.monotonic() + delay_s
        self._changed.set()

    async def _wait_until(self, due: float) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(max(0.0, due - time.monotonic())):
                await self._changed.wait()
        except TimeoutError:
            pass
