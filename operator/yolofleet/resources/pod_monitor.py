"""What makes the Prometheus operator scrape a detector's pods, those of every revision."""

from collections.abc import Mapping

from yolofleet.api.detector import Detector
from yolofleet.api.names import DETECTOR_LABEL, REVISION_LABEL, Manifest, child_labels
from yolofleet.resources.owner import owner
from yolofleet.resources.render import render


def pod_monitor(detector: Detector, labels: Mapping[str, str]) -> Manifest:
    """Return the PodMonitor of the detector; `labels` are what Prometheus selects it by."""
    return render(
        "pod_monitor.yaml.j2",
        name=detector.name,
        namespace=detector.namespace,
        labels=dict(labels) | child_labels(detector.name),
        owner=owner(detector),
        selector={DETECTOR_LABEL: detector.name},
        target_labels=[DETECTOR_LABEL, REVISION_LABEL],
    )
