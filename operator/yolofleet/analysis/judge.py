"""One look further: what is known, and what a look adds, make the verdicts.

Fail wins at once, and stays: a verdict is about the revision, and that never changes. Nothing is
promoted for want of data, and nothing fails for what could not be read.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from yolofleet.analysis.arms import CLASS_SHIFT, beside, watched
from yolofleet.analysis.checks import CHECKS, OF_KEPT, RESTARTS, Case, Finding, found
from yolofleet.analysis.evidence import Golden
from yolofleet.analysis.increments import Look
from yolofleet.analysis.margins import margins_hash
from yolofleet.analysis.sums import KEPT, LEAST_OBJECTS, Sums, plus, read, written
from yolofleet.api.analysis import (
    Analysis,
    AnalysisStatus,
    Arm,
    Check,
    Failed,
    GoldenResult,
    Mode,
    OnFailure,
    Restart,
    Stage,
    Verdict,
)

MOST_FAILED = 5
_RESTARTS_WITHIN = timedelta(minutes=10)
_MOST_RESTARTS = 16  # of all pods, so that the status stays small
_ANOTHER = 1.5  # times: what a pod can carry is measured with each batch, and is never the same
_MOST_CAPACITY = 1e6
_WILD = 0.6  # of what it adds: with no known pictures to say that all this is there


@dataclass(frozen=True, slots=True)
class Standing:
    """Who is judged, by comparison with whom, and what is known of both but by looking.

    against: empty where nothing is released yet. weight: the percent of requests that it answers;
    following: what it would answer next. retried: a person's word to begin anew, told by a value
    that was not used yet. unpaired: why the same pictures do not go to both; incomparable: why its
    own answers are no match for those of the stable revision; unlike: why the pictures are none.
    untried: why its pods have not the known pictures. mute: why they tell nothing, by how they
    were made.
    """

    revision: str
    against: str
    stage: Stage
    weight: int = 0
    following: int = 100
    retried: str = ""
    unpaired: str = ""
    incomparable: str = ""
    untried: str = ""
    unlike: str = ""
    mute: str = ""


def judge(
    analysis: Analysis, known: AnalysisStatus | None, look: Look, by: Standing, *, now: datetime
) -> AnalysisStatus:
    """Return what is known of the revision after one more look at it and at the stable one."""
    look = replace(look, unreadable="") if by.mute else look
    now = now.replace(microsecond=0)
    before = _begun(analysis, known, by, now)
    live = by.stage is Stage.LIVE
    weight = by.weight if live else None
    sums, arms = _counted(before, look, analysis, paired=not by.unpaired, weight=weight)
    if by.unpaired and not (by.incomparable or by.unlike):
        sums = watched(sums, arms, before.arms, analysis.max_class_shift)
    restarted = _restarted(before.restarted, look.restarts, now)
    result = _result(before.golden, look)
    case = Case(
        analysis=analysis,
        sums=sums,
        against=by.against,
        looks=before.looks + 1,
        live=live,
        stake=100 / max(by.following, 1),
        golden=look.golden,
        golden_stable=look.golden_stable,
        result=result,
        probed=look.probed,
        blind_in_a_row=look.blind_in_a_row,
        restarts=max(Counter(each.pod for each in restarted).values(), default=0),
        unpaired=by.unpaired if by.against else "",
        incomparable=by.incomparable,
        untried=by.untried,
        unlike=by.unlike,
        mute=by.mute,
        arms=arms,
        unreadable=look.unreadable,
        left_out=look.left_out,
        unknown=look.unknown,
    )
    checks = _checks(case, {check.name: check for check in before.checks}, now)
    verdict = _overall(checks, unpaired=bool(case.unpaired), alone=not by.against)
    changed = verdict is not before.verdict or before.since is None
    after = before.model_copy(
        update={
            "stage": by.stage,
            "verdict": verdict,
            "since": now if changed else before.since,
            "looks": before.looks + 1,
            "unreadable": before.unreadable + 1 if look.unreadable else 0,
            "restarted": restarted,
            "golden": result,
            "capacity": _capacity(before.capacity, look.capacity),
            "checks": checks,
            "arms": arms,
            **written(sums),
        }
    )
    said = _said(after, look, by.weight, analysis)
    return after.model_copy(update={"said": said, "failed": _failed(analysis, after)})


def _begun(
    analysis: Analysis, known: AnalysisStatus | None, by: Standing, now: datetime
) -> AnalysisStatus:
    """Return what is known so far: nothing, of another revision or by other limits."""
    limits = margins_hash(analysis)
    same = (by.revision, by.against, limits, by.retried)
    if known and (known.revision, known.against, known.margins_hash, known.retried) == same:
        return known
    return AnalysisStatus(
        revision=by.revision,
        against=by.against,
        margins_hash=limits,
        retried=by.retried,
        started_at=now,
        failed=known.failed if known else [],
    )


def _counted(
    before: AnalysisStatus, look: Look, analysis: Analysis, *, paired: bool, weight: int | None
) -> tuple[Sums, list[Arm]]:
    """Return the sums and the arms with what one look adds to those of `before`."""
    sums, arms = read(before), before.arms
    if before.against:  # nobody would hold evidence against anything else
        sums = plus(sums, look, analysis, paired=paired, weight=weight)
        if weight is not None:
            arms = beside(arms, look, sums, revision=before.revision, against=before.against)
    return sums, arms


def _restarted(before: list[Restart], more: Mapping[str, int], now: datetime) -> list[Restart]:
    """Return which of its pods restarted lately. Clocks are set back: nothing lies ahead.

    When a node reboots all of its pods do, once: of so many the last are remembered.
    """
    past = [each.model_copy(update={"at": min(each.at, now)}) for each in before]
    past = [each for each in past if now - each.at < _RESTARTS_WITHIN]
    for uid, often in more.items():
        past += [Restart(pod=uid[:8], at=now)] * min(often, RESTARTS)
    return past[-_MOST_RESTARTS:]


def _capacity(before: float | None, now: float | None) -> float | None:
    """Return what a pod can carry: as it was until it is clearly another, so that no file flaps."""
    if now is None or (before and before / _ANOTHER < now < before * _ANOTHER):
        return before
    return float(f"{min(now, _MOST_CAPACITY):.2g}")


def _result(before: GoldenResult | None, look: Look) -> GoldenResult | None:
    """Return what the known pictures gave, as far as it is known."""
    mine, beside = _done(look.golden), _done(look.golden_stable)
    if mine is None or mine.map50 is None:
        if before and before.against is None and beside and beside.set_sha256 == before.set:
            return before.model_copy(update={"against": beside.map50})
        return before
    same = beside.map50 if beside and beside.set_sha256 == mine.set_sha256 else None
    if same is None and before and before.set == mine.set_sha256:
        same = before.against
    return GoldenResult(set=mine.set_sha256, map50=mine.map50, against=same, images=mine.images)


def _done(golden: Golden | None) -> Golden | None:
    return golden if golden and golden.state == "done" else None


def _checks(case: Case, before: Mapping[str, Check], now: datetime) -> list[Check]:
    checks = []
    for name, check in CHECKS:
        known = before.get(name)
        if known and known.verdict is Verdict.FAIL:
            checks.append(known)
        else:
            checks.append(_as_check(name, found(name, check, case), known, now))
    return checks


def _as_check(name: str, finding: Finding, known: Check | None, now: datetime) -> Check:
    same = known and known.verdict is finding.verdict
    return Check(
        name=name,
        verdict=finding.verdict,
        since=known.since if known and same else now,
        value=finding.value,
        limit=finding.limit,
        samples=finding.n,
        message=_clipped(finding.message, 200),
    )


def _clipped(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _overall(checks: list[Check], *, unpaired: bool, alone: bool) -> Verdict:
    """Return the verdict of all: the worst of those that judge.

    Where no copies are compared, the known pictures must have spoken; where nothing is compared,
    anything.
    """
    verdicts = {check.verdict for check in checks}
    for verdict in (Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE):
        if verdict in verdicts:
            return verdict
    if alone and Verdict.PASS not in verdicts:
        return Verdict.NOT_JUDGED
    known = any(check.name == "golden" and check.verdict is Verdict.PASS for check in checks)
    return Verdict.NOT_JUDGED if unpaired and not known else Verdict.PASS


def consequence(analysis: Analysis, status: AnalysisStatus) -> OnFailure | None:
    """Return what follows from a verdict; None: nothing."""
    failed = [check for check in status.checks if check.verdict is Verdict.FAIL]
    if not failed or analysis.mode is Mode.DRY_RUN:
        return None
    if analysis.on_failure is OnFailure.PAUSE:
        return OnFailure.PAUSE
    sure = any(_condemns(analysis, check) for check in failed)
    return OnFailure.ROLLBACK if sure else OnFailure.PAUSE


def _condemns(analysis: Analysis, check: Check) -> bool:
    """Say whether to fail this check is a fault for sure: to find more may be an improvement.

    To find other things may be one too, or it is the pictures that were others.
    """
    if check.name == CLASS_SHIFT:
        return False
    return check.name != "added" or (analysis.golden is None and (check.value or 0.0) > _WILD)


def _failed(analysis: Analysis, status: AnalysisStatus) -> list[Failed]:
    """Return who is not tried again, with this one when it is to be called off."""
    if consequence(analysis, status) is not OnFailure.ROLLBACK:
        return status.failed
    check = next(
        check
        for check in status.checks
        if check.verdict is Verdict.FAIL and _condemns(analysis, check)
    )
    entry = Failed(
        revision=status.revision,
        check=check.name,
        at=check.since,
        message=_clipped(_clipped(check.message, 120) + _confused(check, status), 200),
        margins_hash=status.margins_hash,
        retried=status.retried,
    )
    others = [each for each in status.failed if each.revision != status.revision]
    return [*others, entry][-MOST_FAILED:]


def _confused(check: Check, status: AnalysisStatus) -> str:
    """Say which class is taken for which, where objects are lost: that names a swap."""
    if not status.confused or check.name not in OF_KEPT:
        return ""
    most = status.confused[0]
    return f"; {most.name} is called {most.called} {most.times:,} times"


def said_of_failure(analysis: Analysis, status: AnalysisStatus) -> str:
    """Return what failed in the few words of a column; empty where nothing did."""
    failed = [check.name for check in status.checks if check.verdict is Verdict.FAIL]
    would = "Would fail" if analysis.mode is Mode.DRY_RUN else "Failed"
    return _clipped(f"{would}: {', '.join(failed)}", 100) if failed else ""


def _said(status: AnalysisStatus, look: Look, weight: int, analysis: Analysis) -> str:
    """Return it in the few words of a column."""
    if failed := said_of_failure(analysis, status):
        return failed
    if status.unreadable:
        return f"Unreadable: {status.unreadable} looks"
    if status.verdict is Verdict.ERROR:
        wrong = next(check for check in status.checks if check.verdict is Verdict.ERROR)
        return _clipped(f"Unreadable: {wrong.name}", 100)
    if look.waiting:
        return _clipped(f"Waiting: {look.waiting}", 100)
    if status.verdict is Verdict.NOT_JUDGED:
        if all(check.verdict is Verdict.NOT_JUDGED for check in status.checks):
            return "Not judged: nothing is told"
        if not status.against:
            return "Not judged: no known pictures, and no looks at its own"
        return "Not judged: no copies are compared"
    judged = [check for check in status.checks if check.verdict is not Verdict.NOT_JUDGED]
    passed = [check for check in judged if check.verdict is Verdict.PASS]
    few = next(
        (check for check in judged if check.name == KEPT and check.samples < LEAST_OBJECTS), None
    )
    if few:
        return f"Waiting: {few.samples} of {LEAST_OBJECTS} objects"
    word = "Passed" if status.verdict is Verdict.PASS else "Passing"
    return f"{word} {len(passed)}/{len(judged)} at {weight} %"
