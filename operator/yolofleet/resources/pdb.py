"""Disruption budgets of what serves: a drained node never takes two replicas of one at once."""

from collections.abc import Mapping
from typing import Any

from yolofleet.api.detector import Detector
from yolofleet.api.names import Manifest, selector_labels
from yolofleet.manifests.child import child


def pdb(detector: Detector, name: str, revision: str, budget: Mapping[str, Any]) -> Manifest:
    """Return the PodDisruptionBudget `name` over the pods of `revision`.

    budget: what of them may go, as their workload can say it.
    """
    return child(
        "pdb.yaml.j2",
        detector,
        name,
        selector=selector_labels(detector.name, revision),
        **budget,
    )
