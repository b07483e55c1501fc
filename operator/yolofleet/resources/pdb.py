"""The disruption budget of the stable pods: a drained node never takes two replicas at once."""

from yolofleet.api.detector import Detector
from yolofleet.api.names import Manifest, child_labels, selector_labels
from yolofleet.resources.owner import owner
from yolofleet.resources.render import render


def pdb(detector: Detector, revision: str) -> Manifest:
    """Return the PodDisruptionBudget over the pods of `revision`, the stable one."""
    return render(
        "pdb.yaml.j2",
        name=detector.name,
        namespace=detector.namespace,
        labels=child_labels(detector.name),
        owner=owner(detector),
        selector=selector_labels(detector.name, revision),
    )
