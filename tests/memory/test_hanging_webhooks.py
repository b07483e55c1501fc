"""A webhook that hangs costs each write its time-out: status is told in time all the same."""

import pytest

from faults.traces import SPEC, B
from memory_cluster.faults import ALWAYS, Call, Hangs
from memory_cluster.world import World
from yolofleet.cluster import kinds

CANARY = {"canary": {"model": B, "weight": 10, "replicas": 2}}
FIRST = {
    kind.plural
    for kind in (
        *(kinds.SERVICE_ACCOUNT, kinds.SERVICE),
        *(kinds.DESTINATION_RULE, kinds.VIRTUAL_SERVICE, kinds.RECORD),
    )
}
"""What is written before Deployments, but for the NetworkPolicy, which they wait for."""


def of_children(call: Call) -> bool:
    return bool(call.number) and call.kind not in (kinds.DETECTOR.plural, "events")


@pytest.mark.parametrize("seconds", [3.0, 10.0, 15.0, 25.0, 29.0])
async def test_each_pass_tells_while_every_write_hangs(seconds: float) -> None:
    world = World()
    await world.settle()
    world.suffer(Hangs(of_children, times=ALWAYS, wait=world.lasts(seconds)))
    await world.create(**SPEC | CANARY)
    for passes in range(4):
        await world.pass_time(400.0)
        assert world.status()["observedGeneration"] == 1, passes
    assert not world.failures
    assert world.condition("Written")["status"] == "False"
    assert "failed calling webhook" in world.condition("Written")["message"]
    world.heal()
    await world.settle()
    assert world.condition("Released")["status"] == "True"


async def test_an_edit_is_told_of_while_every_write_hangs() -> None:
    world = World()
    await world.settle()
    await world.create(**SPEC | CANARY)
    await world.settle()
    world.suffer(Hangs(of_children, times=ALWAYS, wait=world.lasts(15.0)))
    await world.edit(model={"uri": "demo://shapes-v3"})
    for _ in range(4):
        await world.pass_time(400.0)
    assert not world.failures
    assert world.status()["observedGeneration"] == 2
    assert world.condition("Released")["status"] == "False"


async def test_what_hangs_lets_what_does_not_have_its_turn() -> None:
    """Kinds that hang ate all the time of each pass, and Deployments came after them."""
    world = World()
    await world.settle()
    hangs = Hangs(
        lambda call: of_children(call) and call.kind in FIRST,
        times=ALWAYS,
        wait=world.lasts(15.0),
    )
    world.suffer(hangs)
    await world.create(**SPEC)
    for _ in range(4):
        await world.pass_time(400.0)
    assert not world.failures
    assert "Deployment" in {kind for kind, _ in world.children()}
