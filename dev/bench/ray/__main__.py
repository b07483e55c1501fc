"""`make bench-ray`: yoloserve alone, on Ray behind its proxy, and behind HAProxy, in turns.

One replica of the bundled model each, the same pictures, the same deadline; requests carry the
stamp of a gateway, and the server counts from it. The last line is `bench-ray-result: {json}`.
"""

import argparse
import json
import secrets
import signal
import sys
import time
from typing import Final

from bench.rounds import in_turn, medians
from bench.serving.assets import CACHE, pictures_only
from bench.serving.measure import Client, Numbers, client
from bench.serving.report import machine
from bench.serving.servers import Cores, Running, Server, running

DEADLINE_S: Final = 0.5
IDLE_S, CLOSED_S, OPEN_S = 8.0, 5.0, 8.0
EX_TERMINATED = 128 + signal.SIGTERM
SETTINGS: Final = (
    f"YOLOSERVE_DEADLINE_MS={DEADLINE_S * 1000:.0f}",
    "YOLOSERVE_TRUST_REQUEST_START=true",
    "RAY_USAGE_STATS_ENABLED=0",
    "RAY_AUTH_MODE=token",
    f"RAY_AUTH_TOKEN={secrets.token_hex(16)}",
)


def main() -> int:
    """Measure each in its turn, every other round from the back; print medians."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EX_TERMINATED))  # no server stays behind
    parser = argparse.ArgumentParser(prog="bench.ray", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="how often each has its turn (2)")
    rounds: int = parser.parse_args().rounds
    assets, cores = pictures_only("ray"), Cores.split()
    compared = _servers()
    found: dict[str, list[Numbers]] = {server.name: [] for server in compared}
    with client(assets, cores) as asking:
        for number in range(rounds):
            for server in in_turn(compared, number):
                with running(server, assets, cores) as target:
                    numbers = _one(target, asking, number)
                found[server.name].append(numbers)
                told = json.dumps({name: round(value, 3) for name, value in numbers.items()})
                print(f"{number} {server.name}: {told}", flush=True)
    usual = {
        name: {each: round(value, 3) for each, value in medians(many).items()}
        for name, many in found.items()
    }
    where = f"{machine()}; {cores}"
    print(f"bench-ray-result: {json.dumps({'servers': usual, 'machine': where})}")
    return 0


def _one(target: Running, asking: Client, seed: int) -> Numbers:
    """Return what one started server gives."""
    numbers: Numbers = {"ready_s": target.ready_s}
    asking.closed(target, 4, 2)  # warm
    before = sum(target.cpu_s().values())
    time.sleep(IDLE_S)
    numbers["idle_cores"] = (sum(target.cpu_s().values()) - before) / IDLE_S
    load = asking.closed(target, 1, CLOSED_S)
    numbers |= {"p50_ms": load.quantile_ms(0.5), "p99_ms": load.quantile_ms(0.99)}
    load = asking.closed(target, 4, CLOSED_S)
    capacity = numbers["capacity"] = load.rate()
    numbers["cpu_ms"] = load.cpu_ms()
    for share in (1.2, 2.0):
        load = asking.open(target, share * capacity, OPEN_S, seed, deadline_s=DEADLINE_S)
        numbers[f"goodput_{share}"] = load.rate(DEADLINE_S) / capacity
        numbers[f"late_{share}"] = load.late(DEADLINE_S)
        numbers[f"refused_{share}"] = load.refused()
        numbers[f"p99_ms_{share}"] = load.quantile_ms(0.99)
    numbers["memory_mib"] = target.memory_mib()
    return numbers


def _servers() -> tuple[Server, ...]:
    cache = f"YOLOSERVE_CACHE_DIR={CACHE / 'ray' / 'yoloserve'}"

    def server(name: str, *words: str) -> Server:
        return Server(name, ("env", *SETTINGS, cache, *words), path="/v1/detect", stamped=True)

    hosted = (sys.executable, "-m", "bench.ray.hosted", "{port}")
    return (
        server("alone", sys.executable, "-m", "yoloserve", "serve", "--port", "{port}"),
        server("ray", *hosted),
        server("ray-haproxy", "RAY_SERVE_ENABLE_HA_PROXY=1", *hosted),
    )


if __name__ == "__main__":
    sys.exit(main())
