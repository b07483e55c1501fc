"""Services: one for each revision, for routers to weigh; and the detector's own."""

from yolofleet.api.detector import Detector
from yolofleet.api.names import (
    DETECTOR_LABEL,
    REVISION_LABEL,
    Manifest,
    child_labels,
    selector_labels,
)
from yolofleet.plan.decide import Plan
from yolofleet.resources.owner import owner
from yolofleet.resources.render import render


def revision_service(detector: Detector, revision: str) -> Manifest:
    """Return the Service of one revision."""
    labels = child_labels(detector.name) | {REVISION_LABEL: revision}
    return _service(detector, revision, labels, revision)


def stable_service(detector: Detector, plan: Plan) -> Manifest:
    """Return the detector's own Service: it selects the stable revision, mesh or none.

    Only while replicas are swapped in place without a mesh, it selects those of both revisions.
    """
    labels = child_labels(detector.name) | {REVISION_LABEL: plan.stable}
    selected = None if plan.spans else plan.stable
    return _service(detector, detector.name, labels, selected)


def _service(
    detector: Detector, name: str, labels: dict[str, str], revision: str | None
) -> Manifest:
    return render(
        "service.yaml.j2",
        name=name,
        namespace=detector.namespace,
        labels=labels,
        owner=owner(detector),
        selector=(
            selector_labels(detector.name, revision)
            if revision
            else {DETECTOR_LABEL: detector.name}
        ),
    )
