"""A shadow comes and goes while pods run: one small object, and nothing that restarts."""

import json

from faults.oracles import differences
from faults.traces import SPEC, B
from memory_cluster.faults import CrashAfter, CrashBefore, write
from memory_cluster.world import NAMESPACE, World
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds

CANARY = {"model": B, "weight": 10}
C = {"uri": "https://models.example.com/c.onnx"}
QUIET_S = 120.0
"""Shorter than a shadow is renewed."""


async def with_canary() -> World:
    world = World()
    await world.settle()
    await world.create(**SPEC | {"canary": CANARY})
    await world.settle()
    world.suffer()
    return world


def pods(world: World) -> list[Manifest]:
    return [pod["metadata"] for pod in world.server.all(kinds.POD)]


def shadow(world: World) -> Manifest:
    told: Manifest = json.loads(world.server.all(kinds.CONFIG_MAP)[0]["data"]["live.json"])
    shown: Manifest = told["shadow"]
    return shown


async def test_a_shadow_for_a_running_canary_is_one_write_and_restarts_nothing() -> None:
    world = await with_canary()
    before, ran = world.state(), pods(world)
    await world.edit(canary=CANARY | {"shadow": 100})
    await world.settle(QUIET_S)
    assert [w for w in world.writes() if "yolodetectors" not in w] == ["patch configmaps/gate-live"]
    assert pods(world) == ran
    world.suffer()
    await world.edit(canary=CANARY)
    await world.edit(canary=CANARY | {"shadow": None})
    await world.settle()
    assert [w for w in world.writes() if "yolodetectors" not in w] == [
        "delete configmaps/gate-live"
    ]
    assert pods(world) == ran
    assert not differences(before, world.state())


async def test_while_it_lasts_it_is_written_every_five_minutes_and_the_status_never() -> None:
    world = await with_canary()
    await world.edit(canary=CANARY | {"shadow": 100})
    await world.settle(QUIET_S)
    world.suffer()
    for _ in range(60):
        await world.pass_time(60.0)
    assert set(world.writes()) == {"patch configmaps/gate-live"}
    assert 10 <= len(world.writes()) <= 13


async def test_two_canaries_in_a_row_have_a_shadow_each() -> None:
    world = await with_canary()
    await world.edit(canary=CANARY | {"shadow": 100})
    await world.settle(QUIET_S)
    first = shadow(world)["revision"]
    await world.edit(canary={"model": C, "shadow": 50})
    await world.settle(QUIET_S)
    assert shadow(world)["revision"] == world.status()["canary"]["revision"] != first
    await world.edit(model=C, canary=None)
    await world.settle()
    assert not world.server.all(kinds.CONFIG_MAP)
    assert not world.failures


async def test_a_crash_at_any_write_of_it_changes_nothing_in_the_end() -> None:
    prepared = await with_canary()
    usual = prepared.fork()
    await usual.edit(canary=CANARY | {"shadow": 100})
    await usual.settle(QUIET_S)
    for crash in (CrashBefore, CrashAfter):
        world = prepared.fork()
        await world.settle()
        world.suffer(crash(write(1)))
        await world.edit(canary=CANARY | {"shadow": 100})
        await world.settle(QUIET_S)
        assert not differences(usual.state(), world.state())
        assert not world.restless


async def test_what_others_write_there_is_put_right_and_what_they_delete_comes_back() -> None:
    world = await with_canary()
    await world.edit(canary=CANARY | {"shadow": 100})
    await world.settle(QUIET_S)
    told = shadow(world)
    edited = {"live.json": json.dumps({"shadow": told | {"revision": "other-00000000"}})}
    world.merge(kinds.CONFIG_MAP, "gate-live", {"data": edited})
    await world.settle(QUIET_S)
    assert shadow(world)["revision"] == told["revision"]
    world.remove(kinds.CONFIG_MAP, "gate-live")
    await world.settle(QUIET_S)
    assert shadow(world)["revision"] == told["revision"]


async def test_one_that_was_restored_without_its_owner_is_adopted() -> None:
    world = await with_canary()
    await world.edit(canary=CANARY | {"shadow": 100})
    await world.settle(QUIET_S)
    world.merge(kinds.CONFIG_MAP, "gate-live", {"metadata": {"ownerReferences": None}})
    await world.settle(QUIET_S)
    [found] = world.server.all(kinds.CONFIG_MAP)
    assert found["metadata"]["ownerReferences"][0]["name"] == "gate"
    assert found["metadata"]["namespace"] == NAMESPACE
    assert "ResourceConflict" not in json.dumps(world.status())


async def test_what_others_add_to_it_is_taken_away_and_told_with_its_field() -> None:
    world = await with_canary()
    await world.edit(canary=CANARY | {"shadow": 100})
    await world.settle(QUIET_S)
    world.merge(kinds.CONFIG_MAP, "gate-live", {"data": {"other.json": "{}"}})
    await world.settle(QUIET_S)
    assert list(world.server.all(kinds.CONFIG_MAP)[0]["data"]) == ["live.json"]
    assert "data.other.json (added by kubectl-edit)" in world.condition("Drifted")["message"]
