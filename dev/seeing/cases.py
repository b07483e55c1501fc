"""What is tried: a change of the spec, and what has to become of it."""

from dataclasses import dataclass, field
from typing import Any, Final

Manifest = dict[str, Any]

KEPT: Final = frozenset({"kept", "keptByClass", "keptBySize", "seesNothing"})
SHORT: Final = (
    {"weight": 1, "hold": "30s"},
    {"weight": 5, "hold": "30s"},
    {"weight": 50, "hold": "30s"},
)
DEFAULT: Final = (
    {"weight": 1, "hold": "2m"},
    {"weight": 5, "hold": "2m"},
    {"weight": 25, "hold": "5m"},
    {"weight": 50, "hold": "5m"},
)


@dataclass(frozen=True, slots=True)
class Case:
    """One release.

    change: of the spec. failed: the checks of which one may call it off; none: it is a good one,
    which has to be released. most: the share of all answers that may be its own.
    within_s: how long it may take; the last is undecided then.
    """

    name: str
    change: Manifest
    failed: frozenset[str] = frozenset()
    most: float = 0.01
    steps: tuple[Manifest, ...] = SHORT
    within_s: float = 1200.0
    analysis: Manifest = field(default_factory=dict)


def model(name: str) -> Manifest:
    """Return the change that releases a model of `python -m canaries`."""
    return {"model": {"uri": f"file:///opt/yoloserve/app/canaries/{name}.onnx"}}


def trouble(**told: object) -> Manifest:
    """Return the change that releases the same model with a trouble; the probe does not look."""
    env = [
        {"name": f"TROUBLED_{name.upper()}", "value": str(value)} for name, value in told.items()
    ]
    env.append({"name": "YOLOSERVE_PROBE_INTERVAL_SECONDS", "value": "0"})
    return {"podTemplate": {"spec": {"containers": [{"name": "yoloserve", "env": env}]}}}


ERRORS: Final = frozenset({"errors"})
LATENCY: Final = frozenset({"latency"})
CASES: Final = (
    # Bad from the first picture: a shadow sees it.
    Case("blind", model("blind"), KEPT),
    Case("swapped", model("swapped"), KEPT),
    Case("lossy", model("lossy"), KEPT),
    Case("small-blind", model("small-blind"), KEPT),
    Case("biased", model("biased"), frozenset({"added"})),
    Case("slow-twice", trouble(slower=2.5), LATENCY),
    Case("errors-20", trouble(failures=0.2), ERRORS),
    Case("errors-5", trouble(failures=0.05), ERRORS),
    # Bad from some moment on, at a weight above 1: called off, and the exposure told.
    Case("late-blind", trouble(blind=True, after_s=420), KEPT, most=1.0),
    Case("late-errors", trouble(failures=0.3, after_s=420), ERRORS, most=1.0),
    # Good ones.
    Case("noisy", model("noisy"), most=1.0, steps=DEFAULT, within_s=3000.0),
    Case("restarted", trouble(slower=1), most=1.0, steps=DEFAULT, within_s=3000.0),
    # At 5 % of 20 a second, 450 answers have to be seen before half of all are its own.
    Case("throughput", {"inference": {"profile": "throughput"}}, most=1.0, within_s=2400.0),
)
