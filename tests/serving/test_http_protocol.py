"""When a connection is ended: the protocol without a socket, its timers run when told to."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httptools
import pytest
import uvicorn
from uvicorn.server import ServerState

from yoloserve.errors import Overloaded
from yoloserve.http.protocol import (
    CROWDED,
    MOST_HEAD_BYTES,
    MOST_HEADERS,
    MOST_PIPELINED,
    SLOWEST_READER,
    HttpProtocol,
    StreamProtocol,
)
from yoloserve.scheduling.connections import READ_WITHIN_S, Connections, Cut

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

    def call_later(self, seconds: float, run: Callable[..., None], *args: Any) -> Timer:
        timer = Timer(seconds, partial(run, *args), lambda: self.running.remove(timer))
        self.running.append(timer)
        return timer

    def create_task(self, coroutine: Any) -> asyncio.Task[None]:
        return asyncio.create_task(coroutine)

    @property
    def seconds(self) -> list[float]:
        return sorted(timer.seconds for timer in self.running)


class Wire(asyncio.Transport):
    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 1)})
        self.sent, self.closed, self.aborted = b"", False, False
        self.unread = 0

    def write(self, data: Any) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading

    def get_write_buffer_size(self) -> int:
        return self.unread

    def set_protocol(self, protocol: Any) -> None:
        pass


class Connection:
    """A connection to a server that refuses everything unread."""

    def __init__(self, places: Connections | None = None, address: str = "10.0.0.1") -> None:
        config = uvicorn.Config(
            self.answer,
            interface="asgi3",
            proxy_headers=False,
            log_config=None,
            timeout_keep_alive=IDLE_S,
        )
        self.cuts: list[Cut] = []
        self.timers, self.wire = Timers(), Wire(address)
        places = places or Connections(9, self.cuts.append)
        self.protocol = HttpProtocol.within(LIMIT_S, places)(
            config=config, server_state=ServerState(), app_state={}, _loop=self.timers
        )
        self.protocol.connection_made(self.wire)

    async def answer(self, _scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body"})

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
    """A connection to a server that reads all, and keeps each request's path and body."""

    def __init__(self, **options: Any) -> None:
        self.heard: list[tuple[str, bytes, list[bytes]]] = []
        super().__init__(**options)

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.heard.append((scope["path"], body, [name for name, _ in scope["headers"]]))
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

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


@pytest.mark.parametrize("offer", [b"", H2C], ids=["none", "h2c"])
async def test_what_follows_a_last_request_does_not_take_its_answer(offer: bytes) -> None:
    connection = Echo()
    offer = offer.replace(b"Connection: Upgrade", b"Connection: close, Upgrade")
    offer = offer or b"Connection: close\r\n"
    await connection.send(b"GET / HTTP/1.1\r\nHost: x\r\n" + offer + b"\r\n" + GET)
    assert connection.wire.sent.count(b"HTTP/1.1 200 ") == 1
    assert b"connection: close" in connection.wire.sent
    assert connection.cuts == []


async def test_what_follows_a_connect_is_no_request() -> None:
    connection = Echo()
    await connection.send(b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n" + HEAD + b"123456")
    assert len(connection.heard) <= 1
    await connection.send(HEAD)
    assert len(connection.heard) <= 1


# heads, and what comes before them


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_a_connection_that_asks_nothing_has_its_time(connection) -> None:
    (timer,) = connection.timers.running
    assert timer.seconds == LIMIT_S
    timer.run()
    assert connection.wire.closed
    assert connection.wire.sent == b""  # it would be taken for the answer to what comes later
    assert connection.cuts == [Cut.SILENT]


@pytest.mark.parametrize("head", [b"G", GET[:-2], b"\r\n" + GET[:20]])
async def test_a_head_that_does_not_end_has_its_time_too(connection, head: bytes) -> None:
    await connection.send(head)
    (timer,) = connection.timers.running
    timer.run()
    assert connection.wire.sent.startswith(b"HTTP/1.1 408 ")
    assert connection.wire.closed
    assert connection.cuts == [Cut.SLOW_HEAD]


def head_of(size: int) -> bytes:
    start, end = b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ", b"\r\n\r\n"
    return start + b"x" * (size - len(start) - len(end)) + end


@pytest.mark.parametrize("piece", [1000, 50_000, 1_000_000])
async def test_a_head_has_an_end_in_however_many_pieces_it_comes(piece: int) -> None:
    long, connection = head_of(2 * MOST_HEAD_BYTES), Connection()
    for at in range(0, len(long), piece):
        await connection.send(long[at : at + piece])
    assert connection.answers == 0
    assert connection.wire.sent.startswith(b"HTTP/1.1 431 ")
    assert connection.wire.sent.count(b"HTTP/1.1") == 1
    assert connection.wire.closed
    assert connection.cuts == [Cut.LARGE_HEAD]


@pytest.mark.parametrize("piece", [1000, 1_000_000])
@pytest.mark.parametrize("more", [0, 1, 10_000])
async def test_a_head_has_no_more_than_so_many_headers(piece: int, more: int) -> None:
    """Most servers before this one take fewer; 300 heads of 15,000 took its loop for 20 s."""
    connection = Echo()
    head = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * (MOST_HEADERS - 1 + more) + b"\r\n"
    for at in range(0, len(head), piece):
        await connection.send(head[at : at + piece])
    assert len(connection.heard) == (not more)
    assert connection.wire.sent.startswith(b"HTTP/1.1 431 ") is bool(more)
    assert connection.cuts == [Cut.LARGE_HEAD] * bool(more)


@pytest.mark.parametrize("piece", [1000, 1_000_000])
async def test_a_head_below_that_is_read_and_no_body_counts_as_one(piece: int) -> None:
    connection = Echo()
    body = b"Content-Length: 200000\r\n\r\n" + b"b" * 200_000
    whole = (
        head_of(MOST_HEAD_BYTES - 100)
        + (b"POST /b HTTP/1.1\r\nHost: x\r\n" + body)
        + head_of(MOST_HEAD_BYTES - 100)
    )
    for at in range(0, len(whole), piece):
        await connection.send(whole[at : at + piece])
    assert [(path, len(body)) for path, body, _ in connection.heard] == [
        ("/", 0),
        ("/b", 200_000),
        ("/", 0),
    ]
    assert connection.cuts == []


TRAILERS = {"many": b"a:b\r\n" * 200, "one": b"a" * 1000}


@pytest.mark.parametrize("trailers", TRAILERS.values(), ids=TRAILERS)
async def test_trailers_have_an_end_and_are_not_kept(trailers: bytes) -> None:
    for answered in (True, False):
        connection = Connection() if answered else Echo()
        chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        await connection.send(chunked + b"1\r\nA\r\n0\r\nb: c\r\n")
        for _ in range(2 * MOST_HEAD_BYTES // len(trailers)):
            connection.protocol.data_received(trailers)
        assert len(connection.protocol.headers) == 2
        assert connection.wire.closed
        assert connection.wire.sent.count(b"HTTP/1.1") == (1 if answered else 0)
        assert connection.cuts == [Cut.LARGE_HEAD]
        connection.protocol.connection_lost(None)
        await asyncio.gather(*connection.protocol.tasks)


async def test_a_few_trailers_are_read_and_no_part_of_the_request() -> None:
    connection = Echo()
    request = (
        b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\n123\r\n3\r\n456\r\n0\r\nDigest: y\r\nExpect: 100-continue\r\n\r\n"
    )
    for piece in (1, 7, len(request)):
        for at in range(0, len(request), piece):
            await connection.send(request[at : at + piece])
        assert connection.heard[-1] == ("/a", b"123456", [b"host", b"transfer-encoding"])
    assert connection.cuts == []
    assert not connection.wire.closed


@pytest.mark.parametrize("size", [2000, 2 * MOST_HEAD_BYTES])
async def test_chunks_in_pieces_are_no_trailers(size: int) -> None:
    connection, times = Echo(), 3 * MOST_HEAD_BYTES // size + 2
    begin, body = b"%x\r\n" % size, b"a" * size + b"\r\n"
    await connection.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    await connection.send(begin)
    for _ in range(times):
        await connection.send(body + begin)
    await connection.send(body[: size // 2])
    await connection.send(body[size // 2 :] + b"0\r\n\r\n")
    assert len(connection.heard[0][1]) == (times + 1) * size
    assert connection.cuts == []


async def test_a_head_is_not_longer_by_what_came_with_its_beginning() -> None:
    connection = Echo()
    upload = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n"
    await connection.send(upload[:20])
    await connection.send(upload[20:] + b"b" * 99_999 + GET[:20])
    await connection.send(GET[20:])
    assert len(connection.heard) == 2
    assert connection.cuts == []


async def test_what_is_no_http_is_told_so_but_not_in_the_place_of_an_answer() -> None:
    connection = Connection()
    await connection.send(b"no http at all\r\n\r\n")
    assert connection.wire.sent.startswith(b"HTTP/1.1 400 ")
    connection = Connection()
    connection.protocol.data_received(GET + b"no http at all\r\n\r\n")
    assert connection.wire.sent == b""
    assert connection.wire.closed
    assert connection.cuts == [Cut.BAD]


async def test_requests_sent_far_ahead_are_answered_up_to_a_number() -> None:
    connection = Echo()
    await connection.send(GET * (3 * MOST_PIPELINED))
    assert len(connection.heard) == MOST_PIPELINED + 1
    assert connection.wire.sent.count(b"HTTP/1.1 200 ") == MOST_PIPELINED + 1
    assert b"connection: close" in connection.wire.sent.split(b"HTTP/1.1 200 ")[-1]
    assert connection.wire.closed
    assert connection.cuts == [Cut.PIPELINED]


async def test_offers_in_one_piece_are_not_copied_with_all_that_follows(monkeypatch) -> None:
    fed = []

    class Parser(httptools.HttpRequestParser):
        def feed_data(self, data: Any) -> None:
            fed.append(data)
            super().feed_data(data)

    monkeypatch.setattr(httptools, "HttpRequestParser", Parser)
    connection = Echo()
    offer = b"GET / HTTP/1.1\r\nHost: x\r\n" + H2C + b"\r\n"
    whole = offer * (MOST_PIPELINED - 1)
    await connection.send(whole)
    assert len(connection.heard) == MOST_PIPELINED - 1
    copied = sum(len(each) for each in fed if isinstance(each, bytes)) - len(whole)
    assert copied < len(whole)


# answers that are not read


async def test_a_client_that_does_not_read_its_answers_is_cut_off(connection) -> None:
    await connection.send(GET)
    connection.protocol.pause_writing()
    connection.protocol.resume_writing()
    assert connection.timers.seconds == [IDLE_S]
    connection.protocol.pause_writing()
    timer = next(each for each in connection.timers.running if each.seconds == LIMIT_S)
    timer.run()
    assert connection.wire.aborted  # to close it would be to wait for the client
    assert connection.cuts == [Cut.UNREAD]
    connection.protocol.connection_lost(None)
    assert timer not in connection.timers.running


async def test_a_client_that_reads_slowly_has_its_answer_and_one_that_stops_is_cut_off() -> None:
    connection = Connection()
    await connection.send(GET)
    connection.wire.unread = 1_000_000
    connection.protocol.pause_writing()
    for _ in range(3):
        timer = next(each for each in connection.timers.running if each.seconds == LIMIT_S)
        connection.timers.running.remove(timer)
        connection.wire.unread -= SLOWEST_READER * LIMIT_S
        timer.run()
        assert not connection.wire.closed
    timer = next(each for each in connection.timers.running if each.seconds == LIMIT_S)
    connection.wire.unread -= SLOWEST_READER * LIMIT_S - 1
    timer.run()
    assert connection.wire.aborted
    assert connection.cuts == [Cut.UNREAD]


async def test_who_answers_a_client_that_is_cut_off_hears_of_it_though_more_was_asked() -> None:
    heard = []

    class Slow(Connection):
        async def answer(self, _scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            heard.append((await receive())["type"])
            await send({"type": "http.response.body"})  # to nobody, and no error

    connection = Slow()
    connection.protocol.data_received(GET + GET)
    await asyncio.sleep(0)
    connection.protocol.pause_writing()
    (timer,) = connection.timers.running
    timer.run()
    connection.protocol.flow.resume_writing()  # as a transport does that drops what it holds
    await asyncio.gather(*connection.protocol.tasks)
    assert heard == ["http.disconnect"]
    assert connection.wire.sent.count(b"\r\n\r\n") == 1


async def test_a_stream_whose_end_is_not_answered_is_cut_off() -> None:
    async def revoke(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1008, "reason": "revoked"})

    timers, wire = Timers(), Wire("10.0.0.1")
    protocol = StreamProtocol.within(LIMIT_S, memory=Memory())(
        config=uvicorn.Config(revoke, log_config=None, ws_ping_interval=None),
        server_state=ServerState(),
        app_state={},
        _loop=timers,
    )
    protocol.connection_made(wire)
    protocol.pause_writing()
    assert timers.seconds == [LIMIT_S, LIMIT_S]  # of the handshake, and of what is not read
    protocol.resume_writing()
    protocol.data_received(HANDSHAKE + b"\r\n")
    await asyncio.gather(*protocol.tasks)
    assert b"revoked" in wire.sent
    (timer,) = timers.running
    timer.run()
    assert wire.aborted


# handshakes


HANDSHAKE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
REFUSED = {
    b"Cookie: " + b"a" * 9000 + b"\r\n": 431,
    b"Content-Length: 5\r\n": 400,
    b"Transfer-Encoding: chunked\r\n": 400,
    b"Sec-WebSocket-Protocol: \xff(\r\n": 400,
    b"Sec-WebSocket-Version: 9\r\n": 400,
}


class Memory:
    """What all requests may hold."""

    def __init__(self, most: int = 10_000) -> None:
        self.held, self.most = 0, most

    def take(self, size: int) -> None:
        self.held += size
        if self.held > self.most:
            raise Overloaded("full")

    def let_go(self, size: int) -> None:
        self.held -= size


class Camera(Connection):
    """A connection that asks for a stream, of a server that accepts it when told to."""

    def __init__(self, places: Connections | None = None) -> None:
        self.may = asyncio.Event()
        self.stays = False
        self.memory = Memory()
        super().__init__(places)
        self.protocol.ws_protocol_class = self.stream

    def stream(self, **made: Any) -> StreamProtocol:
        places = self.protocol.places
        make = StreamProtocol.within(LIMIT_S, places, memory=self.memory)
        self.protocol = make(_loop=self.timers, **made)
        return self.protocol

    async def answer(self, _scope: Any, receive: Any, send: Any) -> None:
        await self.may.wait()
        await send({"type": "websocket.accept"})
        while self.stays and (message := await receive())["type"] != "websocket.disconnect":
            self.frames.append(len(message.get("bytes", b"")))

    async def stream_on(self) -> None:
        self.stays, self.frames = True, list[int]()
        self.may.set()
        self.protocol.data_received(HANDSHAKE + b"\r\n")
        while b" 101 " not in self.wire.sent:  # noqa: ASYNC110 (nothing else runs)
            await asyncio.sleep(0)
        self.wire.sent = b""


@pytest.mark.parametrize(("header", "status"), REFUSED.items())
async def test_a_handshake_that_cannot_be_read_is_refused(header: bytes, status: int) -> None:
    crowd = Crowd()
    camera = Camera(crowd.places)
    await camera.send(HANDSHAKE + header + b"\r\n")
    assert camera.wire.sent.startswith(b"HTTP/1.1 %d " % status)
    assert camera.wire.sent.count(b"HTTP/1.1") == 1
    assert camera.wire.closed
    assert crowd.places.open == 1  # until its answer is read
    (timer,) = camera.timers.running
    timer.run()
    assert camera.wire.aborted
    camera.protocol.connection_lost(None)
    assert crowd.places.open == 0
    assert camera.timers.running == []


async def test_a_handshake_before_an_answer_has_come_or_is_read_is_a_plain_request() -> None:
    ahead = Echo()
    await ahead.send(GET + HANDSHAKE + b"\r\n" + GET)
    assert [path for path, _, _ in ahead.heard] == ["/", "/v1/stream", "/"]
    unread = Echo()
    await unread.send(GET)
    unread.protocol.pause_writing()
    unread.protocol.data_received(HANDSHAKE + b"\r\n")
    assert unread.protocol.cycle.scope["path"] == "/v1/stream"
    next(each for each in unread.timers.running if each.seconds == LIMIT_S).run()
    assert unread.wire.aborted
    assert unread.cuts == [Cut.UNREAD]
    unread.protocol.connection_lost(None)
    await asyncio.gather(*unread.protocol.tasks)


async def test_the_end_of_the_server_raises_nothing_whatever_a_handshake_has_come_to() -> None:
    for header in [b"", *REFUSED]:
        camera = Camera()
        camera.protocol.data_received(HANDSHAKE + header + b"\r\n")
        camera.protocol.shutdown()
        assert camera.wire.closed
        camera.may.set()
        camera.protocol.connection_lost(None)
        await asyncio.gather(*camera.protocol.tasks)


async def test_a_client_that_ends_its_stream_and_stays_is_cut_off() -> None:
    camera = Camera()
    camera.may.set()
    await camera.send(HANDSHAKE + b"\r\n")
    camera.protocol.data_received(b"\x88\x80\0\0\0\0")
    assert camera.wire.closed
    camera.protocol.shutdown()
    next(each for each in camera.timers.running if each.seconds == LIMIT_S).run()
    assert camera.wire.aborted
    assert camera.cuts == [Cut.UNREAD]


async def test_a_stream_keeps_its_place_among_connections_until_it_is_one() -> None:
    crowd = Crowd()
    camera = Camera(crowd.places)
    camera.protocol.data_received(HANDSHAKE + b"\r\n")
    assert crowd.places.open == 1
    assert camera.timers.seconds == [LIMIT_S]
    camera.may.set()
    await asyncio.gather(*camera.protocol.tasks)
    assert b" 101 " in camera.wire.sent
    assert crowd.places.open == 0
    assert LIMIT_S not in camera.timers.seconds


# messages that do not come to their end


def part(size: int, opcode: int = 2, fin: bool = True, of: int | None = None) -> bytes:
    """Write a frame of a client, of `size` bytes, or the beginning of one of `of`."""
    head = bytes([0x80 * fin + opcode, 0x80 + 126]) + (size if of is None else of).to_bytes(2)
    return head + bytes(4) + b"x" * size


def code_of(close: bytes) -> int:
    assert close[0] == 0x88
    return int.from_bytes(close[2:4])


UNENDED = {
    "the beginning of a frame": [part(900, of=1000)],
    "many pieces of one": [part(100, of=1000), *[b"x" * 100] * 8],
    "a message in parts": [part(300, fin=False), part(300, 0, fin=False), part(200, 0, fin=False)],
}


@pytest.mark.parametrize("pieces", UNENDED.values(), ids=UNENDED)
async def test_what_came_of_a_frame_counts_until_it_is_whole_and_has_its_time(pieces) -> None:
    camera = Camera()
    await camera.stream_on()
    for piece in pieces:
        camera.protocol.data_received(piece)
    assert 800 <= camera.memory.held <= 1100
    slow = [timer for timer in camera.timers.running if timer.seconds == LIMIT_S]
    assert len(slow) == 1  # from its first byte, and not anew with each
    slow[0].run()
    assert code_of(camera.wire.sent) == 3008
    assert camera.wire.closed
    assert camera.cuts == [Cut.STREAM_SLOW]
    assert camera.memory.held == 0
    (last,) = [timer for timer in camera.timers.running if timer.seconds == LIMIT_S]
    last.run()
    assert camera.wire.aborted


async def test_a_frame_that_is_whole_is_held_by_who_looks_at_it() -> None:
    camera = Camera()
    await camera.stream_on()
    whole = part(500) + part(200, of=900)
    for piece in (whole[:100], whole[100:]):
        camera.protocol.data_received(piece)
    assert 200 <= camera.memory.held < 300
    assert camera.timers.seconds.count(LIMIT_S) == 1  # the next one's
    camera.protocol.data_received(b"x" * 700)
    assert camera.memory.held == 0
    assert LIMIT_S not in camera.timers.seconds
    camera.protocol.connection_lost(None)
    await asyncio.gather(*camera.protocol.tasks)
    assert camera.frames == [0, 500, 900]  # the first is the connection itself


async def test_a_frame_that_comes_when_all_is_full_ends_the_stream() -> None:
    camera = Camera()
    await camera.stream_on()
    camera.memory.held = 9_500
    camera.protocol.data_received(part(900, of=1000))
    assert code_of(camera.wire.sent) == 1013
    assert camera.cuts == [Cut.STREAM_OVERLOADED]
    assert camera.memory.held == 9_500
    camera.protocol.data_received(b"x" * 90)  # nothing of it is read
    assert camera.memory.held == 9_500


async def test_a_stream_that_brings_nothing_stays_though_all_is_full() -> None:
    camera = Camera()
    await camera.stream_on()
    camera.memory.held = camera.memory.most + 1
    camera.protocol.data_received(b"\x89\x80" + bytes(4))  # a ping
    assert camera.cuts == []
    assert not camera.wire.closed


async def test_parts_with_nothing_in_them_do_not_come_for_ever() -> None:
    camera = Camera()
    await camera.stream_on()
    camera.protocol.data_received(part(0, fin=False) + part(0, 0, fin=False) * 1000)
    assert camera.cuts == [Cut.STREAM_OVERLOADED]
    assert camera.memory.held == 0


async def test_a_camera_that_leaves_within_a_frame_holds_nothing() -> None:
    camera = Camera()
    await camera.stream_on()
    camera.protocol.data_received(part(900, of=1000))
    camera.protocol.connection_lost(None)
    assert camera.memory.held == 0
    assert LIMIT_S not in camera.timers.seconds


async def test_who_sends_frames_before_it_may_stream_holds_no_more_than_others() -> None:
    camera = Camera()
    camera.protocol.data_received(HANDSHAKE + b"\r\n")
    camera.protocol.data_received(part(900, of=65_000))
    assert camera.memory.held >= 900
    camera.protocol.data_received(b"x" * 20_000)
    assert camera.wire.aborted
    assert camera.memory.held == 0
    camera.may.set()
    camera.protocol.connection_lost(None)
    await asyncio.gather(*camera.protocol.tasks)


# how many there may be


class Crowd:
    """Connections to a server of four places."""

    def __init__(self) -> None:
        self.cuts: list[Cut] = []
        self.now = 0.0
        self.places = Connections(4, self.cuts.append, lambda: self.now)

    def connect(self, address: str = "10.0.0.1") -> Connection:
        return Connection(self.places, address)


async def test_who_was_never_asked_anything_by_makes_room_then_who_is_idle() -> None:
    crowd = Crowd()
    idle, silent, other, busy = (crowd.connect(f"10.0.0.{n}") for n in range(4))
    await idle.send(GET)
    await other.send(GET)
    busy.protocol.data_received(GET)
    crowd.now += READ_WITHIN_S
    crowd.connect("10.0.0.9")
    assert silent.wire.aborted
    await crowd.connect("10.0.0.9").send(GET)
    assert crowd.places.open == 4
    assert crowd.cuts == [Cut.MADE_ROOM] * 2
    assert not busy.wire.closed
    await asyncio.gather(*busy.protocol.tasks)


async def test_where_nobody_is_idle_a_health_check_is_let_in_and_nobody_else() -> None:
    crowd = Crowd()
    busy = [crowd.connect() for _ in range(4)]
    for each in busy:
        each.protocol.data_received(HEAD)
    probe = crowd.connect("10.0.0.250")
    await probe.send(GET)
    assert probe.answers == 1  # the application has it, and knows
    assert probe.protocol.scope["state"][CROWDED]
    assert probe.wire.closed  # and there it ends
    assert crowd.places.open == 4
    for each in busy:
        await each.send(b"")
        each.protocol.connection_lost(None)
    assert crowd.places.open == 0
    here = crowd.connect()
    await here.send(GET)
    assert CROWDED not in here.protocol.scope["state"]
    assert not here.wire.closed


async def test_an_upgrade_at_the_door_is_a_request_like_others() -> None:
    crowd = Crowd()
    for _ in range(4):
        crowd.connect().protocol.data_received(HEAD)
    camera = crowd.connect()
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    await camera.send(b"GET /v1/stream HTTP/1.1\r\nHost: x\r\n" + upgrade + b"\r\n")
    assert camera.answers == 1
    assert camera.wire.closed
