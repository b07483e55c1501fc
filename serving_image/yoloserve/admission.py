"""May this request start? A cap on what waits, so that what is let in can be answered in time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from yoloserve.errors import Overloaded, TooLate

MOST_WAITING = 512  # each holds its tensor, 1.2 MB at 640 pixels


def waiting_limit(capacity_per_s: float, deadline_s: float) -> int:
    """Say how many may wait: what the server can answer in half of the time they have.

    Half, because a longer queue gains at most 5 % of goodput, while those who are dropped from
    its end hear of it only when most of their time is gone.
    """
    return max(1, int(min(capacity_per_s * deadline_s / 2, MOST_WAITING)))


class Admission:
    """Counts who is inside, from before decoding to the answer, and keeps the rest out."""

    def __init__(self, limit: Callable[[], int], clock: Callable[[], float]) -> None:
        self._limit = limit  # asked anew each time: a server learns its own speed
        self._clock = clock
        self.inside = 0

    def check(self) -> None:
        """Raise `Overloaded` when full; cheap enough to ask before a body is read."""
        if self.inside >= (limit := self._limit()):
            raise Overloaded(f"{self.inside} requests are in progress, {limit} are allowed")

    @contextmanager
    def admit(self, deadline: float) -> Iterator[None]:
        """Hold a place while a request runs; raise `Overloaded` or `TooLate` instead."""
        self.check()
        if self._clock() >= deadline:
            raise TooLate("the deadline had passed before the work began")
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
