"""`make bench-gpu`: the engine alone and the whole path on an NVIDIA GPU, old and new in one run.

It measures the bundled model with each runtime that is installed, and its server as others ask it:
as one process, as several that share the GPU, and with front processes. It downloads nothing, and
ends within ten minutes. What cannot be had here is "not run", and why. `ARGS='--against ../before'`
lets another checkout of this repository take turns with this one. The last line is
`bench-gpu-result: {json}`.
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
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from bench.rounds import in_turn, medians
from bench.serving import ceiling
from bench.serving.assets import ROOT, pictures_only
from bench.serving.measure import LAST_PATIENCE_S, Client, Numbers, client
from bench.serving.servers import Cores, NotStarted, Running, Server, running

MOST_S: Final = 530.0  # nothing that needs longer is begun: all ends within ten minutes
LONGEST_S: Final = 150.0  # of one measurement: TensorRT compiles for minutes, once
SECONDS: Final = 4
CALLERS: Final = 32
BATCH: Final = 16
ROUNDS: Final = 2
CLIENTS: Final = 4  # one makes some thousand requests of 150 KB a second
SERVED_CALLERS: Final = 4 * BATCH
OVERLOADS: Final = (1.2, 2.0)
DEADLINE_S: Final = (
    1.0  # of a server that answers 64 a second or more, nobody is refused at its ceiling
)
WARM_S: Final = 6.0  # CUDA graphs of the usual batches are captured beside the first requests
SERVED_S: Final = 40.0  # that a server is measured for, once it is ready, however slow it gets
NOT_RUN: Final = "not run"
OVER: Final = "the time was over"
EX_TERMINATED: Final = 128 + signal.SIGTERM


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


@dataclass(frozen=True, slots=True)
class Served:
    """A server of the first way, as others ask it."""

    fronts: int = 0
    replicas: int = 1

    def __str__(self) -> str:
        if self.fronts:
            return f"one server with {self.fronts} fronts"
        return f"{self.replicas} servers" if self.replicas > 1 else "one server"

    @property
    def usual(self) -> bool:
        """Say whether every checkout can be started so."""
        return self == Served()

    def server(self, checkout: Path, cache: Path) -> Server:
        """Describe it."""
        return Server(
            f"gpu, {self}",
            (
                *("env", f"PYTHONPATH={checkout / 'serving_image'}"),
                *(sys.executable, "-m", "yoloserve", "serve"),
                *("--port", "{port}", "--deadline-ms", "{deadline_ms}"),
                *("--backend", SERVING.backend, "--precision", SERVING.precision),
                *("--profile", SERVING.profile, "--max-batch", str(BATCH)),
                *("--cache-dir", str(cache)),
                *(("--front-processes", str(self.fronts)) if self.fronts else ()),
            ),
            path="/v1/detect",
            sheds=True,
            replicas=self.replicas,
        )


WAYS: Final = tuple(
    Way(backend, package, profile)
    for backend, package in (
        ("torch", "torch"),
        ("onnxruntime", "onnxruntime"),
        ("tensorrt", "tensorrt"),
    )
    for profile in ("throughput", "realtime")
)
SERVING: Final = WAYS[0]
MEASURED: Final[tuple[Way | Served, ...]] = (
    SERVING,
    *(Served(), Served(replicas=4), Served(fronts=4), Served(fronts=8)),
    *WAYS[1:],
)
"""What matters most first: time may be over before the last."""
Speeds = dict[str, float]  # of a way "engine" and "path", pictures a second; of a server, `asked`
Measure = Callable[[Way | Served, Path, float], Speeds | str]  # or why not, in a line
Found = dict[tuple[Way | Served, Path], Speeds | str]


def main() -> int:
    """Measure what can be measured; that nothing can is no failure."""
    parser = argparse.ArgumentParser(prog="bench.gpu", description=__doc__)
    parser.add_argument("--against", nargs="*", default=[], type=Path, metavar="CHECKOUT")
    others = [other.resolve() for other in parser.parse_args().against]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EX_TERMINATED))  # no server stays behind
    missing = no_gpu() or ""
    assets, cores = pictures_only("gpu"), Cores.split(CLIENTS)
    with client(assets, cores) as asking:
        found = rounds([ROOT, *others], partial(_measured, cores, asking), missing=missing)
    print(f"{table(found)}\n\n{served_table(found)}\n\n{cores}")
    told = [{"way": str(w), "checkout": str(c), "speeds": s} for (w, c), s in found.items()]
    print(f"bench-gpu-result: {json.dumps({'gpu': missing or _gpu(), 'found': told})}")
    return 0


def rounds(
    checkouts: Sequence[Path],
    measure: Measure,
    *,
    missing: str = "",
    clock: Callable[[], float] = time.monotonic,
) -> Found:
    """Give each way and checkout its turns, until the ten minutes are over; return medians.

    missing: why nothing can be measured at all. What failed once is not tried again.
    """
    ends = clock() + MOST_S
    speeds: dict[tuple[Way | Served, Path], list[Speeds]] = {}
    failed: dict[tuple[Way | Served, Path], str] = {}
    for number in range(ROUNDS):
        for way in MEASURED:
            for checkout in in_turn(_started_so(way, checkouts), number):
                key = way, checkout
                if key in failed:
                    continue
                left = ends - clock()
                told = missing or (
                    measure(way, checkout, min(LONGEST_S, left)) if left > 0 else OVER
                )
                print(f"{number} {way}, {_name(checkout)}: {told}", file=sys.stderr, flush=True)
                if isinstance(told, str):
                    failed[key] = told
                else:
                    speeds.setdefault(key, []).append(told)
    return {
        key: medians(speeds[key]) if key in speeds else failed[key]
        for key in [(way, one) for way in MEASURED for one in _started_so(way, checkouts)]
    }


def _started_so(way: Way | Served, checkouts: Sequence[Path]) -> Sequence[Path]:
    return checkouts if isinstance(way, Way) or way.usual else checkouts[:1]


def table(found: Found) -> str:
    """Write what runtimes gave as Markdown, checkouts one under the other."""
    lines = [
        "| | checkout | engine alone | whole path | whole ÷ engine |",
        "|---|---|---:|---:|---:|",
    ]
    for (way, checkout), speeds in found.items():
        if isinstance(way, Served):
            continue
        if isinstance(speeds, str):
            lines.append(f"| {way} | {_name(checkout)} | {NOT_RUN}: {speeds} | | |")
        else:
            engine, path = speeds["engine"], speeds["path"]
            numbers = f"{engine:.0f} | {path:.0f} | {path / engine:.2f}"
            lines.append(f"| {way} | {_name(checkout)} | {numbers} |")
    return "\n".join(lines)


def served_table(found: Found) -> str:
    """Write what servers gave as Markdown, held against the engine alone."""
    columns = ["per_s", "÷ engine", "cpu_ms", "busiest_ms", "p99_ms", "refused"]
    columns += [f"{each}_{share:g}" for share in OVERLOADS for each in ("goodput", "late")]
    columns.append("clients_busy")
    lines = [
        f"| asked by {SERVED_CALLERS} callers each, {SERVING} | checkout | {' | '.join(columns)} |",
        f"|---|---|{'---:|' * len(columns)}",
    ]
    for (way, checkout), speeds in found.items():
        if isinstance(way, Way):
            continue
        start = f"| {way} | {_name(checkout)} |"
        if isinstance(speeds, str):
            lines.append(f"{start} {NOT_RUN}: {speeds} |{' |' * (len(columns) - 1)}")
        else:
            alone = found[SERVING, checkout]
            engine = float("nan") if isinstance(alone, str) else alone["engine"]
            numbers = speeds | {"÷ engine": speeds["per_s"] / engine}
            lines.append(f"{start} {' | '.join(f'{numbers[each]:.4g}' for each in columns)} |")
    return "\n".join(lines)


def _name(checkout: Path) -> str:
    return "new" if checkout == ROOT else str(checkout)


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


def _measured(
    cores: Cores, asking: Client, way: Way | Served, checkout: Path, within_s: float
) -> Speeds | str:
    package = (way if isinstance(way, Way) else SERVING).package
    if find_spec(package) is None:
        return f"{package} is not installed"
    if isinstance(way, Way):
        return _benched(way, checkout, within_s)
    assets = pictures_only("gpu")
    server = way.server(checkout, assets.folder / "yoloserve")
    if (ready_s := within_s - SERVED_S) <= 0:
        return OVER
    try:
        with running(server, assets, cores, DEADLINE_S * 1000, within_s=ready_s) as target:
            return asked(target, asking)
    except NotStarted as error:
        why, *log = str(error).strip().splitlines()
        return " ".join([why, *log[-1:]])


def asked(target: Running, asking: Client) -> Numbers:
    """Find what a server answers a second, and what of it is left when more is asked.

    goodput, late: shares of `per_s`, and of the requests.
    """
    seconds = float(SECONDS)
    patience: Final = LAST_PATIENCE_S
    numbers = ceiling.of_one(
        target, asking, SERVED_CALLERS, seconds, warm_s=WARM_S, patience_s=patience
    )
    for share in OVERLOADS:
        rate = max(1.0, share * numbers["per_s"])
        load = asking.open(target, rate, seconds, 0, deadline_s=DEADLINE_S, patience_s=patience)
        numbers["clients_busy"] = max(numbers["clients_busy"], load.clients_busy())
        numbers[f"goodput_{share:g}"] = load.rate(DEADLINE_S) / max(1.0, numbers["per_s"])
        numbers[f"late_{share:g}"] = load.late(DEADLINE_S)
    return numbers


def _benched(way: Way, checkout: Path, within_s: float) -> Speeds | str:
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
