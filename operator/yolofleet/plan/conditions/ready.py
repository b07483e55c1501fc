"""Ready: whether the stable revision answers."""

from dataclasses import replace
from functools import partial

from yolofleet.api.status import ConditionType, Reason
from yolofleet.plan.conditions.situation import Situation
from yolofleet.plan.conditions.statement import Statement, first

_say = partial(Statement, ConditionType.READY)


def ready(now: Situation) -> Statement:
    """Say whether the detector serves, and if not, why."""
    told = first((serving, scaled_to_zero, deleted, without_accelerators, failing), now)
    told = told or _say(False, Reason.NOTHING_READY, now.count(now.plan.stable))
    return told if told.holds else replace(told, message=told.message + _in_its_place(now))


def _in_its_place(now: Situation) -> str:
    """Say who answers while nothing of the stable revision does."""
    alive = [name for name in now.plan.beside if now.observed.ready(name)]
    if not alive:
        return ""
    return f"; meanwhile requests go to {', '.join(alive)}, which is not released by that"


def serving(now: Situation) -> Statement | None:
    """Say how many replicas answer."""
    stable = now.plan.stable
    return _say(True, Reason.SERVING, now.count(stable)) if now.observed.ready(stable) else None


def scaled_to_zero(now: Situation) -> Statement | None:
    """Say that the user wants nothing to serve: all that should be ready is.

    So does a Deployment; kstatus would wait for ever for one that is not Ready.
    """
    if now.plan.full:
        return None
    told = "spec.replicas is 0: nothing serves; raise it to serve again"
    return _say(True, Reason.SCALED_TO_ZERO, told)


def deleted(now: Situation) -> Statement | None:
    """Say that somebody deleted the Deployment of the stable revision while another is coming."""
    stable = now.plan.stable
    if stable in now.observed.revisions or stable == now.plan.target:
        return None
    told = (
        f"the Deployment {stable} was deleted, which the detector is released on. To have it back,"
        f" put the spec back that it was released with; otherwise {now.plan.target} is released"
        " when its steps are walked"
    )
    return _say(False, Reason.NOTHING_READY, told)


def without_accelerators(now: Situation) -> Statement | None:
    """Say which accelerators no node has."""
    return _say(False, Reason.MISSING, now.plan.missing) if now.plan.missing else None


def failing(now: Situation) -> Statement | None:
    """Pass on what the pods die of."""
    failure = now.failure(now.plan.stable)
    return _say(False, failure.reason, failure.message) if failure else None
