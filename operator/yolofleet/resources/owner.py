"""The reference by which garbage collection, and nothing else, removes what a detector had."""

from yolofleet.api.detector import Detector
from yolofleet.api.names import API_VERSION, KIND


def owner(detector: Detector) -> dict[str, str | bool]:
    """Return the controller reference that every child carries."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": detector.name,
        "uid": detector.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
