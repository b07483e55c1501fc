"""What a person is told when a revision is called off, and what to type to have it all the same."""

import json

from yolofleet.api.analysis import AnalysisStatus, Check, Verdict
from yolofleet.api.names import PLURAL

_OF_OBJECTS = ("kept", "keptByClass", "keptBySize", "seesNothing", "added")


def measured(status: AnalysisStatus) -> str:
    """Say what failed, with the numbers."""
    failed = [check for check in status.checks if check.verdict is Verdict.FAIL]
    told = "; ".join(check.message for check in failed)
    return f"{told}{_confused(status, failed)}"


def _confused(status: AnalysisStatus, failed: list[Check]) -> str:
    if not status.confused or not any(check.name in _OF_OBJECTS for check in failed):
        return ""
    most = status.confused[0]
    return f"; {most.name} is called {most.called} {most.times:,} times"


def missing(status: AnalysisStatus) -> str:
    """Say what is not proved yet, check by check."""
    waiting = (Verdict.INCONCLUSIVE, Verdict.ERROR)
    return "; ".join(f"{c.name}: {c.message}" for c in status.checks if c.verdict in waiting)


def override(namespace: str, detector: str, revision: str, step: int) -> str:
    """Return the command that releases a revision in spite of what it failed."""
    approved = {"revision": revision, "step": max(step, 1), "despite": "AnalysisFailed"}
    patch = json.dumps({"spec": {"rollout": {"approved": approved}}})
    return f"kubectl -n {namespace} patch {PLURAL} {detector} --type merge -p '{patch}'"


def rolled_back(
    status: AnalysisStatus, *, namespace: str, detector: str, weight: int, step: int
) -> str:
    """Say in one sentence who was called off, why, and how to release it all the same."""
    typed = override(namespace, detector, status.revision, step)
    return (
        f"{status.revision} rolled back at weight {weight}: {measured(status)}."
        f" To release it all the same: {typed}"
    )
