"""What makes the Prometheus operator scrape a detector's pods, those of every revision."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from yolofleet.api.detector import Detector
from yolofleet.api.names import DETECTOR_LABEL, REVISION_LABEL, Manifest
from yolofleet.api.pod_template import SERVER_PORT
from yolofleet.manifests.child import child

_REQUESTS = SERVER_PORT[0]


def pod_monitor(
    detector: Detector, labels: Mapping[str, str], ports: Mapping[str, str] | None = None
) -> Manifest:
    """Return the PodMonitor of the detector; `labels` are what Prometheus selects it by.

    ports: by revision, the name of the port on which its pods tell their metrics; of one that is
    not named it is that of requests.
    """
    elsewhere = {name: port for name, port in (ports or {}).items() if port != _REQUESTS}
    return child(
        "pod_monitor.yaml.j2",
        detector,
        detector.name,
        labels=labels,
        selector={DETECTOR_LABEL: detector.name},
        endpoints=[
            _endpoint(_REQUESTS, *_only("drop", elsewhere)),
            *(
                _endpoint(port, *_only("keep", [n for n, at in elsewhere.items() if at == port]))
                for port in sorted({*elsewhere.values()})
            ),
        ],
    )


def _endpoint(port: str, *relabelings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is scraped of a port: with `detector`, and `revision`, which tells a canary."""
    labels = [
        {"sourceLabels": [_as_discovered(label)], "targetLabel": label.rpartition("/")[2]}
        for label in (DETECTOR_LABEL, REVISION_LABEL)
    ]
    return {"port": port, "path": "/metrics", "relabelings": [*relabelings, *labels]}


def _only(action: str, revisions: Collection[str]) -> Iterable[dict[str, Any]]:
    """Keep or drop the pods of these revisions; with none, do nothing."""
    if revisions:
        names = "|".join(sorted(revisions))
        source = [_as_discovered(REVISION_LABEL)]
        yield {"sourceLabels": source, "regex": names, "action": action}


def _as_discovered(label: str) -> str:
    """Return the name that Prometheus gives a pod's label when it finds the pod."""
    return f"__meta_kubernetes_pod_label_{re.sub('[^a-zA-Z0-9]', '_', label)}"
