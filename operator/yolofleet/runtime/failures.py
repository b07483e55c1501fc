"""Writes that failed: when they are worth telling, and when to try again."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from yolofleet.runtime.errors import (
    ClusterError,
    Refused,
    ResourceConflict,
    Stale,
    Throttled,
    Unanswered,
)
from yolofleet.runtime.objects import Manifest
from yolofleet.runtime.queue import LONGEST_BACKOFF_S

BUSY_TIMES: Final = 3
"""A write that fails so often in a row is reported; the first retries come within milliseconds."""

SLOW_S: Final = 5.0
"""A write that fails after so long is reported at once, and tried last the next time."""

STALE_FOR_S: Final = 5.0
"""Others who are faster for so long are reported."""

UNANSWERED: Final = 2
"""After so many requests without an answer the rest of a pass is not tried. One may be the matter
of a single object, whose webhook hangs."""


@dataclass(frozen=True, slots=True)
class Failed:
    """An object that is not as wanted, and why.

    times: passes in a row in which it failed; seconds: since the first of them. slow: it took long.
    news: it is refused, and was not in these words before.
    """

    manifest: Manifest
    error: ClusterError
    times: int
    seconds: float
    slow: bool = False
    news: bool = False

    @property
    def kind(self) -> str:
        """Return the kind of the object."""
        return str(self.manifest["kind"])

    @property
    def name(self) -> str:
        """Return the name of the object."""
        return str(self.manifest["metadata"]["name"])

    @property
    def controller(self) -> str:
        """Return who has the object if it is not the owner's; empty when nobody does."""
        return self.error.controller if isinstance(self.error, ResourceConflict) else ""

    @property
    def lasts(self) -> bool:
        """Return whether it is worth telling: who was busy for a moment is not."""
        if isinstance(self.error, Stale):
            return self.seconds >= STALE_FOR_S
        return self.slow or isinstance(self.error, Refused) or self.times >= BUSY_TIMES


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of one object: its failures in a row, when, and in what words it is refused."""

    times: int
    since: float
    last: float
    refusal: str


class Failures:
    """Remembers how often in a row each object could not be written, and why it is refused."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[tuple[str, str, str], _Known] = OrderedDict()

    def failed(self, manifest: Manifest, error: ClusterError, took: float = 0.0) -> Failed:
        """Count a failure, which came after so many seconds."""
        now = self._clock()
        self._forget_the_unwanted(now)
        known = self._known.pop(_address(manifest), _Known(0, now, now, ""))
        times, said = known.times + 1, str(error) if isinstance(error, Refused) else known.refusal
        self._known[_address(manifest)] = _Known(times, known.since, now, said)
        slow, news = took >= SLOW_S, said != known.refusal
        return Failed(manifest, error, times, now - known.since, slow=slow, news=news)

    def _forget_the_unwanted(self, now: float) -> None:
        """Forget what was not tried for a while. What failed last comes last."""
        while self._known:
            address, known = next(iter(self._known.items()))
            if now - known.last <= 2 * LONGEST_BACKOFF_S:
                return
            del self._known[address]

    def forget(self, manifest: Manifest) -> bool:
        """End the count: it went well. Return whether it had been refused."""
        known = self._known.pop(_address(manifest), None) if self._known else None
        return known is not None and known.refusal != ""


def is_away(failed: Sequence[Failed]) -> bool:
    """Say whether the API server does not answer, or asks for a pause, whatever it is asked."""
    silent = [each for each in failed if isinstance(each.error, Unanswered | Throttled)]
    return len(silent) >= UNANSWERED


def cause_of(failed: Iterable[Failed]) -> ClusterError | None:
    """Return what says when to try again: who asks for a pause, then what trying again may cure.

    Where all were refused, one of these: a person must act.
    """
    errors = [each.error for each in failed]
    pause = (error for error in errors if isinstance(error, Throttled))
    curable = (error for error in errors if not isinstance(error, Refused))
    return next(chain(pause, curable, errors), None)


def _address(manifest: Manifest) -> tuple[str, str, str]:
    metadata = manifest["metadata"]
    return manifest["kind"], metadata.get("namespace", ""), metadata["name"]
