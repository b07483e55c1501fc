"""Analysed: what is known of how well a new revision does; absent where nothing is judged."""

from collections.abc import Iterable, Iterator
from functools import partial

from yolofleet.api.analysis import AnalysisStatus, Check, Mode, Stage, Verdict
from yolofleet.api.status import ConditionType, Reason
from yolofleet.plan.conditions.called_off import to_go_on, to_judge_again
from yolofleet.plan.conditions.situation import Situation
from yolofleet.plan.conditions.statement import Statement
from yolofleet.plan.conditions.unreadable import remedy
from yolofleet.plan.first import failure_of_the_first, gave_up
from yolofleet.plan.judging import UNPROVED, despite

_say = partial(Statement, ConditionType.ANALYSED)

_WORDS = {
    Verdict.PASS: (True, Reason.PASSING),
    Verdict.FAIL: (False, Reason.ANALYSIS_FAILED),
    Verdict.INCONCLUSIVE: (None, Reason.ANALYSING),
    Verdict.ERROR: (None, Reason.ANALYSIS_UNAVAILABLE),
    Verdict.NOT_JUDGED: (None, Reason.NOT_JUDGED),
}


_DRY = (
    "in mode DryRun, by spec.rollout.analysis or else the chart's analysis.default: this has no"
    " consequences"
)
_BY_ITSELF = "by itself, as nothing is released that it could be compared with"


def analysed(now: Situation) -> Statement | None:
    """Say what the evidence says, check by check."""
    trial, found = now.plan.trial, now.observed.analysis
    if trial is None:
        return _of_the_past(now)
    if found is None or found.revision != trial.revision:
        return _say(None, Reason.ANALYSING, f"{trial.revision}: nothing is known yet")
    status, reason = _WORDS[found.verdict]
    return _say(status, reason, _in_words(now, found), lasting=False)


def _in_words(now: Situation, found: AnalysisStatus) -> str:
    """Say how the one that is judged does, and what keeps it from passing."""
    where = "in the dark" if found.stage is Stage.DARK else "by what it answers"
    how = f"{where}, by comparison with {found.against}"
    message = f"{found.revision} {how if found.against else _BY_ITSELF}: {found.said}"
    details = "; ".join(_details(found.checks))
    asked = now.detector.spec.rollout.analysis
    if asked and asked.mode is Mode.DRY_RUN:
        message += f" ({_DRY})"
    message += f". {details}" if details else ""
    return f"{message}. {remedy(asked)}" if found.unreadable else message


def _details(checks: Iterable[Check]) -> Iterator[str]:
    """Say what is not passed, each reason once."""
    by_reason: dict[str, list[str]] = {}
    for check in checks:
        if check.message and check.verdict is not Verdict.PASS:
            by_reason.setdefault(check.message, []).append(check.name)
    for reason, names in by_reason.items():
        yield f"{', '.join(names)}: {reason}"


def _of_the_past(now: Situation) -> Statement | None:
    """Go on saying why what the spec asks for was called off."""
    off = sorted(now.plan.called_off.items())
    if not off:
        return _of_the_first(now)
    message = "; ".join(f"{name} failed {failed.check}: {failed.message}" for name, failed in off)
    return _say(
        False, Reason.ANALYSIS_FAILED, f"{message}. {to_go_on(now, off[0][0])}", lasting=True
    )


def _of_the_first(now: Situation) -> Statement | None:
    """Go on saying how the first revision did: nothing else was ever asked about it."""
    name, found = now.plan.stable, now.observed.analysis
    if failed := failure_of_the_first(now.detector, now.observed, name):
        message = f"{name} failed {failed}. {to_go_on(now, name, 'accept it as it is')}"
        return _say(False, Reason.ANALYSIS_FAILED, message, lasting=True)
    if now.detector.spec.rollout.analysis is None or despite(now.detector, name):
        return None
    if found is None or found.revision != name or found.against:
        return None
    seen = now.observed.revisions.get(name)
    if found.verdict in UNPROVED and not (seen and seen.unproved):
        return None  # nobody asked for a while, and it is not judged for what it did before
    if gave_up(now.detector, found, name):
        message = (
            f"{_in_words(now, found)}. It is not looked at any more. {to_judge_again(now, name)}"
        )
        return _say(None, Reason.NOT_ENOUGH_DATA, message)
    status, reason = _WORDS[found.verdict]
    return _say(status, reason, _in_words(now, found), lasting=False)
