"""A runtime's engine alone, and the whole path around it in one process."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from bench.serving.assets import pictures_only
from bench.serving.measure import Numbers, speeds_in

SECONDS: Final = 4
CALLERS: Final = 32
BATCH: Final = 16


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


def measured(way: Way, checkout: Path, within_s: float) -> Numbers | str:
    """Return "engine" and "path", pictures a second; or why not, in a line."""
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
