"""The counters of a release by way of a real Prometheus: bytes and times.

Pods are played, on one port, a path each; their names are labels as a PodMonitor makes them. What
is read must be what the pods tell.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp

from played_pods import CANARY, STABLE, Server
from played_prometheus import metrics, text
from real_prometheus import Target, pages, running
from yolofleet.analysis.evidence import Evidence, parse
from yolofleet.analysis.prometheus import Scraped, in_parts, query, read
from yolofleet.cluster.prometheus import Query, http_query
from yolofleet.cluster.sampler import to_pods

CLASSES: Final = 12
SCRAPED_EVERY_S: Final = 2
ROUNDS: Final = 20


def main() -> None:
    """Measure, and print one line of JSON for each number of pods."""
    parser = argparse.ArgumentParser(prog="python -m bench.sampler.prometheus", description=__doc__)
    parser.add_argument("--pods", type=int, nargs="*", default=[2, 20, 100])
    asked = parser.parse_args()
    for pods in asked.pods:
        print(json.dumps(asyncio.run(_measure(pods))))


async def _measure(pods: int) -> dict[str, Any]:
    servers = {f"pod-{n}": _server(f"pod-{n}", CANARY if n % 2 else STABLE) for n in range(pods)}
    told = {f"/{name}": partial(_text, server) for name, server in servers.items()}
    every = f"{SCRAPED_EVERY_S}s"
    with tempfile.TemporaryDirectory() as folder, pages(told) as address:
        targets = [
            Target(address, f"/{name}", {"namespace": "shop", "pod": name}) for name in servers
        ]
        with running(Path(folder), targets, every=every) as prometheus:
            async with to_pods() as session:
                return await _ask(http_query(session, prometheus.url), servers)


def _server(name: str, revision: str) -> Server:
    server = Server(name, revision, capacity=40.0)
    for number in range(CLASSES):
        server.answers(100, ms=20 + number, **{f"class {number}": 150})
        for size in range(3):
            server.pair(f"class {number}", 100, 97, size=size, added=3)
    server.frame(1000)
    for arm in server.compute.values():
        arm[30] += 1000
    return server


def _text(server: Server) -> str:
    return text(metrics(server))


async def _ask(ask: Query, servers: dict[str, Server]) -> dict[str, Any]:
    names = {name: server.revision for name, server in servers.items()}
    parts = list(in_parts(names))
    queries = [query(some, namespace="shop", canary=CANARY) for some in parts]
    async with asyncio.timeout(120):
        for asked, some in zip(queries, parts, strict=True):
            while not all(  # noqa: ASYNC110 (it is scraped when it is)
                isinstance(each, Scraped) for each in (await _read(ask, asked, some)).values()
            ):
                await asyncio.sleep(0.5)
    answered, parsed, size, series = [], [], 0, 0
    for _ in range(ROUNDS):
        began = time.perf_counter()
        answers = [await ask(asked) for asked in queries]
        answered.append(time.perf_counter() - began)
        began = time.perf_counter()
        found: dict[str, Scraped | str] = {}
        for (status, body), some in zip(answers, parts, strict=True):
            found |= read(body, some, status=status)
        parsed.append(time.perf_counter() - began)
        size = sum(len(body) for _, body in answers)
        series = sum(body.count(b'"metric"') for _, body in answers)
        await asyncio.sleep(SCRAPED_EVERY_S / 3)
    return {
        "pods": len(servers),
        "queries": len(queries),
        "query_bytes": max(map(len, queries)),
        "series": series,
        "answer_kib": size // 1024,
        "answered_ms": round(1000 * statistics.median(answered), 1),
        "read_ms": round(1000 * statistics.median(parsed), 1),
        "as_the_pods_tell": all(_same(found[name], servers[name]) for name in servers),
    }


async def _read(ask: Query, asked: str, names: Mapping[str, str]) -> dict[str, Scraped | str]:
    try:
        status, body = await ask(asked)
    except (OSError, TimeoutError, aiohttp.ClientError) as error:
        return dict.fromkeys(names, str(error))
    return read(body, names, status=status)


def _same(told: Scraped | str, server: Server) -> bool:
    direct = parse(server.evidence(), revision=server.revision)
    return (
        isinstance(told, Scraped)
        and isinstance(direct, Evidence)
        and told.evidence.detections == direct.detections
        and told.evidence.requests == direct.requests
        and told.evidence.latency["request"].whole() == direct.latency["request"].whole()
        and {name: each.kept for name, each in told.evidence.shadow.items()}
        == {name: each.kept for name, each in direct.shadow.items()}
    )


if __name__ == "__main__":
    main()
