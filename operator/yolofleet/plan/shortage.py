"""What is said when pods find no accelerators: who has them, and what to do."""

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from yolofleet.plan.nodes import NodeRoom, fit, obstacles, room, usable
from yolofleet.workloads.accelerators import requests_of
from yolofleet.workloads.claims import claimed
from yolofleet.workloads.revision import Revision

_NAMED: Final = 5  # nodes that a message names one by one
_AUTOSCALED: Final = (
    "Where a node autoscaler would add one for a pod that waits, such a pod is made by"
    " accelerators.nodesFollowPods of the operator's chart"
)


def shortage(
    revision: Revision,
    wanted_more: int,
    nodes: Sequence[NodeRoom],
    device_classes: Collection[str] | None = None,
) -> str | None:
    """Say why `wanted_more` more replicas of `revision` do not fit, and what to do; else None."""
    lacking = wanted_more - room(revision, nodes)
    if lacking <= 0:
        return None
    who = "1 more replica has" if lacking == 1 else f"{lacking} more replicas have"
    if why := unclaimable(revision, device_classes):
        return f"{who} no room: {why}"
    wanted, may_run_on = requests_of(revision), usable(revision, nodes)
    short = [r for r, need in wanted.items() if fit({r: need}, may_run_on) < wanted_more]
    messages = [_shortage_of(revision, r, wanted[r], nodes) for r in sorted(short or wanted)]
    return f"{who} no room: {'. '.join(messages)}{unseen(nodes)}"


def unseen(nodes: Iterable[NodeRoom]) -> str:
    """Say that less may be free than it seems, where that is so."""
    if not any(node.blind for node in nodes):
        return ""
    return ". Pods of other namespaces are not seen (no right to list them) and may hold more"


def remedy(revision: Revision, words: str) -> str:
    """Say what to do where the scheduler says `words`, if it is an accelerator that lacks."""
    lacking = [r for r in requests_of(revision) if f"Insufficient {r}" in words]
    lacking += claimed(revision) if "cannot allocate all claims" in words else ()
    if not lacking:
        return ""
    short, add = _added(revision, lacking[0])
    return f". Free {short}, or {add}"


def _added(revision: Revision, resource: str) -> tuple[str, str]:
    """Return the short name of `resource`, and what brings more of it."""
    if revision.accelerator is None or resource not in claimed(revision):
        return resource, f"add a node with {resource} (and its device plugin)"
    name = revision.accelerator.device_class_name
    return name, f"add a node with {name} (and its DRA driver)"


def unclaimable(revision: Revision, device_classes: Collection[str] | None) -> str | None:
    """Say why no such device can be claimed at all."""
    if (asked := revision.accelerator) is None:
        return None
    if device_classes is None:
        return (
            "spec.accelerator needs the API resource.k8s.io/v1 (Kubernetes 1.34), which is not in"
            " the cluster, or not for the operator (dra.enabled in its chart). Or ask for an"
            " accelerator in spec.resources.limits (nvidia.com/gpu: 1) in its place"
        )
    if asked.device_class_name not in device_classes:
        return (
            f"there is no DeviceClass {asked.device_class_name}. Please install the driver that"
            " brings it, or name another in spec.accelerator.deviceClassName (kubectl get"
            " deviceclasses)"
        )
    return None


def _shortage_of(revision: Revision, resource: str, need: int, nodes: Sequence[NodeRoom]) -> str:
    """Say who has `resource` and what to do about it."""
    offering = [node for node in nodes if node.offered.get(resource)]
    needs = f"a replica needs {need} {resource}; {len(offering)} nodes offer it"
    short, add = _added(revision, resource)
    if not offering:
        by_claim = resource in claimed(revision)
        instead = "change spec.accelerator" if by_claim else "remove it from spec.resources.limits"
        return f"{needs}. Please {add}, or {instead}. {_AUTOSCALED}"
    judged = obstacles(revision, offering)
    may_run_on = [node for node, obstacle in judged if obstacle is None]
    barred = [(node, obstacle) for node, obstacle in judged if obstacle is not None]
    offered = sum(node.offered[resource] for node in may_run_on)
    free = sum(node.free.get(resource, 0) for node in may_run_on)
    own = min(sum(node.own.get(resource, 0) for node in may_run_on), offered - free)
    message = (
        f"{needs}. Where it may run {offered} are offered: {offered - free - own} held by other"
        f" pods, {own} by this detector's, {free} free"
    )
    if free:
        message += f", at most {max(node.free.get(resource, 0) for node in may_run_on)} on one node"
    if barred:
        names = [
            f"{n.name} ({n.free.get(resource, 0)} free) {each.why}" for n, each in barred[:_NAMED]
        ]
        rest = f" and {len(barred) - _NAMED} more" if len(barred) > _NAMED else ""
        message += f". Left out: {', '.join(names)}{rest}"
    remedies = dict.fromkeys(each.remedy for _, each in barred)
    return f"{message}. " + "; or ".join([f"Free {short}, or {add}", *remedies])
