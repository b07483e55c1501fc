"""The autoscaler of the stable revision: it targets a workload, so it goes with the revision."""

from collections.abc import Mapping

from yolofleet.api.detector import Autoscaling, Detector
from yolofleet.api.names import Manifest
from yolofleet.manifests.child import child


def hpa(
    detector: Detector, revision: str, target: Mapping[str, str], scaling: Autoscaling
) -> Manifest:
    """Return the HorizontalPodAutoscaler of `revision`, which scales `target`."""
    return child(
        "hpa.yaml.j2",
        detector,
        revision,
        revision=revision,
        target=target,
        min_replicas=scaling.min_replicas,
        max_replicas=scaling.max_replicas,
        cpu=scaling.cpu,
        behavior=scaling.behavior or None,
    )
