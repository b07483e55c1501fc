"""`python -m fuzz [--inputs 1000000] [--target images] [--seed 7]`: millions of broken inputs.

Stops at the first input that is neither answered nor refused, takes longer than two seconds of the
processor, or ends this process, and leaves it in build/fuzz/TARGET; and once the process has grown
without end.
"""

import argparse
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fuzz.mutate import mutated
from fuzz.targets import Target, all_targets, attempt

SLOWEST_S = 2.0
MOST_GROWTH_MIB = 200.0
REPORT_EVERY = 50_000
KEPT = Path("build") / "fuzz"


@contextmanager
def kept(name: str) -> Iterator[Callable[[bytes], None]]:
    """Give what keeps an input in a file; it is left there unless the block ends well.

    Decoders are no Python: what they stumble over may end the process, and nothing could be told.
    """
    KEPT.mkdir(parents=True, exist_ok=True)
    file = KEPT / name
    with file.open("wb", buffering=0) as opened:

        def keep(data: bytes) -> None:
            os.pwrite(opened.fileno(), data, 0)
            os.ftruncate(opened.fileno(), len(data))

        yield keep
    file.unlink()


def fuzz(
    target: Target, inputs: int, seed: int, keep: Callable[[bytes], None] = lambda _: None
) -> tuple[int, float]:
    """Throw so many inputs, each kept before; returns how many were taken, and the slowest's time.

    Raises `AssertionError` at what is neither taken nor refused, or takes too long.
    """
    chance, taken, slowest = random.Random(seed), 0, 0.0
    for number in range(inputs):
        data = mutated(target.seeds, target.words, chance)
        keep(data)
        began = time.process_time()  # of this process: the machine may be busy with others
        try:
            taken += attempt(target, data)
        except Exception as error:
            raise AssertionError(f"{target.name}, input {number}: {error!r}: {data!r}") from error
        slowest = max(slowest, time.process_time() - began)
        if slowest > SLOWEST_S:
            raise AssertionError(f"{target.name}, input {number}: {slowest:.1f} s for {data!r}")
    return taken, slowest


def resident_mib() -> float:
    """Read how much memory this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


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
        inputs = max(1, given.inputs // len(chosen) // target.cost)
        try:
            with kept(target.name) as keep:
                grown = throw(target, inputs, given.seed, keep)
        except AssertionError as error:
            print(f"seed {given.seed}: {str(error)[:2000]}\nit is in {KEPT / target.name}")
            return 1
        if grown > MOST_GROWTH_MIB:
            print(f"{target.name}, seed {given.seed}: the process has grown by {grown:.0f} MiB")
            return 1
    return 0


def throw(target: Target, inputs: int, seed: int, keep: Callable[[bytes], None]) -> float:
    """Throw so many inputs, or until the process has grown too much; return by how many MiB."""
    fuzz(target, min(inputs, 2000 // target.cost), seed, keep)  # what is allocated once
    before, began = resident_mib(), time.monotonic()
    done, taken, slowest, grown = 0, 0, 0.0, 0.0
    while done < inputs and grown <= MOST_GROWTH_MIB:
        some = min(REPORT_EVERY, inputs - done)
        more, slow = fuzz(target, some, seed + done, keep)
        taken, slowest, done = taken + more, max(slowest, slow), done + some
        grown = resident_mib() - before
    rate = done / (time.monotonic() - began)
    print(
        f"{target.name:10} {done:9} inputs at {rate:.0f}/s, {taken / done:4.0%} taken, "
        f"slowest {slowest * 1e3:.0f} ms, grown by {grown:.1f} MiB, seed {seed}",
        flush=True,
    )
    return grown


if __name__ == "__main__":
    sys.exit(main())
