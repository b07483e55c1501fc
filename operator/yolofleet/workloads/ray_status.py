"""What KubeRay and Ray say of a RayService, in plain words.

Fields are those of KubeRay 1.5.1 and 1.7.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from yolofleet.api.names import Manifest
from yolofleet.api.status import Reason
from yolofleet.workloads.failures import PATIENCE, Failure, moment
from yolofleet.workloads.serve_config import APPLICATION, DEPLOYMENT

_GOES: Final = ("HEALTHY", "UPDATING", "UPSCALING", "DOWNSCALING")
_GAVE_UP: Final = "DEPLOY_FAILED"
_ILL: Final = "UNHEALTHY"
_STARTING: Final = ("", "HeadPodNotFound", "ContainersNotReady", "PodInitializing")
"""Why a head is not ready that was only just made."""

_LONGEST: Final = 500


@dataclass(frozen=True, slots=True)
class Told:
    """What is said. well: the application is up, as far as anybody knows.

    workers: how many Ray's autoscaler asks for. hopeless: as in `Running`. look_at: when time alone
    changes what is said.
    """

    well: bool
    workers: int | None
    failure: Failure | None
    hopeless: datetime | None
    look_at: datetime | None


def read(manifest: Manifest, now: datetime) -> Told:
    """Return what the status of a RayService tells."""
    status = manifest.get("status") or {}
    made = moment(manifest["metadata"].get("creationTimestamp"))
    if not status.get("conditions"):
        silent_at = made + PATIENCE if made else None
        silent = silent_at is not None and now >= silent_at
        failure = _silent(manifest, made) if silent else None
        return Told(False, None, failure, None, None if silent else silent_at)
    active, pending = (status.get(f"{which}ServiceStatus") or {} for which in ("active", "pending"))
    current = active if active.get("rayClusterName") else pending
    application = (current.get("applicationStatuses") or {}).get(APPLICATION) or {}
    deployment = (application.get("serveDeploymentStatuses") or {}).get(DEPLOYMENT) or {}
    said = {str(application.get("status", "")), str(deployment.get("status", ""))}
    never = not active.get("rayClusterName") and not _was_ready(status)
    failure = _of_application(said, application, deployment)
    failure = failure or _of_head(current.get("rayClusterStatus") or {}, started=not never)
    return Told(
        well=deployment.get("status") in _GOES and _GAVE_UP not in said and _ILL not in said,
        workers=_workers(current.get("rayClusterStatus") or {}),
        failure=failure,
        hopeless=made if never and _GAVE_UP in said else None,
        look_at=None,
    )


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
    lines = [line.strip() for line in str(message or "").splitlines()]
    return next((line[:_LONGEST] for line in reversed(lines) if line), "")


def _of_head(cluster: Mapping[str, Any], *, started: bool) -> Failure | None:
    """Say that the head is gone, or cannot start."""
    ready = _condition(cluster, "HeadPodReady")
    reason = str(ready.get("reason", ""))
    if ready.get("status") != "False" or (not started and reason in _STARTING):
        return None
    words = str(ready.get("message") or reason)[:_LONGEST]
    since = moment(ready.get("lastTransitionTime"))
    if started:
        message = f"the head of its Ray cluster is lost, and is made again by KubeRay: {words}"
        return Failure(Reason.HEAD_LOST, message, lasting=False, since=since)
    message = f"the head of its Ray cluster does not start: {reason}: {words}"
    return Failure(Reason.HEAD_FAILED, message, lasting=False, since=since)


def _workers(cluster: Mapping[str, Any]) -> int | None:
    found = cluster.get("desiredWorkerReplicas")
    return int(found) if isinstance(found, int) else None


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    conditions = status.get("conditions") or ()
    return next((each for each in conditions if each.get("type") == kind), {})
