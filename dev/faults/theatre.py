"""Runs many plays beside each other: each has a stage of its own, and mostly they wait."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from controlplane.installation import ISTIO_CRDS, install
from controlplane.kube import Kube, connect, credentials_from
from controlplane.kubelet import FakeKubelet, crashing, ready
from controlplane.plane import ControlPlane
from faults.campaign import BROKEN
from faults.history import History
from faults.oracles import Reference, judge, reference
from faults.shifted import Clock
from faults.size import AT_ONCE
from faults.stage import LOST, Stage, stage
from faults.traces import Trace
from yolofleet.api.names import Manifest

T = TypeVar("T")


class Theatre:
    """A control plane, what watches it, and a loop in a thread of its own for all plays.

    It is given without controllers, which begin once all kinds are there: the garbage collector
    learns of those that come later each 30 s.

    results: by fault and trace, how many runs ended how, for the table at the end of a test run.
    measured: numbers worth telling, by what they are.
    kubelet: gives every pod its fate; a play decides by revision name only when it plays alone.
    """

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane = plane
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._references: dict[str, asyncio.Task[Reference]] = {}
        self._open = contextlib.AsyncExitStack()
        self.results: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.measured: defaultdict[str, list[float]] = defaultdict(list)

    def __enter__(self) -> Theatre:
        """Start the loop and what watches the cluster."""
        self._thread.start()
        self.play(self._set_up()).result()
        return self

    def __exit__(self, *_: object) -> None:
        """End all of it."""
        self.play(self._open.aclose()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def play(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin `work`."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _set_up(self) -> None:
        await install(self.plane)
        self.slots = asyncio.Semaphore(AT_ONCE)
        self._references_at_once = asyncio.Semaphore(2)
        config = self.plane.kubeconfig()
        self.client = await self._open.enter_async_context(connect(config))
        self.kube = Kube(self.client)
        await self.kube.install(ISTIO_CRDS)
        self.plane.controller_manager.start()
        self.history = History(credentials_from(config))
        self.kubelet = FakeKubelet(self.client, period_s=0.2)
        self.kubelet.otherwise = _ready_unless_broken
        for work in (self.history.run(), self.kubelet.run()):
            task = asyncio.create_task(work)
            self._open.push_async_callback(_ended, task)

    @contextlib.asynccontextmanager
    async def stage(self, *, patient: bool = True, **environment: str) -> AsyncIterator[Stage]:
        """Give a stage whose operator leads, as soon as there is room for one."""
        async with self.slots, self.empty_stage(patient=patient, **environment) as one:
            await one.start()
            yield one

    @contextlib.asynccontextmanager
    async def clock_stage(self) -> AsyncIterator[tuple[Stage, Clock]]:
        """Give a stage as `stage` does, and the operator's wall clock."""
        clock = Clock(self._folder / f"clock-{uuid.uuid4().hex[:6]}")
        async with self.stage(patient=True, module="faults.shifted", **clock.environment) as one:
            yield one, clock

    @contextlib.asynccontextmanager
    async def empty_stage(
        self, *, patient: bool = True, **environment: str
    ) -> AsyncIterator[Stage]:
        """Give a stage whose operator is not started, at once."""
        async with stage(
            self.plane,
            self.kube,
            self.kubelet,
            self.history,
            self._folder,
            patient=patient,
            **environment,
        ) as one:
            yield one

    @contextlib.asynccontextmanager
    async def broken(
        self,
        fault: str,
        trace: Trace,
        *,
        judged: Reference | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
        **judging: Any,
    ) -> AsyncIterator[Stage]:
        """Give a stage where `trace` begins; when the block is left, ask the five questions.

        The block does the step and what goes wrong with it. judged: by which end, if not by that
        of `trace`. environment: as of `stage`. judging: passed on to `judge`. An
        operator that may end with 1 has the product's Lease, others one that no busy machine takes.
        """
        expected = judged or await self.reference(trace)
        self.results[fault, trace.name]["failed"] += 1  # until it has passed
        patient = LOST not in judging.get("exits", ())
        async with self.stage(patient=patient, **environment) as one:
            await trace.prepare(one)
            await one.begin()
            yield one
            await judge(one, expected, **judging)
        self.results[fault, trace.name].update({"failed": -1, "passed": 1})

    async def reference(self, trace: Trace) -> Reference:
        """Return what `trace` does without a fault; it is run once."""
        if trace.name not in self._references:
            self._references[trace.name] = asyncio.create_task(self._reference(trace))
        return await asyncio.shield(self._references[trace.name])

    async def _reference(self, trace: Trace) -> Reference:
        # Not in a slot of those who wait for it; and not all at once, for they set the measure.
        async with self._references_at_once, self.empty_stage() as one:
            await one.start()
            return await reference(one, trace)


def _ready_unless_broken(pod: Manifest) -> Manifest:
    return crashing(1, "no such model")(pod) if BROKEN in str(pod["spec"]) else ready(pod)


async def _ended(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def each(plays: dict[str, Callable[[], Awaitable[str]]]) -> dict[str, str]:
    """Run `plays` beside each other; return what each tells: "passed" and the like, or why not."""

    async def one(name: str) -> tuple[str, str]:
        try:
            return name, await plays[name]()
        except Exception as error:  # handed on: the test reports all of them
            return name, f"{type(error).__name__}: {error}"

    return dict(await asyncio.gather(*map(one, plays)))
