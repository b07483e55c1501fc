"""Keeps the cache true, and enqueues who is concerned: a reflector for each kind and namespace.

All kinds are listed anew each ten minutes as well (resync), as controller-runtime does, and one
whose watch is silent at once: a watch can be open, and deaf.
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
from yolofleet.cluster.cache import Cache, Entry, entry_of
from yolofleet.runtime.client import Client, Listing
from yolofleet.runtime.errors import Busy, ClusterError, Forbidden, NotFound
from yolofleet.runtime.kind import CRD, Kind
from yolofleet.runtime.objects import Manifest
from yolofleet.runtime.queue import Priority, WorkQueue
from yolofleet.runtime.reflector import Reflector
from yolofleet.runtime.watch_health import WatchHealth

logger = logging.getLogger(__name__)

PERIOD_S: Final = 600.0
JITTER: Final = 0.1  # replicas that start together should not list together
DISCOVERY_DELAYS_S: Final = (0.2, 2.0, 8.0)  # a new CRD is served a little after it is there
RETRY_S: Final = 1.0
RIGHTS_S: Final = 60.0  # a server that has just begun knows nobody's rights for some seconds
LISTEN_S: Final = 5.0  # how often the streams of the watches are looked at


class Informer:
    """Lists and watches every kind into the cache, and asks which optional kinds exist.

    period_s: how often to resync. counted: told of each object that a reflector brought: its kind,
    and the type of the event, or LISTED. relisted: told of each watch that lost its place.
    resynced: told of the end of a resync. waiting: gives who waits for accelerators.
    """

    def __init__(
        self,
        client: Client,
        cache: Cache,
        queue: WorkQueue[str],
        *,
        namespaces: Sequence[str] = (),
        period_s: float = PERIOD_S,
        watches: WatchHealth | None = None,
        counted: Callable[[str, str], None] = lambda _kind, _type: None,
        relisted: Callable[[str], None] = lambda _kind: None,
        resynced: Callable[[], None] = lambda: None,
        waiting: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._client = client
        self._cache = cache
        self._queue = queue
        self._namespaces = tuple(namespaces) or ("",)
        self._period_s = period_s
        self.watches = watches or WatchHealth()
        self._counted = counted
        self._relisted = relisted
        self._resynced = resynced
        self._waiting = waiting
        self._reflectors: dict[Kind, list[Reflector]] = {}
        self._tasks: dict[Kind, list[asyncio.Task[None]]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._forbidden: set[Reflector] = set()
        self._listed: set[Reflector] = set()
        self._due: dict[Kind | None, float] = {}
        self._discoveries: list[float] = []
        self._changed = asyncio.Event()

    async def first(self) -> None:
        """Fill the cache; the operator must not decide anything before that."""
        await self._patiently(self.discover)
        for kind in (*kinds.CACHED, CRD):
            if self._cache.serves(kind):
                await self._begin(kind)

    async def run(self) -> None:
        """Follow from there what happens, and resync, until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            for kind in self._reflectors:
                self._follow(kind)
            await self._resync_when_due()

    async def list(self, kind: Kind) -> None:
        """Bring the cache up to date with all objects of `kind`; enqueue who is concerned."""
        keys: Counter[str] = Counter()
        listed: set[str] = set()
        for reflector in self._reflectors.get(kind, ()):
            if reflector in self._forbidden:
                continue
            listing = await self._read(kind, reflector.namespace)
            self.watches.missed(kind, self._cache.unknown(kind, listing.items))
            listed.update(entry.uid for entry in listing.items)
            keys += self._cache.replace_all(
                kind, listing.items, listing.version, reflector.namespace
            )
        self.watches.listed(kind, listed)
        self._enqueue(keys)

    def take(self, kind: Kind, type: str, manifest: Manifest) -> None:
        """Take in what a watch tells of an object."""
        self._counted(kind.name, type)
        metadata = manifest["metadata"]
        if kind is CRD:
            if metadata["name"] in _DEFINITIONS:
                self.definitions_changed()
            return
        version = int(metadata["resourceVersion"])
        self.watches.reported(kind, metadata["uid"], version)
        room = self._cache.nodes_version, self._cache.freed
        if type == "DELETED":
            key = self._cache.remove(kind, metadata["uid"], version)
        else:
            key = self._cache.put(kind, manifest)
        if key:
            urgent = kind is kinds.DETECTOR
            self._queue.add(key, Priority.USER if urgent else Priority.CHANGE)
        for rival in self._cache.routes.stirred():
            self._queue.add(rival, Priority.CHANGE)
        if (self._cache.nodes_version, self._cache.freed) != room:
            for waiting in self._waiting():
                self._queue.add(waiting, Priority.CHANGE)

    async def discover(self) -> None:
        """Ask which optional kinds exist; follow those that appeared, wake all on news."""
        for kind in kinds.OPTIONAL:
            served = await self._client.serves(kind)
            if not served:
                self._end(kind)
            if not self._cache.set_served(kind, served and not self._is_forbidden(kind)):
                continue
            logger.info(
                "API appeared" if served else "API vanished",
                extra={"fields": {"kind": kind.name, "api": kind.api_version}},
            )
            if served and self._group:
                await self._begin(kind)
                self._follow(kind)
            self._wake_all()

    def definitions_changed(self) -> None:
        """Ask soon, and again, which optional kinds exist: a CRD was made, changed or deleted."""
        self._discoveries = list(DISCOVERY_DELAYS_S)
        self._after(self._discoveries.pop(0), None)

    # reflectors

    async def _begin(self, kind: Kind) -> None:
        """List `kind` in each namespace. What may not be listed is asked for again by `_follow`."""
        self._reflectors[kind] = [
            self._reflector(kind, namespace)
            for namespace in (self._namespaces if kind.namespaced else ("",))
        ]
        for reflector in self._reflectors[kind]:
            await self._patiently(partial(self._first_list, reflector))

    def _reflector(self, kind: Kind, namespace: str) -> Reflector:
        opened = partial(self.watches.opened, kind, kind.path(namespace))
        definitions = kind is CRD  # not cached: that there is one is all that matters
        return Reflector(
            self._client,
            kind,
            self._list_all,
            partial(self.take, kind),
            namespace=namespace,
            selector=kinds.selector_of(kind),
            metadata_only=definitions,
            opened=(lambda _: None) if definitions else opened,
        )

    def _follow(self, kind: Kind) -> None:
        assert self._group is not None
        self._tasks[kind] = [
            self._group.create_task(reflector.run(), name=f"watch {kind}")
            for reflector in self._reflectors[kind]
        ]

    def _end(self, kind: Kind) -> None:
        """Follow a kind no more whose API is gone."""
        for task in self._tasks.pop(kind, ()):
            task.cancel()
        gone = self._reflectors.pop(kind, ())
        self._forbidden.difference_update(gone)
        self._listed.difference_update(gone)
        self.watches.forget(kind)

    async def _first_list(self, reflector: Reflector) -> None:
        kind = reflector.kind
        while True:
            try:
                await reflector.list()
                if not kind.optional and kind is not CRD:
                    self.watches.expect(kind, kind.path(reflector.namespace))
                return None
            except NotFound as error:
                if kind.optional:
                    return None  # it went meanwhile
                fields = {"kind": kind.name, "error": str(error)}
                logger.warning("cannot list yet; is its CRD installed?", extra={"fields": fields})
                await asyncio.sleep(RETRY_S)
            except Forbidden as error:
                if kind.namespaced and not kind.optional and kind not in kinds.DISPENSABLE:
                    raise
                return self._forbid(reflector, error)

    async def _list_all(self, reflector: Reflector) -> int:
        """Take in all that a reflector begins with, and what is gone since it last did."""
        kind = reflector.kind
        if kind is CRD:
            return await self._list_definitions(reflector)
        try:
            listing = await self._read(kind, reflector.namespace)
        except NotFound:
            if kind.optional:
                self.definitions_changed()
            raise
        self._may_read(reflector)
        for _ in listing.items:
            self._counted(kind.name, "LISTED")
        self.watches.begins_at(kind, listing.version)
        self._note_relist(reflector)
        keys = self._cache.replace_all(kind, listing.items, listing.version, reflector.namespace)
        self._enqueue(keys)
        return listing.version

    async def _list_definitions(self, reflector: Reflector) -> int:
        listing = await self._client.list(CRD, lambda _: None, metadata_only=True)
        if self._note_relist(reflector) or reflector in self._forbidden:
            self._forbidden.discard(reflector)
            self.definitions_changed()
        return listing.version

    def _note_relist(self, reflector: Reflector) -> bool:
        """Count a list by which a watch begins anew; say whether it is one."""
        again = reflector in self._listed
        if again:
            self._relisted(reflector.kind.name)
        self._listed.add(reflector)
        return again

    def _forbid(self, reflector: Reflector, error: Forbidden) -> None:
        kind = reflector.kind
        self._forbidden.add(reflector)
        if kind.optional and self._is_forbidden(kind):
            self._cache.set_served(kind, False)
        fields = {"kind": kind.name, "namespace": reflector.namespace, "error": str(error)}
        logger.warning("no right to list; doing without", extra={"fields": fields})

    def _is_forbidden(self, kind: Kind) -> bool:
        """Say whether a kind may be read in no namespace, so that it may as well be absent."""
        reflectors = self._reflectors.get(kind)
        return reflectors is not None and self._forbidden.issuperset(reflectors)

    def _may_read(self, reflector: Reflector) -> None:
        """Note that what was forbidden is allowed by now."""
        if reflector not in self._forbidden:
            return
        self._forbidden.remove(reflector)
        if reflector.kind.optional:
            self._cache.set_served(reflector.kind, True)
        self._wake_all()

    async def _read(self, kind: Kind, namespace: str) -> Listing[Entry]:
        return await self._client.list(
            kind,
            lambda manifest: entry_of(kind, manifest),
            namespace=namespace,
            selector=kinds.selector_of(kind),
        )

    # resync

    async def _resync_when_due(self) -> None:
        everything = self._next_resync()
        while True:
            listen = time.monotonic() + LISTEN_S
            await self._wait_until(min([everything, listen, *self._due.values()]))
            now = time.monotonic()
            self.watches.look()
            self._due.update(dict.fromkeys(self.watches.silent() - self._due.keys(), now))
            if whole := now >= everything:
                everything = self._next_resync()
                self._due.update(dict.fromkeys((None, *kinds.CACHED), now))
            for kind in [kind for kind, due in self._due.items() if due <= now]:
                del self._due[kind]
                await self._resync(kind)
            if whole:
                self._resynced()

    def _next_resync(self) -> float:
        return time.monotonic() + self._period_s * random.uniform(1 - JITTER, 1 + JITTER)

    async def _resync(self, kind: Kind | None) -> None:
        """List a kind; None: ask which there are."""
        try:
            if kind is None:
                if self._discoveries:
                    self._after(self._discoveries.pop(0), None)
                await self.discover()
            elif self._cache.serves(kind):
                await self.list(kind)
        except ClusterError as error:
            fields = {"kind": str(kind or "API"), "error": str(error)}
            logger.warning("list failed", extra={"fields": fields})
            if isinstance(error, NotFound):  # its CRD went
                self._after(RETRY_S, None)
            elif isinstance(error, Busy):
                self._after(RETRY_S, kind)

    async def _patiently(self, ask: Callable[[], Awaitable[None]]) -> None:
        until = time.monotonic() + RIGHTS_S
        while True:
            try:
                return await ask()
            except Busy as error:
                logger.warning("the API server is busy", extra={"fields": {"error": str(error)}})
            except Forbidden as error:
                if time.monotonic() >= until:
                    raise
                logger.warning("no right to read yet", extra={"fields": {"error": str(error)}})
            await asyncio.sleep(RETRY_S)

    def _wake_all(self) -> None:
        for key in self._cache.detectors():
            self._queue.add(key, Priority.CHANGE)

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


_DEFINITIONS: Final = frozenset(f"{kind.plural}.{kind.group}" for kind in kinds.OPTIONAL)
"""Names of the CRDs that define optional kinds."""
