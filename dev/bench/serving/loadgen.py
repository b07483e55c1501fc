"""MLPerf's LoadGen on yoloserve: Server against Offline, at two latency bounds."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from bench.serving.assets import HERE, Assets, environment
from bench.serving.measure import SERVICE_TIMES, Numbers
from bench.serving.servers import Cores, Running, running, yoloserve

SHARES: Final = (0.4, 0.5, 0.6, 0.65, 0.7, 0.74, 0.78, 0.82, 0.86, 0.9, 0.94, 0.97, 1.0)
BOUNDS: Final = {8: 0.78, SERVICE_TIMES: 0.9}  # in service times, and the target, tried first


def measure(assets: Assets, cores: Cores, known: Numbers, seconds: float) -> Numbers:
    """Find the highest share of the Offline rate at which 99 % of all requests are in time."""
    found: Numbers = {}
    server = yoloserve("yoloserve", assets)
    with running(server, assets, cores) as target:
        ask = partial(_run, assets, cores, target)
        try:
            ask("Offline", known["capacity"], 0, seconds / 4)  # warm
            offline = ask("Offline", known["capacity"], 0, seconds)["rate"]
        except (subprocess.CalledProcessError, ValueError) as error:
            print(f"no MLPerf LoadGen here: {error}", file=sys.stderr)
            return found
    found["mlperf_offline"] = offline
    for times, start in BOUNDS.items():
        bound_s = times / offline
        with running(server, assets, cores, bound_s * 1000) as target:
            ask = partial(_run, assets, cores, target)
            ask("Server", offline / 2, bound_s, seconds / 4)  # warm

            def holds(
                share: float, ask: Callable[..., Numbers] = ask, bound: float = bound_s
            ) -> bool:
                return ask("Server", share * offline, bound, seconds)["p99_s"] <= bound

            found[f"mlperf_bound_ms_{times}"] = bound_s * 1000
            found[f"mlperf_ratio_{times}"] = highest(SHARES, start, holds)
    return found


def highest(shares: Sequence[float], start: float, holds: Callable[[float], bool]) -> float:
    """Go up from `start` while it holds, or down until it does; 0 if it never does."""
    place = shares.index(start)
    if not holds(start):
        return next((share for share in reversed(shares[:place]) if holds(share)), 0.0)
    for share, next_one in zip(shares[place:], shares[place + 1 :], strict=False):
        if not holds(next_one):
            return share
    return shares[-1]


def _run(
    assets: Assets,
    cores: Cores,
    target: Running,
    scenario: str,
    rate: float,
    bound_s: float,
    seconds: float,
) -> Numbers:
    arguments = (target.url, scenario, rate, bound_s, seconds, *assets.pictures)
    told = subprocess.run(
        [assets.python, HERE / "peers" / "mlperf.py", *map(str, arguments)],
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
        preexec_fn=partial(os.sched_setaffinity, 0, cores.client),
    ).stdout
    numbers: Numbers = json.loads(told.splitlines()[-1])
    return numbers
