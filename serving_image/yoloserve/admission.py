"""May this request start? A cap on what waits, and rules by which callers share it."""

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from yoloserve.errors import Miss, Overloaded, OverQuota, TooLate

MOST_WAITING = 512  # each holds its tensor, 1.2 MB at 640 pixels
RECENT_S = 10.0  # who was not let in for longer has no place kept
MOST_KEPT = 2  # places kept for a client or camera: one in work and one on its way
MOST_REMEMBERED = 4096  # flows and clients, whatever names a caller invents


class Flow(NamedTuple):
    """Whose request it is: a client's, and one of its cameras'; anybody can invent the latter."""

    client: str = ""
    camera: str = ""


ANYBODY = Flow()


def waiting_limit(capacity_per_s: float, deadline_s: float) -> int:
    """Say how many may wait: what the server can answer in half of the time they have.

    Half, because a longer queue gains at most 5 % of goodput, while those who are dropped from
    its end hear of it only when most of their time is gone.
    """
    return max(1, int(min(capacity_per_s * deadline_s / 2, MOST_WAITING)))


def slowest(engine_per_s: float, *stages: tuple[int, float]) -> float:
    """Say what a second gives when the engine's own is this, and the other stages' these.

    stages: of each how many there are at a time, and the seconds of one; 0 while unknown.
    """
    return min(engine_per_s, *(many / seconds for many, seconds in stages if seconds > 0), math.inf)


class Admission:
    """Counts who is inside, from before decoding to the answer, and keeps the rest out.

    Whoever has no place finds one while there is one. A client that has some already gets another
    only while enough remain free for each client that was let in lately to have as many (up to
    two), and so does a camera among the cameras of its client. So one that sends a hundred times
    its share fills what is spare, and never the places of the others; and who invents names of
    cameras takes places from nobody but themselves.
    """

    def __init__(self, limit: Callable[[], int], clock: Callable[[], float]) -> None:
        self._limit = limit  # asked anew each time: a server learns its own speed
        self._clock = clock
        self._places: Counter[Flow] = Counter()
        self._of_clients: Counter[str] = Counter()
        self._let_in: OrderedDict[Flow, float] = OrderedDict()  # lately, and when
        self.inside = 0

    def check(self, flow: Flow = ANYBODY) -> None:
        """Raise `Overloaded` when full; cheap enough to ask before a body is read."""
        limit = self._limit()
        free = limit - self.inside
        if free <= 0:
            raise Overloaded(f"{self.inside} requests are in progress, {limit} are allowed")
        if not (has := self._of_clients[flow.client]):
            return
        self._forget()
        clients = {lately.client for lately in self._let_in}
        if free <= (kept := _kept(has, (self._of_clients[other] for other in clients))):
            raise Overloaded(_told(flow.client or "this client", has, kept, "clients"))
        has = self._places[flow]
        cameras = (lately for lately in self._let_in if lately.client == flow.client)
        if free <= (kept := _kept(has, (self._places[other] for other in cameras))):
            raise Overloaded(_told(flow.camera or "this caller", has, kept, "cameras"))

    @contextmanager
    def admit(self, deadline: float, flow: Flow = ANYBODY) -> Iterator[None]:
        """Hold a place while a request runs; raise `Overloaded` or `TooLate` instead."""
        self.check(flow)
        now = self._clock()
        if now >= deadline:
            raise TooLate("the deadline had passed before the work began", Miss.ARRIVED)
        self.inside += 1
        self._places[flow] += 1
        self._of_clients[flow.client] += 1
        self._let_in[flow] = now
        self._let_in.move_to_end(flow)
        self._forget()
        try:
            yield
        finally:
            self.inside -= 1
            _less(self._places, flow)
            _less(self._of_clients, flow.client)

    def _forget(self) -> None:
        since = self._clock() - RECENT_S
        while self._let_in:
            oldest = next(iter(self._let_in))
            if self._let_in[oldest] >= since and len(self._let_in) <= MOST_REMEMBERED:
                break
            del self._let_in[oldest]


def _kept(has: int, others: Iterable[int]) -> int:
    """Count the places that let each of the others come to as many, or to `MOST_KEPT`."""
    level = min(has, MOST_KEPT)
    return sum(max(0, level - places) for places in others)


def _told(who: str, has: int, kept: int, others: str) -> str:
    return f"{who} has {has} requests in progress, and the {kept} places left are kept for {others}"


def _less(places: Counter[Any], of: Hashable) -> None:
    places[of] -= 1
    if not places[of]:
        del places[of]


KEPT_PART = 8  # of places that are held for long, the last of so many


def has_its_share(held: int, taken: int, most: int) -> bool:
    """Say whether a client that holds so many of all places has to leave the last ones to others.

    It does with half of them, and not before nearly all are taken: what comes through one gateway
    looks like one client.
    """
    return 2 * held >= most and taken >= most - most // KEPT_PART


class Places:
    """So many places that are held for long, the last of them by who has less than half."""

    def __init__(self, most: int, what: str) -> None:
        self._most = most
        self._what = what
        self._held: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """Count all that are held."""
        return self._held.total()

    @contextmanager
    def hold(self, client: str) -> Iterator[None]:
        """Hold a place, or raise `Overloaded`."""
        has, taken = self._held[client], self.taken
        if taken >= self._most:
            raise Overloaded(f"{taken} {self._what} are open, {self._most} are allowed")
        if has_its_share(has, taken, self._most):
            raise Overloaded(
                f"{client or 'this client'} has {has} {self._what} open, and the "
                f"{self._most - taken} places left are kept for others"
            )
        self._held[client] += 1
        try:
            yield
        finally:
            _less(self._held, client)


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
