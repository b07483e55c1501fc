"""Disruption budgets of what serves: a drained node never takes two replicas of one at once."""

from yolofleet.api.detector import Detector
from yolofleet.api.names import Manifest, selector_labels
from yolofleet.manifests.child import child


def pdb(detector: Detector, name: str, revision: str) -> Manifest:
    """Return the PodDisruptionBudget `name` over the pods of `revision`."""
    return child(
        "pdb.yaml.j2",
        detector,
        name,
        selector=selector_labels(detector.name, revision),
    )
