"""Nobody who answers stops before another does: at zero replicas, and beside a stable that died."""

from datetime import timedelta
from typing import Any

import pytest

from yolofleet.api.names import REVISION_LABEL

V1, V2, V3 = ({"uri": f"demo://shapes{version}"} for version in ("-v1", "-v2", "-v3"))


def released(world: Any, **spec: Any) -> str:
    """Bring the world to a settled release; return the stable revision."""
    world.edit(**{"model": V1, **spec})
    world.settle()
    return world.status().stable.revision


def at_zero(world, **canary):
    """Serve by a canary alone; return the name of the podless stable revision and the canary's."""
    old = released(world, canary={"model": V2, "weight": 10, **canary})
    first = world.status().canary.revision
    world.edit(replicas=0)
    world.settle()
    assert world.replicas()[old] == 0
    return old, first


def who_answers(world):
    """Return of whom pods are ready and requests get there, by the route, or by the Service."""
    ready = {name for name in world.deployments() if world.ready(name)}
    if by_route := world.weights():
        return {name for name, weight in by_route.items() if weight} & ready
    selector = world.children["Service", "gate"]["spec"]["selector"]
    return ready & {selector.get(REVISION_LABEL, name) for name in ready}


@pytest.fixture(params=["istio", "gateway", "service"])
def routed_world(request, world):
    """A world with each of the routers."""
    world.mesh, world.gateway = request.param == "istio", request.param == "gateway"
    if request.param == "gateway":
        gateways = ["infra/public"]
        world.edit(traffic={"hosts": ["gate.example.com"], "gateways": gateways})
    return world


def test_scaling_to_zero_moves_the_route_to_the_canary_with_the_pods_of_the_stable(routed_world):
    world = routed_world
    released(world, canary={"model": V2, "weight": 10})
    canary = world.status().canary.revision
    world.edit(replicas=0)
    for _ in range(4):
        world.reconcile()
        if world.weights():
            assert who_answers(world) == {canary}
        assert canary in who_answers(world)
        world.run_pods(1)
    assert world.weights().get(canary, 100) == 100


@pytest.mark.parametrize("replicas", [1, 3])
def test_at_zero_replicas_a_canary_answers_until_the_next_one_is_ready(routed_world, replicas):
    world = routed_world
    old, first = at_zero(world, replicas=replicas)
    assert who_answers(world) == {first}
    world.edit(canary={"model": V3, "weight": 10, "replicas": replicas})
    for _ in range(5):  # it starts slowly
        world.reconcile()
        assert who_answers(world) == {first}
        assert world.replicas()[first] == replicas
        world.now += timedelta(minutes=5)
    second = world.status().canary.revision
    for _ in range(20):
        world.run_pods(1)
        world.reconcile()
        assert who_answers(world)
        world.now += timedelta(seconds=20)
    assert who_answers(world) == {second}
    assert world.replicas() == {old: 0, first: 0, second: replicas}


def test_whoever_is_scaled_to_zero_with_another_canary_answers_by_the_former(world):
    released(world, canary={"model": V2, "weight": 10})
    first = world.status().canary.revision
    world.edit(replicas=0, canary={"model": V3, "weight": 10})
    world.broken = {V3["uri"]}
    for _ in range(6):
        world.reconcile()
        assert first in who_answers(world)
        world.run_pods()
        world.now += timedelta(minutes=5)
    world.edit(canary=None)
    world.settle()
    assert set(world.replicas().values()) == {0}


def test_a_stable_that_dies_leaves_the_service_to_whoever_answers_while_a_third_comes(world):
    world.mesh = False
    old = released(world, replicas=3, rollout={"strategy": "InPlace"})
    world.edit(model=V2)
    for _ in range(3):
        world.reconcile()
        world.run_pods(1)
    second = next(name for name in world.deployments() if name != old)
    world.broken = {V1["uri"], V3["uri"]}
    world.run_pods()
    world.reconcile()
    assert who_answers(world) == {second}
    world.edit(model=V3)
    for _ in range(6):
        world.reconcile()
        assert who_answers(world) == {second}
        world.run_pods()
        world.now += timedelta(minutes=5)
    world.broken = set()
    for _ in range(20):
        world.run_pods(1)
        world.reconcile()
        assert who_answers(world)
        world.now += timedelta(seconds=20)
    assert who_answers(world) == {world.status().stable.revision}
