"""What the engine's process does for a front: answers it, and takes back what a dead one had."""

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Scope

from yoloserve.core import ANYWHERE, Prepared, Wanted
from yoloserve.detections.postprocess import Detections, Options
from yoloserve.detector import Answer, Timing
from yoloserve.errors import Miss, Overloaded, Refusal, TooLate
from yoloserve.fronts import wire
from yoloserve.fronts.slots import Slots
from yoloserve.http.protocol import CROWDED
from yoloserve.http.replies import CODES
from yoloserve.http.serving import EngineServing
from yoloserve.images.letterbox import Frame
from yoloserve.scheduling.admission import Flow
from yoloserve.scheduling.connections import Cut
from yoloserve.shadow.copies import Copy
from yoloserve.shadow.tally import Outcome
from yoloserve.telemetry.traffic import Traffic

log = logging.getLogger(__name__)


# A front has no model, nor what opens one.
MODELS_OWN = {"model_username", "model_password", "model_token"}
MOST_AT_ONCE = 4096  # pages and rooms that a front waits for


class Lie(Exception):
    """A front said what no front of ours says."""


@dataclass(slots=True, eq=False)
class _Seat:
    """A place, with its slot of the memory, that a front holds."""

    admitted: AbstractContextManager[None]
    slot: int
    flow: Flow
    deadline: float
    looking: "asyncio.Task[None] | None" = None


def welcome(serving: EngineServing, slots: Slots, *, fronts: int, threads: int) -> wire.Welcome:
    """Say what a front has to know of the server. threads: of it, for pictures."""
    return wire.Welcome(
        serving.settings.model_dump_json(exclude=MODELS_OWN).encode(),
        msgspec.json.encode(serving.core.info),
        fronts,
        threads,
        serving.core.parallel,
        slots.count,
        slots.slot_bytes,
    )


def routes_of(app: Starlette) -> frozenset[str]:
    """List what a request may have been routed to; nowhere, too."""
    routes = (each for each in app.routes if isinstance(each, Route | WebSocketRoute))
    return frozenset({each.path for each in routes} | {""})


class Session:
    """One front, from its first word to its last: what it asks, and what it holds meanwhile."""

    def __init__(
        self, serving: EngineServing, app: ASGIApp, slots: Slots, routes: frozenset[str]
    ) -> None:
        """Begin. routes: the paths that a request may have been routed to."""
        self._serving = serving
        self._core = serving.core
        self._app = app
        self._slots = slots
        self._routes = routes
        self._seats: dict[int, _Seat] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._streams: dict[int, AbstractContextManager[None]] = {}
        self._rooms: dict[int, int] = {}
        self.gauges = wire.Gauges()
        self.send: Callable[[Any], None] = lambda _: None
        self.filled: Callable[[], None] = lambda: None  # is told of each place that was taken
        self._does: dict[type, Callable[[Any], None]] = {
            wire.Check: self._check,
            wire.Admit: self._admit,
            wire.Look: self._look,
            wire.Leave: self._leave,
            wire.Spend: self._spend,
            wire.Stream: self._stream,
            wire.Room: self._room,
            wire.Ask: self._ask,
            wire.Answered: self._answered,
            wire.Denied: self._denied,
            wire.Missed: lambda said: serving.metrics.missed(Miss(said.where), said.images),
            wire.Served: self._served,
            wire.Cut: lambda said: serving.metrics.cut(Cut(said.why)),
            wire.Gauges: lambda said: setattr(self, "gauges", said),
            wire.Offer: self._offer,
            wire.Skipped: self._skipped,
        }

    def received(self, said: wire.Asked) -> None:
        """Do what a front asks; raises `Lie`, or `ValueError`, for what none of ours asks."""
        self._does[type(said)](said)

    def end(self) -> None:
        """Give back all that it held: it is gone, and its pictures with it."""
        for task in self._tasks.values():
            task.cancel()
        for number in list(self._seats):
            self._give_seat(self._seats.pop(number))
        while self._streams:
            self._streams.popitem()[1].__exit__(None, None, None)
        while self._rooms:
            self._core.room.give(self._rooms.popitem()[1])
        self.gauges = wire.Gauges(received=self.gauges.received)

    def _new(self, number: int) -> int:
        if any(number in held for held in (self._seats, self._tasks, self._streams, self._rooms)):
            raise Lie(f"the number {number} is in use")
        return number

    def _refuse(self, number: int, error: Refusal) -> None:
        miss = error.miss if isinstance(error, TooLate) else None
        self.send(wire.Refused(number, error.code, str(error), miss, error.retry_after_s))

    # places

    def _check(self, said: wire.Check) -> None:
        try:
            self._serving.refuse_if_blind()
            self._core.admission.check(Flow(said.client, said.camera))
        except Refusal as error:
            self._refuse(said.id, error)
        else:
            self.send(wire.Done(said.id))

    def _admit(self, said: wire.Admit) -> None:
        number, flow = self._new(said.id), Flow(said.client, said.camera)
        if math.isnan(said.deadline):
            raise Lie("a deadline that is no number")
        admitted = self._core.admission.admit(said.deadline, flow)
        try:
            self._serving.refuse_if_blind()
            admitted.__enter__()
        except Refusal as error:
            self._refuse(number, error)
            return
        slot = self._slots.take()
        if slot is None:  # there are as many as places; a place that was just left may have one yet
            admitted.__exit__(None, None, None)
            self._refuse(number, Overloaded("no memory for another picture"))
            return
        self._seats[number] = _Seat(admitted, slot, flow, said.deadline)
        self.send(wire.Placed(number, slot))
        self.filled()

    def _look(self, said: wire.Look) -> None:
        seat = self._seats.get(said.id)
        if seat is None or seat.looking is not None:
            raise Lie("a picture without a place, or a second one in it")
        # By its size alone: neither the shape of a tensor nor where its picture lies is believed.
        size = self._core.info.input_size
        frame = Frame.over(said.width, said.height, size, self._slots.memory[seat.slot])
        classes = None if said.classes is None else frozenset(said.classes)
        wanted = Wanted(
            Options(said.confidence, said.iou, said.max_detections, classes, said.agnostic_nms),
            seat.deadline,
            seat.flow,
            said.below,
            counts=said.counts,
        )
        prepared = Prepared(frame.tensor, frame.fit, said.decode_s, said.preprocess_s)
        seat.looking = asyncio.create_task(self._seen(said.id, prepared, wanted))

    async def _seen(self, number: int, prepared: Prepared, wanted: Wanted) -> None:
        try:
            seen = await self._core.look(ANYWHERE, prepared, wanted)
        except Refusal as error:
            self._refuse(number, error)
        except Exception as error:  # handed on, to who asked
            log.exception("the engine failed")
            self.send(wire.Failed(number, f"{type(error).__name__}: {error}"))
        else:
            nearly = None if seen.nearly is None else wire.Objects.of(seen.nearly)
            found = wire.Objects.of(seen.found)
            self.send(
                wire.Found(number, found, nearly, seen.queued_s, seen.computed, seen.postprocess_s)
            )

    def _leave(self, said: wire.Leave) -> None:
        """Let go of whatever has this number; of what was refused there is none."""
        number = said.id
        if seat := self._seats.pop(number, None):
            self._give_seat(seat)
        elif stream := self._streams.pop(number, None):
            stream.__exit__(None, None, None)
        elif pixels := self._rooms.pop(number, 0):  # the task that lent it may not be gone yet
            self._core.room.give(pixels)
        elif task := self._tasks.pop(number, None):
            task.cancel()

    def _give_seat(self, seat: _Seat) -> None:
        """Give a place and its slot back.

        The engine may still be reading the slot for a batch in which nobody waits for this picture
        any more; whatever the next owner writes there meanwhile is thrown away with it.
        """
        if seat.looking:
            seat.looking.cancel()
        seat.admitted.__exit__(None, None, None)
        self._slots.give(seat.slot)

    def _spend(self, said: wire.Spend) -> None:
        try:
            self._serving.quotas.take(said.client, said.per_second, said.images, paid=said.paid)
        except Refusal as error:
            self._refuse(said.id, error)
        else:
            self.send(wire.Done(said.id))

    def _stream(self, said: wire.Stream) -> None:
        number, held = self._new(said.id), self._serving.streams.hold(said.client)
        try:
            held.__enter__()
        except Refusal as error:
            self._refuse(number, error)
        else:
            self._streams[number] = held
            self.send(wire.Done(number))

    def _room(self, said: wire.Room) -> None:
        if not 0 < said.pixels <= self._serving.settings.max_pixels:
            raise Lie(f"room for {said.pixels} pixels")
        self._begin(self._new(said.id), self._lend(said))

    async def _lend(self, said: wire.Room) -> None:
        await self._core.room.take(said.pixels)
        self._rooms[said.id] = said.pixels
        self.send(wire.Done(said.id))

    def _begin(self, number: int, work: Coroutine[Any, Any, None]) -> None:
        """Run what takes its time, until it is left."""
        if len(self._tasks) >= MOST_AT_ONCE:
            work.close()
            self._refuse(number, Overloaded(f"{MOST_AT_ONCE} requests are in progress already"))
            return
        task = self._tasks[number] = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._tasks.pop(number, None))

    # pages

    def _ask(self, said: wire.Ask) -> None:
        self._begin(self._new(said.id), self._tell(said))

    async def _tell(self, said: wire.Ask) -> None:
        """Answer a request as one that came here; it has no body that matters."""
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": said.method,
            "scheme": "http",
            "path": said.path,
            "raw_path": said.path.encode(),
            "query_string": said.query,
            "root_path": "",
            "headers": said.headers,
            "client": said.client,
            "server": None,
            "state": {CROWDED: True} if said.crowded else {},
        }
        status, headers, body = 500, list[wire.Header](), bytearray()

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [(bytes(name), bytes(value)) for name, value in message["headers"]]
            elif message["type"] == "http.response.body":
                body.extend(message.get("body", b""))

        try:
            await self._app(scope, receive, send)
        except Exception:  # it was answered: `AnswersBugs`
            log.exception("the server failed")
        self.send(wire.Told(said.id, status, headers, bytes(body)))

    # what is counted

    def _answered(self, said: wire.Answered) -> None:
        found, classes = self._objects(said.found), self._core.info.classes
        answer = Answer(found, 0, 0, Timing(*said.timing), 0, 0, 0)
        traffic, metrics = Traffic(said.traffic), self._serving.metrics
        metrics.answered(answer, classes, traffic, said.waited, said.among)

    def _denied(self, said: wire.Denied) -> None:
        if said.code not in CODES:
            raise Lie(f"an outcome {said.code!r}")
        traffic, metrics = Traffic(said.traffic), self._serving.metrics
        metrics.refused(said.code, traffic, said.images, said.among)

    def _served(self, said: wire.Served) -> None:
        if said.route not in self._routes or not 0 <= said.status <= 999:
            raise Lie(f"a route {said.route!r} or a status {said.status}")
        self._serving.metrics.served(said.method, said.route, said.status, said.seconds)

    def _skipped(self, said: wire.Skipped) -> None:
        why = Outcome(said.why)
        if self._serving.shadow.asks(said.revision):  # it may have been another a moment ago
            self._serving.shadow.skipped(said.revision, why, said.times)

    def _offer(self, said: wire.Offer) -> None:
        nearly = self._objects(said.nearly)
        copy = Copy(said.picture, len(said.picture), said.revision, said.as_file)
        timing = Timing(0, 0, 0, said.compute_s, 0, 0)
        nothing = Detections(
            np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64)
        )
        copy.answer = Answer(nothing, 0, 0, timing, 0, 0, 0, nearly)
        self._serving.shadow.take(copy)
        self.send(wire.Done(said.id))

    def _objects(self, said: wire.Objects) -> Detections:
        """Read objects; raises `Lie` for classes that there are not."""
        found = said.read()
        classes = found.classes.tolist()
        if classes and not 0 <= min(classes) <= max(classes) < len(self._core.info.classes):
            raise Lie("objects of classes that there are not")
        return found
