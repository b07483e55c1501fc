"""GPUAvailable: whether nodes have the accelerators asked for; absent when none are."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from yolofleet.api.status import ConditionType, Reason
from yolofleet.plan.conditions.situation import Situation
from yolofleet.plan.conditions.statement import Statement, first
from yolofleet.plan.nodes import NodeRoom, offering
from yolofleet.plan.shortage import remedy, unclaimable, unseen
from yolofleet.workloads.accelerators import requests_of
from yolofleet.workloads.revision import Revision

_say = partial(Statement, ConditionType.GPU_AVAILABLE)


def gpu_available(now: Situation) -> Statement | None:
    """Say what the nodes offer of what is asked for, or what of it is missing."""
    return first((missing, unschedulable, claimed_no_more, offered), now)


def missing(now: Situation) -> Statement | None:
    """Say what no node has free."""
    return _say(False, Reason.MISSING, now.plan.missing) if now.plan.missing else None


def unschedulable(now: Situation) -> Statement | None:
    """Pass on the scheduler's words about a pod that asks for an accelerator."""
    for revision in _running(now):
        failure = now.failure(revision.name) if requests_of(revision) else None
        if failure and failure.reason == Reason.UNSCHEDULABLE:
            fix = remedy(revision, failure.message)
            message = f"{failure.message}{fix}{unseen(now.observed.nodes)}"
            return _say(False, Reason.UNSCHEDULABLE, message)
    return None


def claimed_no_more(now: Situation) -> Statement | None:
    """Say that devices which pods have could not be claimed again: the class or the API is gone."""
    for revision in _running(now):
        if why := unclaimable(revision, now.observed.device_classes):
            message = (
                f"{revision.name}: what runs keeps its devices, and no other pod gets any: {why}"
            )
            return _say(None, Reason.MISSING, message)
    return None


def offered(now: Situation) -> Statement | None:
    """Say how much the nodes offer; of devices chosen by more than is read here, once pods run."""
    nodes = now.observed.nodes
    needed = sorted({resource for revision in _running(now) for resource in requests_of(revision)})
    if not needed:
        return None
    offers = (f"{sum(n.offered.get(r, 0) for n in nodes)} {r}" for r in needed)
    message = f"the nodes offer {', '.join(offers)}{_parted(now, nodes)}{unseen(nodes)}"
    if _placed(now) or not any(node.unsure.intersection(needed) for node in nodes):
        return _say(True, Reason.ENOUGH, message)
    return _say(None, Reason.UNSURE, f"{message}; which of them would do, only the scheduler tells")


_NAMED: Final = 5
_STRATEGY: Final = "nvidia.com/mig.strategy"
_PRODUCT: Final = "nvidia.com/gpu.product"
"""On a node, by NVIDIA's GPU feature discovery. With MIG's strategy single each nvidia.com/gpu is
a slice, and only the name of the product says of what size."""


def _parted(now: Situation, nodes: Sequence[NodeRoom]) -> str:
    """Say which of what is offered by number is less than a GPU of one's own."""
    there = {node.name: node for each in _running(now) for node in offering(each, nodes)}
    said = []
    for node in there.values():
        if node.labels.get(_STRATEGY) == "single" and "-MIG-" in node.labels.get(_PRODUCT, ""):
            said.append(f"on {node.name} each is a slice ({node.labels[_PRODUCT]})")
        if node.sharing:
            said.append(f"{node.name} gives one GPU to several pods ({node.sharing})")
    return "".join(f"; {each}" for each in said[:_NAMED])


def _placed(now: Situation) -> bool:
    """Say whether all that is asked for has its node, and so its devices."""
    names = [revision.name for revision in _running(now) if revision.accelerator]
    return all(now.observed.replicas(n) and not now.observed.unplaced(n) for n in names)


def _running(now: Situation) -> list[Revision]:
    wanted = {now.plan.stable, now.plan.target, now.plan.canary}
    return [p.revision for p in now.plan.revisions if p.revision.name in wanted]
