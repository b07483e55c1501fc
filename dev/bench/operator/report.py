"""Targets, and the table that says which were met."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.operator.contenders import KUBERAY, OURS
from bench.operator.phases import Numbers


@dataclass(frozen=True, slots=True)
class Target:
    """What a number must not exceed (or, from `at_least`, not fall below)."""

    what: str
    number: str
    limit: float | Callable[[Numbers], float]
    unit: str = ""
    at_least: bool = False
    scale: float = 1.0  # from the number's unit to the table's
    of_many: bool = False  # a rate that a handful of detectors cannot show

    def limit_for(self, numbers: Numbers) -> float:
        """Return the limit in the table's unit."""
        return self.limit(numbers) if callable(self.limit) else self.limit

    def met(self, numbers: Numbers) -> bool | None:
        """Return whether the target is met; None where it was not measured."""
        if self.number not in numbers or (self.of_many and numbers["size"] < 1000):
            return None
        value, limit = numbers[self.number] * self.scale, self.limit_for(numbers)
        return value >= limit if self.at_least else value <= limit


TARGETS: Final = (
    Target("spec change (weight) → last child, p50", "edit_weight_p50_s", 150, "ms", scale=1000),
    Target("spec change (weight) → last child, p99", "edit_weight_p99_s", 1000, "ms", scale=1000),
    Target("spec change (model) → last child, p50", "edit_revision_p50_s", 150, "ms", scale=1000),
    Target("spec change (model) → last child, p99", "edit_revision_p99_s", 1000, "ms", scale=1000),
    Target("drift → repaired, p50", "drift_p50_s", 50, "ms", scale=1000),
    Target("drift → repaired, p99", "drift_p99_s", 500, "ms", scale=1000),
    Target("all new → all children", "burst_s", 90, "s"),
    Target("child writes in that burst", "burst_child_writes_per_s", 110, "/s", True, of_many=True),
    Target(
        "child writes for each new detector",
        "burst_child_writes_per_cr",
        lambda numbers: numbers["burst_children_per_cr"],
    ),
    Target("status writes for each new detector", "burst_status_writes_per_cr", 2),
    Target("restart: ready", "restart_ready_s", 20, "s"),
    Target("restart: writes", "restart_writes", 0),
    Target("idle: writes but the Lease's", "idle_writes", 0),
    Target("idle: Events posted", "idle_events", 0),
    Target("idle: Lease writes", "idle_lease_writes_per_s", 0.55, "/s"),
    Target("idle: CPU of one core, resyncs included", "idle_cpu_percent_with_resyncs", 5, "%"),
    Target("an HPA status a detector every 15 s: CPU", "hpa_cpu_percent", 5, "%"),
    Target("the same: writes", "hpa_writes", 0),
    Target("a hundred scaled by load: CPU above idle", "floors_cpu_percent_above_idle", 3, "%"),
    Target("the same: writes while no floor moves", "floors_idle_writes", 0),
    Target("the same: writes of children for each floor that moves", "floors_writes_a_move", 1),
    Target("memory when idle", "rss_mib", 400, "MiB"),
    Target("memory by objects watched", "rss_mib", lambda n: n["rss_bound_mib"], "MiB"),
    Target("fail-over by SIGTERM", "failover_sigterm_s", 3, "s"),
    Target("fail-over by SIGKILL", "failover_sigkill_s", 17, "s"),
    Target("event-loop lag in the burst, p99", "burst_lag_p99_s", 100, "ms", scale=1000),
    Target("event-loop lag when idle, p99", "idle_lag_p99_s", 100, "ms", scale=1000),
    # 1 ms for the reconcile and 0.6 ms for the watch event that causes it
    Target("CPU for an event that changes nothing", "noop_cpu_ms_with_its_event", 1.6, "ms"),
    Target("CPU for each new detector, echoes included", "burst_cpu_ms_per_cr", 10, "ms"),
)

TOLD: Final = (
    ("children of a detector", "burst_children_per_cr", 1.0, ""),
    ("objects watched", "objects", 1.0, ""),
    ("a reconcile that changes nothing, from start to end", "noop_reconcile_ms", 1.0, "ms"),
    ("restart: every detector looked at", "restart_all_reconciled_s", 1.0, "s"),
    ("restart: CPU", "restart_cpu_s", 1.0, "s"),
    ("one resync (each 10 min): CPU", "resync_cpu_s", 1.0, "s"),
    ("memory at its peak", "rss_peak_mib", 1.0, "MiB"),
    ("a hundred scaled by load: their pods", "floors_pods", 1.0, ""),
    ("the same: floors that were moved", "floors_moved", 1.0, ""),
    ("the same: status writes for each", "floors_status_writes_a_move", 1.0, ""),
    ("writes until all serve and are routed, a detector", "ready_writes_per_cr", 1.0, ""),
    ("autoscaling for the whole fleet", "fleet_edit_s", 1.0, "s"),
    ("the same: writes a detector", "fleet_edit_writes_per_cr", 1.0, ""),
    ("fail-over by SIGTERM: harm repaired", "failover_sigterm_repaired_s", 1.0, "s"),
    ("fail-over by SIGKILL: harm repaired", "failover_sigkill_repaired_s", 1.0, "s"),
    *(
        (f"API server alone: {what}, {at_once} at once", f"ceiling_{key}_per_s_c{at_once}", 1, "/s")
        for key, what in (("create", "create"), ("noop", "no-op apply"), ("change", "change"))
        for at_once in (1, 10, 30)
    ),
)


def table(results: Mapping[int, Numbers]) -> str:
    """Return the Markdown table: a row a target, a column a size, then what is only told."""
    sizes = sorted(results)
    header = ["", *(f"{size:,}" for size in sizes), "target", "verdict"]
    rows = [header, ["---", *("---:" for _ in sizes), "---:", "---"]]
    for target in TARGETS:
        cells = [
            _number(results[size].get(target.number), target.scale, target.unit) for size in sizes
        ]
        rows.append(
            [target.what, *cells, _limit(target, results[sizes[-1]]), _verdict(target, results)]
        )
    for what, number, scale, unit in TOLD:
        cells = [_number(results[size].get(number), scale, unit) for size in sizes]
        rows.append([what, *cells, "", ""])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


@dataclass(frozen=True, slots=True)
class Compared:
    """A number of ours beside those of its peers."""

    what: str
    number: str
    unit: str = ""
    scale: float = 1.0
    factor: float = 0.0  # of `than`'s, that ours must not exceed; 0: nothing is aimed at
    than: str = KUBERAY
    of: str = ""  # which number of `than`, if another


COMPARED: Final = (
    Compared("writes in the burst", "burst_writes_per_s", "/s"),
    Compared("the burst, to its last write", "burst_s", "s"),
    Compared("children written for each object", "burst_children"),
    Compared("writes to the object itself", "burst_own_writes"),
    Compared("writes refused, for each object", "burst_refused"),
    Compared("Events posted, for each object", "burst_events"),
    Compared("CPU a child: the manager", "burst_cpu_ms_per_child", "ms"),
    Compared("CPU a child: the API server", "burst_server_cpu_ms_per_child", "ms"),
    Compared("one edit → one child, p50", "edit_child_p50_s", "ms", 1000, factor=1.2),
    Compared("of that, the API server's answer", "edit_answer_p50_s", "ms", 1000),
    Compared("the slowest edit", "edit_child_max_s", "ms", 1000),
    Compared("edits that had an effect", "edit_seen"),
    Compared("children written for each edit", "edit_children"),
    Compared("idle: CPU of one core", "idle_cpu_percent", "%", factor=1.3),
    Compared("idle: writes", "idle_writes"),
    Compared("memory when idle, after a restart", "memory_idle_mib", "MiB"),
    Compared(
        "peak of memory, after a restart",
        "memory_peak_mib",
        "MiB",
        factor=1.5,
        than=OURS,
        of="memory_idle_mib",
    ),
    Compared("process ready", "ready_s", "s"),
    Compared("process ready over what is there", "restart_ready_s", "s"),
    Compared("restart: every object looked at", "restart_all_looked_at_s", "s"),
    Compared("restart: CPU until then", "restart_cpu_s", "s"),
    Compared("restart: writes", "restart_writes"),
)


def side_by_side(found: Mapping[str, Numbers]) -> str:
    """Return the Markdown table: a row a number, a column a contender, then what ours aims at."""
    names = list(found)
    rows = [["", *names, "aim of ours"], ["---", *("---:" for _ in names), "---"]]
    for each in COMPARED:
        cells = [_number(found[name].get(each.number), each.scale, each.unit) for name in names]
        rows.append([each.what, *cells, _aim(each, found)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _aim(each: Compared, found: Mapping[str, Numbers]) -> str:
    if not each.factor:
        return ""
    ours = found.get(OURS, {}).get(each.number)
    theirs = found.get(each.than, {}).get(each.of or each.number)
    if ours is None or theirs is None:
        return "not measured"
    what = "its idle memory" if each.than == OURS else f"{each.than}'s"
    if ours <= each.factor * theirs:
        return f"≤ {each.factor} × {what}: met"
    return f"≤ {each.factor} × {what}: missed" + (f", {ours / theirs:.1f} ×" if theirs else "")


def _verdict(target: Target, results: Mapping[int, Numbers]) -> str:
    missed = [size for size in sorted(results) if target.met(results[size]) is False]
    if missed:
        return "missed at " + ", ".join(f"{size:,}" for size in missed)
    measured = [size for size in results if target.met(results[size]) is not None]
    return "met" if measured else "not measured"


def missed(results: Mapping[int, Numbers]) -> dict[str, Sequence[int]]:
    """Return the sizes at which each target was missed."""
    found = {
        target.what: [size for size in sorted(results) if target.met(results[size]) is False]
        for target in TARGETS
    }
    return {what: sizes for what, sizes in found.items() if sizes}


def _limit(target: Target, numbers: Numbers) -> str:
    if callable(target.limit) and target.number not in numbers:
        return ""
    sign = "≥" if target.at_least else "≤"
    return f"{sign} {_short(target.limit_for(numbers))} {target.unit}".strip()


def _number(value: float | None, scale: float, unit: str) -> str:
    return "–" if value is None else f"{_short(value * scale)} {unit}".strip()


def _short(value: float) -> str:
    if value != value:  # not a number
        return "–"
    if value and abs(value) < 10:
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return f"{value:,.0f}"
