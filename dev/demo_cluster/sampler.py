"""The log of a release: weights and replicas each 100 ms, and what in them breaks a promise."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from aiohttp import ClientError

from cluster.paths import tools
from controlplane.kube import Kube, connect
from yolofleet.api.names import DETECTOR_LABEL
from yolofleet.cluster import kinds
from yolofleet.runtime.errors import ClusterError

EVERY_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen at one moment: pods first, then the route.

    at: seconds, monotonic, between the two. However long either takes to be answered, pods were
    gone by then, and a weight was there still: what lies between them is told too long at most.
    """

    at: float
    ready: dict[str, int]
    replicas: dict[str, int]
    weights: dict[str, int]


class Sampler:
    """Samples one detector in a thread of its own, also across a restart of the API server."""

    def __init__(self, namespace: str, detector: str) -> None:
        self._namespace = namespace
        self._detector = detector
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self.samples: list[Sample] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        asyncio.run(self._sample())

    async def _sample(self) -> None:
        async with connect(tools().kubeconfig, timeout_s=30.0, connect_s=5.0) as client:
            kube = Kube(client)
            while not self._stop.is_set():
                started = time.monotonic()
                # while the API server is away nothing can be seen, and nothing changes
                with contextlib.suppress(ClusterError, ClientError, TimeoutError):
                    self.samples.append(await self._look(kube))
                await asyncio.sleep(max(0.0, EVERY_S - (time.monotonic() - started)))

    async def _look(self, kube: Kube) -> Sample:
        its = f"{DETECTOR_LABEL}={self._detector}"
        deployments = await kube.list(kinds.DEPLOYMENT, self._namespace, its)
        at = time.monotonic()
        route = await kube.get(kinds.VIRTUAL_SERVICE, self._namespace, self._detector)
        return Sample(
            at=at,
            ready={
                d["metadata"]["name"]: d.get("status", {}).get("availableReplicas", 0)
                for d in deployments
            },
            replicas={d["metadata"]["name"]: d["spec"]["replicas"] for d in deployments},
            weights={
                to["destination"]["host"].split(".")[0]: to.get("weight", 0)
                for to in route["spec"]["http"][-1]["route"]
            },
        )


def broken_promises(samples: Sequence[Sample], *, full: int, drain_s: float) -> Iterator[str]:
    """Tell each moment at which weights or pods were not as a release promises.

    full: replicas that carry the whole traffic. drain_s: how long pods outlive their last weight.
    """
    last_weight: dict[str, float] = {}
    for number, now in enumerate(samples):
        before = samples[max(number - 1, 0)]
        after = samples[min(number + 1, len(samples) - 1)]
        if sum(now.weights.values()) != 100:
            yield f"weights do not sum to 100: {now.weights}"
        for name, weight in now.weights.items():
            ready = max(each.ready.get(name, 0) for each in (before, now, after))
            if weight > before.weights.get(name, 0) and 100 * ready // full < weight:
                yield f"{name} was raised to {weight} % with {ready} of {full} ready"
            if weight:
                last_weight[name] = now.at
        for name, replicas in now.replicas.items():
            went = before.replicas.get(name, 0) and not replicas
            if went and now.at - last_weight.get(name, 0.0) < drain_s:
                yield f"{name} lost its pods {now.at - last_weight[name]:.1f} s after its weight"
