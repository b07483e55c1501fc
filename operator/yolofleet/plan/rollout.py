"""How far a release is: its strategy, its step, and the share that the new revision is to get.

The state is in `status.rollout`; when that is lost, the step is read off the router's weight.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from yolofleet.api.base import seconds
from yolofleet.api.detector import Detector
from yolofleet.api.rollout import APPROVAL, Step, Strategy
from yolofleet.api.status import RolloutStatus
from yolofleet.plan.observed import Observed
from yolofleet.plan.revision import Revision


@dataclass(frozen=True, slots=True)
class Progress:
    """A release under way. `goal` is the percent of requests that the revision is to get now."""

    revision: str
    strategy: Strategy
    step: int  # counted from 1; 0: not in steps
    goal: int
    since: datetime | None  # when the router was first seen with the weight of the step
    held: bool  # paused or suspended: nothing moves on
    next_look: timedelta | None  # when the hold of the step is over

    @property
    def walked(self) -> bool:
        """Whether no step is left: the revision may take over once it has the capacity."""
        return self.goal == 100 and not self.held


def progress(
    detector: Detector, observed: Observed, target: Revision, strategy: Strategy, *, now: datetime
) -> Progress:
    """Return where the release of `target` is, at most one step further than it was."""
    rollout = detector.spec.rollout
    held = rollout.paused or detector.spec.suspend
    steps = _steps(detector, observed, target, strategy)
    known = _known(observed, target.name)
    weight = observed.weights.get(target.name, 0)
    at = known.weight if known else max(weight, 1)
    number = next((n for n, step in enumerate(steps, 1) if step.weight >= at), None)
    if number is None:
        return Progress(target.name, strategy, 0, 100, None, held, None)
    step = steps[number - 1]
    if weight < step.weight or not observed.followed.counts:
        return Progress(target.name, strategy, number, step.weight, None, held, None)
    same = known is not None and known.weight == step.weight
    since = min(known.since, now) if known and same and known.since else now  # clocks are set back
    left = _left(detector, target.name, number, step, since, now)
    if held or left is None or left > timedelta():
        return Progress(target.name, strategy, number, step.weight, since, held, left)
    if number == len(steps):
        return Progress(target.name, strategy, 0, 100, None, held, None)
    further = steps[number]
    return Progress(target.name, strategy, number + 1, further.weight, None, held, None)


def _steps(
    detector: Detector, observed: Observed, target: Revision, strategy: Strategy
) -> list[Step]:
    """Return the steps to walk: none for a revision that all traffic has been to before."""
    seen = observed.revisions.get(target.name)
    walks = strategy is Strategy.CANARY and not (seen and seen.released)
    return detector.spec.rollout.steps if walks else []


def _known(observed: Observed, revision: str) -> RolloutStatus | None:
    known = observed.status.rollout
    return known if known and known.revision == revision else None


def _left(
    detector: Detector, revision: str, number: int, step: Step, since: datetime, now: datetime
) -> timedelta | None:
    """Return how long the step still holds; None until a person approves."""
    if step.hold != APPROVAL:
        return since + timedelta(seconds=seconds(step.hold)) - now
    approved = detector.spec.rollout.approved
    passed = approved and approved.revision == revision and approved.step >= number
    return timedelta() if passed else None


def strategy_for(
    detector: Detector, observed: Observed, target: Revision, *, full: int, room: int
) -> Strategy:
    """Return how `target` takes over.

    room: how many more replicas of it the free accelerators carry. Without a strategy in the spec,
    replicas are swapped in place when a second set does not fit, but never the only one: an outage
    needs the user's word.
    """
    asked = detector.spec.rollout.strategy
    if asked is not None:
        return asked
    if known := _known(observed, target.name):
        return known.strategy  # a release ends as it began
    more = full - observed.replicas(target.name)
    swaps = full >= 2 and not detector.spec.canary and not detector.spec.autoscaling
    if room < more and swaps:
        return Strategy.IN_PLACE
    return Strategy.BLUE_GREEN
