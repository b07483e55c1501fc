"""The sampler over sockets: CPU of the process that looks, beside what it needs to do nothing.

Each release has a pod of the stable revision and one on trial. All are one process of their own on
loopback addresses, and answer with counters of twelve classes that go on.
"""

import argparse
import json
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
import uvloop

from bench.looking import Fleet, cost
from bench.pods import played
from played_pods import CANARY, STABLE
from yolofleet.api.analysis import Analysis, Stage
from yolofleet.cluster.sampler import Sampler, fetch_with
from yolofleet.plan.judging import Subject, Trial

EVERY_S: Final = 10.0
WARM_UP_S: Final = 15.0
TRIAL: Final = Trial(CANARY, STABLE, Stage.DARK, weight=0, following=5)


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.sampler", description=__doc__)
    parser.add_argument("--releases", type=int, default=100)
    parser.add_argument("--looks", type=int, default=12, help="of each, one each 10 s")
    asked = parser.parse_args()
    fleet = Fleet(asked.releases)
    with played(fleet.revisions):
        print(json.dumps(uvloop.run(_measure(fleet, asked.looks))))


async def _measure(fleet: Fleet, looks: int) -> dict[str, Any]:
    news = list[str]()
    async with aiohttp.ClientSession() as session:
        sampler = Sampler(
            fleet.cache(),
            fetch_with(session),
            wake=news.append,
            now=lambda: datetime.now(UTC),
        )
        spent = await cost(
            sampler.rounds,
            lambda key: sampler.follow(key, _subject()),
            fleet.keys,
            every_s=EVERY_S,
            warm_up_s=WARM_UP_S,
            looks=looks,
        )
    found = [status for key in fleet.keys if (status := sampler.found(key))]
    verdicts = sorted({str(status.verdict) for status in found})
    seen = {"found": len(found), "verdicts": verdicts, "news": len(news)}
    return {"releases": len(fleet.keys)} | spent | seen


def _subject() -> Subject:
    return Subject(TRIAL, Analysis(), None, retried="", unpaired="", alone=False)


if __name__ == "__main__":
    main()
