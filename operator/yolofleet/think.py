"""What follows from a snapshot of one detector's world: what is decided, and what is said; pure.

`reconcile` does it, the debug endpoint shows it, and the tests' worlds play it.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from yolofleet.api.detector import Detector
from yolofleet.api.names import Manifest
from yolofleet.api.status import Status
from yolofleet.plan.decide import Plan, decide
from yolofleet.plan.defaults import Defaults, judged
from yolofleet.plan.devices import claims_in_vain
from yolofleet.plan.judging import Subject, subject
from yolofleet.plan.nodes import TO_COME
from yolofleet.plan.observed import Observed, observe
from yolofleet.plan.scaler import Followed
from yolofleet.plan.snapshot import Snapshot
from yolofleet.plan.status import report
from yolofleet.resources.build import build, surroundings


@dataclass(frozen=True, slots=True)
class Thought:
    """What it comes to. desired: all children, in the order of safety in which they are written.

    detector: with what the chart says of releases, where its spec says nothing. status: what is,
    not what was wished; before any of it is written. subject: what to look at, to judge it.
    """

    detector: Detector
    observed: Observed
    plan: Plan
    desired: list[Manifest]
    status: Status
    subject: Subject | None

    @property
    def followed(self) -> Followed | None:
        """Whose load to look at."""
        return self.plan.scaling.followed if self.plan.scaling else None


def think(detector: Detector, seen: Snapshot, defaults: Defaults, *, now: datetime) -> Thought:
    """Observe, decide, build and report. Raises nothing for a parsed detector."""
    detector = judged(detector, defaults.analysis)
    if defaults.nodes_follow_pods and not claims_in_vain(detector, seen.device_classes):
        seen = replace(seen, nodes=(*seen.nodes, TO_COME))
    observed = observe(detector, seen, now=now)
    plan = decide(detector, observed, defaults, now=now)
    desired = build(detector, plan, surroundings(seen, defaults))
    status = report(detector, observed, plan, now=now)
    return Thought(
        detector,
        observed,
        plan,
        desired,
        status,
        subject(detector, observed, plan.trial, status.analysis),
    )
