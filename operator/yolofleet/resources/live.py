"""The ConfigMap of what pods re-read while they run."""

from yolofleet.api.detector import Detector
from yolofleet.api.names import Manifest, live_name
from yolofleet.manifests.child import child
from yolofleet.plan.live import FILE, Shadow


def live(detector: Detector, shadow: Shadow) -> Manifest:
    """Return it with `shadow`; while there is none, there is no ConfigMap either."""
    name, data = live_name(detector.name), {FILE: shadow.text()}
    return child("config_map.yaml.j2", detector, name, data=data)
