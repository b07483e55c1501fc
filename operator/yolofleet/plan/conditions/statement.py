"""A statement about a detector, and how the first check that has one to make is found."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from yolofleet.api.status import Condition, ConditionType, Status
from yolofleet.plan.conditions.situation import Situation

_AS_STORED = {True: "True", False: "False", None: "Unknown"}
_AS_STATED = {stored: status for status, stored in _AS_STORED.items()}
MAX_MESSAGE = 4096


@dataclass(frozen=True, slots=True)
class Statement:
    """A condition before it knows since when.

    lasting: of one that does not hold, whether it will not put itself right; None: when it has not
    held for a while.
    """

    type: ConditionType
    status: bool | None  # None: not known yet
    reason: str
    message: str
    lasting: bool | None = None


Check = Callable[[Situation], Statement | None]
"""Says something of a detector, or has nothing to say of it."""


def first(checks: Iterable[Check], now: Situation) -> Statement | None:
    """Return what the first check says that says anything."""
    return next((statement for check in checks if (statement := check(now))), None)


def again(condition: Condition) -> Statement:
    """Return the statement that `condition` was made of."""
    kind, status = ConditionType(condition.type), _AS_STATED[condition.status]
    return Statement(kind, status, condition.reason, condition.message)


def dated(
    statements: Sequence[Statement], before: Status, generation: int, now: datetime
) -> list[Condition]:
    """Give each statement the time at which its status last changed. Clocks are set back."""
    conditions = []
    for statement in statements:
        was, status = before.condition(statement.type), _AS_STORED[statement.status]
        conditions.append(
            Condition.model_validate(
                {
                    "type": statement.type,
                    "status": status,
                    "reason": statement.reason,
                    "message": statement.message[:MAX_MESSAGE],
                    "lastTransitionTime": (
                        min(was.last_transition_time, now) if was and was.status == status else now
                    ),
                    "observedGeneration": generation,
                }
            )
        )
    return conditions
