"""Room for accelerators: how many more pods of a revision fit on the nodes now, and why not more.

What the scheduler would find, asked before a pod exists: a node's allocatable amount less what pods
of all namespaces hold there, on nodes that are ready, whose taints the pod tolerates, and that its
node selector and required affinity allow. Other resources (CPU, memory) are left to the scheduler.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from yolofleet.api.detector import Detector
from yolofleet.api.names import Manifest
from yolofleet.api.pod_template import SERVER_CONTAINER, PodTemplate
from yolofleet.api.quantity import amount
from yolofleet.plan.revision import Revision, record_in, recorded

Amounts = Mapping[str, int]
"""Per resource name, such as nvidia.com/gpu, nvidia.com/mig-1g.5gb or nvidia.com/gpu.shared."""

BOUNDLESS: Final = sys.maxsize
"""The room for pods that ask for no accelerator."""

TOLERANT_SINCE: Final = 2
"""From this render version on, pods tolerate the taint that keeps others off accelerators."""

_NAMED: Final = 5  # nodes that a message names one by one
_FINISHED: Final = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class NodeRoom:
    """What one node offers of accelerators, and who holds it.

    out: why no pod can be placed here now (cordoned, not ready); empty where one can.
    own: held by pods of the detector that looks.
    blind: whether pods of other namespaces could not be seen; `free` may then be too much.
    """

    name: str
    labels: Mapping[str, str]
    taints: Sequence[Mapping[str, Any]]
    offered: Amounts
    free: Amounts
    own: Amounts = field(default_factory=dict)
    out: str = ""
    blind: bool = False


def rooms(
    nodes: Iterable[Manifest],
    held: Mapping[str, Amounts],
    own: Iterable[Manifest] = (),
    *,
    blind: bool = False,
) -> tuple[NodeRoom, ...]:
    """Return the nodes that offer accelerators. held: by all pods; own: pods of this detector."""
    mine: dict[str, Counter[str]] = {}
    for pod in own:
        mine.setdefault(place(pod), Counter()).update(holds(pod))
    found = []
    for node in nodes:
        if not (there := offered(node)):
            continue
        name = node["metadata"]["name"]
        taken = held.get(name, {})
        found.append(
            NodeRoom(
                name=name,
                labels=node["metadata"].get("labels") or {},
                taints=node.get("spec", {}).get("taints") or (),
                offered=there,
                free={r: max(0, n - taken.get(r, 0)) for r, n in there.items()},
                own=mine.get(name, {}),
                out=_out(node),
                blind=blind,
            )
        )
    return tuple(found)


def offered(node: Manifest) -> dict[str, int]:
    """Return the accelerators that `node` offers to pods, free or not."""
    allocatable = node.get("status", {}).get("allocatable", {})
    return {r: int(amount(q)) for r, q in allocatable.items() if is_accelerator(r)}


def _out(node: Manifest) -> str:
    if node.get("spec", {}).get("unschedulable"):
        return "cordoned"
    conditions = node.get("status", {}).get("conditions", ())
    unready = any(c["type"] == "Ready" and c["status"] != "True" for c in conditions)
    return "not ready" if unready else ""


def is_accelerator(resource: str) -> bool:
    """Say whether `resource` is an extended one (vendor/name)."""
    return "/" in resource and "kubernetes.io/" not in resource


# what pods ask for


def place(pod: Manifest) -> str:
    """Return the node that `pod` holds resources on; empty before it has one and after its end."""
    if pod.get("status", {}).get("phase") in _FINISHED:
        return ""
    return str(pod.get("spec", {}).get("nodeName") or "")


def holds(pod: Manifest) -> dict[str, int]:
    """Return the accelerators that `pod` asks for, as the scheduler counts them."""
    return _requested(pod.get("spec", {}))


def asked(revision: Revision) -> dict[str, int]:
    """Return the accelerators that one pod of `revision` asks for."""
    return _asked(revision.resources.accelerators, revision.pod_template)


def asks(detector: Detector, children: Iterable[Manifest]) -> bool:
    """Say whether a revision of `detector` asks for an accelerator: in its spec, or in a child."""
    deployments, records = dict[str, Manifest](), dict[str, Manifest]()
    for child in children:
        if child["kind"] == "Deployment":
            deployments[child["metadata"]["name"]] = child["spec"]["template"]["spec"]
        elif child["kind"] == "ControllerRevision":
            records[child["metadata"]["name"]] = child
    return (
        _spec_asks(detector)
        or any(_requested(pod) for pod in deployments.values())
        or any(_record_asks(detector, records[n]) for n in records.keys() - deployments.keys())
    )


def _record_asks(detector: Detector, kept: Manifest) -> bool:
    revision = recorded(detector.name, kept["metadata"]["name"], record_in(kept).text)
    return revision is not None and bool(asked(revision))


def _spec_asks(detector: Detector) -> bool:
    spec, canary = detector.spec, detector.spec.canary
    if _asked(spec.resources.accelerators, spec.pod_template):
        return True
    if canary is None:
        return False
    own = canary.resources.accelerators if canary.resources else {}
    return bool(_asked(own, canary.pod_template or PodTemplate()))


def _asked(limits: Mapping[str, str], template: PodTemplate) -> dict[str, int]:
    """Return what the server's container and all that the template adds to the pod ask for."""
    pod = template.spec
    if not (limits or pod):  # of most
        return {}
    ours: dict[str, Any] = {"limits": dict(limits)}
    others = []
    for container in _items(pod.get("containers")):
        told = _fields(container.get("resources"))
        if container.get("name") == SERVER_CONTAINER:
            ours["limits"] |= _fields(told.get("limits"))
        else:
            others.append(container)
    server = {"name": SERVER_CONTAINER, "resources": ours}
    return _requested(
        {"containers": [server, *others], "initContainers": pod.get("initContainers")}
    )


def _requested(pod: Mapping[str, Any]) -> dict[str, int]:
    """Return the accelerators of a pod spec: side-cars add up, init containers take turns."""
    running: Counter[str] = Counter()
    peak: Counter[str] = Counter()
    for container in _items(pod.get("initContainers")):
        own = _of_container(container)
        if container.get("restartPolicy") == "Always":
            running += own
            own = Counter()
        peak |= running + own
    for container in _items(pod.get("containers")):
        running += _of_container(container)
    return dict(running | peak)


def _of_container(container: Mapping[str, Any]) -> Counter[str]:
    resources = _fields(container.get("resources"))
    told = _fields(resources.get("limits")) | _fields(resources.get("requests"))
    return Counter({r: _whole(q) for r, q in told.items() if is_accelerator(str(r))})


def _whole(quantity: Any) -> int:
    try:
        return int(amount(quantity))
    except ValueError:  # the API server refuses the pod, and says so
        return 0


def _items(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects of a list in a free-form field; whatever else is there is nobody's."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _fields(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


# where pods may run


def tolerations(revision: Revision) -> list[dict[str, Any]]:
    """Return what the pods of `revision` tolerate: the taint of the accelerators they ask for.

    Nodes with accelerators often carry it, under the resource's name or as vendor/gpu, so that
    only pods that need them come; what `podTemplate` tolerates is added to that.
    """
    theirs = [dict(item) for item in _items(revision.pod_template.spec.get("tolerations"))]
    if revision.render_version < TOLERANT_SINCE:
        return theirs
    keys = {key for r in asked(revision) for key in (r, f"{r.split('/')[0]}/gpu")}
    ours = [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in sorted(keys)]
    return [*theirs, *(each for each in ours if each not in theirs)]


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why no pod may be placed on a node, however much it has, and what would open it."""

    why: str
    remedy: str


def _obstacles(
    revision: Revision, nodes: Iterable[NodeRoom]
) -> list[tuple[NodeRoom, Obstacle | None]]:
    """Return each node with what keeps the pods of `revision` off it, if anything does."""
    pod, accepted = revision.pod_template.spec, tolerations(revision)
    return [(node, _obstacle(pod, accepted, node)) for node in nodes]


def _obstacle(
    pod: Mapping[str, Any], accepted: Sequence[Mapping[str, Any]], node: NodeRoom
) -> Obstacle | None:
    if node.out:
        return Obstacle(node.out, "uncordon or repair the nodes that are left out")
    for taint in node.taints:
        if taint.get("effect") != "PreferNoSchedule" and not any(
            _tolerates(each, taint) for each in accepted
        ):
            value = f"={taint['value']}" if taint.get("value") else ""
            return Obstacle(
                f"taint {taint.get('key')}{value}:{taint.get('effect')} is not tolerated",
                "tolerate the taint in spec.podTemplate.spec.tolerations",
            )
    selector = _fields(pod.get("nodeSelector"))
    if pod.get("nodeName") not in (None, "", node.name):
        return Obstacle("is not the nodeName asked for", "change spec.podTemplate.spec.nodeName")
    if any(node.labels.get(name) != value for name, value in selector.items()):
        return Obstacle(
            "does not match nodeSelector", "change spec.podTemplate.spec.nodeSelector or the labels"
        )
    if not _in_affinity(pod, node):
        return Obstacle(
            "does not match nodeAffinity", "change spec.podTemplate.spec.affinity or the labels"
        )
    return None


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    exists = toleration.get("operator") == "Exists"
    key = toleration.get("key")
    if not key:
        return exists  # everything
    same = key == taint.get("key")
    return same and (exists or (toleration.get("value") or "") == (taint.get("value") or ""))


def _in_affinity(pod: Mapping[str, Any], node: NodeRoom) -> bool:
    affinity = _fields(_fields(pod.get("affinity")).get("nodeAffinity"))
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    terms = _items(_fields(required).get("nodeSelectorTerms"))
    return any(_in_term(term, node) for term in terms)


def _in_term(term: Mapping[str, Any], node: NodeRoom) -> bool:
    expressions = _items(term.get("matchExpressions"))
    places = _items(term.get("matchFields"))
    if not expressions and not places:
        return False  # an empty term matches nothing
    return all(_matches(e, node.labels) for e in expressions) and all(
        _matches(f, {"metadata.name": node.name}) for f in places
    )


def _matches(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(str(expression.get("key")))
    told = expression.get("values")
    values = told if isinstance(told, list) else []
    match expression.get("operator"):
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            return _compares(operator, value, values)
        case _:
            return False


def _compares(operator: str, value: str | None, values: Sequence[Any]) -> bool:
    try:
        have, want = int(value or ""), int(values[0])
    except (ValueError, TypeError, IndexError):
        return False
    return have > want if operator == "Gt" else have < want


# the answers


def room(revision: Revision, nodes: Iterable[NodeRoom]) -> int:
    """Return how many more replicas of `revision` fit on `nodes` now."""
    wanted = asked(revision)
    return _fit(wanted, _usable(revision, nodes)) if wanted else BOUNDLESS


def shortage(revision: Revision, wanted_more: int, nodes: Sequence[NodeRoom]) -> str | None:
    """Say why `wanted_more` more replicas of `revision` do not fit, and what to do; else None."""
    lacking = wanted_more - room(revision, nodes)
    if lacking <= 0:
        return None
    wanted, usable = asked(revision), _usable(revision, nodes)
    short = [r for r, need in wanted.items() if _fit({r: need}, usable) < wanted_more]
    told = [_shortage_of(revision, r, wanted[r], nodes) for r in sorted(short or wanted)]
    who = "1 more replica has" if lacking == 1 else f"{lacking} more replicas have"
    return f"{who} no room: {'. '.join(told)}{unseen(nodes)}"


def unseen(nodes: Iterable[NodeRoom]) -> str:
    """Say that less may be free than it seems, where that is so."""
    if not any(node.blind for node in nodes):
        return ""
    return ". Pods of other namespaces are not seen (no right to list them) and may hold more"


def _usable(revision: Revision, nodes: Iterable[NodeRoom]) -> list[NodeRoom]:
    return [node for node, obstacle in _obstacles(revision, nodes) if obstacle is None]


def _fit(wanted: Amounts, nodes: Iterable[NodeRoom]) -> int:
    return sum(min(node.free.get(r, 0) // need for r, need in wanted.items()) for node in nodes)


def _shortage_of(revision: Revision, resource: str, need: int, nodes: Sequence[NodeRoom]) -> str:
    """Say who has `resource` and what to do about it."""
    offering = [node for node in nodes if node.offered.get(resource)]
    needs = f"a replica needs {need} {resource}; {len(offering)} nodes offer it"
    add = f"add a node with {resource} (and its device plugin)"
    if not offering:
        return f"{needs}. Please {add}, or remove it from spec.resources.limits"
    judged = _obstacles(revision, offering)
    usable = [node for node, obstacle in judged if obstacle is None]
    barred = [(node, obstacle) for node, obstacle in judged if obstacle is not None]
    offered = sum(node.offered[resource] for node in usable)
    free = sum(node.free.get(resource, 0) for node in usable)
    own = min(sum(node.own.get(resource, 0) for node in usable), offered - free)
    told = (
        f"{needs}. Where it may run {offered} are offered: {offered - free - own} held by other"
        f" pods, {own} by this detector's, {free} free"
    )
    if free:
        told += f", at most {max(node.free.get(resource, 0) for node in usable)} on one node"
    if barred:
        names = [
            f"{n.name} ({n.free.get(resource, 0)} free) {each.why}" for n, each in barred[:_NAMED]
        ]
        rest = f" and {len(barred) - _NAMED} more" if len(barred) > _NAMED else ""
        told += f". Left out: {', '.join(names)}{rest}"
    remedies = dict.fromkeys(each.remedy for _, each in barred)
    return f"{told}. " + "; or ".join([f"Free {resource}, or {add}", *remedies])
