"""uvicorn's HTTP and WebSocket, with an end to whatever a client could let go on for ever."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NoReturn, Protocol, Self

import httptools
from uvicorn._types import ASGI3Application, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.protocol import OPEN

from yoloserve.errors import Overloaded
from yoloserve.scheduling.connections import TIMEOUT, Connections, Cut

MOST_HEAD_BYTES = 65_536
MOST_HEADERS = 128  # as `websockets` has it; Envoy and Apache pass 100 on
SLOWEST_READER = 4096  # bytes of an answer in a second
MOST_PIPELINED = 64  # requests sent ahead of their answers
MOST_CONNECTIONS = 1000
CROWDED = "crowded"  # in a request's state: it came at the door
OFFER = b"upgrade", b"http2-settings"
BAD = "400 Bad Request"
NO_HANDSHAKE = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
TOO_SLOW, TOO_LONG = "408 Request Timeout", "431 Request Header Fields Too Large"
TRY_AGAIN_LATER = 1013  # of the registry of RFC 6455
PART_BYTES = 64  # what a part of a message takes besides what is in it, if anything is


class Memory(Protocol):
    """What counts the bytes of all requests together (`bodies.Bodies`)."""

    def take(self, size: int) -> None:
        """Count more; raise `Overloaded`, having counted, when all together are too much."""

    def let_go(self, size: int) -> None:
        """Count less."""


class _Enough(Exception):
    """Nothing more of what came is to be read."""


class _Impatient(asyncio.Protocol):
    """Ends a connection whose client does not read what it asked for: it would stay for ever.

    Who reads slowly, but reads, has its answer.
    """

    timeout_s: ClassVar[float] = 10
    places: ClassVar[Connections] = Connections(MOST_CONNECTIONS)
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _unread: asyncio.TimerHandle | None = None
    _unread_bytes = 0

    @classmethod
    def within(cls, seconds: float, places: Connections | None = None, **also: Any) -> type[Self]:
        """Make the protocol with a limit on what waits for the client, and on all connections."""
        places = places or Connections(MOST_CONNECTIONS)
        return type(cls.__name__, (cls,), {"timeout_s": seconds, "places": places, **also})

    def pause_writing(self) -> None:
        """Begin to wait for a client that does not read."""
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        """Wait no longer: it reads."""
        self._stop_waiting_for_reader()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer: nobody is there."""
        self._stop_waiting_for_reader()
        super().connection_lost(exc)

    def _stop_waiting_for_reader(self) -> None:
        if self._unread:
            self._unread.cancel()
            self._unread = None

    def _wait_for_reader(self) -> None:
        self._unread_bytes = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(self.timeout_s, self._cut_unless_it_reads)

    def _cut_unless_it_reads(self) -> None:
        read = self._unread_bytes - self.transport.get_write_buffer_size()
        if read >= SLOWEST_READER * self.timeout_s:
            self._wait_for_reader()
        else:
            self._cut_unread()

    def _cut_unread(self) -> None:
        self.places.cut(Cut.UNREAD)
        self.cut()

    def cut(self) -> None:
        """End the connection, whatever is under way: to close it would be to wait for a reader."""
        self.transport.abort()


class HttpProtocol(_Impatient, HttpToolsProtocol):
    """Bounds the number of connections, and of each request its head and its unread rest.

    Its body is bounded where it is read.

    uvicorn waits for the first byte of a request and for the rest of a head for ever, and keeps all
    of it. The rest of a body that was refused unread it throws away; but any byte of it stops the
    timer of idle connections, and nothing starts that again. So the rest has its time, too.

    It has that, and not an end with the refusal (`Connection: close`): most bodies are on their way
    already, and a socket that is closed before they are read resets the connection, often before
    the client has read why. A server that is full would also have each client connect anew.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Of a head, or of trailers, in several pieces; None: not within one.
        self._pieces_bytes: int | None = None
        self._is_headed = False  # what looks like a header now is a trailer
        self._may_be_long = False  # the head that ends in what came
        self._enough = False  # nothing more is read
        self._offered = False  # an upgrade that is not taken, by the request that is being read
        self._at_the_door = False
        self._answering: RequestResponseCycle | None = None
        self._timer: asyncio.TimerHandle | None = None  # of a head, or of a body's unread rest

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place; begin to wait for a request."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(self.timeout_s, self._give_up, Cut.SILENT)
        self._at_the_door = not self.places.enter(self, self.client[0] if self.client else "")

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless the head has become too long.

        As uvicorn does, but for an offer to upgrade that is not taken: the parser takes what
        follows such a head for the other protocol, and uvicorn drops it (Kludex/uvicorn#2722).
        """
        if self._enough:
            return
        self._unset_keepalive_if_required()
        self._may_be_long = len(data) > MOST_HEAD_BYTES
        if self._pieces_bytes is not None:
            self._may_be_long = True
            self._pieces_bytes += len(data)  # begins anew with what begins in this piece
        coming: list[bytes | memoryview] = [data]  # the last one first
        while coming:
            piece = coming.pop()
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserError:
                if not self._enough:
                    self._give_up(Cut.BAD, BAD, "Invalid HTTP request received.")
                return
            except httptools.HttpParserUpgrade as offer:
                if not self._offered:
                    if self._should_upgrade():
                        self.handle_websocket_upgrade()
                    return
                rest = memoryview(piece)[offer.args[0] :]  # not copied for each offer in it
                coming += [*([rest] if rest else []), self._plain_head()]
        if self._pieces_bytes is not None and self._pieces_bytes > MOST_HEAD_BYTES:
            # After a head it might be taken for the answer to the next request.
            self._give_up(Cut.LARGE_HEAD, "" if self._is_headed else TOO_LONG)

    def _should_upgrade(self) -> bool:
        # A WebSocket begins with GET; any other request has a body to be read (RFC 6455, 4.1).
        # At the door it is answered as what it is besides: who waits for one does read that. So it
        # is where earlier answers are still to come or to be read: nobody would wait for their end.
        return (
            self.parser.get_method() == b"GET"
            and not self._at_the_door
            and not self.flow.write_paused
            and (self.cycle is None or self.cycle.response_complete)
            and super()._should_upgrade()
        )

    def handle_websocket_upgrade(self) -> None:
        """Hand over, the place as well: until it is a stream, which has one of its own."""
        make: Any = self.ws_protocol_class
        self.ws_protocol_class = partial(make, leave=partial(self.places.leave, self))  # type: ignore[assignment]
        super().handle_websocket_upgrade()

    def _plain_head(self) -> bytes:
        """Write the head again, without the offer; a parser of its own reads it and the rest."""
        head = [b"%s %s HTTP/%s\r\n" % self._request_line()]
        for name, value in self.headers:
            if name == b"connection":
                value = b", ".join(_but_the_offer(value))
            if name not in OFFER:
                head.append(b"%s: %s\r\n" % (name, value))
        self._offered = False
        self.parser = httptools.HttpRequestParser(self)
        # As uvicorn's: what follows a last request does not take its answer from it.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"".join([*head, b"\r\n"])

    def _request_line(self) -> tuple[bytes, bytes, bytes]:
        return self.parser.get_method(), self.url, self.parser.get_http_version().encode()

    def on_message_begin(self) -> None:
        """Begin to wait for the end of a head."""
        if len(self.pipeline) >= MOST_PIPELINED:
            self.cycle.keep_alive = False  # what was taken is answered, and that is the last
            self.places.cut(Cut.PIPELINED)
            self._stop_reading()
        self._unset_keepalive_if_required()  # the end of a rest may have come with this
        super().on_message_begin()
        if self._at_the_door:
            self.scope["state"][CROWDED] = True
        self._stop_waiting()
        self._pieces_bytes = 0
        self._is_headed = False
        self._timer = self.loop.call_later(self.timeout_s, self._give_up, Cut.SLOW_HEAD, TOO_SLOW)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep it; but not a trailer, which nobody reads, nor one of too many.

        Each costs a thousand times its bytes: many heads of small ones would hold up probes.
        """
        if self._is_headed:
            return
        if len(self.headers) >= MOST_HEADERS:
            self._give_up(Cut.LARGE_HEAD, TOO_LONG)
            self._stop_reading()
        super().on_header(name, value)

    def on_chunk_header(self) -> None:
        """Count what comes until a body does: after the last chunk, that is trailers.

        The parser keeps each until its end, however long it is.
        """
        self._pieces_bytes = 0

    def on_body(self, body: bytes) -> None:
        """Pass it on."""
        self._pieces_bytes = None
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """Wait no longer: the head is there."""
        self._stop_waiting()
        self._is_headed = True
        if self._may_be_long and self._size_of_head() > MOST_HEAD_BYTES:
            self._give_up(Cut.LARGE_HEAD, TOO_LONG)
            self._stop_reading()
        self.places.asks(self)
        if self.parser.should_upgrade() and not self._should_upgrade():
            if self.parser.get_method() != b"CONNECT":
                self._offered = True  # nothing has begun: the head comes again, without the offer
                return
            super().on_headers_complete()
            self.cycle.keep_alive = False  # what follows is for whom the client took us for
            return
        super().on_headers_complete()
        if self._at_the_door:
            self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        """Begin to wait for the rest of a body that was not read to its end."""
        super().on_response_complete()
        # Not where the next request was being read meanwhile: its body is its reader's.
        if self.cycle.response_complete and self.cycle.more_body:
            self._timer = self.loop.call_later(self.timeout_s, self._give_up, Cut.SLOW_REST)
        if self.cycle.response_complete:
            self.places.rests(self)

    def on_message_complete(self) -> None:
        """Wait no longer for a rest: the connection is as idle as any other."""
        if self._offered:
            return
        self._pieces_bytes = None
        super().on_message_complete()
        if self._timer:
            self._stop_waiting()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer: nobody is there."""
        self._stop_waiting()
        self.places.leave(self)
        self._tell_who_answers()
        super().connection_lost(exc)

    def cut(self) -> None:
        """End it; who answers hears at once, and writes no more."""
        self._tell_who_answers()
        super().cut()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _tell_who_answers(self) -> None:
        """Say that nobody is there: uvicorn tells the request that came last, not this one."""
        if self._answering and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def _stop_waiting(self) -> None:
        self._pieces_bytes = None
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _size_of_head(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _stop_reading(self) -> NoReturn:
        """Leave the parser, in one of its callbacks."""
        self._enough = True
        raise _Enough

    def _give_up(self, why: Cut, status: str = "", message: str = "") -> None:
        """End the connection, with an answer if it can be taken for this request's."""
        self._stop_waiting()
        self._enough = True
        if self.transport.is_closing():
            return
        self.places.cut(why)
        # Not while an earlier request of this connection still has its answer to come.
        if status and (self.cycle is None or self.cycle.response_complete):
            head = f"HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {len(message)}\r\n"
            self.transport.write(f"{head}content-type: text/plain\r\n\r\n{message}".encode())
        self.transport.close()


class StreamProtocol(_Impatient, WebSocketsSansIOProtocol):
    """Bounds the handshake, each message, how long answers are left unread, and the end.

    uvicorn waits for ever for what follows a handshake that `websockets` cannot read (one with a
    body, long lines, many headers), and cannot shut that down: its error would end the server, with
    all that is in flight.

    It keeps what came of a message until that is whole, in however many parts, and waits for ever
    here too. That counts as what requests hold, and has a body's time from its first byte.
    """

    memory: ClassVar[Memory]

    def __init__(self, *args: Any, leave: Callable[[], None] = lambda: None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._leave = leave  # the place among connections
        self._timer: asyncio.TimerHandle | None = None  # of the handshake, or of what was closed
        self._held = 0
        self._later_parts = 0  # bytes of the message that is coming
        self._whole_by: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the end of the handshake."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Read on; answer a handshake that cannot be read."""
        super().data_received(data)
        if self.conn.handshake_exc and not self.transport.is_closing():
            self.places.cut(Cut.BAD)
            self.transport.write(b"".join(self.conn.data_to_send()) or NO_HANDSHAKE)
            self.transport.close()
        if self.transport.is_closing():
            self._wait()
            self._forget_message()
        else:
            self._await_message()

    def handle_cont(self, event: Frame) -> None:
        """Count a part of a message: one with nothing in it, too, or they could come for ever."""
        self._later_parts += len(event.data) + PART_BYTES
        super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """Pass a message on that is whole: whoever looks at it counts it now."""
        self._forget_message()
        super().send_receive_event_to_app()

    def _await_message(self) -> None:
        """Hold what came of a message; give up the connection where all together is too much."""
        first = len(self.frames[0]) if self.frames else 0
        coming = len(self.conn.reader.buffer) + first + self._later_parts
        more, self._held = coming - self._held, coming
        if more < 0:
            self.memory.let_go(-more)
        elif more:  # who brings nothing is in nobody's way
            try:
                self.memory.take(more)
            except Overloaded:
                message = "this server holds too much already"
                self._fail(Cut.STREAM_OVERLOADED, TRY_AGAIN_LATER, message)
                return
        if not self._whole_by and coming:
            slow = f"a frame took longer than {self.timeout_s:g} s"
            self._whole_by = self.loop.call_later(
                self.timeout_s, self._fail, Cut.STREAM_SLOW, TIMEOUT, slow
            )

    def _forget_message(self) -> None:
        self.memory.let_go(self._held)
        self._held = self._later_parts = 0
        if self._whole_by:
            self._whole_by.cancel()
            self._whole_by = None

    def _fail(self, why: Cut, code: int, reason: str) -> None:
        """End it in the middle of a message: nothing more of that is read."""
        self._forget_message()
        self.frames = []
        self.places.cut(why)
        if self.conn.state is not OPEN:  # the application has not said yet whether it may be one
            self.cut()
            return
        self.conn.fail(code, reason)
        self.handle_parser_exception()
        self._wait()

    def keepalive_timeout(self) -> None:
        """End it, whether the client reads why or not."""
        super().keepalive_timeout()
        self._wait()

    def shutdown(self) -> None:
        """End it, in whatever state it is: an error here would end the others, too."""
        if not self.transport.is_closing():
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer: nobody is there."""
        self._stop_waiting()
        self._forget_message()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if not self._timer:
            self._timer = self.loop.call_later(self.timeout_s, self._cut_unread)

    def _stop_waiting(self) -> None:
        self._leave()
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def cut(self) -> None:
        """End it; who answers hears at once, and writes no more."""
        self.disconnected = True
        super().cut()

    async def send(self, message: ASGISendEvent) -> None:
        """Pass a message on; after the last one, whatever the client does, there is an end."""
        await super().send(message)
        if message["type"] == "websocket.accept":
            self._stop_waiting()
        if self.close_sent:  # uvicorn logs a refused handshake as a fault: as one without an answer
            self.handshake_complete = True
        if self.close_timer:  # uvicorn's waits for the reader
            self.close_timer.cancel()
            self.close_timer = self.loop.call_later(self.close_timeout, self.cut)


def _but_the_offer(connection: bytes) -> list[bytes]:
    tokens = (token.strip() for token in connection.split(b","))
    return [token for token in tokens if token and token.lower() not in OFFER]
