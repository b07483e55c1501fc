"""What a person types to let a release go on."""

import json

from yolofleet.api.detector import Detector
from yolofleet.api.rollout import Despite


def approval(detector: Detector, revision: str, step: int, despite: Despite | None = None) -> str:
    """Return the command that approves `revision` up to `step`."""
    patch: dict[str, str | int] = {"revision": revision, "step": step}
    if despite:
        patch["despite"] = despite.value
    edit = json.dumps({"spec": {"rollout": {"approved": patch}}}, separators=(",", ":"))
    return f"kubectl patch yd {detector.name} -n {detector.namespace} --type merge -p '{edit}'"
