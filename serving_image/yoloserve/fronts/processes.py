"""The fronts' processes: started, asked whether they are there, started anew, and ended."""

import asyncio
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.types import ASGIApp

from yoloserve.fronts import wire
from yoloserve.fronts.engine_side import Session, welcome
from yoloserve.fronts.slots import Slots, bytes_of
from yoloserve.http.serving import EngineServing

log = logging.getLogger(__name__)

MEMORY, CONNECTION = b"m", b"c"  # what a descriptor is of, that a front is given
TICK_S = 0.25  # how soon a front hears what is new of the server
PING_S = 5.0
# A front that says nothing, while this process is in time: it gets no connections, and is ended.
QUIET_S, HANGS_S = 15.0, 60.0
ENDS_S = 2.0  # that a front has to be gone once its socket is
BACK_OFF_S = 0.1, 5.0
MOST_FAILURES = 8  # in a row, of a server that has not begun to serve
STEADY_S = 30.0  # a front that lived so long is started anew at once
MODULE: Final = "yoloserve.fronts.front"


class FrontsFail(Exception):
    """No front process lives long enough to listen."""


@dataclass(slots=True, eq=False)
class _Front:
    """A process, and both sockets to it."""

    number: int
    process: "subprocess.Popen[bytes]"
    speaks: socket.socket
    hands: socket.socket  # takes descriptors
    born: float
    heard: float
    link: "wire.Link[wire.Asked] | None" = None
    session: Session | None = None
    listening: bool = False
    given: int = 0  # connections

    @property
    def load(self) -> int:
        """Count the connections it has, those on their way included."""
        gauges = self.session.gauges if self.session else wire.Gauges()
        return gauges.sockets + self.given - gauges.received

    def close(self) -> None:
        self.speaks.close()
        self.hands.close()


@dataclass(slots=True, eq=False)
class Fronts:
    """All of them, as the engine's process has them."""

    count: int
    threads: int  # of each, for pictures
    clock: Callable[[], float] = time.monotonic
    started: int = 0  # processes, ever
    _fronts: dict[int, _Front] = field(default_factory=dict)
    _serving: EngineServing | None = None
    _app: ASGIApp | None = None
    _routes: frozenset[str] = frozenset()
    _slots: Slots | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _watching: "asyncio.Task[None] | None" = None
    _told: wire.State | None = None
    _finishing: bool = False
    _failures: int = 0  # in a row

    @property
    def ready(self) -> bool:
        """Say whether all of them take connections."""
        return self.listening == self.count

    @property
    def listening(self) -> int:
        """Count those that take connections."""
        return len(self._listening())

    @property
    def open(self) -> int:
        """Count their connections."""
        return sum(session.gauges.connections for session in self._sessions())

    @property
    def active(self) -> int:
        """Count the requests that are under way in them."""
        return sum(session.gauges.active for session in self._sessions())

    def begin(self) -> None:
        """Start them: importing takes them as long as a network takes to be loaded."""
        for number in range(self.count):
            self._fronts[number] = self._spawn(number)
            self.started += 1

    async def serve(
        self,
        serving: EngineServing,
        app: ASGIApp,
        routes: frozenset[str],
        ends: Callable[[], bool] = lambda: False,
    ) -> None:
        """Tell them what is served, and return when all of them listen, or the server `ends`."""
        self._serving, self._app, self._routes = serving, app, routes
        core = serving.core
        self._slots = Slots(core.most, bytes_of(core.info.input_size))
        for front in list(self._fronts.values()):
            await self._welcome(front)
        self._watching = asyncio.create_task(self._watch())
        while not self.ready and not ends():
            if self._failures >= MOST_FAILURES:
                raise FrontsFail(f"front processes end before they listen: {self._failures} did")
            await self._change(TICK_S)

    async def give(self, connection: socket.socket) -> None:
        """Hand a connection to the front that has least of them; it is closed here."""
        with connection:
            while not self._finishing:
                for front in sorted(self._listening(), key=lambda each: each.load):
                    try:
                        socket.send_fds(front.hands, [CONNECTION], [connection.fileno()])
                    except OSError:  # it is about to go, or has much to take
                        continue
                    front.given += 1
                    return
                await self._change(TICK_S)

    def tell(self) -> None:
        """Tell them what the server is now, if that is news."""
        if (serving := self._serving) is None:
            return
        state = wire.State(serving.status(), serving.draining, serving.core.roomy)
        if state != self._told:
            self._told = state
            for front in self._fronts.values():
                if front.link and front.listening:
                    front.link.send(state)

    def _filled(self) -> None:
        """Have fronts ask first, at once, when places become few."""
        assert self._serving
        if self._told and self._told.roomy and not self._serving.core.roomy:
            self.tell()

    async def finish(self, within_s: float) -> None:
        """Have them answer what is under way, and end; by force what has not by then."""
        self._finishing = True
        self._changed.set()
        if self._watching:
            self._watching.cancel()
        for front in list(self._fronts.values()):
            if front.link:
                front.link.send(wire.Finish())
            else:  # it was told nothing yet, and has nothing to finish
                await self._end(front)
        until = self.clock() + within_s
        while self._fronts and self.clock() < until:
            await self._change(TICK_S)
        for front in list(self._fronts.values()):
            log.error("a front did not end", extra={"front": front.number})
            await self._end(front)
        if self._slots:
            self._slots.close()

    async def _end(self, front: _Front) -> None:
        front.process.kill()
        await asyncio.to_thread(front.process.wait)
        front.close()
        self._fronts.pop(front.number, None)

    def _spawn(self, number: int) -> _Front:
        with ExitStack() as opened:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            opened.enter_context(ours)
            with theirs:
                hands, takes = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                opened.enter_context(hands)
                hands.setblocking(False)
                with takes:
                    given = theirs.fileno(), takes.fileno()
                    process = subprocess.Popen(
                        [sys.executable, "-m", MODULE, *map(str, given), str(os.getpid())],
                        pass_fds=given,
                        stdin=subprocess.DEVNULL,
                        stderr=sys.stderr,  # the log's own, past the pipe for what libraries write
                        start_new_session=True,  # a terminal's Ctrl-C is for the engine's to tell
                    )
            opened.pop_all()
        now = self.clock()
        return _Front(number, process, ours, hands, now, now)

    async def _welcome(self, front: _Front) -> None:
        assert self._serving
        assert self._app
        assert self._slots
        session = Session(self._serving, self._app, self._slots, self._routes)
        slots = self._slots
        with suppress(OSError):  # it has ended already, which the link tells
            socket.send_fds(front.hands, [MEMORY], [slots.descriptor])
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(
            lambda: wire.Link(
                wire.ASKED,
                lambda said: self._heard(front, said),
                lambda error: self._task(self._lost(front, error)),
                wire.MOST_ASKED_BYTES,
            ),
            sock=front.speaks,
        )
        session.send, session.filled = link.send, self._filled
        front.link, front.session, front.heard = link, session, self.clock()
        link.send(welcome(self._serving, slots, fronts=self.count, threads=self.threads))

    def _heard(self, front: _Front, said: wire.Asked) -> None:
        front.heard = self.clock()
        if isinstance(said, wire.Listening):
            assert front.link
            front.listening = True
            if self._told:
                front.link.send(self._told)
            self._changed.set()
        elif isinstance(said, wire.Leaving):
            front.listening = False
            self._changed.set()
        elif not isinstance(said, wire.Pong):
            assert front.session
            front.session.received(said)

    async def _lost(self, front: _Front, error: Exception | None) -> None:
        """Take back what a front had that is gone, or that said what none of ours says."""
        front.listening = False
        if error is not None:
            front.process.kill()
        code = await asyncio.to_thread(_ended, front.process)
        if front.session:  # not before: a thread of it may have been writing
            front.session.end()
        front.close()
        self._fronts.pop(front.number, None)
        self._changed.set()
        if self._finishing:
            return
        lived_s = self.clock() - front.born
        fields = {"front": front.number, "exit": code, "reason": str(error or "")}
        log.error("a front ended; it is started anew", extra=fields, exc_info=error)
        self._failures = 0 if lived_s >= STEADY_S else self._failures + 1
        first_s, longest_s = BACK_OFF_S
        while True:
            if self._failures:
                await asyncio.sleep(min(first_s * 2 ** min(self._failures - 1, 10), longest_s))
            if self._finishing:
                return
            try:
                anew = self._spawn(front.number)
            except OSError as error:
                self._failures += 1
                log.error("a front cannot be started yet", extra={"reason": str(error)})
            else:
                break
        self._fronts[front.number] = anew
        self.started += 1
        await self._welcome(anew)

    async def _watch(self) -> None:
        """Tell fronts what is new, and end one that hangs."""
        pinged = late = self.clock()
        while True:
            await asyncio.sleep(TICK_S)
            self.tell()
            now = self.clock()
            in_time, late = now - late < PING_S, now
            if now - pinged < PING_S:
                continue
            pinged = now
            for front in self._fronts.values():
                if front.link is None:
                    continue
                if not in_time:  # this process was stopped, or starves: nobody could be heard
                    front.heard = now
                elif now - front.heard > HANGS_S:
                    front.link.end(TimeoutError(f"it said nothing for {HANGS_S:g} s"))
                else:
                    front.link.send(wire.Ping())

    def _listening(self) -> list[_Front]:
        now = self.clock()
        return [
            front
            for front in self._fronts.values()
            if front.listening and now - front.heard < QUIET_S
        ]

    def _sessions(self) -> Iterator[Session]:
        return (front.session for front in self._fronts.values() if front.session)

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _change(self, within_s: float | None = None) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(within_s):
                await self._changed.wait()
        except TimeoutError:
            pass


def _ended(process: "subprocess.Popen[bytes]") -> int:
    """Wait for the end of a front that speaks no more."""
    try:
        return process.wait(ENDS_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
