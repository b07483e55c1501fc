"""How long a server that answers is asked again where it refuses, before the process ends for it.

One that has just begun knows nobody's rights, whenever that is: it may have been away for long.
What a new process would read anew ends this one: who we are, and by whom the server is proved.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Patience:
    """Counts from the first refusal; seconds: until it ends. clock: monotonic, in seconds."""

    def __init__(self, seconds: float, clock: Callable[[], float] | None = None) -> None:
        self._seconds = seconds
        self._clock = clock or time.monotonic
        self._refused_at: float | None = None

    def renew(self) -> None:
        """Say that the server did not refuse: it answered, was not there, or had no time."""
        self._refused_at = None

    def ends(self) -> bool:
        """Say that it refused; return whether it has done so for too long."""
        now = self._clock()
        self._refused_at = now if self._refused_at is None else self._refused_at
        return now - self._refused_at >= self._seconds
