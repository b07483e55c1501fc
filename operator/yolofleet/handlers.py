"""kopf, and only here: watch events update the cache and enqueue keys; no I/O, no decisions.

Of kopf only watching is used: it lists, watches and begins anew, and what it is told is taken in on
the way (`cluster.bodies`). It writes nothing to any object: no finalizer, no annotation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import kopf

from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.cluster.cache import Cache
from yolofleet.cluster.sweep import Sweep
from yolofleet.runtime.bodies import ListBody, WatchBody
from yolofleet.runtime.credentials import Credentials
from yolofleet.runtime.kind import CRD, Kind
from yolofleet.runtime.queue import Priority, WorkQueue

_GRACE_FOR_VANISHED_API_S: Final = 5.0
_NOTHING: Final = kopf.BodyEssence()
_IDENTITY: Final[Any] = "yolofleet"  # kopf keeps the type of it to itself


@dataclass(frozen=True, slots=True)
class Watch:
    """What happens when an object was listed, made, changed or deleted."""

    cache: Cache
    queue: WorkQueue
    sweep: Sweep
    counted: Callable[[str, str], None]
    waiting: Callable[[], Iterable[str]] = tuple  # who waits for a node to change

    def event(self, kind: Kind, type: str | None, manifest: Manifest) -> None:
        """Take in one watch event; `type` is None for what a watch lists before it begins."""
        self.counted(kind.name, type or "LISTED")
        if kind is CRD:
            defined = _defined(manifest)
            # One that is listed may have come between our first look and this watch.
            if defined and (type is not None or not self.cache.serves(defined)):
                self.sweep.definitions_changed()
            return
        metadata = manifest["metadata"]
        self.sweep.hearing.told(kind, metadata["uid"], int(metadata["resourceVersion"]))
        nodes = self.cache.nodes_version
        if type == "DELETED":
            key = self.cache.remove(kind, metadata["uid"], int(metadata["resourceVersion"]))
        else:
            key = self.cache.put(kind, manifest)
        if key:
            urgent = kind is kinds.DETECTOR
            self.queue.add(key, Priority.USER if urgent else Priority.DRIFT)
        for rival in self.cache.routes.stirred():
            self.queue.add(rival, Priority.DRIFT)
        if self.cache.nodes_version != nodes:
            for waiting in self.waiting():
                self.queue.add(waiting, Priority.DRIFT)


def _defined(definition: Manifest) -> Kind | None:
    """Return the optional kind that a CRD defines, if it does."""
    spec = definition["spec"]
    name = (spec["group"], spec["names"]["plural"])
    return next((kind for kind in kinds.OPTIONAL if (kind.group, kind.plural) == name), None)


async def watch(
    watch: Watch,
    credentials: Credentials,
    *,
    namespaces: Sequence[str],
    stop: asyncio.Event,
    take_signals: Callable[[], None],
) -> None:
    """Run kopf until `stop`; what it cannot recover from ends it with an exception.

    take_signals: called once kopf has taken SIGTERM and SIGINT for itself: it would end every task
    at once, and leave the Lease to run out.
    """
    registry = kopf.OperatorRegistry()
    settings = _settings()
    # Scanning needs the right to list all namespaces and CRDs. Without it, a kind that appears is
    # found and listed by the sweep, and watched after the next start.
    settings.scanning.disabled = bool(namespaces) or not watch.sweep.readable(CRD)

    hearing, places = watch.sweep.hearing, _places(watch.sweep, namespaces)
    for path, kind in places.items():
        if not kind.optional:
            hearing.expect(kind, path)
    take_in = _take_in(watch, places, urlsplit(credentials.server).path.rstrip("/"))

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        session = credentials.session(_forgive_vanished_apis, take_in)
        return kopf.AiohttpSession(aiohttp_session=session, server=credentials.server)

    for kind in (*kinds.CACHED, CRD):
        if watch.sweep.readable(kind):
            _on_event(registry, kind, watch)
    ours = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=registry,
        settings=settings,
        standalone=True,  # our own Lease decides who works; a standby watches too
        identity=_IDENTITY,  # kopf would look up the user, and an image has no name for 65532
        clusterwide=not namespaces,
        namespaces=list(namespaces),
        stop_flag=stop,
    )
    take_signals()
    await kopf.run_tasks(tasks, ignored=ours)


def _on_event(registry: kopf.OperatorRegistry, kind: Kind, watch: Watch) -> None:
    """Make kopf watch `kind`; it tells of what was not taken in before, which is CRDs only."""

    @kopf.on.event(kind.group, kind.version, kind.plural, id=kind.plural, registry=registry)
    async def seen(event: kopf.RawEvent, **_: Any) -> None:
        watch.event(kind, event["type"], dict(event["object"]))


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.persistence.progress_storage = _NoProgress()
    settings.posting.enabled = False  # we post our own Events, aggregated
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.queueing.worker_limit = None  # a limit makes kopf as slow as its idle time-out
    settings.queueing.idle_timeout = 1
    settings.queueing.exit_timeout = 2
    for kind in kinds.CACHED:
        if selector := kinds.selector_of(kind):
            where = (kind.group, kind.version, kind.plural)
            settings.watching.label_selectors[where] = selector
    return settings


class _NoDiffs(kopf.DiffBaseStorage):
    """Spares kopf the copies it makes of each event to find out what changed: nobody asks."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return _NOTHING

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    """Spares kopf the same once more: no handler of ours is ever half done."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


def _places(sweep: Sweep, namespaces: Sequence[str]) -> Mapping[str, Kind]:
    """Return the addresses that are watched, of what is cached."""
    return {
        kind.path(namespace): kind
        for kind in kinds.CACHED
        if sweep.readable(kind)
        for namespace in ((namespaces or ("",)) if kind.namespaced else ("",))
    }


def _take_in(watch: Watch, places: Mapping[str, Kind], prefix: str) -> aiohttp.ClientMiddlewareType:
    """Return what reads the lists and watches of our kinds, so that kopf has little left to read.

    Each stream is handed to `hearing` as well, so that its silence is noticed. Of what kopf watches
    for itself only the errors are taken lightly.
    """

    async def take_in(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(request)
        watching, path = "watch" in request.url.query, request.url.path.removeprefix(prefix)
        kind, content = places.get(path), response.content
        if response.status == 200 and kind:
            watch.sweep.hearing.opened(kind, path, content)
        take = partial(watch.event, kind) if kind else None
        if watching and response.status in (200, 410):
            body = WatchBody(content, take, expired=response.status == 410)
            response.content = body  # type: ignore[assignment]
            response.status = 200
        elif kind and take and response.status == 200:
            begun = partial(watch.sweep.watch_begun, kind, path)
            response.content = ListBody(content, take, begun)  # type: ignore[assignment]
        return response

    return take_in


async def _forgive_vanished_apis(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Hold back a 404 for an optional kind until kopf knows that its CRD is gone.

    A deleted CRD ends its watch before kopf learns of the deletion; kopf then watches again, and
    takes the 404 for a failure that it must exit for. A lost connection it takes lightly.
    """
    response = await handler(request)
    paths = tuple(kind.api_path + "/" for kind in kinds.OPTIONAL)
    if response.status == 404 and request.url.path.startswith(paths):
        response.release()
        await asyncio.sleep(_GRACE_FOR_VANISHED_API_S)
        raise aiohttp.ClientConnectionError("the API is gone, at least for now")
    return response
