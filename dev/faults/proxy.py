"""HTTP in, HTTPS out: every request of one operator passes here, and any of them may go wrong.

The operator's own token is passed on, so that its rights stay real. Writes are numbered, and the
whole trace is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml
from aiohttp import web

from faults import heard
from faults.heard import Heard

_PASSED_ON: Final = ("Authorization", "Content-Type", "Accept", "User-Agent")
_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_LONGEST_LINE: Final = 1 << 24
CONNECTED_S: Final = 60.0
"""A server that gets no processor greets late; whoever asks gives up sooner if he wants to."""


@dataclass(eq=False)
class Call:
    """One request. number: of counted writes, from 1; 0: a read, or the Lease. status: 0 until
    answered."""  # noqa: D205, D209

    verb: str
    kind: str  # plural, as in the path
    namespace: str
    name: str
    subresource: str
    query: Mapping[str, str]
    at: float
    body: bytes = b""
    number: int = 0
    status: int = 0
    heard: Heard | None = None

    @property
    def writes(self) -> bool:
        """Return whether it can change the cluster."""
        return self.verb in _VERBS.values()

    @property
    def succeeded(self) -> bool:
        """Return whether the API server did it."""
        return 200 <= self.status < 300

    def __str__(self) -> str:
        place = "/".join(part for part in (self.kind, self.name, self.subresource) if part)
        return f"{self.verb} {place}"


class Reset(Exception):
    """Break the connection in place of an answer."""


@dataclass
class Ended(Exception):
    """End a watch in good order, after these last bytes."""

    rest: bytes


@dataclass
class Instead(Exception):
    """Answer this, whatever the API server thinks."""

    status: int
    reason: str = "Injected"
    headers: Mapping[str, str] = field(default_factory=dict)
    line: bytes = b""  # of a watch, in place of a Status object

    def body(self) -> dict[str, Any]:
        """Return the Status object that tells it."""
        return status_object(self.status, self.reason)


def status_object(code: int, reason: str) -> dict[str, Any]:
    """Return the object with which an API server tells of a failure."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f"injected by a fault: {code} {reason}",
        "reason": reason,
        "code": code,
    }


class Fault:
    """What can happen to requests; this one lets everything pass."""

    async def before(self, call: Call) -> None:
        """Act before `call` reaches the API server. May wait, or raise `Reset` or `Instead`."""

    async def after(self, call: Call) -> None:
        """Act after the API server has answered and before the operator hears of it."""

    async def line(self, _call: Call, line: bytes) -> bytes:
        """Return what becomes of a line of a watch. May wait, or raise `Ended`."""
        return line


@dataclass(eq=False)
class OpenWatch:
    """A watch on its way to the operator."""

    call: Call
    request: web.Request
    response: web.StreamResponse

    def cut(self) -> None:
        """Break its connection."""
        if self.request.transport is not None:
            self.request.transport.abort()


class FaultProxy:
    """One operator's way to the API server."""

    def __init__(self, server: str, trust: ssl.SSLContext) -> None:
        self._server = server
        self._trust = trust
        self._session: aiohttp.ClientSession | None = None
        self.port = 0
        self.faults: list[Fault] = []
        self.calls: list[Call] = []
        self.watches: set[OpenWatch] = set()
        self.heard: dict[int, Heard] = {}
        """What the operator had heard of when it decided the write that made a version."""

        self.under_way = 0
        """Requests that wait for their answer, but watches and those of the Lease."""

        self._numbered = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[FaultProxy]:
        """Listen on a free port of the loopback address."""
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        connector = aiohttp.TCPConnector(limit=0, ssl=self._trust)
        try:
            async with aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECTED_S),
                read_bufsize=_LONGEST_LINE,
            ) as self._session:
                await site.start()
                self.port = runner.addresses[0][1]
                yield self
        finally:
            for watch in list(self.watches):
                watch.cut()
            await runner.cleanup()

    def kubeconfig(self, path: Path, token: str) -> Path:
        """Write the kubeconfig of a user with `token` who goes through this proxy."""
        cluster = {"server": f"http://127.0.0.1:{self.port}"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "proxy",
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
            "clusters": [{"name": "proxy", "cluster": cluster}],
            "users": [{"name": "proxy", "user": {"token": token}}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    @contextlib.contextmanager
    def suffering(self, *faults: Fault) -> Iterator[None]:
        """Let `faults` happen inside the block, in this order."""
        self.faults.extend(faults)
        try:
            yield
        finally:
            for fault in faults:
                self.faults.remove(fault)

    def number_from_here(self) -> None:
        """Forget the trace; the next write is number 1."""
        self.calls.clear()
        self._numbered = 0

    @property
    def writes(self) -> list[Call]:
        """All writes since numbering began but those of the Lease, which the clock drives."""
        return [call for call in self.calls if call.number]

    def cut(self, kind: str = "") -> int:
        """Break the open watches of `kind`, or all; return how many there were."""
        chosen = [watch for watch in self.watches if kind in ("", watch.call.kind)]
        for watch in chosen:
            watch.cut()
        return len(chosen)

    async def tell(self, kind: str, line: bytes) -> int:
        """Write `line` into the open watches of `kind` and end them; return how many."""
        chosen = [watch for watch in self.watches if watch.call.kind == kind]
        for watch in chosen:
            with contextlib.suppress(ConnectionError):  # whoever watched has just died
                await watch.response.write(line)
                await watch.response.write_eof()
            watch.cut()
        return len(chosen)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        call = self._recorded(request, await request.read())
        try:
            for fault in self.faults:
                await fault.before(call)
            if call.verb == "watch":
                return await self._watch(request, call)
            with self._counted(call):
                return await self._forward(request, call)
        except Instead as answer:
            return web.Response(
                body=answer.line or json.dumps(answer.body()).encode(),
                status=answer.status,
                headers=dict(answer.headers),
                content_type="application/json",
            )
        except (Reset, aiohttp.ClientError, ConnectionError):
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=502)

    @contextlib.contextmanager
    def _counted(self, call: Call) -> Iterator[None]:
        counts = call.kind != "leases"
        self.under_way += counts
        try:
            yield
        finally:
            self.under_way -= counts

    def _recorded(self, request: web.Request, body: bytes) -> Call:
        query = dict(request.query)
        known = query.pop(heard.PARAMETER, None)
        call = parsed(request.method, request.path, query)
        call.body = body
        call.heard = None if known is None else heard.read(known)
        if call.writes and call.kind != "leases":
            self._numbered += 1
            call.number = self._numbered
        self.calls.append(call)
        return call

    def _send(self, request: web.Request, call: Call) -> Any:
        assert self._session is not None
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        return self._session.request(
            request.method,
            self._server + request.path,
            params=call.query,
            data=call.body or None,
            headers=headers,
        )

    async def _forward(self, request: web.Request, call: Call) -> web.Response:
        async with self._send(request, call) as answer:
            content = await answer.read()
            call.status = answer.status
        if call.heard is not None and call.succeeded:
            version = int(json.loads(content)["metadata"].get("resourceVersion", 0))
            self.heard.setdefault(version, call.heard)
        for fault in self.faults:
            await fault.after(call)
        headers = {k: v for k, v in answer.headers.items() if k in ("Retry-After", "Content-Type")}
        return web.Response(status=answer.status, body=content, headers=headers)

    async def _watch(self, request: web.Request, call: Call) -> web.StreamResponse:
        async with self._send(request, call) as answer:
            call.status = answer.status
            response = web.StreamResponse(status=answer.status)
            response.content_type = "application/json"
            await response.prepare(request)
            watch = OpenWatch(call, request, response)
            self.watches.add(watch)
            try:
                while line := await answer.content.readline():
                    for fault in self.faults:
                        line = await fault.line(call, line)
                    await response.write(line)
                await response.write_eof()
            except Ended as end:
                await response.write(end.rest)
                await response.write_eof()
            finally:
                self.watches.discard(watch)
        return response


def parsed(method: str, path: str, query: Mapping[str, str]) -> Call:
    """Read from a request what it does, and to what."""
    parts = [part for part in path.split("/") if part]
    rest = parts[2:] if parts[:1] == ["api"] else parts[3:]
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    kind, name, subresource = (*rest, "", "", "")[:3]
    if method != "GET":
        verb = _VERBS[method]
    elif not kind:
        verb = "discover"
    elif query.get("watch") in ("1", "true"):
        verb = "watch"
    else:
        verb = "get" if name else "list"
    now = asyncio.get_running_loop().time()
    return Call(verb, kind, namespace, name, subresource, query, now)


def event_line(type: str, object: Mapping[str, Any]) -> bytes:
    """Return a line of a watch."""
    return json.dumps({"type": type, "object": object}).encode() + b"\n"
