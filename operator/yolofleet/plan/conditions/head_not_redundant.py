"""HeadNotRedundant: that one pod takes all replicas with it; absent where none does."""

from yolofleet.api.status import ConditionType, Reason
from yolofleet.plan.conditions.situation import Situation
from yolofleet.plan.conditions.statement import Statement
from yolofleet.workloads.choice import workload_for


def head_not_redundant(now: Situation) -> Statement | None:
    """Say so of what serves, and what helps."""
    stable = now.plan.planned(now.plan.stable)
    if stable is None or not (words := workload_for(stable.revision).alone(stable.revision)):
        return None
    return Statement(ConditionType.HEAD_NOT_REDUNDANT, True, Reason.NO_REDIS, words)
