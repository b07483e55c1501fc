"""May this request start? A cap on what waits, and rules by which callers share it."""

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from yoloserve.errors import Miss, Overloaded, OverQuota, TooLate

MOST_WAITING = 512  # each holds its tensor, 1.2 MB at 640 pixels
RECENT_S = 10.0  # a camera that was silent for longer has no place kept for it
MOST_KEPT = 2  # places kept for a camera: one in work and one on its way
MOST_REMEMBERED = 4096  # flows and clients, whatever names a caller invents


def waiting_limit(capacity_per_s: float, deadline_s: float) -> int:
    """Say how many may wait: what the server can answer in half of the time they have.

    Half, because a longer queue gains at most 5 % of goodput, while those who are dropped from
    its end hear of it only when most of their time is gone.
    """
    return max(1, int(min(capacity_per_s * deadline_s / 2, MOST_WAITING)))


class Admission:
    """Counts who is inside, from before decoding to the answer, and keeps the rest out.

    Requests belong to flows: one for each camera that names itself, and one for all others. Any
    flow finds a place while there is one. A flow that has some already gets another only while
    enough remain free for each flow that came lately to have as many (up to two). So a camera
    that sends a hundred times its share fills what is spare, and never the places of the others.
    """

    def __init__(self, limit: Callable[[], int], clock: Callable[[], float]) -> None:
        self._limit = limit  # asked anew each time: a server learns its own speed
        self._clock = clock
        self._places: Counter[str] = Counter()
        self._seen: OrderedDict[str, float] = OrderedDict()
        self.inside = 0

    def check(self, flow: str = "") -> None:
        """Raise `Overloaded` when full; cheap enough to ask before a body is read."""
        self._remember(flow)
        limit = self._limit()
        free = limit - self.inside
        if free <= 0:
            raise Overloaded(f"{self.inside} requests are in progress, {limit} are allowed")
        if (has := self._places[flow]) and free <= (kept := self._kept_for_others(has)):
            raise Overloaded(
                f"{flow or 'this caller'} has {has} requests in progress, and the {kept} places "
                "left are kept for other cameras"
            )

    @contextmanager
    def admit(self, deadline: float, flow: str = "") -> Iterator[None]:
        """Hold a place while a request runs; raise `Overloaded` or `TooLate` instead."""
        self.check(flow)
        if self._clock() >= deadline:
            raise TooLate("the deadline had passed before the work began", Miss.ARRIVED)
        self.inside += 1
        self._places[flow] += 1
        try:
            yield
        finally:
            self.inside -= 1
            self._places[flow] -= 1
            if not self._places[flow]:
                del self._places[flow]

    def _remember(self, flow: str) -> None:
        now = self._clock()
        self._seen[flow] = now
        self._seen.move_to_end(flow)
        oldest = next(iter(self._seen))
        while self._seen[oldest] < now - RECENT_S or len(self._seen) > MOST_REMEMBERED:
            del self._seen[oldest]
            oldest = next(iter(self._seen))

    def _kept_for_others(self, has: int) -> int:
        """Count the places that let each other flow come to as many, or to `MOST_KEPT`."""
        level = min(has, MOST_KEPT)
        return sum(max(0, level - self._places[flow]) for flow in self._seen)


class Quotas:
    """A bucket of tokens for each client: so many a second, and a second's worth at once."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, when

    def take(self, client: str, per_second: float, images: int = 1) -> None:
        """Spend `images` tokens; raise `OverQuota`, with the time to wait, if there are none.

        A bucket may go into debt: a batch larger than the bucket is served once it is full.
        """
        now = self._clock()
        size = max(1.0, per_second)
        tokens, then = self._buckets.pop(client, (size, now))
        tokens = min(size, tokens + (now - then) * per_second)
        needed = min(float(images), size)
        if enough := tokens >= needed:
            tokens -= images
        self._buckets[client] = tokens, now
        if len(self._buckets) > MOST_REMEMBERED:
            self._buckets.popitem(last=False)
        if not enough:
            raise OverQuota(
                f"{client} may send {per_second:g} images a second",
                retry_after_s=max(1, math.ceil((needed - tokens) / per_second)),
            )
