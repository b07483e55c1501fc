"""uvicorn's HTTP, with an end to heads that never end."""

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 65_536
TOO_SLOW, TOO_LONG = "408 Request Timeout", "431 Request Header Fields Too Large"


class HttpProtocol(HttpToolsProtocol):
    """Bounds a request's head in time and size; its body is bounded where it is read.

    uvicorn waits for the rest of a head for ever, and keeps all of it.
    """

    head_timeout_s: ClassVar[float] = 10

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes: int | None = None  # None: not within a head
        self._head_timer: asyncio.TimerHandle | None = None

    @classmethod
    def within(cls, seconds: float) -> type["HttpProtocol"]:
        """Make the protocol with this limit on the time of a head."""
        return type(cls.__name__, (cls,), {"head_timeout_s": seconds})

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
        super().on_message_begin()
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(self.head_timeout_s, self._give_up, TOO_SLOW)

    def on_headers_complete(self) -> None:
        """Wait no longer: the head is there."""
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer: nobody is there."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _stop_waiting(self) -> None:
        self._head_bytes = None
        if self._head_timer:
            self._head_timer.cancel()

    def _give_up(self, status: str) -> None:
        self._stop_waiting()
        if not self.transport.is_closing():
            # Not while an earlier request of this connection still has its answer to come.
            if self.cycle is None or self.cycle.response_complete:
                head = f"HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                self.transport.write(head.encode())
            self.transport.close()
