"""Workloads: what is written is read back, and another one fits without a change elsewhere."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import yolofleet
from memory_cluster.server import a_copy
from yolofleet.api.detector import Detector, Engine, Ray, Runtime
from yolofleet.plan.defaults import Defaults
from yolofleet.plan.revisions import stable_revision
from yolofleet.resources.build import leant_on
from yolofleet.workloads import choice, deployment
from yolofleet.workloads.record import controller_revision, record_in, was_released
from yolofleet.workloads.workload import PlannedRevision, Record

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DETECTOR = Detector.parse(
    {
        "metadata": {"name": "gate", "namespace": "shop", "uid": "u-1", "generation": 1},
        "spec": {"model": {"uri": "demo://shapes"}},
    }
)
DEFAULTS = Defaults(image_cpu="c", image_torch="t", image_gpu="g", image_ray="r")
REVISION = stable_revision(DETECTOR, DEFAULTS)
ON_RAY = replace(REVISION, runtime=Runtime(engine=Engine.RAY, ray=Ray()))


def planned(revision):
    return st.builds(
        PlannedRevision,
        st.just(revision),
        st.builds(Record, st.just(revision.record()), st.integers(1, 9)),
        st.integers(1, 9),
        st.booleans(),
    )


@pytest.mark.parametrize("revision", [REVISION, ON_RAY], ids=["deployment", "ray"])
@given(data=st.data())
def test_a_revision_that_is_written_is_read_back(revision, data):
    plan = data.draw(planned(revision))
    workload = choice.workload_for(plan.revision)
    made = a_copy(workload.build(DETECTOR, plan))
    assert choice.workload_of(made) is workload
    seen = workload.read(made, [], NOW)
    assert (seen.name, seen.replicas, seen.ready) == (REVISION.name, plan.replicas, 0)
    assert (seen.noted.text, seen.released) == (plan.record.text, plan.released)
    kept = controller_revision(DETECTOR, plan)
    assert (record_in(kept), was_released(kept)) == (plan.record, plan.released)


def test_no_decision_and_no_builder_knows_a_workload_by_its_name():
    root = Path(yolofleet.__file__).parent
    files = [each for room in ("plan", "resources") for each in (root / room).rglob("*.py")]
    assert files
    named = re.compile("|".join(rf"\b{kind}s?\b" for kind in choice.WORKLOADS))
    assert [each.name for each in files if named.search(each.read_text())] == []


def test_what_is_spared_while_something_is_old_follows_from_who_routes_and_who_runs():
    assert leant_on([]) == frozenset()
    assert leant_on(["PodMonitor"]) == frozenset()
    assert leant_on([deployment.KIND]) == {"ServiceAccount"}
    assert leant_on(["VirtualService"]) == {
        *("Deployment", "RayService", "Service", "DestinationRule"),
        *("VirtualService", "HTTPRoute", "ControllerRevision"),
    }
    assert "ServiceAccount" in leant_on(["HTTPRoute", deployment.KIND])
