"""kopf, and only here: watch events update the cache and enqueue keys; no I/O, no decisions.

Of kopf only watching is used. It writes nothing to any object: no finalizer, no annotation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import kopf
import orjson

from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.cluster.cache import Cache
from yolofleet.cluster.credentials import Credentials
from yolofleet.cluster.hearing import Hearing
from yolofleet.cluster.kinds import Kind
from yolofleet.cluster.queue import Priority, WorkQueue
from yolofleet.cluster.sweep import Sweep

_GRACE_FOR_VANISHED_API_S: Final = 5.0
_PAUSE_AFTER_ERROR_S: Final = 1.0
_GONE: Final = b'{"type":"ERROR","object":{"kind":"Status","code":410}}\n'
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
        if kind is kinds.CRD:
            if type is not None and _concerns_us(manifest):
                self.sweep.definitions_changed()
            return
        metadata = manifest["metadata"]
        self.sweep.watched(kind, listed=type is None)
        self.sweep.hearing.told(kind, metadata["uid"], int(metadata["resourceVersion"]))
        nodes = self.cache.nodes_version
        if type == "DELETED":
            key = self.cache.remove(kind, metadata["uid"])
        else:
            key = self.cache.put(kind, manifest)
        if key:
            urgent = kind is kinds.DETECTOR
            self.queue.add(key, Priority.USER if urgent else Priority.DRIFT)
        if self.cache.nodes_version != nodes:
            for waiting in self.waiting():
                self.queue.add(waiting, Priority.DRIFT)


def _concerns_us(definition: Manifest) -> bool:
    spec = definition["spec"]
    return any(
        spec["group"] == kind.group and spec["names"]["plural"] == kind.plural
        for kind in kinds.OPTIONAL
    )


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
    settings.scanning.disabled = bool(namespaces) or not watch.sweep.readable(kinds.CRD)

    hearing, places = watch.sweep.hearing, _places(watch.sweep, namespaces)
    for path, kind in places.items():
        if not kind.optional:
            hearing.expect(kind, path)
    listen = _listen(hearing, places, urlsplit(credentials.server).path.rstrip("/"))

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        session = credentials.session(_take_errors_lightly, _forgive_vanished_apis, listen)
        return kopf.AiohttpSession(aiohttp_session=session, server=credentials.server)

    for kind in (*kinds.CACHED, kinds.CRD):
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


def _listen(
    hearing: Hearing, places: Mapping[str, Kind], prefix: str
) -> aiohttp.ClientMiddlewareType:
    """Return what hands each stream of a watch over, so that its silence is noticed."""

    async def listen(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(request)
        path = request.url.path.removeprefix(prefix)
        if response.status == 200 and (kind := places.get(path)):
            hearing.opened(kind, path, response.content)
        return response

    return listen


class WholeLines:
    """What a watch says, without what kopf gives up on: half a line, and errors but 410.

    client-go lists anew after any error, and so does kopf after a line with a 410: each becomes
    one, and so does an answer that is a 410 (`expired`). A line that breaks off is a connection
    that broke.
    """

    def __init__(self, content: aiohttp.StreamReader, *, expired: bool = False) -> None:
        self._content = content
        self._expired = expired

    def __getattr__(self, name: str) -> Any:
        """Be the stream itself in all else: aiohttp tells it of its end."""
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Return whole lines, as kopf reads them."""
        rest, failed = b"", self._expired
        if not failed:
            async for chunk in self._content.iter_chunked(size):
                lines, newline, rest = (rest + chunk).rpartition(b"\n")
                if failed := bool(newline and b'"ERROR"' in lines and _tells_of_an_error(lines)):
                    break
                yield lines + newline
        if failed:
            await asyncio.sleep(_PAUSE_AFTER_ERROR_S)  # the next answer may be the same
            yield _GONE
        elif rest:
            raise aiohttp.ClientPayloadError("the watch broke off in the middle of a line")


def _tells_of_an_error(lines: bytes) -> bool:
    return any(orjson.loads(line).get("type") == "ERROR" for line in lines.splitlines() if line)


async def _take_errors_lightly(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Spare the process the end that kopf makes of it when a watch tells of an error."""
    response = await handler(request)
    if response.status in (200, 410) and "watch" in request.url.query:
        expired = response.status == 410
        response.content = WholeLines(response.content, expired=expired)  # type: ignore[assignment]
        response.status = 200
    return response


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
