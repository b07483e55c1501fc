"""CanaryHealthy: whether the canary has all its replicas; absent without a canary."""

from functools import partial

from yolofleet.api.status import ConditionType, Reason
from yolofleet.plan.conditions.called_off import why
from yolofleet.plan.conditions.situation import Situation
from yolofleet.plan.conditions.statement import Statement, first
from yolofleet.plan.revisions import CANARY_EQUAL, canary_is_equal

_say = partial(Statement, ConditionType.CANARY_HEALTHY)


def canary_healthy(now: Situation) -> Statement | None:
    """Say how the canary does."""
    if now.plan.canary is None or now.detector.spec.canary is None:
        return first((called_off, equal_to_stable), now)
    statement = first((complete, without_accelerators, failing), now)
    return statement or _say(None, Reason.CANARY_STARTING, now.count(now.plan.canary))


def called_off(now: Situation) -> Statement | None:
    """Say what it failed: the spec may go on asking for it, it gets nothing."""
    canary = next((name for name in now.plan.called_off if name != now.plan.target), "")
    message = why(now, canary)
    return _say(False, Reason.ANALYSIS_FAILED, message, lasting=True) if message else None


def equal_to_stable(now: Situation) -> Statement | None:
    """Say that there is nothing to try."""
    if not canary_is_equal(now.detector.spec):
        return None
    message = f"{CANARY_EQUAL}. Until then nothing is on trial, and its weight and match do nothing"
    return _say(False, Reason.CANARY_EQUAL, message, lasting=True)


def complete(now: Situation) -> Statement | None:
    """Say that it has all its replicas."""
    canary = now.revision(str(now.plan.canary))
    if not canary.desired or canary.ready < canary.desired:
        return None
    return _say(True, Reason.CANARY_READY, now.count(canary.revision))


def without_accelerators(now: Situation) -> Statement | None:
    """Say which accelerators it needs, and no node has."""
    if not now.lacks_accelerators(str(now.plan.canary)):
        return None
    return _say(False, Reason.MISSING, str(now.plan.missing), lasting=False)


def failing(now: Situation) -> Statement | None:
    """Pass on what its pods die of."""
    if (failure := now.failure(str(now.plan.canary))) is None:
        return None
    message = f"{failure.message}; it gets no traffic until it is ready"
    return _say(False, failure.reason, message, lasting=failure.lasting)
