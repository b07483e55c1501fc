"""Devices that pods claim, in the reconcile loop: what is waited for, kept and put right."""

from typing import Any

import pytest

from memory_cluster.faults import ALWAYS, Refused
from memory_cluster.kuberay import KubeRay
from memory_cluster.world import NAMESPACE, World
from yolofleet.cluster import kinds
from yolofleet.runtime.kind import Kind

ABSENT = (kinds.HTTP_ROUTE, kinds.GATEWAY, kinds.POD_MONITOR, kinds.SCALED_OBJECT)
CLASS = "gpu.nvidia.com"
ASKED: Any = {"model": {"uri": "demo://shapes"}, "accelerator": {"deviceClassName": CLASS}}
NODE = "n1"


def publish(world: World, devices: int) -> None:
    """Have a driver tell of its class and of one node with so many devices."""
    made = {"metadata": {"name": CLASS}, "spec": {}}
    world.send("POST", kinds.DEVICE_CLASS.path(), made)
    listed = [{"name": f"gpu-{number}"} for number in range(devices)]
    pool = {"name": NODE, "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": CLASS, "nodeName": NODE, "pool": pool, "devices": listed}
    world.send("POST", kinds.DEVICE_SLICE.path(), {"metadata": {"name": NODE}, "spec": spec})


async def a_world(devices: int | None = 1, **spec: Any) -> World:
    """Return one whose detector has come to rest. devices: None: no driver has told of any."""
    world = World(ABSENT)
    world.controllers.others.append(KubeRay())
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    world.send("POST", kinds.NODE.path(), {"metadata": {"name": NODE}, "status": ready})
    if devices is not None:
        publish(world, devices)
    await world.settle()
    await world.create(**ASKED, **spec)
    for _ in range(5):
        world.controllers.settle()
        await world.pass_time(1.0)
    world.suffer()
    return world


def template(world: World) -> Any:
    return world.server.find(kinds.CLAIM_TEMPLATE, NAMESPACE, world.stable())


def replicas(world: World) -> int:
    found = world.server.find(kinds.DEPLOYMENT, NAMESPACE, world.stable())
    assert found
    return int(found["spec"]["replicas"])


async def test_a_detector_goes_on_by_itself_once_a_driver_tells_of_devices() -> None:
    world = await a_world(devices=None)
    assert f"there is no DeviceClass {CLASS}" in world.condition("GPUAvailable")["message"]
    assert (world.condition("Ready")["reason"], replicas(world)) == ("Missing", 0)
    await world.pass_time(60)  # until it is stalled
    world.suffer()
    await world.pass_time(60)
    assert not world.writes(), "nothing is said twice"
    publish(world, 1)
    await world.pass_time(10.5)
    assert replicas(world) == 1
    await world.settle()
    assert world.condition("Ready")["status"] == "True"
    assert not world.failures


async def test_at_rest_nothing_is_written() -> None:
    world = await a_world()
    assert world.condition("GPUAvailable")["status"] == "True"
    await world.settle()
    assert not world.writes()


async def test_what_others_do_to_a_template_is_put_right() -> None:
    world = await a_world()
    name, before = world.stable(), template(world)
    world.remove(kinds.CLAIM_TEMPLATE, name)
    await world.settle()
    assert template(world)["spec"] == before["spec"]
    assert template(world)["metadata"]["uid"] != before["metadata"]["uid"]
    label = {"metadata": {"labels": {"app.kubernetes.io/name": "mine"}}}
    world.merge(kinds.CLAIM_TEMPLATE, name, label)
    await world.settle()
    assert template(world)["metadata"]["labels"] == before["metadata"]["labels"]
    assert not world.failures


async def test_one_that_others_made_anew_otherwise_is_replaced() -> None:
    """Nobody can change one, so that another takes its place."""
    world = await a_world()
    before = template(world)
    world.remove(kinds.CLAIM_TEMPLATE, world.stable())
    kept = {name: before["metadata"][name] for name in ("name", "labels", "ownerReferences")}
    other = before | {"metadata": kept, "spec": {"spec": {"devices": {"requests": []}}}}
    world.send("POST", kinds.CLAIM_TEMPLATE.path(NAMESPACE), other)
    await world.settle()
    assert template(world)["spec"] == before["spec"]
    assert not world.failures


@pytest.mark.parametrize("kind", [kinds.DEVICE_CLASS, kinds.DEVICE_SLICE, kinds.CLAIM])
async def test_what_devices_there_are_may_be_unreadable_for_a_while(kind: Kind) -> None:
    """A pod that dies meanwhile needs its template; nobody else tells that the right is back."""
    world = await a_world()
    before = template(world)
    world.suffer(Refused(lambda call: call.kind == kind.plural, ALWAYS))
    await world.edit(logLevel="debug")
    await world.pass_time(10)
    assert template(world) == before
    assert "no other pod gets any" in world.condition("GPUAvailable")["message"]
    world.heal()
    await world.pass_time(10.5)
    assert world.condition("GPUAvailable")["reason"] == "Enough"
    assert not world.failures


async def test_workers_of_ray_claim_by_the_same_template_and_are_released() -> None:
    world = await a_world(2, runtime={"engine": "ray", "image": "ray:gpu"}, replicas=2)
    await world.settle()
    assert world.condition("Released")["status"] == "True"
    assert template(world)
    claims = [{"name": "accelerator", "resourceClaimTemplateName": world.stable()}]
    workers = [pod["spec"]["resourceClaims"] for pod in world.server.all(kinds.POD)]
    assert workers == [claims, claims]
    world.suffer()
    await world.pass_time(60)
    assert not world.writes()
    assert not world.failures
