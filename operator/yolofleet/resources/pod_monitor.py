"""What makes the Prometheus operator scrape a detector's pods, those of every revision."""

from collections.abc import Mapping

from yolofleet.api.detector import Detector
from yolofleet.api.names import DETECTOR_LABEL, REVISION_LABEL, Manifest
from yolofleet.manifests.child import child


def pod_monitor(detector: Detector, labels: Mapping[str, str]) -> Manifest:
    """Return the PodMonitor of the detector; `labels` are what Prometheus selects it by."""
    return child(
        "pod_monitor.yaml.j2",
        detector,
        detector.name,
        labels=labels,
        selector={DETECTOR_LABEL: detector.name},
        target_labels=[DETECTOR_LABEL, REVISION_LABEL],
    )
