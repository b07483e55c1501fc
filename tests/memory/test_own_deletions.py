"""What the operator itself deleted is gone for it, though no watch says so."""

from typing import Any

import pytest

from faults.stage import NAME
from faults.traces import SPEC, B
from memory_cluster.faults import Call, FailedAfter, LostAfter, Then
from memory_cluster.operator import Operator
from memory_cluster.world import World
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime.kind import Kind

CANARY = {"model": B, "weight": 20}


class HearsOfNoDeletion:
    """A watch that is silent where Services go."""

    def __init__(self, informer: Any) -> None:
        self._informer = informer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._informer, name)

    def take(self, kind: Kind, type: str, manifest: Manifest) -> None:
        if (type, kind) != ("DELETED", kinds.SERVICE):
            self._informer.take(kind, type, manifest)


def deletes_a_service(call: Call) -> bool:
    return call.request.method == "DELETE" and call.kind == kinds.SERVICE.plural


async def test_no_request_goes_to_a_service_that_was_deleted_a_moment_ago(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    await world.settle()
    await world.create(**SPEC | {"canary": CANARY})
    await world.settle()
    assert isinstance(world.operator, Operator)
    monkeypatch.setattr(world.operator, "_informer", HearsOfNoDeletion(world.operator._informer))

    def wants_it_back(_call: Call) -> None:
        world.merge(kinds.DETECTOR, NAME, {"spec": {"canary": CANARY}})

    deleted = Then(deletes_a_service, act=wants_it_back)
    world.suffer(deleted)
    await world.edit(canary=None)
    for _ in range(120):
        world.controllers.settle()
        await world.pass_time(1.0)
    assert deleted.struck
    assert world.status()["canary"]["weight"] == 20
    assert not world.unsafe()


@pytest.mark.parametrize("fault", [LostAfter, FailedAfter])
async def test_nor_to_one_whose_deletion_nobody_answered(
    monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    world = World()
    await world.settle()
    await world.create(**SPEC | {"canary": CANARY})
    await world.settle()
    assert isinstance(world.operator, Operator)
    monkeypatch.setattr(world.operator, "_informer", HearsOfNoDeletion(world.operator._informer))

    def wants_it_back(_call: Call) -> None:
        world.merge(kinds.DETECTOR, NAME, {"spec": {"canary": CANARY}})

    world.suffer(Then(deletes_a_service, act=wants_it_back), fault(deletes_a_service))
    await world.edit(canary=None)
    for _ in range(120):
        world.controllers.settle()
        await world.pass_time(1.0)
    assert world.status()["canary"]["weight"] == 20
    assert not world.unsafe()


async def test_a_route_goes_before_what_it_leads_to() -> None:
    """A user moves a detector to the Gateway API: its rules went while the old route led on."""
    world = World(absent=(kinds.GATEWAY, kinds.POD_MONITOR))
    await world.settle()
    await world.create(**SPEC)
    await world.settle()
    world.suffer()
    await world.edit(traffic={"provider": "gateway"})
    await world.settle()
    deleted = [seen.kind for seen in world.happened() if seen.type == "DELETED"]
    assert deleted == [kinds.VIRTUAL_SERVICE, kinds.DESTINATION_RULE]
    assert not world.unsafe()
