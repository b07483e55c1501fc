"""Rounds in which those that are compared take turns, and what comes of all of them."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import TypeVar

Compared = TypeVar("Compared")


def in_turn(compared: Sequence[Compared], number: int) -> Sequence[Compared]:
    """Return them in the order of this round: every other one begins at the back."""
    return compared if number % 2 == 0 else compared[::-1]


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each number of all rounds."""
    return {name: median(found[name] for found in rounds) for name in rounds[0]}
