"""`/v1/stream`: frames of a camera in, boxes out, over one WebSocket.

The newest frame wins: while one is looked at, those that follow replace each other, so that a
camera faster than the server is answered about now and never about a growing past.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import APIRouter, Query, WebSocket

from yoloserve.access.credentials import Access
from yoloserve.detections.postprocess import Options
from yoloserve.detector import Answer
from yoloserve.errors import ForeignOrigin, Overloaded, Refusal, Unauthorized
from yoloserve.http.callers import Caller, Deadline
from yoloserve.http.dependencies import LONGEST_DEADLINE_MS, Asked, Named
from yoloserve.http.options import OPTIONS, refuse_unknown_query
from yoloserve.http.schemas import stream_json
from yoloserve.http.serving import Serving, serving_of
from yoloserve.origins import may_stream
from yoloserve.scheduling.connections import TIMEOUT, Cut

router = APIRouter()

# Codes of RFC 6455 and its registry.
UNSUPPORTED_DATA, POLICY_VIOLATION, SERVICE_RESTART = 1003, 1008, 1012
LONGEST_REASON = 123  # bytes, of a close frame
ASK_AGAIN_S = 5.0  # how soon a revoked key or token ends a stream


@router.websocket("/v1/stream")
async def stream(
    socket: WebSocket,
    caller: Named,
    options: Asked,
    deadline_ms: Annotated[float | None, Query(gt=0, le=LONGEST_DEADLINE_MS)] = None,
    camera_id: Annotated[str, Query(max_length=128)] = "",
) -> None:
    """Answer a camera's frames until it leaves.

    The deadline and the camera are parameters too: a browser cannot set headers here.
    """
    serving = serving_of(socket.app)
    _refuse_foreign_origin(socket, serving)
    refuse_unknown_query(socket.scope["query_string"], OPTIONS | {"deadline_ms", "camera_id"})
    serving.refuse_if_blind()
    if camera_id:
        caller = caller.with_camera(camera_id)
    asked_s = caller.asked_s if deadline_ms is None else deadline_ms / 1000
    deadline_s = serving.detector.deadline_s if asked_s is None else asked_s
    async with serving.stream_of(caller.client.name):
        await socket.accept()
        await _Stream(socket, serving, caller, options, deadline_s).run()


def _refuse_foreign_origin(socket: WebSocket, serving: Serving) -> None:
    """Keep other sites' pages from using a visitor's credentials and network."""
    origin, origins = socket.headers.get("origin"), serving.settings.cors_origins or ()
    if not may_stream(origin, socket.headers.get("host"), origins, open_=serving.access is None):
        raise ForeignOrigin(
            f"a page of {origin} may not open a stream here: YOLOSERVE_CORS_ORIGINS "
            "(spec.access.corsOrigins) does not name it"
        )


@dataclass(frozen=True, slots=True)
class _Frame:
    number: int
    encoded: bytes
    arrived: float
    release: Callable[[], None]


@dataclass(frozen=True, slots=True)
class _End:
    """Why this side closes the socket."""

    code: int
    reason: str


class _Stream:
    """One socket: a reader that keeps the newest frame, and a worker that answers.

    Whoever ends it says why, and it is closed once all have stopped: nobody may send after that.
    """

    def __init__(
        self,
        socket: WebSocket,
        serving: Serving,
        caller: Caller,
        options: Options,
        deadline_s: float,
    ) -> None:
        self._socket = socket
        self._serving = serving
        self._detector = serving.detector
        self._metrics = serving.metrics
        self._caller = caller
        self._options = options
        self._deadline_s = deadline_s
        self._newest: _Frame | None = None
        self._came = asyncio.Event()
        self._skipped = 0

    async def run(self) -> None:
        """Read and answer until either ends; what waits for a camera that left is given up."""
        tasks = {asyncio.create_task(self._read()), asyncio.create_task(self._answer())}
        if access := self._serving.access:
            tasks.add(asyncio.create_task(self._ask_again(access)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._drop_newest()
        ends = [task.result() for task in done]
        if (end := ends[0]) and None not in ends:
            await self._socket.close(end.code, end.reason)

    async def _read(self) -> _End | None:
        """Keep the newest frame; None: the camera has left."""
        number, idle_s = 0, self._serving.settings.stream_idle_seconds or None
        while True:
            try:
                async with asyncio.timeout(idle_s):  # there are not many places
                    message = await self._socket.receive()
            except TimeoutError:
                self._metrics.cut(Cut.STREAM_IDLE)
                return _End(TIMEOUT, f"no frame came for {idle_s:g} s")
            if message["type"] != "websocket.receive":
                return None
            encoded = message.get("bytes")
            if encoded is None:
                return _End(UNSUPPORTED_DATA, "send each frame as a binary message")
            if self._drop_newest():
                self._skipped += 1
            try:
                release = self._serving.bodies.keep(encoded)
            except Overloaded:
                self._skipped += 1
            else:
                self._newest = _Frame(number, encoded, self._detector.clock(), release)
                self._came.set()
            number += 1

    async def _ask_again(self, access: Access) -> _End:
        """Ask now and then whether it may still be here; its quota may be another, too."""
        while True:
            await asyncio.sleep(ASK_AGAIN_S)
            try:
                client = await access.client(self._socket.headers)
            except Unauthorized as error:
                return self._turned_out(str(error))
            except Refusal:  # nobody can say
                continue
            self._caller = replace(self._caller, client=client)

    def _turned_out(self, why: str) -> _End:
        self._metrics.cut(Cut.STREAM_UNAUTHORIZED)
        reason = why.encode()[:LONGEST_REASON].decode(errors="ignore")
        return _End(POLICY_VIOLATION, reason)

    def _drop_newest(self) -> bool:
        if self._newest is None:
            return False
        self._newest.release()
        self._newest = None
        return True

    async def _answer(self) -> _End:
        while True:
            await self._came.wait()
            self._came.clear()
            if (frame := self._newest) is None:
                continue
            self._newest = None
            try:
                if time.time() > self._caller.client.expires:
                    return self._turned_out("the token has expired")
                skipped, self._skipped = self._skipped, 0
                with self._serving.shadow.drawn([frame.encoded], self._options) as drawn:
                    answer = await self._look_at(frame, drawn.below[0])
                    shows = drawn.answered([answer])
            finally:
                frame.release()
            objects = 0 if isinstance(answer, Refusal) else len(answer.detections)
            message = await self._detector.write(
                objects, stream_json, frame.number, skipped, answer, self._detector.info
            )
            await self._socket.send_text(message.decode())
            if shows:
                await self._serving.shadow.offer(drawn)
            if self._serving.draining:
                return _End(SERVICE_RESTART, "connect again: this server is leaving")

    async def _look_at(self, frame: _Frame, below: float) -> Answer | Refusal:
        own = frame.arrived + self._detector.deadline_s
        deadline = Deadline.asked(frame.arrived + self._deadline_s, own)
        try:
            self._serving.refuse_if_blind()
            await self._serving.spend(self._caller.client)
            answer = await self._detector.detect(
                frame.encoded,
                self._options,
                deadline=deadline.at,
                flow=self._caller.flow,
                below=below,
            )
        except Refusal as error:
            self._metrics.refusal(error, self._caller.traffic, hurried=deadline.hurried)
            return error
        except asyncio.CancelledError:  # the camera has left, or is sent away
            self._metrics.refused("canceled", self._caller.traffic)
            raise
        except Exception:  # handed on, to the log; it ends the stream
            self._metrics.refused("internal", self._caller.traffic)
            raise
        waited_s = self._detector.clock() - frame.arrived
        classes = self._detector.info.classes
        self._metrics.answered(answer, classes, self._caller.traffic, waited_s)
        return answer
