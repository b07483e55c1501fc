"""What could not be written as it is wanted, and how that is reported."""

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import datetime

from yolofleet.api.names import DETECTOR_LABEL, MANAGED_BY, MANAGED_BY_LABEL
from yolofleet.api.status import ConditionType, Reason, Status
from yolofleet.plan.conditions.statement import Statement
from yolofleet.plan.status import refused, with_statement
from yolofleet.workloads.choice import WORKLOADS
from yolofleet.workloads.failures import PATIENCE


@dataclass(frozen=True, slots=True)
class Unwritten:
    """One object that is not as wanted, because a write of it was refused or failed.

    message: the API server's, with fields named as the user wrote them. controller: of an object
    that is not the detector's, who has it; empty: nobody.
    """

    kind: str
    name: str
    reason: Reason
    message: str
    controller: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


_WORST_FIRST = (Reason.RESOURCE_CONFLICT, Reason.WRITE_REFUSED, Reason.WRITE_FAILED)


def with_unwritten(
    status: Status,
    unwritten: Sequence[Unwritten],
    key: str,
    *,
    there: Set[tuple[str, str]],
    waiting: Iterable[tuple[str, str]],
    before: Status,
    now: datetime,
) -> Status:
    """Return `status` with what is not as wanted in Progressing and, with since when, Written.

    key: "namespace/name" of the detector. there: kind and name of its children; waiting: of what
    is not made for want of others. Written is there only while something is not as wanted: its
    last transition is since when.
    """
    if not unwritten:
        return status
    reason = min((each.reason for each in unwritten), key=_WORST_FIRST.index)
    policies = {(each.kind, each.name) for each in unwritten if each.kind == "NetworkPolicy"}
    sentences = [*_sentences(unwritten, *key.split("/")), *_open(policies - there, waiting)]
    message = "; ".join(sentences)
    without_written = refused(
        status,
        reason,
        message,
        generation=status.observed_generation,
        before=before,
        now=now,
        stuck=reason is not Reason.WRITE_FAILED or _long_so(before, now),
    )
    statement = Statement(ConditionType.WRITTEN, False, reason, message)
    return with_statement(without_written, statement, before, now)


def _long_so(before: Status, now: datetime) -> bool:
    was = before.condition(ConditionType.WRITTEN)
    return was is not None and now - was.last_transition_time >= PATIENCE


def _sentences(unwritten: Sequence[Unwritten], namespace: str, detector: str) -> Iterator[str]:
    """Say each error once, with all objects that have it."""
    taken = [each for each in unwritten if each.reason is Reason.RESOURCE_CONFLICT]
    if taken:
        yield _taken(taken, namespace, detector)
    by_error: dict[str, list[Unwritten]] = {}
    for each in sorted(unwritten, key=lambda each: _WORST_FIRST.index(each.reason)):
        if each not in taken:
            by_error.setdefault(each.message, []).append(each)
    for message, those in by_error.items():
        yield f"{', '.join(map(str, those))}: {message}"


def _open(absent: Set[tuple[str, str]], waiting: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Say what the want of a NetworkPolicy comes to; an older one that is there still holds."""
    if absent and any(kind in WORKLOADS for kind, _ in waiting):
        yield "no pod is made before its NetworkPolicy is written"
    elif absent:
        yield "until the NetworkPolicy is written, spec.access restricts nothing"


def _taken(taken: Sequence[Unwritten], namespace: str, detector: str) -> str:
    """Name all objects that are not the detector's, and what to do without losing any of them."""
    by_owner: dict[str, list[Unwritten]] = {}
    for each in taken:
        by_owner.setdefault(each.controller, []).append(each)
    message = [
        f"{', '.join(map(str, those))} already exist{'' if len(those) > 1 else 's'} in namespace"
        f" {namespace} and belong{'' if len(those) > 1 else 's'} to {owner or 'nobody'}"
        for owner, those in by_owner.items()
    ]
    advice = "give the detector another name"
    if free := by_owner.get(""):
        objects = " ".join(f"{each.kind.lower()}/{each.name}" for each in free)
        labels = f"{MANAGED_BY_LABEL}={MANAGED_BY} {DETECTOR_LABEL}={detector}"
        advice += (
            ", or hand over to it what is its own, restored from a backup for example:"
            f" kubectl -n {namespace} label --overwrite {objects} {labels}"
        )
    return f"{'; '.join(message)}. To go on, {advice}"
