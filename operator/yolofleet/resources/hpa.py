"""The autoscaler of the stable revision: it targets a Deployment, so it goes with the revision."""

from yolofleet.api.detector import Autoscaling, Detector
from yolofleet.api.names import Manifest
from yolofleet.manifests.child import child


def hpa(detector: Detector, revision: str, scaling: Autoscaling) -> Manifest:
    """Return the HorizontalPodAutoscaler of `revision`."""
    return child(
        "hpa.yaml.j2",
        detector,
        revision,
        revision=revision,
        min_replicas=scaling.min_replicas,
        max_replicas=scaling.max_replicas,
        cpu=scaling.cpu,
        behavior=scaling.behavior or None,
    )
