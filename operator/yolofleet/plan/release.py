"""Which revision is the stable one, which is on trial, and which may go.

Promotion moves a pointer: a revision that is ready for the whole traffic becomes the stable one,
and none of its pods is touched. Roll-back is the same move to a former revision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum

from yolofleet.api.analysis import Failed
from yolofleet.api.detector import Detector
from yolofleet.api.rollout import Strategy
from yolofleet.api.status import Reason
from yolofleet.plan.capacity import Capacity
from yolofleet.plan.defaults import Defaults
from yolofleet.plan.judging import failures
from yolofleet.plan.nodes import room
from yolofleet.plan.observed import Observed, ObservedRevision
from yolofleet.plan.revisions import canary_revision, stable_revision
from yolofleet.plan.rollout import Progress, next_progress, strategy_for
from yolofleet.plan.scaling import full_capacity
from yolofleet.routers.following import Following
from yolofleet.workloads.revision import Revision, meaning, rendered_as


@dataclass(frozen=True, slots=True)
class Release:
    """Who is who. `wanted` have to run; `former` are kept, with pods until they have drained."""

    stable: str
    target: Revision
    canary: Revision | None
    wanted: tuple[Revision, ...]
    former: tuple[Revision, ...]
    capacity: Capacity
    serving: int  # replicas that carry all requests, whoever has them; 0: nobody is to answer
    progress: Progress | None  # how far the spec's revision is on its way to be the stable one
    failed: Mapping[str, Failed]  # whoever failed, asked for or not
    called_off: Mapping[str, Failed]  # what the spec asks for, and failed: it gets nothing
    instead: tuple[str, ...] = ()  # former ones that answer in the place of a stable one that died
    awaited: tuple[str, ...] = ()  # those that did, while nobody at all is ready: for a moment?
    answering: str | None = None  # whose pods the detector's Service selects; None: those of all

    def staying(self, observed: Observed) -> int:
        """Return the ready replicas of the stable revision, but those that are to go at once."""
        return observed.ready(self.stable) if self.capacity.full else 0


def next_release(
    detector: Detector, observed: Observed, defaults: Defaults, *, now: datetime
) -> Release:
    """Decide who is who; the pointer moves here."""
    target = _as_recorded(stable_revision(detector, defaults), observed)
    before = released_on(observed, target.name)
    trial = canary_revision(detector, defaults)
    canary = _as_recorded(trial, observed) if trial else None
    failed = failures(detector, observed)
    seen = observed.revisions.get(target.name)
    proved = seen is not None and seen.released and not seen.unproved  # a roll-back
    proven = {before} | ({target.name} if proved else set())
    asked = {r.name for r in (target, canary) if r} - proven
    off = {name: failed[name] for name in asked if name in failed}
    full = full_capacity(detector, observed, before)
    free = room(target, observed.nodes)
    strategy = strategy_for(detector, observed, target, full=full, room=free)
    capacity = Capacity(full, detector.spec.rollout.surge(strategy, full))
    progress = None
    if before != target.name and target.name not in off:
        progress = next_progress(
            detector,
            observed,
            target,
            strategy,
            stable=before,
            full=capacity.kept,
            now=now,
        )
        if takes_over(observed, before, progress, capacity, room=free):
            progress = None
    stable = before if progress or target.name in off else target.name
    if canary and (canary.name == stable or canary.name in off):
        canary = None
    wanted = {r.name: r for r in (target, canary) if r and r.name not in off}
    seen = observed.revisions.get(stable)
    if stable not in wanted and seen and seen.revision:
        wanted[stable] = seen.revision
    release = Release(
        stable=stable,
        target=target,
        canary=canary,
        wanted=tuple(wanted.values()),
        former=_former(detector, observed, wanted.keys() | {stable}),
        capacity=capacity,
        serving=_serving(detector, capacity, canary),
        progress=progress,
        failed=failed,
        called_off=off,
    )
    back = _let_back(observed, release)
    release = replace(
        release,
        instead=_enough(observed, back, release.serving),
        awaited=tuple(name for name in back if _is_awaited(observed, release, name)),
    )
    return replace(release, answering=_answering(detector, observed, release))


def _serving(detector: Detector, capacity: Capacity, canary: Revision | None) -> int:
    """Return the replicas that carry all requests. At zero a canary with a weight answers alone."""
    asked = detector.spec.canary
    if capacity.full:
        return max(capacity.kept, 1)
    return asked.replicas or 1 if asked and asked.weight and canary else 0


def _as_recorded(revision: Revision, observed: Observed) -> Revision:
    """Return `revision` as it was first rendered, if it was: an upgrade restarts no pod.

    So it is when it was asked for in other words (500m, 0.5): it keeps its name, and its own words.
    """
    seen = _recorded_as(revision, observed)
    if seen is None or seen.revision is None:
        return revision
    if seen.ready or seen.failure is None or seen.failure.reason != Reason.IMAGE_PULL_FAILED:
        return seen.revision
    # an image that was never to be had is not kept: the chart's may have been put right since
    return revision if seen.name == revision.name else rendered_as(seen.revision, revision)


def _recorded_as(revision: Revision, observed: Observed) -> ObservedRevision | None:
    """Return what is there of `revision`; of several in other words, the one that serves most."""
    exact = observed.revisions.get(revision.name)
    if exact and (exact.replicas or exact.revision is None):
        return exact
    meant, stable = meaning(revision), observed.status.stable
    alike = [s for s in observed.revisions.values() if s.revision and meaning(s.revision) == meant]
    released = stable.revision if stable else observed.service.stands_for
    return max(
        alike,
        key=lambda s: (s.name == released, s.replicas > 0, s is exact, s.created, s.name),
        default=exact,
    )


def released_on(observed: Observed, otherwise: str) -> str:
    """Return the revision that the detector was last released on: by status, else Service.

    Who answers says nothing of that: neither what a route leads to nor what a Service selects.

    otherwise: what a detector without either is released on.
    """
    stable = observed.status.stable
    pointers = (stable.revision if stable else None, observed.service.stands_for)
    recorded = [name for name in pointers if name]
    for name in recorded:
        if name in observed.revisions:
            return name
    if recorded:  # somebody deleted its workload: that releases nothing else
        return recorded[0]
    # both are lost: what was released last, as far as the revisions themselves tell
    was = [seen for seen in observed.revisions.values() if seen.released]
    if not was or any(seen.name == otherwise for seen in was):
        return otherwise
    return max(was, key=lambda seen: (seen.ready > 0, seen.created, seen.name)).name


def takes_over(
    observed: Observed, before: str, progress: Progress, capacity: Capacity, *, room: int
) -> bool:
    """Say whether the new revision becomes the stable one.

    It does with all steps walked and the capacity of the old one, whatever becomes of the old one's
    pods meanwhile: traffic goes to whoever is alive (`weights`, `_answering`), and comes back.

    room: how many more replicas of it the free accelerators carry.
    """
    if progress.held:
        return False
    if capacity.full == 0:  # nobody asks, so that holding for a time shows nothing
        return progress.walked or not (progress.awaits or progress.judged.blocks)
    needed = max(capacity.kept, 1)
    seen = observed.revisions.get(progress.revision)
    if seen is None or not progress.walked:
        return False
    if observed.splits and progress.revision not in observed.backends:
        return False  # the route could not follow, whatever this process remembers of why
    if not observed.ready(before) and seen.ready + room < needed:
        needed = 1  # what is dead holds the accelerators: better one replica than none for ever
    # A workload is unsettled for a moment after our own note on it that it is released. Whoever
    # has to look again just then, with the pointer moved and the route not, does not go back.
    return seen.ready >= needed and (
        seen.settled or observed.service.stands_for == progress.revision
    )


def _former(detector: Detector, observed: Observed, wanted: set[str]) -> tuple[Revision, ...]:
    """Return the revisions to keep beside the wanted: those that run, and the youngest at rest."""
    others = sorted(
        (seen for name, seen in observed.revisions.items() if name not in wanted),
        key=lambda seen: (seen.created, seen.name),
        reverse=True,
    )
    used = {s.name for s in others if s.replicas or s.ready or routed(observed, s.name)}
    running = [s.revision for s in others if s.revision and s.name in used]
    resting = [s.revision for s in others if s.revision and s.name not in used]
    return (*running, *resting[: detector.spec.revision_history])


def _let_back(observed: Observed, release: Release) -> tuple[str, ...]:
    """Return the former revisions that may answer while nothing of the stable one does.

    They were released on before, and did not fail. The pointer stays.
    """
    if release.staying(observed) or not release.capacity.full:
        return ()
    return tuple(
        revision.name
        for revision in release.former
        if observed.revisions[revision.name].released
        and revision.name not in release.failed
        and revision.name not in observed.unreached
    )


def _enough(observed: Observed, back: Sequence[str], serving: int) -> tuple[str, ...]:
    """Return of those that may answer the youngest that are ready: more need not keep their pods.

    They would be in the way of a third one for as long as the stable one is dead.
    """
    enough: list[str] = []
    for name in back:
        if observed.ready(name) and sum(map(observed.ready, enough)) < serving:
            enough.append(name)
    return tuple(enough)


def _is_awaited(observed: Observed, release: Release, name: str) -> bool:
    """Say whether `name` answered until nobody at all was ready: it may be back in a moment.

    But not where those that are wanted may need the nodes that its pods are on.
    """
    answered = observed.service.leads_to(name) or observed.weights.get(name)
    return (
        bool(answered and observed.replicas(name))
        and not any(map(observed.ready, observed.revisions))
        and all(_fits(observed, each) >= release.serving for each in release.wanted)
    )


def _fits(observed: Observed, revision: Revision) -> int:
    """Return of how many replicas the pods have a node, or would find one."""
    placed = observed.replicas(revision.name) - observed.unplaced(revision.name)
    return placed + room(revision, observed.nodes)


def shares(detector: Detector, observed: Observed, release: Release) -> dict[str, int]:
    """Return what revisions that are wanted beside the stable one should get, in percent.

    During a release everybody keeps what the router gives them now, but for its revision when the
    traffic goes over in parts. That begins once the router has let go of all former revisions that
    answer for nobody else. At zero replicas nothing but a canary is to answer.
    """
    others = [r.name for r in release.wanted if r.name != release.stable]
    if not release.capacity.full:
        alone = release.canary.name if release.canary and release.serving else None
        return {name: 100 if name == alone else 0 for name in others}
    if progress := release.progress:
        held = {name: observed.weights.get(name, 0) for name in others}
        served = observed.ready(release.stable) > 0 or bool(release.instead)
        former = (r.name for r in release.former if r.name not in release.instead)
        # a whole set goes over with the pointer; before that, only where nobody else is alive
        waits = progress.strategy is Strategy.BLUE_GREEN and served
        if not (waits or progress.held or any(_named(observed, name) for name in former)):
            # the dark ends where nobody else is alive
            lit = progress.dark and not served
            held[progress.revision] = max(progress.goal, 1) if lit else progress.goal
        elif progress.held or progress.dark:  # what it got because nothing else was alive goes back
            held[progress.revision] = min(held.get(progress.revision, 0), progress.goal)
        return held
    canary = detector.spec.canary
    return {release.canary.name: canary.weight} if canary and release.canary else {}


def _answering(detector: Detector, observed: Observed, release: Release) -> str | None:
    """Return the revision whose pods the detector's Service selects; None: those of all.

    That is the stable one. While nothing of it is ready others answer, until a pod of it is back:
    by a Service that spans all, which follows their readiness by itself. Where that would lead to
    one that may not answer too, the one with most ready pods does alone. While replicas are swapped
    in place without a mesh it spans as well.
    """
    former = [r.name for r in release.former if observed.replicas(r.name)]
    if not former and _swaps(observed, release):
        return None
    if release.staying(observed) or not release.serving:
        return release.stable
    others = [*(r.name for r in release.wanted if r.name != release.stable), *former]
    turns = {name: _turn(detector, observed, release, name) for name in others}
    able = [name for name in others if observed.ready(name) or name in release.awaited]
    least = max((turns[name] for name in able), default=_Turn.NEVER)
    if least is _Turn.NEVER:
        return release.stable
    first = sum(observed.ready(name) for name in others if turns[name] is _Turn.FIRST)
    if least is _Turn.FIRST and first < release.serving:
        least = _Turn.HELPING
    if min(turns.values()) >= least:
        return None
    return max(
        (name for name in able if turns[name] >= least),
        key=lambda name: (observed.ready(name), name == observed.service.answering),
    )


def _swaps(observed: Observed, release: Release) -> bool:
    """Say whether replicas are swapped in place behind the one Service."""
    progress = release.progress
    return (
        progress is not None
        and progress.strategy is Strategy.IN_PLACE
        and not observed.splits
        and not progress.dark
        and observed.replicas(progress.revision) > 0
    )


class _Turn(IntEnum):
    """When a revision may answer by the Service, while nothing of the stable one is ready."""

    NEVER = 0
    LAST = 1  # where nobody else can
    HELPING = 2  # while those that come first are too few
    FIRST = 3


def _turn(detector: Detector, observed: Observed, release: Release, name: str) -> _Turn:
    """Say when `name` may answer in the place of the stable revision.

    A canary in the dark never does; the dark of a release ends where nobody else is alive. Who is
    paused, failed or withdrawn does not begin to, but goes on where those that may are not there;
    of withdrawn ones also where they are too few.
    """
    canary, progress = detector.spec.canary, release.progress
    if release.canary and name == release.canary.name:
        return _Turn.FIRST if canary and canary.weight else _Turn.NEVER
    if name in release.instead:
        return _Turn.FIRST
    coming = progress is not None and name == progress.revision
    if progress and coming and not progress.held:
        return _Turn.LAST if progress.dark else _Turn.FIRST
    if not observed.service.leads_to(name):
        return _Turn.NEVER
    if name in release.failed:
        return _Turn.LAST
    if coming:  # paused: who stands in goes on also as what is asked for, in a roll-back
        seen = observed.revisions.get(name)
        return _Turn.FIRST if seen and seen.released else _Turn.LAST
    return _Turn.HELPING


def routed(observed: Observed, name: str) -> bool:
    """Say whether any router still sends requests to `name`."""
    return _named(observed, name) or observed.service.spans or observed.matched == name


def _named(observed: Observed, name: str) -> bool:
    """Say whether a router sends to `name`, and not to whoever is ready."""
    service = observed.service
    return observed.weights.get(name, 0) > 0 or name == (service.answering or service.stands_for)


def draining(
    observed: Observed, release: Release, split: Mapping[str, int], now: datetime
) -> dict[str, datetime]:
    """Return since when each running revision that nobody wants has been without traffic."""
    known = {e.revision: min(e.since, now) for e in observed.status.draining}  # clocks are set back
    if observed.followed.by is Following.PENDING:
        return known  # the router may still send as before
    # while those that are wanted and answer are too few, others by the Service are needed
    answer = [r.name for r in release.wanted if release.answering in (None, r.name)]
    short = sum(map(observed.ready, answer)) < release.serving
    spans = release.answering is None or observed.service.spans
    return {
        revision.name: known.get(revision.name, now)
        for revision in release.former
        if (seen := observed.revisions[revision.name]).replicas
        and seen.ready
        and not split.get(revision.name)
        and not (revision.name in release.instead or (short and spans))
        and not (_named(observed, revision.name) or observed.matched == revision.name)
    }


def drained(since: datetime, seconds: float, now: datetime) -> bool:
    """Say whether a revision without traffic since then has finished its requests."""
    return now - since >= timedelta(seconds=seconds)
