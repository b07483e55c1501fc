"""The operator as a later version of it could be: a module in place of `yolofleet`.

It renders by a higher version, and other fields have other defaults, their first ones recorded as a
real version has to: of revisions that run, nothing may change.
"""

from __future__ import annotations

from typing import Final

RENDER_VERSION: Final = 1000


def main() -> int:
    """Run the operator of another time."""
    from faults import heard
    from yolofleet import __main__ as operator
    from yolofleet.api import detector
    from yolofleet.workloads import revision

    revision.RENDER_VERSION = RENDER_VERSION
    detector.Inference.model_fields["max_detections"].default = 100
    detector.Inference.model_fields["deadline"].default = "2s"
    revision.FIRST_DEFAULTS = {"inference": {"maxDetections": 300, "deadline": "500ms"}}
    for model in (detector.Inference, detector.DetectorSpec):
        model.model_rebuild(force=True)
    heard.speak()
    return operator.main()
