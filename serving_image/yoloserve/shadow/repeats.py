"""Which pictures were shown of late, byte for byte: one that comes again shows nothing new.

A camera that hangs sends one picture for hours, and so may anybody on purpose. Each would count as
many times as it comes, and the one object that it is about decide for all others.
"""

from collections.abc import Callable

LASTS_S = 600.0  # after it last came
MOST = 16_384  # for minutes of fifty a second; two megabytes


class Repeats:
    """Hashes of the pictures that were shown, the one that came last at the end."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._came: dict[int, float] = {}

    def has(self, picture: bytes) -> bool:
        """Say whether it was shown; while it goes on coming it is not forgotten."""
        before = self._came.get(hash(picture))
        if before is None or self._clock() - before > LASTS_S:
            return False
        self.add(picture)
        return True

    def add(self, picture: bytes) -> None:
        """Remember that it is shown."""
        self.remove(picture)
        self._came[hash(picture)] = self._clock()
        if len(self._came) > MOST:
            del self._came[next(iter(self._came))]

    def remove(self, picture: bytes) -> None:
        """Forget it: nobody looked at it."""
        self._came.pop(hash(picture), None)

    def clear(self) -> None:
        """Forget all: whom they were shown is not asked any more."""
        self._came.clear()
