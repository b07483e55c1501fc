"""A release as its user performs it: a canary, a larger share, promotion, roll-back.

Every step is an edit of the resource with kubectl and a wait for its status; requests may go on.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any, Final

from demo_cluster.detector import Detector
from demo_cluster.errors import WrongResult
from demo_cluster.kube import DETECTORS
from demo_cluster.load import Load, Summary

WHOLE: Final = ("model", "resources", "podTemplate")  # what a canary replaces as a whole
BY_FIELD: Final = ("runtime", "inference")  # and what it overrides field by field
SIGMAS: Final = 5.0  # a fair router is further off once in a million runs


@dataclass(frozen=True, slots=True)
class Promotion:
    """What a promotion did: how long until all traffic moved, and the pods that had been there."""

    seconds: float
    revision: str
    kept: frozenset[str]  # uids of the canary's pods before
    after: frozenset[str]  # uids of the same revision's pods afterwards


def start_canary(detector: Detector, file: Path, weight: int) -> str:
    """Apply `file`, whose canary gets `weight`, and wait for it; return the canary's revision."""
    detector.kubectl.apply(file)
    detector.wait_for("CanaryHealthy")
    return str(detector.wait_weight(weight)["revision"])


def shift(detector: Detector, weight: int) -> None:
    """Give the canary another share and wait until the router has it."""
    detector.patch({"canary": {"weight": weight}})
    detector.wait_weight(weight)


def promote(detector: Detector) -> Promotion:
    """Copy what the canary overrides into the spec, remove the canary, and wait for the traffic."""
    raw = detector.raw()
    revision = raw["status"]["canary"]["revision"]
    before = uids(detector, revision)
    model = raw["spec"]["canary"].get("model", raw["spec"]["model"])
    started = time.monotonic()
    detector.patch(promoted(raw["spec"]))
    detector.wait_released(model["uri"])
    took = time.monotonic() - started
    return Promotion(took, revision, before, uids(detector, revision))


def promoted(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the change of `spec` that promotes its canary, as a merge patch."""
    canary = spec["canary"]
    whole = {part: canary[part] for part in WHOLE if canary.get(part)}
    by_field = {part: spec[part] | canary[part] for part in BY_FIELD if canary.get(part)}
    changes = {part: difference(spec[part], to) for part, to in (whole | by_field).items()}
    return {part: change for part, change in changes.items() if change} | {"canary": None}


def difference(now: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the merge patch that makes `now` the same as `wanted`."""
    return {
        name: wanted.get(name)
        for name in sorted(now.keys() | wanted.keys())
        if now.get(name) != wanted.get(name)
    }


def rolled_back(spec: Mapping[str, Any], to: Mapping[str, Any]) -> dict[str, Any]:
    """Return the change of `spec` that gives it the model `to`."""
    return {"model": difference(spec["model"], to)}


def roll_back(detector: Detector, to: Mapping[str, Any]) -> float:
    """Give the spec the model it had before; return the seconds until all traffic is back."""
    change = rolled_back(detector.raw()["spec"], to)
    started = time.monotonic()
    detector.patch(change)
    detector.wait_released(to["uri"])
    return time.monotonic() - started


def model_of(detector: Detector) -> dict[str, Any]:
    """Return the model that the spec names."""
    model: dict[str, Any] = detector.raw()["spec"]["model"]
    return model


def uids(detector: Detector, revision: str) -> frozenset[str]:
    """Return the uids of the pods of one revision that are there to stay."""
    return frozenset(
        pod["metadata"]["uid"]
        for pod in detector.pods(revision)
        if "deletionTimestamp" not in pod["metadata"]
    )


def check_share(summary: Summary, revision: str, weight: int) -> float:
    """Return the share that `revision` answered. Raises WrongResult if no fair router gives it."""
    share, expected = summary.share(revision), weight / 100
    answered = sum(summary.revisions.values())
    off = SIGMAS * sqrt(expected * (1 - expected) / max(answered, 1))
    if abs(share - expected) > off:
        raise WrongResult(
            f"{revision} answered {share:.1%} of {answered} requests; its weight is {weight} %"
        )
    return share


def check_nothing_failed(load: Load) -> Summary:
    """Return the summary of all requests so far. Raises WrongResult if one of them failed."""
    summary = load.summary()
    if summary.failed:
        kinds = ", ".join(f"{count} × {kind}" for kind, count in summary.failures.items())
        raise WrongResult(f"{summary.failed} of {summary.requests} requests failed: {kinds}")
    return summary


def edit(detector: Detector, change: Mapping[str, Any]) -> str:
    """Return the command with which a person makes `change`."""
    patch = json.dumps({"spec": change})
    return f"kubectl patch {DETECTORS.split('.')[0]} {detector.name} --type merge -p '{patch}'"
