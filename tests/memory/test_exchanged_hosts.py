"""Two detectors that ask for each other's hosts: both move, or neither does."""

from typing import Any

import pytest

from faults.traces import A
from memory_cluster.faults import ALWAYS, Call, Refused
from memory_cluster.world import NAMESPACE, World
from yolofleet.cluster import kinds

GATEWAY = "istio-system/public"


def asking(host: str) -> dict[str, Any]:
    return {"traffic": {"hosts": [host], "gateways": [GATEWAY]}}


async def two_detectors() -> World:
    world = World()
    await world.settle()
    for name in ("one", "two"):
        detector = {
            "apiVersion": "yolofleet.io/v1alpha1",
            "kind": "YoloDetector",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"model": A, "replicas": 1, **asking(f"{name}.example.com")},
        }
        world.send("POST", kinds.DETECTOR.path(NAMESPACE), detector)
        await world.settle()
    return world


def routed(world: World) -> dict[str, Any]:
    found = {n: world.server.find(kinds.VIRTUAL_SERVICE, NAMESPACE, n) for n in ("one", "two")}
    return {name: route["spec"]["hosts"] for name, route in found.items() if route}


BEFORE = {"one": ["one.example.com"], "two": ["two.example.com"]}


@pytest.mark.parametrize("first", ["one", "two"])
@pytest.mark.parametrize(
    "silent", [{"suspend": True}, {"inference": {"deadline": "nonsense"}}], ids=str
)
async def test_nobody_gives_up_a_host_for_one_that_its_holder_will_not_leave(
    silent: dict[str, Any], first: str
) -> None:
    """One host went dark and the other was routed twice, and both said that all was well."""
    world = await two_detectors()
    edits = {
        "one": {"spec": asking("two.example.com")},
        "two": {"spec": silent | asking("one.example.com")},
    }
    for name in sorted(edits, key=lambda name: name != first):
        world.merge(kinds.DETECTOR, name, edits[name])
        await world.settle(60)
    assert routed(world) == BEFORE
    cured = {"suspend": None, "inference": None}
    world.merge(kinds.DETECTOR, "two", {"spec": cured})
    await world.settle(60)
    assert routed(world) == {"one": ["two.example.com"], "two": ["one.example.com"]}


@pytest.mark.parametrize("first", ["one", "two"])
@pytest.mark.parametrize("held_up", ["one", "two"])
async def test_an_exchange_that_one_route_holds_up_is_tried_again_in_peace(
    held_up: str, first: str
) -> None:
    """Refused, it was told that its host was taken, wrote nothing, and tried again at once."""
    world = await two_detectors()

    def its_route(call: Call) -> bool:
        return call.number > 0 and (call.kind, call.name) == ("virtualservices", held_up)

    world.suffer(Refused(its_route, times=ALWAYS, code=422))
    other = {"one": "two", "two": "one"}
    for name in (first, other[first]):
        edit = {"spec": asking(f"{other[name]}.example.com")}
        world.merge(kinds.DETECTOR, name, edit)
        await world.settle(60)
    raw = world.server.find(kinds.DETECTOR, NAMESPACE, held_up) or {}
    told = {c["type"]: c["reason"] for c in raw["status"]["conditions"]}
    assert told["Written"] == "WriteRefused"
    assert routed(world)[held_up] == BEFORE[held_up]
    world.heal()
    await world.settle()
    assert routed(world) == {"one": ["two.example.com"], "two": ["one.example.com"]}
