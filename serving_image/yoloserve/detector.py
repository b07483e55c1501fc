"""The request path on one page: bytes in, detections out, each stage timed. Knows no HTTP."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeVar

from yoloserve.core import ANYWHERE, Core, Place, Prepared, Wanted
from yoloserve.detections.annotate import annotate
from yoloserve.detections.postprocess import Detections, Options
from yoloserve.errors import Miss, Overloaded, Refusal, TooLate
from yoloserve.images.decoding import Header, decode_for, decode_whole, require_size
from yoloserve.images.letterbox import Frame, Image, InputSize, letterbox
from yoloserve.images.pixels import Pixels
from yoloserve.scheduling.admission import ANYBODY, Flow
from yoloserve.scheduling.concurrency import Threads
from yoloserve.settings import PrecisionName, Settings

R = TypeVar("R")
Source = bytes | Pixels  # an encoded image, or what makes one, on a thread
Decode = Callable[..., tuple[Image, int]]

# Decoded, a pixel takes three bytes, and several times that on the way. Pictures above this (a 4K
# frame has 8.3 million) share the memory that the largest one may take, however many they are.
BIG_PIXELS = 9_000_000
MANY_OBJECTS = 1000  # take two milliseconds to write


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


class Detector:
    """Pictures in, their objects out; the engine behind it has other callers, too."""

    def __init__(
        self,
        core: Core,
        threads: Threads,
        *,
        max_pixels: int,
        deadline_s: float,
        defaults: Options,
    ) -> None:
        self.info = core.info
        self.clock = core.clock
        self.deadline_s = deadline_s
        self.defaults = defaults
        self._core = core
        exact = core.info.precision is PrecisionName.FP32
        self._decode: Decode = decode_whole if exact else decode_for
        self._threads = threads
        self._max_pixels = max_pixels

    @classmethod
    def before(cls, core: Core, threads: Threads, settings: Settings) -> Self:
        """Prepare pictures for a core on these threads, as the settings say."""
        return cls(
            core,
            threads,
            max_pixels=settings.max_pixels,
            deadline_s=settings.deadline_ms / 1000,
            defaults=Options(
                settings.confidence,
                settings.iou,
                settings.max_detections,
                agnostic_nms=settings.agnostic_nms,
            ),
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
        async with self._core.admit(deadline, flow) as place:
            answer = await self._find(place, source, Wanted(options, deadline, flow, below))
        self.require_in_time(deadline)
        return answer

    async def aside(self, encoded: bytes, options: Options, *, flow: Flow) -> Answer:
        """Find the objects in a picture for which nobody waits.

        It takes no place of those who ask, but turns with them; and what is looked for in it says
        nothing of the time that they need.
        """
        return await self._find(ANYWHERE, encoded, Wanted(options, math.inf, flow, asked=False))

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
        working = workers = min(len(sources), self._core.parallel + 1)

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
        async with self._core.admit(deadline, flow) as place:
            answer = await self._find(place, encoded, Wanted(options, deadline, flow, below))
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

    async def check(self, flow: Flow = ANYBODY) -> None:
        """Raise `Overloaded` if there is no place; cheap enough to ask before a body is read."""
        await self._core.check(flow)

    def require_in_time(self, deadline: float) -> None:
        """Raise `TooLate` for an answer that is ready, and late."""
        if (late := self.clock() - deadline) > 0:
            raise TooLate(f"the answer was ready {late:.3f} s after its deadline", Miss.LATE)

    async def _find(self, place: Place, source: Source, wanted: Wanted) -> Answer:
        began = self.clock()
        # By its header, before anybody waits for it: raises `BadImage`.
        header = require_size(source, self._max_pixels) if isinstance(source, bytes) else None
        pixels = header.pixels if header else 0
        ready = await self._run_with(
            pixels,
            self._unless_late,
            wanted.deadline,
            _prepare,
            self._decode,
            source,
            header,
            self.info.input_size,
            place,
        )
        prepared = self.clock()
        if pixels > BIG_PIXELS:  # the threads of the others are no part of the stage
            wanted = replace(wanted, counts=False)
        seen = await self._core.look(place, ready, wanted)
        ended = self.clock()
        timing = Timing(
            decode=ready.decode_s,
            preprocess=ready.preprocess_s,
            queue=seen.queued_s,
            inference=seen.computed - (prepared + seen.queued_s),
            postprocess=seen.postprocess_s,
            total=ended - began,
        )
        size = ready.fit.width, ready.fit.height
        return Answer(seen.found, *size, timing, began, prepared, seen.computed, seen.nearly)

    async def _run_with(self, pixels: int, work: Callable[..., R], *args: object) -> R:
        """Run `work` on a picture of so many pixels in the threads for such."""
        if pixels <= BIG_PIXELS:
            return await self._threads.run(work, *args)
        return await self._threads.run_within(self._core.room, pixels, work, *args)

    def _unless_late(self, deadline: float, work: Callable[..., R], *args: object) -> R:
        """Run `work`, on a thread: what waited for one until its deadline is not even decoded."""
        if self.clock() >= deadline:
            raise TooLate("the deadline passed before the image was decoded", Miss.DROPPED)
        return work(*args)


def _prepare(
    decode: Decode,
    source: Source,
    header: Header | None,
    size: InputSize,
    place: Place,
) -> Prepared:
    began = time.perf_counter()
    with place.writing() as memory:
        if isinstance(source, Pixels):
            frame, (image, reduced) = None, (source.make(), 1)
        else:
            assert header
            frame = Frame.of(header.width, header.height, size, memory)
            image, reduced = decode(source, header, size, frame.place)
        decoded = time.perf_counter()
        tensor, fit = letterbox(image, size, reduced, frame, memory)
    return Prepared(tensor, fit, decoded - began, time.perf_counter() - decoded)
