"""Simulate many releases and say how many fail, pass, and how soon: `python -m judging FILE`.

Each case is written to FILE (JSON lines) as it is done, and one that is there is not run again.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from math import log
from pathlib import Path
from typing import Any

import numpy as np

from judging import scenes
from yolofleet.analysis.statistics import (
    ALPHA,
    LATENCY_LEAST,
    PASS_LOOKS,
    Demand,
    Tally,
    ceiling,
    evidence,
    floor,
    has_failed,
    has_passed,
    is_in_time,
    is_slow,
    looked,
)
from yolofleet.api.analysis import Analysis

Row = dict[str, Any]
RATES = {
    1: (scenes.Traffic(1, 1), 3600),
    20: (scenes.Traffic(4, 5), 1800),
    200: (scenes.Traffic(40, 5), 600),
}
_ASKED = Analysis()
KEPT = Demand(floor(_ASKED.min_kept), 150)
OF_CLASS = Demand(floor(_ASKED.min_kept_by_class), 30, ALPHA / 4)
OF_SIZE = Demand(floor(_ASKED.min_kept_by_size), 30, ALPHA / 3)
GOOD = {
    "equal": (0.97, 0.0, 3.0, KEPT),
    "quantised": (0.985, 0.0, 3.0, KEPT),
    "better": (0.95, 0.0, 3.0, KEPT),
    "retrained, keeps 0.89": (0.89, 0.0, 3.0, KEPT),
    "equal, scenes drift": (0.97, 0.7, 3.0, KEPT),
    "better, scenes drift": (0.95, 0.4, 3.0, KEPT),
    "retrained, keeps 0.89, scenes drift": (0.89, 0.4, 3.0, KEPT),
    "class of 5 %, equal": (0.97, 0.0, 0.15, OF_CLASS),
    "class of 5 %, equal, scenes drift": (0.97, 0.7, 0.15, OF_CLASS),
    "class of 5 %, retrained, keeps 0.8": (0.8, 0.0, 0.15, OF_CLASS),
}
EDGE = {
    "retrained, keeps 0.85": (0.85, 0.0, 3.0, KEPT),
    "at the limit, keeps 0.80": (0.8, 0.0, 3.0, KEPT),
    "a fifth is lost, keeps 0.776": (0.776, 0.0, 3.0, KEPT),
}
BAD = {
    "blind": (0.0005, 0.0, 3.0, KEPT),
    "half is lost": (0.5, 0.0, 3.0, KEPT),
    "a third is lost": (0.667, 0.0, 3.0, KEPT),
    "a quarter is lost": (0.74, 0.0, 3.0, KEPT),
    "class of 5 % swapped": (0.02, 0.0, 0.15, OF_CLASS),
    "small objects (a fifth) keep 0.4": (0.4, 0.0, 0.6, OF_SIZE),
}
ERRORS = ((0.001, 0.01), (0.003, 0.01), (0.02, 0.01), (0.02, 0.005), (0.2, 0.01))
TIMES = ((1.0, 0.0), (1.1, 0.0), (1.3, 0.0), (2.0, 0.0), (1.0, 0.05))
LATE = {"blind": 0.0005, "a third is lost": 0.667}
_CHUNK = 50


def walked(k: scenes.Ints, n: scenes.Ints, demand: Demand, since: int = 0) -> tuple[int, int, bool]:
    """Return at which look one release failed and passed first (0: never), and whether lately.

    lately: whether the sums alone would not have failed it then. since: from which look on a
    failure counts as found.
    """
    tally, failed, passed, lately = Tally(), 0, 0, False
    for number, (counted, all_) in enumerate(zip(k.tolist(), n.tolist(), strict=True), 1):
        tally = looked(tally, counted, all_, demand)
        if has_failed(tally):
            whole = evidence(tally.k, tally.n, demand.limit.beyond, tally.design())
            failed, lately = max(number - since, 1), whole < log(2 / demand.alpha)
            break
        if not passed and has_passed(tally, demand):
            passed = number
    return failed, passed, lately


def of_objects(
    seed: int, per_second: int, releases: int, case: tuple[float, float, float, Demand], late_s: int
) -> Row:
    """Simulate what is kept; with late_s, the release is equal until then."""
    keeps, drift, objects, demand = case
    traffic, seconds = RATES[per_second]
    traffic = scenes.Traffic(traffic.cameras, traffic.fps, objects)
    rng = np.random.default_rng(seed)
    found = []
    for begin in range(0, releases, _CHUNK):
        some = min(_CHUNK, releases - begin)
        k, n = scenes.looks(rng, traffic, releases=some, seconds=seconds, keeps=keeps, drift=drift)
        if late_s:
            good = scenes.looks(rng, traffic, releases=some, seconds=late_s, keeps=0.97)
            k, n = np.hstack([good[0], k]), np.hstack([good[1], n])
        found += [walked(k[i], n[i], demand, late_s // scenes.LOOK_S) for i in range(some)]
    return summary(found, releases)


def summary(found: list[tuple[int, int, bool]], releases: int) -> Row:
    """Return how many failed, and how soon; a release that failed first did not pass."""
    failed = [f * scenes.LOOK_S for f, _, _ in found if f]
    first = [p * scenes.LOOK_S for f, p, _ in found if p]
    return {
        "releases": releases,
        "failed": len(failed),
        "failed_lately": sum(lately for _, _, lately in found),
        "failed_at_s": spread(failed),
        "passed": len(first),
        "passed_at_s": spread(first),
    }


def spread(values: list[int]) -> list[float] | None:
    """Return the median and the 95th percentile."""
    return [float(np.median(values)), float(np.quantile(values, 0.95))] if values else None


def of_errors(seed: int, per_second: int, releases: int, rate: float, limit: float) -> Row:
    """Simulate failing requests against a limit."""
    looks = {1: 720, 20: 180, 200: 60}[per_second]
    rng = np.random.default_rng(seed)
    per_look = per_second * scenes.LOOK_S
    bad = scenes.failures(rng, per_look, shape=(releases, looks), rate=rate)
    demand = Demand(ceiling(limit), 100, design=3.0, patient=False)
    all_ = np.full(looks, per_look)
    return summary([walked(bad[i], all_, demand) for i in range(releases)], releases)


def of_latency(seed: int, per_second: int, releases: int, slower: float, tail: float) -> Row:
    """Simulate how long answers to the same pictures take."""
    looks = {1: 720, 20: 180, 200: 60}[per_second]
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(releases):
        count = per_second * scenes.LOOK_S
        stable, canary = scenes.times(
            rng, looks=looks, stable=count, canary=count, slower=slower, tail=tail
        )
        found.append(timed(stable.cumsum(axis=0), canary.cumsum(axis=0)))
    return summary(found, releases)


def timed(stable: scenes.Ints, canary: scenes.Ints) -> tuple[int, int, bool]:
    """Return at which look latency failed and passed first (0: never)."""
    failing = passed = 0
    for number, (ours, its) in enumerate(zip(stable.tolist(), canary.tolist(), strict=True), 1):
        failing = failing + 1 if is_slow(tuple(ours), tuple(its), 2) else 0
        if failing == 2:
            return number, passed, False
        proved = not passed and sum(its) >= LATENCY_LEAST and number >= PASS_LOOKS
        if proved and not failing and is_in_time(tuple(ours), tuple(its), 2):
            passed = number
    return 0, passed, False


def cases(scale: float) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Name every case, with what runs it."""

    def several(most: int) -> int:
        return max(int(most * scale), 20)

    for rate in RATES:
        seed = 100 * rate
        for name, case in (GOOD | EDGE | BAD).items():
            many = several(2000 if name in GOOD else 300) // (2 if rate == 200 else 1)
            seed += 1
            yield f"kept | {rate} rps | {name}", partial(of_objects, seed, rate, many, case, 0)
        for name, keeps in LATE.items():
            for late_s in (600, 3600):
                case = (keeps, 0.0, 3.0, KEPT)
                seed += 1
                yield (
                    f"kept | {rate} rps | {name} after {late_s // 60} min",
                    partial(of_objects, seed, rate, several(100), case, late_s),
                )
        for share, limit in ERRORS:
            seed += 1
            yield (
                f"errors | {rate} rps | {share:.1%} of requests, limit {limit}",
                partial(of_errors, seed, rate, several(1000), share, limit),
            )
        for slower, tail in TIMES:
            seed += 1
            yield (
                f"latency | {rate} rps | {'5 % of answers x3' if tail else f'x{slower}'}",
                partial(of_latency, seed, rate, several(200), slower, tail),
            )


def main() -> None:
    """Run what FILE does not have yet, and print all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="where results are kept, as JSON lines")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of releases")
    parser.add_argument("--only", default="", help="cases whose names have this in them")
    asked = parser.parse_args()
    lines = asked.file.read_text().splitlines() if asked.file.exists() else []
    done = {row["case"]: row for row in map(json.loads, lines)}
    for name, run in cases(asked.scale):
        if asked.only not in name:
            continue
        if name not in done:
            began = time.monotonic()
            done[name] = {"case": name, **run(), "took_s": round(time.monotonic() - began, 1)}
            with asked.file.open("a") as out:
                out.write(json.dumps(done[name]) + "\n")
        print(json.dumps(done[name]))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
