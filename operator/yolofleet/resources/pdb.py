"""Disruption budgets of what serves: a drained node never takes two replicas of one at once."""

from yolofleet.api.detector import Detector
from yolofleet.api.names import Manifest, child_labels, selector_labels
from yolofleet.resources.owner import owner
from yolofleet.resources.render import render


def pdb(detector: Detector, name: str, revision: str) -> Manifest:
    """Return the PodDisruptionBudget `name` over the pods of `revision`."""
    return render(
        "pdb.yaml.j2",
        name=name,
        namespace=detector.namespace,
        labels=child_labels(detector.name),
        owner=owner(detector),
        selector=selector_labels(detector.name, revision),
    )
