"""The first revision of a detector: nothing runs beside it, so that it is judged by itself.

It serves as soon as it is ready, and nothing is there to go back to. That it is still to be judged
stands on its workload and its record, where it outlives a status; it goes from there once what the
status has stored needs no more looks. Whoever was released before any of this was asked for has no
such mark, and is never judged for it.
"""

from yolofleet.analysis.margins import margins_hash
from yolofleet.api.analysis import Analysis, AnalysisStatus, Mode, Stage, Verdict
from yolofleet.api.detector import Detector
from yolofleet.plan.judging import UNPROVED, Trial, begins_anew, despite, failures, is_worn
from yolofleet.plan.observed import Observed
from yolofleet.workloads.judged import evidence_port
from yolofleet.workloads.revision import Revision

_PROVED = (Verdict.PASS, Verdict.NOT_JUDGED)


def is_unproved(detector: Detector, observed: Observed, revision: Revision) -> bool:
    """Say whether `revision` is the first one, and is still to be judged.

    Its mark is set when it is made, where none was before, and never again. It is taken away once
    nothing is asked for any more, and by what is stored, so that a crash takes nothing away.
    """
    if detector.spec.rollout.analysis is None or despite(detector, revision.name):
        return False
    if not observed.revisions:
        return evidence_port(revision) is not None
    seen = observed.revisions.get(revision.name)
    return bool(seen and seen.unproved) and not is_proved(
        detector, observed.status.analysis, revision.name
    )


def is_proved(detector: Detector, found: AnalysisStatus | None, name: str) -> bool:
    """Say whether `found` tells that `name` was judged by itself, and has nothing to prove."""
    return _is_by_itself(detector, found, name) and found is not None and found.verdict in _PROVED


def trial_of_the_first(detector: Detector, observed: Observed, name: str) -> Trial | None:
    """Return the trial of `name`, if it is the first revision, serves, and is not done with.

    Nobody waits for it. So it is over with a failure, too, and when nothing is proved for too long:
    pods are not asked for ever.
    """
    seen, found = observed.revisions.get(name), observed.analysis
    if seen is None or not (seen.unproved and seen.ready) or despite(detector, name):
        return None
    if name in failures(detector, observed) or gave_up(detector, found, name):
        return None
    over = found is not None and found.verdict not in UNPROVED
    if over and _is_by_itself(detector, found, name):
        return None
    return Trial(name, "", Stage.LIVE, 100, 100)


def gave_up(detector: Detector, found: AnalysisStatus | None, name: str) -> bool:
    """Say whether `name` was looked at long enough, and showed nothing."""
    asked = detector.spec.rollout.analysis
    if asked is None or found is None or not _is_by_itself(detector, found, name):
        return False
    return found.verdict in UNPROVED and is_worn(asked, found)


def failure_of_the_first(detector: Detector, observed: Observed, name: str) -> str | None:
    """Say what `name` failed, if it is the first revision, and a person is to hear of it."""
    seen, asked, found = observed.revisions.get(name), _enforced(detector), observed.analysis
    if asked is None or not (seen and seen.unproved) or despite(detector, name):
        return None
    if failed := failures(detector, observed).get(name):
        return f"{failed.check}: {failed.message}"
    if found is None or not _is_by_itself(detector, found, name):
        return None
    checks = (check for check in found.checks if check.verdict is Verdict.FAIL)
    return next((f"{check.name}: {check.message}" for check in checks), None)


def measure(detector: Detector, observed: Observed, stable: str, revision: str) -> str:
    """Return what `revision` is to be compared with; empty: nothing there is a measure.

    So it is where the first revision failed, or cannot even run: what comes after it would wait for
    ever to be like it. Once begun by itself, a trial goes on so.
    """
    seen, found = observed.revisions.get(stable), observed.analysis
    if detector.spec.rollout.analysis is None or not (seen and seen.unproved):
        return stable
    cannot_run = not seen.ready and seen.failure is not None and seen.failure.lasting
    begun = _is_by_itself(detector, found, revision)
    failed = failure_of_the_first(detector, observed, stable) is not None
    return "" if begun or failed or cannot_run else stable


def _is_by_itself(detector: Detector, found: AnalysisStatus | None, name: str) -> bool:
    asked = detector.spec.rollout.analysis
    if asked is None or found is None or found.against:
        return False
    same = found.revision == name and found.margins_hash == margins_hash(asked)
    return same and not begins_anew(detector, found)


def _enforced(detector: Detector) -> Analysis | None:
    asked = detector.spec.rollout.analysis
    return asked if asked and asked.mode is Mode.ENFORCE else None
