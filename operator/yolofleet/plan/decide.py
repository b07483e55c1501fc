"""What the cluster should look like next: the order of the decisions, and nothing else.

Level-triggered: everything follows from the spec and one snapshot. Called again with the same
snapshot it decides the same; called after a crash at any write it goes on from what is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from yolofleet.api.detector import Detector, Provider
from yolofleet.plan.accelerators import shortage
from yolofleet.plan.defaults import Defaults
from yolofleet.plan.observed import Observed, ObservedRevision
from yolofleet.plan.release import (
    Release,
    drained,
    draining,
    provider_for,
    release,
    shares,
)
from yolofleet.plan.revision import Revision
from yolofleet.plan.scaling import canary_replicas
from yolofleet.plan.traffic import weights

LOOK_FOR_ACCELERATORS = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class PlannedRevision:
    """A revision and its replicas; None: an autoscaler owns the number."""

    revision: Revision
    replicas: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided for one detector. Names are those of revisions."""

    stable: str  # what the detector is released on after this plan
    target: str  # what the spec asks to be released on
    canary: str | None
    revisions: tuple[PlannedRevision, ...]
    untouched: frozenset[str]  # revisions whose record cannot be read: neither written nor deleted
    provider: Provider  # what really routes: istio or service
    weights: Mapping[str, int]
    matched: str | None  # where requests go that match the canary's headers
    full: int  # replicas that carry the whole traffic
    draining: Mapping[str, datetime]  # since when the router has let go of them
    missing: str | None  # the accelerator that no node offers, and what to do
    requeue_after: timedelta | None

    @property
    def leaving(self) -> tuple[str, ...]:
        """Revisions that nobody wants any more and that still have pods."""
        wanted = {self.stable, self.target, self.canary}
        names = (p.revision.name for p in self.revisions if p.replicas)
        return tuple(name for name in names if name not in wanted)

    def replicas(self, name: str | None) -> int | None:
        """Replicas planned for `name`; None when it is not planned, or autoscaled."""
        return next((p.replicas for p in self.revisions if p.revision.name == name), None)


def decide(detector: Detector, observed: Observed, defaults: Defaults, *, now: datetime) -> Plan:
    """Return the next state of `detector`. Raises nothing for a parsed detector."""
    going = release(detector, observed, defaults)
    provider = provider_for(detector, observed)
    split = {going.stable: 100}
    if provider is Provider.ISTIO:
        asked = shares(detector, observed, going)
        split = weights(observed, stable=going.stable, shares=asked, full=going.full)
    leaving = draining(observed, going, split, now=now)
    missing = _missing(going, observed)
    wanted = [PlannedRevision(r, _replicas(detector, observed, going, r)) for r in going.wanted]
    former = [
        PlannedRevision(r, _former_replicas(observed.revisions[r.name], split, leaving, now, r))
        for r in going.former
    ]
    return Plan(
        stable=going.stable,
        target=going.target.name,
        canary=going.canary.name if going.canary else None,
        revisions=(*wanted, *former),
        untouched=frozenset(n for n, seen in observed.revisions.items() if not seen.revision),
        provider=provider,
        weights=split,
        matched=going.canary.name if going.canary and observed.ready(going.canary.name) else None,
        full=going.full,
        draining=leaving,
        missing=missing,
        requeue_after=_next_look(going, leaving, missing, now),
    )


def _replicas(
    detector: Detector, observed: Observed, going: Release, revision: Revision
) -> int | None:
    """Return the replicas of a revision that the spec names, or that is still the stable one."""
    live = observed.revisions.get(revision.name)
    running = live.replicas if live else 0
    if running == 0 and shortage(revision, 1, observed.nodes):
        return 0  # a pod that no node can run would only be Pending
    if revision.name == going.stable and detector.spec.autoscaling:
        # an autoscaler does not start from nothing, and sleeps at zero
        return None if running else going.full
    if going.canary and revision.name == going.canary.name:
        return canary_replicas(detector, observed, revision.name, going.full)
    if going.under_way and revision.name == going.stable:
        return _outgoing(observed, revision.name, going.full)
    return going.full


def _outgoing(observed: Observed, name: str, full: int) -> int:
    """Return the replicas of the stable revision while its successor comes: it grows no more."""
    told = observed.status.stable
    before = told.desired if told and told.revision == name else 0
    return min(before, full) or full


def _former_replicas(
    live: ObservedRevision,
    split: Mapping[str, int],
    leaving: Mapping[str, datetime],
    now: datetime,
    revision: Revision,
) -> int:
    """Return the replicas of a revision that nobody wants: its own until it has drained."""
    name = revision.name
    if split.get(name, 0) > 0 or (live.ready and name not in leaving):
        return live.replicas
    if name in leaving and not drained(leaving[name], revision.drain_seconds, now):
        return live.replicas
    return 0


def _missing(going: Release, observed: Observed) -> str | None:
    for revision in going.wanted:
        seen = observed.revisions.get(revision.name)
        more = seen.unplaced if seen and seen.replicas else 1
        if told := shortage(revision, more, observed.nodes):
            return f"{revision.name}: {told}"
    return None


def _next_look(
    going: Release, leaving: Mapping[str, datetime], missing: str | None, now: datetime
) -> timedelta | None:
    """Return when time alone changes the decision; None when only an event can."""
    looks = [LOOK_FOR_ACCELERATORS] if missing else []
    for revision in going.former:
        if since := leaving.get(revision.name):
            until = since + timedelta(seconds=revision.drain_seconds) - now
            looks.append(max(until, timedelta(seconds=1)))
    return min(looks, default=None)
