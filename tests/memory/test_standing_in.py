"""By a plain Service the revision before answers for a stable one that died, and a canary comes."""

import pytest

from faults.oracles import differences
from faults.traces import A, B
from memory_cluster.at_a_write import AT_A_WRITE
from memory_cluster.controllers import is_ready, revision_of
from memory_cluster.world import World
from yolofleet.api.names import DETECTOR_LABEL, REVISION_LABEL
from yolofleet.cluster import kinds

C = {"uri": "demo://shapes-v3"}
SPEC = {"model": A, "replicas": 2, "traffic": {"provider": "service"}}
DARK = {"model": C, "weight": 0}


def selected(world: World) -> set[str]:
    """Return the revisions of which the detector's Service selects pods, ready or not."""
    selector = world.children()["Service", "gate"]["spec"]["selector"]
    pods = {revision_of(pod) for pod in world.server.all(kinds.POD)}
    return pods & {selector.get(REVISION_LABEL, name) for name in pods}


def answers(world: World) -> set[str]:
    """Return of whom ready pods are selected."""
    ready = {revision_of(pod) for pod in world.server.all(kinds.POD) if is_ready(pod)}
    return selected(world) & ready


async def where_one_stands_in() -> tuple[World, str, str]:
    """Return a world where A answers, as B died while A drained; and the names of both."""
    world = World()
    await world.settle()
    await world.create(**SPEC)
    await world.settle()
    old = world.stable()

    def die() -> None:
        if world.stable() != old:
            world.broken.add(B["uri"])

    await world.edit(model=B)
    await world.settle(between=die)
    assert answers(world) == {old} != {world.stable()}
    return world, old, world.stable()


async def add_a_dark_canary(world: World, old: str, new: str) -> list[str]:
    """Let the user do it; return what was wrong at any moment until the world rests."""
    wrong = []

    def look() -> None:
        label = world.children()["Service", "gate"]["metadata"]["labels"][REVISION_LABEL]
        if (label, answers(world), selected(world) - {old, new}) != (new, {old}, set()):
            wrong.append(f"released on {label}, answered by {answers(world)} of {selected(world)}")

    await world.edit(canary=DARK)
    await world.settle(between=look)
    return [*wrong, *world.unsafe(), *world.failures, *world.restless]


async def test_a_dark_canary_takes_nobody_his_stand_in_until_stable_is_back() -> None:
    world, old, new = await where_one_stands_in()
    world.suffer()
    assert not await add_a_dark_canary(world, old, new)
    canary = world.status()["canary"]
    assert canary["ready"] == 1
    assert world.stable() == new
    assert selected(world) == {old}
    await world.pass_time(3600)
    await world.settle()
    assert answers(world) == {old}, "its pods stay"

    world.broken.clear()
    await world.settle()
    assert answers(world) == selected(world) == {new}
    pods = [revision_of(pod) for pod in world.server.all(kinds.POD)]
    assert sorted(pods) == sorted([new, new, canary["revision"]]), "the stand-in has drained"
    assert not world.unsafe()


@pytest.mark.parametrize("fault", AT_A_WRITE)
async def test_a_fault_at_any_write_meanwhile_leaves_it_answering(fault: str) -> None:
    prepared, old, new = await where_one_stands_in()
    usual = prepared.fork()
    await usual.settle()
    assert not usual.writes(), "who begins anew has nothing to do"
    usual.suffer()
    await add_a_dark_canary(usual, old, new)
    wrong = {}
    for number, name in enumerate(usual.writes(), start=1):
        world = prepared.fork()
        await world.settle()
        world.suffer(AT_A_WRITE[fault](number, world))
        told = await add_a_dark_canary(world, old, new)
        told += differences(usual.state(), world.state())
        if told:
            wrong[f"{number} ({name})"] = told
    assert not wrong


async def test_with_status_lost_no_stand_in_is_taken_for_the_stable_one() -> None:
    world, old, new = await where_one_stands_in()
    await add_a_dark_canary(world, old, new)
    before = world.state()
    lost = world.fork()
    path = kinds.DETECTOR.path("shop", "gate", "status")
    lost.send("PATCH", path, {"status": None}, "application/merge-patch+json")
    assert not lost.status()
    lost.suffer()
    await lost.settle()
    assert lost.stable() == new
    assert not differences(before, lost.state())
    assert not any("services/gate" in each for each in lost.writes())
    service = lost.children()["Service", "gate"]
    assert service["spec"]["selector"] == {DETECTOR_LABEL: "gate", REVISION_LABEL: old}
