"""How far a release is: its strategy, its step, and the share that the new revision is to get.

The state is in `status.rollout`; when that is lost, the step is read off the router's weight.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from yolofleet.api.base import seconds
from yolofleet.api.detector import Detector
from yolofleet.api.rollout import APPROVAL, Step, Strategy
from yolofleet.api.status import RolloutStatus
from yolofleet.plan.capacity import bears
from yolofleet.plan.observed import Observed
from yolofleet.workloads.revision import Revision


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
    awaits: bool  # a step that is still to be walked waits for a person's word

    @property
    def walked(self) -> bool:
        """Whether no step is left: the revision may take over once it has the capacity."""
        return self.goal == 100 and not self.held


def progress(
    detector: Detector,
    observed: Observed,
    target: Revision,
    strategy: Strategy,
    *,
    stable: str,
    full: int,
    now: datetime,
) -> Progress:
    """Return where the release of `target` is, at most one step further than it was.

    stable: what the detector is released on; full: the replicas that carry the whole traffic.
    """
    rollout = detector.spec.rollout
    held = rollout.paused or detector.spec.suspend
    steps = _steps(detector, observed, target, strategy)
    known = _known(observed, target.name)
    weight = observed.weight(target.name)
    asked = _first_unapproved(detector, target.name, steps)
    if known:
        at = known.weight
    else:
        at = _reached(detector, observed, steps, weight, asked=asked, stable=stable, full=full)
    number = next((n for n, step in enumerate(steps, 1) if step.weight >= at), None)
    if number is None:
        return Progress(target.name, strategy, 0, 100, None, held, None, awaits=False)
    awaits = any(
        _waits(detector, target.name, n, step) for n, step in enumerate(steps[number - 1 :], number)
    )
    here = partial(Progress, target.name, strategy, held=held, awaits=awaits)
    step = steps[number - 1]
    if weight < step.weight or not observed.followed.counts:
        return here(number, step.weight, None, next_look=None)
    same = known is not None and known.weight == step.weight
    since = min(known.since, now) if known and same and known.since else now  # clocks are set back
    left = _left(detector, target.name, number, step, since, now)
    if held or left is None or left > timedelta():
        return here(number, step.weight, since, next_look=left)
    if number == len(steps):
        return here(0, 100, None, next_look=None)
    following = steps[number]
    if weight < following.weight:
        return here(number + 1, following.weight, None, next_look=None)
    # The route changes nothing then, so that nothing but time would have it looked at again.
    left = _left(detector, target.name, number + 1, following, now, now)
    return here(number + 1, following.weight, now, next_look=left)


def _reached(
    detector: Detector,
    observed: Observed,
    steps: list[Step],
    weight: int,
    *,
    asked: int | None,
    stable: str,
    full: int,
) -> int:
    """Return up to which weight the steps count as walked when no status tells.

    That is the router's weight: a canary's that is promoted, or of a release whose status was lost.
    But a revision may have more than its step gave it because nothing of the stable one was ready;
    that is no step walked, and nobody's approval.

    asked: the weight of the first step that waits for a person.
    """
    ready = observed.ready(stable)
    if not steps or not ready or bears(ready, full) < 100 - weight:
        return 1
    status = observed.status
    lost = status.stable is None or status.observed_generation >= detector.generation
    bounds = [steps[-1].weight] if lost else []
    bounds += [asked] if asked is not None else []
    return max(min([weight, *bounds]), 1)


def _first_unapproved(detector: Detector, revision: str, steps: list[Step]) -> int | None:
    waiting = (s for n, s in enumerate(steps, 1) if _waits(detector, revision, n, s))
    return next((step.weight for step in waiting), None)


def _waits(detector: Detector, revision: str, number: int, step: Step) -> bool:
    """Say whether the step holds until a person approves, and none has."""
    approved = detector.spec.rollout.approved
    passed = approved and approved.revision == revision and approved.step >= number
    return step.hold == APPROVAL and not passed


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
    return None if _waits(detector, revision, number, step) else timedelta()


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
