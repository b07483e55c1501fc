"""The record of a revision: what its Deployment is made again from when somebody deletes that."""

from yolofleet.api.detector import Detector
from yolofleet.api.names import RECORD_KEY, Manifest
from yolofleet.manifests.child import child
from yolofleet.plan.decide import PlannedRevision
from yolofleet.resources.deployment import released


def controller_revision(detector: Detector, planned: PlannedRevision) -> Manifest:
    """Return the record of one revision. It names Secrets, as the spec does, and holds none.

    The record is one text: what is hashed to the revision's name has to stay as it was written,
    and the API server writes numbers as it likes (1.0 as 1).
    """
    name = planned.revision.name
    return child(
        "controller_revision.yaml.j2",
        detector,
        name,
        revision=name,
        annotations=released(planned) or None,
        data={RECORD_KEY: planned.record.text},
        number=planned.record.number,
    )
