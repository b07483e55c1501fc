"""AutoscalingLimited: that the autoscaler cannot do what is asked of it; absent while it can."""

from yolofleet.api.pod_template import EVIDENCE_PORT
from yolofleet.api.status import ConditionType, Reason
from yolofleet.plan.autoscaler import too_many
from yolofleet.plan.conditions.situation import Situation
from yolofleet.plan.conditions.statement import Statement
from yolofleet.plan.keda import SCALED_OBJECT_STAYS

_, PORT = EVIDENCE_PORT


def autoscaling_limited(now: Situation) -> Statement | None:
    """Say what keeps replicas from following the load.

    What the autoscaler itself tells is passed on once it has lasted: before pods run it has no
    metrics.
    """
    scaling, limit = now.plan.scaling, now.observed.autoscaler
    if scaling is None:
        return _ended_by_nobody(now)
    held = f"; {scaling.least} replicas are held" if scaling.status and scaling.status.held else ""
    if scaling.lack:
        return _limited(scaling.lack.reason, scaling.lack.message + held)
    if scaling.lost:
        return _limited(
            Reason.METRIC_LOST, f"{scaling.lost} (GET /evidence, port {PORT}){held} until more do"
        )
    if scaling.beyond:
        return _limited(Reason.TOO_MANY_REPLICAS, too_many(scaling.least))
    unlooked = scaling.rests or (scaling.followed and now.observed.moved is None)
    if unlooked and (said := _said(now)):
        return said
    if limit is None or not now.lasts(limit.since):
        return None
    by_floor = scaling.followed or scaling.rests
    return _limited(limit.reason, limit.message_with_a_floor if by_floor else limit.message)


def _ended_by_nobody(now: Situation) -> Statement | None:
    """Say that a workload's own autoscaler waits for another that does not go."""
    limit = now.observed.autoscaler
    if now.detector.spec.autoscaled is None or limit is None or not now.lasts(limit.since):
        return None
    if limit.reason != SCALED_OBJECT_STAYS:
        return None
    held = f"{now.observed.replicas(now.plan.stable)} replicas are held"
    return _limited(limit.reason, f"{limit.message}; {held} until it is gone")


def _said(now: Situation) -> Statement | None:
    """Return what the status says of the load: who has not looked yet, or does not, keeps it."""
    said = now.observed.status.condition(ConditionType.AUTOSCALING_LIMITED)
    of_the_load = {Reason.METRIC_LOST, Reason.TOO_MANY_REPLICAS}
    return _limited(said.reason, said.message) if said and said.reason in of_the_load else None


def _limited(reason: str, message: str) -> Statement:
    return Statement(ConditionType.AUTOSCALING_LIMITED, True, reason, message)
