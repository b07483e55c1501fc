"""A page on a port of its own: `GET /evidence` for whoever judges a release, `GET /metrics`.

Apart from the port of requests: it asks no key, stays reachable while that one is full, closed or
behind a sidecar, and each can be opened to others. Each connection has one request, of a few bytes,
and a few seconds; what comes when all places are taken takes the oldest one's.

The metrics are here for servers of which a request to the port of requests meets any: behind Ray's.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import cast

import orjson
from prometheus_client import CONTENT_TYPE_LATEST

from yoloserve.http.serving import EngineServing
from yoloserve.settings import ENV_PREFIX

log = logging.getLogger(__name__)

MOST_OPEN = 16
MOST_BYTES = 4096  # of a request
LONGEST_S = 5.0  # for all of it, the reading of the answer too
END = b"\r\n\r\n"


class SidePort:
    """Listens, while it is open. page: the only one; tell: what it says; setting: the port's."""

    def __init__(self, page: bytes, kind: str, tell: Callable[[], bytes], setting: str) -> None:
        self._page = page
        self._kind = kind
        self._tell = tell
        self._setting = setting
        self._server: asyncio.Server | None = None
        self._open: dict[_Connection, None] = {}  # in the order in which they came

    @property
    def port(self) -> int:
        """Say where it listens; 0: it does not."""
        return self._server.sockets[0].getsockname()[1] if self._server else 0

    async def open(self, host: str, port: int, *, shared: bool = False) -> None:
        """Listen, if the port can be had: a sidecar that has it is no reason not to serve.

        shared: whoever asks for the same has it too, so that one server may follow another.
        """
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: _Connection(self), host, port, reuse_port=shared or None
            )
        except OSError as error:
            setting = f"{ENV_PREFIX}{self._setting}"
            fields = {"reason": str(error), "setting": setting, "port": port}
            log.error(f"nobody is told {self._page.decode()}: no port", extra=fields)

    def close(self) -> None:
        """Listen no more, and end what is open."""
        if self._server:
            self._server.close()
            self._server = None
        for connection in list(self._open):
            connection.end()

    def came(self, connection: "_Connection") -> None:
        """Make room for one more."""
        if len(self._open) >= MOST_OPEN:
            next(iter(self._open)).end()
        self._open[connection] = None

    def left(self, connection: "_Connection") -> None:
        """Forget one that ended."""
        self._open.pop(connection, None)

    def answer(self, head: bytes) -> bytes:
        """Answer one request, by the first line of its head."""
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        target, _, version = rest.rpartition(b" ")
        if not version.startswith(b"HTTP/1."):
            return _reply("400 Bad Request", b"this is no request of HTTP/1.1\n")
        if target != self._page:
            message = b"here is %b, and nothing else\n" % self._page
            return _reply("404 Not Found", message, method)
        if method != b"GET":
            message = b"only GET is answered here\n"
            return _reply("405 Method Not Allowed", message, method, "allow: GET\r\n")
        try:
            body = self._tell()
        except Exception:  # handed on: to the log, and to whoever asked
            log.exception("%s failed", self._page.decode())
            return _reply("500 Internal Server Error", b"the server failed; its log says why\n")
        return _reply("200 OK", body, kind=self._kind)


def evidence(tell: Callable[[], bytes]) -> SidePort:
    """Return the port of the evidence."""
    return SidePort(b"/evidence", "application/json", tell, "EVIDENCE_PORT")


def side_ports(serving: EngineServing) -> Iterator[tuple[SidePort, int]]:
    """Return what a server is to have beside its port of requests, and at which numbers."""
    settings = serving.settings
    if number := settings.evidence_port:
        yield evidence(lambda: orjson.dumps(serving.evidence())), number
    if number := settings.metrics_port:
        tell = serving.metrics.text
        yield SidePort(b"/metrics", CONTENT_TYPE_LATEST, tell, "METRICS_PORT"), number


class _Connection(asyncio.Protocol):
    def __init__(self, port: SidePort) -> None:
        self._port = port
        self._head = b""
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._port.came(self)
        self._timer = asyncio.get_running_loop().call_later(LONGEST_S, self.end)

    def data_received(self, data: bytes) -> None:
        if self._answered:  # a body, or a second request: neither is looked at
            return
        self._head += data
        if END in self._head:
            self._reply(self._port.answer(self._head))
        elif len(self._head) > MOST_BYTES:
            message = b"a request here has a few bytes\n"
            self._reply(_reply("431 Request Header Fields Too Large", message))

    def connection_lost(self, _: Exception | None) -> None:
        self._timer.cancel()
        self._port.left(self)

    def end(self) -> None:
        """End it at once, whatever is under way."""
        self._port.left(self)
        self._transport.abort()

    def _reply(self, answer: bytes) -> None:
        self._answered = True
        self._head = b""
        self._transport.write(answer)
        self._transport.close()


def _reply(
    status: str, body: bytes, method: bytes = b"GET", more: str = "", kind: str = "text/plain"
) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
        f"cache-control: no-store\r\n{more}connection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == b"HEAD" else body)
