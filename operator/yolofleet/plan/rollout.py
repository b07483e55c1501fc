"""How far a release is: its strategy, its step, and the share that the new revision is to get.

The state is in `status.rollout`; when that is lost, the step is read off the router's weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from yolofleet.api.analysis import Stage
from yolofleet.api.base import seconds
from yolofleet.api.detector import Detector
from yolofleet.api.rollout import APPROVAL, Despite, Rollout, Step, Strategy
from yolofleet.api.status import RolloutStatus
from yolofleet.plan.capacity import share_rounded_up
from yolofleet.plan.first import measure
from yolofleet.plan.judging import Judgement, judgement
from yolofleet.plan.observed import Observed
from yolofleet.workloads.choice import workload_for
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
    judged: Judgement  # what keeps it at its step, beside time and persons
    steps: int  # how many there are
    begun: datetime | None  # None: before it was stored, and nobody knows it
    hold: str = ""  # of the step
    dark: bool = False  # it answers nobody: it sees what the stable one sees, and is judged by that
    unproved: bool = False  # nothing but what it is judged by keeps it
    following: int = 100  # the percent that it gets next

    @property
    def stage(self) -> Stage:
        """What it is judged by."""
        return Stage.DARK if self.dark else Stage.LIVE

    @property
    def walked(self) -> bool:
        """Whether no step is left: the revision may take over once it has the capacity."""
        return self.goal == 100 and not (self.held or self.unproved)


@dataclass(frozen=True, slots=True)
class _Stage:
    """A step to walk. number: among the spec's, counted from 1; 0: the dark one before these."""

    number: int
    step: Step

    @property
    def weight(self) -> int:
        return self.step.weight


DARK = Step.model_construct(weight=0, hold="2m")
"""What comes before all steps where new revisions are judged."""

USUAL = tuple(
    Step(weight=weight, hold=hold)
    for weight, hold in ((1, "2m"), (5, "2m"), (25, "5m"), (50, "5m"))
)
"""The steps of a Canary that is judged and names none."""


def steps_of(rollout: Rollout, strategy: Strategy | None) -> Sequence[Step]:
    """Return the steps that a spec has a release by `strategy` walk: its own, or the usual ones."""
    if strategy is not Strategy.CANARY:
        return ()
    return rollout.steps or (USUAL if rollout.analysis else ())


def next_progress(
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
    stages = _stages(detector, observed, target, strategy, full=full)
    begun: datetime | None = now
    if known := _known(observed, target.name, strategy):
        at = _walked(detector, observed, known, stages)
        begun = min(known.begun, now) if known.begun else None  # clocks are set back
    else:
        at = _reached(detector, observed, stages, target.name, stable=stable, full=full)
    ahead = [stage for stage in stages if stage.weight >= at]
    judged = _judged(detector, observed, target.name, stages, at, stable)
    start = Progress(
        target.name,
        strategy,
        step=0,
        goal=100,
        since=None,
        next_look=None,
        held=_is_held(detector),
        awaits=any(_waits(detector, target.name, each) for each in ahead),
        judged=judged,
        steps=sum(stage.number > 0 for stage in stages),
        begun=begun,
    )
    if ahead:
        here = _at_stage(detector, observed, start, ahead, now)
        return here or _beyond(detector, observed, start, ahead[1:], now)
    return _at_the_end(detector, observed, start, at, full=full, now=now)


def _at_stage(
    detector: Detector, observed: Observed, start: Progress, ahead: Sequence[_Stage], now: datetime
) -> Progress | None:
    """Place it at the first of the stages `ahead`; None once that is over, and proved."""
    stage, name = ahead[0], start.revision
    known = _known(observed, name, start.strategy)
    here = replace(
        start,
        step=stage.number,
        goal=stage.weight,
        dark=stage.weight == 0,
        hold=stage.step.hold,
        following=_following(ahead),
    )
    if not _has_begun(observed, name, stage):
        return here
    same = known is not None and known.weight == stage.weight
    since = min(known.since, now) if known and same and known.since else now  # clocks are set back
    left = _left(detector, name, stage, since, now)
    if start.held or left is None or left > timedelta():
        return replace(here, since=since, next_look=left)
    if start.judged.blocks:
        patience = _patience(detector, since, now)
        return replace(here, since=since, next_look=patience, unproved=True)
    return None


def _beyond(
    detector: Detector, observed: Observed, start: Progress, ahead: Sequence[_Stage], now: datetime
) -> Progress:
    """Return the progress of who has a stage behind it: the next of those `ahead`, or all."""
    if not ahead:
        return start
    stage, name = ahead[0], start.revision
    beyond = replace(
        start,
        step=stage.number,
        goal=stage.weight,
        hold=stage.step.hold,
        following=_following(ahead),
    )
    if observed.weight(name) < stage.weight:
        return beyond
    # The route changes nothing then, so that nothing but time would have it looked at again.
    return replace(beyond, since=now, next_look=_left(detector, name, stage, now, now))


def _at_the_end(
    detector: Detector, observed: Observed, start: Progress, at: int, *, full: int, now: datetime
) -> Progress:
    """Return the progress of who has no stage ahead: it takes over unless judging is against that.

    So a canary that is promoted before it passed waits with the weight it has, and who lacks pods
    yet is not released on what was seen before an outage, or failed meanwhile.
    """
    if not start.judged.blocks:
        return start
    here = replace(start, goal=at, unproved=True)
    if not full:
        return here  # nobody looks, so that no time passes
    known = _known(observed, start.revision, start.strategy)
    since = min(known.since, now) if known and known.since else now
    return replace(here, since=since, next_look=_patience(detector, since, now))


def _has_begun(observed: Observed, name: str, stage: _Stage) -> bool:
    """Say whether the time of a stage runs: its requests arrive; in the dark, it could see some."""
    if stage.weight == 0:
        return observed.ready(name) > 0
    return observed.weight(name) >= stage.weight and observed.followed.counts


def _reached(
    detector: Detector,
    observed: Observed,
    stages: list[_Stage],
    name: str,
    *,
    stable: str,
    full: int,
) -> int:
    """Return up to which weight the steps count as walked when no status tells.

    That is the router's weight: a canary's that is promoted, or of a release whose status was lost.
    But a revision may have more than its step gave it because the stable one lacked pods;
    that is no step walked, and nobody's approval. Nor is a step walked that judges, as long as
    nothing of what it showed is known: it goes on from there, and what it walked is judged again.
    """
    ready, weight = observed.ready(stable), observed.weight(name)
    asked = _first_unapproved(detector, name, stages)
    first = stages[0].weight if stages else 1
    status = observed.status
    lost = status.stable is None or status.observed_generation >= detector.generation
    lacks = lost and ready < observed.replicas(stable)
    if not stages or not ready or lacks or share_rounded_up(ready, full) < 100 - weight:
        return min(first, 1)
    bounds = [stages[-1].weight] if lost else []
    bounds += [asked] if asked is not None else []
    return max(min([weight, *bounds]), min(first, 1))


def _judged(
    detector: Detector,
    observed: Observed,
    revision: str,
    stages: Sequence[_Stage],
    at: int,
    stable: str,
) -> Judgement:
    """Say what judging says to going on, and a person to that.

    A roll-back to what was released before is not judged: it answered all there was. What cannot be
    judged in the dark is by what it answers, at the first step. To approve a step ends its pause;
    that it goes on without proof has to be said in words. at: up to which weight steps are walked;
    beyond the last one the word for that one holds.
    """
    if (seen := observed.revisions.get(revision)) and seen.released:
        return Judgement.FREE
    ahead = [stage for stage in stages if stage.weight >= at]
    dark = bool(ahead) and ahead[0].weight == 0
    said, here = detector.spec.rollout.approved, [*ahead[:1], *stages[-1:]]
    number = here[0].number if here else 0
    if said and (said.revision != revision or said.step < max(number, 1)):
        said = None
    judged = judgement(
        detector,
        observed,
        revision,
        None if at == 100 else Stage.DARK if dark else Stage.LIVE,
        following=_following(ahead),
        against=measure(detector, observed, stable, revision) if observed.ready(stable) else None,
        approved=said is not None,
    )
    if judged is Judgement.UNJUDGED and dark and len(ahead) > 1:
        return Judgement.PASSED
    if said is None:
        return judged
    unproved = judged is Judgement.WAITS and said.despite is Despite.NOT_ENOUGH_DATA
    return Judgement.FREE if unproved or judged is Judgement.UNJUDGED else judged


def _following(ahead: Sequence[_Stage]) -> int:
    """Return the percent that comes after the first of the stages `ahead`."""
    return ahead[1].weight if len(ahead) > 1 else 100


def _first_unapproved(detector: Detector, revision: str, stages: list[_Stage]) -> int | None:
    waiting = (stage for stage in stages if _waits(detector, revision, stage))
    return next((stage.weight for stage in waiting), None)


def _waits(detector: Detector, revision: str, stage: _Stage) -> bool:
    """Say whether the step holds until a person approves, and none has."""
    approved = detector.spec.rollout.approved
    passed = approved and approved.revision == revision and approved.step >= stage.number
    return stage.step.hold == APPROVAL and not passed


def _stages(
    detector: Detector, observed: Observed, target: Revision, strategy: Strategy, *, full: int
) -> list[_Stage]:
    """Return the steps to walk: none for a revision that all traffic has been to before.

    A revision that is judged begins in the dark, in a dry run too: at once released it would tell
    nothing. Where its first pod would take the place of the only one that serves, that would be an
    outage for as long: it is judged by what it answers.
    """
    seen = observed.revisions.get(target.name)
    if seen and seen.released:
        return []
    rollout = detector.spec.rollout
    stages = [_Stage(number, step) for number, step in enumerate(steps_of(rollout, strategy), 1)]
    room = strategy is not Strategy.IN_PLACE or full > 0
    if rollout.analysis and room and not (stages and stages[0].weight == 0):
        stages.insert(0, _Stage(0, DARK))
    return stages


def _known(observed: Observed, revision: str, strategy: Strategy) -> RolloutStatus | None:
    """Return what status tells of the release.

    What another strategy had as its goal, and since when, says nothing of the steps of this one: it
    goes on from what the revision has.
    """
    known = observed.status.rollout
    if not known or known.revision != revision:
        return None
    if known.strategy is strategy:
        return known
    has = min(known.weight, observed.share(revision))
    return known.model_copy(update={"strategy": strategy, "weight": has, "since": None})


def _walked(
    detector: Detector, observed: Observed, known: RolloutStatus, stages: Sequence[_Stage]
) -> int:
    """Return up to which weight the steps count as walked; steps may have been edited meanwhile.

    On its way from what it has to `known.weight` was no step: one that is there now is new, and
    nobody approved it. What it walked is not held again. A plain Service gives it no share: there,
    steps pass while nobody else is alive, and no more is known of them than who needs a word.
    """
    share, goal = observed.share(known.revision), known.weight
    if stages and known.step and all(stage.weight != goal for stage in stages):
        return min(goal, share)
    between = (stage for stage in stages if share < stage.weight < goal)
    new = (s.weight for s in between if observed.splits or _waits(detector, known.revision, s))
    return min(new, default=goal)


def _patience(detector: Detector, since: datetime, now: datetime) -> timedelta | None:
    """Return how long it is no news yet that nothing is known."""
    asked = detector.spec.rollout.analysis
    return since + timedelta(seconds=seconds(asked.max_hold)) - now if asked else None


def _left(
    detector: Detector, revision: str, stage: _Stage, since: datetime, now: datetime
) -> timedelta | None:
    """Return how long the step still holds; None until a person approves."""
    if stage.step.hold != APPROVAL:
        return since + timedelta(seconds=seconds(stage.step.hold)) - now
    return None if _waits(detector, revision, stage) else timedelta()


def _is_held(detector: Detector) -> bool:
    return detector.spec.rollout.paused or detector.spec.suspend


def strategy_for(
    detector: Detector, observed: Observed, target: Revision, *, full: int, room: int
) -> Strategy:
    """Return how `target` takes over.

    room: how many more replicas of it the free accelerators carry. Without a strategy in the spec,
    replicas are swapped in place when a second set does not fit, or no longer does, but never the
    only one: an outage needs the user's word. Nor are they where a replica that goes keeps its room
    for a while.
    """
    asked = detector.spec.rollout.strategy
    running = [each.revision for each in observed.revisions.values() if each.replicas]
    in_turn = all(workload_for(each).SWAPS for each in (target, *running))
    if asked is not None:
        return asked if in_turn or asked is not Strategy.IN_PLACE else Strategy.BLUE_GREEN
    stands = full == 1 or detector.spec.autoscaled is not None  # nothing may be given up
    if (known := observed.status.rollout) and known.revision == target.name:
        swaps = known.strategy is Strategy.IN_PLACE and not stands
        waits = known.strategy is Strategy.BLUE_GREEN and _is_held(detector)
        if swaps or waits or known.strategy is Strategy.CANARY:
            return known.strategy  # a release ends as it began
    more = full - observed.replicas(target.name) + observed.unplaced(target.name)
    gives = in_turn and full >= 2 and not detector.spec.canary and not stands
    return Strategy.IN_PLACE if gives and room < more else Strategy.BLUE_GREEN
