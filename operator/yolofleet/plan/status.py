"""The status: what is true of a detector, from what was observed."""

from collections.abc import Callable
from datetime import datetime, timedelta

from yolofleet.api.detector import Detector
from yolofleet.api.names import DETECTOR_LABEL, REVISION_LABEL
from yolofleet.api.status import ConditionType, Draining, RolloutStatus, Share, Status
from yolofleet.plan.conditions.analysed import analysed
from yolofleet.plan.conditions.autoscaling_limited import autoscaling_limited
from yolofleet.plan.conditions.canary_healthy import canary_healthy
from yolofleet.plan.conditions.gpu_available import gpu_available
from yolofleet.plan.conditions.head_not_redundant import head_not_redundant
from yolofleet.plan.conditions.name_clash import name_clash
from yolofleet.plan.conditions.outcome import outcome, patience, summary
from yolofleet.plan.conditions.progressing import progressing
from yolofleet.plan.conditions.ready import ready
from yolofleet.plan.conditions.serving import revisions
from yolofleet.plan.conditions.situation import Situation
from yolofleet.plan.conditions.statement import Statement, again, dated
from yolofleet.plan.conditions.traffic_routed import traffic_routed
from yolofleet.plan.decide import Plan
from yolofleet.plan.first import is_proved
from yolofleet.plan.judging import just_failed, remembered
from yolofleet.plan.observed import Observed
from yolofleet.plan.scaler import status_of_none
from yolofleet.routers.following import Following

CONDITIONS: tuple[Callable[[Situation], Statement | None], ...] = (
    ready,
    progressing,
    traffic_routed,
    canary_healthy,
    analysed,
    gpu_available,
    name_clash,
    autoscaling_limited,
    head_not_redundant,
)
"""In this order they are shown; one that has nothing to say is absent."""


def report(detector: Detector, observed: Observed, plan: Plan, *, now: datetime) -> Status:
    """Return the status: what is, not what was wished."""
    seen = Situation(detector, observed, plan, now)
    statements = [statement for condition in CONDITIONS if (statement := condition(seen))]
    statements[1:1] = outcome(seen, statements)  # after Ready
    beside = plan.target if plan.target != plan.stable else plan.canary
    return Status(
        observed_generation=detector.generation,
        url=_url(detector, observed, plan),
        ready=f"{observed.ready(plan.stable)}/{seen.revision(plan.stable).desired}",
        provider=observed.router,
        revisions=revisions(seen),
        stable=seen.revision(plan.stable),
        canary=seen.revision(beside) if beside else None,
        rollout=_rollout(plan),
        draining=[Draining(revision=n, since=t) for n, t in sorted(plan.draining.items())],
        remade=plan.remaking.status,
        analysis=remembered(detector, observed, plan.trial),
        autoscaling=plan.scaling.status if plan.scaling else status_of_none(detector),
        replicas=observed.ready(plan.stable),
        selector=f"{DETECTOR_LABEL}={detector.name},{REVISION_LABEL}={plan.stable}",
        conditions=dated(statements, observed.status, detector.generation, now),
    )


def refused(
    status: Status,
    reason: str,
    message: str,
    *,
    generation: int,
    before: Status,
    now: datetime,
    stuck: bool = True,
) -> Status:
    """Return `status` with the refusal reported in Progressing: what serves keeps serving.

    before: what was said last; since when conditions are what they are is taken from there.
    stuck: whether a person has to put it right.
    """
    if (stable := status.stable) and stable.ready and stable.weight:
        message += f"; {stable.revision} keeps serving"
    progressing = Statement(ConditionType.PROGRESSING, False, reason, message)
    replaced = [*summary(progressing, progressing if stuck else None), progressing]
    others = set(ConditionType) - _SUMMED - {ConditionType.PROGRESSING}
    kept = [again(condition) for condition in status.conditions if condition.type in others]
    return status.model_copy(
        update={
            "observed_generation": generation,
            "conditions": dated([*kept[:1], *replaced, *kept[1:]], before, generation, now),
        }
    )


ACTED_ON = timedelta(milliseconds=100)
"""When to look at a verdict that was just stored: our own write wakes nobody."""

_SUMMED = {ConditionType.RELEASED, ConditionType.RECONCILING, ConditionType.STALLED}


def with_statement(status: Status, statement: Statement, before: Status, now: datetime) -> Status:
    """Return `status` with one statement more."""
    more = dated([statement], before, status.observed_generation, now)
    return status.model_copy(update={"conditions": [*status.conditions, *more]})


def redated(status: Status, before: Status, now: datetime) -> Status:
    """Return `status` with conditions that last since they did in `before`, published last.

    Between the two something else was thought, and published nowhere.
    """
    statements = [again(condition) for condition in status.conditions]
    conditions = dated(statements, before, status.observed_generation, now)
    return status.model_copy(update={"conditions": conditions})


def next_look(
    detector: Detector, observed: Observed, plan: Plan, status: Status, *, now: datetime
) -> timedelta | None:
    """Return when time alone changes what is said or decided; None when only an event can."""
    planned = None if detector.spec.suspend else plan.requeue_after
    seen = observed.revisions.get(plan.stable)
    proved = is_proved(detector, status.analysis, plan.stable) and seen and seen.unproved
    acts = ACTED_ON if proved or just_failed(observed, status.analysis) else None
    looks = (planned, patience(Situation(detector, observed, plan, now), status), acts)
    return min((look for look in looks if look is not None), default=None)


def _rollout(plan: Plan) -> RolloutStatus | None:
    progress = plan.progress
    if progress is None:
        return None
    return RolloutStatus(
        revision=progress.revision,
        strategy=progress.strategy,
        step=progress.step,
        steps=progress.steps or None,
        weight=progress.goal,
        hold=progress.hold or None,
        since=progress.since,
        begun=progress.begun,
        shares=[Share(revision=name, weight=share) for name, share in plan.shares.items()],
    )


def _url(detector: Detector, observed: Observed, plan: Plan) -> str:
    reached = plan.splits and observed.followed.by is not Following.NOBODY
    hosts = plan.exposure.hosts if reached else ()
    if whole := [host for host in hosts if "*" not in host]:
        return f"http://{whole[0]}"
    # Without the cluster's domain, which differs: pods search for names below it.
    return f"http://{detector.name}.{detector.namespace}.svc"
