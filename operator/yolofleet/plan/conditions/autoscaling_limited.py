"""AutoscalingLimited: that the autoscaler cannot do what is asked of it; absent while it can."""

from yolofleet.api.status import ConditionType
from yolofleet.plan.conditions.situation import Situation
from yolofleet.plan.conditions.statement import Statement


def autoscaling_limited(now: Situation) -> Statement | None:
    """Pass on what has kept the autoscaler for a while: it has no metrics before pods run."""
    limit = now.observed.autoscaler
    if now.detector.spec.autoscaling is None or limit is None or not now.lasts(limit.since):
        return None
    return Statement(ConditionType.AUTOSCALING_LIMITED, True, limit.reason, limit.message)
