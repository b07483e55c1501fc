"""Keeps the cache true, and enqueues who is concerned: a reflector for each kind and namespace.

All kinds are listed anew each ten minutes as well (resync), as controller-runtime does, and one
whose watch is silent at once: a watch can be open, and deaf. Of several namespaces one that may not
be read, as its rights go with it when it is deleted, is done without until it may be. What counts
is a watch that ended and may not begin anew, as is tried each ten seconds: an open one tells all.
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
from yolofleet.runtime.errors import (
    Busy,
    ClusterError,
    Forbidden,
    NotFound,
    Unanswered,
    Unauthenticated,
    Untrusted,
    WentBack,
)
from yolofleet.runtime.kind import CRD, Kind
from yolofleet.runtime.objects import Manifest
from yolofleet.runtime.patience import Patience
from yolofleet.runtime.queue import Priority, WorkQueue
from yolofleet.runtime.reflector import PAUSE_WITHOUT_RIGHT_S, Reflector
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
    resynced: told of the end of a resync. waiting: gives who waits for accelerators; told so, only
    those that claim devices, whom a node concerns that offers none by number.
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
        waiting: Callable[[bool], Iterable[str]] = lambda _claiming: (),
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
        self._tasks: dict[Reflector, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._forbidden: set[Reflector] = set()
        self._refused: dict[Reflector, tuple[float, Forbidden]] = {}
        self._without: set[str] = set()
        self._listed: set[Reflector] = set()
        self._read_at: dict[Reflector, float] = {}
        self._due: dict[Kind | str | None, float] = {}
        self._discoveries: list[float] = []
        self._changed = asyncio.Event()

    async def first(self) -> None:
        """Fill the cache; the operator must not decide anything before that."""
        await self._patiently(self.discover, Patience(RIGHTS_S))
        for kind in (*kinds.CACHED, CRD):
            if self._cache.serves(kind):
                await self._begin(kind)

    async def run(self) -> None:
        """Follow from there what happens, and resync, until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            for reflectors in self._reflectors.values():
                self._follow(reflectors)
            await self._resync_when_due()

    async def catch_up(self, since: float) -> None:
        """Know of all detectors what was so at `since`: their watch may be late by a minute.

        Who begins to lead asks for it: what others did with a detector until then is not to be
        undone. All else is listed meanwhile, but for what was read since then.
        """
        late = {kind for kind in kinds.CACHED if self._is_late(kind, since)}
        self._due.update(dict.fromkeys(late - {kinds.DETECTOR}, since))
        self._changed.set()
        if kinds.DETECTOR in late:
            try:
                await self._patiently(partial(self.list, kinds.DETECTOR), Patience(RIGHTS_S))
            except ClusterError as error:  # its watch may tell, as it does of what comes later
                logger.warning("list failed", extra={"fields": {"error": str(error)}})

    def failing(self) -> str:
        """Say of what it hears nothing, though it should; nothing when all is heard."""
        return "; ".join(filter(None, (self.watches.failing(), self._unreadable())))

    def _unreadable(self) -> str:
        """Say what may be read nowhere by now: a namespace alone that refuses is done without."""
        long_ago = time.monotonic() - 2 * RIGHTS_S
        lost = {str(each.kind) for each, (since, _) in self._refused.items() if since <= long_ago}
        return f"no right any more to read {', '.join(sorted(lost))}" if lost else ""

    def _is_late(self, kind: Kind, since: float) -> bool:
        """Say whether anything of `kind` was last read before then."""
        asked = (one for one in self._reflectors.get(kind, ()) if one not in self._forbidden)
        return any(self._read_at.get(each, since) < since for each in asked)

    async def list(self, kind: Kind) -> None:
        """Bring the cache up to date with all objects of `kind`; enqueue who is concerned.

        Raises what keeps it from all of them: a namespace that refuses holds up no other, and is
        not left for it, as its watch goes on.
        """
        keys: Counter[str] = Counter()
        listed: set[str] = set()
        asked = [one for one in self._reflectors.get(kind, ()) if one not in self._forbidden]
        refused: list[Forbidden] = []
        for reflector in asked:
            try:
                listing = await self._read(reflector)
            except Forbidden as error:
                refused.append(error)
                continue
            self.watches.missed(kind, self._cache.unknown(kind, listing.items))
            listed.update(entry.uid for entry in listing.items)
            keys += self._cache.replace_all(
                kind, listing.items, listing.version, reflector.namespace
            )
        self.watches.listed(kind, listed)
        self._enqueue(keys)
        if refused and len(refused) == len(asked):
            raise refused[0]

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
        nodes, room = self._cache.nodes_version, self._room()
        if type == "DELETED":
            key = self._cache.remove(kind, metadata["uid"], version)
        else:
            key = self._cache.put(kind, manifest)
        if key:
            urgent = kind is kinds.DETECTOR
            self._queue.add(key, Priority.USER if urgent else Priority.CHANGE)
        for rival in self._cache.routes.stirred():
            self._queue.add(rival, Priority.CHANGE)
        more = self._room() != room
        if more or self._cache.nodes_version != nodes:
            for waiting in self._waiting(not more):
                self._queue.add(waiting, Priority.CHANGE)

    def _room(self) -> tuple[int, int]:
        return self._cache.offers_version, self._cache.freed

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
                self._follow(self._reflectors[kind])
            self._wake_all()

    def definitions_changed(self) -> None:
        """Ask soon, and again, which optional kinds exist: a CRD was made, changed or deleted."""
        self._discoveries = list(DISCOVERY_DELAYS_S)
        self._after(self._discoveries.pop(0), None)

    # reflectors

    async def _begin(self, kind: Kind) -> None:
        """List `kind` in each namespace. What may not be listed is asked for again by `_follow`."""
        reflectors = self._reflectors[kind] = [
            self._reflector(kind, namespace)
            for namespace in (self._namespaces if kind.namespaced else ("",))
            if namespace not in self._without
        ]
        patience, left = Patience(RIGHTS_S), list(reflectors)
        refused: dict[str, Forbidden] = {}

        async def list_left() -> None:  # all that refuse share one wait
            refused.clear()
            for reflector in tuple(left):
                try:
                    await self._first_list(reflector)
                except Forbidden as error:
                    refused[reflector.namespace] = error
                else:
                    left.remove(reflector)
                    patience.renew()
            if refused:
                raise next(iter(refused.values()))

        try:
            await self._patiently(list_left, patience)
        except Forbidden:
            if len(left) == len(reflectors):
                raise
        for namespace, refusal in refused.items():
            self._leave(namespace, refusal)

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

    def _follow(self, reflectors: Iterable[Reflector]) -> None:
        assert self._group is not None
        for each in reflectors:
            name = f"watch {each.kind}"
            self._tasks[each] = self._group.create_task(each.run(), name=name)

    def _end(self, kind: Kind) -> None:
        """Follow a kind no more whose API is gone."""
        self._stop(self._reflectors.pop(kind, ()))
        self.watches.forget(kind)

    def _stop(self, gone: Iterable[Reflector]) -> None:
        for each in gone:
            if task := self._tasks.pop(each, None):
                task.cancel()
            self._forbidden.discard(each)
            self._refused.pop(each, None)
            self._listed.discard(each)
            self._read_at.pop(each, None)

    async def _first_list(self, reflector: Reflector) -> None:
        while True:
            try:
                return await self._list_once(reflector)
            except NotFound as error:
                fields = {"kind": reflector.kind.name, "error": str(error)}
                logger.warning("cannot list yet; is its CRD installed?", extra={"fields": fields})
                await asyncio.sleep(RETRY_S)

    async def _list_once(self, reflector: Reflector) -> None:
        """Make the list that a watch begins with; do without what is not indispensable."""
        kind = reflector.kind
        try:
            await reflector.list()
        except NotFound:
            if not kind.optional:
                raise  # else it went meanwhile
        except Forbidden as error:
            if _has_to_be_read(kind):
                raise
            self._forbid(reflector, error)
        else:
            if not kind.optional and kind is not CRD:
                self.watches.expect(kind, kind.path(reflector.namespace))

    async def _list_all(self, reflector: Reflector) -> int:
        """Take in all that a reflector begins with, and what is gone since it last did."""
        kind = reflector.kind
        if kind is CRD:
            return await self._list_definitions(reflector)
        try:
            listing = await self._read(reflector)
        except NotFound:
            if kind.optional:
                self.definitions_changed()
            raise
        except Forbidden as error:
            if _has_to_be_read(kind):
                self._refused.setdefault(reflector, (time.monotonic(), error))
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
        self._refused.pop(reflector, None)
        if reflector not in self._forbidden:
            return
        self._forbidden.remove(reflector)
        if reflector.kind.optional:
            self._cache.set_served(reflector.kind, True)
        self._wake_all()

    async def _read(self, reflector: Reflector) -> Listing[Entry]:
        kind, asked_at = reflector.kind, time.monotonic()
        newest = self._cache.newest(kind)
        listing = await self._client.list(
            kind,
            lambda manifest: entry_of(kind, manifest),
            namespace=reflector.namespace,
            selector=kinds.selector_of(kind),
        )
        self._read_at[reflector] = asked_at
        older = self._cache.outlives(kind, listing.items, listing.version)
        if listing.version < newest or older:  # never so by chance: lists are consistent reads
            raise WentBack(f"{kind}: {newest} was known, and is not in a list of {listing.version}")
        return listing

    # namespaces that may not be read

    def _leave_the_lost(self) -> None:
        """Do without the namespaces whose watches were refused for long, if another's are not.

        Where all refuse it is not the namespaces: an API server may have to read its roles anew.
        """
        refusing = {reflector.namespace for reflector in self._refused}
        if not {*self._namespaces} - self._without - refusing:
            return
        long_ago = time.monotonic() - RIGHTS_S
        for reflector, (since, error) in list(self._refused.items()):
            if since <= long_ago and reflector.namespace not in self._without:
                self._leave(reflector.namespace, error)

    def _leave(self, namespace: str, error: ClusterError) -> None:
        """Forget a namespace, all of it: nothing is decided on what is known of a part."""
        self._enqueue(self._cache.forget(namespace))
        for kind, reflectors in self._reflectors.items():
            if gone := [each for each in reflectors if each.namespace == namespace]:
                self._stop(gone)
                self._reflectors[kind] = [each for each in reflectors if each not in gone]
                self.watches.closed(kind.path(namespace))
                self.watches.listed(kind, self._cache.uids(kind))
        self._after(PAUSE_WITHOUT_RIGHT_S, namespace)
        if namespace not in self._without:
            self._without.add(namespace)
            self._after(0.0, None)  # it may have been the only one with some optional kind
            logger.warning(_LEFT, extra={"fields": {"namespace": namespace, "error": str(error)}})

    async def _ask_back(self, namespace: str) -> None:
        """Watch a namespace again if it may be read by now: its detectors after all they have."""
        followed = [kind for kind in self._reflectors if kind.namespaced]
        begun = []
        try:
            for kind in sorted(followed, key=_asked_back):
                begun.append(self._reflector(kind, namespace))
                self._reflectors[kind] = [*self._reflectors[kind], begun[-1]]
                await self._list_once(begun[-1])
        except ClusterError as error:
            self._leave(namespace, error)
            return
        self._without.remove(namespace)
        self._after(0.0, None)
        self._follow(begun)
        logger.info("namespace may be read again", extra={"fields": {"namespace": namespace}})

    # resync

    async def _resync_when_due(self) -> None:
        everything = self._next_resync()
        while True:
            listen = time.monotonic() + LISTEN_S
            await self._wait_until(min([everything, listen, *self._due.values()]))
            now = time.monotonic()
            self.watches.look()
            self._leave_the_lost()
            self._due.update(dict.fromkeys(self.watches.silent() - self._due.keys(), now))
            if whole := now >= everything:
                everything = self._next_resync()
                self._due.update(dict.fromkeys((None, *kinds.CACHED), now))
            for what in [what for what, due in self._due.items() if due <= now]:
                del self._due[what]
                await self._resync(what)
            if whole:
                self._resynced()

    def _next_resync(self) -> float:
        return time.monotonic() + self._period_s * random.uniform(1 - JITTER, 1 + JITTER)

    async def _resync(self, what: Kind | str | None) -> None:
        """List a kind; None: ask which there are. A name: whether that namespace may be read."""
        try:
            if isinstance(what, str):
                await self._ask_back(what)
            elif what is None:
                if self._discoveries:
                    self._after(self._discoveries.pop(0), None)
                await self.discover()
            elif self._cache.serves(what):
                await self.list(what)
        except ClusterError as error:
            fields = {"kind": str(what or "API"), "error": str(error)}
            logger.warning("list failed", extra={"fields": fields})
            if isinstance(error, NotFound):  # its CRD went
                self._after(RETRY_S, None)
            elif isinstance(error, Busy):
                self._after(RETRY_S, what)

    async def _patiently(self, ask: Callable[[], Awaitable[None]], patience: Patience) -> None:
        while True:
            try:
                return await ask()
            except (Forbidden, Unauthenticated, Untrusted) as error:
                if patience.ends():
                    raise
                logger.warning("refused; asked again", extra={"fields": {"error": str(error)}})
            except Busy as error:
                patience.renew()
                said = "does not answer" if isinstance(error, Unanswered) else "is busy"
                logger.warning(f"the API server {said}", extra={"fields": {"error": str(error)}})
            await asyncio.sleep(RETRY_S)

    def _wake_all(self) -> None:
        for key in self._cache.detectors():
            self._queue.add(key, Priority.CHANGE)

    def _enqueue(self, keys: Iterable[str]) -> None:
        for key in {*keys, *self._cache.routes.stirred()}:
            self._queue.add(key, Priority.RESYNC)

    def _after(self, delay_s: float, what: Kind | str | None) -> None:
        self._due[what] = time.monotonic() + delay_s
        self._changed.set()

    async def _wait_until(self, due: float) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(max(0.0, due - time.monotonic())):
                await self._changed.wait()
        except TimeoutError:
            pass


def _has_to_be_read(kind: Kind) -> bool:
    """Say whether nothing can be decided without it in a namespace."""
    return kind.namespaced and not kind.optional and kind not in kinds.DISPENSABLE


def _asked_back(kind: Kind) -> tuple[bool, bool]:
    """Sort kinds by what is asked for first: what the others are worth nothing without."""
    return kind is kinds.DETECTOR, not _has_to_be_read(kind)


_LEFT: Final = (
    "no right to read a namespace; doing without it until it may be read again: remove it from"
    " the chart's watchNamespaces, or make it and the operator's Role there again (helm upgrade)"
)

_DEFINITIONS: Final = frozenset(f"{kind.plural}.{kind.group}" for kind in kinds.OPTIONAL)
"""Names of the CRDs that define optional kinds."""
