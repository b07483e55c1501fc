"""What the page tells of detectors: names, numbers, reasons, who wants help first; pure.

No spec but the bounds of the replicas, no value of an environment variable, no picture, and no
credentials in an address, were they in somebody's words.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final

from yolofleet.api.addresses import without_credentials
from yolofleet.api.seen import Raw, Seen

Facts = dict[str, Any]

_BY_A_PERSON: Final = frozenset(
    {"AwaitingApproval", "Paused", "Suspended", "NotEnoughData", "NotJudged"}
)
"""Reasons of a release that stands until a person has a word, and that is no fault."""


class State(StrEnum):
    """How a detector is, in the order in which they are shown."""

    WRONG = "wrong"  # a person has to act, or nothing answers
    WAITS = "waits"  # for a word
    MOVES = "moves"
    UNSEEN = "unseen"
    FINE = "fine"


ORDER: Final = {state: place for place, state in enumerate(State)}


def fleet(detectors: Iterable[Raw]) -> list[Facts]:
    """Return what is shown of each."""
    rows = [_detector(Seen(raw)) for raw in detectors]
    return sorted(rows, key=lambda each: (ORDER[each["state"]], each["detector"]))


def state(seen: Seen) -> State:
    """Say whether a detector is fine, and if not, who has to do something about it."""
    if seen.leaving:
        return State.MOVES
    if not seen.status.get("conditions"):
        return State.UNSEEN
    if seen.says("Stalled", "True") or seen.says("Ready", "False"):
        return State.WRONG
    if seen.condition("Progressing").get("reason") in _BY_A_PERSON:
        return State.WAITS
    return State.FINE if seen.says("Released", "True") and not seen.unseen else State.MOVES


def _detector(seen: Seen) -> Facts:
    facts: Facts = {
        "detector": f"{seen.namespace}/{seen.name}",
        "state": state(seen),
        "summary": seen.summary,
        "ready": str(seen.status.get("ready") or ""),
        "url": without_credentials(str(seen.status.get("url") or "")),
        "revisions": [_revision(each) for each in seen.revisions],
        "step": _step(seen),
        "analysis": _analysis(seen),
        "load": _load(seen),
        "why": [_why(each) for each in seen.unmet()],
    }
    return {name: value for name, value in facts.items() if value}


def _revision(raw: Raw) -> Facts:
    model = without_credentials(str(raw.get("model") or ""))
    numbers = {name: int(raw.get(name) or 0) for name in ("ready", "desired", "weight")}
    return {"name": raw["name"], "role": str(raw.get("role") or ""), "model": model, **numbers}


def _step(seen: Seen) -> Facts:
    release = seen.release
    if not release:
        return {}
    return {
        "revision": str(release.get("revision") or ""),
        "strategy": str(release.get("strategy") or ""),
        "step": int(release.get("step") or 0),
        "of": int(release.get("steps") or 0),
        "weight": int(release.get("weight") or 0),
        "since": str(release.get("since") or ""),
    }


def _analysis(seen: Seen) -> Facts:
    found = seen.status.get("analysis") or {}
    if not found.get("revision"):
        return {}
    checks = found.get("checks") or ()
    return {
        "revision": found["revision"],
        "said": without_credentials(str(found.get("said") or found.get("verdict") or "")),
        "checks": [{"name": each["name"], "verdict": str(each["verdict"])} for each in checks],
    }


def _load(seen: Seen) -> Facts:
    """Return by what the replicas are scaled; nothing where they are not."""
    bounds, found = seen.spec.get("autoscaling") or {}, seen.status.get("autoscaling") or {}
    if not bounds:
        return {}
    facts = {
        "provider": found.get("provider"),
        "demand": found.get("demand"),
        "floor": found.get("floor"),
        "reason": without_credentials(str(found.get("reason") or "")),
        "min": bounds.get("minReplicas"),
        "max": bounds.get("maxReplicas"),
    }
    return {name: value for name, value in facts.items() if value not in (None, "")}


def _why(condition: Raw) -> Facts:
    return {
        "type": condition["type"],
        "reason": condition["reason"],
        "message": without_credentials(str(condition.get("message") or "")),
    }
