"""What it costs to look at a fleet of played pods, beside doing nothing.

Each of those that are followed has a pod of the stable revision and one on trial. Only looking is
measured, with what follows from it: no cache, no reconcile, no write.
"""

import asyncio
import resource
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from bench.pods import status
from played_pods import CANARY, STABLE
from yolofleet.api.pod_template import SERVER_CONTAINER
from yolofleet.cluster.cache import Cache
from yolofleet.cluster.rounds import Rounds

IDLE_S: Final = 10.0


class Fleet:
    """Detectors of two pods each, and a cache of nothing but these."""

    def __init__(self, size: int) -> None:
        self._pods = {f"default/gate-{number}": _addresses(number) for number in range(size)}

    @property
    def keys(self) -> Sequence[str]:
        """Who is to be followed."""
        return list(self._pods)

    @property
    def revisions(self) -> dict[str, str]:
        """Return the revision of each pod, by its address."""
        return {address: name for pods in self._pods.values() for address, name in pods.items()}

    def cache(self) -> Cache:
        """Return what the operator would have in memory."""
        return cast(Cache, self)

    def pods(self, key: str) -> list[dict[str, Any]]:
        """Return the pods of a detector, as the API server has them."""
        return [
            {
                "metadata": {"uid": address, "labels": {"yolofleet.io/revision": revision}},
                "status": status(address, SERVER_CONTAINER),
            }
            for address, revision in self._pods[key].items()
        ]


def _addresses(number: int) -> dict[str, str]:
    return {
        f"127.{arm}.{number // 250}.{number % 250 + 1}": revision
        for arm, revision in ((1, STABLE), (2, CANARY))
    }


async def cost(
    rounds: Rounds[Any],
    follow: Callable[[str], None],
    keys: Sequence[str],
    *,
    every_s: float,
    warm_up_s: float,
    looks: int,
) -> dict[str, float]:
    """Follow `keys` and return the CPU of this process, once all have been looked at."""
    running = asyncio.create_task(rounds.run())
    began = cpu_s()
    await asyncio.sleep(IDLE_S)
    idle = (cpu_s() - began) / IDLE_S
    for key in keys:
        follow(key)
    await asyncio.sleep(warm_up_s)  # the first looks, and connections
    began, at = cpu_s(), time.monotonic()
    await asyncio.sleep(looks * every_s)
    spent, took = cpu_s() - began, time.monotonic() - at
    running.cancel()
    return {
        "pods": 2 * len(keys),
        "idle_percent_of_a_core": round(100 * idle, 2),
        "percent_of_a_core": round(100 * spent / took, 2),
        "ms_a_look": round(1000 * spent / (len(keys) * looks), 2),
    }


def cpu_s() -> float:
    """Return what this process has spent."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime
