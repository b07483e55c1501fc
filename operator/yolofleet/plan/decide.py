"""What the cluster should look like next: the order of the decisions, and nothing else.

Level-triggered: everything follows from the spec and one snapshot. Called again with the same
snapshot it decides the same; called after a crash at any write it goes on from what is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from yolofleet.api.analysis import Failed, Stage
from yolofleet.api.detector import Detector, Provider
from yolofleet.api.rollout import Strategy
from yolofleet.api.status import ConditionType
from yolofleet.plan.defaults import Defaults
from yolofleet.plan.draining import draining
from yolofleet.plan.first import is_unproved, measure, trial_of_the_first
from yolofleet.plan.judging import Trial
from yolofleet.plan.live import Shadow, can_be_shown, looked_at, shadow
from yolofleet.plan.moving import RouterOption
from yolofleet.plan.nodes import room
from yolofleet.plan.observed import Observed
from yolofleet.plan.records import records
from yolofleet.plan.release import next_release, shares, shares_kept
from yolofleet.plan.remaking import Remaking, remaking
from yolofleet.plan.replicas import (
    Case,
    Placed,
    desired_replicas,
    former_replicas,
    kept_until_accepted,
    until_accepted,
    with_room,
)
from yolofleet.plan.roles import Release
from yolofleet.plan.rollout import Progress
from yolofleet.plan.scaler import Scaling, scales_itself, scaling
from yolofleet.plan.scaling import given_back, sees_all, standing_for
from yolofleet.plan.shortage import shortage, unclaimable
from yolofleet.plan.traffic import weights
from yolofleet.routers.buckets import Buckets, assigned
from yolofleet.routers.choice import ROUTERS, splits
from yolofleet.routers.exposure import Exposure
from yolofleet.routers.router import Route
from yolofleet.workloads.accelerators import requests_of
from yolofleet.workloads.choice import workload_for
from yolofleet.workloads.claims import class_of
from yolofleet.workloads.revision import Revision
from yolofleet.workloads.workload import PlannedRevision

LOOK_FOR_ACCELERATORS = timedelta(seconds=30)
LOOK_FOR_DEVICES = timedelta(seconds=10)
"""Nobody tells that a claim is gone."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided for one detector. Names are those of revisions."""

    stable: str  # what the detector is released on after this plan
    target: str  # what the spec asks to be released on
    canary: str | None
    revisions: tuple[PlannedRevision, ...]
    untouched: frozenset[str]  # revisions whose record cannot be read: neither written nor deleted
    provider: Provider  # what really routes
    courted: RouterOption | None  # whose route is written to be accepted, and routes nothing yet
    exposure: Exposure  # where: its hosts and gateways
    weights: Mapping[str, int]
    shares: Mapping[str, int]  # of a release: what comes back to each with its lost pods
    buckets: Buckets  # the cameras of each, where they are to stay on one
    unreached: frozenset[str]  # revisions that no route may name yet
    matched: str | None  # where requests go that match the canary's headers
    answering: str | None  # whose pods the detector's Service selects; None: those of all
    stand_ins: tuple[str, ...]  # former revisions that answer in the place of a dead stable one
    progress: Progress | None  # how far the target is on its way to be the stable revision
    called_off: Mapping[str, Failed]  # what the spec asks for, and failed
    trial: Trial | None  # who is judged, by comparison with whom
    full: int  # replicas that carry the whole traffic
    scaling: Scaling | None  # who scales the stable revision, and how; None: we do
    draining: Mapping[str, datetime]  # since when the router has let go of them
    shadow: Shadow | None  # who is shown copies of requests, and how many
    remaking: Remaking  # who never had a ready replica, and is made anew
    missing: str | None  # the accelerator that no node offers, and what to do
    requeue_after: timedelta | None

    @property
    def splits(self) -> bool:
        """Say whether what routes gives each revision its part, and not each ready pod alike."""
        return splits(self.provider)

    @property
    def delegated_to(self) -> bool:
        """Say whether the route answers to no host, but to those who delegate to it."""
        return not (self.exposure.hosts or ROUTERS[self.provider].TAKES_ALL_HOSTS)

    def route(self, detector: Detector) -> Route:
        """Return what the route is to say that requests go by."""
        at, canary = self.exposure, detector.spec.canary
        match, sticky = canary.match if canary else (), detector.spec.traffic.sticky_header or ""
        return Route(
            at.hosts,
            at.gateways,
            self.weights,
            self.matched,
            match,
            sticky.lower(),
            self.buckets,
            stamped=any(workload_for(p.revision).QUEUES for p in self.revisions),
        )

    @property
    def leaving(self) -> tuple[str, ...]:
        """Revisions that nobody wants any more and that still have pods."""
        wanted = {self.stable, self.target, self.canary}
        names = (p.revision.name for p in self.revisions if p.replicas)
        return tuple(name for name in names if name not in wanted)

    @property
    def beside(self) -> tuple[str, ...]:
        """Revisions that answer requests beside the stable one."""
        names = (p.revision.name for p in self.revisions if p.revision.name != self.stable)
        serves = {self.matched} | {name for name, weight in self.weights.items() if weight}
        if self.answering is None:
            serves |= {p.revision.name for p in self.revisions if p.replicas}
        serves.add(self.answering)
        return tuple(name for name in names if name in serves)

    @property
    def lasting(self) -> tuple[str, ...]:
        """Those of `beside` that stay so for a while: a canary, stand-ins, who walks steps.

        Any other release is one of a moment: its revision is stable as soon as it serves.
        """
        walks = self.target if self.progress and self.progress.step else None
        stay = {self.canary, walks, *self.stand_ins}
        return tuple(name for name in self.beside if name in stay)

    def replicas(self, name: str | None) -> int | None:
        """Replicas planned for `name`; None when it is not planned, or autoscaled."""
        planned = self.planned(name)
        return planned.replicas if planned else None

    def planned(self, name: str | None) -> PlannedRevision | None:
        """Return what is planned for `name`."""
        return next((p for p in self.revisions if p.revision.name == name), None)


def decide(detector: Detector, observed: Observed, defaults: Defaults, *, now: datetime) -> Plan:
    """Return the next state of `detector`. Raises nothing for a parsed detector."""
    release = next_release(detector, observed, defaults, now=now)
    split, moving = {release.stable: 100}, observed.moving
    asked = shares(detector, observed, release)
    if observed.splits:
        split = weights(
            observed,
            stable=release.stable,
            staying=release.staying(observed),
            shares=asked,
            instead=release.instead or release.awaited,
            full=release.serving,
        )
    leaving = draining(observed, release, split, now)
    desired = {
        r.name: desired_replicas(Case(detector, observed, release, r.name)) for r in release.wanted
    }
    placed = with_room(observed, release, desired)
    replicas = [(r, placed[r.name].replicas) for r in release.wanted]
    replicas += [
        (r, former_replicas(observed, r.name, release, split, leaving, now)) for r in release.former
    ]
    replicas = [
        (r, until_accepted(observed, release, r.name, number, drains=r.name in leaving))
        for r, number in replicas
    ]
    missing = _missing(detector, observed, desired, placed, release)
    anew = remaking(
        observed,
        [revision.name for revision, number in replicas if number != 0],
        suspended=detector.spec.suspend,
        now=now,
    )
    trial = _trial(detector, observed, release)
    back = _gives_back(observed, release, asked, split)
    least = given_back(detector, observed, release.stable) if back else 0
    least = max(least, _still_needed(detector, observed, release, split))
    shown = _shadow(detector, observed, release, trial, now)
    return Plan(
        stable=release.stable,
        target=release.target.name,
        canary=release.canary.name if release.canary else None,
        revisions=_planned(detector, observed, release, replicas, anew, least=least),
        untouched=frozenset(n for n, seen in observed.revisions.items() if not seen.revision),
        provider=observed.provider,
        courted=moving if moving and moving.written else None,
        exposure=observed.exposure,
        weights=split,
        shares=shares_kept(detector, observed, release, asked, split),
        buckets=_buckets(detector, observed, split),
        unreached=observed.unreached,
        matched=_matched(detector, observed, release),
        answering=release.answering,
        stand_ins=release.instead,
        progress=release.progress,
        called_off=release.called_off,
        trial=trial,
        full=release.capacity.full,
        scaling=_scaling(detector, observed, release, least=least),
        draining=leaving,
        shadow=shown,
        remaking=anew,
        missing=missing,
        requeue_after=_soonest(
            _next_look(observed, release, leaving, shown, missing, now),
            anew.next_look,
            *(each.look_at - now for each in observed.revisions.values() if each.look_at),
        ),
    )


def _planned(
    detector: Detector,
    observed: Observed,
    release: Release,
    replicas: Sequence[tuple[Revision, int | None]],
    anew: Remaking,
    *,
    least: int,
) -> tuple[PlannedRevision, ...]:
    """Return each revision with its replicas, and what is noted of it."""
    released = {name for name, seen in observed.revisions.items() if seen.released}
    served = {name for name, seen in observed.revisions.items() if seen.served}
    kept = records([revision for revision, _ in replicas], observed)
    return tuple(
        PlannedRevision(
            revision,
            kept[revision.name],
            fixed,
            revision.name in released | {release.stable},
            release.failed.get(revision.name),
            unproved=is_unproved(detector, observed, revision),
            scaled=scaled,
            anew=revision.name in anew.names,
            remade=anew.times.get(revision.name, 0),
            served=revision.name in served,
        )
        for revision, number in replicas
        for fixed, scaled in [scales_itself(detector, observed, revision, number, least=least)]
    )


def _gives_back(
    observed: Observed, release: Release, asked: Mapping[str, int], split: Mapping[str, int]
) -> bool:
    """Say whether the stable revision is to have requests back for which it is too small.

    What an autoscaler sees is what it has: it would never grow for what others keep in its place.
    What goes over to it in one move it can carry: so it does in a promotion.
    """
    spared = {release.stable, *release.instead, *release.awaited}
    if release.progress:
        spared.add(release.progress.revision)
    return observed.ready(release.stable) > 0 and any(
        weight > asked.get(name, 0) for name, weight in split.items() if name not in spared
    )


def _still_needed(
    detector: Detector, observed: Observed, release: Release, split: Mapping[str, int]
) -> int:
    """Return the replicas of stable that its autoscaler may not take for a route that is to come.

    The requests that it is to have go where the route led before, so that it seems to need none:
    where there is another one that has replicas.
    """
    asked, stable = detector.spec.autoscaled, release.stable
    others = any(each.replicas for name, each in observed.revisions.items() if name != stable)
    if asked is None or not others or sees_all(asked, observed, stable):
        return 0
    if _is_unwritten(observed, release, split):
        its, left = observed.replicas(stable), observed.weight(stable)
        have = (
            standing_for(each.replicas, weight, its, left)
            for name, each in observed.revisions.items()
            if name != stable and (weight := observed.weight(name))  # its own would hold itself up
        )
        return min(max(have, default=0), asked.max_replicas)
    return kept_until_accepted(observed, release, stable)


def _is_unwritten(observed: Observed, release: Release, split: Mapping[str, int]) -> bool:
    """Say whether stable is to get requests that it has not, and something could not be written.

    Else the route is written in this very pass.
    """
    goal = split[release.stable] if observed.splits else 100 * (release.answering == release.stable)
    unwritten = observed.status.condition(ConditionType.WRITTEN) is not None
    return unwritten and observed.weight(release.stable) < goal


def _scaling(
    detector: Detector, observed: Observed, release: Release, *, least: int
) -> Scaling | None:
    """Say who scales the stable revision; None: nobody but itself."""
    stable = next((each for each in release.wanted if each.name == release.stable), None)
    if stable and workload_for(stable).OWN_AUTOSCALER:
        return None
    found = scaling(detector, observed, release.stable, stable or release.target)
    return replace(found, least=max(found.least, least)) if found else None


def _soonest(*looks: timedelta | None) -> timedelta | None:
    return min((max(look, timedelta()) for look in looks if look is not None), default=None)


def _trial(detector: Detector, observed: Observed, release: Release) -> Trial | None:
    """Say who is judged: the revision on its way; else a canary by hand; else the first one.

    What was called off is told for as long as it is asked for, and the first one waits.
    """
    if detector.spec.rollout.analysis is None:
        return None
    unlike, sticks = _unlike(observed), _sticks(detector)
    answers = next(iter(release.instead), release.stable)  # what is dead shows nothing
    if release.answering in release.instead and not observed.splits:
        answers = release.answering
    if progress := release.progress:
        lone = (
            progress.strategy is Strategy.IN_PLACE
            and not progress.dark
            and not release.capacity.kept
        )
        return Trial(
            progress.revision,
            measure(detector, observed, answers, progress.revision),
            progress.stage,
            progress.goal,
            progress.following,
            incomparable=sticks,
            lone=lone,
            unlike=unlike,
        )
    if (canary := detector.spec.canary) is None or release.canary is None:
        off = release.called_off
        return None if off else trial_of_the_first(detector, observed, release.stable)
    stage = Stage.LIVE if canary.weight or canary.match else Stage.DARK
    chosen = "it answers the requests that match spec.canary.match, which may be unlike the others"
    return Trial(
        release.canary.name,
        measure(detector, observed, answers, release.canary.name),
        stage,
        canary.weight,
        100,
        incomparable=chosen if canary.match else sticks,
        unlike=unlike,
    )


def _sticks(detector: Detector) -> str:
    """Say why the two answer other cameras, whose pictures may be larger; empty where they do not.

    By weight each picture is drawn, so that both see all.
    """
    if not detector.spec.traffic.sticky_header:
        return ""
    return "cameras stay on one revision (spec.traffic.stickyHeader), so that the two see others"


def _unlike(observed: Observed) -> str:
    """Say why what is in the pictures of one is no match for the other's; empty where it is."""
    if observed.splits:
        return ""
    return "a plain Service spreads connections, not requests: the two may see other cameras"


def _buckets(detector: Detector, observed: Observed, split: Mapping[str, int]) -> Buckets:
    """Return which cameras stay on which revision, where a header tells them apart."""
    if not detector.spec.traffic.sticky_header or not observed.splits:
        return {}
    return assigned(observed.buckets, split)


def _matched(detector: Detector, observed: Observed, release: Release) -> str | None:
    """Return who answers what matches: the canary once it is ready.

    Until then the stable revision does; where nothing of that is, whoever has until now.
    """
    canary = detector.spec.canary
    if canary is None or not canary.match or release.canary is None or not observed.splits:
        return None
    until_now = () if release.staying(observed) else (observed.matched,)
    able = (name for name in (release.canary.name, *until_now) if observed.ready(name))
    return next((name for name in able if name not in observed.unreached), None)


def _shadow(
    detector: Detector, observed: Observed, release: Release, trial: Trial | None, now: datetime
) -> Shadow | None:
    """Say who is shown copies of what the stable revision answers.

    Whoever is compared sees all that there is room for; a canary as much as is asked for. Of
    whoever was called off the pictures stay for a while, where they are kept at all.
    """
    trial = trial if trial and trial.against else None
    canary, asked = detector.spec.canary, detector.spec.rollout.analysis
    keeps = bool(asked and asked.keep_frames)
    name = trial.revision if trial else release.canary.name if release.canary else ""
    by_hand = canary.shadow if canary and release.canary and release.canary.name == name else 0
    revisions = {each.name: each for each in release.wanted}
    answer = (release.stable, *release.instead)
    shown, percent = revisions.get(name), by_hand or (100 if trial else 0)
    if shown is None or not percent or not can_be_shown(revisions.get(release.stable), shown):
        off = {each.revision: each.at for each in release.called_off.values()} if keeps else {}
        return looked_at(observed.shadow, off, now)
    return shadow(
        shown,
        percent,
        senders=sum(map(observed.ready, answer)),
        receivers=observed.ready(name),
        capacity=_capacity(observed, name),
        before=observed.shadow,
        token=observed.token,
        now=now,
        keep_frames=keeps,
    )


def _capacity(observed: Observed, name: str) -> float | None:
    known = observed.analysis
    return known.capacity if known and known.revision == name else None


def _missing(
    detector: Detector,
    observed: Observed,
    desired: Mapping[str, int | None],
    placed: Mapping[str, Placed],
    release: Release,
) -> str | None:
    """Say which revision finds no accelerator for its replicas."""
    for revision in release.wanted:
        running, asked = observed.replicas(revision.name), desired[revision.name]
        nodes = placed[revision.name].nodes
        more = max((running if asked is None else asked) - running, 0)
        more += observed.unplaced(revision.name)
        if not more:
            continue
        if message := shortage(revision, more, nodes, observed.device_classes):
            lacking = more - room(revision, nodes)
            way_out = _way_out(detector, observed, release, revision, lacking)
            return f"{revision.name}: {message}{way_out}"
    return None


def _way_out(
    detector: Detector, observed: Observed, release: Release, revision: Revision, lacking: int
) -> str:
    """Say by what change of the spec a release needs no more room than there is, if by any.

    lacking: the replicas that have no room. What is said has to be allowed.
    """
    spec, progress, canary = detector.spec, release.progress, release.canary
    if (
        canary
        and canary.name != revision.name
        and _classes(canary) & _classes(revision)
        and observed.replicas(canary.name) >= lacking
    ):
        # One that answers in the place of a dead stable one goes on, asked for or not.
        change = "remove" if observed.ready(release.stable) else "release"
        return f". Or {change} spec.canary: {canary.name} holds what would do"
    if progress is None:
        return ""
    if progress.strategy is Strategy.IN_PLACE:
        parts = (release.stable, progress.revision)
        run = sum(observed.replicas(each) - observed.unplaced(each) for each in parts)
        if spec.autoscaled or revision.name not in parts or not 0 < run < release.capacity.full:
            return ""
        return f". Or set spec.replicas to {run}: the release goes on among these"
    if progress.revision != revision.name:
        return ""
    rollout, begun = spec.rollout, observed.ready(revision.name) > 0
    in_parts = progress.strategy is Strategy.CANARY and rollout.max_surge is None
    if in_parts and begun and not spec.autoscaled:
        return ". Or set spec.rollout.maxSurge to 1: never more than one pod beyond the replicas"
    if not workload_for(revision).SWAPS:
        return ""
    instead = {
        "spec.canary": spec.canary,
        "spec.rollout.steps": rollout.steps,
        "spec.rollout.maxSurge": rollout.max_surge,
    }
    first = f"spec.replicas to {release.capacity.full} in the place of spec.autoscaling and "
    removed = " and ".join(name for name, given in instead.items() if given)
    return (
        f". Or set {first if spec.autoscaled else ''}spec.rollout.strategy to {Strategy.IN_PLACE}"
        + (f" without {removed}" if removed else "")
        + ": replica by replica, without a second set"
        + (" (with one replica, an outage)" if release.capacity.full == 1 else "")
    )


def _classes(revision: Revision) -> set[str]:
    """Return what kinds of accelerators the pods of `revision` ask for, however chosen."""
    return set(map(class_of, requests_of(revision)))


def _next_look(
    observed: Observed,
    release: Release,
    leaving: Mapping[str, datetime],
    shown: Shadow | None,
    missing: str | None,
    now: datetime,
) -> timedelta | None:
    """Return when time alone changes the decision; None when only an event can."""
    claims = any(revision.accelerator for revision in release.wanted)
    looks = [LOOK_FOR_DEVICES if claims else LOOK_FOR_ACCELERATORS] if missing else []
    looks += [LOOK_FOR_DEVICES] if _could_claim_no_more(observed, release) else []
    looks += [shown.due_in(now)] if shown else []
    if release.progress and (left := release.progress.next_look) and left > timedelta():
        looks.append(left)
    for revision in release.former:
        if since := leaving.get(revision.name):
            until = since + timedelta(seconds=revision.drain_seconds) - now
            looks.append(max(until, timedelta(seconds=1)))
    return min(looks, default=None)


def _could_claim_no_more(observed: Observed, release: Release) -> bool:
    """Say whether pods run whose devices could not be claimed again: nobody tells when they can."""
    running = (r for r in release.wanted if observed.replicas(r.name))
    return any(unclaimable(r, observed.device_classes) for r in running)
