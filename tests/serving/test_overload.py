"""What overload does to goodput: the admission and the batcher as they are, on a simulated clock.

Service times vary as measured ones do. Nothing sleeps: the event loop's time jumps to whatever
happens next, so that a minute of traffic takes a moment and the numbers are always the same.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from yoloserve.errors import Miss, Overloaded, TooLate
from yoloserve.scheduling.admission import Admission, Flow, slowest, waiting_limit
from yoloserve.scheduling.batching import Batcher, ServiceTime

JITTER = 0.1  # the spread of service times


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still while there is work, and jumps when there is none."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0]._when)
        super()._run_once()


@dataclass(frozen=True)
class Device:
    """An engine whose batch of n takes `per_image * n + overhead` seconds, more or less."""

    per_image: float
    overhead: float
    lanes: int
    max_batch: int
    decode: float = 0.0  # seconds of one image on one thread
    threads: int = 1
    seconds: int = 20  # of traffic; less for one that answers more in a second

    @property
    def capacity(self) -> float:
        engine = self.lanes * self.max_batch / (self.per_image * self.max_batch + self.overhead)
        return min(engine, self.threads / self.decode) if self.decode else engine


TWO_STREAMS = Device(0.0236, 0.0, lanes=2, max_batch=1)  # YOLOv8n in bf16 on two cores
BATCHES_OF_4 = Device(0.0114, 0.0031, lanes=1, max_batch=4)
SMALL_GPU = Device(0.001, 0.0009, lanes=1, max_batch=16, seconds=4)
SLOW_DECODER = Device(0.0002, 0.0009, lanes=1, max_batch=16, decode=0.02, threads=4, seconds=10)


class Simulation:
    """A server without the work: everything that waits, and how it ended, by flow."""

    def __init__(self, device: Device, deadline_s: float) -> None:
        self.random = random.Random(7)
        self.loop = asyncio.get_running_loop()
        self.device, self.deadline_s = device, deadline_s
        self.batcher = Batcher[None, None](
            self._run, lanes=device.lanes, max_batch=device.max_batch, clock=self.loop.time
        )
        for size in {1, device.max_batch}:  # the warm-up
            self.batcher.service.observe(size, device.per_image * size + device.overhead)
        self.admission = Admission(self._limit, self.loop.time)
        self.ended: dict[str, Counter[str]] = {}
        self.late = 0

        self.preparing = ServiceTime()
        self.threads = asyncio.Semaphore(device.threads)

    def _limit(self) -> int:
        per_s = slowest(
            self.batcher.capacity_per_s, (self.device.threads, self.preparing.predict(1))
        )
        return self.batcher.parallel + waiting_limit(per_s, self.deadline_s)

    async def _decode(self, deadline: float) -> None:
        """Take one of the threads, in turn; what comes to it too late is not decoded."""
        async with self.threads:
            if self.loop.time() >= deadline:
                raise TooLate("too late to be decoded", Miss.DROPPED)
            seconds = self.device.decode * self.random.lognormvariate(0, JITTER)
            await asyncio.sleep(seconds)
            self.preparing.observe(1, seconds)

    async def _run(self, _lane: int, items: Sequence[None]) -> Sequence[None]:
        seconds = self.device.per_image * len(items) + self.device.overhead
        await asyncio.sleep(seconds * self.random.lognormvariate(0, JITTER))
        return items

    async def request(self, flow: str = "") -> None:
        deadline = self.loop.time() + self.deadline_s
        try:
            with self.admission.admit(deadline, Flow(camera=flow)):
                if self.device.decode:
                    await self._decode(deadline)
                await self.batcher.submit(None, deadline, Flow(camera=flow))
            outcome = "late" if self.loop.time() > deadline else "ok"
        except Overloaded:
            outcome = "full"
        except TooLate:
            outcome = "dropped"
        self.ended.setdefault(flow, Counter())[outcome] += 1

    async def poisson(self, per_second: float, flow: str = "") -> None:
        async with asyncio.TaskGroup() as requests:
            while self.loop.time() < self.device.seconds:
                await asyncio.sleep(self.random.expovariate(per_second))
                requests.create_task(self.request(flow))

    async def camera(self, name: str, per_second: float) -> None:
        await asyncio.sleep(self.random.random() / per_second)
        async with asyncio.TaskGroup() as requests:
            while self.loop.time() < self.device.seconds:
                requests.create_task(self.request(name))
                await asyncio.sleep(self.random.lognormvariate(0, JITTER) / per_second)


def simulate(scene: Callable[[], Coroutine[Any, Any, Simulation]]) -> Simulation:
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(scene())


@pytest.mark.parametrize("load", [1.2, 2.0, 5.0])
@pytest.mark.parametrize("device", [TWO_STREAMS, BATCHES_OF_4, SMALL_GPU, SLOW_DECODER])
def test_goodput_holds_and_nobody_is_answered_late_under_overload(
    device: Device, load: float
) -> None:
    async def scene() -> Simulation:
        simulation = Simulation(device, deadline_s=0.2)
        await simulation.poisson(load * device.capacity)
        return simulation

    ended = simulate(scene).ended[""]
    assert ended["ok"] >= 0.95 * device.capacity * device.seconds
    assert ended["late"] <= 0.001 * ended.total()


def test_one_camera_does_not_starve_nineteen_others() -> None:
    """19 cameras ask for 80 % of the capacity, and another one for ten times the capacity."""
    device = TWO_STREAMS
    cameras = [f"camera-{number}" for number in range(19)]

    async def scene() -> Simulation:
        simulation = Simulation(device, deadline_s=0.5)
        async with asyncio.TaskGroup() as tasks:
            for camera in cameras:
                tasks.create_task(simulation.camera(camera, 0.8 * device.capacity / 19))
            tasks.create_task(simulation.poisson(10 * device.capacity, "loud"))
        return simulation

    ended = simulate(scene).ended
    answered = [ended[camera]["ok"] / ended[camera].total() for camera in cameras]
    assert min(answered) >= 0.99
    total = sum(each["ok"] for each in ended.values())
    assert total >= 0.95 * device.capacity * device.seconds  # and the loud one has what is left


def test_without_names_the_same_flood_takes_nearly_everything() -> None:
    """What the test above would see if cameras were not told apart."""
    device = TWO_STREAMS

    async def scene() -> Simulation:
        simulation = Simulation(device, deadline_s=0.5)
        await simulation.poisson(10.8 * device.capacity)
        return simulation

    ended = simulate(scene).ended[""]
    assert ended["ok"] / ended.total() < 0.12
