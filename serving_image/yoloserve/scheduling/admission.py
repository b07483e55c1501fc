"""May this request start? A cap on what waits, and rules by which callers share it."""

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from yoloserve.errors import Miss, Overloaded, OverQuota, TooLate

MOST_WAITING = 512  # each holds its tensor, 1.2 MB at 640 pixels
RECENT_S = 10.0  # who was not let in for longer is forgotten
REGULAR = 2  # times that somebody was let in lately
MOST_KEPT = 2  # places kept for a client or camera: one in work and one on its way
LONGEST_WAIT_S = 86_400  # that a client is told; a quota may be of next to nothing
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


class _Sharers:
    """Who shares a number of places, and how many are kept for the others of them.

    Counted as they come and go: to ask costs the same however many they are.
    """

    def __init__(self) -> None:
        self.has: Counter[str] = Counter()
        self._times: dict[str, int] = {}  # that each came lately
        # How many have so many places, less than `MOST_KEPT`: of who came once, and regularly.
        self._passing, self._regular = [0] * MOST_KEPT, [0] * MOST_KEPT

    def __len__(self) -> int:
        return len(self._times)

    def kept_from(self, name: str, limit: int) -> int:
        """Count the places that let each of the others come to as many, or to `MOST_KEPT`.

        At most half of all, `limit`, for who came only once.
        """
        level = min(self.has[name], MOST_KEPT)
        passing, regular = (
            sum((level - has) * many for has, many in enumerate(short[:level]))
            for short in (self._passing, self._regular)
        )
        return regular + min(passing, limit // 2)

    def came(self, name: str) -> None:
        self._count(name, -1)
        self._times[name] = self._times.get(name, 0) + 1
        self._count(name, 1)

    def forget(self, name: str) -> None:
        self._count(name, -1)
        self._times.pop(name, None)

    def move(self, name: str, places: int) -> None:
        """Give places to one, or take them."""
        self._count(name, -1)
        self.has[name] += places
        self._count(name, 1)
        if not self.has[name]:
            del self.has[name]

    def _count(self, name: str, change: int) -> None:
        times, has = self._times.get(name, 0), self.has[name]
        if times and has < MOST_KEPT:
            (self._passing if times < REGULAR else self._regular)[has] += change


class Admission:
    """Counts who is inside, from before decoding to the answer, and keeps the rest out.

    Whoever has no place finds one while there is one. A client that has some already gets another
    only while enough remain free for each client that was let in lately to have as many (up to
    two), and so does a camera among the cameras of its client. So one that sends a hundred times
    its share fills what is spare, and never the places of the others; and who invents names of
    cameras takes places from nobody but themselves. Half of all is kept at most for those that came
    only once: else thirty passers-by keep an idle server from giving anybody a second place.
    """

    def __init__(self, limit: Callable[[], int], clock: Callable[[], float]) -> None:
        self._limit = limit  # asked anew each time: a server learns its own speed
        self._clock = clock
        self._clients = _Sharers()
        self._cameras: dict[str, _Sharers] = {}  # of each client
        self._let_in: OrderedDict[Flow, float] = OrderedDict()  # lately, and when
        self.inside = 0
        self._inside_s, self._counted_at = 0.0, clock()

    @property
    def inside_s(self) -> float:
        """Sum the seconds that each spent inside until now: by its growth, how many are on average.

        Whoever looks now and then sees a number that a moment's crowd does not make.
        """
        return self._inside_s + self.inside * (self._clock() - self._counted_at)

    def check(self, flow: Flow = ANYBODY) -> None:
        """Raise `Overloaded` when full; cheap enough to ask before a body is read."""
        limit = self._limit()
        free = limit - self.inside
        if free <= 0:
            raise Overloaded(f"{self.inside} requests are in progress, {limit} are allowed")
        client, camera = flow
        if not (has := self._clients.has[client]):
            return
        self._forget()
        if free <= (kept := self._clients.kept_from(client, limit)):
            raise Overloaded(_message(client or "this client", has, kept, "clients"))
        cameras = self._cameras[client]
        if free <= (kept := cameras.kept_from(camera, limit)):
            has = cameras.has[camera]
            raise Overloaded(_message(camera or "this caller", has, kept, "cameras"))

    @contextmanager
    def admit(self, deadline: float, flow: Flow = ANYBODY) -> Iterator[None]:
        """Hold a place while a request runs; raise `Overloaded` or `TooLate` instead."""
        self.check(flow)
        now = self._clock()
        if now >= deadline:
            raise TooLate("the deadline had passed before the work began", Miss.ARRIVED)
        self._count(1)
        self._remember(flow, now)
        self._move(flow, 1)
        try:
            yield
        finally:
            self._count(-1)
            self._move(flow, -1)

    def _count(self, change: int) -> None:
        self._inside_s, self._counted_at = self.inside_s, self._clock()
        self.inside += change

    def _move(self, flow: Flow, places: int) -> None:
        self._clients.move(flow.client, places)
        self._cameras[flow.client].move(flow.camera, places)
        self._drop_if_unknown(flow.client)

    def _remember(self, flow: Flow, now: float) -> None:
        self._let_in[flow] = now
        self._let_in.move_to_end(flow)
        self._clients.came(flow.client)
        self._cameras.setdefault(flow.client, _Sharers()).came(flow.camera)
        self._forget()

    def _forget(self) -> None:
        since = self._clock() - RECENT_S
        while self._let_in:
            oldest = next(iter(self._let_in))
            if self._let_in[oldest] >= since and len(self._let_in) <= MOST_REMEMBERED:
                break
            del self._let_in[oldest]
            self._cameras[oldest.client].forget(oldest.camera)
            self._drop_if_unknown(oldest.client)

    def _drop_if_unknown(self, client: str) -> None:
        """Let go of a client of which nothing is remembered, and that has no place."""
        if not self._cameras[client]:
            self._clients.forget(client)
            if not self._clients.has[client]:
                del self._cameras[client]


def _message(who: str, has: int, kept: int, others: str) -> str:
    return f"{who} has {has} requests in progress, and the {kept} places left are kept for {others}"


def _less(places: Counter[str], of: str) -> None:
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

    def take(self, client: str, per_second: float, images: int = 1, *, paid: int = 0) -> None:
        """Spend `images` tokens; raise `OverQuota`, with the time to wait, if there are none.

        A bucket may go into debt: a batch larger than the bucket is served once it is full. paid:
        images of the same request that were spent before, which a refusal gives back.
        """
        now = self._clock()
        size = max(1.0, per_second)
        tokens, then = self._buckets.pop(client, (size, now))
        tokens = min(size, tokens + (now - then) * per_second)
        needed = min(float(paid + images), size)
        enough = tokens >= needed - paid
        # Two whose bodies come at a time would else each lack for ever what the other one paid.
        tokens = tokens - images if enough else tokens + paid
        self._buckets[client] = tokens, now
        if len(self._buckets) > MOST_REMEMBERED:
            self._buckets.popitem(last=False)
        if not enough:
            raise OverQuota(
                f"{client} may send {per_second:g} images a second",
                retry_after_s=max(
                    1, math.ceil(min((needed - tokens) / per_second, LONGEST_WAIT_S))
                ),
            )
