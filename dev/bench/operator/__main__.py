"""`make bench-operator`: measure the operator at each size and print the table.

With `--peers`: measure it beside the managers of KubeRay and KServe, which are built on demand.
The last line is `bench-operator-result: {json}`. Nothing is written to any file that stays.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

from bench.operator.audit import audited_plane
from bench.operator.beside import measured
from bench.operator.contenders import CONTENDERS
from bench.operator.fleet import Fleet
from bench.operator.phases import PHASES, Bench, Numbers
from bench.operator.report import missed, side_by_side, table
from controlplane.installation import ISTIO_CRDS, install
from controlplane.kube import Kube, connect
from yolofleet.runtime.errors import ClusterError


def main() -> int:
    """Run what was asked for."""
    options = _options()
    if options.peers is not None:
        return _beside(options)
    results: dict[int, Numbers] = {}
    for size in options.sizes or [10, 100, 1000]:
        results[size] = asyncio.run(measure(size, options.idle, options.only))
    print()
    print(table(results))
    print(f"\n{_machine()}")
    result = {"sizes": results, "missed": missed(results), "machine": _machine()}
    print(f"bench-operator-result: {json.dumps(result)}")
    return 0


def _beside(options: argparse.Namespace) -> int:
    """Measure those that were asked for beside each other."""
    chosen = [each for each in CONTENDERS if not options.peers or each.name in options.peers]
    result: dict[int, dict[str, Numbers]] = {}
    for size in options.sizes or [200]:
        result[size] = measured(chosen, size, options.idle, options.rounds)
        print(f"\n{size:,} objects:\n\n{side_by_side(result[size])}\n")
    print(_machine())
    print(f"bench-operator-result: {json.dumps({'beside': result, 'machine': _machine()})}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.operator", description=__doc__)
    parser.add_argument(
        "--sizes",
        type=lambda text: [int(each) for each in text.split(",")],
        help="how many detectors: 10,100,1000 (3000 takes half an hour more); 200 beside peers",
    )
    parser.add_argument("--idle", type=float, default=60.0, help="seconds of idleness to measure")
    names = [phase.__name__ for phase in PHASES]
    parser.add_argument("--only", nargs="*", choices=names, default=names, help="these phases")
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=[each.name for each in CONTENDERS],
        help="beside its peers, or beside these only; each is measured on a fresh control plane",
    )
    parser.add_argument("--rounds", type=int, default=1, help="of peers in turns; their median")
    return parser.parse_args()


async def measure(size: int, idle_s: float, only: list[str]) -> Numbers:
    """Measure a fleet of `size` on a control plane of its own."""
    numbers: Numbers = {"size": size}
    with (
        tempfile.TemporaryDirectory(prefix="yolofleet-bench-") as logs,
        audited_plane() as (plane, audit),
    ):
        await install(plane)
        async with connect(plane.kubeconfig()) as client:
            kube = Kube(client)
            await kube.install(ISTIO_CRDS)
            fleet = Fleet(kube, size)
            await fleet.prepare()
            bench = Bench(plane, audit, kube, fleet, Path(logs), idle_s)
            try:
                for phase in PHASES:
                    if phase.__name__ in only:
                        began, load = time.time(), os.getloadavg()[0]
                        try:
                            found = await phase(bench)
                        except (
                            AssertionError,
                            TimeoutError,
                            ClusterError,
                        ) as error:  # a number less, not all
                            print(f"{size:>5} {phase.__name__} FAILED: {error}", flush=True)
                            continue
                        numbers |= found
                        told = json.dumps({name: round(value, 4) for name, value in found.items()})
                        took = f"{time.time() - began:.0f} s, load before {load:.1f}"
                        print(f"{size:>5} {phase.__name__} ({took}): {told}", flush=True)
            finally:
                bench.end()
    return numbers


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()};"
        " operator, API server, etcd and this benchmark share them"
    )


if __name__ == "__main__":
    sys.exit(main())
