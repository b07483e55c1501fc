"""Every group, label, annotation, field manager and object name."""

import hashlib
from typing import Any

Manifest = dict[str, Any]
"""A Kubernetes object as the API server speaks it."""

GROUP = "yolofleet.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "YoloDetector"
PLURAL = "yolodetectors"

DETECTOR_LABEL = f"{GROUP}/detector"
REVISION_LABEL = f"{GROUP}/revision"
RAY_LABEL = f"{GROUP}/ray-cluster"
"""On the head and the workers of a revision that runs on Ray: which one."""

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "yolofleet"

RENDER_ANNOTATION = f"{GROUP}/render"
"""On a revision's Deployment: what it was rendered with, so that an upgrade restarts no pod."""

RELEASED_ANNOTATION = f"{GROUP}/released"
"""On a revision's Deployment and record: all traffic has been to it; a roll-back needs no steps."""

UNPROVED = "unproved"
"""The value of that for the first revision of a detector, while it is to be judged by itself."""

RECORD_KEY = "record"
"""In the data of a ControllerRevision: what `RENDER_ANNOTATION` says, apart from the Deployment."""

REMADE_ANNOTATION = f"{GROUP}/remade"
"""On a record: how often its workload, which never was ready, was made anew."""

SERVED_ANNOTATION = f"{GROUP}/served"
"""On workloads that may be made anew: it was ready, and is not."""

FAILED_ANNOTATION = f"{GROUP}/failed"
"""On the workload of a revision that was called off: what it failed, as JSON."""

RETRY_ANNOTATION = f"{GROUP}/retry"
"""On a detector, by a person: REVISION or REVISION:ANYTHING has that revision judged again, once
for each value."""

LAST_APPLIED_ANNOTATION = f"{GROUP}/wish"
"""On every child: hashes of what was wanted of it, which tell our own changes from others'."""

MANAGER = "yolofleet"
STATUS_MANAGER = "yolofleet-status"
HANDOVER_MANAGER = "yolofleet-handover"

LIVE = "live"
"""What the name of that ConfigMap ends in."""

MAX_NAME = 63  # a DNS label: the name of a Service, and the value of a label
HASH_DIGITS = 8


def revision_name(detector: str, digest: str) -> str:
    """Name the revision of `detector` whose identity hashes to `digest` (hex)."""
    return f"{revisions_prefix(detector)}-{digest[:HASH_DIGITS]}"


def revisions_prefix(detector: str) -> str:
    """Return what the names of the revisions of `detector` begin with, but for a hyphen."""
    return shortened(detector, MAX_NAME - HASH_DIGITS - 1)


def revision_of(name: str) -> str:
    """Return the prefix of the revisions that `name` could be one of; nothing if of none."""
    prefix, _, digest = name.rpartition("-")
    looks = len(digest) == HASH_DIGITS and set(digest) <= set("0123456789abcdef")
    return prefix if looks else ""


def shortened(name: str, limit: int) -> str:
    """Return `name` in at most `limit` characters; what is cut off still tells names apart."""
    if len(name) <= limit:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{name[: limit - 7].rstrip('-.')}-{digest}"


def live_name(detector: str) -> str:
    """Name the ConfigMap of what may change while the pods of `detector` run."""
    return f"{detector}-{LIVE}"


def child_labels(detector: str) -> dict[str, str]:
    """Return the labels that every child of `detector` carries and is watched by."""
    return {
        "app.kubernetes.io/name": "yoloserve",
        "app.kubernetes.io/instance": detector,
        MANAGED_BY_LABEL: MANAGED_BY,
        DETECTOR_LABEL: detector,
    }


def selector_labels(detector: str, revision: str) -> dict[str, str]:
    """Return what selects the pods of one revision; constant for its whole life."""
    return {DETECTOR_LABEL: detector, REVISION_LABEL: revision}


def is_accelerator(resource: str) -> bool:
    """Say whether `resource` is an extended one (vendor/name), as device plugins offer them."""
    return "/" in resource and "kubernetes.io/" not in resource
