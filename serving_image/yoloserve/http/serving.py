"""What all requests of one server share, and what whoever hosts it may ask of it."""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self

from starlette.applications import Starlette

from yoloserve.access.clients import Client
from yoloserve.access.credentials import Access
from yoloserve.core import EngineCore
from yoloserve.detector import Detector
from yoloserve.engine.watching import Watch
from yoloserve.errors import Blind
from yoloserve.http.bodies import Bodies
from yoloserve.live import LOOK_AGAIN_S, Live
from yoloserve.quality.golden import GoldenSet
from yoloserve.scheduling.admission import Places, Quotas
from yoloserve.settings import Settings
from yoloserve.shadow.keys import KeyFile, Keys
from yoloserve.shadow.replay import Shadow
from yoloserve.shadow.telling import Comparisons
from yoloserve.telemetry import logs
from yoloserve.telemetry.counting import Counting
from yoloserve.telemetry.evidence import Evidence, Witness
from yoloserve.telemetry.golden import GoldenResults
from yoloserve.telemetry.metrics import Fronts, Metrics
from yoloserve.telemetry.tracing import Spans, spans
from yoloserve.telemetry.traffic import Traffic

if TYPE_CHECKING:
    from yoloserve.http.fetching import Fetcher

log = logging.getLogger(__name__)

Status = Literal["starting", "ready", "draining", "blind"]


@dataclass(slots=True, eq=False, kw_only=True)
class Serving(ABC):
    """What the path of requests has of its server, in whatever process it runs."""

    settings: Settings
    detector: Detector
    metrics: Counting
    access: Access | None  # None lets everybody in
    fetcher: "Fetcher | None"
    bodies: Bodies
    spans: Spans
    live: Live
    shadow: Shadow
    large_json: asyncio.Lock = field(default_factory=asyncio.Lock)
    wall_clock: Callable[[], float] = time.time  # what others' stamps are held against
    draining: bool = False

    @abstractmethod
    def status(self) -> Status:
        """Name the state that `/health/ready` tells; only "ready" is."""

    @abstractmethod
    async def spend(self, client: Client, images: int = 1, *, paid: int = 0) -> None:
        """Count images against a client's quota, if it has one; raise `OverQuota`."""

    @abstractmethod
    def stream_of(self, client: str) -> AbstractAsyncContextManager[None]:
        """Hold a place for a stream; raise `Overloaded` if there is none."""

    def refuse_if_blind(self) -> None:
        """Raise `Blind` while the network does not see: no boxes would be a lie."""
        if self.status() == "blind":
            raise Blind("the network's answer to a known picture is not what it was")

    def quota_of(self, client: Client) -> float:
        """Say how many images a second a client may send; 0: as many as it likes."""
        own = client.per_second
        return self.settings.quota_per_second if own is None else own

    async def follow(self) -> None:
        """Do what the file says that may change while we run, until it drains."""
        level = "info"
        while not self.draining:
            self.live.look()
            self.shadow.follow()
            if level != (level := self.live.settings.log_level):
                logs.set_level(level)
                log.warning("log level", extra={"level": level})
            await asyncio.sleep(LOOK_AGAIN_S)

    async def close(self) -> None:
        """End what speaks with others."""
        if self.fetcher:
            await self.fetcher.close()
        if self.access:
            await self.access.close()
        self.spans.close()


@dataclass(slots=True, eq=False, kw_only=True)
class EngineServing(Serving):
    """One server's parts, around its engine; of these only the last two change."""

    metrics: Metrics
    core: EngineCore
    streams: Places
    quotas: Quotas
    watch: Watch
    witness: Witness
    frames_key: KeyFile
    golden: GoldenSet | None
    fronts: Fronts | None = None  # processes that speak HTTP for this one
    drawing: asyncio.Lock = field(default_factory=asyncio.Lock)
    warm: bool = False

    @classmethod
    def of(cls, core: EngineCore, metrics: Metrics, settings: Settings) -> Self:
        """Put the parts together around a core; raises `InvalidSettings`."""
        detector = Detector.before(core, core.threads, settings)
        fetcher, access = fetcher_of(settings), Access.of(settings)
        live = Live(settings.live_dir)
        golden = _golden(core, detector, metrics, settings)
        keys = Keys(settings.shadow_key_file, live, is_open=access is None)
        frames_key = KeyFile(settings.frames_key_file, "the differing pictures")
        serving = cls(
            settings=settings,
            core=core,
            detector=detector,
            metrics=metrics,
            access=access,
            fetcher=fetcher,
            bodies=Bodies.within(settings, fetcher),
            streams=Places(settings.max_streams, "streams"),
            quotas=Quotas(core.clock),
            spans=spans(),
            watch=Watch(
                core.look_at_probe,
                core.head,
                is_busy=lambda: core.admission.inside > 0,
                interval_s=settings.probe_interval_seconds,
                looked=metrics.looked,
            ),
            witness=Witness(core, metrics),
            live=live,
            shadow=Shadow(lambda: core.busy, detector, settings, live, keys, frames_key=frames_key),
            frames_key=frames_key,
            golden=golden,
        )
        metrics.watch_streams(serving.streams)
        metrics.watch_sight(lambda: serving.watch.failed)
        metrics.registry.register(Comparisons(serving.shadow.tallies))
        return serving

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Warm up and watch; in the end wait until everybody inside has an answer.

        The application's lifespan is this. A host that mounts the application and runs no lifespan
        but its own enters it there.
        """
        await self.core.warm_up()
        self.metrics.watch(self.core)
        watching = None
        if self.settings.probe_interval_seconds > 0:
            watching = asyncio.create_task(self.watch.run())
        trying = asyncio.create_task(self.golden.run()) if self.golden else None
        following = None
        if self.settings.live_dir:
            self.shadow.begin()
            following = asyncio.create_task(self.follow())
        self.warm = True
        try:
            yield
        finally:
            self.drain()
            if watching:
                watching.cancel()
            if following:
                following.cancel()
            if trying:
                trying.cancel()
            await self.shadow.close()
            await self.core.close()
            await self.close()

    def status(self) -> Status:
        """Name the state that `/health/ready` tells; only "ready" is."""
        if self.watch.blind:
            return "blind"
        if self.draining:
            return "draining"
        whole = self.warm and (self.fronts is None or self.fronts.ready)
        return "ready" if whole else "starting"

    def drain(self) -> None:
        """Answer on, but ask whoever comes to go elsewhere the next time."""
        self.draining = True
        self.shadow.end()

    def evidence(self) -> Evidence:
        """Tell what a release is judged by, as `GET /evidence` does; to be asked on the loop."""
        return self.witness.tell(
            status=self.status(),
            blind_in_a_row=self.watch.failed,
            golden=self.golden.progress if self.golden else None,
            shadow=self.shadow.tallies.as_dict(),
        )

    def shows_frames(self, key: str) -> bool:
        """Say whether this key shows the pictures on which two revisions differ.

        One that does anything else, too, has been given to others for that.
        """
        other = self.shadow.keys.takes(key) or (self.access and self.access.is_key(key))
        return self.frames_key.opens(key) and not other

    async def spend(self, client: Client, images: int = 1, *, paid: int = 0) -> None:
        """Count images against a client's quota, if it has one; raise `OverQuota`."""
        if (per_second := self.quota_of(client)) > 0:
            self.quotas.take(client.name, per_second, images, paid=paid)

    @asynccontextmanager
    async def stream_of(self, client: str) -> AsyncIterator[None]:
        """Hold a place for a stream; raise `Overloaded` if there is none."""
        with self.streams.hold(client):
            yield


def serving_of(app: Starlette) -> Serving:
    """Return what an application of ours serves."""
    serving: Serving = app.state.serving
    return serving


def engine_serving_of(app: Starlette) -> EngineServing:
    """Return what an application serves in the process of its engine."""
    serving = serving_of(app)
    assert isinstance(serving, EngineServing)
    return serving


def _golden(
    core: EngineCore, detector: Detector, metrics: Metrics, settings: Settings
) -> GoldenSet | None:
    """Make what tries the model on pictures whose objects are known, where there are any."""
    if not settings.golden_dir:
        return None
    golden = GoldenSet(
        settings.golden_dir,
        detector,
        lambda: core.busy,
        answered=lambda answer: metrics.answered(
            answer, detector.info.classes, Traffic.GOLDEN, answer.timing.total
        ),
    )
    metrics.registry.register(GoldenResults(lambda: golden.progress))
    return golden


def fetcher_of(settings: Settings) -> "Fetcher | None":
    """Make what fetches pictures, if it may: importing an HTTP client takes a tenth of a second."""
    if not settings.url_hosts:
        return None
    from yoloserve.http.fetching import Fetcher

    return Fetcher.of(settings)
