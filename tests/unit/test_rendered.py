"""Pods of revisions that earlier versions of the operator rendered first stay what they are."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from yolofleet.api.detector import Detector
from yolofleet.plan.defaults import Defaults
from yolofleet.plan.revisions import stable_revision
from yolofleet.workloads import deployment
from yolofleet.workloads.workload import PlannedRevision, Record

DEFAULTS = Defaults(image_cpu="serve:cpu", image_torch="serve:torch", image_gpu="serve:gpu")
WRITTEN = {
    name: case
    for file in sorted((Path(__file__).parent / "rendered").glob("*.json"))
    for name, case in json.loads(file.read_text()).items()
}
"""As the operator of then wrote them."""


@pytest.mark.parametrize("case", WRITTEN)
def test_the_pods_of_an_earlier_render_version_are_the_same_to_the_letter(case):
    written = WRITTEN[case]
    meta = {"name": "gate", "namespace": "shop", "uid": "u", "generation": 1}
    detector = Detector.parse({"metadata": meta, "spec": written["spec"]})
    revision = replace(stable_revision(detector, DEFAULTS), render_version=written["version"])
    planned = PlannedRevision(revision, Record(revision.record()), replicas=2)
    made = deployment.build(detector, planned)["spec"]["template"]
    assert json.dumps(made, sort_keys=True) == json.dumps(written["template"], sort_keys=True)
