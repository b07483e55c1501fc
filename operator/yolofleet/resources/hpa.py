"""The autoscaler of the stable revision: it targets a Deployment, so it goes with the revision."""

from yolofleet.api.detector import Autoscaling, Detector
from yolofleet.api.names import REVISION_LABEL, Manifest, child_labels
from yolofleet.resources.owner import owner
from yolofleet.resources.render import render


def hpa(detector: Detector, revision: str, scaling: Autoscaling) -> Manifest:
    """Return the HorizontalPodAutoscaler of `revision`."""
    return render(
        "hpa.yaml.j2",
        name=revision,
        namespace=detector.namespace,
        labels=child_labels(detector.name) | {REVISION_LABEL: revision},
        owner=owner(detector),
        min_replicas=scaling.min_replicas,
        max_replicas=scaling.max_replicas,
        cpu=scaling.cpu,
        behavior=scaling.behavior or None,
    )
