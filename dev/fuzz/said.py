"""What a front says, broken: the engine's side may do it, or say that none of ours says that."""

import asyncio
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from stub_engine.engine import start
from yoloserve.core import EngineCore
from yoloserve.detections.postprocess import Detections
from yoloserve.errors import InvalidParameter
from yoloserve.fronts import wire
from yoloserve.fronts.engine_side import Lie, Session, routes_of
from yoloserve.fronts.slots import Slots, bytes_of
from yoloserve.http.app import create_app
from yoloserve.http.serving import EngineServing
from yoloserve.settings import Settings
from yoloserve.telemetry.metrics import Metrics

MOST_BYTES = 100_000
OURS_TO_HEAR = wire.Listening, wire.Leaving, wire.Pong  # of processes, not of what they hold
WORDS = [each.__name__.encode() for each in (wire.Look, wire.Room, wire.Leave, wire.Stream)]
WORDS += [b"\xcb\x7f\xf8" + bytes(6), b"\xcf" + b"\xff" * 8, b"\xc0", b"\xff", b"request", b"ok"]


def seeds() -> list[bytes]:
    """Write what a front of ours says."""
    found = wire.Objects.of(
        Detections(np.ones((2, 4), np.float32), np.ones(2, np.float32), np.array([0, 2], np.int64))
    )
    look = wire.Look(1, 64, 48, 0.25, 0.7, 300, [0], False, 0, 0, 0, True)
    ask = wire.Ask(6, "GET", "/health/live", b"", [(b"accept", b"*/*")], ("10.0.0.1", 5), False)
    said: list[list[Any]] = [
        [wire.Check(1, "a", "b"), wire.Admit(1, math.inf, "a", "b"), look, wire.Leave(1)],
        [wire.Admit(1, math.inf, "a", ""), wire.Stream(2, "a"), wire.Room(3, 1000)],
        [wire.Spend(4, "a", 2.5, 3, 1), ask, wire.Gauges(1, 2, 3, 4)],
        [wire.Answered("request", (0.1, 0.1, 0.1, 0.1, 0.1, 0.5), 0.7, found, 3)],
        [wire.Denied("overloaded", "shadow", 2, 3), wire.Missed("queue", 2), wire.Cut("silent")],
        [wire.Served("POST", "/v1/detect", 200, 0.1), wire.Skipped("gate-1", "skipped_busy", 2)],
        [wire.Offer(5, "gate-1", b"a picture", True, found, 0.1)],
    ]
    return [b"".join(map(wire.frame, each)) for each in said]


def hear(data: bytes) -> None:
    """Hear one front say something, and take back what it holds."""
    _hearer()(data)


@cache
def _hearer() -> Callable[[bytes], None]:
    settings = Settings.read(image_size=64, revision="gate-0")
    metrics = Metrics()
    core = EngineCore.around(start(settings, lambda _: None), settings, metrics.batch_ran)
    serving = EngineServing.of(core, metrics, settings)
    app, slots = create_app(serving), Slots(8, bytes_of(core.info.input_size))
    runner = asyncio.Runner()

    async def heard(data: bytes) -> None:
        session = Session(serving, app, slots, routes_of(app))
        frames = wire.Frames(wire.ASKED, MOST_BYTES)

        def take(said: wire.Asked) -> None:
            if not isinstance(said, OURS_TO_HEAR):
                session.received(said)

        try:
            frames.feed(data, take)
            await asyncio.sleep(0)
        except (wire.Broken, Lie, ValueError) as error:
            raise InvalidParameter(str(error)) from error
        finally:
            session.end()
            await asyncio.sleep(0)
            assert slots.free == slots.count
            assert core.admission.inside == serving.streams.taken == 0
            assert core.room.free == core.room.size

    return lambda data: runner.run(heard(data))
