"""Progressing: whether the operator is on its way to the spec, and what it waits for."""

from datetime import timedelta
from functools import partial

from yolofleet.api.analysis import AnalysisStatus, Verdict
from yolofleet.api.base import seconds
from yolofleet.api.rollout import APPROVAL, Despite, Strategy
from yolofleet.api.status import ConditionType, Reason
from yolofleet.plan.conditions.called_off import to_go_on
from yolofleet.plan.conditions.called_off import why as why_called_off
from yolofleet.plan.conditions.commands import approval
from yolofleet.plan.conditions.situation import Situation
from yolofleet.plan.conditions.statement import Statement, first
from yolofleet.plan.conditions.unreadable import remedy
from yolofleet.plan.first import failure_of_the_first
from yolofleet.plan.judging import Judgement, failed_checks, unproved
from yolofleet.plan.rollout import Progress
from yolofleet.routers.choice import lacking

_say = partial(Statement, ConditionType.PROGRESSING)


def progressing(now: Situation) -> Statement:
    """Say what the operator is at; False when nothing is left to do, or nothing can be done."""
    statement = first(
        (
            suspended,
            called_off,
            without_accelerators,
            failing,
            under_way,
            first_failed,
            starting,
            draining,
        ),
        now,
    )
    return statement or _say(False, Reason.SETTLED, f"{now.plan.target} is released")


def suspended(now: Situation) -> Statement | None:
    """Say that the user wants nothing changed."""
    if not now.detector.spec.suspend:
        return None
    message = "spec.suspend is true: nothing is changed or repaired"
    return _say(False, Reason.SUSPENDED, message)


def called_off(now: Situation) -> Statement | None:
    """Say what the spec's revision failed: it gets nothing until a person says so."""
    if (message := why_called_off(now, now.plan.target)) is None:
        return None
    return _say(False, Reason.ANALYSIS_FAILED, message + _meanwhile(now), lasting=True)


def without_accelerators(now: Situation) -> Statement | None:
    """Say which accelerators the spec's revision needs, and no node has.

    How long it has been so is GPUAvailable's to know.
    """
    plan = now.plan
    short = now.lacks_accelerators(plan.target) and now.observed.ready(plan.target) < plan.full
    if plan.missing and (short or not now.whole(now.plan.target)):
        return _say(False, Reason.MISSING, plan.missing + _meanwhile(now), lasting=False)
    return None


def failing(now: Situation) -> Statement | None:
    """Pass on what the pods of the spec's revision die of."""
    failure = None if now.whole(now.plan.target) else now.failure(now.plan.target)
    if failure is None:
        return None
    message = failure.message + _meanwhile(now)
    return _say(False, failure.reason, message, lasting=failure.lasting)


def under_way(now: Situation) -> Statement | None:
    """Say where a release is, and what it waits for."""
    if (progress := now.plan.progress) is None:
        return None
    return next((statement for check in _UNDER_WAY if (statement := check(now, progress))), None)


def first_failed(now: Situation) -> Statement | None:
    """Say what the first revision failed, that serves all the same: nothing is there to go back to.

    It is what the spec asks for, and not what a release is for.
    """
    name = now.plan.stable
    if (failed := failure_of_the_first(now.detector, now.observed, name)) is None:
        return None
    message = (
        f"{name} failed {failed}. It is the first revision: there is nothing to go back to, and it"
        " goes on serving. Change spec.model or what else is wrong: the next revision is not"
        f" compared with this one. {to_go_on(now, name, 'accept it as it is')}"
    )
    return _say(False, Reason.ANALYSIS_FAILED, message, lasting=True)


def starting(now: Situation) -> Statement | None:
    """Say how many replicas are there already."""
    if now.whole(now.plan.target):
        return None
    room = _until_accepted(now) if now.plan.leaving else ""
    return _say(True, Reason.STARTING, now.count(now.plan.target) + room)


def draining(now: Situation) -> Statement | None:
    """Say who still finishes requests."""
    if not (leaving := now.plan.leaving):
        return None
    if now.observed.pending:
        message = f"{', '.join(leaving)}: may still have requests{_until_accepted(now)}"
        return _say(True, Reason.DRAINING, message)
    return _say(True, Reason.DRAINING, f"{', '.join(leaving)}: finishing the last requests")


def _meanwhile(now: Situation) -> str:
    stable = now.plan.stable
    serving = stable != now.plan.target and now.observed.ready(stable)
    return f"; {stable} keeps serving" if serving else ""


def _until_accepted(now: Situation) -> str:
    """Say why no replica is given up, where that is what a release waits for."""
    if not now.observed.pending:
        return ""
    return f"; {now.observed.followed.why}: until then no replica is given up"


# where a release is


def paused(now: Situation, progress: Progress) -> Statement | None:
    """Say that the user holds it."""
    if not progress.held:
        return None
    message = "spec.rollout.paused is true: weights and replicas stay; set it to false to go on"
    count = now.count(now.plan.target)
    return _say(False, Reason.PAUSED, f"{message}. {count}{_meanwhile(now)}")


def without_steps(now: Situation, progress: Progress) -> Statement | None:
    """Say how many replicas are there of a release that goes over as they come."""
    if progress.step or progress.dark or progress.unproved:
        return None
    message = now.count(now.plan.target) + _meanwhile(now) + _until_accepted(now)
    return _say(True, Reason.ROLLING_OUT, message)


def without_router(now: Situation, progress: Progress) -> Statement | None:
    """Say what is missing to walk steps at all."""
    answers = now.observed.service.leads_to(progress.revision)
    if now.plan.splits or progress.dark or progress.goal == 100 or answers:
        return None
    message = f"{_at(progress)}: {lacking(now.detector)}; or set spec.rollout.strategy to BlueGreen"
    return _say(False, Reason.MESH_ABSENT, message + _meanwhile(now), lasting=True)


def at_zero(now: Situation, progress: Progress) -> Statement | None:
    """Say that nobody asks, so that nothing is shown by holding a step."""
    if progress.since is not None or now.plan.full:
        return None
    if not progress.awaits:
        message = f"{_at(progress)}: spec.replicas is 0, so that nothing can be judged: raise it"
        return _say(True, Reason.NOT_JUDGED, message)
    message = (
        f"{_at(progress)}: spec.replicas is 0, and a step ahead waits for approval: raise it to"
        f" walk there, or approve: {approval(now.detector, progress.revision, progress.steps)}"
    )
    return _say(True, Reason.AWAITING_APPROVAL, message)


def followed_by_nobody(now: Situation, progress: Progress) -> Statement | None:
    """Say that the route has the step's weight, and nobody routes by it."""
    if (
        progress.since is not None
        or not now.observed.weights.get(progress.revision, 0) >= progress.goal > 0
    ):
        return None
    followed = now.observed.followed
    if followed.counts:
        return None
    message = f"{_at(progress)}: waits for who routes by it: {followed.why}"
    return _say(True, followed.reason, message + _meanwhile(now))


def reaching(now: Situation, progress: Progress) -> Statement | None:
    """Say how many replicas are there for the step."""
    if progress.since is not None or progress.unproved:
        return None
    ready = now.count(now.plan.target).removeprefix(f"{progress.revision}: ")
    message = f"{_at(progress)}: {ready}{_meanwhile(now)}{_until_accepted(now)}"
    return _say(True, Reason.ROLLING_OUT, message)


def judged(now: Situation, progress: Progress) -> Statement | None:
    """Say what keeps it at its step once its time is over, and how to go on without."""
    if not progress.unproved:
        return None
    found, where = now.observed.analysis, _at(progress)
    known = found is not None and found.revision == progress.revision
    said = found.said if found and known else "nothing is known yet"
    if progress.judged is Judgement.FAILED:
        return _say(True, Reason.ANALYSIS_FAILED, f"{where}: {said}; it is being called off")
    if progress.judged in (Judgement.PAUSED, Judgement.UNJUDGED):
        failed = failed_checks(found, progress.revision)
        typed = approval(now.detector, progress.revision, _number(progress), failed=failed)
        message = f"{where}: {said}. To go on: {typed}"
        return _say(True, Reason.AWAITING_APPROVAL, message)
    if found and known and progress.judged is Judgement.WAITS:
        said += _yet_to_come(found)
    despite, long = "", progress.since and now.time - progress.since >= _patience(now)
    if long:
        typed = approval(
            now.detector,
            progress.revision,
            _number(progress),
            Despite.NOT_ENOUGH_DATA,
            failed_checks(found, progress.revision),  # what was let pass before stays so
        )
        despite = f". To go on without proof: {typed}"
    if found and known and found.verdict is Verdict.ERROR:
        message = f"{where}: {said}; the release is held, and not rolled back{_meanwhile(now)}"
        message += f". {remedy(now.detector.spec.rollout.analysis)}" if found.unreadable else ""
        return _say(False, Reason.ANALYSIS_UNAVAILABLE, message + despite)
    if long:
        message = f"{where}: {said}, and it is held{despite}"
        return _say(False, Reason.NOT_ENOUGH_DATA, message, lasting=True)
    return _say(True, Reason.ANALYSING, f"{where}: {said}{_meanwhile(now)}")


def _number(progress: Progress) -> int:
    """Return the step up to which a word lets it go on: the first in the dark, at the end all."""
    return max(progress.step or (0 if progress.dark else progress.steps), 1)


def _yet_to_come(found: AnalysisStatus) -> str:
    """Say what is waited for where its own few words say that all is over."""
    if found.verdict is Verdict.FAIL and (names := unproved(found)):
        return f"; not proved yet: {', '.join(names)}"
    over = found.verdict in (Verdict.PASS, Verdict.FAIL, Verdict.NOT_JUDGED)
    return "; it is looked at anew" if over or not found.following else ""


def _patience(now: Situation) -> timedelta:
    asked = now.detector.spec.rollout.analysis
    return timedelta(seconds=seconds(asked.max_hold)) if asked else timedelta.max


def holding(_now: Situation, progress: Progress) -> Statement | None:
    """Say how long the step holds."""
    if progress.hold == APPROVAL:
        return None
    return _say(True, Reason.HOLDING, f"{_at(progress)}: holds for {progress.hold}")


def awaiting_approval(now: Situation, progress: Progress) -> Statement | None:
    """Say how to approve the step, and what failed meanwhile."""
    failed, found = None, now.observed.analysis
    where = f"{_at(progress)}: waits for approval"
    if found and progress.judged is Judgement.PAUSED:
        failed, where = failed_checks(found, progress.revision), f"{where}. {found.said}"
    typed = approval(now.detector, progress.revision, progress.step, failed=failed)
    message = f"{where}. To go on: {typed}"
    return _say(True, Reason.AWAITING_APPROVAL, message)


_UNDER_WAY = (
    paused,
    without_steps,
    without_router,
    at_zero,
    followed_by_nobody,
    reaching,
    judged,
    holding,
    awaiting_approval,
)


def _at(progress: Progress) -> str:
    if not progress.step:
        in_place = progress.strategy is Strategy.IN_PLACE
        if in_place and not progress.dark:  # it has what replicas it has
            return f"{progress.revision} before it is released"
        where = "in the dark" if progress.dark else "before it takes over"
        return f"{where}, {progress.goal} % to {progress.revision}"
    return f"step {progress.step} of {progress.steps}, {progress.goal} % to {progress.revision}"
