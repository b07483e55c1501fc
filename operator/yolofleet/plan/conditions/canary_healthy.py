"""CanaryHealthy: whether the canary has all its replicas; absent without a canary."""

from functools import partial

from yolofleet.api.status import ConditionType, Reason
from yolofleet.plan.conditions.situation import Situation
from yolofleet.plan.conditions.statement import Statement
from yolofleet.plan.revisions import CANARY_EQUAL, canary_is_equal

_say = partial(Statement, ConditionType.CANARY_HEALTHY)


def canary_healthy(now: Situation) -> Statement | None:
    """Say how the canary does."""
    if now.plan.canary is None and canary_is_equal(now.detector.spec):
        told = (
            f"{CANARY_EQUAL}. Until then nothing is on trial, and its weight and match do nothing"
        )
        return _say(False, Reason.CANARY_EQUAL, told, lasting=True)
    name = now.plan.canary
    if name is None or now.detector.spec.canary is None:
        return None
    canary, count = now.revision(name), now.count(name)
    if canary.desired and canary.ready >= canary.desired:
        return _say(True, Reason.CANARY_READY, count)
    if now.lacks_accelerators(name):
        return _say(False, Reason.MISSING, str(now.plan.missing), lasting=False)
    if failure := now.failure(name):
        told = f"{failure.message}; it gets no traffic until it is ready"
        return _say(False, failure.reason, told, lasting=failure.lasting)
    return _say(None, Reason.CANARY_STARTING, count)
