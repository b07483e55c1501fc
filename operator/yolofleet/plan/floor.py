"""How many replicas the load asks for at least, by what pods say of it; pure.

The autoscaler is the only one that writes replicas. What the operator moves is its minReplicas: up
as soon as the load asks for more, down to the most that was asked for within `WINDOW`, and not at
all on data that is old or of too few pods.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from math import ceil
from statistics import fmean, median_low
from typing import Final, TypeGuard

EVERY: Final = timedelta(seconds=15)
"""How often pods are asked."""

OLDEST: Final = timedelta(seconds=60)
"""What was counted longer ago says nothing of now."""

WINDOW: Final = timedelta(seconds=300)
"""Replicas go once they were not needed for so long."""

ROOM: Final = 0.9
"""On the way down so much of each replica's target is counted on: less would take a replica away
that the next peak asks for again."""

MOST: Final = 1e6
"""Of requests a second, and of requests inside, no pod has more; nor less than one in so many
seconds of capacity."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What is asked: the bounds, and how much a replica is to have; None: no matter.

    load: percent of what it can answer.
    """

    least: int
    most: int
    load: int | None = None
    in_flight: int | None = None

    @property
    def number(self) -> int:
        """How many there are to go by."""
        return sum(each is not None for each in (self.load, self.in_flight))

    def bounded(self, replicas: int) -> int:
        """Return `replicas`, in the bounds."""
        return min(max(replicas, self.least), self.most)


@dataclass(frozen=True, slots=True)
class PodLoad:
    """What a pod has counted since `started`: requests, and the seconds that they were inside.

    capacity: how many it can answer a second; None: it does not know yet. counts: whether that of
    its revision is what others will have.
    """

    started: float
    offered: int
    inside_seconds: float
    capacity: float | None = None
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Look:
    """What pods answered at a moment, by uid: those that are ready; None: no answer.

    others: pods that are not ready, and may be again.
    """

    at: datetime
    pods: Mapping[str, PodLoad | None]
    others: frozenset[str] = frozenset()

    @property
    def answers(self) -> dict[str, PodLoad]:
        """Those who answered."""
        return {uid: load for uid, load in self.pods.items() if load is not None}

    @property
    def is_enough(self) -> bool:
        """Whether at least half of those that are ready answered, and anybody."""
        return bool(self.pods) and 2 * len(self.answers) >= len(self.pods)


@dataclass(frozen=True, slots=True)
class Memory:
    """What is known from looks before. It is never stored: who begins without it holds at first.

    at: when enough answered last. known: when it was known last what every target asks for.
    asked: who may have had something to do by then, told or not: who was ready, and who was there
    before anybody looked; None: nobody did. seen: by pod, when it answered what last.
    peaks: what was asked for within the window, falling: what a later look surpassed is left out.
    capacity: by the last look at which a pod knew its own.
    """

    at: datetime
    known: datetime
    peaks: tuple[tuple[datetime, float], ...]
    asked: frozenset[str] | None = None
    seen: Mapping[str, tuple[datetime, PodLoad]] = field(default_factory=dict)
    capacity: float | None = None


@dataclass(frozen=True, slots=True)
class Floor:
    """The fewest replicas that the autoscaler may choose, and why.

    demand: what the load asks for, in replicas; None: not known yet. lost: why it is held, in
    words; empty: it is not, or only for a moment. beyond: whether the window asked for more than
    there may be.
    """

    replicas: int
    memory: Memory = field(compare=False, repr=False)
    demand: float | None = None
    reason: str = ""
    lost: str = ""
    beyond: bool = False


@dataclass(frozen=True, slots=True)
class Moved:
    """A floor as it was published last, and since when."""

    floor: Floor
    since: datetime


@dataclass(frozen=True, slots=True)
class _Load:
    """What all pods have to do, in replicas. words: of what that is."""

    demand: float
    words: str


def begun(replicas: int, now: datetime) -> Floor:
    """Return the floor of who takes over: it stays for a window, whoever moved it before."""
    return Floor(replicas, Memory(now, now, _as_if(replicas, now)))


def floor(look: Look, targets: Targets, before: Floor) -> Floor:
    """Return the floor after this look; hold it where the look tells too little."""
    bounded = replace(before, replicas=targets.bounded(before.replicas))
    if not look.is_enough:
        return replace(bounded, lost=_lost(look, before.memory))
    known = before.memory
    memory = _remembered(look, known)
    held = replace(bounded, memory=memory, lost="")
    if known.asked is None or look.at - known.at > OLDEST:  # what was between, nobody saw
        return replace(held, memory=replace(memory, peaks=_as_if(held.replicas, look.at)))
    loads = list(_loads(look, known, targets, memory.capacity))
    most = max(loads, key=lambda load: load.demand, default=_Load(0.0, ""))
    if len(loads) < targets.number:  # what is not known may ask for more, and never for less
        up = targets.bounded(max(held.replicas, ceil(most.demand)))
        return replace(held, replicas=up, lost=_unknown(look, memory))
    peaks = _peaks(known.peaks, most.demand, look.at)
    peak = peaks[0][1]
    replicas = targets.bounded(_moved(before.replicas, most.demand, peak))
    return Floor(
        replicas,
        replace(memory, known=look.at, peaks=peaks),
        most.demand,
        f"floor {replicas}: {most.words}",
        beyond=peak > targets.most,
    )


def _moved(replicas: int, demand: float, peak: float) -> int:
    """Return where it goes: up to what is asked for now, down to what the window asked for."""
    return max(ceil(demand), min(replicas, ceil(peak / ROOM)))


def _as_if(replicas: int, at: datetime) -> tuple[tuple[datetime, float], ...]:
    """Return the peaks of who was asked for just so many replicas."""
    return ((at, replicas * ROOM),)


def _peaks(
    peaks: Iterable[tuple[datetime, float]], demand: float, now: datetime
) -> tuple[tuple[datetime, float], ...]:
    past = ((min(at, now), each) for at, each in peaks)  # clocks are set back
    kept = ((at, each) for at, each in past if each > demand and now - at < WINDOW)
    return (*kept, (now, demand))


def _lost(look: Look, memory: Memory) -> str:
    if not look.pods or look.at - memory.at < OLDEST:  # none is ready, or it may be a moment's
        return ""
    return f"{len(look.answers)} of {len(look.pods)} ready pods tell their load"


def _unknown(look: Look, memory: Memory) -> str:
    if look.at - memory.known < OLDEST:  # it may be a moment's
        return ""
    sure = sum(_is_known(load.capacity) for load in look.answers.values() if load.counts)
    return f"{sure} of {len(look.pods)} ready pods tell how much they can answer"


def _remembered(look: Look, before: Memory) -> Memory:
    alive = look.pods.keys() | look.others
    asked = look.pods.keys() | (alive if before.asked is None else look.others & before.asked)
    seen = {uid: each for uid, each in before.seen.items() if uid in alive}
    seen |= {uid: (look.at, each) for uid, each in look.answers.items()}
    capacity = _usual(each.capacity for each in look.answers.values() if each.counts)
    return replace(
        before,
        at=look.at,
        asked=frozenset(asked),
        seen=seen,
        capacity=capacity or before.capacity,
    )


def _loads(look: Look, before: Memory, targets: Targets, capacity: float | None) -> Iterator[_Load]:
    """Say how many replicas each target asks for; nothing where that is not known yet."""
    rates = [
        rate for uid, load in look.answers.items() if (rate := _rate(uid, load, look.at, before))
    ]
    if not rates:
        return
    silent = len(look.pods) / len(rates)  # who does not tell has as much to do as the others
    offered = silent * sum(requests for requests, _ in rates)
    inside = silent * sum(busy for _, busy in rates)
    if targets.load is not None and (capacity or not offered):
        each = (capacity or 1.0) * targets.load / 100
        yield _Load(offered / each, f"{offered:.1f} requests a second, {each:.1f} each")
    if targets.in_flight is not None:
        words = f"{inside:.1f} in flight, {targets.in_flight} each"
        yield _Load(inside / targets.in_flight, words)


def _rate(uid: str, load: PodLoad, at: datetime, before: Memory) -> tuple[float, float] | None:
    """Return the requests a second since it answered last, and how many were inside on average.

    None: not known. Who came since had nothing to do before that.
    """
    then, last = before.seen.get(uid, (before.at, None))
    if last is None:
        if before.asked is None or uid in before.asked:
            return None
        last = PodLoad(load.started, 0, 0.0)
    seconds = (at - then).total_seconds()
    if seconds <= 0:
        return None
    if last.started != load.started:  # it counts from zero again
        last = PodLoad(load.started, 0, 0.0)
    requests, busy = load.offered - last.offered, load.inside_seconds - last.inside_seconds
    return _credible(requests / seconds), _credible(busy / seconds)


def _credible(rate: float) -> float:
    """Return what a pod may say of itself: it runs what a user gave it."""
    return min(max(rate, 0.0), MOST)


def _is_known(capacity: float | None) -> TypeGuard[float]:
    return capacity is not None and 1 / MOST < capacity <= MOST


def _usual(capacities: Iterable[float | None]) -> float | None:
    """Return the mean; who claims many times what the others do takes no replicas from all."""
    values = [value for value in capacities if _is_known(value)]
    if not values:
        return None
    most = 2 * median_low(values)
    return fmean(min(value, most) for value in values)
