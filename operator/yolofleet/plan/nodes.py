"""Room for accelerators: how many more pods of a revision fit on the nodes now.

What the scheduler would find, asked before a pod exists: a node's allocatable amount less what pods
of all namespaces hold there, on nodes that are ready, whose taints the pod tolerates, and that its
node selector and required affinity allow. Other resources (CPU, memory) are left to the scheduler.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from yolofleet.api.detector import Detector
from yolofleet.api.names import Manifest, is_accelerator
from yolofleet.api.pod_template import PodTemplate
from yolofleet.plan.devices import Devices, needs_devices
from yolofleet.runtime.quantity import amount
from yolofleet.workloads import record
from yolofleet.workloads.accelerators import (
    fields,
    items,
    place,
    pod_requests,
    requests_of,
    spec_requests,
    template_requests,
    tolerations,
)
from yolofleet.workloads.choice import among
from yolofleet.workloads.claims import claimed, class_of
from yolofleet.workloads.record import record_in
from yolofleet.workloads.revision import Revision, recorded

Amounts = Mapping[str, int]
"""Per resource name, such as nvidia.com/gpu, nvidia.com/mig-1g.5gb or nvidia.com/gpu.shared; and by
the name of an `Ask`, for devices that are claimed."""

SHARING: Final = "nvidia.com/gpu.sharing-strategy"
"""On a node, by NVIDIA's GPU feature discovery: none, time-slicing or mps."""

BOUNDLESS: Final = sys.maxsize
"""The room for pods that ask for no accelerator, or for which nodes are made."""


@dataclass(frozen=True, slots=True)
class NodeRoom:
    """What one node offers of accelerators, and who holds it.

    out: why no pod can be placed here now (cordoned, not ready); empty where one can.
    own: held by pods of the detector that looks.
    blind: whether pods of other namespaces could not be seen; `free` may then be too much.
    unsure: of what is claimed, that which only the scheduler can tell for sure; so may it there.
    to_come: whether it stands for nodes that are made, or emptied, for pods that wait.
    """

    name: str
    labels: Mapping[str, str]
    taints: Sequence[Mapping[str, Any]]
    offered: Amounts
    free: Amounts
    own: Amounts = field(default_factory=dict)
    out: str = ""
    blind: bool = False
    unsure: frozenset[str] = frozenset()
    to_come: bool = False

    @property
    def sharing(self) -> str:
        """Return how it gives one GPU to several pods; empty: it does not."""
        strategy = self.labels.get(SHARING, "none")
        return "" if strategy == "none" else strategy


TO_COME: Final = NodeRoom("", {}, (), {}, {}, to_come=True)
"""Among the nodes where others see to it that pods which wait find one, whatever they ask for."""


def rooms(
    nodes: Iterable[Manifest],
    held: Mapping[str, Amounts],
    own: Iterable[Manifest] = (),
    *,
    blind: bool = False,
    devices: Devices | None = None,
) -> tuple[NodeRoom, ...]:
    """Return the nodes that offer accelerators. held: by all pods; own: pods of this detector."""
    own, devices = list(own), devices or Devices()
    mine: dict[str, Counter[str]] = {}
    for pod in own:
        mine.setdefault(place(pod), Counter()).update(pod_requests(pod))
    younger = devices.younger(own)
    found = []
    for node in nodes:
        name = node["metadata"]["name"]
        there = offered(node)
        of_node = devices.on(name, younger.get(name, {}))
        if not (there or of_node):
            continue
        taken = held.get(name, {})
        found.append(
            NodeRoom(
                name=name,
                labels=node["metadata"].get("labels") or {},
                taints=node.get("spec", {}).get("taints") or (),
                offered=there | {n: each.offered for n, each in of_node.items()},
                free={r: max(0, n - taken.get(r, 0)) for r, n in there.items()}
                | {n: each.free for n, each in of_node.items()},
                own=mine.get(name, {}) | {n: each.own for n, each in of_node.items()},
                out=_out(node),
                blind=blind or (devices.blind and bool(of_node)),
                unsure=devices.unsure & of_node.keys(),
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


# whether to look at nodes


def needs_accelerators(detector: Detector, children: Iterable[Manifest]) -> bool:
    """Say whether a revision of `detector` asks for an accelerator: in its spec, or in a child."""
    children = list(children)
    pods = {each["metadata"]["name"]: by.pod(each)["spec"] for by, each in among(children)}
    records = {c["metadata"]["name"]: c for c in children if c["kind"] == record.KIND}
    return (
        needs_devices(detector, children)
        or _spec_needs(detector)
        or any(spec_requests(pod) for pod in pods.values())
        or any(_record_needs(detector, records[n]) for n in records.keys() - pods.keys())
    )


def _record_needs(detector: Detector, kept: Manifest) -> bool:
    revision = recorded(detector.name, kept["metadata"]["name"], record_in(kept).text)
    return revision is not None and bool(requests_of(revision))


def _spec_needs(detector: Detector) -> bool:
    spec, canary = detector.spec, detector.spec.canary
    if template_requests(spec.resources.accelerators, spec.pod_template):
        return True
    if canary is None:
        return False
    own = canary.resources.accelerators if canary.resources else {}
    return bool(template_requests(own, canary.pod_template or PodTemplate()))


# where pods may run


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why no pod may be placed on a node, however much it has, and what would open it."""

    why: str
    remedy: str


def obstacles(
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
    selector = fields(pod.get("nodeSelector"))
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
    affinity = fields(fields(pod.get("affinity")).get("nodeAffinity"))
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    terms = items(fields(required).get("nodeSelectorTerms"))
    return any(_in_term(term, node) for term in terms)


def _in_term(term: Mapping[str, Any], node: NodeRoom) -> bool:
    expressions = items(term.get("matchExpressions"))
    places = items(term.get("matchFields"))
    if not expressions and not places:
        return False  # an empty term matches nothing
    return all(_matches(e, node.labels) for e in expressions) and all(
        _matches(f, {"metadata.name": node.name}) for f in places
    )


def _matches(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(str(expression.get("key")))
    listed = expression.get("values")
    values = listed if isinstance(listed, list) else []
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


def room(revision: Revision, nodes: Sequence[NodeRoom]) -> int:
    """Return how many more replicas of `revision` fit on `nodes` now, or may once they wait."""
    wanted = requests_of(revision)
    if not wanted or any(node.to_come for node in nodes):
        return BOUNDLESS
    return fit(wanted, usable(revision, nodes))


def usable(revision: Revision, nodes: Iterable[NodeRoom]) -> list[NodeRoom]:
    """Return the nodes on which pods of `revision` may be placed."""
    return [node for node, obstacle in obstacles(revision, nodes) if obstacle is None]


def offering(revision: Revision, nodes: Iterable[NodeRoom]) -> list[NodeRoom]:
    """Return those that offer what `revision` asks for by number, where its pods run or may."""
    wanted = requests_of(revision).keys() - claimed(revision).keys()
    return [
        node
        for node, obstacle in obstacles(revision, nodes)
        if wanted & node.offered.keys()
        and (obstacle is None or any(node.own.get(resource) for resource in wanted))
    ]


def fit(wanted: Amounts, nodes: Iterable[NodeRoom]) -> int:
    """Return how many times `wanted` is free on `nodes`."""
    return sum(min(node.free.get(r, 0) // need for r, need in wanted.items()) for node in nodes)


def without(nodes: Sequence[NodeRoom], revision: Revision, pods: int) -> Sequence[NodeRoom]:
    """Return `nodes` as others find them once so many pods of `revision` had of what is free.

    By amounts: on which of the nodes each pod will be, the scheduler says. Devices of one class
    count as the same, however they are selected.
    """
    left = {r: need * pods for r, need in requests_of(revision).items()}
    if not any(left.values()):  # at rest, of all
        return nodes
    judged = obstacles(revision, nodes)
    return tuple(_without(node, left) if obstacle is None else node for node, obstacle in judged)


def _without(node: NodeRoom, left: dict[str, int]) -> NodeRoom:
    """Return `node` less what of `left` it has; that is taken off `left`."""
    free, own = dict(node.free), dict(node.own)
    for resource, wanted in left.items():
        taken = min(node.free.get(resource, 0), wanted)
        left[resource] -= taken
        for each in free:
            if class_of(each) == class_of(resource):
                less = min(taken, free[each])
                free[each] -= less
                own[each] = own.get(each, 0) + less
    return replace(node, free=free, own=own)
