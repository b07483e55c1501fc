"""`make bench-gpu`: the engine alone and the whole path on an NVIDIA GPU, old and new in one run.

It measures the bundled model with each runtime that is installed, and its server as others ask it:
as one process, as several that share the GPU, and with front processes. It downloads nothing, and
ends within ten minutes. What cannot be had here is "not run", and why. `ARGS='--against ../before'`
lets another checkout of this repository take turns with this one. The last line is
`bench-gpu-result: {json}`.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench.gpu import report, runtimes, served
from bench.gpu.report import Found
from bench.gpu.runtimes import WAYS, Way
from bench.gpu.served import CLIENTS, OVER, RUNTIME, SERVED, USUAL, Served
from bench.rounds import in_turn, medians
from bench.serving.assets import ROOT, pictures_only
from bench.serving.measure import Numbers, client
from bench.serving.servers import Cores

MOST_S: Final = 530.0  # nothing that needs longer is begun: all ends within ten minutes
LONGEST_S: Final = 150.0  # of one measurement: TensorRT compiles for minutes, once
ROUNDS: Final = 2
EX_TERMINATED: Final = 128 + signal.SIGTERM
MEASURED: Final[tuple[Way | Served, ...]] = (
    RUNTIME,
    *SERVED,
    *(way for way in WAYS if way != RUNTIME),
)
"""What matters most first: time may be over before the last."""

Measure = Callable[[Way | Served, Path, float], Numbers | str]  # or why not, in a line


def main() -> int:
    """Measure what can be measured; that nothing can is no failure."""
    parser = argparse.ArgumentParser(prog="bench.gpu", description=__doc__)
    parser.add_argument("--against", nargs="*", default=[], type=Path, metavar="CHECKOUT")
    others = [other.resolve() for other in parser.parse_args().against]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EX_TERMINATED))  # no server stays behind
    missing, cores = no_gpu() or "", Cores.split(CLIENTS)
    with client(pictures_only("gpu"), cores) as asking:

        def measure(way: Way | Served, checkout: Path, within_s: float) -> Numbers | str:
            if isinstance(way, Way):
                return runtimes.measured(way, checkout, within_s)
            return served.measured(cores, asking, way, checkout, within_s)

        found = rounds([ROOT, *others], measure, missing=missing)
    print(f"{report.of_runtimes(found)}\n\n{report.of_servers(found)}\n\n{cores}")
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
    speeds: dict[tuple[Way | Served, Path], list[Numbers]] = {}
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
                print(f"{number} {way}, {report.name(checkout)}: {told}", file=sys.stderr)
                if isinstance(told, str):
                    failed[key] = told
                else:
                    speeds.setdefault(key, []).append(told)
    return {
        key: medians(speeds[key]) if key in speeds else failed[key]
        for key in [(way, one) for way in MEASURED for one in _started_so(way, checkouts)]
    }


def _started_so(way: Way | Served, checkouts: Sequence[Path]) -> Sequence[Path]:
    """Return which checkouts can be: older ones know no fronts, and four of them show nothing."""
    return checkouts if isinstance(way, Way) or way == USUAL else checkouts[:1]


def no_gpu() -> str | None:
    """Say why there is nothing to measure, if there is not."""
    from yoloserve.engine.backends import onnxruntime  # the images for GPUs have it

    return None if onnxruntime.has_gpu() else "there is no NVIDIA GPU here"


def _gpu() -> str:
    import torch

    return str(torch.cuda.get_device_name())


if __name__ == "__main__":
    sys.exit(main())
