"""The ceiling of everything but the neural network: the server around the suite's stub engine.

A stub waits where a network would compute, so what is measured is HTTP, access, decoding, batching,
suppression and JSON: pictures a second, and the server's CPU for each. Other checkouts of this
repository take turns with this one, so that old and new are compared in one run.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

from bench.rounds import in_turn, medians
from bench.serving.assets import ROOT, Assets, pictures_only
from bench.serving.measure import PATIENCE_S, Client, Numbers, client
from bench.serving.report import machine
from bench.serving.servers import Cores, Running, Server, running

SERVICE_MS: Final = (0.2, 1.0, 5.0, 20.0)
BATCHES: Final = (1, 16)
LANES: Final = 2
CANDIDATES: Final = 20
CLASSES: Final = json.dumps([f"class {number}" for number in range(80)])
SHARE: Final = 0.9  # of the ceiling, at which answers have to be in time
DEADLINE_S: Final = 0.5
FEW_CALLERS: Final = 16
MOST_CPU_MS: Final = 3.0
LEAST_EFFICIENCY: Final = 0.9
ENOUGH_CORES: Final = 8  # from which on efficiency says something


@dataclass(frozen=True, slots=True)
class Engine:
    """What the stub is like."""

    service_ms: float
    batch: int

    def __str__(self) -> str:
        return f"{self.service_ms:g} ms, batches up to {self.batch}"

    @property
    def callers(self) -> int:
        """Count those who keep every lane full, and as many who wait."""
        return max(FEW_CALLERS, 2 * LANES * self.batch)


@dataclass(frozen=True, slots=True)
class Way:
    """How the server of a checkout is started."""

    checkout: Path = ROOT
    fronts: int = 0
    replicas: int = 1

    def __str__(self) -> str:
        name = "new" if self.checkout == ROOT else str(self.checkout)
        if self.fronts:
            return f"{name}, {self.fronts} fronts"
        return f"{name}, {self.replicas} replicas" if self.replicas > 1 else name


def ways(others: Sequence[Path], fronts: Sequence[int], replicas: Sequence[int]) -> Sequence[Way]:
    """List what takes turns: each checkout as one process, and this one in other ways, too."""
    return (
        Way(),
        *(Way(other.resolve()) for other in others),
        *(Way(replicas=number) for number in replicas),
        *(Way(fronts=number) for number in fronts),
    )


def measure(compared: Sequence[Way], rounds: int, *, quick: bool) -> int:
    """Print a table of all engines and ways, and a last line of JSON."""
    assets, cores = pictures_only("ceiling"), Cores.split()
    seconds = 1.0 if quick else 3.0
    engines = [Engine(*each) for each in product(SERVICE_MS, BATCHES)]
    found: dict[tuple[str, str], list[Numbers]] = {}
    with client(assets, cores) as asking:
        for number, engine in product(range(rounds), engines):
            for way in in_turn(compared, number):
                server = stub(engine, way, assets)
                numbers = _one(server, engine, assets, cores, asking, seconds)
                found.setdefault((str(engine), str(way)), []).append(numbers)
                print(f"{number} {engine}, {way}: {json.dumps(numbers)}", file=sys.stderr)
        efficiency = _efficiency(assets, cores, asking, seconds)
    usual = {key: medians(many) for key, many in found.items()}
    print(table(usual))
    print(f"\nCPU for a picture, the least of all engines: {told(usual)}")
    print(f"Parallel efficiency: {_words(efficiency)}\n{machine()}; {cores}")
    result = {
        "ceilings": [{"engine": e, "checkout": c} | n for (e, c), n in usual.items()],
        "efficiency": efficiency,
        "machine": machine(),
    }
    print(f"bench-ceiling-result: {json.dumps(result)}")
    return 0


def stub(engine: Engine, way: Way, assets: Assets) -> Server:
    """Describe the server of a checkout around this one's stub."""
    settings = {
        "PYTHONPATH": f"{way.checkout / 'serving_image'}:{ROOT / 'dev'}",
        "YOLOSTUB_SERVICE_MS": engine.service_ms,
        "YOLOSTUB_LANES": LANES,
        "YOLOSTUB_MAX_BATCH": engine.batch,
        "YOLOSTUB_CANDIDATES": CANDIDATES,
        "YOLOSERVE_CLASSES": CLASSES,
        # As on a GPU or a CPU with AMX: a picture of twice the network's size is decoded at half.
        "YOLOSERVE_PRECISION": "bf16",
        "YOLOSERVE_CACHE_DIR": assets.folder / "yoloserve",
    }
    return Server(
        "stub",
        (
            *("env", *(f"{name}={value}" for name, value in settings.items())),
            *(sys.executable, "-m", "stub_engine", "serve"),
            *("--port", "{port}", "--deadline-ms", "{deadline_ms}"),
            *(("--front-processes", str(way.fronts)) if way.fronts else ()),
        ),
        path="/v1/detect",
        sheds=True,
        replicas=way.replicas,
    )


def _one(
    server: Server, engine: Engine, assets: Assets, cores: Cores, asking: Client, seconds: float
) -> Numbers:
    # Nobody is refused while the ceiling is found: what was decoded and dropped costs, too.
    with running(server, assets, cores) as target:
        warm_s = max(1.0, seconds / 3)
        numbers = of_one(target, asking, engine.callers, seconds, warm_s=warm_s)
    return {name: round(value, 3) for name, value in numbers.items()}


def of_one(
    target: Running,
    asking: Client,
    callers: int,
    seconds: float,
    *,
    warm_s: float,
    patience_s: float = PATIENCE_S,
) -> Numbers:
    """Find what a server answers a second, and how it is just below.

    callers: at a time, for each of its replicas. warm_s: before anything counts.
    """
    callers *= target.server.replicas
    asking.closed(target, callers, warm_s, patience_s=patience_s)
    closed = asking.closed(target, callers, seconds, patience_s=patience_s)
    numbers = {"per_s": closed.rate(), "cpu_ms": closed.cpu_ms()}
    numbers["busiest_ms"] = closed.busiest_cpu_ms()
    rate = max(1.0, SHARE * numbers["per_s"])  # a machine may give none for a second
    load = asking.open(target, rate, seconds, 0, deadline_s=DEADLINE_S, patience_s=patience_s)
    numbers["clients_busy"] = max(closed.clients_busy(), load.clients_busy())
    return numbers | {"p99_ms": load.quantile_ms(0.99), "refused": load.refused()}


def _efficiency(assets: Assets, cores: Cores, asking: Client, seconds: float) -> float | None:
    """Say what all cores give over as many times what one gives; none where that says nothing."""
    if len(cores.server) < ENOUGH_CORES or cores.server & cores.client:
        return None
    engine = Engine(SERVICE_MS[0], BATCHES[-1])
    rates = []
    for server in (frozenset([min(cores.server)]), cores.server):
        some = Cores(server, cores.client)
        numbers = _one(stub(engine, Way(), assets), engine, assets, some, asking, seconds)
        rates.append(numbers["per_s"] / len(server))
    return round(rates[1] / rates[0], 3)


def _words(efficiency: float | None) -> str:
    if efficiency is None:
        return f"not run: it takes {ENOUGH_CORES} cores, and one more for the client"
    return f"{efficiency} of {LEAST_EFFICIENCY}"


def table(usual: dict[tuple[str, str], Numbers]) -> str:
    """Write the medians as Markdown, each engine's checkouts one under the other."""
    names = list(dict.fromkeys(name for numbers in usual.values() for name in numbers))
    head = f"| engine | checkout | {' | '.join(names)} |"
    return "\n".join((head, f"|---|---|{'---:|' * len(names)}", *_rows(usual, names)))


def _rows(usual: dict[tuple[str, str], Numbers], names: list[str]) -> Iterator[str]:
    for (engine, checkout), numbers in usual.items():
        values = " | ".join(f"{numbers[name]:g}" for name in names)
        yield f"| {engine} | {checkout} | {values} |"


def told(usual: dict[tuple[str, str], Numbers]) -> str:
    """Hold the least CPU for a picture against the aim, for each checkout."""
    least: dict[str, float] = {}
    for (_, checkout), numbers in usual.items():
        least[checkout] = min(least.get(checkout, numbers["cpu_ms"]), numbers["cpu_ms"])
    return ", ".join(
        f"{checkout} {ms:.2f} ms ({'met' if ms <= MOST_CPU_MS else '**missed**'}: {MOST_CPU_MS:g})"
        for checkout, ms in least.items()
    )
