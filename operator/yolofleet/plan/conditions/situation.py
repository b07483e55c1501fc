"""What a check may look at: the spec, the one snapshot and the plan, and how they read together."""

from dataclasses import dataclass, field, replace
from datetime import datetime

from yolofleet.api.detector import Detector
from yolofleet.api.status import RevisionStatus
from yolofleet.plan.decide import Plan
from yolofleet.plan.observed import Observed
from yolofleet.plan.remaking import words
from yolofleet.workloads.failures import PATIENCE, Failure


@dataclass(frozen=True, slots=True)
class Situation:
    """One detector at one moment."""

    detector: Detector
    observed: Observed
    plan: Plan
    time: datetime
    _known: dict[str, RevisionStatus] = field(default_factory=dict, repr=False, compare=False)

    def lasts(self, since: datetime | None) -> bool:
        """Say whether what is so since then has had its time to put itself right."""
        return since is None or self.time - since >= PATIENCE

    def revision(self, name: str) -> RevisionStatus:
        """Return `name` as it is: many ask for the same few."""
        if name not in self._known:
            self._known[name] = self._revision(name)
        return self._known[name]

    def _revision(self, name: str) -> RevisionStatus:
        seen, planned = self.observed.revisions.get(name), self.plan.replicas(name)
        revisions = (p.revision for p in self.plan.revisions)
        return RevisionStatus(
            revision=name,
            model=next((r.model.shown for r in revisions if r.name == name), ""),
            ready=self.observed.ready(name),
            desired=(seen.replicas if seen else 0) if planned is None else planned,
            weight=self._weight(name),
        )

    def count(self, name: str) -> str:
        """Say how many replicas of `name` are ready."""
        status = self.revision(name)
        return f"{name}: {status.ready} of {status.desired} replicas are ready"

    def failure(self, name: str) -> Failure | None:
        """Say what keeps `name` from serving, if anything is known to."""
        seen = self.observed.revisions.get(name)
        if seen is None or seen.failure is None:
            return None
        done = words(self.plan.remaking.times.get(name, 0))
        return replace(seen.failure, message=f"{name}: {seen.failure.message}{done}")

    def whole(self, name: str) -> bool:
        """Say whether `name` has all the replicas that it is to have."""
        full = self.plan.full if self.plan.progress and name == self.plan.target else 0
        status = self.revision(name)
        return status.ready >= max(status.desired, full)

    def lacks_accelerators(self, name: str) -> bool:
        """Say whether `name` is the revision for which no node has accelerators."""
        return bool(self.plan.missing and self.plan.missing.startswith(f"{name}:"))

    def _weight(self, name: str) -> int:
        """Return its percent of requests; of a Service that spans, stable has what is left."""
        if self.plan.splits or not self.observed.service.spans or name != self.plan.stable:
            return self.observed.weight(name)
        others = self.observed.revisions.keys() - {name}
        return 100 - sum(map(self.observed.weight, others))
