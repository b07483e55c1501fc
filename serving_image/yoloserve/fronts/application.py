"""A front's application: that of every server, with another process in the place of an engine."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
from fastapi import FastAPI

from yoloserve.access.credentials import Access
from yoloserve.detector import Detector
from yoloserve.engine.starting import ModelInfo
from yoloserve.fronts import wire
from yoloserve.fronts.front_side import (
    Asking,
    AsksElsewhere,
    FrontServing,
    RemoteCore,
    RemoteCounting,
    RemoteShadow,
)
from yoloserve.fronts.slots import Memory
from yoloserve.http.app import create_app
from yoloserve.http.bodies import BODIES_HELD, Bodies
from yoloserve.http.server import most_connections
from yoloserve.http.serving import fetcher_of
from yoloserve.live import Live
from yoloserve.scheduling.concurrency import Threads
from yoloserve.scheduling.connections import Connections
from yoloserve.settings import Settings
from yoloserve.shadow.keys import Keys
from yoloserve.telemetry.tracing import spans

LEAST_BODIES = 2  # of the largest size: one client that is slow with its own is no others' wait
GAUGES_S = 0.1  # how often what it has is told, if that is news


class Application:
    """What a front serves. Of what the server may have, it has its share."""

    def __init__(
        self,
        settings: Settings,
        welcome: wire.Welcome,
        memory: Memory,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Make it as the engine's process says."""
        self.settings = settings
        self.asking = asking = Asking()
        self.received = 0  # connections
        self.sockets: Callable[[], int] = lambda: self.connections.open
        self._told: wire.Gauges | None = None
        live = Live(settings.live_dir)
        info = msgspec.json.decode(welcome.info, type=ModelInfo)
        core = RemoteCore(asking, memory, info, welcome.parallel, clock)
        detector = Detector.before(core, Threads(pool=welcome.threads, lanes=0), settings)
        access, fetcher = Access.of(settings), fetcher_of(settings)
        keys = Keys(settings.shadow_key_file, live, is_open=access is None)
        shadow = RemoteShadow(lambda: False, detector, settings, live, keys, share=welcome.fronts)
        shadow.asking = asking
        self.serving = FrontServing(
            settings=settings,
            detector=detector,
            metrics=RemoteCounting(asking),
            access=access,
            fetcher=fetcher,
            bodies=Bodies.within(
                settings, fetcher, max(LEAST_BODIES, BODIES_HELD // welcome.fronts)
            ),
            spans=spans(),
            live=live,
            shadow=shadow,
            asking=asking,
        )
        self.connections = Connections(
            most_connections(
                math.ceil(settings.max_connections / welcome.fronts), settings.max_streams
            ),
            self.serving.metrics.cut,
        )
        self.app = create_app(self.serving, lifespan=self._running)
        self.app.add_middleware(AsksElsewhere, asking=asking)

    def hear(self, said: wire.State | wire.Reply) -> None:
        """Hear an answer, or what the whole server is now."""
        if isinstance(said, wire.State):
            self.serving.hear(said)
        else:
            self.asking.take(said)

    @asynccontextmanager
    async def _running(self, _: FastAPI) -> AsyncIterator[None]:
        beside = [asyncio.create_task(self._tell())]
        if self.settings.live_dir:
            beside.append(asyncio.create_task(self.serving.follow()))
        try:
            yield
        finally:
            for task in beside:
                task.cancel()
            await self.serving.close()

    async def _tell(self) -> None:
        while True:
            active = self.serving.metrics.active
            gauges = wire.Gauges(self.connections.open, self.sockets(), active, self.received)
            if gauges != self._told:
                self._told = gauges
                self.asking.say(gauges)
            await asyncio.sleep(GAUGES_S)
