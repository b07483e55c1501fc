"""The Deployment of the stable revision is deleted in mid-release, and then a write fails."""

import json
from collections.abc import Iterator
from copy import deepcopy
from functools import reduce
from typing import Any

import pytest

from faults.oracles import differences
from faults.traces import SPEC, A, B
from memory_cluster.at_a_write import AT_A_WRITE
from memory_cluster.faults import (
    ALWAYS,
    CrashAfter,
    FailedAfter,
    Fault,
    Refused,
    write,
    writes_of,
)
from memory_cluster.world import NAMESPACE, World
from yolofleet.api.names import RENDER_ANNOTATION, REVISION_LABEL, Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime import objects

ROLLOUT = {"strategy": "Canary", "steps": [{"weight": 10, "hold": "Approval"}]}

FAULTS = AT_A_WRITE | {"failed after": lambda number, _: FailedAfter(write(number))}


async def in_mid_release() -> World:
    world = World()
    await world.settle()
    await world.create(**SPEC | {"rollout": ROLLOUT})
    await world.settle()
    await world.edit(model=B)
    await world.settle()
    assert world.status()["rollout"]["step"] == 1
    return world


def pointers(world: World) -> Iterator[str]:
    """Return every revision that status or the Service ever stood for since faults were set."""
    for seen in world.happened():
        if seen.kind is kinds.DETECTOR and "stable" in seen.manifest.get("status", {}):
            yield seen.manifest["status"]["stable"]["revision"]
        if seen.kind is kinds.SERVICE and seen.name == "gate" and seen.type != "DELETED":
            yield seen.manifest["metadata"]["labels"][REVISION_LABEL]


def kept(world: World) -> dict[str, Manifest]:
    return {one["metadata"]["name"]: one for one in world.server.all(kinds.RECORD)}


async def lose(world: World, *fault: Fault) -> None:
    world.suffer(*fault)
    world.remove(kinds.DEPLOYMENT, world.stable())
    await world.settle()


async def test_it_is_made_again_before_anything_else_and_gets_its_requests_back() -> None:
    world = await in_mid_release()
    before, stable = world.state(), world.stable()
    await lose(world)
    assert not differences(before, world.state())
    assert f"patch deployments/{stable}" in world.writes()
    assert set(pointers(world)) == {stable}
    assert not world.restless
    assert not world.failures


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_at_any_write_meanwhile_changes_nothing_in_the_end(fault: str) -> None:
    prepared = await in_mid_release()
    before, stable = prepared.state(), prepared.stable()
    usual = prepared.fork()
    await usual.settle()
    await lose(usual)
    wrong: dict[str, Any] = {}
    for number, name in enumerate(usual.writes(), start=1):
        world = prepared.fork()
        await world.settle()
        await lose(world, FAULTS[fault](number, world))
        told = [*differences(before, world.state()), *world.restless, *world.failures]
        told += sorted(set(pointers(world)) - {stable})
        if told:
            wrong[f"{number} ({name})"] = told
    assert not wrong


async def test_an_upgrade_writes_records_and_nothing_else_whatever_goes_wrong_with_it() -> None:
    world = await in_mid_release()
    for name in kept(world):
        world.remove(kinds.RECORD, name)
    deployments = {one["metadata"]["name"]: one for one in world.server.all(kinds.DEPLOYMENT)}
    for number in (0, 1, 2):
        upgraded = world.fork()
        upgraded.suffer(CrashAfter(write(number)))
        await upgraded.settle()
        assert set(upgraded.writes()) == {f"patch controllerrevisions/{n}" for n in deployments}
        for name, one in kept(upgraded).items():
            note = deployments[name]["metadata"]["annotations"][RENDER_ANNOTATION]
            assert one["data"] == {"record": note}
        assert upgraded.server.all(kinds.DEPLOYMENT) == list(deployments.values())
        assert not upgraded.condition("Drifted")


@pytest.mark.parametrize("code", [403, 422, 500])
async def test_records_that_are_refused_stop_no_release(code: int) -> None:
    """As without the right to write them, or where a quota is full: serving comes first."""
    world = World()
    await world.settle()
    world.suffer(Refused(writes_of(kinds.RECORD.plural), times=ALWAYS, code=code))
    await world.create(**SPEC)
    await world.settle(60)
    await world.edit(model=B)
    await world.settle(60)
    stable = world.stable()
    assert world.condition("Ready")["status"] == "True"
    assert world.status()["stable"]["model"] == B["uri"]
    assert f"ControllerRevision {stable}" in world.condition("Written")["message"]
    world.heal()
    await world.settle()
    assert stable in kept(world)
    assert not world.condition("Written")


async def test_whoever_edits_or_deletes_a_record_changes_nothing() -> None:
    world = await in_mid_release()
    before, stable = world.state(), world.stable()
    world.suffer()
    for edit in ({"labels": {"yolofleet.io/detector": "other"}}, {"ownerReferences": None}):
        world.merge(kinds.RECORD, stable, {"metadata": edit})
        await world.settle()
        assert not differences(before, world.state())
    world.remove(kinds.RECORD, stable)
    await world.settle()
    assert not differences(before, world.state())
    assert {w.split("/")[0] for w in world.writes()} <= {
        "patch controllerrevisions",
        "patch yolodetectors",
        "create events",
    }


@pytest.mark.parametrize("fault", [*FAULTS, "none"])
async def test_under_an_autoscaler_it_comes_back_with_the_replicas_that_it_had(fault: str) -> None:
    world = World()
    await world.settle()
    scaling = {"minReplicas": 2, "maxReplicas": 9, "cpu": 70}
    await world.create(**SPEC | {"autoscaling": scaling, "resources": {"requests": {"cpu": "1"}}})
    await world.settle()
    stable = world.stable()
    world.merge(
        kinds.DEPLOYMENT, stable, {"spec": {"replicas": 8}}, manager="kube-controller-manager"
    )
    await world.settle()
    assert world.status()["stable"]["ready"] == 8
    await lose(world, *([FAULTS[fault](0, world)] if fault in FAULTS else []))
    assert world.status()["stable"]["ready"] == world.status()["stable"]["desired"] == 8


async def test_one_that_is_lost_while_suspended_comes_back_with_the_replicas_that_it_had() -> None:
    world = World()
    await world.settle()
    scaling = {"minReplicas": 2, "maxReplicas": 9, "cpu": 70}
    await world.create(**SPEC | {"autoscaling": scaling, "resources": {"requests": {"cpu": "1"}}})
    await world.settle()
    scaled = {"spec": {"replicas": 8}}
    world.merge(kinds.DEPLOYMENT, world.stable(), scaled, manager="kube-controller-manager")
    await world.edit(suspend=True)
    await world.settle()
    await lose(world)
    await world.settle()
    await world.edit(suspend=False)
    await world.settle()
    assert world.status()["stable"]["ready"] == 8


@pytest.mark.parametrize("unlabelled", [False, True])
@pytest.mark.parametrize(
    "path", [("whole", "inference", "confidence"), ("render", "image"), ("render", "pullPolicy")]
)
async def test_a_note_that_others_edited_is_put_right_and_told_and_no_pod_changes(
    path: tuple[str, ...], unlabelled: bool
) -> None:
    world = await in_mid_release()
    before, stable, told = world.state(), world.stable(), kept(world)
    note = json.loads(told[stable]["data"]["record"])
    part = reduce(dict.__getitem__, path[:-1], note)
    part[path[-1]] = 0.9 if path[-1] == "confidence" else "other"
    world.suffer()
    edit: dict[str, Any] = {"annotations": {RENDER_ANNOTATION: json.dumps(note)}}
    if unlabelled:
        edit["labels"] = {"yolofleet.io/detector": None}
    world.merge(kinds.DEPLOYMENT, stable, {"metadata": edit})
    await world.settle()
    assert not differences(before, world.state())
    assert kept(world) == told
    assert world.writes().count(f"patch deployments/{stable}") == 1
    assert f"annotations.{RENDER_ANNOTATION} (set by" in world.condition("Drifted")["message"]


async def test_an_edited_note_is_left_and_not_believed_where_drift_is_only_reported() -> None:
    world = World()
    await world.settle()
    await world.create(**SPEC | {"driftPolicy": "Report"})
    await world.settle()
    stable, told = world.stable(), kept(world)
    live = world.server.find(kinds.DEPLOYMENT, NAMESPACE, stable)
    assert live
    edited = told[stable]["data"]["record"].replace('"confidence":0.25', '"confidence":0.9')
    assert edited != told[stable]["data"]["record"]
    world.merge(
        kinds.DEPLOYMENT, stable, {"metadata": {"annotations": {RENDER_ANNOTATION: edited}}}
    )
    await world.settle()
    after = world.server.find(kinds.DEPLOYMENT, NAMESPACE, stable)
    assert after
    assert after["spec"] == live["spec"]
    assert kept(world) == told
    assert world.condition("Drifted")["reason"] == "DriftLeft"


async def test_a_route_that_is_left_as_somebody_made_it_is_no_route_that_is_to_come() -> None:
    world = World()
    await world.settle()
    await world.create(**SPEC | {"driftPolicy": "Report", "canary": {"model": B, "weight": 20}})
    await world.settle()
    [route] = world.server.all(kinds.VIRTUAL_SERVICE)
    spec = deepcopy(route["spec"])
    for way, weight in zip(spec["http"][-1]["route"], (60, 40), strict=True):
        way["weight"] = weight
    world.merge(kinds.VIRTUAL_SERVICE, route["metadata"]["name"], {"spec": spec})
    await world.settle()
    await world.edit(revisionHistory=3)
    await world.settle()
    await world.pass_time(120)
    told = world.condition("TrafficRouted")
    assert (told["status"], told["reason"]) == ("False", "DriftLeft")
    assert world.condition("Stalled")["reason"] == "DriftLeft"


async def test_what_we_noted_ourselves_is_what_runs_whatever_the_record_says() -> None:
    """As after a downgrade: an older operator rendered it anew, and knew of no records."""
    world = await in_mid_release()
    stable, deployments = world.stable(), world.server.all(kinds.DEPLOYMENT)
    record = kept(world)[stable]
    older = json.loads(record["data"]["record"])
    older["render"]["image"] = "serve:later"
    world.operator = None
    world.remove(kinds.RECORD, stable)
    own = {k: v for k, v in record["metadata"].items() if k not in ("uid", "resourceVersion")}
    stale = {"metadata": own, "data": {"record": json.dumps(older)}}
    world.send("POST", kinds.RECORD.path(NAMESPACE), record | stale, manager="yolofleet")
    await world.settle()
    assert world.server.all(kinds.DEPLOYMENT) == deployments
    assert kept(world)[stable]["data"] == record["data"]


async def test_a_record_without_its_labels_is_found_when_the_deployment_is_gone() -> None:
    world = await in_mid_release()
    before, stable = world.state(), world.stable()
    world.operator = None
    nothing = dict.fromkeys(kept(world)[stable]["metadata"]["labels"])
    world.merge(kinds.RECORD, stable, {"metadata": {"labels": nothing}})
    await lose(world)
    assert not differences(before, world.state())


async def test_one_that_is_slow_to_go_is_made_again_once_it_is_gone() -> None:
    """As with `kubectl delete --cascade=foreground`: it stays until its pods have gone."""
    world = await in_mid_release()
    before, stable = world.state(), world.stable()
    world.merge(kinds.DEPLOYMENT, stable, {"metadata": {"finalizers": ["example.com/slow"]}})
    await world.settle()
    await lose(world)
    assert world.condition("Ready")["reason"] == "DeploymentDeleted"
    world.merge(kinds.DEPLOYMENT, stable, {"metadata": {"finalizers": None}})
    await world.settle()
    assert not differences(before, world.state())


async def test_two_operators_at_once_make_one_record() -> None:
    """The second one has heard of nothing that the first one did, and thinks that it leads."""
    world = World()
    await world.settle()
    first = world.operator
    world.operator = None
    await world.settle()
    second = world.operator
    assert first is not None
    assert second is not None
    world.send("POST", kinds.DETECTOR.path(NAMESPACE), _detector())
    first.hear()
    second.hear()
    await first.work()
    await second._workers.work_on(f"{NAMESPACE}/gate")
    await world.settle()
    assert [one["revision"] for one in kept(world).values()] == [1]
    assert not world.condition("Written")
    assert not world.failures


def _detector() -> Manifest:
    return {
        "apiVersion": "yolofleet.io/v1alpha1",
        "kind": "YoloDetector",
        "metadata": {"name": "gate", "namespace": NAMESPACE},
        "spec": SPEC | {"model": A},
    }


async def test_restored_records_come_with_what_is_restored_beside_them() -> None:
    """A backup of all of a namespace, without owners and without status: adopted, not remade."""
    world = await in_mid_release()
    before = {name: one["data"] for name, one in kept(world).items()}
    spec = (world.detector() or {})["spec"]
    world.remove(kinds.DETECTOR, "gate", policy="Orphan")
    world.operator = None
    await world.create(**spec)
    world.suffer()
    await world.settle()
    uid = (world.detector() or {})["metadata"]["uid"]
    assert {name: one["data"] for name, one in kept(world).items()} == before
    assert {objects.controller_uid(one) for one in kept(world).values()} == {uid}
    assert not [w for w in world.writes() if w.startswith("delete")]
