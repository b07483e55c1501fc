"""What waits for a detector reads Released, Reconciling and Stalled; kstatus and Argo CD agree."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from lupa.lua51 import LuaRuntime

from yolofleet.api.crd import UNSEEN
from yolofleet.api.names import GROUP, KIND, REVISION_LABEL
from yolofleet.api.status import Reason
from yolofleet.plan.admission import Neighbours, judge
from yolofleet.plan.status import next_look, refused

V1, V2, V3 = ({"uri": f"demo://shapes-v{n}"} for n in (1, 2, 3))
SUMMED = ("Released", "Reconciling", "Stalled")


def kstatus(raw):
    """Compute what kstatus does of a kind that it does not know, in its order.

    Source: github.com/kubernetes-sigs/cli-utils, pkg/kstatus/status: generic.go, core.go.
    """
    status = raw.get("status", {})
    if (
        status.get("observedGeneration", raw["metadata"]["generation"])
        != (raw["metadata"]["generation"])
    ):
        return "InProgress"
    conditions = status.get("conditions", ())
    for condition in conditions:
        if condition["type"] == "Reconciling" and condition["status"] == "True":
            return "InProgress"
        if condition["type"] == "Stalled" and condition["status"] == "True":
            return "Failed"
    ready = next((c["status"] for c in conditions if c["type"] == "Ready"), "True")
    return "Current" if ready == "True" else "InProgress"


def said(world, type):
    told = world.status().condition(type)
    return (told.status, told.reason) if told else None


def trues(world):
    return [c.type for c in world.status().conditions if c.type in SUMMED and c.status == "True"]


def roles(world):
    return {r.name: (r.role.value, r.weight) for r in world.status().revisions}


def fail(world, revision, **container):
    """Let a pod of `revision` fail, and none of it be ready."""
    status = {"containerStatuses": [{"name": "yoloserve", "image": "serve:1", **container}]}
    labels = {REVISION_LABEL: revision}
    world.pods = [{"metadata": {"name": "p", "labels": labels}, "status": status}]


CRASHING = {"lastState": {"terminated": {"exitCode": 1}}, "restartCount": 3}


def test_a_detector_without_a_status_is_not_current_yet():
    raw = {"metadata": {"generation": 1}, "status": UNSEEN}
    assert kstatus(raw) == "InProgress"


def test_a_settled_detector_is_released_and_current(world):
    world.settle()
    assert said(world, "Released") == ("True", "Released")
    assert said(world, "Stalled") == ("False", "NotStalled")
    assert said(world, "Reconciling") is None
    assert kstatus(world.raw) == "Current"
    assert world.status().ready == "2/2"


def test_a_release_in_steps_is_in_progress_until_its_end(world):
    world.edit(model=V1, rollout={"strategy": "Canary", "steps": [{"weight": 50, "hold": "2m"}]})
    world.settle()
    world.edit(model=V2)
    told = set()
    for _ in range(40):
        world.reconcile()
        world.run_pods()
        world.now += timedelta(seconds=20)
        moved = world.status().rollout is None
        told.add((moved, kstatus(world.raw), *trues(world)))
    assert (False, "InProgress", "Reconciling") in told
    assert told <= {
        (False, "InProgress", "Reconciling"),
        (True, "InProgress", "Reconciling"),
        (True, "Current", "Released"),
    }
    assert kstatus(world.raw) == "Current"


def test_a_step_that_waits_for_approval_is_no_stall_and_not_current(world):
    steps = [{"weight": 50, "hold": "Approval"}]
    world.edit(model=V1, rollout={"strategy": "Canary", "steps": steps})
    world.settle()
    world.edit(model=V2)
    world.settle()
    assert said(world, "Reconciling") == ("True", "AwaitingApproval")
    assert said(world, "Released") == ("False", "AwaitingApproval")
    assert kstatus(world.raw) == "InProgress"


def test_a_release_whose_pods_crash_is_stalled_while_stable_serves(world):
    world.edit(model=V1)
    world.settle()
    world.broken = {V2["uri"]}
    world.edit(model=V2)
    world.settle(3)
    fail(world, world.decide().target, **CRASHING)
    world.reconcile()
    assert said(world, "Ready") == ("True", "Serving")
    assert said(world, "Released") == ("False", "Crashed")
    assert said(world, "Stalled") == ("True", "Crashed")
    assert kstatus(world.raw) == "Failed"


def test_one_crash_is_no_stall_yet(world):
    world.broken = {"demo://shapes"}
    world.settle(1)
    fail(world, world.decide().target, **CRASHING | {"restartCount": 1})
    world.reconcile()
    assert said(world, "Progressing") == ("False", "Crashed")
    assert trues(world) == ["Reconciling"]


def test_a_pull_that_is_tried_again_and_again_stays_stalled(world):
    world.broken = {"demo://shapes"}
    world.settle(2)
    told = []
    for reason in ("ErrImagePull", "ImagePullBackOff", "ErrImagePull", "ImagePullBackOff"):
        fail(world, world.decide().target, state={"waiting": {"reason": reason}})
        world.reconcile()
        told.append(said(world, "Stalled")[0])
    assert told == ["False", "True", "True", "True"]


def test_an_invalid_spec_never_reads_as_current(world):
    world.settle()
    world.raw["metadata"]["generation"] += 1
    generation = world.raw["metadata"]["generation"]
    before = world.status()
    told = refused(
        before,
        Reason.INVALID_SPEC,
        "spec.x: is y",
        generation=generation,
        before=before,
        now=world.now,
    )
    world.raw["status"] = told.dump()
    assert said(world, "Released") == ("False", "InvalidSpec")
    assert said(world, "Stalled") == ("True", "InvalidSpec")
    assert kstatus(world.raw) == "Failed"
    assert [c.type for c in told.conditions][:2] == ["Ready", "Released"]
    world.settle(1)
    assert trues(world) == ["Released"]


def test_what_was_reached_stays_reached_when_a_pod_is_replaced(world):
    world.settle()
    [deployment] = world.deployments().values()
    deployment["status"]["availableReplicas"] = 1
    world.reconcile()
    assert said(world, "Released") == ("True", "Released")
    assert kstatus(world.raw) == "Current"
    world.edit(replicas=3)
    world.reconcile()
    assert said(world, "Released") == ("False", "Starting")


def test_a_node_that_may_be_on_its_way_is_waited_for_and_then_missed(world):
    world.broken = {"demo://shapes"}
    world.settle(1)
    fail(world, world.decide().target)
    since = world.now.isoformat()
    told = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}
    world.pods[0]["status"] = {"conditions": [told | {"lastTransitionTime": since}]}
    plan = world.reconcile()
    assert trues(world) == ["Reconciling"]
    look = next_look(world.detector(), world.observed(), plan, world.status(), now=world.now)
    assert look == timedelta(minutes=1)
    world.now += look
    world.reconcile()
    assert said(world, "Stalled") == ("True", "Unschedulable")


def test_a_mesh_that_is_missing_is_a_stall(world):
    world.mesh = False
    world.edit(traffic={"hosts": ["gate.example.com"]})
    world.settle()
    assert said(world, "Released") == ("False", "MeshAbsent")
    assert kstatus(world.raw) == "Failed"


def test_zero_replicas_are_reached_when_they_are_asked_for(world):
    world.edit(replicas=0)
    world.settle()
    assert said(world, "Ready") == ("True", "ScaledToZero")
    assert said(world, "Released") == ("True", "Released")
    assert kstatus(world.raw) == "Current"


def test_nobody_says_that_a_suspended_detector_is_as_asked(world):
    world.settle()
    world.edit(suspend=True, model=V2)
    world.reconcile()
    assert said(world, "Released") == ("Unknown", "Suspended")
    assert kstatus(world.raw) == "InProgress"


def test_a_canary_that_fails_is_a_spec_that_is_not_reached(world):
    world.settle()
    world.broken = {V2["uri"]}
    world.edit(canary={"model": V2, "weight": 10})
    world.settle(3)
    assert said(world, "Released") == ("False", "ShortOfCapacity")
    fail(world, world.decide().canary, **CRASHING)
    world.reconcile()
    assert said(world, "Stalled") == ("True", "Crashed")


def test_every_revision_that_serves_is_told_with_its_role(world):
    world.edit(model=V1, replicas=4, canary={"model": V3, "weight": 50, "replicas": 4})
    world.settle()
    assert {r[0]: r[1] for r in roles(world).values()} == {"Stable": 50, "Canary": 50}
    world.edit(model=V2, rollout={"strategy": "Canary", "steps": [{"weight": 25, "hold": "1h"}]})
    for _ in range(4):
        world.reconcile()
        world.run_pods()
    world.reconcile()
    told = {r[0]: r[1] for r in roles(world).values()}
    assert set(told) == {"Stable", "Target", "Canary"}
    assert told["Canary"] == 50  # the short forms have no place for it
    assert sum(told.values()) == 100


def test_a_former_revision_is_told_until_it_has_drained(world):
    world.edit(model=V1)
    world.settle()
    [before] = roles(world)
    world.edit(model=V2)
    seen = []
    for _ in range(30):
        world.reconcile()
        world.run_pods()
        world.now += timedelta(seconds=20)
        seen.append(roles(world).get(before, ("gone",))[0])
    assert list(dict.fromkeys(seen)) == ["Stable", "Former", "gone"]
    assert before not in world.status().serving


@pytest.mark.parametrize(
    ("pinned", "ready", "told"), [(True, 2, True), (True, 0, False), (False, 2, False)]
)
def test_the_digest_is_told_where_it_is_known(world, pinned, ready, told):
    world.edit(
        model={"uri": "https://m.example.com/a.onnx"} | ({"sha256": "5d" * 32} if pinned else {})
    )
    world.settle()
    [deployment] = world.deployments().values()
    deployment["status"]["availableReplicas"] = ready
    world.reconcile()
    [revision] = world.status().revisions
    assert revision.digest == ("5d" * 32 if told else None)


def test_nothing_of_it_changes_while_nothing_happens(world):
    world.edit(canary={"model": V2, "weight": 10})
    world.settle(20)
    before = world.raw["status"]
    for _ in range(5):
        world.now += timedelta(hours=1)
        world.reconcile()
        assert world.raw["status"] == before


EQUAL = [
    ({"requests": {"cpu": "50m"}}, {"resources": {"requests": {"cpu": "0.05"}}}),
    ({"requests": {"memory": "128Mi"}}, {"resources": {"requests": {"memory": "131072Ki"}}}),
    ({}, {"podTemplate": {}}),
    ({}, {"runtime": {"backend": "auto"}}),
    ({}, {"inference": {"confidence": 0.250}}),
]


@pytest.mark.parametrize(("resources", "canary"), EQUAL)
def test_a_canary_that_equals_stable_in_other_words_is_told(world, resources, canary):
    world.edit(resources=resources, canary=canary | {"weight": 50})
    world.settle()
    told = world.status().condition("CanaryHealthy")
    assert (told.status, told.reason) == ("False", "CanaryEqual")
    assert told.message.startswith("spec.canary: is equal to the stable revision")
    assert said(world, "Stalled") == ("True", "CanaryEqual")
    assert kstatus(world.raw) == "Failed"
    world.edit(canary=None)
    world.settle()
    assert trues(world) == ["Released"]


@pytest.mark.parametrize(("resources", "canary"), EQUAL)
def test_admission_refuses_it_from_whoever_brings_it(resources, canary):
    nobody = Neighbours((), {})
    spec = {"model": {"uri": "demo://shapes"}, "resources": resources}
    metadata = {"name": "gate", "namespace": "shop", "uid": "u", "generation": 1}
    sound = {"metadata": metadata, "spec": spec}
    equal = {"metadata": metadata, "spec": spec | {"canary": canary | {"weight": 50}}}
    for old in (None, sound):
        [told] = judge(equal, old, nobody).refusals
        assert told.startswith("spec.canary: is equal to the stable revision")
    other = {"metadata": metadata, "spec": equal["spec"] | {"replicas": 3}}
    assert judge(other, equal, nobody).refusals == ()  # what was there holds up no other edit


ARGO_CD = Path(__file__).resolve().parents[2] / "docs/deploy/argocd-health.yaml"


def argo_cd(raw):
    """Ask the health check that we ship, in the Lua that Argo CD runs: 5.1, without libraries."""
    [(name, check)] = yaml.safe_load(ARGO_CD.read_text())["data"].items()
    assert name == f"resource.customizations.health.{GROUP}_{KIND}"
    lua = LuaRuntime(register_eval=False)
    table = lua.table_from(json.loads(json.dumps(raw, default=str)), recursive=True)
    health = lua.execute(f"local obj = ...\n{check}", table)
    return health.status, health.message


AGREE = {
    "Current": {"Healthy"},
    "InProgress": {"Progressing", "Suspended"},
    "Failed": {"Degraded"},
}
"""What Argo CD may say where kstatus says so."""


def test_argo_cd_waits_for_an_operator_that_has_not_spoken():
    assert argo_cd({"metadata": {"generation": 1}})[0] == "Progressing"
    assert argo_cd({"metadata": {"generation": 1}, "status": UNSEEN})[0] == "Progressing"


def test_argo_cd_shows_a_wait_for_a_person_as_suspended(world):
    steps = [{"weight": 50, "hold": "Approval"}]
    world.edit(model=V1, rollout={"strategy": "Canary", "steps": steps})
    world.settle()
    assert argo_cd(world.raw)[0] == "Healthy"
    world.edit(model=V2)
    assert argo_cd(world.raw) == ("Progressing", "waits for the operator")
    world.settle()
    assert argo_cd(world.raw)[0] == "Suspended"
    assert "kubectl patch yd gate" in argo_cd(world.raw)[1]
    world.edit(suspend=True)
    world.reconcile()
    assert argo_cd(world.raw)[0] == "Suspended"


def test_argo_cd_shows_a_wait_for_replicas_to_be_judged_by_as_suspended(world):
    world.edit(model=V1, replicas=0, rollout={"strategy": "BlueGreen", "analysis": {}})
    world.settle()
    assert argo_cd(world.raw)[0] == "Healthy"
    world.edit(model=V2)
    world.settle()
    assert argo_cd(world.raw)[0] == "Suspended"
    assert "spec.replicas is 0" in argo_cd(world.raw)[1]


CHANGES = st.sampled_from(
    [
        {"model": V1},
        {"model": V2},
        {"model": V3},
        {"replicas": 0},
        {"replicas": 3},
        {"suspend": True},
        {"suspend": None},
        {"canary": {"model": V3, "weight": 30}},
        {"canary": None},
        {"traffic": {"hosts": ["gate.example.com"], "gateways": ["istio-system/public"]}},
        {"rollout": {"strategy": "Canary", "steps": [{"weight": 50, "hold": "30s"}]}},
        {"rollout": {"paused": True}},
    ]
)


@settings(max_examples=60, deadline=None)
@given(changes=st.lists(st.tuples(CHANGES, st.booleans(), st.integers(0, 4)), max_size=6))
def test_all_who_wait_for_a_detector_agree_at_any_time(new_world, changes):
    world = new_world()
    for change, breaks, rounds in changes:
        world.edit(**change)
        world.broken = {V2["uri"]} if breaks else set()
        for _ in range(rounds):
            world.reconcile()
            if breaks:
                fail(world, world.decide().target, **CRASHING)
            else:
                world.pods = []
            world.run_pods()
            world.now += timedelta(seconds=40)
        world.reconcile()
        told, (argo, _) = kstatus(world.raw), argo_cd(world.raw)
        assert argo in AGREE[told]
        assert len(trues(world)) == 1
        plan = world.decide()
        if told == "Current":
            assert plan.progress is None
            assert said(world, "Released") == ("True", "Released")
