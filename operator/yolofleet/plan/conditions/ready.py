"""Ready: whether the stable revision answers."""

from dataclasses import replace
from functools import partial

from yolofleet.api.status import ConditionType, Reason, Status
from yolofleet.plan.conditions.situation import Situation
from yolofleet.plan.conditions.statement import Statement, first
from yolofleet.plan.observed import ObservedRevision
from yolofleet.workloads.choice import workload_for

_say = partial(Statement, ConditionType.READY)


def ready(now: Situation) -> Statement:
    """Say whether the detector serves, and if not, why."""
    statement = first(
        (
            serving,
            scaled_to_zero,
            without_engine,
            deleted,
            without_accelerators,
            failing,
            coming_back,
        ),
        now,
    )
    statement = statement or _say(False, Reason.NOTHING_READY, now.count(now.plan.stable))
    return (
        statement
        if statement.status
        else replace(statement, message=statement.message + _in_its_place(now))
    )


def _in_its_place(now: Situation) -> str:
    """Say who answers while nothing of the stable revision does."""
    answers = _others(now)
    return f"; meanwhile {answers}, which is not released by that" if answers else ""


def _others(now: Situation) -> str:
    """Say who answers beside the stable revision, and which requests; empty: nobody."""
    plan, observed = now.plan, now.observed
    alive = [name for name in plan.beside if observed.ready(name)]
    if alive == [plan.matched] and not plan.weights.get(alive[0]):
        return f"only what matches spec.canary.match is answered, by {alive[0]}"
    return f"requests go to {', '.join(alive)}" if alive else ""


def serving(now: Situation) -> Statement | None:
    """Say how many replicas answer."""
    stable = now.plan.stable
    return _say(True, Reason.SERVING, now.count(stable)) if now.observed.ready(stable) else None


def scaled_to_zero(now: Situation) -> Statement | None:
    """Say that the user wants nothing to serve: all that should be ready is.

    Workloads say so too; kstatus would wait for ever for one that is not Ready.
    """
    if now.plan.full:
        return None
    message = f"spec.replicas is 0: {_others(now) or 'nothing serves'}"
    return _say(True, Reason.SCALED_TO_ZERO, f"{message}; raise it to serve again")


def deleted(now: Situation) -> Statement | None:
    """Say that somebody deleted the workload of the stable revision, and what becomes of it."""
    stable, target = now.plan.stable, now.plan.target
    seen = now.observed.revisions.get(stable)
    if seen and seen.deployed:
        return None
    if stable == target and not (seen and seen.revision and was_there(now.observed.status)):
        return None  # it was not made yet, or is made from the spec
    message = f"the {_kind(seen)} {stable} was deleted, which the detector is released on"
    if seen and seen.revision:
        again = "it is made again from its record"
        if now.detector.spec.suspend:
            again = "it is made again from its record once spec.suspend is false"
        return _say(False, Reason.DEPLOYMENT_DELETED, f"{message}; {again}", lasting=False)
    lacks = "its record cannot be read by this version" if seen else "there is no record of it"
    message += (
        f", and {lacks}. To have it back, put the spec back that it was released with; otherwise"
        f" {target} is released when its steps are walked"
    )
    return _say(False, Reason.DEPLOYMENT_DELETED, message, lasting=True)


def without_engine(now: Situation) -> Statement | None:
    """Say that nothing in the cluster can run the stable revision."""
    failure = now.failure(now.plan.stable)
    if failure is None or failure.reason != Reason.ENGINE_ABSENT:
        return None
    return _say(False, failure.reason, failure.message)


def coming_back(now: Situation) -> Statement | None:
    """Go on saying so until it serves."""
    was = now.observed.status.condition(ConditionType.READY)
    if was is None or was.reason != Reason.DEPLOYMENT_DELETED:
        return None
    stable = now.plan.stable
    kind = _kind(now.observed.revisions.get(stable))
    message = f"the {kind} {stable} was deleted, and is made again. {now.count(stable)}"
    return _say(False, Reason.DEPLOYMENT_DELETED, message, lasting=False)


def _kind(seen: ObservedRevision | None) -> str:
    """Return the kind of what runs it."""
    return workload_for(seen.revision if seen else None).KIND


def was_there(status: Status) -> bool:
    """Say whether the stable revision had its workload: its record is written before that."""
    was = status.condition(ConditionType.READY)
    return was is not None and was.reason in (Reason.SERVING, Reason.DEPLOYMENT_DELETED)


def without_accelerators(now: Situation) -> Statement | None:
    """Say which accelerators no node has."""
    return _say(False, Reason.MISSING, now.plan.missing) if now.plan.missing else None


def failing(now: Situation) -> Statement | None:
    """Pass on what the pods die of."""
    failure = now.failure(now.plan.stable)
    return _say(False, failure.reason, failure.message) if failure else None
