"""What could not be written as it is wanted, and how that is told."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from yolofleet.api.status import ConditionType, Reason, Status
from yolofleet.plan.status import Statement, refused, with_statement


@dataclass(frozen=True, slots=True)
class Unwritten:
    """One object that is not as wanted, because a write of it was refused or failed.

    told: the API server's words, with fields named as the user wrote them.
    """

    kind: str
    name: str
    reason: Reason
    told: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


_WORST_FIRST = (Reason.RESOURCE_CONFLICT, Reason.WRITE_REFUSED, Reason.WRITE_FAILED)

_OPEN = "until it is written, the pods are open to whoever reaches them"


def with_unwritten(
    status: Status, unwritten: Sequence[Unwritten], generation: int, before: Status, now: datetime
) -> Status:
    """Return `status` with what is not as wanted told in Progressing and, with since when, Written.

    Written is there only while something is not: its last transition is since when.
    """
    if not unwritten:
        return status
    reason = min((each.reason for each in unwritten), key=_WORST_FIRST.index)
    message = "; ".join(_sentences(unwritten))
    told = refused(status, reason, message, generation, now, before)
    statement = Statement(ConditionType.WRITTEN, False, reason, message)
    return with_statement(told, statement, before, now)


def _sentences(unwritten: Sequence[Unwritten]) -> Iterator[str]:
    """Say each error once, with all objects that have it."""
    by_error: dict[tuple[Reason, str], list[Unwritten]] = {}
    for each in sorted(unwritten, key=lambda each: _WORST_FIRST.index(each.reason)):
        by_error.setdefault((each.reason, each.told), []).append(each)
    for (reason, told), those in by_error.items():
        objects = ", ".join(map(str, those))
        if reason is Reason.RESOURCE_CONFLICT:
            yield f"{objects} already exist{'' if len(those) > 1 else 's'} {told}"
        else:
            yield f"{objects}: {told}"
    if any(each.kind == "NetworkPolicy" for each in unwritten):
        yield _OPEN
