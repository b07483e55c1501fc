"""Requests to the API server as values, and the one sender that signs, counts and judges them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import aiohttp
import orjson

from yolofleet.runtime import nesting
from yolofleet.runtime.credentials import Credentials
from yolofleet.runtime.errors import (
    ClusterError,
    Gone,
    NotFound,
    NotLeading,
    Unanswered,
    Untrusted,
)
from yolofleet.runtime.errors import from_status as error_from_status
from yolofleet.runtime.kind import Kind, kind_of
from yolofleet.runtime.objects import Manifest

APPLY: Final = "application/apply-patch+yaml"  # JSON is YAML
JSON_PATCH: Final = "application/json-patch+json"
JSON: Final = "application/json"
METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST: Final = METADATA.replace("Metadata;", "MetadataList;")

PAGE = 500  # objects in one answer; the API server's own advice for large collections
SHORTEST_WATCH_S = 300  # the server ends a watch after once to twice that (client-go's)
SILENT_WATCH_S = 70.0  # a bookmark comes each minute; without one the connection may be dead
EVENTS_AT_ONCE = 20  # some milliseconds of work
BREATH = 50  # objects that are shrunk before others of the event loop have their turn
LIST_ATTEMPTS = 3  # a list whose rest was forgotten is begun anew this often

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Request:
    """One request; nothing is sent by making it."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    content_type: str = JSON
    accept: str = JSON

    @property
    def writes(self) -> bool:
        """Return whether it can change the cluster."""
        return self.method != "GET"


def get(kind: Kind, namespace: str, name: str) -> Request:
    """Read one object."""
    return Request("GET", kind.path(namespace, name))


def create(manifest: Manifest, manager: str) -> Request:
    """Make an object that must not exist yet; `Conflict` if it does."""
    path = kind_of(manifest).path(manifest["metadata"].get("namespace", ""))
    return Request("POST", path, {"fieldManager": manager}, manifest)


def update(manifest: Manifest, manager: str) -> Request:
    """Replace an object, if it still has the resourceVersion that `manifest` carries."""
    return Request("PUT", _path(manifest), {"fieldManager": manager}, manifest)


def apply(manifest: Manifest, manager: str, *, force: bool, subresource: str = "") -> Request:
    """Apply all that `manager` wants of an object (server-side apply).

    A uid in `manifest` makes it a change of that very object, never a creation; without `force`
    the fields of other managers are a `Conflict`.
    """
    query = {"fieldManager": manager, "force": "true" if force else "false"}
    return Request("PATCH", _path(manifest, subresource), query, manifest, APPLY)


def json_patch(
    manifest: Manifest, operations: Sequence[Manifest], manager: str, *, subresource: str = ""
) -> Request:
    """Change single places of `manifest`'s object."""
    path = _path(manifest, subresource)
    return Request("PATCH", path, {"fieldManager": manager}, operations, JSON_PATCH)


def delete(manifest: Manifest) -> Request:
    """Delete exactly `manifest`: this uid, and unchanged since its resourceVersion."""
    metadata = manifest["metadata"]
    options = {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": "Background",
        "preconditions": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]},
    }
    return Request("DELETE", _path(manifest), body=options)


def _path(manifest: Manifest, subresource: str = "") -> str:
    metadata = manifest["metadata"]
    kind = kind_of(manifest)
    return kind.path(metadata.get("namespace", ""), metadata["name"], subresource)


@dataclass(frozen=True, slots=True)
class Listing(Generic[Item]):
    """All objects of a kind as they were at one moment: `version` of the whole store."""

    items: list[Item]
    version: int


Observer = Callable[[Request, str, float], None]
"""Told of each request: what, the answer's code ("<error>" without one), and seconds."""


class Client:
    """Sends requests. Raises the errors of `yolofleet.runtime.errors` and nothing else."""

    def __init__(
        self,
        credentials: Credentials,
        session: aiohttp.ClientSession,
        *,
        observe: Observer = lambda _request, _code, _seconds: None,
        may_write: Callable[[], bool] = lambda: True,
        timeout_s: float = 30.0,
        connect_s: float = 5.0,
    ) -> None:
        self._server = credentials.server
        self._session = session
        self._observe = observe
        self._may_write = may_write
        self._connect_s = connect_s
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=connect_s)

    async def send(self, request: Request) -> Manifest:
        """Send `request` and return what the API server answers."""
        if request.writes and not self._may_write():
            raise NotLeading(f"{request.method} {request.path} was not sent: another may lead")
        started, code = time.monotonic(), "<error>"
        try:
            async with self._open(request, request.method, self._timeout) as response:
                code = str(response.status)
                return _answer(request, response, await response.read())
        finally:
            self._observe(request, code, time.monotonic() - started)

    @asynccontextmanager
    async def _open(
        self, request: Request, verb: str, within: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send `request`, and wait for the head of its answer. `Unanswered` is what breaks off."""
        try:
            async with self._session.request(
                request.method,
                self._server + request.path,
                params=request.query,
                data=None if request.body is None else orjson.dumps(request.body),
                headers={"Content-Type": request.content_type, "Accept": request.accept},
                timeout=within,
            ) as response:
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            unproved = isinstance(error, aiohttp.ClientConnectorCertificateError)
            kind = Untrusted if unproved else Unanswered
            raise kind(f"{verb} {request.path}: {reason}") from error

    async def find(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """Read one object; None if there is none."""
        try:
            return await self.send(get(kind, namespace, name))
        except NotFound:
            return None

    async def list(
        self,
        kind: Kind,
        keep: Callable[[Manifest], Item],
        *,
        namespace: str = "",
        selector: str = "",
        fields: str = "",
        metadata_only: bool = False,
    ) -> Listing[Item]:
        """Read all objects of `kind`, page by page; `keep` shrinks each as soon as it is read.

        selector, fields: the API server leaves out what these (labels, fields) do not select.
        metadata_only: of each object nothing else is asked for.

        No resourceVersion is sent, so that the answer is the newest there is. When the server
        forgets the rest of a list (410), the list is begun anew.
        """
        for _ in range(LIST_ATTEMPTS):
            try:
                return await self._list(
                    kind,
                    keep,
                    namespace,
                    selector,
                    fields,
                    METADATA_LIST if metadata_only else JSON,
                )
            except Gone:
                continue
        raise Gone(f"the list of {kind} was forgotten {LIST_ATTEMPTS} times before its end")

    async def _list(
        self,
        kind: Kind,
        keep: Callable[[Manifest], Item],
        namespace: str,
        selector: str,
        fields: str,
        accept: str,
    ) -> Listing[Item]:
        parameters = {"limit": str(PAGE), "labelSelector": selector, "fieldSelector": fields}
        query = {name: value for name, value in parameters.items() if value}
        items: list[Item] = []
        while True:
            page = await self.send(Request("GET", kind.path(namespace), query, accept=accept))
            for number, item in enumerate(page["items"], 1):
                item["apiVersion"], item["kind"] = kind.api_version, kind.name
                items.append(keep(item))
                if number % BREATH == 0:
                    await asyncio.sleep(0)
            if not (rest := page["metadata"].get("continue")):
                return Listing(items, int(page["metadata"]["resourceVersion"]))
            query = query | {"continue": rest}

    async def watch(
        self,
        kind: Kind,
        version: int,
        take: Callable[[str, Manifest], None],
        *,
        namespace: str = "",
        selector: str = "",
        opened: Callable[[aiohttp.StreamReader], None] = lambda _: None,
        metadata_only: bool = False,
    ) -> None:
        """Hand to `take` what happens after `version`, until the API server ends it, as it does.

        take: gets the type of an event, and the object; that of a BOOKMARK has a resourceVersion
        only. opened: told of the stream once there is one. Raises `Gone` when the server has
        forgotten that version, or what it is whose error it tells of in the stream.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": str(version),
            "timeoutSeconds": str(int(random.uniform(1, 2) * SHORTEST_WATCH_S)),
        }
        query |= {"labelSelector": selector} if selector else {}
        accept = METADATA if metadata_only else JSON
        request = Request("GET", kind.path(namespace), query, accept=accept)
        within = aiohttp.ClientTimeout(
            total=None, sock_connect=self._connect_s, sock_read=SILENT_WATCH_S
        )
        async with self._open(request, "watch", within) as response:
            if response.status != 200:
                _answer(request, response, await response.read())
            opened(response.content)
            async for number, line in _numbered_lines(response.content):
                _take_event(request, line, take)
                if number % EVENTS_AT_ONCE == 0:
                    await asyncio.sleep(0)

    async def serves(self, kind: Kind) -> bool:
        """Return whether the API server has the API of `kind` now."""
        try:
            found = await self.send(Request("GET", kind.api_path))
        except NotFound:
            return False
        return any(resource["name"] == kind.plural for resource in found.get("resources", ()))


async def _numbered_lines(content: aiohttp.StreamReader) -> AsyncIterator[tuple[int, bytes]]:
    number, rest = 0, b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in filter(None, lines):
            number += 1
            yield number, line
    if rest:
        raise aiohttp.ClientPayloadError("the watch broke off in the middle of a line")


def _take_event(request: Request, line: bytes, take: Callable[[str, Manifest], None]) -> None:
    try:
        event = nesting.read(line)
        type, object = event["type"], event["object"]
    except (ValueError, TypeError, KeyError) as error:
        raise aiohttp.ClientPayloadError(f"the watch said no event: {error!r}") from error
    if type == "ERROR":
        raise Gone(f"watch {request.path}: {object.get('message') or object.get('code')}")
    take(type, object)


def _answer(request: Request, response: aiohttp.ClientResponse, content: bytes) -> Manifest:
    try:
        body: Manifest = nesting.read(content)
    except orjson.JSONDecodeError:
        body = {}
    if response.status < 400 and body:
        return body
    error: ClusterError = error_from_status(response.status, body, response.headers)
    error.add_note(f"{request.method} {request.path}")
    raise error
