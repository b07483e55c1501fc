"""A front's process, `python -m yoloserve.fronts.front SPEAKS TAKES ENGINE`.

SPEAKS and TAKES are descriptors of its sockets to the engine's process, whose id is ENGINE: one for
messages, one on which it is given connections. It ends with that process, whatever ended that.
"""

import asyncio
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from yoloserve.engine import memory
from yoloserve.fronts import wire
from yoloserve.fronts.application import Application
from yoloserve.fronts.processes import CONNECTION, MEMORY
from yoloserve.fronts.slots import Memory
from yoloserve.http.server import configuration
from yoloserve.settings import Settings
from yoloserve.telemetry import logs

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
ENGINE_GONE = 1


class Front(uvicorn.Server):
    """Serves the connections it is given, until it is told to finish."""

    def __init__(self, front: Application, speaks: socket.socket, takes: socket.socket) -> None:
        super().__init__(
            configuration(front.app, front.settings, front.serving.bodies, front.connections)
        )
        self._front = front
        front.sockets = lambda: len(self.server_state.connections) + len(self._connecting)
        self._speaks = speaks
        self._takes = takes
        self._connecting: set[asyncio.Future[None]] = set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Finish when somebody ends this process alone."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._finish)
        yield
        loop.remove_signal_handler(signal.SIGTERM)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002
        """Speak with the engine's process, which gives connections in the place of a port."""
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(
            lambda: wire.Link(wire.SAID, self._heard, self._lost, wire.MOST_ANSWERED_BYTES),
            sock=self._speaks,
        )
        self._front.asking.say = link.send
        await super().startup([])
        gc.freeze()  # as `http/server.py` does, and for the same reason
        memory.give_back()

    async def main_loop(self) -> None:
        """Say that it is there, and serve."""
        loop = asyncio.get_running_loop()
        self._takes.setblocking(False)
        loop.add_reader(self._takes, self._take)
        self._front.asking.say(wire.Listening())
        await super().main_loop()
        # Whoever is on the way is taken; who comes now is handed to another front.
        self._front.asking.say(wire.Leaving())
        self._takes.shutdown(socket.SHUT_RD)
        self._take()
        loop.remove_reader(self._takes)

    def _take(self) -> None:
        """Take the connections that were handed over."""
        while True:
            try:
                what, descriptors, _, _ = socket.recv_fds(self._takes, 1, 1)
            except BlockingIOError:  # no more
                return
            if not what:  # the other end is closed, as the link tells
                asyncio.get_running_loop().remove_reader(self._takes)
                return
            assert what == CONNECTION
            self._front.received += 1
            if not descriptors:
                log.warning("a connection is lost: no file is left for it")
                continue
            connection = socket.socket(fileno=descriptors[0])
            if connection.family in (socket.AF_INET, socket.AF_INET6):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = asyncio.ensure_future(self._connect(connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: socket.socket) -> None:
        config, loop = self.config, asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                lambda: config.http_protocol_class(  # type: ignore[call-arg]
                    config=config,
                    server_state=self.server_state,
                    app_state=self.lifespan.state,
                    _loop=loop,
                ),
                connection,
            )
        except OSError as error:  # the client has left meanwhile
            log.debug("a connection was gone", extra={"reason": str(error)})

    def _heard(self, said: wire.Said) -> None:
        if isinstance(said, wire.Ping):
            self._front.asking.say(wire.Pong())
        elif isinstance(said, wire.Finish):
            self._finish()
        elif not isinstance(said, wire.Welcome):
            self._front.hear(said)

    def _finish(self) -> None:
        self.should_exit = True

    def _lost(self, _: Exception | None) -> None:
        """End: nobody can answer any more; who asks connects anew, to whoever is there then."""
        os._exit(ENGINE_GONE)


def _begin(speaks: socket.socket, takes: socket.socket) -> Front | None:
    """Wait for the first word, and for the memory; none: the engine's process has ended."""
    head = speaks.recv(wire.LENGTH.size, socket.MSG_WAITALL)
    if len(head) < wire.LENGTH.size:
        return None
    (length,) = wire.LENGTH.unpack(head)
    welcome = wire.SAID.decode(speaks.recv(length, socket.MSG_WAITALL))
    assert isinstance(welcome, wire.Welcome)
    what, descriptors, _, _ = socket.recv_fds(takes, 1, 1)
    if not descriptors:
        return None
    assert what == MEMORY
    settings = Settings.model_validate_json(welcome.settings)
    slots = Memory(descriptors[0], welcome.slots, welcome.slot_bytes)
    os.close(descriptors[0])
    return Front(Application(settings, welcome, slots), speaks, takes)


def _end_with(engine: int) -> None:
    """Have the kernel end this process with the engine's, should it hang when that one ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != engine:  # it has ended meanwhile
        os._exit(ENGINE_GONE)


def main() -> int:
    """Serve as a front."""
    speaks, takes, engine = map(int, sys.argv[1:])
    _end_with(engine)
    with logs.configured():
        front = _begin(socket.socket(fileno=speaks), socket.socket(fileno=takes))
        if front is None:
            return ENGINE_GONE
        front.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
