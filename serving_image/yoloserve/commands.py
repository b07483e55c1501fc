"""What the commands do. Each imports what it needs when it runs: `--help` is quick."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yoloserve.errors import BadImage, InvalidSettings
from yoloserve.settings import Settings, passed_over

if TYPE_CHECKING:
    from yoloserve.core import EngineCore
    from yoloserve.detector import Answer, Detector
    from yoloserve.engine.starting import Engine
    from yoloserve.quality.dataset import Labelled
    from yoloserve.quality.evaluation import Evaluation

log = logging.getLogger(__name__)

NO_DEADLINE = float("inf")
FAILED = 1
PATIENT_MS = 1e9


def serve(settings: Settings, start: "Callable[[Settings], Engine] | None" = None) -> int:
    """Answer over HTTP until SIGTERM; `start` makes the engine, if it is not to be the usual."""
    from yoloserve.telemetry import logs

    with logs.configured():
        for variable, nearest in passed_over(os.environ).items():
            log.warning("no such setting", extra={"variable": variable, "nearest": nearest})
        return _serve(settings, start)


def _serve(settings: Settings, start: "Callable[[Settings], Engine] | None") -> int:
    from yoloserve.engine.starting import start as usual

    # The first process of a container ignores what it does not handle: a start that takes long, a
    # download say, would sit out the whole grace period. Once up, the server has its own handler.
    # By force, for the start has a thread; what it leaves behind, a killed one leaves as well.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _allow_connections()
    # A network is read and compiled mostly outside of Python: time to import what speaks HTTP.
    with ThreadPoolExecutor(1, "start") as beside:
        starting = beside.submit(start or usual, settings)
        from yoloserve.assembly import assemble, before

        serve = before(settings)
        engine = starting.result()
    server = serve(assemble(settings, engine))
    server.run()
    return server.exit_status


def _allow_connections() -> None:
    """Raise the limit on open files to what may be had: each idle camera holds a connection."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def predict(settings: Settings, pictures: list[Path], save: Path | None) -> int:
    """Print what is in each picture; with `save`, write it there with its boxes drawn.

    Nothing is written over: pictures of two cameras may have one name, and `save` may be theirs.
    """
    encoded = map(_read, pictures)
    drawings = _drawings(pictures, save) if save else [None] * len(pictures)
    asked = list(zip(pictures, encoded, drawings, strict=True))
    return asyncio.run(_predict(_patient(settings), asked))


def _drawings(pictures: Sequence[Path], save: Path) -> list[Path]:
    """Name the file for each drawing; raise `InvalidSettings` rather than write over anything."""
    _make_folder(save)
    drawings = [(save / path.name).with_suffix(".jpg") for path in pictures]
    named: set[Path] = set()
    for drawing in drawings:
        if drawing.exists() or drawing in named:
            there = "is there already" if drawing.exists() else "would be written twice"
            raise InvalidSettings(f"{drawing} {there}: give another folder to --save")
        named.add(drawing)
    return drawings


async def _predict(settings: Settings, asked: Sequence[tuple[Path, bytes, Path | None]]) -> int:
    import orjson

    from yoloserve.http.schemas import detect_json, error_json

    code = 0
    async with _warm(settings) as (_, detector):
        for path, image, drawing in asked:
            try:
                answer = await _predicted(detector, image, drawing)
            except BadImage as error:
                line, code = error_json(error.code, str(error)), FAILED
            else:
                line = detect_json(answer, detector.info)
            shown = {"picture": str(path), **orjson.loads(line)}
            sys.stdout.write(orjson.dumps(shown).decode() + "\n")
    return code


async def _predicted(detector: "Detector", image: bytes, drawing: Path | None) -> "Answer":
    if drawing is None:
        return await detector.detect(image, detector.defaults, deadline=NO_DEADLINE)
    answer, drawn = await detector.picture(image, detector.defaults, deadline=NO_DEADLINE)
    _write(drawing, drawn)
    return answer


def evaluate(settings: Settings, data: Path, limit: int | None) -> int:
    """Print the mean average precision on pictures whose objects are known."""
    from yoloserve.engine.starting import start
    from yoloserve.quality import dataset, evaluation

    engine = start(settings)
    pictures = dataset.read(data, engine.info.classes)[:limit]
    dataset.require_objects(pictures)
    measured = _looked(settings)(engine, pictures)
    info, each = engine.info, 1000 * measured.seconds / len(pictures)
    sys.stdout.write(
        f"{info.name} on {info.backend} {info.precision} {info.device}, {len(pictures)} pictures, "
        f"{each:.1f} ms each\n{evaluation.table(measured, info.classes)}\n"
    )
    return 0


def convert(settings: Settings, data: Path, into: Path | None) -> int:
    """Convert the model for a runtime, and print where it is and how it compares."""
    from yoloserve.quality import conversion

    if into:
        _make_folder(into)  # now, not after minutes
    place, numbers = conversion.convert(settings, data, into, _looked(settings))
    sys.stdout.write(f"{place}\n{numbers}\n")
    return 0


def _looked(settings: Settings) -> "Callable[[Engine, Sequence[Labelled]], Evaluation]":
    """Return what lets an engine look at pictures, by the path of requests."""
    from yoloserve.quality import evaluation

    async def ask(engine: "Engine", pictures: "Sequence[Labelled]") -> "Evaluation":
        async with _warm(_patient(settings), engine) as (_, detector):
            options = evaluation.whole_curve(detector.defaults)
            return await evaluation.evaluate(detector, pictures, options)

    return lambda engine, pictures: asyncio.run(ask(engine, pictures))


def bench(settings: Settings, picture: Path, seconds: float, concurrency: int) -> int:
    """Print the throughput and latency of the engine alone and of the whole path."""
    try:
        asyncio.run(_bench(_patient(settings), _read(picture), seconds, concurrency))
    except BadImage as error:
        raise InvalidSettings(f"{picture}: {error}") from error
    return 0


async def _bench(settings: Settings, encoded: bytes, seconds: float, concurrency: int) -> None:
    from yoloserve.images.decoding import decode
    from yoloserve.images.letterbox import letterbox

    async with _warm(settings) as (core, detector):
        info = core.info
        image = decode(encoded, max_pixels=sys.maxsize)
        tensor, _ = letterbox(image, info.input_size)

        async def alone() -> None:
            await core.computed(tensor)

        async def whole() -> None:
            await detector.detect(encoded, detector.defaults, deadline=NO_DEADLINE)

        sys.stdout.write(f"{info.name} on {info.backend} {info.precision} {info.device}\n")
        # What is compiled for this picture's size is compiled beside the first calls.
        await _measure(alone, seconds, concurrency)
        engine = await _measure(alone, seconds, concurrency)
        path = await _measure(whole, seconds, concurrency)
    for name, (rate, median, slowest) in (("engine alone", engine), ("whole path", path)):
        sys.stdout.write(
            f"{name:12}  {rate:8.1f} images/s   p50 {median:7.2f} ms   p99 {slowest:7.2f} ms\n"
        )
    sys.stdout.write(f"whole / engine {path[0] / engine[0]:.2f}\n")


async def _measure(
    call: Callable[[], Coroutine[Any, Any, None]], seconds: float, concurrency: int
) -> tuple[float, float, float]:
    """Call it over and over; return calls a second, and median and 99th percentile in ms.

    Each caller calls at least once, however soon the time is over.
    """
    import time

    import numpy as np

    took: list[float] = []
    end = (began := time.perf_counter()) + seconds

    async def caller() -> None:
        while True:
            start = time.perf_counter()
            await call()
            took.append((now := time.perf_counter()) - start)
            if now >= end:
                break

    await asyncio.gather(*(caller() for _ in range(concurrency)))
    median, slowest = np.percentile(took, (50, 99)) * 1000
    return len(took) / (time.perf_counter() - began), median, slowest


@asynccontextmanager
async def _warm(
    settings: Settings, engine: "Engine | None" = None
) -> "AsyncIterator[tuple[EngineCore, Detector]]":
    """Give an engine, the one that the settings ask for if none is given, and a way to it."""
    from yoloserve.core import EngineCore
    from yoloserve.detections.postprocess import UnnamedClass
    from yoloserve.detector import Detector
    from yoloserve.engine.starting import start

    core = EngineCore.around(engine or start(settings), settings)
    await core.warm_up()
    try:
        yield core, Detector.before(core, core.threads, settings)
    except UnnamedClass as error:
        raise InvalidSettings(str(error)) from error
    finally:
        await core.close()


def _patient(settings: Settings) -> Settings:
    """Let as many wait as like to: the cap is made for callers with a deadline."""
    return settings.model_copy(update={"deadline_ms": PATIENT_MS})


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidSettings(f"cannot write to {path}: {error.strerror}") from error


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InvalidSettings(f"cannot write {path}: {error.strerror}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidSettings(f"cannot read {path}: {error.strerror}") from error
