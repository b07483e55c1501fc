"""uvicorn's HTTP, with an end to heads, and to bodies that nobody reads, that never end."""

import asyncio
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 65_536
OFFER = b"upgrade", b"http2-settings"
TOO_SLOW, TOO_LONG = "408 Request Timeout", "431 Request Header Fields Too Large"


class HttpProtocol(HttpToolsProtocol):
    """Bounds a request's head in time and size; its body is bounded where it is read.

    uvicorn waits for the rest of a head for ever, and keeps all of it. The rest of a body that was
    refused unread it throws away; but any byte of it stops the timer of idle connections, and
    nothing starts that again. So the rest has its time, too.

    It has that, and not an end with the refusal (`Connection: close`): most bodies are on their way
    already, and a socket that is closed before they are read resets the connection, often before
    the client has read why. A server that is full would also have each client connect anew.
    """

    timeout_s: ClassVar[float] = 10

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes: int | None = None  # None: not within a head
        self._offered = False  # an upgrade that is not taken, by the request that is being read
        self._timer: asyncio.TimerHandle | None = None  # of a head, or of a body's unread rest

    @classmethod
    def within(cls, seconds: float) -> type["HttpProtocol"]:
        """Make the protocol with this limit on the time of a head, and of an unread rest."""
        return type(cls.__name__, (cls,), {"timeout_s": seconds})

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless the head has become too long.

        As uvicorn does, but for an offer to upgrade that is not taken: the parser takes what
        follows such a head for the other protocol, and uvicorn drops it (Kludex/uvicorn#2722).
        """
        self._unset_keepalive_if_required()
        size = len(data)
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
                return
            except httptools.HttpParserUpgrade as offer:
                if not self._offered:
                    if self._should_upgrade():
                        self.handle_websocket_upgrade()
                    return
                data = self._plain_head() + data[offer.args[0] :]
            else:
                break
        if self._head_bytes is not None:
            self._head_bytes += size
            if self._head_bytes > MOST_HEAD_BYTES:
                self._give_up(TOO_LONG)

    def _should_upgrade(self) -> bool:
        # A WebSocket begins with GET; any other request has a body to be read (RFC 6455, 4.1).
        return self.parser.get_method() == b"GET" and super()._should_upgrade()

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
        return b"".join([*head, b"\r\n"])

    def _request_line(self) -> tuple[bytes, bytes, bytes]:
        return self.parser.get_method(), self.url, self.parser.get_http_version().encode()

    def on_message_begin(self) -> None:
        """Begin to wait for the end of a head."""
        self._unset_keepalive_if_required()  # the end of a rest may have come with this
        super().on_message_begin()
        self._head_bytes = 0
        self._timer = self.loop.call_later(self.timeout_s, self._give_up, TOO_SLOW)

    def on_headers_complete(self) -> None:
        """Wait no longer: the head is there."""
        self._stop_waiting()
        if self.parser.should_upgrade() and not self._should_upgrade():
            if self.parser.get_method() != b"CONNECT":
                self._offered = True  # nothing has begun: the head comes again, without the offer
                return
            super().on_headers_complete()
            self.cycle.keep_alive = False  # what follows is for whom the client took us for
            return
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Begin to wait for the rest of a body that was not read to its end."""
        super().on_response_complete()
        # Not where the next request was being read meanwhile: its body is its reader's.
        if self.cycle.response_complete and self.cycle.more_body:
            self._timer = self.loop.call_later(self.timeout_s, self.transport.close)

    def on_message_complete(self) -> None:
        """Wait no longer for a rest: the connection is as idle as any other."""
        if self._offered:
            return
        super().on_message_complete()
        if self._timer:
            self._stop_waiting()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer: nobody is there."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _stop_waiting(self) -> None:
        self._head_bytes = None
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _give_up(self, status: str) -> None:
        self._stop_waiting()
        if not self.transport.is_closing():
            # Not while an earlier request of this connection still has its answer to come.
            if self.cycle is None or self.cycle.response_complete:
                head = f"HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                self.transport.write(head.encode())
            self.transport.close()


def _but_the_offer(connection: bytes) -> list[bytes]:
    tokens = (token.strip() for token in connection.split(b","))
    return [token for token in tokens if token and token.lower() not in OFFER]
