"""Who answers in the place of a stable revision of which nothing is ready. The pointer stays."""

from collections.abc import Sequence
from dataclasses import replace
from enum import IntEnum

from yolofleet.api.detector import Detector
from yolofleet.api.rollout import Strategy
from yolofleet.plan.nodes import room
from yolofleet.plan.observed import Observed
from yolofleet.plan.roles import Release
from yolofleet.workloads.revision import Revision


def with_stand_ins(detector: Detector, observed: Observed, release: Release) -> Release:
    """Return `release` with who stands in for a stable revision of which nothing is ready."""
    back = _let_back(observed, release)
    release = replace(
        release,
        instead=_enough(observed, back, release.serving),
        awaited=tuple(name for name in back if _is_awaited(observed, release, name)),
    )
    return replace(release, answering=_answering(detector, observed, release))


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
