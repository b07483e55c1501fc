"""What a pod's status says of it, in a few words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from yolofleet.api import names
from yolofleet.api.seen import Raw, Seen


def pods_of(seen: Seen, pods: Iterable[Raw]) -> list[Raw]:
    """Return those of `pods` that are the detector's, by name."""
    found = [
        pod
        for pod in pods
        if pod["metadata"]["namespace"] == seen.namespace
        and _labels(pod).get(names.DETECTOR_LABEL) == seen.name
    ]
    return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))


def revision_of(pod: Raw) -> str:
    """Return the revision that it runs."""
    return str(_labels(pod).get(names.REVISION_LABEL, ""))


def is_ready(pod: Raw) -> bool:
    """Say whether it can answer."""
    conditions = _status(pod).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def state_in_words(pod: Raw) -> str:
    """Say how it is, and why it is not ready."""
    if pod["metadata"].get("deletionTimestamp"):
        return "ending"
    words = ["ready" if is_ready(pod) else _why(pod)]
    if node := (pod.get("spec") or {}).get("nodeName"):
        words.append(f"on {node}")
    restarts = sum(int(each.get("restartCount") or 0) for each in _containers(pod))
    if restarts:
        words.append(f"{restarts} restart{'s' if restarts > 1 else ''}")
    return ", ".join(words)


def _why(pod: Raw) -> str:
    for container in _containers(pod):
        waiting = (container.get("state") or {}).get("waiting")
        if waiting and waiting.get("reason") not in ("ContainerCreating", "PodInitializing"):
            return _reason(waiting)
    for container in _containers(pod):
        ended = (container.get("state") or {}).get("terminated")
        if ended and ended.get("exitCode"):
            return _reason(ended)
    for condition in _status(pod).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return _reason(condition)
    return "starting"


def _reason(state: Mapping[str, Any]) -> str:
    message = " ".join(str(state.get("message") or "").split())
    reason = str(state.get("reason") or "Failed")
    return f"{reason}: {message}" if message else reason


def _containers(pod: Raw) -> list[Raw]:
    status = _status(pod)
    return [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]


def _status(pod: Raw) -> Raw:
    return pod.get("status") or {}


def _labels(pod: Raw) -> Raw:
    return pod["metadata"].get("labels") or {}
