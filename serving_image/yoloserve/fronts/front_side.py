"""What a front has in the place of an engine: the same questions, asked of another process."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass, field
from typing import Any, cast

from starlette.types import ASGIApp, Receive, Scope, Send

from yoloserve.access.clients import Client
from yoloserve.core import Place, Prepared, Seen, Wanted
from yoloserve.detector import Answer
from yoloserve.engine.starting import ModelInfo
from yoloserve.errors import Blind, Miss, Overloaded, OverQuota, Refusal, TooLate
from yoloserve.fronts import wire
from yoloserve.fronts.slots import Memory
from yoloserve.http.protocol import CROWDED
from yoloserve.http.replies import detects
from yoloserve.http.replies import refusal as refused
from yoloserve.http.serving import Serving, Status
from yoloserve.images.letterbox import Image
from yoloserve.scheduling.admission import ANYBODY, Flow
from yoloserve.scheduling.concurrency import Lender
from yoloserve.scheduling.connections import Cut
from yoloserve.shadow.copies import Copy, Drawn
from yoloserve.shadow.replay import Shadow, shuffled
from yoloserve.shadow.tally import Outcome
from yoloserve.telemetry.counting import Counting
from yoloserve.telemetry.traffic import Traffic

Say = Callable[[Any], None]


class EngineFailed(Exception):
    """The engine's process met an error of its own."""


class Left(Exception):
    """Nobody waits any more for what a thread was about to write."""


class Asking:
    """Asks the engine's process, and hands each answer to who waits for it."""

    def __init__(self) -> None:
        self.say: Say = lambda _: None
        self.roomy = False  # most places are free: whoever asks gets one
        self._last = 0
        self._waiting: dict[int, asyncio.Future[wire.Reply]] = {}

    def number(self) -> int:
        """Give a number that nothing else has."""
        self._last += 1
        return self._last

    async def ask(self, message: Any) -> wire.Reply:
        """Send a message, and return its answer; raises a `Refusal`, or `EngineFailed`.

        Whoever gives up waiting gives up what was asked for.
        """
        answer: asyncio.Future[wire.Reply] = asyncio.get_running_loop().create_future()
        self._waiting[message.id] = answer
        try:
            self.say(message)
            reply = await answer
        except asyncio.CancelledError:
            self.say(wire.Leave(message.id))
            raise
        finally:
            del self._waiting[message.id]
        if isinstance(reply, wire.Refused):
            raise refusal(reply)
        if isinstance(reply, wire.Failed):
            raise EngineFailed(reply.message)
        return reply

    def take(self, reply: wire.Reply) -> None:
        """Hand an answer on; to who has left, none."""
        waiting = self._waiting.get(reply.id)
        if waiting and not waiting.done():
            waiting.set_result(reply)


def refusal(said: wire.Refused) -> Refusal:
    """Read a refusal of the engine's process."""
    if said.code == TooLate.code:
        return TooLate(said.message, Miss(said.miss or Miss.LATE))
    if said.code == OverQuota.code:
        return OverQuota(said.message, said.retry_after_s or 1)
    if said.code == Blind.code:
        return Blind(said.message)
    assert said.code == Overloaded.code
    return Overloaded(said.message)


class RemotePlace:
    """A place, and the memory that goes with it until whoever writes there is done."""

    def __init__(self, number: int, memory: Image, say: Say) -> None:
        self.number = number
        self._memory = memory
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._used = threading.Lock()
        self._leaving = self._left = False

    @contextmanager
    def writing(self) -> Iterator[Image]:
        """Give the memory to a thread, that keeps it until it is done, whoever has left."""
        try:
            with self._used:
                if self._leaving:
                    raise Left
                yield self._memory
        finally:
            if self._leaving:
                with suppress(RuntimeError):  # the loop has ended, and so does all of this
                    self._loop.call_soon_threadsafe(self.leave)

    def leave(self) -> None:
        """Give it back, now or when the thread is done; to be called on the loop."""
        self._leaving = True
        if not self._left and self._used.acquire(blocking=False):
            self._used.release()
            self._left = True
            self._say(wire.Leave(self.number))


class _Admitted(AbstractAsyncContextManager[Place]):
    """Asks for a place, and leaves it."""

    def __init__(self, core: "RemoteCore", deadline: float, flow: Flow) -> None:
        self._core = core
        self._asked = deadline, flow
        self._place: RemotePlace | None = None

    async def __aenter__(self) -> Place:
        self._place = await self._core.place(*self._asked)
        return self._place

    async def __aexit__(self, *_: object) -> None:
        assert self._place
        self._place.leave()


class RemoteCore:
    """A `Core` whose engine is in another process."""

    def __init__(
        self,
        asking: Asking,
        memory: Memory,
        info: ModelInfo,
        parallel: int,
        clock: Callable[[], float],
    ) -> None:
        self.info = info
        self.clock = clock
        self.parallel = parallel
        self._asking = asking
        self._memory = memory
        self._lent = RemoteRoom(asking)

    @property
    def room(self) -> Lender:
        """Give what lends pixels to big pictures."""
        return self._lent

    async def check(self, flow: Flow = ANYBODY) -> None:
        """Raise `Overloaded` if there is no place; cheap enough to ask before a body is read."""
        if not self._asking.roomy:
            await self._asking.ask(wire.Check(self._asking.number(), *map(wire.name, flow)))

    def admit(self, deadline: float, flow: Flow = ANYBODY) -> AbstractAsyncContextManager[Place]:
        """Hold a place while a request runs; raise `Overloaded` or `TooLate` instead."""
        return _Admitted(self, deadline, flow)

    async def place(self, deadline: float, flow: Flow) -> RemotePlace:
        """Ask for a place."""
        number = self._asking.number()
        reply = await self._asking.ask(wire.Admit(number, deadline, *map(wire.name, flow)))
        slot = cast(wire.Placed, reply).slot
        return RemotePlace(number, self._memory[slot], self._asking.say)

    async def look(self, place: Place, prepared: Prepared, wanted: Wanted) -> Seen:
        """Have what is in the place's memory looked at."""
        assert isinstance(place, RemotePlace)
        options = wanted.options
        look = wire.Look(
            place.number,
            prepared.fit.width,
            prepared.fit.height,
            options.confidence,
            options.iou,
            options.max_detections,
            None if options.classes is None else list(options.classes),
            options.agnostic_nms,
            wanted.below,
            prepared.decode_s,
            prepared.preprocess_s,
            wanted.counts,
        )
        found = cast(wire.Found, await self._asking.ask(look))
        nearly = None if found.nearly is None else found.nearly.read()
        times = found.queued_s, found.computed, found.postprocess_s
        return Seen(found.found.read(), nearly, *times)


class RemoteRoom:
    """Lends what all fronts share for big pictures."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self._lent: dict[int, list[int]] = {}  # the numbers under which so much was lent

    async def take(self, amount: int) -> None:
        """Return when there is room for so much; it is taken then."""
        number = self._asking.number()
        await self._asking.ask(wire.Room(number, amount))
        self._lent.setdefault(amount, []).append(number)

    def give(self, amount: int) -> None:
        """Give back what was taken."""
        numbers = self._lent[amount]
        self._asking.say(wire.Leave(numbers.pop()))
        if not numbers:
            del self._lent[amount]


class RemoteCounting(Counting):
    """Tells the engine's process what is counted: what a front knew alone would die with it."""

    def __init__(self, asking: Asking) -> None:
        self.active = 0
        self._asking = asking

    def answered(
        self,
        answer: Answer,
        _: tuple[str, ...],
        traffic: Traffic,
        waited_s: float,
        among: int = 1,
    ) -> None:
        """Count one answer sent in time."""
        timing = answer.timing
        stages = timing.decode, timing.preprocess, timing.queue, timing.inference
        decode, preprocess, queue, inference, postprocess, total = (
            max(0.0, seconds) for seconds in (*stages, timing.postprocess, timing.total)
        )
        times = decode, preprocess, queue, inference, postprocess, total
        found = wire.Objects.of(answer.detections)
        self._asking.say(wire.Answered(traffic, times, max(0.0, waited_s), found, among))

    def refused(self, code: str, traffic: Traffic, images: int = 1, among: int = 1) -> None:
        """Count pictures that got no detections."""
        self._asking.say(wire.Denied(code, traffic, images, among))

    def missed(self, miss: Miss, images: int = 1) -> None:
        """Count pictures whose deadline was missed, by where."""
        self._asking.say(wire.Missed(miss, images))

    def served(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request of HTTP."""
        self._asking.say(wire.Served(method[:32], route, status, seconds))

    def cut(self, why: Cut) -> None:
        """Count one connection that was ended."""
        self._asking.say(wire.Cut(why))


class RemoteShadow(Shadow):
    """Draws which pictures are shown; another process shows them."""

    asking: Asking

    async def offer(self, drawn: Drawn) -> None:
        """Hand pictures that were answered over."""
        for copy in shuffled(drawn.shown):
            await self._hand_over(copy)

    async def _hand_over(self, copy: Copy) -> None:
        assert copy.answer
        if copy.answer.nearly is None:
            self._skip(copy, Outcome.SKIPPED_SIZE)
            return
        whole = isinstance(copy.picture, bytes)
        picture = copy.encoded() if whole else await asyncio.to_thread(copy.encoded)
        found = copy.found((), 0)
        nearly = wire.Objects.of(copy.answer.nearly)
        compute_s = max(0.0, found.compute_s)
        offer = wire.Offer(
            self.asking.number(), copy.revision, picture, copy.as_file, nearly, compute_s
        )
        try:
            await self.asking.ask(offer)  # until it was taken its bytes are held here
        finally:
            self._held.discard(copy)

    def skipped(self, revision: str, why: Outcome, times: int = 1) -> None:
        """Count pictures that are not shown to a revision."""
        self.asking.say(wire.Skipped(revision, why, times))


@dataclass(slots=True, eq=False, kw_only=True)
class FrontServing(Serving):
    """A front's part of the server."""

    asking: Asking
    state: wire.State = field(default_factory=wire.State)

    def hear(self, state: wire.State) -> None:
        """Hear what the whole server is now."""
        self.state, self.draining, self.asking.roomy = state, state.draining, state.roomy

    def status(self) -> Status:
        """Name the state of the whole server."""
        return cast(Status, self.state.status)

    async def spend(self, client: Client, images: int = 1, *, paid: int = 0) -> None:
        """Count images against a client's quota, if it has one; raise `OverQuota`."""
        if (per_second := self.quota_of(client)) > 0:
            number, name = self.asking.number(), wire.name(client.name)
            await self.asking.ask(wire.Spend(number, name, per_second, images, paid))

    @asynccontextmanager
    async def stream_of(self, client: str) -> AsyncIterator[None]:
        """Hold a place for a stream; raise `Overloaded` if there is none."""
        number = self.asking.number()
        await self.asking.ask(wire.Stream(number, wire.name(client)))
        try:
            yield
        finally:
            self.asking.say(wire.Leave(number))


class AsksElsewhere:
    """Passes on what detects nothing to the process that knows all of the server."""

    def __init__(self, app: ASGIApp, asking: Asking) -> None:
        self._inner = app
        self._asking = asking

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that detects; pass on any other."""
        if scope["type"] != "http" or detects(scope["path"]):
            await self._inner(scope, receive, send)
            return
        asked = wire.Ask(
            self._asking.number(),
            scope["method"],
            scope["path"],
            scope["query_string"],
            _headers(scope["headers"]),
            scope["client"],
            CROWDED in scope.get("state", ()),
        )
        try:
            told = cast(wire.Told, await self._asking.ask(asked))
        except Refusal as error:
            await refused(error, scope["path"])(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": told.status, "headers": told.headers})
        await send({"type": "http.response.body", "body": told.body})


def _headers(headers: Sequence[tuple[bytes, bytes]]) -> list[wire.Header]:
    return [(bytes(name), bytes(value)) for name, value in headers]
