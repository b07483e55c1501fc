"""Replicas: how many each revision should have, and who owns the number."""

from collections.abc import Iterator
from math import ceil

from yolofleet.api.autoscaling import Autoscaling
from yolofleet.api.detector import Detector
from yolofleet.api.rollout import Strategy
from yolofleet.plan.observed import Observed
from yolofleet.workloads.choice import workload_for


def full_capacity(detector: Detector, observed: Observed, stable: str) -> int:
    """Return the replicas that carry the whole traffic.

    Under an autoscaler that is what the stable revision runs with now, so that a promotion never
    starts below what served before it; or more, where the autoscaler sees only the load that is
    left to stable. Where somebody deleted its workload it is what status last said that it had.
    """
    scaling = detector.spec.autoscaled
    if scaling is None:
        return detector.spec.asked_replicas
    running = [observed.replicas(stable), *_by_others(detector, scaling, observed, stable)]
    recorded = observed.status.stable
    if recorded and recorded.revision == stable and not observed.deployed(stable):
        running.append(recorded.desired)
    return min(max(*running, scaling.min_replicas), scaling.max_replicas)


def given_back(detector: Detector, observed: Observed, stable: str) -> int:
    """Return the replicas that the stable revision needs beside what its autoscaler asks for.

    Its own are no part of it: the number would hold itself up.
    """
    scaling = detector.spec.autoscaled
    if scaling is None:
        return 0
    others = _by_others(detector, scaling, observed, stable)
    return min(max(others, default=0), scaling.max_replicas)


def sees_all(scaling: Autoscaling, observed: Observed, stable: str) -> bool:
    """Say whether what moves stable's number is the load of all revisions, and not its own part."""
    seen = observed.revisions.get(stable)
    alone = workload_for(seen.revision if seen else None).OWN_AUTOSCALER
    return not alone and (scaling.load is not None or scaling.in_flight is not None)


def _by_others(
    detector: Detector, scaling: Autoscaling, observed: Observed, stable: str
) -> Iterator[int]:
    """Return what the replicas of each other revision, at its weight, stand for.

    Where the load of all moves stable's number, that says it all, but of a successor, which stable
    made room for.
    """
    counted = sees_all(scaling, observed, stable)
    status, canary, left = observed.status, detector.spec.canary, observed.weights.get(stable, 0)
    told = {each.name: each for each in status.revisions}
    for name, each in observed.revisions.items():
        weight, of_stable = observed.weights.get(name, 0), observed.replicas(stable)
        replicas = each.replicas
        if name == stable or not weight:
            continue
        if status.rollout and status.rollout.revision == name:
            at_once = status.rollout.strategy is Strategy.BLUE_GREEN
            weight = 100 if at_once else max(weight, status.rollout.weight)
        elif counted:
            continue
        elif canary and status.canary and status.canary.revision == name:
            weight = max(weight, canary.weight)
        else:  # it only loses weight, while stable grows into that
            of_stable = observed.ready(stable)
            if was := told.get(name):  # its pods go after its requests: they are for what it had
                replicas, weight = min(replicas, was.desired), max(weight, was.weight)
        yield standing_for(replicas, weight, of_stable, left)


def standing_for(replicas: int, weight: int, of_stable: int, left: int) -> int:
    """Return the replicas of all requests by those that one revision has for `weight` percent.

    No more than by those of stable for the percent that is `left` to it, if any: a person may have
    named a number, and of few percent that says nothing of all.
    """
    found = whole(replicas, weight)
    return min(found, of_stable * 100 // left) if left else found


def whole(replicas: int, weight: int) -> int:
    """Return the fewest replicas of which `weight` percent, rounded up, are `replicas`."""
    return (replicas - 1) * 100 // weight + 1 if replicas else 0


def canary_replicas(detector: Detector, observed: Observed, name: str, full: int) -> int:
    """Return the canary's replicas: what was asked for, else what its weight needs.

    Its present weight counts too, until the router has let go of it, and what it has in a release.
    """
    canary = detector.spec.canary
    if canary is None:
        return 0
    if canary.replicas:
        return canary.replicas
    weight = max(canary.weight, observed.weights.get(name, 0), observed.share(name))
    return max(1, ceil(full * weight / 100))
