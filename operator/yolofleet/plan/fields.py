"""Where the user wrote what an object of a detector holds: for the API server's words about it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from yolofleet.api.detector import DetectorSpec
from yolofleet.api.names import Manifest
from yolofleet.api.pod_template import MERGE_KEYS, MOUNTS, SERVER_CONTAINER
from yolofleet.routers.choice import ROUTERS
from yolofleet.workloads.choice import workload_of
from yolofleet.workloads.revision import Revision

_ACCELERATOR = "spec.accelerator"
_WRITTEN: Mapping[str, tuple[tuple[str, str], ...]] = {
    "HorizontalPodAutoscaler": (
        (r"spec\.behavior", "spec.autoscaling.behavior"),
        (r"spec\.minReplicas", "spec.autoscaling.minReplicas"),
        (r"spec\.maxReplicas", "spec.autoscaling.maxReplicas"),
        (r"spec\.metrics(\[\d+\])?", "spec.autoscaling"),
    ),
    "ScaledObject": (
        (r"spec\.advanced\.horizontalPodAutoscalerConfig\.behavior", "spec.autoscaling.behavior"),
        (r"spec\.minReplicaCount", "spec.autoscaling.minReplicas"),
        (r"spec\.maxReplicaCount", "spec.autoscaling.maxReplicas"),
        (r"spec\.triggers(\[\d+\])?", "spec.autoscaling"),
    ),
    "ResourceClaimTemplate": tuple(
        (rf"spec\.spec\.devices\.requests\[0\]\.exactly\.{field}", f"{_ACCELERATOR}.{field}")
        for field in ("selectors", "deviceClassName", "count")
    ),
    "NetworkPolicy": (
        (r"spec\.ingress(\[\d+\])?\.from(\[\d+\])?", "spec.access.allowFrom"),  # ours come first
        (r"spec\.egress(\[\d+\])?", "spec.access.allowTo"),
    ),
    **{router.KIND: router.FIELDS for router in ROUTERS.values()},
}


# From the beginning of a word alone: else a long one is looked through from each of its letters.
_OUR_SIDE = re.compile(r"(?<!\S)\S+:\d+->(?=\S+:\d)")
"""Of a connection in the words of Go's `net`: another port at each try, which would be news."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where in a spec the parts of a revision were asked for."""

    pod_template: str = "spec.podTemplate"
    resources: str = "spec.resources"
    image: str = "spec.runtime.image"
    accelerator: str = _ACCELERATOR


def origin(spec: DetectorSpec, revision: Revision | None) -> Origin:
    """Return whether `revision` has its parts from the spec itself or from its canary."""
    canary = spec.canary
    if canary is None or revision is None:
        return Origin()
    wrote = Origin()
    template, resources, image = wrote.pod_template, wrote.resources, wrote.image
    accelerator = wrote.accelerator
    if revision.pod_template == canary.pod_template != spec.pod_template:
        template = "spec.canary.podTemplate"
    if revision.resources == canary.resources != spec.resources:
        resources = "spec.canary.resources"
    if revision.runtime.image == canary.runtime.image != spec.runtime.image:
        image = "spec.canary.runtime.image"
    if revision.accelerator == canary.accelerator != spec.accelerator:
        accelerator = "spec.canary.accelerator"
    return Origin(template, resources, image, accelerator)


def as_the_user_wrote(manifest: Manifest, message: str, of: Origin) -> str:
    """Return what the API server says of an object, with fields as the detector has them.

    of: where the pods of a workload were asked for. A field that the detector does not have is
    left as it is. What differs from try to try goes.
    """
    message = steady(message)
    if workload := workload_of(manifest):
        for said, meant in workload.SAID:
            message = re.sub(said, meant, message)
        return _of_pods(workload.pod(manifest), message, of, rf"\.?{workload.POD}({_STEPS})")
    for field, written in _WRITTEN.get(manifest["kind"], ()):
        written = written.replace(_ACCELERATOR, of.accelerator)
        message = re.sub(rf"(?<![\w.])\.?{field}(?![A-Za-z])", written, message)
    return message


def of_a_pod(template: Manifest, message: str, of: Origin) -> str:
    """Return the same of what is said of a pod made from `template`."""
    return _of_pods(template, message, of, rf"(?=spec[.\[])({_STEPS.replace('*', '+')})")


def steady(message: str) -> str:
    """Return what the API server says without what differs from try to try."""
    return _OUR_SIDE.sub("", message)


# A key is a name: else what is quoted is searched for its ] from each [ on.
_STEPS = r"(?:\.?[A-Za-z]\w*|\[[^\]\s]{0,253}\])*"
_STEP = re.compile(r"([A-Za-z]\w*)|\[([^\]]*)\]")


def _of_pods(template: Manifest, message: str, of: Origin, path: str) -> str:
    return re.sub(rf"(?<![\w.]){path}", lambda found: _written(template, found[1], of), message)


def _written(template: Manifest, path: str, of: Origin) -> str:
    """Return where the user wrote what is at `path` of a pod template."""
    steps = list(_named(template, path))
    if steps[:1] in (["labels"], ["annotations"]):  # as validation calls them
        steps.insert(0, "metadata")
    match steps:
        case ["spec", "containers", server, part, *rest] if server == f"[{SERVER_CONTAINER}]":
            if part in ("resources", "image"):
                return _joined([of.resources if part == "resources" else of.image, *rest])
        case ["spec", "volumes", volume, *_]:
            for mount in MOUNTS:
                if volume == f"[{mount.volume}]":
                    return mount.field
    return _joined([of.pod_template, *steps])


def _named(at: Any, path: str) -> list[str]:
    """Return the steps of `path` from `at`, with items of lists by what they are known by.

    Places in lists are those of the whole pod, of which the user wrote only some.
    """
    steps: list[str] = []
    key = ""
    for field, item in _STEP.findall(path):
        if field:
            at, key = (at.get(field) if isinstance(at, dict) else None), MERGE_KEYS.get(field, "")
            steps.append(field)
            continue
        at = _item(at, item, key)
        steps.append(f"[{at[key]}]" if isinstance(at, dict) and key in at else f"[{item}]")
    return steps


def _item(at: Any, step: str, key: str) -> Any:
    if isinstance(at, dict):
        return at.get(step)
    if not isinstance(at, list):
        return None
    if step.isdecimal():
        return at[int(step)] if int(step) < len(at) else None
    named = step.partition("=")[2].strip('"')
    return next((each for each in at if key and str(each.get(key)) == named), None)


def _joined(steps: list[str]) -> str:
    return ".".join(steps).replace(".[", "[")
