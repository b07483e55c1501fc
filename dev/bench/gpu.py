"""`make bench-gpu`: the engine alone and the whole path on an NVIDIA GPU, old and new in one run.

It measures the bundled model with each runtime that is installed, downloads nothing, and ends
within ten minutes. What cannot be had here is "not run", and why. `ARGS='--against ../before'` lets
another checkout of this repository take turns with this one. The last line is `bench-gpu-result:
{json}`.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from bench.rounds import in_turn, medians
from bench.serving.assets import ROOT, pictures_only

MOST_S: Final = 600.0
LONGEST_S: Final = 150.0  # of one measurement: TensorRT compiles for minutes, once
SECONDS: Final = 4
CALLERS: Final = 32
BATCH: Final = 16
ROUNDS: Final = 2
NOT_RUN: Final = "not run"


@dataclass(frozen=True, slots=True)
class Way:
    """A runtime, and how it is asked."""

    backend: str
    package: str
    profile: str
    precision: str = "fp16"

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}, {self.profile}"

    def command(self, picture: Path, cache: Path) -> list[str]:
        """Return what measures it."""
        callers, batch = (CALLERS, BATCH) if self.profile == "throughput" else (4, 1)
        return [
            *(sys.executable, "-m", "yoloserve", "bench", str(picture)),
            *("--backend", self.backend, "--precision", self.precision),
            *("--profile", self.profile, "--max-batch", str(batch)),
            *("--concurrency", str(callers), "--seconds", str(SECONDS)),
            *("--cache-dir", str(cache)),
        ]


WAYS: Final = tuple(
    Way(backend, package, profile)
    for backend, package in (
        ("torch", "torch"),
        ("onnxruntime", "onnxruntime"),
        ("tensorrt", "tensorrt"),
    )
    for profile in ("throughput", "realtime")
)
Speeds = dict[str, float]  # "engine" and "path", pictures a second
Measure = Callable[[Way, Path, float], Speeds | str]  # or why not, in a line


def main() -> int:
    """Measure what can be measured; that nothing can is no failure."""
    parser = argparse.ArgumentParser(prog="bench.gpu", description=__doc__)
    parser.add_argument("--against", nargs="*", default=[], type=Path, metavar="CHECKOUT")
    others = [other.resolve() for other in parser.parse_args().against]
    missing = no_gpu() or ""
    found = rounds([ROOT, *others], _measured, missing=missing)
    print(table(found))
    told = [{"way": str(w), "checkout": str(c), "speeds": s} for (w, c), s in found.items()]
    print(f"bench-gpu-result: {json.dumps({'gpu': missing or _gpu(), 'found': told})}")
    return 0


def rounds(
    checkouts: Sequence[Path],
    measure: Measure,
    *,
    missing: str = "",
    clock: Callable[[], float] = time.monotonic,
) -> dict[tuple[Way, Path], Speeds | str]:
    """Give each way and checkout its turns, until the ten minutes are over; return medians.

    missing: why nothing can be measured at all. What failed once is not tried again.
    """
    ends = clock() + MOST_S
    speeds: dict[tuple[Way, Path], list[Speeds]] = {}
    failed: dict[tuple[Way, Path], str] = {}
    for number in range(ROUNDS):
        for way in WAYS:
            for checkout in in_turn(checkouts, number):
                key = way, checkout
                if key in failed:
                    continue
                left = ends - clock()
                told = missing or (
                    measure(way, checkout, min(LONGEST_S, left))
                    if left > 0
                    else f"{MOST_S:g} s were over"
                )
                if isinstance(told, str):
                    failed[key] = told
                else:
                    speeds.setdefault(key, []).append(told)
    return {
        key: medians(speeds[key]) if key in speeds else failed[key]
        for key in dict.fromkeys((way, checkout) for way in WAYS for checkout in checkouts)
    }


def table(found: dict[tuple[Way, Path], Speeds | str]) -> str:
    """Write it as Markdown, checkouts one under the other."""
    lines = [
        "| | checkout | engine alone | whole path | whole ÷ engine |",
        "|---|---|---:|---:|---:|",
    ]
    for (way, checkout), speeds in found.items():
        name = "new" if checkout == ROOT else str(checkout)
        if isinstance(speeds, str):
            lines.append(f"| {way} | {name} | {NOT_RUN}: {speeds} | | |")
        else:
            engine, path = speeds["engine"], speeds["path"]
            lines.append(f"| {way} | {name} | {engine:.0f} | {path:.0f} | {path / engine:.2f} |")
    return "\n".join(lines)


def speeds_in(told: str) -> Speeds:
    """Read what `yoloserve bench` prints."""
    return {
        name: float(line.split("images/s")[0].split()[-1])
        for line in told.splitlines()
        for name, label in (("engine", "engine alone"), ("path", "whole path"))
        if line.startswith(label)
    }


def no_gpu() -> str | None:
    """Say why there is nothing to measure, if there is not."""
    from yoloserve.engine.backends import onnxruntime  # the images for GPUs have it

    return None if onnxruntime.has_gpu() else "there is no NVIDIA GPU here"


def _measured(way: Way, checkout: Path, within_s: float) -> Speeds | str:
    if find_spec(way.package) is None:
        return f"{way.package} is not installed"
    assets = pictures_only("gpu")
    environment = {**os.environ, "PYTHONPATH": str(checkout / "serving_image")}
    with subprocess.Popen(
        way.command(assets.pictures[0], assets.folder / "yoloserve"),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, error = process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            return f"no answer within {within_s:.0f} s"
    speeds = speeds_in(out)
    if process.returncode or len(speeds) < 2:
        return (error.strip().splitlines() or ["it ended without a word"])[-1]
    if " cuda" not in out.splitlines()[0]:
        return f"it ran elsewhere: {out.splitlines()[0]}"
    return speeds


def _gpu() -> str:
    import torch

    return str(torch.cuda.get_device_name())


if __name__ == "__main__":
    sys.exit(main())
