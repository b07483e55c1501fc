"""Targets, verdicts, and the tables that show them."""

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bench.serving.measure import SERVICE_TIMES, Numbers

OURS, EXACT = "yoloserve", "yoloserve fp32"
TUTORIAL, CAREFUL = "FastAPI + public package", "FastAPI + ONNX Runtime"
FEATURES: Final = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")

# What is shown of each server: a heading, its number, and whether more or less is better.
COLUMNS: Final = (
    ("ready s", "ready_s", -1),
    ("images/s, 4 callers", "closed_4", 1),
    ("16 callers", "closed_16", 1),
    ("p50 ms at 0.5×", "p50_ms_0.5", -1),
    ("p99 ms at 0.5×", "p99_ms_0.5", -1),
    ("p50 ms at 0.8×", "p50_ms_0.8", -1),
    ("p99 ms at 0.8×", "p99_ms_0.8", -1),
    ("memory MiB", "memory_mib", -1),
    ("CPU ms an image", "closed_4_cpu_ms", -1),
    ("cores taken by others", "others_cores", 0),
)
GOODPUT: Final = (
    ("deadline ms", "deadline_s", 0),
    *(
        (f"{share}×{when}", f"goodput_{share}{suffix}", 1)
        for suffix, when in (("", ""), ("_short", ", 200 ms"), ("_1s", ", 1 s"))
        for share in (0.8, 1.2, 2.0)
    ),
    ("late at 1.2×", "late_1.2", -1),
    ("late at 2×", "late_2.0", -1),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target, what was measured, and whether that meets it; none where it was not measured."""

    target: str
    value: float | None
    limit: float
    at_least: bool = True
    applies: bool = True

    @property
    def met(self) -> bool | None:
        """Compare."""
        if self.value is None or not self.applies:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def told(self) -> str:
        """Say it in words."""
        if not self.applies:
            return "not for this CPU"
        return {True: "met", False: "**missed**", None: "not measured"}[self.met]

    def as_dict(self) -> dict[str, Any]:
        """Return it for the result line."""
        return {**asdict(self), "met": self.met}


def verdicts(results: Mapping[str, Numbers], standard: Numbers) -> list[Verdict]:
    """Hold the numbers against the targets."""
    features = cpu_features()
    amx, avx512 = "amx_bf16" in features, "avx512f" in features
    ours, exact = results.get(OURS, {}), results.get(EXACT, {})
    peers = {name: each for name, each in results.items() if name not in (OURS, EXACT)}
    first, careful = results.get(TUTORIAL, {}), results.get(CAREFUL, {})
    best = max((each["capacity"] for each in peers.values()), default=None)
    found = [
        Verdict("AMX: throughput ÷ first peer", _ratio(ours, first), 8, applies=amx),
        Verdict("AMX: throughput ÷ best peer", _over(ours, best), 3, applies=amx),
        Verdict(
            "AVX-512 without AMX: fp32 throughput ÷ first peer",
            _ratio(exact, first),
            2.5,
            applies=avx512 and not amx,
        ),
        Verdict(
            "AVX-512 without AMX: throughput at the best precision ÷ first peer",
            _ratio(ours, first),
            4,
            applies=avx512 and not amx,
        ),
        Verdict(
            "fp32 throughput ÷ careful ONNX Runtime, same padding", _ratio(exact, careful), 1.2
        ),
    ]
    for name, numbers in ((OURS, ours), (EXACT, exact)):
        told = {key: numbers.get(key) for key in ("goodput_1.2", "goodput_2.0")}
        found += [
            Verdict(
                f"{name}: end-to-end ÷ engine-only", _over(numbers, numbers.get("engine")), 0.9
            ),
            Verdict(f"{name}: goodput at 1.2×, of capacity", told["goodput_1.2"], 0.95),
            Verdict(f"{name}: goodput at 2×, of capacity", told["goodput_2.0"], 0.95),
            Verdict(f"{name}: late at 1.2×", numbers.get("late_1.2"), 0.001, at_least=False),
            Verdict(f"{name}: late at 2×", numbers.get("late_2.0"), 0.001, at_least=False),
            Verdict(f"{name}: start-to-ready, s", numbers.get("ready_s"), 3, at_least=False),
        ]
    found += [
        Verdict(
            f"MLPerf Server ÷ Offline at {times} service times",
            standard.get(f"mlperf_ratio_{times}"),
            limit,
        )
        for times, limit in ((8, 0.78), (SERVICE_TIMES, 0.9))
    ]
    return found + _ahead(ours, peers)


def _ahead(ours: Numbers, peers: Mapping[str, Numbers]) -> list[Verdict]:
    """Compare with the best peer of each column, as a ratio that should be 1 or more."""
    found = []
    for heading, number, sign in (*COLUMNS, *GOODPUT):
        theirs = [each[number] for each in peers.values() if number in each]
        if not sign or not theirs or number not in ours:
            continue
        if sign > 0:
            ratio = (ours[number] or 1e-9) / (max(theirs) or 1e-9)
        else:
            ratio = (min(theirs) or 1e-9) / (ours[number] or 1e-9)
        found.append(Verdict(f"ahead of each peer: {heading}", ratio, 1.0))
    return found


def _ratio(ours: Numbers, theirs: Numbers) -> float | None:
    return _over(ours, theirs.get("capacity"))


def _over(ours: Numbers, other: float | None) -> float | None:
    return ours["capacity"] / other if other and "capacity" in ours else None


def table(results: Mapping[str, Numbers], standard: Numbers, judged: list[Verdict]) -> str:
    """Return the Markdown: speed, goodput, standard tools, verdicts."""
    return "\n\n".join(
        (
            _markdown(results, COLUMNS),
            "Goodput, as a share of the server's own capacity:\n\n" + _markdown(results, GOODPUT),
            "Standard tools: " + ", ".join(f"{k} {_short(v)}" for k, v in standard.items()),
            "\n".join(
                (
                    "| target | limit | measured | verdict |",
                    "|---|---:|---:|---|",
                    *(
                        f"| {v.target} | {'≥' if v.at_least else '≤'} {v.limit:g} "
                        f"| {_short(v.value)} | {v.told} |"
                        for v in judged
                    ),
                )
            ),
        )
    )


def _markdown(results: Mapping[str, Numbers], columns: tuple[tuple[str, str, int], ...]) -> str:
    rows = [["", *(heading for heading, _, _ in columns)], ["---", *("---:" for _ in columns)]]
    for name, numbers in results.items():
        rows.append([name, *(_cell(number, numbers.get(number)) for _, number, _ in columns)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _cell(number: str, value: float | None) -> str:
    if value is not None and number.startswith("late"):
        return f"{value:.1%}"
    if value is not None and number == "deadline_s":
        return f"{value * 1000:.0f}"
    return _short(value)


def _short(value: float | None) -> str:
    if value is None:
        return "–"
    if abs(value) < 10:
        return f"{value:.3f}" if abs(value) < 0.01 and value else f"{value:.2f}"
    return f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"


def machine(told: Path = Path("/proc/cpuinfo")) -> str:
    """Say what this ran on, and what its CPU can do."""
    lines = told.read_text().splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    features = " ".join(cpu_features(told)) or "none of " + " ".join(FEATURES)
    return f"{len(names)} × {names[0]} ({features}), Python {platform.python_version()}"


def cpu_features(told: Path = Path("/proc/cpuinfo")) -> list[str]:
    """List those of the CPU's instructions that decide the speed here."""
    flags = next(line for line in told.read_text().splitlines() if line.startswith("flags"))
    return [each for each in FEATURES if each in flags.split()]
