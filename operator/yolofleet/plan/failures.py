"""Why pods do not serve: what kubelet, scheduler and the server say of them, in plain words."""

import json
import re
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from yolofleet.api.names import REVISION_LABEL, Manifest
from yolofleet.api.pod_template import SERVER_CONTAINER
from yolofleet.api.status import Reason

EXIT_CONFIG = 78
"""sysexits.h EX_CONFIG: the server's word that its settings or its model cannot work."""

PATIENCE = timedelta(minutes=1)
"""What may put itself right (a node that is added, a gateway that starts) is given this long."""

ENDS_TO_DESPAIR = 2
"""A container that ended this often will end again: the first time may have been the network."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a pod does not serve, in words for a person.

    lasting: it will not put itself right. since: when it began, where time decides that.
    """

    reason: str
    message: str
    lasting: bool = True
    since: datetime | None = None


def failures_by_revision(pods: Iterable[Manifest], now: datetime) -> dict[str, Failure]:
    """Return by revision what keeps a pod of it from serving; the newest pod speaks."""
    failures: dict[str, Failure] = {}
    for pod in sorted(pods, key=lambda p: str(p["metadata"].get("creationTimestamp", ""))):
        revision = pod["metadata"].get("labels", {}).get(REVISION_LABEL, "")
        if "deletionTimestamp" in pod["metadata"]:
            continue
        if (failure := pod_failure(pod, now)) is not None:
            failures[revision] = failure
    return failures


_POD_NAME = re.compile(r'pods "[^"]*" is ')


def deployment_failure(name: str, status: Manifest) -> Failure | None:
    """Say why `name` has no pod to ask, or that its pods took too long.

    A LimitRange, a quota or a policy may let none be made.
    """
    told = {c["type"]: c for c in status.get("conditions", [])}
    refused, progress = told.get("ReplicaFailure", {}), told.get("Progressing", {})
    if refused.get("status") == "True":
        message = _POD_NAME.sub("pods are ", refused.get("message", ""))  # a new name each time
        return Failure(Reason.PODS_REFUSED, f"no pod can be made: {message}")
    if progress.get("reason") == "ProgressDeadlineExceeded":
        return Failure(
            Reason.DEADLINE_EXCEEDED,
            "no pod got ready for ten minutes, and none says why; see kubectl describe pod"
            f" -l {REVISION_LABEL}={name}, and kubectl logs with the same label",
        )
    return None


WAITING = {
    "ErrImagePull": Reason.IMAGE_PULL_FAILED,
    "ImagePullBackOff": Reason.IMAGE_PULL_FAILED,
    "InvalidImageName": Reason.IMAGE_PULL_FAILED,
    "ErrImageNeverPull": Reason.IMAGE_PULL_FAILED,
    "CreateContainerConfigError": Reason.CONFIG_REFUSED,
    "CreateContainerError": Reason.CONFIG_REFUSED,
    "RunContainerError": Reason.CONFIG_REFUSED,
}

_FIRST_TRY = "ErrImagePull"  # it is tried again, and is ImagePullBackOff when that fails too

_FIXES = {
    Reason.IMAGE_PULL_FAILED: ". Check the name in spec.runtime.image, and the registry's"
    " credentials in spec.podTemplate.spec.imagePullSecrets"
}


def pod_failure(pod: Manifest, now: datetime) -> Failure | None:
    """Say why `pod` does not serve; None while it starts or when it does."""
    status = pod.get("status", {})
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return _unscheduled(condition, now)
    for container in (
        *status.get("initContainerStatuses", []),
        *status.get("containerStatuses", []),
    ):
        if container.get("ready"):
            continue
        if (failure := _container_failure(container)) is not None:
            return failure
    return None


def _unscheduled(condition: Mapping[str, Any], now: datetime) -> Failure:
    """Pass on the scheduler's words. A node may be on its way."""
    since, told = moment(condition.get("lastTransitionTime")), condition.get("message", "")
    lasting = since is not None and now - since >= PATIENCE
    return Failure(Reason.UNSCHEDULABLE, f"no node fits: {told}", lasting, since)


def _container_failure(container: Mapping[str, Any]) -> Failure | None:
    state, last = container.get("state", {}), container.get("lastState", {})
    waiting = state.get("waiting", {})
    if reason := WAITING.get(waiting.get("reason", "")):
        image = container.get("image", "")
        told = f"image {image}: {waiting.get('message') or waiting['reason']}"
        lasting = waiting["reason"] != _FIRST_TRY
        return Failure(reason, told + _FIXES.get(reason, ""), lasting)
    ended = state.get("terminated") or last.get("terminated")
    if not ended:
        return None
    lasting = container.get("restartCount", 0) >= ENDS_TO_DESPAIR
    if ended.get("reason") == "OOMKilled":
        return Failure(
            Reason.OUT_OF_MEMORY,
            f"container {container['name']} was killed for memory;"
            " raise spec.resources.limits.memory",
            lasting,
        )
    if ended.get("exitCode") == EXIT_CONFIG and container["name"] == SERVER_CONTAINER:
        return _told_by_server(ended.get("message", ""))
    if ended.get("exitCode"):
        return Failure(
            Reason.CRASHED,
            f"container {container['name']} exited with code {_code(ended)}:"
            f" {(ended.get('message') or '').strip()[-500:] or 'it said nothing'}",
            lasting,
        )
    return None


def _code(ended: Mapping[str, Any]) -> str:
    """Return the exit code with what it means: a signal, or what the runtime calls it."""
    code = int(ended["exitCode"])
    try:
        meaning = signal.Signals(code - 128).name
    except ValueError:
        meaning = ended.get("reason") or "Error"
    return f"{code} ({meaning})"


def _told_by_server(message: str) -> Failure:
    """Read what the server left in its termination log: its own reason and message."""
    try:
        told = json.loads(message)
        return Failure(str(told["reason"])[:64], str(told["message"])[:1500])
    except (ValueError, KeyError, TypeError):
        return Failure(Reason.CRASHED, f"the server refused to start: {message.strip()[:500]}")


def moment(text: object) -> datetime | None:
    """Read a time as the API server writes it; None for what is none."""
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None
