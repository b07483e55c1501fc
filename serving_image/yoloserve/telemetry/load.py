"""How much callers ask of a server, beside what it can do."""

import time
from collections import deque
from collections.abc import Callable
from typing import Final

SPAN_S: Final = 15  # a burst shorter than this is no reason for another replica

REFUSED: Final = ("overloaded", "deadline_exceeded", "hurried")
OFFERED: Final = ("ok", "internal", "canceled", *REFUSED)
"""What counts as load, by outcome: another replica would answer it, or had to try. Not what no
server would answer: a bad picture, a missing key, a quota that is used up."""


class Recent:
    """How many a second came of late. Counted by the second: few numbers, whatever comes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._of_second: deque[list[int]] = deque(maxlen=SPAN_S + 1)  # which second, and how many

    def count(self, many: int) -> None:
        """Count what came now."""
        second = int(self._clock())
        if not self._of_second or self._of_second[-1][0] != second:
            self._of_second.append([second, 0])
        self._of_second[-1][1] += many

    def per_second(self) -> float:
        """Return the average of the last whole seconds."""
        now = int(self._clock())
        counted = (many for second, many in list(self._of_second) if 0 < now - second <= SPAN_S)
        return sum(counted) / SPAN_S
