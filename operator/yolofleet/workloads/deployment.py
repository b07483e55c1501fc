"""The Deployment of a revision: everything its pods are, and nothing that changes without them.

And what it tells of these, read back.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from math import ceil
from typing import Any

from yolofleet.api.base import seconds
from yolofleet.api.detector import Detector
from yolofleet.api.names import (
    RENDER_ANNOTATION,
    REVISION_LABEL,
    Manifest,
    selector_labels,
)
from yolofleet.api.pod_template import SERVER_CONTAINER, SERVER_PORT
from yolofleet.api.status import Reason
from yolofleet.manifests.child import child
from yolofleet.workloads import judged, server
from yolofleet.workloads.account import account_of
from yolofleet.workloads.claims import container_claims, pod_claims
from yolofleet.workloads.failures import Failure
from yolofleet.workloads.record import failure_noted, notes, was_proved, was_released
from yolofleet.workloads.revision import Revision
from yolofleet.workloads.workload import PlannedRevision, Record, Running

KIND = "Deployment"
POD = r"spec\.template"

OWN_AUTOSCALER = False
SWAPS = True
SCRAPED = SERVER_PORT[0]
QUEUES = False
SAID: tuple[tuple[str, str], ...] = ()
LACKING = ""

_HOMES = [{"name": name, "value": server.CACHE} for name in ("HOME", "TMPDIR")]


# writing


def build(detector: Detector, planned: PlannedRevision, /) -> Manifest:
    """Return the Deployment of one revision; without `replicas` when an autoscaler owns them."""
    revision = planned.revision
    selector = selector_labels(detector.name, revision.name)
    made = child(
        "deployment.yaml.j2",
        detector,
        revision.name,
        revision=revision.name,
        annotations=server.noted(planned) | notes(planned),
        pod_annotations=server.scraped(SERVER_PORT) if revision.guard.metrics_open else {},
        replicas=planned.replicas,
        selector=selector,
        strategy=_strategy(revision),
        service_account=account_of(detector, revision),
        pod_security=server.POD_SECURITY,
        container_security=server.CONTAINER_SECURITY | {"readOnlyRootFilesystem": True},
        grace_seconds=server.drain(revision) + ceil(seconds(revision.inference.deadline)) + 10,
        container=SERVER_CONTAINER,
        image=revision.image,
        pull_policy=revision.pull_policy,
        env=[*server.environment(detector, revision), *_HOMES],
        ports=[_serving(), *judged.ports(revision)],
        claims=pod_claims(revision),
        resources=server.resources(revision) | container_claims(revision),
        mounts=server.mounts(revision),
        volumes=server.volumes(detector, revision),
    )
    made["spec"]["template"] = server.as_asked(pod(made), revision)
    return made


def _strategy(revision: Revision) -> dict[str, Any]:
    """Return how pods are replaced, which only a change from outside can cause.

    Surging would ask for a second accelerator while the old pod holds what may be the only one.
    """
    surge = 0 if revision.resources.accelerators or revision.accelerator else 1
    return {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": surge, "maxUnavailable": 1 - surge},
    }


def _serving() -> dict[str, Any]:
    name, number = SERVER_PORT
    return {"name": name, "containerPort": number, "protocol": "TCP"}


def stands(_planned: PlannedRevision, /) -> bool:
    """Say yes: at zero replicas a Deployment costs nothing."""
    return True


def beside(_detector: Detector, _planned: PlannedRevision, /) -> list[Manifest]:
    """Return nothing: pods of a Deployment are alike, and know nothing of each other."""
    return []


def scaled(revision: str, /) -> dict[str, str]:
    """Return what an autoscaler targets."""
    return {"apiVersion": "apps/v1", "kind": KIND, "name": revision}


# reading


def pod(manifest: Manifest, /) -> Manifest:
    """Return the template of its pods."""
    template: Manifest = manifest["spec"]["template"]
    return template


def budget(_replicas: int, /) -> dict[str, Any]:
    """Return what a drained node may take of its replicas at a time."""
    return {"max_unavailable": 1, "min_available": None}


def alone(_revision: Revision, /) -> str:
    """Return nothing: no pod is more than another."""
    return ""


def read(manifest: Manifest, _pods: Sequence[Manifest], _now: datetime, /) -> Running:
    """Return what a Deployment tells of its revision."""
    metadata, status = manifest["metadata"], manifest.get("status", {})
    replicas = int(manifest["spec"].get("replicas", 1))
    available = int(status.get("availableReplicas", 0))
    settled = status.get("observedGeneration", 0) >= metadata.get("generation", 0)
    return Running(
        name=metadata["name"],
        created=metadata.get("creationTimestamp", ""),
        replicas=replicas,
        ready=min(available, replicas),  # the rest is on its way out
        settled=settled,
        leaving=available > replicas or not settled,
        noted=Record(metadata.get("annotations", {}).get(RENDER_ANNOTATION, "")),
        released=was_released(manifest),
        proved=was_proved(manifest),
        failed=failure_noted(manifest),
        failure=_failure(metadata["name"], status),
    )


_POD_NAME = re.compile(r'[Pp]ods? "[^"]{0,253}" is ')
_MOST_TOLD = 2_000
"""Characters: a policy that refuses a pod may quote all that is in it."""


def _failure(name: str, status: Manifest) -> Failure | None:
    """Say why `name` has no pod to ask, or that its pods took too long.

    A LimitRange, a quota or a policy may let none be made.
    """
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    refused, progress = conditions.get("ReplicaFailure", {}), conditions.get("Progressing", {})
    if refused.get("status") == "True":
        message = refused.get("message", "")[:_MOST_TOLD]
        message = _POD_NAME.sub("pods are ", message)  # a new name each time
        return Failure(Reason.PODS_REFUSED, f"no pod can be made: {message}")
    if progress.get("reason") == "ProgressDeadlineExceeded":
        return Failure(
            Reason.DEADLINE_EXCEEDED,
            "no pod got ready for ten minutes, and none says why; see kubectl describe pod"
            f" -l {REVISION_LABEL}={name}, and kubectl logs with the same label",
        )
    return None
