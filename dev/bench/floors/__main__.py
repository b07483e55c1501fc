"""The floors over sockets: CPU of the process that asks pods for their load, beside doing nothing.

Pods are played, two of each detector, in one process of their own on loopback addresses.
"""

import argparse
import json
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
import uvloop

from bench.looking import Fleet, cost
from bench.pods import played
from played_pods import STABLE
from yolofleet.cluster.floors import Floors
from yolofleet.cluster.sampler import fetch_with
from yolofleet.plan.floor import EVERY, Targets
from yolofleet.plan.scaler import Followed

FOLLOWED: Final = Followed(STABLE, Targets(1, 10, load=70, in_flight=4), 2)


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.floors", description=__doc__)
    parser.add_argument("--detectors", type=int, default=100)
    parser.add_argument("--looks", type=int, default=8, help="of each, one each 15 s")
    asked = parser.parse_args()
    fleet = Fleet(asked.detectors)
    with played(fleet.revisions):
        print(json.dumps(uvloop.run(_measure(fleet, asked.looks))))


async def _measure(fleet: Fleet, looks: int) -> dict[str, Any]:
    every_s, news = EVERY.total_seconds(), list[str]()
    async with aiohttp.ClientSession() as session:
        floors = Floors(
            fleet.cache(),
            fetch_with(session),
            wake=news.append,
            now=lambda: datetime.now(UTC),
        )
        spent = await cost(
            floors.rounds,
            lambda key: floors.follow(key, FOLLOWED),
            fleet.keys,
            every_s=every_s,
            warm_up_s=2 * every_s,
            looks=looks,
        )
    found = [moved.floor for key in fleet.keys if (moved := floors.found(key))]
    known = sum(floor.demand is not None for floor in found)
    return {"detectors": len(fleet.keys)} | spent | {"known": known, "news": len(news)}


if __name__ == "__main__":
    main()
