"""The floors over sockets: CPU of the process that asks pods for their load, beside doing nothing.

Each detector has two pods; all are one process of their own on loopback addresses. Only asking and
deciding is measured: no cache, no reconcile, no write.
"""

import argparse
import asyncio
import json
import multiprocessing
import time
from datetime import UTC, datetime
from typing import Any, Final, cast

import aiohttp
import uvloop

from bench.sampler.__main__ import Listed, cpu_s, pods_of
from bench.sampler.pods import serve
from played_pods import STABLE
from yolofleet.cluster.cache import Cache
from yolofleet.cluster.floors import Floors
from yolofleet.cluster.sampler import PORT, fetch_with
from yolofleet.plan.floor import EVERY, Targets
from yolofleet.plan.scaler import Followed

IDLE_S: Final = 10.0
FOLLOWED: Final = Followed(STABLE, Targets(1, 10, load=70, in_flight=4), 2)


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.floors", description=__doc__)
    parser.add_argument("--detectors", type=int, default=100)
    parser.add_argument("--looks", type=int, default=8, help="of each, one each 15 s")
    asked = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    listening = spawn.Event()
    pods = spawn.Process(target=serve, args=(asked.detectors, listening), daemon=True)
    pods.start()
    if not listening.wait(60):
        raise SystemExit(f"port {PORT} of this machine is taken")
    print(json.dumps(uvloop.run(_measure(asked.detectors, asked.looks))))
    pods.terminate()


async def _measure(detectors: int, looks: int) -> dict[str, Any]:
    listed = {f"default/gate-{number}": pods_of(number) for number in range(detectors)}
    async with aiohttp.ClientSession() as session:
        news: list[str] = []
        floors = Floors(
            cast(Cache, Listed(listed)),
            fetch_with(session),
            wake=news.append,
            now=lambda: datetime.now(UTC),
        )
        running = asyncio.create_task(floors.rounds.run())
        began = cpu_s()
        await asyncio.sleep(IDLE_S)
        idle = (cpu_s() - began) / IDLE_S
        for key in listed:
            floors.follow(key, FOLLOWED)
        await asyncio.sleep(2 * EVERY.total_seconds())  # the first looks, and connections
        began, at = cpu_s(), time.monotonic()
        await asyncio.sleep(looks * EVERY.total_seconds())
        spent, took = cpu_s() - began, time.monotonic() - at
        running.cancel()
    found = [moved.floor for key in listed if (moved := floors.found(key))]
    return {
        "detectors": detectors,
        "pods": 2 * detectors,
        "idle_percent_of_a_core": round(100 * idle, 2),
        "percent_of_a_core": round(100 * spent / took, 2),
        "ms_a_look": round(1000 * spent / (detectors * looks), 2),
        "known": sum(floor.demand is not None for floor in found),
        "news": len(news),
    }


if __name__ == "__main__":
    main()
