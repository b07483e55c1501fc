"""The server's container: what it is in the pods of every workload."""

import json
from typing import Any, Final
from urllib.parse import urlsplit

from yolofleet.api.access import Guard
from yolofleet.api.base import seconds
from yolofleet.api.detector import Detector, Head
from yolofleet.api.names import RENDER_ANNOTATION, Manifest
from yolofleet.api.pod_template import API_KEYS, MODEL_CLAIM
from yolofleet.workloads import judged
from yolofleet.workloads.accelerators import tolerations
from yolofleet.workloads.pod_template import merged
from yolofleet.workloads.revision import Revision
from yolofleet.workloads.workload import PlannedRevision

CACHE = "/var/cache/yoloserve"
KEYS_FILE = "keys"
MOST_NOTED = 240 * 1024
FORGOTTEN_SECONDS = 15
"""How long a pod goes on answering after SIGTERM: until every proxy has forgotten its address."""


POD_SECURITY: Final = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "fsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: Final = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}
"""What the restricted Pod Security Standard asks for."""


def noted(planned: PlannedRevision) -> dict[str, str]:
    """Return the record, where it fits: all annotations of an object may have 256 KiB.

    One that does not is in the ControllerRevision alone.
    """
    text = planned.record.text
    return {RENDER_ANNOTATION: text} if len(text.encode()) <= MOST_NOTED else {}


def as_asked(template: Manifest, revision: Revision) -> Manifest:
    """Return the pods' `template` with the user's own, open to who judges, and tolerant."""
    pods = merged(template, revision.pod_template)
    judged.past_the_sidecar(pods, revision)
    if tolerated := tolerations(revision):
        pods["spec"]["tolerations"] = tolerated
    return pods


def scraped(port: tuple[str, int]) -> dict[str, str]:
    """Return the annotations by which a Prometheus without its operator finds the metrics."""
    return {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(port[1]),
        "prometheus.io/path": "/metrics",
    }


def drain(revision: Revision) -> int:
    """Return the seconds for which a pod goes on answering once it is to go."""
    return min(revision.drain_seconds, FORGOTTEN_SECONDS)


def environment(detector: Detector, revision: Revision) -> list[dict[str, str]]:
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
        "DRAIN_SECONDS": str(drain(revision)),
        "CACHE_DIR": CACHE,
        **_guard(revision.guard),
        **judged.settings(revision, detector.namespace),
    }
    return [
        {"name": f"YOLOSERVE_{name}", "value": value} for name, value in values.items() if value
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


def mounts(revision: Revision) -> list[dict[str, Any]]:
    """Return what is mounted into it."""
    return [
        {"name": "cache", "mountPath": CACHE},
        *_read_only(revision),
        *judged.mounts(revision),
    ]


def _read_only(revision: Revision) -> list[dict[str, Any]]:
    return [
        {"name": mount.volume, "mountPath": mount.path, "readOnly": True}
        for mount, wanted in (
            (MODEL_CLAIM, revision.model.uri.startswith("pvc://")),
            (API_KEYS, revision.guard.api_keys is not None),
        )
        if wanted
    ]


def volumes(detector: Detector, revision: Revision) -> list[dict[str, Any]]:
    """Return the volumes of these mounts."""
    return [
        {"name": "cache", "emptyDir": {}},
        *_volumes(revision),
        *judged.volumes(detector.name, revision),
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


def resources(revision: Revision) -> dict[str, dict[str, str]]:
    """Return its requests and limits."""
    kinds = {"requests": revision.resources.requests, "limits": revision.resources.limits}
    return {name: amounts for name, amounts in kinds.items() if amounts}
