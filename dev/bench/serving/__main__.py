"""`make bench-serving`: yoloserve and its peers in turns, then the table.

The last line is `bench-serving-result: {json}`. Nothing is written but the cache of what a run
needs (~/.cache/yolofleet/bench): the peers' environment, the network, pictures, servers' logs.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

from bench.rounds import in_turn, medians
from bench.serving import ceiling, loadgen, perf_analyzer
from bench.serving.assets import Assets, prepare
from bench.serving.measure import Client, Numbers, Plan, client, one_round
from bench.serving.report import machine, table, verdicts
from bench.serving.servers import Cores, Server, servers

EX_TERMINATED = 128 + signal.SIGTERM
FULL = Plan(closed_s=3, open_s=5, engine_s=2)
QUICK = Plan(closed_s=1.5, open_s=2, engine_s=1)


def main() -> int:
    """Run what was asked for."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EX_TERMINATED))  # no server stays behind
    options = _options()
    if options.ceiling:
        ways = ceiling.ways(options.against, options.fronts, options.replicas)
        return ceiling.measure(ways, options.rounds or 2, quick=options.quick)
    assets, cores = prepare(), Cores.split()
    compared = [s for s in servers(assets) if not options.only or s.name in options.only]
    rounds = options.rounds or (1 if options.quick else 2)
    plan = QUICK if options.quick else FULL
    load_before = os.getloadavg()[0]
    with client(assets, cores) as asking:
        results = _rounds(compared, rounds, assets, cores, asking, plan)
    standard: Numbers = {}
    if "yoloserve" in results:
        standard |= loadgen.measure(assets, cores, results["yoloserve"], plan.open_s)
        standard |= perf_analyzer.measure(assets, cores, plan.closed_s / 2)
    where = f"{machine()}; {cores}; load before: {load_before:.1f}"
    judged = verdicts(results, standard)
    print(f"\n{table(results, standard, judged)}\n\n{where}")
    told = {
        "servers": results,
        "standard_tools": standard,
        "verdicts": [verdict.as_dict() for verdict in judged],
        "machine": where,
        "rounds": rounds,
        "quick": options.quick,
    }
    print(f"bench-serving-result: {json.dumps(told)}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.serving", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: does it work at all")
    parser.add_argument("--rounds", type=int, default=0, help="how often each has its turn (2)")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="these servers")
    parser.add_argument(
        "--ceiling",
        action="store_true",
        help="without peers and networks: what everything but the network can do, on the stub",
    )
    parser.add_argument(
        "--against",
        nargs="*",
        default=[],
        type=Path,
        metavar="CHECKOUT",
        help="the ceiling of these checkouts in the same run, too",
    )
    parser.add_argument(
        "--fronts",
        nargs="*",
        default=[],
        type=int,
        metavar="N",
        help="the ceiling with N front processes before the engine's in the same run, too",
    )
    parser.add_argument(
        "--replicas",
        nargs="*",
        default=[],
        type=int,
        metavar="N",
        help="that of N processes with an engine each, asked in turns, too",
    )
    return parser.parse_args()


def _rounds(
    compared: list[Server],
    rounds: int,
    assets: Assets,
    cores: Cores,
    asking: Client,
    plan: Plan,
) -> dict[str, Numbers]:
    """Give each its turn, every other round from the back; return the medians."""
    found: dict[str, list[Numbers]] = {server.name: [] for server in compared}
    for number in range(rounds):
        for server in in_turn(compared, number):
            began, load = time.time(), os.getloadavg()[0]
            numbers = one_round(server, assets, cores, asking, plan, seed=number)
            found[server.name].append(numbers)
            told = json.dumps({name: round(value, 3) for name, value in numbers.items()})
            took = f"{time.time() - began:.0f} s, load before {load:.1f}"
            print(f"{number} {server.name} ({took}): {told}", flush=True)
    return {name: medians(many) for name, many in found.items()}


if __name__ == "__main__":
    sys.exit(main())
