"""Replicas of each revision: by the part that it plays, and by what has room on the nodes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, IntEnum

from yolofleet.api.detector import Detector
from yolofleet.api.rollout import Strategy
from yolofleet.plan.capacity import (
    due,
    incoming,
    outgoing,
    remaining,
    replicas_for,
    scaled_up,
    share_of,
)
from yolofleet.plan.draining import drained
from yolofleet.plan.nodes import NodeRoom, room, without
from yolofleet.plan.observed import Observed
from yolofleet.plan.roles import Release
from yolofleet.plan.rollout import Progress
from yolofleet.plan.scaling import canary_replicas
from yolofleet.workloads.revision import Revision


class Part(Enum):
    """What a revision that is wanted is there for."""

    AUTOSCALED = "the stable one, of which an autoscaler owns the number"
    STABLE = "the stable one, with no successor"
    OUTGOING = "the stable one while its successor comes"
    INCOMING = "the successor"
    CANARY = "on trial"


@dataclass(frozen=True, slots=True)
class Case:
    """One revision that is wanted, in the middle of everything."""

    detector: Detector
    observed: Observed
    release: Release
    name: str

    @property
    def part(self) -> Part:
        """Return the part that it plays."""
        progress = self.release.progress
        if self.name != self.release.stable:
            return Part.INCOMING if progress and self.name == progress.revision else Part.CANARY
        if self.detector.spec.autoscaled:
            return Part.AUTOSCALED
        return Part.OUTGOING if progress else Part.STABLE

    @property
    def running(self) -> int:
        """Replicas that it has been asked for."""
        return self.observed.replicas(self.name)

    @property
    def former(self) -> int:
        """Replicas of revisions that nobody wants any more, and that will make room."""
        return sum(map(self.observed.replicas, self._making_room))

    @property
    def _making_room(self) -> list[str]:
        gone = (each.name for each in self.release.former)
        return [name for name in gone if name not in self.observed.lingering]

    @property
    def formerly_used(self) -> int:
        """Replicas of these that the route needs as it is, where a gateway does not accept it.

        More are kept for that one, which may be for ever. If those that do accept it had to wait
        for the room, their requests would never go back; a few pods above the surge are less evil.
        """
        if not (self.observed.pending and self.observed.followed.in_part):
            return self.former
        return sum(
            remaining(
                self.release.serving,
                running=self.observed.replicas(name),
                weight=self.observed.weights.get(name, 0),
            )
            for name in self._making_room
        )

    @property
    def instead(self) -> int:
        """Ready replicas that answer in the place of a stable revision that died."""
        return sum(map(self.observed.ready, self.release.instead))


def desired_replicas(case: Case) -> int | None:
    """Return the replicas that a revision should have; None: an autoscaler owns them."""
    return _DESIRED[case.part](case)


def autoscaled(case: Case) -> int | None:
    """Leave the number alone: but an autoscaler does not start from nothing, and sleeps at zero."""
    return None if case.running else case.release.capacity.full


def stable(case: Case) -> int:
    """Grow into the room that others leave; where they leave none, one pod has to answer."""
    if not case.release.capacity.full:
        return at_zero(case)
    return max(1, scaled_up(case.release.capacity, running=case.running, others=case.formerly_used))


def at_zero(case: Case) -> int:
    """Go; but what answers goes on until the canary does that is to answer alone."""
    observed, canary = case.observed, case.release.canary
    if not canary or not observed.ready(case.name):
        return 0
    alone = 0 if observed.ready(canary.name) else 100
    weight = observed.weights.get(case.name, 0) if observed.splits else alone
    return remaining(case.release.serving, running=case.running, weight=weight)


def going_out(case: Case) -> int:
    """Give up what the successor has taken over, and nothing before.

    Once it is dead, what others answer in its place too: the successor needs the room. While that
    is to have a part only or comes no further, which may be for days, it follows the size that is
    asked for. Otherwise it does not: what is made then is made of the successor.
    """
    observed, capacity, progress = case.observed, case.release.capacity, case.release.progress
    if progress is None:
        return stable(case)
    if (instead := case.instead) and not progress.held:
        answered = instead + observed.ready(progress.revision)
        return min(case.running, max(capacity.kept - answered, 0))
    running = _asked(observed, case.name)
    if short := _short(observed, case.release):
        others = case.formerly_used + observed.replicas(progress.revision)
        return min(scaled_up(capacity, running=running, others=others), running + short)
    left = outgoing(
        capacity,
        progress.goal,
        running=running,
        ready_new=observed.ready(progress.revision),
        weight_new=_taken_over(case, progress),
    )
    stays = progress.held or _cannot_start(observed, progress.revision)
    if progress.goal == 100 and not stays:
        return left
    coming = 0 if stays else due(capacity, progress.goal)
    reserved = max(_as_it_was(observed, progress.revision), coming)
    return scaled_up(capacity, running=left, others=case.former + reserved)


def coming_in(case: Case) -> int:
    """Take what its goal needs and others leave room for; but no more of what cannot start."""
    observed, capacity, progress = case.observed, case.release.capacity, case.release.progress
    if progress is None or progress.held:
        return _as_it_was(observed, case.name)
    short = _short(observed, case.release)
    whole = progress.strategy is Strategy.BLUE_GREEN  # a whole set also in the dark
    needed = replicas_for(observed.weights.get(case.name, 0), capacity.kept)
    old = case.release.stable
    ours = max(_asked(observed, old), capacity.full)  # others may have scaled it beyond that
    before = min(observed.replicas(old), ours)
    if not observed.ready(old) and case.detector.spec.autoscaled:
        before = 0  # it is dead, and its autoscaler would have back what it gave up
    given = incoming(
        capacity,
        100 if whole else progress.goal,
        running=case.running,
        kept=min(case.running, needed) if short else case.running,
        others=case.former + before + short,
        stuck=not observed.ready(old),
    )
    return min(given, case.running) if _cannot_start(observed, case.name) else given


def on_trial(case: Case) -> int:
    """Take what was asked for, or what its weight needs."""
    return canary_replicas(case.detector, case.observed, case.name, case.release.capacity.full)


_DESIRED: Mapping[Part, Callable[[Case], int | None]] = {
    Part.AUTOSCALED: autoscaled,
    Part.STABLE: stable,
    Part.OUTGOING: going_out,
    Part.INCOMING: coming_in,
    Part.CANARY: on_trial,
}


def _asked(observed: Observed, stable: str) -> int:
    """Return the replicas that status says the revision was to have; else those that it has."""
    known = observed.status.stable
    return known.desired if known and known.revision == stable else observed.replicas(stable)


def _as_it_was(observed: Observed, name: str) -> int:
    """Return the replicas that `name` has, or had, by status, where its workload was deleted."""
    if observed.deployed(name):
        return observed.replicas(name)
    beside = observed.status.canary
    return beside.desired if beside and beside.revision == name else 0


def _cannot_start(observed: Observed, name: str) -> bool:
    """Say whether none of the pods of `name` gets ready, for a reason that will not pass."""
    seen = observed.revisions.get(name)
    if seen is None or seen.ready or not seen.replicas or seen.failure is None:
        return False
    return seen.failure.lasting


def _short(observed: Observed, release: Release) -> int:
    """Return the replicas that stable lacks while former revisions serve in their place.

    They go first where traffic goes over in parts: it does once nobody else serves. A whole second
    set has room beside both, and need not wait for a stable revision that may never be whole; and
    nobody waits for one that died.
    """
    progress = release.progress
    if progress is None or progress.held or progress.strategy is Strategy.BLUE_GREEN:
        return 0
    former = (each.name for each in release.former if each.name not in release.instead)
    if not any(observed.weights.get(name) and observed.ready(name) for name in former):
        return 0
    return max(release.capacity.kept - observed.replicas(release.stable), 0)


def _taken_over(case: Case, progress: Progress) -> int:
    """Return the percent of requests that the new revision answers.

    What it has in a pause because nothing of the old one is ready goes back, to pods that are kept.
    """
    observed = case.observed
    if observed.splits:
        weight = observed.weights.get(progress.revision, 0)
        return min(weight, observed.share(progress.revision)) if progress.held else weight
    # one Service over both: whoever is ready gets a part
    kept = max(case.release.capacity.kept, 1)
    leads = observed.service.leads_to(progress.revision)
    return share_of(observed.ready(progress.revision), kept) if leads else 0


@dataclass(frozen=True, slots=True)
class Placed:
    """What a revision is to have; None: an autoscaler's. nodes: what those before it left free."""

    replicas: int | None
    nodes: Sequence[NodeRoom]


def with_room(
    observed: Observed, release: Release, desired: Mapping[str, int | None]
) -> Mapping[str, Placed]:
    """Return what of `desired` can run: a pod that no node can take would only be Pending.

    What is free is given once. A successor comes first: its release would not go on if the stable
    one, which may grow at once, took all of it. A canary comes last.
    """
    found: dict[str, Placed] = {}
    nodes: Sequence[NodeRoom] = observed.nodes
    turns = {each.name: _turn(release, each.name) for each in release.wanted}
    for revision in sorted(release.wanted, key=lambda each: turns[each.name]):
        name, wanted = revision.name, desired[revision.name]
        given = _that_fit(observed, release, revision, wanted, nodes)
        found[name] = Placed(given, nodes)
        running = observed.replicas(name)
        waits = wanted if turns[name] is _Turn.SUCCESSOR else given
        more = max((waits or running) - running, 0) + observed.unplaced(name)
        nodes = without(nodes, revision, more)
    return found


class _Turn(IntEnum):
    SUCCESSOR, STABLE, CANARY = range(3)


def _turn(release: Release, name: str) -> _Turn:
    if release.progress and release.progress.revision == name:
        return _Turn.SUCCESSOR
    return _Turn.STABLE if name == release.stable else _Turn.CANARY


def _that_fit(
    observed: Observed,
    release: Release,
    revision: Revision,
    wanted: int | None,
    nodes: Sequence[NodeRoom],
) -> int | None:
    """Return what of `wanted` can run on what is free of `nodes`, and no less than runs.

    A second set that does not fit whole is not begun: its part would hold accelerators for nothing.
    """
    running = observed.replicas(revision.name)
    if wanted is None or wanted <= running:
        return wanted
    if observed.leaving(revision.name):
        return running  # asked for more now, those that go would count as ready, and get requests
    fits = running - observed.unplaced(revision.name) + room(revision, nodes)
    progress = release.progress
    whole = (
        progress and progress.revision == revision.name and progress.strategy is Strategy.BLUE_GREEN
    )
    if whole and fits < wanted and observed.ready(release.stable):
        return running
    return max(running, min(wanted, fits))


def until_accepted(
    observed: Observed, release: Release, name: str, replicas: int | None, *, drains: bool
) -> int | None:
    """Return `replicas`, and no fewer than are kept; None: an autoscaler's, which `decide` bounds.

    drains: whether gateways had accepted a route without it.
    """
    if replicas is None or drains:
        return replicas
    return max(replicas, kept_until_accepted(observed, release, name))


def kept_until_accepted(observed: Observed, release: Release, name: str) -> int:
    """Return the replicas of `name` that stay while gateways may send as a route said before.

    Nothing keeps what that was; who carries everything carries that too. A consent to an outage,
    with one replica, holds here as well. What cannot start answers nobody, and only takes the room
    of who does.
    """
    if not observed.pending or _cannot_start(observed, name):
        return 0
    kept = release.capacity.kept if release.capacity.full else release.serving
    return min(observed.replicas(name), kept)


def former_replicas(
    observed: Observed,
    name: str,
    release: Release,
    split: Mapping[str, int],
    leaving: Mapping[str, datetime],
    now: datetime,
) -> int:
    """Return the replicas of a revision that nobody wants: its own until it has drained."""
    live = observed.revisions[name]
    alone = not release.progress and name in (*release.instead, *release.awaited)
    consented = release.capacity.full and not alone  # to an outage, with one replica
    kept = release.capacity.kept if consented else release.serving
    if weight := split.get(name, 0):
        weight = max(weight, observed.weights.get(name, 0))  # until the router has let go
        return remaining(kept, running=live.replicas, weight=weight)
    if name not in leaving and (
        live.ready or observed.weights.get(name) or name in release.awaited
    ):
        return _left_of(observed, name, release, kept)
    drain = live.revision.drain_seconds if live.revision else 0
    if name in leaving and not drained(leaving[name], drain, now):
        return live.replicas
    return 0


def _left_of(observed: Observed, name: str, release: Release, kept: int) -> int:
    """Return the replicas of a former revision that may still answer: its own.

    But one that answers by the Service in the place of a dead one leaves a successor of that the
    room of what it has taken over.
    """
    running, progress = observed.replicas(name), release.progress
    gives = progress and not progress.held and name in release.instead
    if not gives or not observed.service.leads_to(name):
        return running  # its pods may be back before a route that cannot be written
    shared = observed.service.spans and release.answering is None
    answered = sum(observed.ready(each.name) for each in release.wanted) if shared else 0
    return min(running, max(kept - answered, 1))
