"""How much is tried: the bounded form is part of every test run, the whole form takes its time.

YOLOFLEET_FAULTS=whole asks for the whole form, YOLOFLEET_FAULTS_SEED for another random schedule.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import pytest

Some = TypeVar("Some")

WHOLE: Final = os.environ.get("YOLOFLEET_FAULTS", "bounded") == "whole"
SEED: Final = int(os.environ.get("YOLOFLEET_FAULTS_SEED", "1"))


def sized(bounded: Some, whole: Some) -> Some:
    """Return the one that fits the form that was asked for."""
    return whole if WHOLE else bounded


def nightly(*values: Any) -> Any:
    """Return a set of a test's parameters that only `make test-all` tries."""
    return pytest.param(*values, marks=pytest.mark.nightly)


QUIET_S: Final = sized(3.0, 30.0)
"""How long nothing may be written after a detector has settled."""

AT_REST_S: Final = 2.5
"""Who has written nothing for so long has written all: Events follow their status, and a fight is
told to be over up to two seconds after its last write."""

CONVERGE_S: Final = 180.0
"""Within this a detector settles after a fault, on a machine that does many things at once."""

AT_ONCE: Final = sized(4, 6)
"""How many operators run beside each other."""


def sample(items: Sequence[Some], count: int) -> list[Some]:
    """Return at most `count` of `items`, spread evenly, with both ends; one: the middle."""
    if len(items) <= count:
        return list(items)
    if count == 1:
        return [items[len(items) // 2]]
    step = (len(items) - 1) / (count - 1)
    return [items[round(step * number)] for number in range(count)]
