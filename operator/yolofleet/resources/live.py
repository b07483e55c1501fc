"""The ConfigMap of what pods re-read while they run."""

from yolofleet.api.detector import Detector
from yolofleet.api.names import Manifest, live_name
from yolofleet.manifests.child import child
from yolofleet.plan.live import FILE


def live(detector: Detector, content: str) -> Manifest:
    """Return it; while there is nothing to tell, there is no ConfigMap either."""
    name, data = live_name(detector.name), {FILE: content}
    return child("config_map.yaml.j2", detector, name, data=data)
