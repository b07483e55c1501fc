"""Revisions on Ray, with a KubeRay that is played: releases across engines, and what goes wrong."""

import json
from collections.abc import Iterator
from math import ceil
from typing import Any

import pytest

from faults.oracles import differences
from faults.traces import SPEC, B
from memory_cluster.controllers import is_ready, revision_of
from memory_cluster.faults import CrashAfter, Fault, write
from memory_cluster.kuberay import KubeRay
from memory_cluster.world import NAMESPACE, World
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.workloads.serve_config import ServeConfig

ABSENT = (kinds.HTTP_ROUTE, kinds.GATEWAY, kinds.POD_MONITOR, kinds.SCALED_OBJECT)
RAY = {"engine": "ray"}
REDIS = {"engine": "ray", "ray": {"redis": {"address": "redis.shop.svc:6379"}}}
STEPS = {
    "strategy": "Canary",
    "steps": [{"weight": 10, "hold": "1m"}, {"weight": 50, "hold": "1m"}],
}


async def released(**spec: Any) -> tuple[World, KubeRay]:
    """Return a world with KubeRay, and a detector that is released."""
    world, kuberay = World(absent=ABSENT), KubeRay()
    world.controllers.others.append(kuberay)
    await world.settle()
    await world.create(**SPEC | spec)
    await world.settle()
    assert world.condition("Released")["status"] == "True", world.status()
    world.suffer()
    return world, kuberay


def service(world: World, revision: str = "") -> Manifest:
    found = world.server.find(kinds.RAY_SERVICE, NAMESPACE, revision or world.stable())
    assert found
    return found


def config(world: World, revision: str = "") -> Any:
    found = ServeConfig.read(service(world, revision)["spec"]["serveConfigV2"])
    assert found
    return found.deployment


def bounds(world: World) -> tuple[int, int]:
    """Return between which numbers Serve keeps the stable revision's replicas."""
    found = config(world).autoscaling_config
    return found.min_replicas, found.max_replicas


def workers(world: World, revision: str = "") -> list[Manifest]:
    name = revision or world.stable()
    return [pod for pod in world.server.all(kinds.POD) if revision_of(pod) == name]


def uids(pods: list[Manifest]) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods}


def weights(world: World) -> dict[str, int]:
    return {r["name"]: r["weight"] for r in world.status()["revisions"] if r["weight"]}


def weights_over_time(world: World) -> Iterator[dict[str, int]]:
    for seen in world.happened():
        if seen.kind is kinds.VIRTUAL_SERVICE:
            to = seen.manifest["spec"]["http"][-1]["route"]
            yield {each["destination"]["host"].split(".")[0]: each["weight"] for each in to}


def is_safe(world: World) -> bool:
    assert not world.unsafe(), world.unsafe()
    assert not world.failures, world.failures
    assert not world.restless, world.restless
    return True


async def test_a_detector_on_ray_serves_by_the_same_service_and_route() -> None:
    world, _ = await released(runtime=RAY)
    stable = world.stable()
    assert world.status()["ready"] == "2/2"
    assert weights(world) == {stable: 100}
    assert not world.server.all(kinds.DEPLOYMENT)
    selector = world.server.find(kinds.SERVICE, NAMESPACE, stable)["spec"]["selector"]  # type: ignore[index]
    assert all(selector.items() <= pod["metadata"]["labels"].items() for pod in workers(world))
    assert world.condition("HeadNotRedundant")["reason"] == "NoRedis"
    assert is_safe(world)


@pytest.mark.parametrize("strategy", [{"strategy": "BlueGreen"}, STEPS])
@pytest.mark.parametrize(("before", "after"), [({}, RAY), (RAY, {"engine": "deployment"})])
async def test_a_release_from_one_engine_to_the_other_loses_nothing(
    strategy: Any, before: Any, after: Any
) -> None:
    world, _ = await released(runtime=before, rollout=strategy)
    old = world.stable()
    await world.edit(runtime=after)
    await world.settle()
    new = world.stable()
    assert new != old
    assert weights(world) == {new: 100}
    assert not workers(world, old), "they drained, and went"
    assert len(workers(world, new)) == 2
    if strategy is STEPS:
        assert {10, 50, 100} <= {each.get(new, 0) for each in weights_over_time(world)}
    assert is_safe(world)


async def test_a_former_revision_on_ray_is_a_record_alone_and_a_roll_back_makes_it_again() -> None:
    world, _ = await released(runtime=RAY, rollout={"strategy": "BlueGreen"})
    old = world.stable()
    await world.edit(runtime={"engine": "deployment"})
    await world.settle()
    assert not world.server.all(kinds.RAY_SERVICE), "a head costs something at zero replicas"
    assert world.server.find(kinds.RECORD, NAMESPACE, old)
    await world.edit(runtime=RAY)
    await world.settle()
    assert world.stable() == old
    assert world.status()["ready"] == "2/2"
    assert is_safe(world)


async def test_a_canary_on_ray_is_promoted_without_a_pod_more() -> None:
    world, _ = await released()
    await world.edit(canary={"runtime": RAY, "weight": 50, "replicas": 2})
    await world.settle()
    canary = world.status()["canary"]["revision"]
    assert weights(world) == {world.stable(): 50, canary: 50}
    before = uids(workers(world, canary))
    await world.edit(canary=None, runtime=RAY)
    await world.settle()
    assert world.stable() == canary
    assert uids(workers(world)) == before
    assert weights(world) == {canary: 100}
    assert is_safe(world)


async def test_a_canary_on_ray_that_is_called_off_leaves_nothing() -> None:
    world, _ = await released()
    stable = world.stable()
    await world.edit(canary={"runtime": RAY, "weight": 10, "replicas": 1})
    await world.settle()
    await world.edit(canary=None)
    await world.settle()
    assert (world.stable(), weights(world)) == (stable, {stable: 100})
    assert not world.server.all(kinds.RAY_SERVICE)
    assert is_safe(world)


@pytest.mark.parametrize(("engine", "other"), [({}, RAY), (RAY, {"engine": "deployment"})])
async def test_a_canary_on_the_other_engine_has_a_shadow_and_requests_of_its_own(
    engine: Any, other: Any
) -> None:
    """Whoever answers reads who is to be shown copies; those go to the canary's Service."""
    world, _ = await released(runtime=engine)
    match = [{"headers": {"x-arm": {"exact": "b"}}}]
    asked = {"runtime": other, "replicas": 1, "shadow": 100, "match": match}
    await world.edit(canary=asked)
    await world.settle(120.0)  # shorter than a shadow is renewed
    stable, canary = world.stable(), world.status()["canary"]["revision"]
    (live,) = world.server.all(kinds.CONFIG_MAP)
    assert json.loads(live["data"]["live.json"])["shadow"]["revision"] == canary
    for pod in (*workers(world, stable), *workers(world, canary)):
        read = [each.get("configMap", {}).get("name") for each in pod["spec"]["volumes"]]
        assert live["metadata"]["name"] in read
    assert world.server.find(kinds.SERVICE, NAMESPACE, canary)
    route = world.server.all(kinds.VIRTUAL_SERVICE)[0]["spec"]["http"]
    (to,) = route[0]["route"]
    assert (route[0]["match"], to["destination"]["host"].split(".")[0]) == (match, canary)
    assert weights(world) == {stable: 100}
    assert not world.unsafe(), world.unsafe()


async def test_ray_to_ray_goes_by_a_second_cluster_and_the_old_one_gives_up_what_is_taken() -> None:
    rollout = STEPS | {"maxSurge": 1}
    world, _kuberay = await released(runtime=RAY, replicas=4, rollout=rollout)
    old = world.stable()
    await world.edit(model=B)
    await world.settle()
    assert world.stable() != old
    assert len(workers(world)) == 4
    most = 0
    pods: set[str] = set()
    for seen in world.server.history:
        if seen.kind is kinds.POD:
            (pods.discard if seen.type == "DELETED" else pods.add)(seen.name)
            most = max(most, len(pods))
    assert most == 5, "never more than the replicas and the surge"
    assert is_safe(world)


async def test_replicas_and_queue_bounds_change_in_place() -> None:
    world, _kuberay = await released(runtime=RAY)
    stable, before = world.stable(), uids(workers(world))
    cluster = service(world)["spec"]["rayClusterConfig"]
    await world.edit(replicas=3, rayServe={"maxOngoingRequests": 5, "maxQueuedRequests": 2})
    await world.settle()
    assert (world.stable(), bounds(world)) == (stable, (3, 3))
    assert (config(world).max_ongoing_requests, config(world).max_queued_requests) == (5, 2)
    assert before < uids(workers(world))
    cluster["workerGroupSpecs"][0]["replicas"] = 3
    assert service(world)["spec"]["rayClusterConfig"] == cluster
    assert is_safe(world)


async def test_zero_replicas_take_the_cluster_away_and_more_bring_it_back() -> None:
    world, _ = await released(runtime=RAY)
    stable = world.stable()
    await world.edit(replicas=0)
    await world.settle()
    assert not world.server.all(kinds.RAY_SERVICE)
    assert world.condition("Ready")["reason"] == "ScaledToZero"
    await world.edit(replicas=2)
    await world.settle()
    assert (world.stable(), world.status()["ready"]) == (stable, "2/2")
    assert not world.restless


async def test_suspended_nothing_is_touched() -> None:
    world, _ = await released(runtime=RAY)
    await world.edit(suspend=True)
    await world.settle()
    world.suffer()
    await world.edit(replicas=4, model=B)
    await world.settle()
    assert len(workers(world)) == 2
    assert {write.split("/")[0] for write in world.writes()} <= {
        "patch yolodetectors",
        "create events",
    }


async def test_what_others_change_of_a_ray_service_is_put_right() -> None:
    world, kuberay = await released(runtime=RAY)
    wanted = service(world)["spec"]
    kuberay.ill.add(world.stable())  # so that there is something to be said of its pods
    kuberay(world.server)
    kuberay.idle = True
    nobody = {"spec": {"rayClusterConfig": {"workerGroupSpecs": []}}}
    world.merge(kinds.RAY_SERVICE, world.stable(), nobody)
    await world.settle()
    assert service(world)["spec"] == wanted
    kuberay.idle = False
    world.merge(
        kinds.RAY_SERVICE, world.stable(), {"spec": {"upgradeStrategy": {"type": "NewCluster"}}}
    )
    world.merge(kinds.RAY_SERVICE, world.stable(), {"spec": {"serveConfigV2": "{}"}})
    await world.settle()
    assert service(world)["spec"] == wanted
    assert world.condition("Drifted")["reason"] == "DriftRepaired"
    assert not world.failures


async def test_a_ray_service_that_was_deleted_is_made_again_from_its_record() -> None:
    world, _ = await released(runtime=RAY, rollout=STEPS)
    stable = world.stable()
    world.remove(kinds.RAY_SERVICE, stable)
    await world.settle()
    assert (world.stable(), world.status()["ready"]) == (stable, "2/2")
    assert not world.restless


async def given_up() -> tuple[World, str]:
    """Return a world whose next revision never starts, long after, and its stable revision."""
    world, kuberay = await released(runtime=RAY, rollout={"strategy": "BlueGreen"})
    world.broken.add(B["uri"] + '"')
    kuberay.failing.add(B["uri"] + '"')
    stable = world.stable()
    await world.edit(model=B)
    await world.settle(1200)
    return world, stable


async def test_one_that_never_starts_is_made_anew_three_times_and_then_told() -> None:
    world, stable = await given_up()
    made = {s.uid for s in world.happened() if s.kind is kinds.RAY_SERVICE and s.name != stable}
    assert len(made) == 4
    assert world.stable() == stable
    assert weights(world) == {stable: 100}
    progressing = world.condition("Progressing")
    assert progressing["reason"] == "DeployFailed"
    assert "DigestMismatch: the file has another digest" in progressing["message"]
    assert "Traceback" not in progressing["message"]
    assert "made anew 3 times, and is left as it is" in progressing["message"]
    assert [each["times"] for each in world.status()["remade"]] == [3]
    assert is_safe(world)


async def test_how_often_outlives_a_status_that_is_lost() -> None:
    world, stable = await given_up()
    forget = {"status": {}}
    path = kinds.DETECTOR.path(NAMESPACE, "gate", "status")
    world.send("PUT", path, (world.detector() or {}) | forget)
    await world.settle(1200)
    made = {s.uid for s in world.happened() if s.kind is kinds.RAY_SERVICE and s.name != stable}
    assert len(made) == 4


async def test_one_that_served_is_left_alone_also_when_kuberay_knows_nothing_of_it_any_more() -> (
    None
):
    world, kuberay = await released(runtime=RAY)
    stable = world.stable()
    uid = service(world)["metadata"]["uid"]
    kuberay.failing.add("demo://shapes")
    world.broken.add("demo://shapes")
    path = kinds.RAY_SERVICE.path(NAMESPACE, stable, "status")
    world.send("PUT", path, service(world) | {"status": {}})
    for pod in workers(world):
        world.remove(kinds.POD, pod["metadata"]["name"])
    world = world.fork()
    world.controllers.others.append(kuberay)
    await world.settle(1200)
    assert service(world)["metadata"]["uid"] == uid
    assert "remade" not in world.status()


async def test_without_the_right_to_ray_services_what_serves_keeps_requests_and_walls() -> None:
    beside = {"runtime": {"engine": "deployment"}, "weight": 10, "replicas": 1}
    world, _ = await released(runtime=RAY, replicas=4, canary=beside)
    stable, canary = world.stable(), world.status()["canary"]["revision"]
    before = world.children().keys()
    world = world.fork()
    world.server.absent.add(kinds.RAY_SERVICE)
    await world.settle()
    gone = {kind for kind, _ in before - world.children().keys()}
    assert gone <= {"RayService"}, "nobody is let in at Ray's ports"
    assert weights(world) == {stable: 90, canary: 10}
    for pod in workers(world, stable):
        world.remove(kinds.POD, pod["metadata"]["name"])
    await world.settle()
    assert weights(world) == {canary: 100}, "to who is alive"
    assert world.condition("Ready")["reason"] == "EngineAbsent"
    assert not world.failures


async def test_without_it_an_invalid_spec_is_not_taken_for_a_deletion() -> None:
    world, _ = await released(runtime=RAY, replicas=2)
    stable = world.stable()
    world = world.fork()
    world.server.absent.add(kinds.RAY_SERVICE)
    await world.edit(inference={"deadline": "soon"})
    await world.settle()
    assert world.condition("Progressing")["reason"] == "InvalidSpec"
    assert world.status()["ready"] == "2/2", "workers answer, seen or not"
    assert world.condition("Ready")["status"] == "True"
    for pod in workers(world, stable):
        world.remove(kinds.POD, pod["metadata"]["name"])
    await world.settle()
    told = world.condition("Ready")
    assert (told["status"], told["reason"]) == ("False", "EngineAbsent")
    assert "deleted" not in told["message"]
    assert not world.failures


async def test_without_it_a_release_to_a_deployment_still_loses_nothing() -> None:
    world, _ = await released(runtime=RAY, replicas=4, rollout=STEPS)
    stable = world.stable()
    world = world.fork()
    world.server.absent.add(kinds.RAY_SERVICE)
    await world.settle()
    world.suffer()
    await world.edit(runtime={"engine": "deployment"})
    await world.settle()
    assert world.stable() != stable
    assert {10, 50, 100} <= {100 - each.get(stable, 0) for each in weights_over_time(world)}
    assert is_safe(world)
    world = world.fork()
    world.server.absent.discard(kinds.RAY_SERVICE)
    world.controllers.others.append(KubeRay())
    await world.settle()
    assert ("RayService", stable) not in world.children(), "taken away once that may be done"
    assert ("NetworkPolicy", stable) not in world.children()
    assert is_safe(world)


async def test_one_that_served_is_left_alone_whatever_ray_says_of_it() -> None:
    world, kuberay = await released(runtime=RAY)
    uid = service(world)["metadata"]["uid"]
    kuberay.ill.add(world.stable())
    world.controllers.settle()
    await world.settle()
    assert world.status()["ready"] == "2/2", "its pods answer"
    kuberay.failing.add("demo://shapes")
    world.broken.add("demo://shapes")
    world.controllers.settle()
    await world.settle(1200)
    assert service(world)["metadata"]["uid"] == uid
    assert world.condition("Ready")["reason"] == "DeployFailed"
    assert "remade" not in world.status()


@pytest.mark.parametrize("runtime", [RAY, REDIS])
async def test_a_lost_head_takes_its_workers_unless_there_is_a_redis(runtime: Any) -> None:
    world, kuberay = await released(
        runtime=runtime, canary={"runtime": {"engine": "deployment"}, "weight": 10, "replicas": 1}
    )
    stable, canary = world.stable(), world.status()["canary"]["revision"]
    kuberay.headless.add(stable)
    world.controllers.settle()
    await world.settle()
    assert world.stable() == stable, "the pointer stays"
    if runtime is REDIS:
        assert weights(world) == {stable: 90, canary: 10}
        assert not world.condition("HeadNotRedundant")
    else:
        assert weights(world) == {canary: 100}, "to who is alive"
        assert world.condition("Ready")["reason"] == "HeadLost"
    kuberay.headless.clear()
    world.controllers.settle()
    await world.settle()
    assert weights(world) == {stable: 90, canary: 10}


@pytest.mark.parametrize("strategy", [{"strategy": "BlueGreen"}, STEPS])
async def test_a_head_lost_soon_after_a_release_gives_requests_back_to_what_drains(
    strategy: Any,
) -> None:
    world, kuberay = await released(rollout=strategy)
    old = world.stable()
    await world.edit(runtime=RAY)
    while world.stable() == old or not world.status().get("draining"):
        world.controllers.step()
        await world.pass_time(5.0)
    new = world.stable()
    assert weights(world) == {new: 100}
    kuberay.headless.add(new)
    world.controllers.settle()
    await world.settle()
    assert world.stable() == new, "the pointer stays"
    assert weights(world) == {old: 100}
    assert f"meanwhile requests go to {old}" in world.condition("Ready")["message"]
    kuberay.headless.clear()
    world.controllers.settle()
    await world.settle()
    assert weights(world) == {new: 100}
    assert not workers(world, old)
    assert is_safe(world)


async def test_the_old_autoscaler_goes_before_rays_own_begins_and_what_ran_stays() -> None:
    scaling = {"minReplicas": 1, "maxReplicas": 6, "inFlight": 4}
    resources = {"requests": {"cpu": "1"}}
    world, kuberay = World(absent=ABSENT), KubeRay()
    world.controllers.others.append(kuberay)
    world.controllers.wants = lambda _autoscaler, _replicas: 3
    await world.settle()
    without = {name: value for name, value in SPEC.items() if name != "replicas"}
    await world.create(**without, autoscaling=scaling, resources=resources)
    await world.settle()
    assert world.status()["ready"] == "3/3"
    world.suffer()
    await world.edit(runtime=RAY)
    await world.settle()
    assert not world.server.all(kinds.HPA)
    assert bounds(world) == (1, 6)
    assert config(world).autoscaling_config.target_ongoing_requests == 4
    gone = [s.version for s in world.happened() if s.kind is kinds.HPA and s.type == "DELETED"]
    begun = [
        s.version
        for s in world.happened()
        if s.kind is kinds.RAY_SERVICE
        and '"max_replicas": 6' in s.manifest["spec"]["serveConfigV2"]
    ]
    assert gone[-1] < begun[0]
    assert world.status()["ready"] == "3/3"
    assert is_safe(world)


async def scaled_by_ray(scaling: Any) -> tuple[World, KubeRay]:
    """Return a world with KubeRay, and a detector on it whose number is Ray's own."""
    world, kuberay = World(absent=ABSENT), KubeRay()
    world.controllers.others.append(kuberay)
    await world.settle()
    without = {name: value for name, value in SPEC.items() if name != "replicas"}
    await world.create(**without, autoscaling=scaling, runtime=RAY)
    await world.settle()
    return world, kuberay


async def test_ray_moves_its_replicas_and_another_bound_leaves_what_runs() -> None:
    scaling = {"minReplicas": 1, "maxReplicas": 6, "inFlight": 4}
    world, kuberay = await scaled_by_ray(scaling)
    assert world.status()["ready"] == "1/1"
    world.suffer()
    kuberay.wants = lambda _name, _replicas: 5
    world.controllers.settle()
    await world.settle()
    assert world.status()["ready"] == "5/5"
    assert not [write for write in world.writes() if "rayservices" in write], "Ray's own number"
    kept = world.server.find(kinds.PDB, NAMESPACE, "gate")
    assert kept
    assert kept["spec"]["minAvailable"] == 4, "a drain takes one at a time"
    await world.edit(autoscaling=scaling | {"maxReplicas": 8})
    await world.settle()
    assert bounds(world) == (1, 8)
    assert world.status()["ready"] == "5/5"
    assert is_safe(world)


async def test_what_is_undone_beside_rays_own_autoscaler_gives_back_what_it_answers() -> None:
    """Ray sees of the load what it is left with."""
    scaling = {"minReplicas": 2, "maxReplicas": 20, "inFlight": 4}
    world, kuberay = await scaled_by_ray(scaling)
    stable = world.stable()

    def wants(name: str, running: int) -> int:
        needed = 10 * weights(world).get(name, 0) / 100
        return running if name != stable or abs(needed / running - 1) <= 0.1 else ceil(needed)

    async def lasts(seconds: int) -> None:
        for _ in range(seconds // 3):
            world.controllers.settle()
            await world.pass_time(3)

    kuberay.wants = wants
    await lasts(30)
    await world.edit(canary={"model": B, "weight": 50})
    await lasts(90)
    assert weights(world)[stable] == 50
    assert len(workers(world, stable)) == 5
    await world.edit(canary=None)
    await lasts(180)
    assert weights(world) == {stable: 100}
    assert 9 <= len(workers(world)) <= 11
    assert bounds(world) == (2, 20)
    assert is_safe(world)


async def test_without_kuberay_it_is_told_and_what_serves_goes_on() -> None:
    world = World()
    await world.settle()
    await world.create(**SPEC)
    await world.settle()
    stable = world.stable()
    await world.edit(runtime=RAY)
    await world.settle()
    assert (world.stable(), weights(world)) == (stable, {stable: 100})
    told = world.condition("Progressing")
    assert told["reason"] == "EngineAbsent"
    assert "needs KubeRay 1.5.1 or later" in told["message"]
    assert not [each for each in world.writes() if "rayservices" in each]
    assert not world.failures


async def test_a_kuberay_that_does_nothing_is_told_after_a_while() -> None:
    world, kuberay = await released()
    kuberay.idle = True
    await world.edit(runtime=RAY)
    await world.settle()
    told = world.condition("Progressing")
    assert told["reason"] == "KubeRaySilent"
    assert "is its operator running" in told["message"]


async def test_each_config_that_ray_gets_is_one_of_the_typed_model() -> None:
    world, kuberay = await released(runtime=RAY)
    await world.edit(replicas=3)
    await world.settle()
    [given] = kuberay.configs.values()
    read = [ServeConfig.read(text) for text in given]
    assert [each and each.deployment.autoscaling_config.min_replicas for each in read] == [2, 3]
    assert all(is_ready(pod) for pod in workers(world))


async def test_a_crash_after_any_write_of_a_release_to_ray_changes_nothing_in_the_end() -> None:
    prepared, _ = await released(rollout={"strategy": "BlueGreen"})

    async def play(*faults: Fault) -> World:
        world = prepared.fork()
        world.controllers.others.append(KubeRay())
        await world.settle()
        world.suffer(*faults)
        await world.edit(runtime=RAY)
        await world.settle()
        return world

    usual = await play()
    wrong: dict[str, Any] = {}
    for number, name in enumerate(usual.writes(), start=1):
        world = await play(CrashAfter(write(number)))
        told = [*differences(usual.state(), world.state()), *world.restless, *world.failures]
        if told := [*told, *world.unsafe()]:
            wrong[f"{number} ({name})"] = told
    assert not wrong
