"""The Deployment of a revision: everything its pods are, and nothing that changes without them.

And what it tells of these, read back.
"""

import json
import re
from math import ceil
from typing import Any
from urllib.parse import urlsplit

from yolofleet.api.access import Guard
from yolofleet.api.base import seconds
from yolofleet.api.detector import Detector, Head
from yolofleet.api.names import (
    RENDER_ANNOTATION,
    REVISION_LABEL,
    Manifest,
    selector_labels,
)
from yolofleet.api.pod_template import API_KEYS, MODEL_CLAIM, SERVER_CONTAINER, SERVER_PORT
from yolofleet.api.status import Reason
from yolofleet.manifests.child import child
from yolofleet.workloads import judged
from yolofleet.workloads.accelerators import tolerations
from yolofleet.workloads.account import account_of
from yolofleet.workloads.claims import container_claims, pod_claims
from yolofleet.workloads.failures import Failure
from yolofleet.workloads.pod_template import merged
from yolofleet.workloads.record import failure_noted, notes, was_proved, was_released
from yolofleet.workloads.revision import Revision
from yolofleet.workloads.workload import PlannedRevision, Record, Running

KIND = "Deployment"
POD = r"spec\.template"

CACHE = "/var/cache/yoloserve"
KEYS_FILE = "keys"
MOST_NOTED = 240 * 1024
FORGOTTEN_SECONDS = 15
"""How long a pod goes on answering after SIGTERM: until every proxy has forgotten its address."""


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
        annotations=_noted(planned) | notes(planned),
        pod_annotations=_scrape() if revision.guard.metrics_open else {},
        replicas=planned.replicas,
        selector=selector,
        strategy=_strategy(revision),
        service_account=account_of(detector, revision),
        grace_seconds=_drain(revision) + ceil(seconds(revision.inference.deadline)) + 10,
        container=SERVER_CONTAINER,
        image=revision.image,
        pull_policy=revision.pull_policy,
        env=_environment(detector, revision),
        ports=[_serving(), *judged.ports(revision)],
        claims=pod_claims(revision),
        resources=_resources(revision) | container_claims(revision),
        mounts=[
            {"name": "cache", "mountPath": CACHE},
            *_mounts(revision),
            *judged.mounts(revision),
        ],
        volumes=[
            {"name": "cache", "emptyDir": {}},
            *_volumes(revision),
            *judged.volumes(detector.name, revision),
        ],
    )
    made["spec"]["template"] = merged(pod(made), revision.pod_template)
    judged.past_the_sidecar(pod(made), revision)
    if tolerated := tolerations(revision):
        pod(made)["spec"]["tolerations"] = tolerated
    return made


def _noted(planned: PlannedRevision) -> dict[str, str]:
    """Return the record, where it fits: all annotations of an object may have 256 KiB.

    One that does not is in the ControllerRevision alone.
    """
    text = planned.record.text
    return {RENDER_ANNOTATION: text} if len(text.encode()) <= MOST_NOTED else {}


def _strategy(revision: Revision) -> dict[str, Any]:
    """Return how pods are replaced, which only a change from outside can cause.

    Surging would ask for a second accelerator while the old pod holds what may be the only one.
    """
    surge = 0 if revision.resources.accelerators or revision.accelerator else 1
    return {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": surge, "maxUnavailable": 1 - surge},
    }


def _drain(revision: Revision) -> int:
    return min(revision.drain_seconds, FORGOTTEN_SECONDS)


def _serving() -> dict[str, Any]:
    name, number = SERVER_PORT
    return {"name": name, "containerPort": number, "protocol": "TCP"}


def _scrape() -> dict[str, str]:
    return {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "8080",
        "prometheus.io/path": "/metrics",
    }


def _environment(detector: Detector, revision: Revision) -> list[dict[str, str]]:
    """Return the server's settings; the names are those of its command line."""
    inference, runtime = revision.inference, revision.runtime
    values = {
        "NAME": detector.name,
        "REVISION": revision.name,
        "MODEL": _uri(revision.model.uri),
        "SHA256": revision.model.sha256,
        "CLASSES": json.dumps(revision.model.classes) if revision.model.classes else "",
        **{f"ALLOW_{code.name}": "true" for code in revision.model.allow_code},
        "HEAD": "" if revision.model.head is Head.AUTO else revision.model.head.value,
        "ALLOW_BLIND": "true" if revision.model.allow_blind else "",
        "BACKEND": runtime.backend.value,
        "PRECISION": runtime.precision.value,
        "PROFILE": inference.profile.value,
        "IMAGE_SIZE": str(inference.image_size or 0),
        "CONFIDENCE": str(inference.confidence),
        "IOU": str(inference.iou),
        "AGNOSTIC_NMS": "true" if inference.agnostic_nms else "",  # none: pods stay as they were
        "MAX_DETECTIONS": str(inference.max_detections),
        "DEADLINE_MS": str(int(seconds(inference.deadline) * 1000)),
        "MAX_BATCH": str(inference.max_batch),
        "DRAIN_SECONDS": str(_drain(revision)),
        "CACHE_DIR": CACHE,
        **_guard(revision.guard),
        **judged.settings(revision, detector.namespace),
    }
    homes = [{"name": name, "value": CACHE} for name in ("HOME", "TMPDIR")]
    return [
        *({"name": f"YOLOSERVE_{name}", "value": value} for name, value in values.items() if value),
        *homes,
    ]


def _uri(uri: str) -> str:
    """Return what the server reads: a claim is a folder by then."""
    parts = urlsplit(uri)
    return f"file://{MODEL_CLAIM.path}{parts.path}" if parts.scheme == "pvc" else uri


def _guard(guard: Guard) -> dict[str, str]:
    """Return who may ask, as settings; none where everybody may."""
    variables = {
        "METRICS_OPEN": "" if guard.metrics_open else "false",
        "CORS_ORIGINS": json.dumps(guard.cors_origins) if guard.cors_origins else "",
    }
    if guard.jwt:
        variables |= {
            "JWT_ISSUER": guard.jwt.issuer,
            "JWT_JWKS_URI": guard.jwt.jwks_uri,
            "JWT_AUDIENCES": json.dumps(guard.jwt.audiences),
        }
    if guard.api_keys:
        variables["API_KEYS_FILE"] = f"{API_KEYS.path}/{KEYS_FILE}"
    return variables


def _mounts(revision: Revision) -> list[dict[str, Any]]:
    return [
        {"name": mount.volume, "mountPath": mount.path, "readOnly": True}
        for mount, wanted in (
            (MODEL_CLAIM, revision.model.uri.startswith("pvc://")),
            (API_KEYS, revision.guard.api_keys is not None),
        )
        if wanted
    ]


def _volumes(revision: Revision) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = []
    parts = urlsplit(revision.model.uri)
    if parts.scheme == "pvc":
        claim = {"claimName": parts.netloc, "readOnly": True}
        volumes.append({"name": MODEL_CLAIM.volume, "persistentVolumeClaim": claim})
    if keys := revision.guard.api_keys:
        # The folder is mounted, not the file in it: only so does a changed Secret arrive.
        secret = {
            "secretName": keys.secret_name,
            "items": [{"key": keys.key, "path": KEYS_FILE}],
            "defaultMode": judged.READABLE_BY_GROUP,
        }
        volumes.append({"name": API_KEYS.volume, "secret": secret})
    return volumes


def _resources(revision: Revision) -> dict[str, dict[str, str]]:
    kinds = {"requests": revision.resources.requests, "limits": revision.resources.limits}
    return {name: amounts for name, amounts in kinds.items() if amounts}


def scaled(revision: str, /) -> dict[str, str]:
    """Return what an autoscaler targets."""
    return {"apiVersion": "apps/v1", "kind": KIND, "name": revision}


# reading


def pod(manifest: Manifest, /) -> Manifest:
    """Return the template of its pods."""
    template: Manifest = manifest["spec"]["template"]
    return template


def read(manifest: Manifest, /) -> Running:
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


_POD_NAME = re.compile(r'[Pp]ods? "[^"]*" is ')


def _failure(name: str, status: Manifest) -> Failure | None:
    """Say why `name` has no pod to ask, or that its pods took too long.

    A LimitRange, a quota or a policy may let none be made.
    """
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    refused, progress = conditions.get("ReplicaFailure", {}), conditions.get("Progressing", {})
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
