"""The sampler over sockets: CPU of the process that looks, beside what it needs to do nothing.

Each release has a pod of the stable revision and one on trial. All are one process of their own on
loopback addresses, and answer with counters of twelve classes that go on. Only looking and judging
is measured: no cache, no reconcile, no write.
"""

import argparse
import asyncio
import json
import multiprocessing
import resource
import time
from datetime import UTC, datetime
from typing import Any, Final, cast

import aiohttp
import uvloop

from bench.sampler.pods import addresses, serve
from played_pods import CANARY, STABLE
from yolofleet.api.analysis import Analysis, Stage
from yolofleet.api.pod_template import SERVER_CONTAINER
from yolofleet.cluster.cache import Cache
from yolofleet.cluster.sampler import PORT, Sampler, fetch_with
from yolofleet.plan.judging import Subject, Trial

IDLE_S: Final = 10.0


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.sampler", description=__doc__)
    parser.add_argument("--releases", type=int, default=100)
    parser.add_argument("--looks", type=int, default=12, help="of each, one each 10 s")
    asked = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    listening = spawn.Event()
    pods = spawn.Process(target=serve, args=(asked.releases, listening), daemon=True)
    pods.start()
    if not listening.wait(60):
        raise SystemExit(f"port {PORT} of this machine is taken")
    print(json.dumps(uvloop.run(_measure(asked.releases, asked.looks))))
    pods.terminate()


async def _measure(releases: int, looks: int) -> dict[str, Any]:
    listed = {f"default/gate-{number}": pods_of(number) for number in range(releases)}
    async with aiohttp.ClientSession() as session:
        news: list[str] = []
        sampler = Sampler(
            cast(Cache, Listed(listed)),
            fetch_with(session),
            wake=news.append,
            now=lambda: datetime.now(UTC),
        )
        running = asyncio.create_task(sampler.rounds.run())
        began = cpu_s()
        await asyncio.sleep(IDLE_S)
        idle = (cpu_s() - began) / IDLE_S
        for key in listed:
            sampler.follow(key, _subject())
        await asyncio.sleep(15)  # the first looks, and connections
        began, at = cpu_s(), time.monotonic()
        await asyncio.sleep(10 * looks)
        spent, took = cpu_s() - began, time.monotonic() - at
        running.cancel()
    read = sum(sampler.found(key) is not None for key in listed)
    verdicts = {str(found.verdict) for key in listed if (found := sampler.found(key))}
    return {
        "releases": releases,
        "pods": 2 * releases,
        "idle_percent_of_a_core": round(100 * idle, 2),
        "percent_of_a_core": round(100 * spent / took, 2),
        "ms_a_look": round(1000 * spent / (releases * looks), 2),
        "found": read,
        "verdicts": sorted(verdicts),
        "news": len(news),
    }


def cpu_s() -> float:
    """Return what this process has spent."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


class Listed:
    """A cache of nothing but pods."""

    def __init__(self, listed: dict[str, list[dict[str, Any]]]) -> None:
        self._listed = listed

    def pods(self, key: str) -> list[dict[str, Any]]:
        """Return the pods of a detector."""
        return self._listed[key]


def _subject() -> Subject:
    trial = Trial(CANARY, STABLE, Stage.DARK, weight=0, following=5)
    return Subject(trial, Analysis(), None, retried="", unpaired="", alone=False)


def pods_of(number: int) -> list[dict[str, Any]]:
    """Return the pods of a release, as the API server tells them."""
    return [
        {
            "metadata": {"uid": address, "labels": {"yolofleet.io/revision": revision}},
            "status": {
                "podIP": address,
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": SERVER_CONTAINER, "restartCount": 0}],
            },
        }
        for address, revision in addresses(number)
    ]


if __name__ == "__main__":
    main()
