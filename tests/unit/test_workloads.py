"""Workloads: what is written is read back, and another one fits without a change elsewhere."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import yolofleet
from memory_cluster.server import a_copy
from yolofleet.api.detector import Detector
from yolofleet.plan.defaults import Defaults
from yolofleet.plan.revisions import stable_revision
from yolofleet.resources.build import leant_on
from yolofleet.workloads import choice, deployment
from yolofleet.workloads.record import controller_revision, record_in, was_released
from yolofleet.workloads.workload import PlannedRevision, Record

DETECTOR = Detector.parse(
    {
        "metadata": {"name": "gate", "namespace": "shop", "uid": "u-1", "generation": 1},
        "spec": {"model": {"uri": "demo://shapes"}},
    }
)
REVISION = stable_revision(DETECTOR, Defaults(image_cpu="c", image_torch="t", image_gpu="g"))
PLANNED = st.builds(
    PlannedRevision,
    st.just(REVISION),
    st.builds(Record, st.just(REVISION.record()), st.integers(1, 9)),
    st.integers(0, 9),
    st.booleans(),
)


@given(planned=PLANNED)
def test_a_revision_that_is_written_is_read_back(planned):
    workload = choice.workload_for(planned.revision)
    made = a_copy(workload.build(DETECTOR, planned))
    assert choice.workload_of(made) is workload
    seen = workload.read(made)
    assert (seen.name, seen.replicas, seen.ready) == (REVISION.name, planned.replicas, 0)
    assert (seen.noted.text, seen.released) == (planned.record.text, planned.released)
    kept = controller_revision(DETECTOR, planned)
    assert (record_in(kept), was_released(kept)) == (planned.record, planned.released)


def test_no_decision_and_no_builder_knows_a_workload_by_its_name():
    root = Path(yolofleet.__file__).parent
    files = [each for room in ("plan", "resources") for each in (root / room).rglob("*.py")]
    assert files
    named = re.compile("|".join(rf"\b{kind}s?\b" for kind in choice.WORKLOADS))
    assert [each.name for each in files if named.search(each.read_text())] == []


def _service_of_ray(detector, planned, /):
    made = deployment.build(detector, planned)
    group = {"groupName": "serve", "replicas": planned.replicas, "template": deployment.pod(made)}
    spec = {"rayClusterConfig": {"workerGroupSpecs": [group]}}
    return made | {"apiVersion": "ray.io/v1", "kind": "RayService", "spec": spec}


def _group(manifest):
    [group] = manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    return group


def _as_a_deployment(manifest, /):
    told = {"availableReplicas": manifest.get("status", {}).get("numServeEndpoints", 0)}
    spec = {"replicas": _group(manifest)["replicas"]}
    return deployment.read(manifest | {"spec": spec, "status": told})


RAY = SimpleNamespace(
    KIND="RayService",
    POD=r"spec\.rayClusterConfig\.workerGroupSpecs\[0\]\.template",
    build=_service_of_ray,
    read=_as_a_deployment,
    pod=lambda manifest, /: _group(manifest)["template"],
    scaled=lambda revision, /: {"apiVersion": "ray.io/v1", "kind": "RayService", "name": revision},
)


@pytest.fixture
def ray(monkeypatch):
    monkeypatch.setattr(choice, "WORKLOADS", {RAY.KIND: RAY})


def test_another_workload_is_decided_for_built_and_read_back_with_no_change_elsewhere(world, ray):
    world.edit(autoscaling={"minReplicas": 2, "maxReplicas": 4})
    world.reconcile()
    name = world.decide().stable
    made = world.children["RayService", name]
    assert not world.deployments()
    assert world.children["HorizontalPodAutoscaler", name]["spec"]["scaleTargetRef"] == {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "name": name,
    }
    made["status"] = {"numServeEndpoints": 2}
    [seen] = world.observed().revisions.values()
    assert (seen.name, seen.replicas, seen.ready) == (name, 2, 2)
    assert seen.revision is not None
    assert world.think().status.condition("Ready").status == "True"


def test_what_is_spared_while_something_is_old_follows_from_who_routes_and_who_runs():
    assert leant_on([]) == frozenset()
    assert leant_on(["PodMonitor"]) == frozenset()
    assert leant_on([deployment.KIND]) == {"ServiceAccount"}
    assert leant_on(["VirtualService"]) == {
        *("Deployment", "Service", "DestinationRule", "VirtualService", "HTTPRoute"),
        "ControllerRevision",
    }
    assert "ServiceAccount" in leant_on(["HTTPRoute", deployment.KIND])
