"""What comparing has come to: counts since the process began, bounded whatever is answered."""

import enum
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from yoloserve.shadow.pairs import SIZES, Difference, Found
from yoloserve.telemetry.latency import Latency
from yoloserve.telemetry.names import Table, called

MOST_CANARIES = 2
MOST_CONFUSED = 200  # pairs of classes; then no new ones
ARMS = "stable", "canary"


class Outcome(enum.StrEnum):
    """What became of a picture that was to be shown to the canary."""

    COMPARED = "compared"
    FAILED = "failed"  # stable answered it, the canary did not: an error, or no answer of ours
    LATE = "late"  # not before the deadline
    SKIPPED_BUSY = "skipped_busy"  # somebody waits, here or there: never evidence, as the next ones
    SKIPPED_SIZE = "skipped_size"
    SKIPPED_RATE = "skipped_rate"
    SKIPPED_REPEATED = "skipped_repeated"  # byte for byte: it would be the same evidence once more
    SKIPPED_OPTIONS = "skipped_options"  # by thresholds that neither model was tuned for
    UNREACHABLE = "unreachable"  # nobody there, or nobody that takes our word


class Rows:
    """Counts by class. A row, once there, stays: counters must never go back."""

    def __init__(self, table: Table, columns: int = 1) -> None:
        self._columns = columns
        self._table = table
        self.rows: dict[str, list[int]] = {}

    def add(self, name: str, column: int, many: int) -> None:
        """Count so many of a class."""
        self.rows.setdefault(self._table.row(name), [0] * self._columns)[column] += many

    def add_all(self, counts: Mapping[str, int]) -> None:
        """Count each class, where there is but one column."""
        for name, many in counts.items():
            self.add(name, 0, many)


class Tally:
    """What is known of one canary."""

    def __init__(self) -> None:
        self.frames: Counter[Outcome] = Counter()
        # What is held against each other has the same rows: a class that is expected in one of its
        # own and kept among the others would be lost altogether.
        both = Table()
        self.expected, self.kept = Rows(both, len(SIZES)), Rows(both, len(SIZES))
        self.confused: dict[tuple[str, str], int] = {}
        self.sure, self.only_stable, self.only_canary = (Rows(Table()) for _ in range(3))
        self.seen = self.blind = 0
        self.compute = {arm: Latency() for arm in ARMS}

    def compared(self, stable: Found, canary: Found, difference: Difference) -> None:
        """Count one picture that both answered."""
        self.frames[Outcome.COMPARED] += 1
        for rows, counts in (
            (self.expected, difference.expected),
            (self.kept, difference.kept),
        ):
            for (name, size), many in counts.items():
                rows.add(name, SIZES.index(size), many)
        for one, other in difference.confused:
            self._confuse((called(one), called(other)), difference.confused[one, other])
        self.sure.add_all(difference.sure)
        self.only_stable.add_all(difference.only_stable)
        self.only_canary.add_all(difference.only_canary)
        self.seen += difference.blind is not None
        self.blind += bool(difference.blind)
        self.compute["stable"].count(stable.compute_s)
        self.compute["canary"].count(canary.compute_s)

    def _confuse(self, pair: tuple[str, str], many: int) -> None:
        if pair in self.confused or len(self.confused) < MOST_CONFUSED:
            self.confused[pair] = self.confused.get(pair, 0) + many

    def as_dict(self) -> dict[str, Any]:
        """Tell all of it, as `/evidence` does."""
        confused: dict[str, dict[str, int]] = {}
        for (one, other), many in self.confused.items():
            confused.setdefault(one, {})[other] = many
        return {
            "frames": {outcome.value: self.frames[outcome] for outcome in Outcome},
            "expected": {name: list(row) for name, row in self.expected.rows.items()},
            "kept": {name: list(row) for name, row in self.kept.rows.items()},
            "confused": confused,
            "sure": _single(self.sure),
            "only_stable": _single(self.only_stable),
            "only_canary": _single(self.only_canary),
            "seen": self.seen,
            "blind": self.blind,
            "compute": {arm: times.buckets() for arm, times in self.compute.items()},
        }


class Tallies:
    """What is known of each canary: of the two that were last asked."""

    def __init__(self) -> None:
        self._of: dict[str, Tally] = {}

    def of(self, revision: str) -> Tally:
        """Give the one of a canary; who was not asked for longest is forgotten for a new one."""
        tally = self._of.get(revision) or Tally()
        others = [each for each in self._of.items() if each[0] != revision]
        # At once: another thread, which reads it, is never to find one of them gone.
        self._of = dict([*others[1 - MOST_CANARIES :], (revision, tally)])
        return tally

    def items(self) -> Iterable[tuple[str, Tally]]:
        """Give each with its canary's name."""
        return list(self._of.items())

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Tell all of it, as `/evidence` does."""
        return {revision: tally.as_dict() for revision, tally in self.items()}


def _single(rows: Rows) -> dict[str, int]:
    return {name: row[0] for name, row in rows.rows.items()}
