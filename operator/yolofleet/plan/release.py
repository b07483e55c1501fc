"""Which revision is the stable one, which is on trial, and which may go.

Promotion moves a pointer: a revision that is ready for the whole traffic becomes the stable one,
and none of its pods is touched. Roll-back is the same move to a former revision.
"""

from collections.abc import Mapping
from datetime import datetime

from yolofleet.api.detector import Detector
from yolofleet.api.rollout import Strategy
from yolofleet.api.status import Reason
from yolofleet.plan.capacity import Capacity
from yolofleet.plan.defaults import Defaults
from yolofleet.plan.judging import failures
from yolofleet.plan.nodes import room
from yolofleet.plan.observed import Observed, ObservedRevision
from yolofleet.plan.revisions import canary_revision, stable_revision
from yolofleet.plan.roles import Release
from yolofleet.plan.rollout import Progress, next_progress, strategy_for
from yolofleet.plan.scaling import full_capacity
from yolofleet.plan.standing_in import with_stand_ins
from yolofleet.workloads.revision import Revision, meaning, rendered_as


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
    who = Release(
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
    return with_stand_ins(detector, observed, who)


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
    pods meanwhile: traffic goes to whoever is alive (`weights`, `standing_in`), and comes back.

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
    used = {s.name for s in others if s.replicas or s.ready or observed.routed(s.name)}
    running = [s.revision for s in others if s.revision and s.name in used]
    resting = [s.revision for s in others if s.revision and s.name not in used]
    return (*running, *resting[: detector.spec.revision_history])


def shares(detector: Detector, observed: Observed, release: Release) -> dict[str, int]:
    """Return what revisions that are wanted beside the stable one should get, in percent.

    During a release everybody keeps what they have, but for its revision when the traffic goes over
    in parts. That begins once the router has let go of all former revisions that answer for nobody
    else. At zero replicas nothing but a canary is to answer. Where it comes to more than there is,
    the first goes first: the release's revision, so that it comes to its end.
    """
    others = [r.name for r in release.wanted if r.name != release.stable]
    if not release.capacity.full:
        alone = release.canary.name if release.canary and release.serving else None
        return {name: 100 if name == alone else 0 for name in others}
    if progress := release.progress:
        held = {name: _has(detector, observed, release, name) for name in others}
        served = observed.ready(release.stable) > 0 or bool(release.instead)
        former = (r.name for r in release.former if r.name not in release.instead)
        # a whole set goes over with the pointer; before that, only where nobody else is alive
        stays = progress.unproved and progress.goal == 100
        waits = (progress.strategy is Strategy.BLUE_GREEN or stays) and served
        if not (waits or progress.held or any(observed.named(name) for name in former)):
            # the dark ends where nobody else is alive
            lit = progress.dark and not served
            held[progress.revision] = max(progress.goal, 1) if lit else progress.goal
        elif progress.held or progress.dark:  # what it got because nothing else was alive goes back
            held[progress.revision] = min(held.get(progress.revision, 0), progress.goal)
        return held
    canary = detector.spec.canary
    return {release.canary.name: canary.weight} if canary and release.canary else {}


def shares_kept(
    detector: Detector,
    observed: Observed,
    release: Release,
    asked: Mapping[str, int],
    split: Mapping[str, int],
) -> dict[str, int]:
    """Return what each of those beside the stable one is to have again once its pods are back.

    asked: what they should get; split: what they get. The revision of a release keeps what it came
    to as the traffic goes over in parts, and no more than its step gives it. A whole set goes over
    at once: before that it gets more only while nobody else is alive.
    """
    if (progress := release.progress) is None:
        return {}
    kept = {name: _has(detector, observed, release, name) for name in asked}
    if not release.capacity.full:  # nobody gets anything, for now
        return kept
    if progress.strategy is not Strategy.BLUE_GREEN:
        kept[progress.revision] = max(kept[progress.revision], split.get(progress.revision, 0))
    return {name: min(share, asked[name]) for name, share in kept.items()}


def _has(detector: Detector, observed: Observed, release: Release, name: str) -> int:
    """Return the percent of requests that `name` has: of a canary first what was asked for it."""
    canary, before = detector.spec.canary, observed.status
    tried = before.canary and before.canary.revision == name and not before.rollout
    if canary and release.canary and release.canary.name == name and tried:
        return canary.weight
    return observed.share(name)
