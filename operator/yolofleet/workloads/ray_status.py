"""What KubeRay and Ray say of a RayService, in plain words.

Fields are those of KubeRay 1.5.1 and 1.7.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from yolofleet.api.names import RAY_LABEL, Manifest
from yolofleet.api.plain import plain
from yolofleet.api.status import Reason
from yolofleet.workloads.failures import PATIENCE, Failure, moment
from yolofleet.workloads.serve_config import APPLICATION, DEPLOYMENT

_GOES: Final = ("HEALTHY", "UPDATING", "UPSCALING", "DOWNSCALING")
_GAVE_UP: Final = "DEPLOY_FAILED"
_ILL: Final = "UNHEALTHY"
_STARTING: Final = ("", "HeadPodNotFound", "ContainersNotReady", "PodInitializing")
"""Why a head is not ready that was only just made."""

_COMES_UP: Final = timedelta(minutes=3)
"""A head is up by then, its image pulled; KubeRay 1.5.1 tells of the head only once Ray answers."""

_LONGEST: Final = 500


@dataclass(frozen=True, slots=True)
class Told:
    """What is said. well: the application is up, as far as anybody knows.

    hopeless: as in `Running`. look_at: when time alone changes what is said.
    """

    well: bool
    failure: Failure | None
    hopeless: datetime | None
    look_at: datetime | None


def read(manifest: Manifest, now: datetime) -> Told:
    """Return what the status of a RayService tells."""
    status = part(manifest, "status")
    made = moment(manifest["metadata"].get("creationTimestamp"))
    if not _conditions(status):
        silent_at = made + PATIENCE if made else None
        silent = silent_at is not None and now >= silent_at
        failure = _silent(manifest, made) if silent else None
        return Told(False, failure, None, None if silent else silent_at)
    active, pending = (part(status, f"{which}ServiceStatus") for which in ("active", "pending"))
    current = active if active.get("rayClusterName") else pending
    cluster = part(current, "rayClusterStatus")
    application = part(part(current, "applicationStatuses"), APPLICATION)
    deployment = part(part(application, "serveDeploymentStatuses"), DEPLOYMENT)
    said = {str(application.get("status", "")), str(deployment.get("status", ""))}
    never = not active.get("rayClusterName") and not _was_ready(status)
    failure = _of_application(said, application, deployment)
    failure = failure or _of_head(cluster, started=not never)
    look_at = None
    if never and failure is None and not application and made:
        slow_at = made + _COMES_UP
        failure = _not_up(manifest, made) if now >= slow_at else None
        look_at = None if failure else slow_at
    return Told(
        well=str(deployment.get("status")) in _GOES and said.isdisjoint((_GAVE_UP, _ILL)),
        failure=failure,
        hopeless=made if never and _GAVE_UP in said else None,
        look_at=look_at,
    )


def part(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a part of a status; empty where another version has something else there."""
    found = of.get(name)
    return found if isinstance(found, Mapping) else {}


def number(of: Mapping[str, Any], name: str) -> int | None:
    """Return a number of a status, for which there is none below zero."""
    found = of.get(name)
    return max(found, 0) if isinstance(found, int) else None


def _was_ready(status: Mapping[str, Any]) -> bool:
    """Say whether it ever had a ready endpoint."""
    ready = _condition(status, "Ready")
    return ready.get("status") == "True" or ready.get("reason") == "ZeroServeEndpoints"


def _silent(manifest: Manifest, made: datetime | None) -> Failure:
    name = manifest["metadata"]["name"]
    return Failure(
        Reason.KUBERAY_SILENT,
        f"KubeRay does nothing with the RayService {name}; is its operator running, and does it"
        " watch this namespace?",
        since=made,
    )


def _not_up(manifest: Manifest, made: datetime) -> Failure:
    name, namespace = (manifest["metadata"][each] for each in ("name", "namespace"))
    return Failure(
        Reason.HEAD_FAILED,
        f"the Ray cluster of {name} does not come up, and KubeRay does not say why; see kubectl -n"
        f" {namespace} describe pods -l {RAY_LABEL}={name}",
        lasting=False,
        since=made,
    )


def _of_application(
    said: set[str], application: Mapping[str, Any], deployment: Mapping[str, Any]
) -> Failure | None:
    """Pass on why Serve has no replica, or is not content with one."""
    words = _last_line(deployment.get("message")) or _last_line(application.get("message"))
    words = words or "it does not say why"
    if _GAVE_UP in said:
        return Failure(Reason.DEPLOY_FAILED, f"Ray cannot start it: {words}", foremost=True)
    if _ILL in said:
        message = f"Ray takes it for unhealthy: {words}"
        return Failure(Reason.UNHEALTHY, message, lasting=False, foremost=True)
    return None


def _last_line(message: object) -> str:
    """Return where a traceback ends: the error itself."""
    lines = str(message or "").splitlines()
    return next((words for line in reversed(lines) if (words := _words(line))), "")


def _words(text: object) -> str:
    """Return so much of what others say as a person reads."""
    return plain(str(text)[:_LONGEST])


def _of_head(cluster: Mapping[str, Any], *, started: bool) -> Failure | None:
    """Say that the head is gone, or cannot start."""
    ready = _condition(cluster, "HeadPodReady")
    reason = _words(ready.get("reason") or "")
    if ready.get("status") != "False" or (not started and reason in _STARTING):
        return None
    words = _words(ready.get("message") or reason)
    since = moment(ready.get("lastTransitionTime"))
    if started:
        message = f"the head of its Ray cluster is lost, and is made again by KubeRay: {words}"
        return Failure(Reason.HEAD_LOST, message, lasting=False, since=since)
    message = f"the head of its Ray cluster does not start: {reason}: {words}"
    return Failure(Reason.HEAD_FAILED, message, lasting=False, since=since)


def _conditions(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = status.get("conditions")
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return next((each for each in _conditions(status) if each.get("type") == kind), {})
