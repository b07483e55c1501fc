"""What pods ask for of accelerators, as the scheduler counts it, and what they tolerate for it."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from yolofleet.api.names import Manifest, is_accelerator
from yolofleet.api.pod_template import SERVER_CONTAINER, PodTemplate
from yolofleet.runtime.quantity import amount
from yolofleet.workloads.claims import claimed
from yolofleet.workloads.pods import has_ended
from yolofleet.workloads.revision import Revision

TOLERANT_SINCE: Final = 2
"""From this render version on, pods tolerate the taint that keeps others off accelerators."""


def place(pod: Manifest) -> str:
    """Return the node that `pod` holds resources on; empty before it has one and after its end."""
    if has_ended(pod):
        return ""
    return str(pod.get("spec", {}).get("nodeName") or "")


def pod_requests(pod: Manifest) -> dict[str, int]:
    """Return the accelerators that `pod` asks for, as the scheduler counts them."""
    return spec_requests(pod.get("spec", {}))


def requests_of(revision: Revision) -> dict[str, int]:
    """Return the accelerators that one pod of `revision` asks for, those that it claims too."""
    return _extended(revision) | claimed(revision)


def _extended(revision: Revision) -> dict[str, int]:
    return template_requests(revision.resources.accelerators, revision.pod_template)


def tolerations(revision: Revision) -> list[dict[str, Any]]:
    """Return what the pods of `revision` tolerate: the taint of the accelerators they ask for.

    Nodes with accelerators often carry it, under the resource's name or as vendor/gpu, so that
    only pods that need them come; what `podTemplate` tolerates is added to that. A DeviceClass is
    called by its vendor too: gpu.nvidia.com.
    """
    theirs = [dict(item) for item in items(revision.pod_template.spec.get("tolerations"))]
    if revision.render_version < TOLERANT_SINCE:
        return theirs
    keys = {key for r in _extended(revision) for key in (r, f"{r.split('/')[0]}/gpu")}
    if claims := revision.accelerator:
        keys.add(f"{claims.device_class_name.partition('.')[2] or claims.device_class_name}/gpu")
    ours = [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in sorted(keys)]
    return [*theirs, *(each for each in ours if each not in theirs)]


def template_requests(limits: Mapping[str, str], template: PodTemplate) -> dict[str, int]:
    """Return what the server's container and all that the template adds to the pod ask for."""
    pod = template.spec
    if not (limits or pod):  # of most
        return {}
    ours: dict[str, Any] = {"limits": dict(limits)}
    others = []
    for container in items(pod.get("containers")):
        amounts = fields(container.get("resources"))
        if container.get("name") == SERVER_CONTAINER:
            ours["limits"] |= fields(amounts.get("limits"))
        else:
            others.append(container)
    server = {"name": SERVER_CONTAINER, "resources": ours}
    return spec_requests(
        {"containers": [server, *others], "initContainers": pod.get("initContainers")}
    )


def spec_requests(pod: Mapping[str, Any]) -> dict[str, int]:
    """Return the accelerators of a pod spec: side-cars add up, init containers take turns."""
    running: Counter[str] = Counter()
    peak: Counter[str] = Counter()
    for container in items(pod.get("initContainers")):
        own = _of_container(container)
        if container.get("restartPolicy") == "Always":
            running += own
            own = Counter()
        peak |= running + own
    for container in items(pod.get("containers")):
        running += _of_container(container)
    return dict(running | peak)


def _of_container(container: Mapping[str, Any]) -> Counter[str]:
    resources = fields(container.get("resources"))
    amounts = fields(resources.get("limits")) | fields(resources.get("requests"))
    return Counter({r: _whole(q) for r, q in amounts.items() if is_accelerator(str(r))})


def _whole(quantity: Any) -> int:
    try:
        return int(amount(quantity))
    except ValueError:  # the API server refuses the pod, and says so
        return 0


def items(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects of a list in a free-form field; whatever else is there is nobody's."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def fields(value: Any) -> dict[str, Any]:
    """Return an object in a free-form field, as `items` does."""
    return dict(value) if isinstance(value, Mapping) else {}
