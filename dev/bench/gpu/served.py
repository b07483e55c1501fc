"""Servers on the GPU as others ask them: one, several that share it, and one with fronts."""

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from bench.gpu.runtimes import BATCH, WAYS
from bench.serving import ceiling
from bench.serving.assets import pictures_only
from bench.serving.measure import LAST_PATIENCE_S, Client, Numbers
from bench.serving.servers import Cores, NotStarted, Running, Server, running

RUNTIME: Final = WAYS[0]
CLIENTS: Final = 4  # one makes some thousand requests of 150 KB a second
CALLERS: Final = 4 * BATCH  # of each server: two lanes are full, and as many wait
OVERLOADS: Final = (1.2, 2.0)
DEADLINE_S: Final = 1.0  # nobody is refused at the ceiling of a server that answers 64 a second
WARM_S: Final = 6.0  # CUDA graphs of the usual batches are captured beside the first requests
PHASE_S: Final = 4.0
MOST_S: Final = 40.0  # that one is measured for, once it is ready, however slow it gets
OVER: Final = "the time was over"


@dataclass(frozen=True, slots=True)
class Served:
    """How many processes serve."""

    fronts: int = 0
    replicas: int = 1

    def __str__(self) -> str:
        if self.fronts:
            return f"one server with {self.fronts} fronts"
        return f"{self.replicas} servers" if self.replicas > 1 else "one server"

    def server(self, checkout: Path, cache: Path) -> Server:
        """Describe it."""
        return Server(
            f"gpu, {self}",
            (
                *("env", f"PYTHONPATH={checkout / 'serving_image'}"),
                *(sys.executable, "-m", "yoloserve", "serve"),
                *("--port", "{port}", "--deadline-ms", "{deadline_ms}"),
                *("--backend", RUNTIME.backend, "--precision", RUNTIME.precision),
                *("--profile", RUNTIME.profile, "--max-batch", str(BATCH)),
                *("--cache-dir", str(cache)),
                *(("--front-processes", str(self.fronts)) if self.fronts else ()),
            ),
            path="/v1/detect",
            sheds=True,
            replicas=self.replicas,
        )


USUAL: Final = Served()
SERVED: Final = (USUAL, Served(replicas=4), Served(fronts=4), Served(fronts=8))


def measured(
    cores: Cores, asking: Client, served: Served, checkout: Path, within_s: float
) -> Numbers | str:
    """Start it and return what it gives, as `asked` tells; or why not, in a line."""
    if find_spec(RUNTIME.package) is None:
        return f"{RUNTIME.package} is not installed"
    if (ready_s := within_s - MOST_S) <= 0:
        return OVER
    assets = pictures_only("gpu")
    server = served.server(checkout, assets.folder / "yoloserve")
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
    patience_s = LAST_PATIENCE_S
    numbers = ceiling.of_one(target, asking, CALLERS, PHASE_S, warm_s=WARM_S, patience_s=patience_s)
    for share in OVERLOADS:
        rate = max(1.0, share * numbers["per_s"])
        load = asking.open(target, rate, PHASE_S, 0, deadline_s=DEADLINE_S, patience_s=patience_s)
        numbers["clients_busy"] = max(numbers["clients_busy"], load.clients_busy())
        numbers[f"goodput_{share:g}"] = load.rate(DEADLINE_S) / max(1.0, numbers["per_s"])
        numbers[f"late_{share:g}"] = load.late(DEADLINE_S)
    return numbers
