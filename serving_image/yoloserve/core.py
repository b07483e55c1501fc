"""The engine and all who wait for it: who may come in, whose turn it is, and what is seen."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, Self, cast

from yoloserve.detections.postprocess import (
    Detections,
    Head,
    Options,
    Output,
    Unfinished,
    begin,
    require_named,
    unnamed,
)
from yoloserve.detections.surest import Surest
from yoloserve.engine.starting import PROBE, Engine, ModelInfo
from yoloserve.images.decoding import decode
from yoloserve.images.letterbox import Image, Letterbox, blank, letterbox
from yoloserve.scheduling.admission import (
    ANYBODY,
    MOST_WAITING,
    Admission,
    Flow,
    slowest,
    waiting_limit,
)
from yoloserve.scheduling.batching import Batcher, OnBatch, ServiceTime
from yoloserve.scheduling.concurrency import Lender, Room, Threads, available_cpus
from yoloserve.settings import Settings

_Begun = tuple[Detections | Unfinished, Detections | None]
WARM_UP_RUNS = 2
PROBE_PIXELS = 2**24  # more than it has
ROOMY_PART = 4  # of the places: with fewer taken, whoever comes has one
LONG_PART = 4  # of the places: who wants all boxes may have one of so many
LARGEST_TENSOR = 640 * 640 * 3  # the unit of work: a network's time goes by pixels


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture as the network takes it."""

    tensor: Image
    fit: Letterbox
    decode_s: float
    preprocess_s: float


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be found in a picture, for whom, and until when."""

    options: Options
    deadline: float  # seconds on the core's clock
    flow: Flow = ANYBODY
    below: float = 0  # how far under the threshold to look for what is nearly there
    asked: bool = True  # by a caller, who waits
    counts: bool = True  # what preparing it took tells of what preparing takes


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found, and how long that took."""

    found: Detections
    nearly: Detections | None  # with those a little below the threshold, where wanted
    queued_s: float
    computed: float  # when the network was done, on the core's clock
    postprocess_s: float


class Place(Protocol):
    """What who was let in has until it leaves."""

    def writing(self) -> AbstractContextManager[Image | None]:
        """Give where its tensor is to be made, as a row of bytes; None: anywhere. On a thread."""


class Core(Protocol):
    """What the path of requests needs of the engine and of all other requests."""

    info: ModelInfo
    clock: Callable[[], float]

    @property
    def room(self) -> Lender:
        """Give what lends pixels to big pictures."""

    @property
    def parallel(self) -> int:
        """Count the callers that can be served at the same moment."""

    async def check(self, flow: Flow) -> None:
        """Raise `Overloaded` if there is no place; cheap enough to ask before a body is read."""

    def admit(self, deadline: float, flow: Flow) -> AbstractAsyncContextManager[Place]:
        """Hold a place while a request runs; raise `Overloaded` or `TooLate` instead."""

    async def look(self, place: Place, prepared: Prepared, wanted: Wanted) -> Seen:
        """Run a picture with whatever else waits; raise `TooLate` if it cannot be in time."""


class Anywhere:
    """A place with no memory of its own."""

    def writing(self) -> AbstractContextManager[None]:
        """Give none."""
        return nullcontext()


ANYWHERE = Anywhere()


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a lane does for one picture: the network, and what is made of its numbers."""

    tensor: Image
    finish: Callable[[Output | Surest], Any]
    asked: bool = True  # by a caller, who waits


@dataclass(frozen=True, slots=True)
class _Looked:
    """What came of it; whatever went wrong in making it is its caller's alone."""

    result: Any
    error: Exception | None
    network_done: float  # on the core's clock
    finish_s: float
    asked: bool


class _Admitted(AbstractAsyncContextManager[Place]):
    """A place in this process."""

    __slots__ = ("_place",)

    def __init__(self, place: AbstractContextManager[None]) -> None:
        self._place = place

    async def __aenter__(self) -> Place:
        self._place.__enter__()
        return ANYWHERE

    async def __aexit__(self, *error: Any) -> bool | None:
        return self._place.__exit__(*error)


class EngineCore:
    """An engine with a queue before it. Of one event loop."""

    def __init__(
        self,
        engine: Engine,
        threads: Threads,
        *,
        max_pixels: int,
        deadline_s: float,
        clock: Callable[[], float] = time.perf_counter,
        on_batch: OnBatch = lambda _size, _seconds: None,
    ) -> None:
        self.info = engine.info
        self.head = engine.head
        self.clock = clock
        self.room = Room(max_pixels)
        self.threads = threads
        self.preparing = ServiceTime()  # one image on one thread
        self.preparers = threads.pool  # such threads, wherever they are
        self._deadline_s = deadline_s
        self._engine = engine
        self.batcher = Batcher[_Asked, _Looked](
            lambda lane, batch: threads.run_on(lane, self._run, lane, batch),
            lanes=engine.lanes,
            max_batch=engine.max_batch,
            clock=clock,
            kind=lambda each: each.tensor.shape,
            work=lambda each: each.tensor.size / LARGEST_TENSOR,
            usual_s=_usual,
            on_batch=on_batch,
        )
        self.admission = Admission(self._most_inside, clock)
        # What takes long after the network has turns, deadlines and places of its own, and is no
        # part of what a second gives: else one client that wants all boxes turns away all others.
        self._long = Batcher[Unfinished, Detections](
            self._finish_long, lanes=1, max_batch=1, clock=clock, work=lambda rest: rest.work
        )
        self.long_admission = Admission(lambda: max(1, self._most_inside() // LONG_PART), clock)

    @classmethod
    def around(
        cls, engine: Engine, settings: Settings, on_batch: OnBatch = lambda _size, _seconds: None
    ) -> Self:
        """Put a queue before an engine, as the settings say."""
        return cls(
            engine,
            Threads(pool=settings.threads or available_cpus(), lanes=engine.lanes),
            max_pixels=settings.max_pixels,
            deadline_s=settings.deadline_ms / 1000,
            on_batch=on_batch,
        )

    @property
    def parallel(self) -> int:
        """Count the callers that can be served at the same moment."""
        return self.batcher.parallel

    @property
    def most(self) -> int:
        """Count the callers that can ever be inside."""
        return self.batcher.parallel + MOST_WAITING

    @property
    def busy(self) -> bool:
        """Say whether who comes next may have to wait: then nothing is done but what is asked."""
        return self.batcher.waiting > 0 or 2 * self.admission.inside > self._most_inside()

    @property
    def capacity_per_s(self) -> float:
        """Estimate how many answers a second there can be: what the slowest stage gives."""
        return slowest(
            self.batcher.capacity_per_s,
            (self.preparers, self.preparing.predict(1)),
        )

    @property
    def roomy(self) -> bool:
        """Say whether most places are free."""
        return ROOMY_PART * self.admission.inside < self._most_inside()

    def _most_inside(self) -> int:
        """Count those who can be served at the same moment, and those who may wait for it."""
        return self.batcher.parallel + waiting_limit(self.capacity_per_s, self._deadline_s)

    async def check(self, flow: Flow = ANYBODY) -> None:
        """Raise `Overloaded` if there is no place; cheap enough to ask before a body is read."""
        self.admission.check(flow)

    def admit(self, deadline: float, flow: Flow = ANYBODY) -> AbstractAsyncContextManager[Place]:
        """Hold a place while a request runs; raise `Overloaded` or `TooLate` instead."""
        return _Admitted(self.admission.admit(deadline, flow))

    async def look(self, _: Place, prepared: Prepared, wanted: Wanted) -> Seen:
        """Run a picture with whatever else waits; raise `TooLate` if it cannot be in time."""
        finish = partial(_begin, head=self.head, fit=prepared.fit, wanted=wanted)
        asked = _Asked(prepared.tensor, finish, wanted.asked)
        ran = await self.batcher.submit(asked, wanted.deadline, wanted.flow)
        looked = ran.output
        begun, nearly = cast(_Begun, _result(looked))
        if wanted.asked and wanted.counts:
            self.preparing.observe(1, prepared.decode_s + prepared.preprocess_s)
        found, rest_s = await self._finished(begun, wanted)
        if self.head is Head.END_TO_END:  # other heads have a column for each name
            require_named(found, self.info.classes)
            nearly = None if nearly is None or unnamed(nearly, self.info.classes) else nearly
        return Seen(found, nearly, ran.queued_s, looked.network_done, looked.finish_s + rest_s)

    async def _finished(
        self, begun: Detections | Unfinished, wanted: Wanted
    ) -> tuple[Detections, float]:
        """Return what was found, and the seconds that the rest took: what is long waits apart."""
        if not isinstance(begun, Unfinished):
            return begun, 0.0
        place = (
            self.long_admission.admit(wanted.deadline, wanted.flow)
            if wanted.asked
            else nullcontext()
        )
        with place:
            rest = await self._long.submit(begun, wanted.deadline, wanted.flow)
        return rest.output, rest.ran_s

    async def _finish_long(self, _lane: int, rests: Sequence[Unfinished]) -> list[Detections]:
        return [await self.threads.run_long(rest.finished) for rest in rests]

    async def look_at_probe(self) -> Output:
        """Run the probe picture through the engine, in turn with everybody else."""
        image = decode(PROBE.read_bytes(), max_pixels=PROBE_PIXELS)
        tensor, _ = letterbox(image, self._engine.input_size)
        return await self.raw(tensor, Flow(camera="probe"))

    async def raw(self, tensor: Image, flow: Flow = ANYBODY) -> Output:
        """Run a tensor through the engine, in turn with everybody else; return its numbers."""
        ran = await self.batcher.submit(_Asked(tensor, _whole), math.inf, flow)
        return cast(Output, _result(ran.output))

    async def computed(self, tensor: Image) -> None:
        """Run a tensor through the engine and make nothing of it: how fast is that alone?"""
        await self.batcher.submit(_Asked(tensor, _nothing), math.inf)

    def _run(self, lane: int, batch: Sequence[_Asked]) -> list[_Looked]:
        """Run a batch and make of each output what was asked, on the lane's own thread.

        What has been through the network waits for nothing any more, and the event loop hears of a
        batch once.
        """
        outputs = self._engine.look(lane, [each.tensor for each in batch])
        done = self.clock()
        return [_finish(each, output, done) for each, output in zip(batch, outputs, strict=True)]

    async def warm_up(self) -> None:
        """Run every lane as it will run, until memory is allocated and the speed is known."""
        tensor = blank(self._engine.input_size)
        for batch in sorted({1, self._engine.max_batch}):
            for run in range(WARM_UP_RUNS):
                seconds = await asyncio.gather(
                    *(self._timed(lane, [tensor] * batch) for lane in range(self._engine.lanes))
                )
                if run:  # the first one allocates
                    for each in seconds:
                        self.batcher.learn([_Asked(tensor, _nothing)] * batch, each)

    async def _timed(self, lane: int, tensors: list[Image]) -> float:
        began = self.clock()
        await self.threads.run_on(lane, self._engine.look, lane, tensors)
        return self.clock() - began

    async def close(self) -> None:
        """Return when everybody inside has an answer, then end the threads."""
        await self.batcher.close()
        await self._long.close()
        self.threads.close()


def _finish(asked: _Asked, output: Output | Surest, network_done: float) -> _Looked:
    began = time.perf_counter()
    result, failed = None, None
    try:
        result = asked.finish(output)
    except Exception as error:  # handed on to its caller, and to no other of the batch
        failed = error
    return _Looked(result, failed, network_done, time.perf_counter() - began, asked.asked)


def _result(looked: _Looked) -> object:
    if looked.error is not None:
        raise looked.error
    return looked.result


def _usual(looked: Sequence[_Looked], seconds: float) -> float:
    """Leave out of a batch's time what was made for nobody who waits: it may take far longer."""
    return seconds - sum(each.finish_s for each in looked if not each.asked)


def _nothing(_: Output | Surest) -> None:
    """Make nothing of it."""


def _whole(output: Output | Surest) -> Output:
    return output.whole() if isinstance(output, Surest) else output


def _begin(output: Output | Surest, head: Head, fit: Letterbox, wanted: Wanted) -> _Begun:
    """Find what there is and, if that is wanted and takes no turns, what nearly is."""
    options, below = wanted.options, wanted.below
    nearly = begin(output, head, fit, options.lower(below)) if below else None
    if isinstance(nearly, Detections):
        # Greedy suppression goes from the surest box down: what is above the threshold is the same.
        return nearly[nearly.scores > options.confidence], nearly
    return begin(output, head, fit, options), None
