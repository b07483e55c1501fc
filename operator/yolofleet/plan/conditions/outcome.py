"""Released, Reconciling and Stalled: what all the other statements come to.

At most one of the three is True. What waits for a detector (`kubectl wait`, Flux, Helm, Argo CD)
reads these and none of the others. Reconciling and Stalled are read by kstatus, which takes an
object with neither for current when it is Ready; so Reconciling is there while Released is not
True, and only then.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from yolofleet.api.status import ConditionType, Reason, Status
from yolofleet.plan.conditions.situation import Situation
from yolofleet.plan.conditions.statement import Statement, again
from yolofleet.workloads.failures import PATIENCE

_AS_ASKED = {Reason.SETTLED, Reason.SUSPENDED, Reason.PAUSED}
"""Reasons of a Progressing that is False because nothing is left to do, or by the user's wish."""

_DEVIATIONS = {
    ConditionType.PROGRESSING,
    ConditionType.TRAFFIC_ROUTED,
    ConditionType.CANARY_HEALTHY,
    ConditionType.GPU_AVAILABLE,
}
"""What stands between a detector and its spec. Ready is not: one at zero replicas is as asked."""


@dataclass(frozen=True, slots=True)
class _Past:
    """What was said before, and what time it is."""

    status: Status
    generation: int
    now: datetime

    def held_since(self, statement: Statement) -> datetime | None:
        """Return since when it has been told, in whatever words, as `statement` tells it."""
        was = self.status.condition(statement.type)
        same = was is not None and again(was).status is statement.status
        return was.last_transition_time if was and same else None

    def was(self, kind: ConditionType) -> Statement | None:
        """Return what was said of this very generation, if it was True."""
        condition = self.status.condition(kind)
        if (
            condition
            and condition.status == "True"
            and condition.observed_generation == self.generation
        ):
            return Statement(kind, True, condition.reason, condition.message)
        return None


def outcome(now: Situation, statements: Sequence[Statement]) -> list[Statement]:
    """Sum up the `statements`."""
    past = _Past(now.observed.status, now.detector.generation, now.time)
    bad = [each for each in statements if _is_bad(each)]
    stuck = next((each for each in bad if _lasts(each, past)), None)
    return summary(_released(now, statements, past, stuck), stuck)


def summary(missing: Statement | None, stuck: Statement | None) -> list[Statement]:
    """Return the three, by what is missing of the spec, and what of it will not come by itself."""
    if missing is None:
        message = "the spec is reached: its revision is released, and all requests go as asked"
        released = Statement(ConditionType.RELEASED, True, Reason.RELEASED, message)
    else:
        status = None if missing.reason == Reason.SUSPENDED else False
        released = replace(missing, type=ConditionType.RELEASED, status=status)
    if stuck:
        return [released, replace(stuck, type=ConditionType.STALLED, status=True)]
    reconciling = [replace(missing, type=ConditionType.RECONCILING, status=True)] if missing else []
    message = "nothing waits for a person to put it right"
    return [
        released,
        *reconciling,
        Statement(ConditionType.STALLED, False, Reason.NOT_STALLED, message),
    ]


def patience(now: Situation, status: Status) -> timedelta | None:
    """Return when time alone makes something lasting; None when nothing waits for that."""
    begun = [each.last_transition_time for each in status.conditions if _is_bad(again(each))]
    begun += [
        seen.failure.since
        for seen in now.observed.revisions.values()
        if seen.failure and seen.failure.since
    ]
    if (limit := now.observed.autoscaler) and limit.since:
        begun.append(limit.since)
    left = [since + PATIENCE - now.time for since in begun]
    return min((each for each in left if each > timedelta()), default=None)


def _released(
    now: Situation, statements: Sequence[Statement], past: _Past, stuck: Statement | None
) -> Statement | None:
    """Return what is missing of the spec; nothing once it was reached, until that is for good.

    A pod that is replaced, or one more that the autoscaler asks for, undoes no release.
    """
    missing = stuck or next(_missing(now, statements), None)
    suspended = now.detector.spec.suspend
    if (
        missing
        and not (stuck or suspended or now.plan.progress)
        and past.was(ConditionType.RELEASED)
    ):
        return None
    return missing


def _missing(now: Situation, statements: Sequence[Statement]) -> Iterator[Statement]:
    plan = now.plan
    for each in statements:
        if each.type is ConditionType.PROGRESSING:
            reached = plan.progress is None and now.whole(plan.target)
            if not reached or now.detector.spec.suspend:
                yield each
        elif each.type in _DEVIATIONS and (
            each.status is False or each.reason in (Reason.ROUTE_PENDING, Reason.CANARY_STARTING)
        ):
            yield each


def _is_bad(statement: Statement) -> bool:
    if statement.reason == Reason.DEPLOYMENT_DELETED:
        return bool(statement.lasting)  # else it is made again
    pending = statement.reason == Reason.ROUTE_PENDING  # not known for ever is no better than False
    return (
        statement.type in _DEVIATIONS
        and (statement.status is False or pending)
        and statement.reason not in _AS_ASKED
    )


def _lasts(statement: Statement, past: _Past) -> bool:
    """Say whether this will not put itself right: it is known, or has been so for a while.

    What once did stays so as long as it is told: a pull that is tried again is no progress.
    """
    was = past.was(ConditionType.STALLED)
    if statement.lasting or (was and was.reason == statement.reason):
        return True
    since = past.held_since(statement)
    return statement.lasting is None and since is not None and past.now - since >= PATIENCE
