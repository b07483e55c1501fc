"""Replicas: how many each revision should have, and who owns the number."""

from math import ceil

from yolofleet.api.detector import Detector
from yolofleet.plan.observed import Observed


def full_capacity(detector: Detector, observed: Observed, stable: str) -> int:
    """Return the replicas that carry the whole traffic.

    Under an autoscaler that is what the stable revision runs with now, so that a promotion never
    starts below what served before it; or what the canary's replicas at its weight stand for, when
    that is more: the autoscaler sees only the load that is left to stable. Where somebody deleted
    its workload it is what status last said that it had.
    """
    scaling = detector.spec.autoscaled
    if scaling is None:
        return detector.spec.asked_replicas
    running = [
        _whole(seen.replicas, 100 if name == stable else observed.weights.get(name, 0))
        for name, seen in observed.revisions.items()
    ]
    recorded = observed.status.stable
    if recorded and recorded.revision == stable and not observed.deployed(stable):
        running.append(recorded.desired)
    most = max(running, default=0)
    return min(max(most, scaling.min_replicas), scaling.max_replicas)


def _whole(replicas: int, weight: int) -> int:
    """Return the fewest replicas of which `weight` percent, rounded up, are `replicas`."""
    return (replicas - 1) * 100 // weight + 1 if replicas and weight else 0


def canary_replicas(detector: Detector, observed: Observed, name: str, full: int) -> int:
    """Return the canary's replicas: what was asked for, else what its weight needs.

    Its present weight counts too, until the router has let go of it.
    """
    canary = detector.spec.canary
    if canary is None:
        return 0
    if canary.replicas:
        return canary.replicas
    weight = max(canary.weight, observed.weights.get(name, 0))
    return max(1, ceil(full * weight / 100))
