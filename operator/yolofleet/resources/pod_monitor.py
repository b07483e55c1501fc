"""What makes the Prometheus operator scrape a detector's pods, those of every revision."""

import re
from collections.abc import Mapping, Sequence

from yolofleet.api.detector import Detector
from yolofleet.api.names import DETECTOR_LABEL, REVISION_LABEL, Manifest
from yolofleet.manifests.child import child


def pod_monitor(detector: Detector, labels: Mapping[str, str], but: Sequence[str] = ()) -> Manifest:
    """Return the PodMonitor of the detector; `labels` are what Prometheus selects it by.

    but: revisions whose port of requests leads to any of their pods, so that none tells its own.
    """
    return child(
        "pod_monitor.yaml.j2",
        detector,
        detector.name,
        labels=labels,
        selector={DETECTOR_LABEL: detector.name},
        but=[{"key": REVISION_LABEL, "operator": "NotIn", "values": sorted(but)}] if but else None,
        relabelings=[
            {"sourceLabels": [_as_discovered(label)], "targetLabel": label.rpartition("/")[2]}
            for label in (DETECTOR_LABEL, REVISION_LABEL)
        ],
    )


def _as_discovered(label: str) -> str:
    """Return the name that Prometheus gives a pod's label when it finds the pod."""
    return f"__meta_kubernetes_pod_label_{re.sub('[^a-zA-Z0-9]', '_', label)}"
