"""When a connection is closed: the protocol without a socket, its timers run when told to."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from yoloserve.http_protocol import HttpProtocol

LIMIT_S, IDLE_S = 7, 99
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n"


@dataclass
class Timer:
    seconds: float
    run: Callable[..., None]
    cancel: Callable[[], None]


@dataclass
class Timers:
    """What the protocol wants of an event loop."""

    running: list[Timer] = field(default_factory=list)

    def call_later(self, seconds: float, run: Callable[..., None], *_: Any) -> Timer:
        timer = Timer(seconds, run, lambda: self.running.remove(timer))
        self.running.append(timer)
        return timer

    def create_task(self, coroutine: Any) -> asyncio.Task[None]:
        return asyncio.create_task(coroutine)

    @property
    def seconds(self) -> list[float]:
        return sorted(timer.seconds for timer in self.running)


class Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent, self.closed = b"", False

    def write(self, data: Any) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


class Connection:
    """A connection to a server that refuses everything unread."""

    def __init__(self) -> None:
        async def refuse(_scope: Any, _receive: Any, send: Any) -> None:
            headers = [(b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body"})

        config = uvicorn.Config(
            refuse, proxy_headers=False, log_config=None, timeout_keep_alive=IDLE_S
        )
        self.timers, self.wire = Timers(), Wire()
        self.protocol = HttpProtocol.within(LIMIT_S)(
            config=config, server_state=ServerState(), app_state={}, _loop=self.timers
        )
        self.protocol.connection_made(self.wire)

    async def send(self, data: bytes) -> None:
        self.protocol.data_received(data)
        await asyncio.gather(*self.protocol.tasks)

    @property
    def answers(self) -> int:
        return self.wire.sent.count(b"HTTP/1.1 503 ")


@pytest.fixture
async def connection() -> Connection:
    return Connection()


async def test_a_refused_body_that_has_come_leaves_an_idle_connection(connection) -> None:
    await connection.send(HEAD + b"123456")
    assert connection.answers == 1
    assert connection.timers.seconds == [IDLE_S]


async def test_the_rest_of_a_refused_body_has_its_time_however_it_comes(connection) -> None:
    await connection.send(HEAD + b"123")
    await connection.send(b"4")
    await connection.send(b"5")
    assert connection.answers == 1
    (timer,) = connection.timers.running
    assert timer.seconds == LIMIT_S
    assert not connection.wire.closed
    timer.run()
    assert connection.wire.closed


async def test_a_rest_that_came_leaves_an_idle_connection(connection) -> None:
    await connection.send(HEAD + b"123")
    await connection.send(b"456")
    assert connection.timers.seconds == [IDLE_S]
    await connection.send(HEAD + b"123456")
    assert connection.answers == 2
    assert connection.timers.seconds == [IDLE_S]


async def test_a_rest_that_comes_with_the_next_request_stops_nothing_of_that(connection) -> None:
    await connection.send(HEAD + b"123")
    await connection.send(b"456" + HEAD[:20])
    assert connection.timers.seconds == [LIMIT_S]  # of the head
    await connection.send(HEAD[20:] + b"123")
    assert connection.answers == 2
    assert connection.timers.seconds == [LIMIT_S, IDLE_S]
    connection.protocol.connection_lost(None)
    assert connection.timers.seconds == []


# an offer to upgrade that is not taken


H2C = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEA\r\nUpgrade: h2c\r\n"
LENGTH, CHUNKED = b"Content-Length: 6\r\n", b"Transfer-Encoding: chunked\r\n"
BODIES = {LENGTH: b"123456", CHUNKED: b"3\r\n123\r\n3\r\n456\r\n0\r\n\r\n"}
OFFERS = {
    "h2c": H2C,
    "TLS": b"Upgrade: TLS/1.2, HTTP/1.1\r\nConnection: upgrade\r\n",
    "websocket, by POST": b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n",
    "two lines": b"Connection: Upgrade\r\nConnection: keep-alive\r\nUpgrade: h2c\r\n",
}


class Echo(Connection):
    """A connection to a server that sends back each request's path and body."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[str, bytes, list[bytes]]] = []

        async def echo(scope: Any, receive: Any, send: Any) -> None:
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message.get("body", b""), message.get("more_body", False)
            self.heard.append((scope["path"], body, [name for name, _ in scope["headers"]]))
            headers = [(b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body"})

        self.protocol.app = echo

    async def send(self, data: bytes) -> None:
        self.protocol.data_received(data)
        while self.protocol.tasks:
            await asyncio.wait(self.protocol.tasks, timeout=0)
            if self.protocol.cycle.more_body and not self.protocol.cycle.body:
                break


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("framing", BODIES, ids=["length", "chunked"])
async def test_an_offer_to_upgrade_is_answered_as_if_it_were_none(offer, framing) -> None:
    request = b"POST /a HTTP/1.1\r\nHost: x\r\n" + offer + framing + b"\r\n" + BODIES[framing]
    plain = b"POST /b HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n" + BODIES[framing]
    whole = request + plain + request.replace(b"/a", b"/c")
    for piece in (1, 7, len(request) - 3, len(whole)):
        connection = Echo()
        for at in range(0, len(whole), piece):
            await connection.send(whole[at : at + piece])
        assert [(path, body) for path, body, _ in connection.heard] == [
            ("/a", b"123456"),
            ("/b", b"123456"),
            ("/c", b"123456"),
        ]
        assert not any(b"upgrade" in names for _, _, names in connection.heard)
        assert not connection.wire.closed
        assert connection.timers.seconds == [IDLE_S]


async def test_what_follows_a_connect_is_no_request() -> None:
    connection = Echo()
    await connection.send(b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n" + HEAD + b"123456")
    assert len(connection.heard) <= 1
    await connection.send(HEAD)
    assert len(connection.heard) <= 1
