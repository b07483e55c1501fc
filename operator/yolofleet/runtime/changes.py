"""What came of writing: what was changed, what could not be, and what others had changed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from math import inf

from yolofleet.runtime.drift import Drift
from yolofleet.runtime.failures import Failed


class Action(StrEnum):
    """What was done to an object."""

    CREATED = "created"
    APPLIED = "applied"
    REVERTED = "reverted"  # what others had added was removed
    HANDED_OVER = "handed over"  # its replicas, to an autoscaler
    DELETED = "deleted"
    STATUS = "status published"


@dataclass(frozen=True, slots=True)
class Change:
    """One write, and the fields that made it necessary."""

    action: Action
    kind: str
    namespace: str
    name: str
    fields: tuple[str, ...] = ()


@dataclass(slots=True)
class Applied:
    """What was written, what could not be, and what others had changed.

    again: when to look at a fight once more. given_up: the API server is away, asks for a pause or
    took too long, so what came later was not tried. until: nothing is begun later than this.
    """

    changes: list[Change] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    drifts: list[Drift] = field(default_factory=list)
    again: timedelta | None = None
    given_up: bool = False
    until: float = inf
    waiting: list[tuple[str, str]] = field(default_factory=list)
    """By kind and name what was not tried, because something it waits for could not be made."""

    def then(self, later: Applied) -> Applied:
        """Return both as one: what was written, and what was deleted after it."""
        changes, failed = [*self.changes, *later.changes], [*self.failed, *later.failed]
        return replace(self, changes=changes, failed=failed, given_up=later.given_up)
