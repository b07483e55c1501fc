"""The autoscaler of the stable revision: it targets a workload, so it goes with the revision."""

from collections.abc import Mapping
from typing import Any, Final

from yolofleet.api.autoscaling import Autoscaling
from yolofleet.api.detector import Detector
from yolofleet.api.names import Manifest
from yolofleet.manifests.child import child
from yolofleet.plan.scaler import Scaling

_UP: Final = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Percent", "value": 100, "periodSeconds": 15},
        {"type": "Pods", "value": 2, "periodSeconds": 15},
    ],
}
_DOWN: Final = {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}
_DOWN_S: Final = 300
_DOWN_GPU_S: Final = 600  # what starts anew there takes minutes

_NEVER_MORE: Final = {
    "name": "cpu",
    "target": {"type": "AverageValue", "averageValue": "1k"},  # cores of each: it asks for one pod
}
"""In the place of no metric, for which the API server would fill in 80 percent of cpu."""


def hpa(detector: Detector, revision: str, target: Mapping[str, str], scaling: Scaling) -> Manifest:
    """Return the HorizontalPodAutoscaler of `revision`, which scales `target`."""
    cpu = scaling.asked.cpu_target
    usual = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": cpu}}
    return child(
        "hpa.yaml.j2",
        detector,
        revision,
        revision=revision,
        target=target,
        min_replicas=scaling.least,
        max_replicas=scaling.asked.max_replicas,
        metrics=[{"type": "Resource", "resource": usual if cpu else _NEVER_MORE}],
        behavior=behavior(scaling.asked) or None,
    )


def behavior(asked: Autoscaling) -> dict[str, Any]:
    """Return how fast replicas come and go: as asked, else as is good where the load is known."""
    if not asked.by_load:
        return asked.behavior
    down = {"stabilizationWindowSeconds": _DOWN_S if asked.gpu is None else _DOWN_GPU_S} | _DOWN
    return {"scaleUp": _UP, "scaleDown": down} | asked.behavior
