"""uvicorn's HTTP, with an end to heads, and to bodies that nobody reads, that never end."""

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 65_536
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
        self._timer: asyncio.TimerHandle | None = None  # of a head, or of a body's unread rest

    @classmethod
    def within(cls, seconds: float) -> type["HttpProtocol"]:
        """Make the protocol with this limit on the time of a head, and of an unread rest."""
        return type(cls.__name__, (cls,), {"timeout_s": seconds})

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless the head has become too long."""
        super().data_received(data)
        if self._head_bytes is None:
            return
        self._head_bytes += len(data)
        if self._head_bytes > MOST_HEAD_BYTES:
            self._give_up(TOO_LONG)

    def on_message_begin(self) -> None:
        """Begin to wait for the end of a head."""
        self._unset_keepalive_if_required()  # the end of a rest may have come with this
        super().on_message_begin()
        self._head_bytes = 0
        self._timer = self.loop.call_later(self.timeout_s, self._give_up, TOO_SLOW)

    def on_headers_complete(self) -> None:
        """Wait no longer: the head is there."""
        self._stop_waiting()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Begin to wait for the rest of a body that was not read to its end."""
        super().on_response_complete()
        # Not where the next request was being read meanwhile: its body is its reader's.
        if self.cycle.response_complete and self.cycle.more_body:
            self._timer = self.loop.call_later(self.timeout_s, self.transport.close)

    def on_message_complete(self) -> None:
        """Wait no longer for a rest: the connection is as idle as any other."""
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
