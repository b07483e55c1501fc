"""GPUAvailable: whether nodes have the accelerators asked for; absent when none are."""

from functools import partial

from yolofleet.api.status import ConditionType, Reason
from yolofleet.plan.conditions.situation import Situation
from yolofleet.plan.conditions.statement import Statement, first
from yolofleet.plan.shortage import unseen
from yolofleet.workloads.accelerators import requests_of
from yolofleet.workloads.revision import Revision

_say = partial(Statement, ConditionType.GPU_AVAILABLE)


def gpu_available(now: Situation) -> Statement | None:
    """Say what the nodes offer of what is asked for, or what of it is missing."""
    return first((missing, unschedulable, offered), now)


def missing(now: Situation) -> Statement | None:
    """Say what no node has free."""
    return _say(False, Reason.MISSING, now.plan.missing) if now.plan.missing else None


def unschedulable(now: Situation) -> Statement | None:
    """Pass on the scheduler's words about a pod that asks for an accelerator."""
    for revision in _running(now):
        failure = now.failure(revision.name) if requests_of(revision) else None
        if failure and failure.reason == Reason.UNSCHEDULABLE:
            message = f"{failure.message}{unseen(now.observed.nodes)}"
            return _say(False, Reason.UNSCHEDULABLE, message)
    return None


def offered(now: Situation) -> Statement | None:
    """Say how much the nodes offer."""
    nodes = now.observed.nodes
    needed = sorted({resource for revision in _running(now) for resource in requests_of(revision)})
    if not needed:
        return None
    offers = (f"{sum(n.offered.get(r, 0) for n in nodes)} {r}" for r in needed)
    return _say(True, Reason.ENOUGH, f"the nodes offer {', '.join(offers)}{unseen(nodes)}")


def _running(now: Situation) -> list[Revision]:
    wanted = {now.plan.stable, now.plan.target, now.plan.canary}
    return [p.revision for p in now.plan.revisions if p.revision.name in wanted]
