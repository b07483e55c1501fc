"""Analysed: what is known of how well a new revision does; absent where nothing is judged."""

from collections.abc import Iterable, Iterator
from functools import partial

from yolofleet.api.analysis import Check, Mode, Stage, Verdict
from yolofleet.api.status import ConditionType, Reason
from yolofleet.plan.conditions.called_off import to_go_on
from yolofleet.plan.conditions.situation import Situation
from yolofleet.plan.conditions.statement import Statement

_say = partial(Statement, ConditionType.ANALYSED)

_WORDS = {
    Verdict.PASS: (True, Reason.PASSING),
    Verdict.FAIL: (False, Reason.ANALYSIS_FAILED),
    Verdict.INCONCLUSIVE: (None, Reason.ANALYSING),
    Verdict.ERROR: (None, Reason.ANALYSIS_UNAVAILABLE),
    Verdict.NOT_JUDGED: (None, Reason.NOT_JUDGED),
}


def analysed(now: Situation) -> Statement | None:
    """Say what the evidence says, check by check."""
    trial, found = now.plan.trial, now.observed.analysis
    if trial is None:
        return _of_the_past(now)
    if found is None or found.revision != trial.revision:
        return _say(None, Reason.ANALYSING, f"{trial.revision}: nothing is known yet")
    holds, reason = _WORDS[found.verdict]
    where = "in the dark" if found.stage is Stage.DARK else "by what it answers"
    told = f"{trial.revision} {where}, by comparison with {trial.against}: {found.said}"
    details = "; ".join(_details(found.checks))
    asked = now.detector.spec.rollout.analysis
    if asked and asked.mode is Mode.DRY_RUN:
        told += " (spec.rollout.analysis.mode is DryRun: this has no consequences)"
    return _say(holds, reason, f"{told}. {details}" if details else told, lasting=False)


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
        return None
    told = "; ".join(f"{name} failed {failed.check}: {failed.message}" for name, failed in off)
    return _say(False, Reason.ANALYSIS_FAILED, f"{told}. {to_go_on(now, off[0][0])}", lasting=True)
