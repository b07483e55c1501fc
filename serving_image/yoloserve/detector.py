"""The request path on one page: bytes in, detections out, each stage timed. Knows no HTTP."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar, cast

from yoloserve.detections.annotate import annotate
from yoloserve.detections.postprocess import (
    Detections,
    Head,
    Options,
    Output,
    Unfinished,
    begin,
)
from yoloserve.detections.surest import Surest
from yoloserve.engine.starting import PROBE, Engine
from yoloserve.errors import Miss, Overloaded, Refusal, TooLate
from yoloserve.images.decoding import Header, decode, decode_for, decode_whole, require_size
from yoloserve.images.letterbox import Frame, Image, InputSize, Letterbox, blank, letterbox
from yoloserve.images.pixels import Pixels
from yoloserve.scheduling.admission import ANYBODY, Admission, Flow, slowest, waiting_limit
from yoloserve.scheduling.batching import Batcher, OnBatch, ServiceTime
from yoloserve.scheduling.concurrency import Room, Threads, available_cpus
from yoloserve.settings import PrecisionName, Settings

R = TypeVar("R")
Source = bytes | Pixels  # an encoded image, or what makes one, on a thread
Decode = Callable[..., tuple[Image, int]]
_Begun = tuple[Detections | Unfinished, Detections | None]
WARM_UP_RUNS = 2
PROBE_PIXELS = 2**24  # more than it has

# Decoded, a pixel takes three bytes, and several times that on the way. Pictures above this (a 4K
# frame has 8.3 million) share the memory that the largest one may take, however many they are.
BIG_PIXELS = 9_000_000
LONG_PART = 4  # of the places: who wants all boxes may have one of so many
MANY_OBJECTS = 1000  # take two milliseconds to write
LARGEST_TENSOR = 640 * 640 * 3  # the unit of work: a network's time goes by pixels


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one answer went, in seconds."""

    decode: float
    preprocess: float
    queue: float
    inference: float
    postprocess: float
    total: float  # with the waits for a thread, which no stage counts

    @property
    def compute(self) -> float:
        """Sum up what was done for this answer, whoever else was there."""
        return self.decode + self.preprocess + self.inference + self.postprocess

    def as_dict(self) -> dict[str, float]:
        """Name the stages."""
        return {stage: getattr(self, stage) for stage in self.__slots__}


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found in one image, in its own pixels."""

    detections: Detections
    width: int
    height: int
    timing: Timing
    began: float  # on the detector's clock, as the next two
    prepared: float
    computed: float
    nearly: Detections | None = None  # with those a little below the threshold, where wanted

    def stages(self) -> Iterator[tuple[str, float, float]]:
        """Say of each stage when it began and ended, on the detector's clock."""
        timing = self.timing
        decoded, ended = self.prepared - timing.preprocess, self.began + timing.total
        yield "decode", decoded - timing.decode, decoded
        yield "preprocess", decoded, self.prepared
        yield "queue", self.prepared, self.prepared + timing.queue
        yield "inference", self.computed - timing.inference, self.computed
        yield "postprocess", ended - timing.postprocess, ended


@dataclass(frozen=True, slots=True)
class _Prepared:
    tensor: Image
    fit: Letterbox
    decode_s: float
    preprocess_s: float


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
    network_done: float  # on the detector's clock
    finish_s: float
    asked: bool


class Detector:
    """An engine with a queue before it."""

    def __init__(
        self,
        engine: Engine,
        threads: Threads,
        *,
        max_pixels: int,
        deadline_s: float,
        defaults: Options,
        clock: Callable[[], float] = time.perf_counter,
        on_batch: OnBatch = lambda _size, _seconds: None,
    ) -> None:
        self.info = engine.info
        self.clock = clock
        self.deadline_s = deadline_s
        self.defaults = defaults
        self._engine = engine
        exact = engine.info.precision is PrecisionName.FP32
        self._decode: Decode = decode_whole if exact else decode_for
        self._threads = threads
        self._max_pixels = max_pixels
        self._big = Room(max_pixels)
        self._preparing = ServiceTime()  # one image on one thread
        self.batcher = Batcher[_Asked, _Looked](
            lambda lane, batch: threads.run_on(lane, self._look, lane, batch),
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
        self._long_admission = Admission(lambda: max(1, self._most_inside() // LONG_PART), clock)

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
            defaults=Options(
                settings.confidence,
                settings.iou,
                settings.max_detections,
                agnostic_nms=settings.agnostic_nms,
            ),
            on_batch=on_batch,
        )

    async def detect(
        self,
        source: Source,
        options: Options,
        *,
        deadline: float,
        flow: Flow = ANYBODY,
        below: float = 0,
    ) -> Answer:
        """Find the objects in one image before `deadline` (seconds on `clock`).

        flow: whose image it is; flows take turns. below: how far under the threshold to look for
        what is `nearly` there; what is found is the same. Raises `Overloaded` before any work,
        `BadImage` for bytes nobody can decode, and `TooLate` in place of a late answer.
        """
        with self.admission.admit(deadline, flow):
            answer = await self._find(source, options, deadline, flow, below)
        self.require_in_time(deadline)
        return answer

    async def aside(self, encoded: bytes, options: Options, *, flow: Flow) -> Answer:
        """Find the objects in a picture for which nobody waits.

        It takes no place of those who ask, but turns with them; and what is looked for in it says
        nothing of the time that they need.
        """
        return await self._find(encoded, options, math.inf, flow, 0, asked=False)

    async def detect_each(
        self,
        sources: Sequence[Source],
        options: Options,
        *,
        deadline: float,
        flow: Flow = ANYBODY,
        below: Sequence[float] = (),
    ) -> list[Answer | Refusal]:
        """Find the objects in each of several images; what is refused is told in its place.

        below: as `detect` takes it, of each.

        As many at a time as the engine takes and one that is being decoded; fewer when the server
        is full: then the images of one request wait for each other, and not for a place.
        """
        waiting = deque(enumerate(zip(sources, below or [0] * len(sources), strict=True)))
        results: dict[int, Answer | Refusal] = {}
        working = workers = min(len(sources), self.batcher.parallel + 1)

        async def work() -> None:
            nonlocal working
            while waiting:
                number, (source, lower) = waiting.popleft()
                try:
                    results[number] = await self.detect(
                        source, options, deadline=deadline, flow=flow, below=lower
                    )
                except Overloaded as error:
                    if working > 1:
                        waiting.appendleft((number, (source, lower)))
                        break
                    results[number] = error
                except Refusal as error:
                    results[number] = error
            working -= 1

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(workers):
                    tasks.create_task(work())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [results[number] for number in range(len(sources))]

    async def off_loop(self, work: Callable[..., R], *args: object) -> R:
        """Run `work` that takes long in the threads for images."""
        return await self._threads.run(work, *args)

    async def write(self, objects: int, work: Callable[..., R], *args: object) -> R:
        """Run `work`, which writes down so many objects: off the loop if they are many."""
        return await self._threads.run_write(work, *args) if objects > MANY_OBJECTS else work(*args)

    async def picture(
        self,
        encoded: bytes,
        options: Options,
        *,
        deadline: float,
        flow: Flow = ANYBODY,
        below: float = 0,
    ) -> tuple[Answer, bytes]:
        """Find the objects, and draw them: also returns a JPEG of the image with their boxes."""
        with self.admission.admit(deadline, flow):
            answer = await self._find(encoded, options, deadline, flow, below)
            drawn = await self._run_with(
                answer.width * answer.height,
                self._unless_late,
                deadline,
                annotate,
                encoded,
                self._max_pixels,
                answer.detections,
                self.info.classes,
            )
        self.require_in_time(deadline)
        return answer, drawn

    async def drawn(self, encoded: bytes, draw: Callable[..., bytes], *args: object) -> bytes:
        """Have a picture that was answered before drawn upon, where pictures are decoded."""
        pixels = require_size(encoded, self._max_pixels).pixels
        return await self._run_with(pixels, draw, encoded, self._max_pixels, *args)

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

    def require_in_time(self, deadline: float) -> None:
        """Raise `TooLate` for an answer that is ready, and late."""
        if (late := self.clock() - deadline) > 0:
            raise TooLate(f"the answer was ready {late:.3f} s after its deadline", Miss.LATE)

    async def _find(
        self,
        source: Source,
        options: Options,
        deadline: float,
        flow: Flow,
        below: float,
        *,
        asked: bool = True,
    ) -> Answer:
        began = self.clock()
        # By its header, before anybody waits for it: raises `BadImage`.
        header = require_size(source, self._max_pixels) if isinstance(source, bytes) else None
        pixels = header.pixels if header else 0
        ready = await self._run_with(
            pixels,
            self._unless_late,
            deadline,
            _prepare,
            self._decode,
            source,
            header,
            self._engine.input_size,
        )
        prepared = self.clock()
        finish = partial(
            _begin, head=self._engine.head, fit=ready.fit, options=options, below=below
        )
        ran = await self.batcher.submit(_Asked(ready.tensor, finish, asked), deadline, flow)
        looked = ran.output
        begun, nearly = cast(_Begun, _result(looked))
        if asked and pixels <= BIG_PIXELS:  # the threads of the others are no part of the stage
            self._preparing.observe(1, ready.decode_s + ready.preprocess_s)
        found, rest_s = await self._finished(begun, deadline, flow, asked=asked)
        ended = self.clock()
        timing = Timing(
            decode=ready.decode_s,
            preprocess=ready.preprocess_s,
            queue=ran.queued_s,
            inference=looked.network_done - (prepared + ran.queued_s),
            postprocess=looked.finish_s + rest_s,
            total=ended - began,
        )
        size = ready.fit.width, ready.fit.height
        return Answer(found, *size, timing, began, prepared, looked.network_done, nearly)

    async def _finished(
        self, begun: Detections | Unfinished, deadline: float, flow: Flow, *, asked: bool
    ) -> tuple[Detections, float]:
        """Return what was found, and the seconds that the rest took: what is long waits apart."""
        if not isinstance(begun, Unfinished):
            return begun, 0.0
        place = self._long_admission.admit(deadline, flow) if asked else nullcontext()
        with place:
            rest = await self._long.submit(begun, deadline, flow)
        return rest.output, rest.ran_s

    @property
    def busy(self) -> bool:
        """Say whether who comes next may have to wait: then nothing is done but what is asked."""
        return self.batcher.waiting > 0 or 2 * self.admission.inside > self._most_inside()

    @property
    def capacity_per_s(self) -> float:
        """Estimate how many answers a second there can be: what the slowest stage gives."""
        return slowest(
            self.batcher.capacity_per_s,
            (self._threads.pool, self._preparing.predict(1)),
        )

    def _most_inside(self) -> int:
        """Count those who can be served at the same moment, and those who may wait for it."""
        return self.batcher.parallel + waiting_limit(self.capacity_per_s, self.deadline_s)

    async def _run_with(self, pixels: int, work: Callable[..., R], *args: object) -> R:
        """Run `work` on a picture of so many pixels in the threads for such."""
        if pixels <= BIG_PIXELS:
            return await self._threads.run(work, *args)
        return await self._threads.run_within(self._big, pixels, work, *args)

    def _unless_late(self, deadline: float, work: Callable[..., R], *args: object) -> R:
        """Run `work`, on a thread: what waited for one until its deadline is not even decoded."""
        if self.clock() >= deadline:
            raise TooLate("the deadline passed before the image was decoded", Miss.DROPPED)
        return work(*args)

    def _look(self, lane: int, batch: Sequence[_Asked]) -> list[_Looked]:
        """Run a batch and make of each output what was asked, on the lane's own thread.

        What has been through the network waits for nothing any more, and the event loop hears of a
        batch once.
        """
        outputs = self._engine.look(lane, [each.tensor for each in batch])
        done = self.clock()
        return [_finish(each, output, done) for each, output in zip(batch, outputs, strict=True)]

    async def _finish_long(self, _lane: int, rests: Sequence[Unfinished]) -> list[Detections]:
        return [await self._threads.run_long(rest.finished) for rest in rests]

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
        await self._threads.run_on(lane, self._engine.look, lane, tensors)
        return self.clock() - began

    async def close(self) -> None:
        """Return when everybody inside has an answer, then end the threads."""
        await self.batcher.close()
        await self._long.close()
        self._threads.close()


def _prepare(decode: Decode, source: Source, header: Header | None, size: InputSize) -> _Prepared:
    began = time.perf_counter()
    if isinstance(source, Pixels):
        frame, (image, reduced) = None, (source.make(), 1)
    else:
        assert header
        frame = Frame.of(header.width, header.height, size)
        image, reduced = decode(source, header, size, frame.place)
    decoded = time.perf_counter()
    tensor, fit = letterbox(image, size, reduced, frame)
    return _Prepared(tensor, fit, decoded - began, time.perf_counter() - decoded)


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


def _begin(
    output: Output | Surest, head: Head, fit: Letterbox, options: Options, below: float
) -> _Begun:
    """Find what there is and, if that is wanted and takes no turns, what nearly is."""
    nearly = begin(output, head, fit, options.lower(below)) if below else None
    if isinstance(nearly, Detections):
        # Greedy suppression goes from the surest box down: what is above the threshold is the same.
        return nearly[nearly.scores > options.confidence], nearly
    return begin(output, head, fit, options), None
