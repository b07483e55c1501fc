"""A child of a detector: what all of them begin with, written once."""

from collections.abc import Mapping
from typing import Any

from yolofleet.api.detector import Detector
from yolofleet.api.names import API_VERSION, KIND, REVISION_LABEL, Manifest, child_labels
from yolofleet.manifests.render import render


def child(
    template: str,
    detector: Detector,
    name: str,
    *,
    revision: str = "",
    labels: Mapping[str, str] | None = None,
    **holes: Any,
) -> Manifest:
    """Return the child `name` that `template` makes of `holes` and of the head of all children.

    revision: of which it is, alone. labels: what it carries beside ours.
    """
    ours = child_labels(detector.name) | ({REVISION_LABEL: revision} if revision else {})
    return render(
        template,
        name=name,
        namespace=detector.namespace,
        labels=dict(labels or {}) | ours,
        owner=_owner(detector),
        **holes,
    )


def _owner(detector: Detector) -> dict[str, str | bool]:
    """Return the reference by which garbage collection, and nothing else, removes children."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": detector.name,
        "uid": detector.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
