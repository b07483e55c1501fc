"""`python -m fuzz [--inputs 1000000] [--target images] [--seed 7]`: millions of broken inputs.

Stops at the first input that is neither answered nor refused, takes longer than two seconds, or
after which the process has grown without end, and writes that input to a file.
"""

import argparse
import logging
import random
import sys
import time
from pathlib import Path

from fuzz.mutate import mutated
from fuzz.targets import Target, all_targets, attempt

SLOWEST_S = 2.0
MOST_GROWTH_MIB = 200.0
REPORT_EVERY = 50_000


def fuzz(target: Target, inputs: int, seed: int) -> tuple[int, float]:
    """Throw so many inputs; returns how many were taken, and the slowest one's seconds."""
    chance, taken, slowest = random.Random(seed), 0, 0.0
    for number in range(inputs):
        data = mutated(target.seeds, target.words, chance)
        began = time.process_time()  # of this process: the machine may be busy with others
        try:
            taken += attempt(target, data)
        except Exception as error:
            raise AssertionError(f"{target.name}, input {number}: {data!r}") from error
        slowest = max(slowest, time.process_time() - began)
        if slowest > SLOWEST_S:
            raise AssertionError(f"{target.name}, input {number}: {slowest:.1f} s for {data!r}")
    return taken, slowest


def resident_mib() -> float:
    """Read how much memory this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def main() -> int:
    """Fuzz one target or all."""
    parser = argparse.ArgumentParser("fuzz", description=__doc__)
    targets = {target.name: target for target in all_targets()}
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of all targets together")
    parser.add_argument("--target", choices=targets, action="append", help="default: all")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    given = parser.parse_args()
    logging.disable()
    chosen = [targets[name] for name in given.target or targets]
    for target in chosen:
        left, taken, slowest = given.inputs // len(chosen) // target.cost, 0, 0.0
        began = time.monotonic()
        fuzz(target, min(left, 2000 // target.cost), given.seed)  # what is allocated once
        before = resident_mib()
        done = 0
        while done < left:
            some = min(REPORT_EVERY, left - done)
            more, slow = fuzz(target, some, given.seed + done)
            taken, slowest, done = taken + more, max(slowest, slow), done + some
            if (grown := resident_mib() - before) > MOST_GROWTH_MIB:
                print(f"{target.name}: the process has grown by {grown:.0f} MiB")
                return 1
        rate = done / (time.monotonic() - began)
        print(
            f"{target.name:10} {done:9} inputs at {rate:.0f}/s, {taken / done:4.0%} taken, "
            f"slowest {slowest * 1e3:.0f} ms, grown by {resident_mib() - before:.1f} MiB, "
            f"seed {given.seed}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
