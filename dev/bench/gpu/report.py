"""What was found, as Markdown; what was not, with the reason."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.gpu.runtimes import Way
from bench.gpu.served import CALLERS, OVERLOADS, RUNTIME, Served
from bench.serving.assets import ROOT
from bench.serving.measure import Numbers

Found = Mapping[tuple[Way | Served, Path], Numbers | str]

NOT_RUN: Final = "not run"


def of_runtimes(found: Found) -> str:
    """Write what runtimes gave, checkouts one under the other."""

    def cells(speeds: Numbers, _: Path) -> Iterable[str]:
        engine, path = speeds["engine"], speeds["path"]
        return f"{engine:.0f}", f"{path:.0f}", f"{path / engine:.2f}"

    return _table(found, Way, "", ["engine alone", "whole path", "whole ÷ engine"], cells)


def of_servers(found: Found) -> str:
    """Write what servers gave, held against the engine alone of their checkout."""
    columns = ["per_s", "÷ engine", "cpu_ms", "busiest_ms", "p99_ms", "refused"]
    columns += [f"{each}_{share:g}" for share in OVERLOADS for each in ("goodput", "late")]
    columns.append("clients_busy")

    def cells(speeds: Numbers, checkout: Path) -> Iterable[str]:
        alone = found[RUNTIME, checkout]
        engine = float("nan") if isinstance(alone, str) else alone["engine"]
        numbers = {**speeds, "÷ engine": speeds["per_s"] / engine}
        return (f"{numbers[each]:.4g}" for each in columns)

    return _table(found, Served, f"asked by {CALLERS} callers each, {RUNTIME} ", columns, cells)


def _table(
    found: Found,
    kind: type[Way] | type[Served],
    what: str,
    columns: Sequence[str],
    cells: Callable[[Numbers, Path], Iterable[str]],
) -> str:
    lines = [
        f"| {what}| checkout | {' | '.join(columns)} |",
        f"|---|---|{'---:|' * len(columns)}",
    ]
    for (way, checkout), speeds in found.items():
        if not isinstance(way, kind):
            continue
        start = f"| {way} | {name(checkout)} |"
        if isinstance(speeds, str):
            lines.append(f"{start} {NOT_RUN}: {speeds} |{' |' * (len(columns) - 1)}")
        else:
            lines.append(f"{start} {' | '.join(cells(speeds, checkout))} |")
    return "\n".join(lines)


def name(checkout: Path) -> str:
    """Call it by what it is in the table."""
    return "new" if checkout == ROOT else str(checkout)
