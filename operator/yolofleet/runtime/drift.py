"""Drift: what others changed of an object, and what became of that."""

from dataclasses import dataclass
from enum import StrEnum

MOST_FIELDS = 8
"""More of one object are counted, not named: a message is for reading."""


class Handling(StrEnum):
    """What became of a change that others made."""

    REPAIRED = "repaired"
    LEFT = "left"  # the policy says so
    CONTESTED = "contested"  # it comes back after it was repaired
    DELETED = "deleted"  # it is made again, and deleted again
    NOT_KEPT = "not kept"  # the API server made something else of what we wrote


OVER_ONCE_REPORTED = frozenset({Handling.REPAIRED, Handling.NOT_KEPT})
"""What is over once it is reported."""


@dataclass(frozen=True, slots=True)
class Drift:
    """What others changed of one object; each of `fields` says where, how and who."""

    kind: str
    name: str
    fields: tuple[str, ...]
    handling: Handling

    def __str__(self) -> str:
        named = ", ".join(self.fields[:MOST_FIELDS])
        more = len(self.fields) - MOST_FIELDS
        return f"{self.kind} {self.name}: {named}" + (f" and {more} more" if more > 0 else "")
