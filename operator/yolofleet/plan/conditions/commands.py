"""What a person types to let a release go on."""

from yolofleet.api.detector import Detector
from yolofleet.api.rollout import Despite
from yolofleet.api.typed import Approval, patching


def approval(
    detector: Detector,
    revision: str,
    step: int,
    despite: Despite | None = None,
    failed: list[str] | None = None,
) -> str:
    """Return the command that approves `revision` up to `step`. failed: the checks to let pass."""
    said = Approval(revision, step, despite.value if despite else None, failed or None)
    return patching(detector.name, detector.namespace, said.patch())
