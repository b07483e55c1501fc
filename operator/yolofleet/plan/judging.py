"""Who is judged, whether that lets a release go on, and what was called off for it.

What follows from a verdict follows from what is stored: a revision is called off once its failure
is in the status or on its workload, so that whoever goes on after a crash calls it off too.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from yolofleet.analysis.checks import OF_COPIES, OF_ITSELF
from yolofleet.analysis.judge import MOST_FAILED, Standing, said_of_failure
from yolofleet.analysis.margins import margins_hash
from yolofleet.api.analysis import (
    Analysis,
    AnalysisStatus,
    Failed,
    Mode,
    Source,
    Stage,
    Verdict,
)
from yolofleet.api.base import seconds
from yolofleet.api.detector import Detector
from yolofleet.api.rollout import Despite
from yolofleet.plan.observed import Observed
from yolofleet.workloads.judged import mute, reads_live
from yolofleet.workloads.revision import GoldenSet, Revision

PUBLISHED_EVERY = timedelta(seconds=60)
GAP = timedelta(minutes=2)
"""What is stored may be as old as this and a few looks, where nothing went wrong."""
UNPROVED = (Verdict.INCONCLUSIVE, Verdict.ERROR)


@dataclass(frozen=True, slots=True)
class Trial:
    """A revision that is judged by comparison with the stable one.

    weight: the percent of requests that it is to answer now; following: what it would answer next.
    incomparable: why what it answers is no match for what the stable one answers; empty: it is.
    lone: whether it takes the place of the only replica, so that nothing runs beside it.
    unlike: why the pictures that both answer are not alike, though times are.
    """

    revision: str
    against: str
    stage: Stage
    weight: int
    following: int
    incomparable: str = ""
    lone: bool = False
    unlike: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """What to look at, and how to judge it.

    known: what the status remembers. retried: the last word of a person that was acted on.
    unpaired: why no pair of answers can be had, in words; empty where they can. alone: whether the
    pods of the stable revision tell nothing, so that those of the other are looked at alone.
    untried: why the known pictures that are asked for are none that its pods have. mute: why these
    tell nothing at all.
    """

    trial: Trial
    asked: Analysis
    known: AnalysisStatus | None
    retried: str
    unpaired: str
    alone: bool
    untried: str = ""
    mute: str = ""

    @property
    def standing(self) -> Standing:
        """Return by what its looks are judged."""
        trial = self.trial
        return Standing(
            revision=trial.revision,
            against=trial.against,
            stage=trial.stage,
            weight=trial.weight,
            following=trial.following,
            retried=self.retried,
            unpaired=self.unpaired,
            incomparable=self.unpaired if self.alone else trial.incomparable,
            untried=self.untried,
            unlike=trial.unlike,
            mute=self.mute,
        )

    def is_of(self, other: "Subject") -> bool:
        """Say whether both are of one trial, which goes on by the same counters."""
        return self._identity() == other._identity()

    def _identity(self) -> tuple[str, ...]:
        return (self.trial.revision, self.trial.against, self.retried, self.asked.source)


class Judgement(Enum):
    """What judging has to say to a release that would go on."""

    FREE = "nobody judges, or nothing depends on it"
    PASSED = "all that is required was proved"
    WAITS = "not enough is known"
    PAUSED = "something failed that is no fault for sure: a person decides"
    UNJUDGED = "there is nothing to judge by: a person decides"
    FAILED = "something failed: once that is stored, the revision is called off"

    @property
    def blocks(self) -> bool:
        """Whether the release stays at its step."""
        return self not in (Judgement.FREE, Judgement.PASSED)


def judgement(
    detector: Detector,
    observed: Observed,
    revision: str,
    stage: Stage | None,
    *,
    following: int,
    against: str | None,
    approved: bool,
) -> Judgement:
    """Say whether `revision` may go on from where it answers as `stage` says, to `following`.

    A failure is one whenever it was seen. All else is to be of this very step, and of a look that
    this process had: what the status has may be of before an outage. against: with whom it is to be
    compared; None: with whoever it was. approved: whether a person's word is of this step: it ends
    a pause for what failed by then; what is not proved yet still is to be.

    stage None: it has walked all steps, and only lacks pods. Of its own answers it need not prove
    anew what it did at the last step, or never could: it may have none, or nothing beside it.
    """
    asked, found = detector.spec.rollout.analysis, observed.analysis
    if asked is None or asked.mode is Mode.DRY_RUN:
        return Judgement.FREE
    if not found or found.revision != revision or stage not in (None, found.stage):
        return Judgement.WAITS
    if found.margins_hash != margins_hash(asked):
        return Judgement.WAITS
    if found.verdict is Verdict.FAIL and not despite(detector, revision):
        off = any(each.revision == revision for each in found.failed)
        passes = _is_let_pass(detector, revision, failed_checks(found, revision))
        if not (passes and (off or approved)):
            return Judgement.FAILED if off else Judgement.PAUSED
    compared = against in (None, found.against)
    if not (observed.looked and compared and found.following == following):
        return Judgement.WAITS
    if stage is None:
        return Judgement.WAITS if _unseen(found) else Judgement.PASSED
    match found.verdict:
        case Verdict.PASS:
            return Judgement.PASSED
        case Verdict.FAIL:
            return Judgement.WAITS if unproved(found) else Judgement.PASSED
        case Verdict.NOT_JUDGED:
            return Judgement.UNJUDGED
        case _:
            return Judgement.WAITS


def unproved(found: AnalysisStatus) -> list[str]:
    """Return the checks that have shown nothing yet, neither way."""
    return [check.name for check in found.checks if check.verdict in UNPROVED]


def _unseen(found: AnalysisStatus) -> bool:
    """Say whether something cannot be read, or is unproved that no answers of its own show."""
    lacking = {check.verdict for check in found.checks if check.name in OF_ITSELF + OF_COPIES}
    return Verdict.INCONCLUSIVE in lacking or Verdict.ERROR in {c.verdict for c in found.checks}


def despite(detector: Detector, revision: str) -> bool:
    """Say whether a person lets `revision` go on although it failed."""
    said = detector.spec.rollout.approved
    return bool(said and said.revision == revision and said.despite is Despite.ANALYSIS_FAILED)


def failed_checks(found: AnalysisStatus | None, revision: str) -> list[str]:
    """Return the checks that `revision` failed, as far as `found` tells."""
    if found is None or found.revision != revision:
        return []
    return [check.name for check in found.checks if check.verdict is Verdict.FAIL]


def _is_let_pass(detector: Detector, revision: str, failed: Iterable[str]) -> bool:
    """Say whether a person named all of these checks, to have `revision` go on without them."""
    said = detector.spec.rollout.approved
    return bool(said and said.revision == revision and set(failed) <= set(said.failed or ()))


def failures(detector: Detector, observed: Observed) -> dict[str, Failed]:
    """Return who failed by the limits of today, and whom no person lets go on.

    The status remembers it; where that was lost, the workloads do. In a dry run nobody fails any
    more, and who did before stays away: to release that is no mode's affair.
    """
    asked = detector.spec.rollout.analysis
    if asked is None:
        return {}
    by = margins_hash(asked)
    known = observed.status.analysis
    return {
        name: failed
        for name, failed in _known(observed, known).items()
        if failed.margins_hash == by
        and not despite(detector, name)
        and not _is_let_pass(detector, name, {failed.check, *failed_checks(known, name)})
        and not _tries_again(detector, known, failed)
    }


def just_failed(observed: Observed, before: AnalysisStatus | None) -> bool:
    """Say whether somebody failed, as is published now, whom what is stored does not know."""
    stored = observed.status.analysis
    known = {failed.revision for failed in stored.failed} if stored else set()
    return before is not None and any(failed.revision not in known for failed in before.failed)


def remembered(
    detector: Detector, observed: Observed, trial: Trial | None
) -> AnalysisStatus | None:
    """Return what the status is to say and remember of judging.

    Once nobody is on trial, the evidence goes, and what it showed stays; all goes with what asked.
    """
    known = _known(observed, observed.analysis)
    if detector.spec.rollout.analysis is None or (observed.analysis is None and not known):
        return None
    found = observed.analysis or AnalysisStatus()
    again = [name for name, each in known.items() if _tries_again(detector, found, each)]
    judged = trial is not None and trial.revision == found.revision  # else there is nothing to redo
    if again or (judged and begins_anew(detector, found)):  # from zero
        found = AnalysisStatus(retried=detector.retry)
    elif trial is None:
        found = found.model_copy(update={"sums": [], "latency": []})
        asked = detector.spec.rollout.analysis
        if asked and not found.against and (said := said_of_failure(asked, found)):
            found = found.model_copy(update={"said": said})  # it is looked at no more, by any mode
    failed = [each for name, each in known.items() if name not in again]
    failed.sort(key=lambda each: each.at)
    return found.model_copy(update={"failed": failed[-MOST_FAILED:]})


def _known(observed: Observed, found: AnalysisStatus | None) -> dict[str, Failed]:
    """Return all failures that are known: what `found` tells goes before what workloads note.

    A note that could not be taken back is none, once a person's later word was acted on.
    """
    noted = (seen.failed for seen in observed.revisions.values() if seen.failed)
    if found and (word := found.retried):
        noted = (n for n in noted if n.retried == word or not _is_for(word, n.revision))
    return {each.revision: each for each in (*noted, *(found.failed if found else ()))}


def _tries_again(detector: Detector, known: AnalysisStatus | None, failed: Failed) -> bool:
    """Say whether a person wants it judged again, and it was not yet for that word."""
    word = detector.retry
    used = {failed.retried, known.retried if known else ""}
    return _is_for(word, failed.revision) and word not in used


def begins_anew(detector: Detector, found: AnalysisStatus) -> bool:
    """Say whether a person wants whoever `found` is of judged from zero, and it was not yet."""
    return _is_for(detector.retry, found.revision) and detector.retry != found.retried


def next_word(detector: Detector, observed: Observed, name: str) -> str:
    """Return a word to have `name` judged again that was not used: REVISION:GENERATION[.NUMBER]."""
    known, first = observed.analysis, f"{name}:{detector.generation}"
    failed = _known(observed, known).get(name)
    used = {detector.retry, known.retried if known else "", failed.retried if failed else ""}
    later = {word.removeprefix(f"{first}.") for word in used if word.startswith(f"{first}.")}
    number = max((int(each) for each in later if each.isdecimal()), default=0)
    return f"{first}.{number + 1}" if number or first in used else first


def _is_for(word: str, revision: str) -> bool:
    """Say whether a person's word to judge again is meant for `revision`."""
    return bool(word) and word.partition(":")[0] == revision


def is_worn(asked: Analysis, found: AnalysisStatus) -> bool:
    """Say whether whoever is judged by itself was looked at for `maxHold`, and nobody waits.

    Time is told by looks: nobody looks where there are no pods, or where it is suspended.
    """
    looked_s = found.looks * seconds(asked.interval)
    return not found.against and looked_s >= seconds(asked.max_hold)


def is_behind(asked: Analysis, found: AnalysisStatus, now: datetime) -> bool:
    """Say whether nobody looked for so long that a pass is only what it was then.

    Clocks of two leaders differ, and are set back.
    """
    at = found.looked_at or found.started_at
    most = GAP + 3 * timedelta(seconds=seconds(asked.interval))
    return at is not None and abs(now - at) > most


def is_news(
    asked: Analysis, before: AnalysisStatus | None, after: AnalysisStatus, *, age: timedelta
) -> bool:
    """Say whether what was found changes what is decided or said, or is evidence to be kept.

    age: of what was published before. When the operator dies, the last minute's evidence is lost.
    """
    if (
        before is None
        or _said(before) != _said(after)
        or is_worn(asked, before) != is_worn(asked, after)
    ):
        return True
    more = _gathered(before) != _gathered(after)
    return more and not timedelta() <= age < PUBLISHED_EVERY  # clocks are set back


def _said(found: AnalysisStatus) -> tuple[object, ...]:
    verdicts = tuple((check.name, check.verdict) for check in found.checks)
    return (
        *(found.revision, found.against, found.stage, found.following, found.verdict, verdicts),
        *(found.golden, found.capacity, found.failed, found.unreadable > 0),
    )


def _gathered(found: AnalysisStatus) -> tuple[object, ...]:
    """Return the evidence, and what is missing of it in words; numbers alone are no other words."""
    words = [re.sub(r"[\d.,]+", "", check.message) for check in found.checks]
    return found.sums, found.latency, found.arms, found.restarted, words


def _unpaired(
    detector: Detector, trial: Trial, known: Sequence[Revision], mutes: Mapping[str, str]
) -> str:
    """Say why the two revisions cannot be compared picture by picture; empty where they can.

    mutes: of those that are known, why they tell nothing.
    """
    if trial.lone:
        return f"it takes the only replica's place: nothing of {trial.against} runs beside it"
    for revision in known:
        if not reads_live(revision):
            return (
                f"the pods of {revision.name} were made by an earlier version of the operator, and"
                " have none of what they are compared by; those of later revisions have it"
            )
        if why := mutes[revision.name]:
            return why
    if any((each.guard.jwt or each.guard.api_keys) and not each.guard.shadow_key for each in known):
        secret, at = f"{detector.name}-shadow", detector.namespace
        return (
            "copies of requests need a key of their own. kubectl create secret generic"
            f" {secret} -n {at} --from-literal=key=$(openssl rand -hex 32), and set"
            f" spec.access.shadowKey.secretName to {secret}: from the revision after that on"
        )
    if len({each.guard.shadow_key for each in known}) > 1:
        return "the two have not the same access.shadowKey, by which copies of requests are known"
    return ""


def _mute(detector: Detector, revision: Revision) -> str:
    """Say why nobody learns what pods of `revision` counted; empty where one does.

    Older ones have not all of it in /metrics either.
    """
    asked, why = detector.spec.rollout.analysis, mute(revision)
    if not (why and reads_live(revision)):
        return why
    if asked and asked.source is Source.PROMETHEUS:
        return ""
    return f"{why}; or spec.rollout.analysis.source: Prometheus"


def subject(
    detector: Detector, observed: Observed, trial: Trial | None, known: AnalysisStatus | None
) -> Subject | None:
    """Return what is to be looked at for `trial`. known: what the status says by now."""
    asked = detector.spec.rollout.analysis
    if trial is None or asked is None or detector.spec.suspend:
        return None
    seen = [observed.revisions.get(name) for name in (trial.against, trial.revision)]
    revisions = [each.revision for each in seen if each and each.revision]
    mutes = {revision.name: _mute(detector, revision) for revision in revisions}
    return Subject(
        trial,
        asked,
        known,
        retried=known.retried if known else "",
        unpaired=_unpaired(detector, trial, revisions, mutes),
        alone=trial.lone or bool(mutes.get(trial.against)),
        untried=untried(asked, observed, trial),
        mute=mutes.get(trial.revision, ""),
    )


def untried(asked: Analysis, observed: Observed, trial: Trial) -> str:
    """Say why pods of the revision on trial do not try the known pictures; empty where they do.

    They keep what they were made with: another set restarts nothing.
    """
    seen = observed.revisions.get(trial.revision)
    if not asked.golden or not seen or not seen.revision:
        return ""
    if seen.revision.golden == GoldenSet.of(asked.golden):
        return ""
    return (
        "its pods were made before spec.rollout.analysis.golden named this set; those of revisions"
        " that are made from now on have it"
    )
