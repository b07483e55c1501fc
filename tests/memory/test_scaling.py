"""Replicas by what the pods say of their load, in the middle of everything."""

import json
from collections import Counter
from typing import Any

import pytest

from faults.traces import SPEC, B
from memory_cluster.controllers import is_ready, revision_of
from memory_cluster.world import NAMESPACE, World
from yolofleet.cluster import kinds
from yolofleet.plan.floor import EVERY, WINDOW

EVERY_S, WINDOW_S = EVERY.total_seconds(), WINDOW.total_seconds()
LOOK_S = EVERY_S + 0.5  # with the time for what comes of it
SCALING = {"minReplicas": 1, "maxReplicas": 10, "load": 70}
EACH = 10.0  # requests a second that a pod can answer: it is given seven


class Load:
    """What pods are asked: so much a second in all, by the weights of the route."""

    def __init__(self, world: World, per_second: float = 0.0) -> None:
        self.world, self.per_second = world, per_second
        self.silent = False
        self.asked = 0
        self.offered: Counter[str] = Counter()
        world.tells = self
        if world.operator:
            world.operator.tells = self

    def __call__(self, url: str) -> bytes:
        self.asked += 1
        if self.silent:
            raise TimeoutError
        pod = self.world.pod_at(url)
        load = {
            "offered": self.offered[pod["metadata"]["uid"]],
            "inside_seconds": 0.0,
            "capacity_per_second": EACH,
        }
        told = {"format": 1, "revision": revision_of(pod), "started": 5.0, "load": load}
        return json.dumps(told).encode()

    async def lasts(self, seconds: float) -> None:
        """Let it go on for so long, look by look."""
        for _ in range(round(seconds / EVERY_S)):
            self.world.controllers.settle()
            self._ask()
            await self.world.pass_time(EVERY_S)
            self.world.controllers.settle()
            await self.world.pass_time(LOOK_S - EVERY_S)

    def _ask(self) -> None:
        for revision, percent in self.shares().items():
            ready = ready_pods(self.world, revision)
            for pod in ready:
                part = percent / 100 / len(ready)
                self.offered[pod["metadata"]["uid"]] += round(self.per_second * part * LOOK_S)

    def shares(self) -> dict[str, int]:
        """Return the percent of each revision, by the route."""
        status = self.world.status()
        return {each["name"]: each["weight"] for each in status.get("revisions", ())}


def ready_pods(world: World, revision: str) -> list[Any]:
    pods = world.server.all(kinds.POD)
    return [pod for pod in pods if revision_of(pod) == revision and is_ready(pod)]


def floor_of(world: World) -> int:
    hpa = world.server.find(kinds.HPA, NAMESPACE, world.stable())
    assert hpa
    return int(hpa["spec"]["minReplicas"])


def replicas(world: World, revision: str = "") -> int:
    found = world.server.find(kinds.DEPLOYMENT, NAMESPACE, revision or world.stable())
    assert found
    return int(found["spec"]["replicas"])


def writes_to(world: World, plural: str) -> list[str]:
    return [write for write in world.writes() if f" {plural}/" in write]


async def scaled(scaling: Any = SCALING, **spec: Any) -> tuple[World, Load]:
    """Return a world whose detector is released, and asked nothing yet."""
    world = World()
    load = Load(world)
    await world.settle()
    resources = {"requests": {"cpu": "1"}}
    without = {name: value for name, value in SPEC.items() if name != "replicas"}
    await world.create(**without | {"autoscaling": scaling, "resources": resources} | spec)
    for _ in range(10):
        world.controllers.settle()
        await world.pass_time(0.5)
    await load.lasts(2 * EVERY_S)
    world.controllers.wants = lambda _autoscaler, _replicas: 1  # the floor decides
    world.suffer()
    return world, load


async def test_the_floor_follows_the_load_and_is_told_in_words() -> None:
    world, load = await scaled()
    load.per_second = 30
    await load.lasts(2 * EVERY_S)
    assert floor_of(world) == replicas(world) == 5
    told = world.status()["autoscaling"]
    assert told["reason"] == "floor 5: 30.0 requests a second, 7.0 each"
    assert (told["provider"], told["floor"], told["demand"], told["held"]) == (
        "builtin", 5, 4.3, False,
    )  # fmt: skip
    assert len(writes_to(world, "horizontalpodautoscalers")) == 1, "one for each change"
    assert not world.condition("AutoscalingLimited")
    assert not world.failures


async def test_at_rest_pods_are_asked_and_nothing_is_written() -> None:
    world, load = await scaled()
    load.per_second = 30
    await load.lasts(60)
    world.suffer()
    asked = load.asked
    await load.lasts(600)
    assert load.asked == asked + 40 * 5
    assert not world.writes()


async def test_it_falls_once_five_minutes_asked_for_less() -> None:
    world, load = await scaled()
    load.per_second = 30
    await load.lasts(2 * EVERY_S)
    load.per_second = 7
    await load.lasts(WINDOW_S - 2 * EVERY_S)
    assert replicas(world) == 5
    await load.lasts(3 * EVERY_S)
    assert replicas(world) == floor_of(world) == 2


async def test_a_lost_metric_holds_and_is_told_and_nothing_is_written_meanwhile() -> None:
    world, load = await scaled()
    load.per_second = 30
    await load.lasts(2 * EVERY_S)
    load.silent = True
    await load.lasts(60)
    limited = world.condition("AutoscalingLimited")
    assert (limited["status"], limited["reason"]) == ("True", "MetricLost")
    assert limited["message"] == (
        "0 of 5 ready pods tell their load (GET /evidence, port 8081); 5 replicas are held until"
        " more do"
    )
    assert world.status()["autoscaling"]["held"]
    world.suffer()
    await load.lasts(600)
    assert not world.writes()
    assert replicas(world) == 5
    load.silent = False
    await load.lasts(2 * EVERY_S)
    assert not world.condition("AutoscalingLimited")
    assert not world.status()["autoscaling"]["held"]


async def test_the_next_leader_keeps_the_floor_and_writes_nothing() -> None:
    world, load = await scaled()
    load.per_second = 30
    await load.lasts(60)
    world.suffer()
    world.operator = None
    await load.lasts(120)
    assert not world.writes()
    assert floor_of(world) == 5


async def test_who_turns_it_on_keeps_what_runs_until_it_is_known_what_is_needed() -> None:
    world, load = await scaled(None, replicas=6)
    load.per_second = 7
    await load.lasts(EVERY_S)
    await world.edit(replicas=None, autoscaling=SCALING)
    await load.lasts(WINDOW_S - 2 * EVERY_S)
    assert replicas(world) == floor_of(world) == 6
    await load.lasts(4 * EVERY_S)
    assert replicas(world) == 2


async def test_a_promotion_in_the_middle_of_scaling_begins_with_what_the_load_needs() -> None:
    world, load = await scaled()
    load.per_second = 30
    await load.lasts(2 * EVERY_S)
    old = world.stable()
    await world.edit(model=B)
    load.per_second = 44  # it grows while the successor starts
    fewest = 99
    for _ in range(16):
        await load.lasts(EVERY_S)
        for revision, percent in load.shares().items():
            if percent == 100:
                fewest = min(fewest, len(ready_pods(world, revision)))
    assert world.stable() != old
    assert floor_of(world) == replicas(world) == 7
    assert fewest >= 5
    assert not world.unsafe()
    assert not world.failures


async def test_a_roll_back_in_the_middle_of_scaling_finds_the_whole_capacity() -> None:
    """By the load that is left to it the stable revision would have shrunk to half."""
    steps = {"strategy": "Canary", "steps": [{"weight": 50, "hold": "Approval"}]}
    world, load = await scaled(rollout=steps)
    load.per_second = 30
    await load.lasts(2 * EVERY_S)
    old = world.stable()
    await world.edit(model=B)
    await load.lasts(WINDOW_S + 60)
    assert world.status()["rollout"]["weight"] == 50
    assert replicas(world, old) == floor_of(world) == 5
    load.per_second = 44
    await load.lasts(2 * EVERY_S)
    assert floor_of(world) == replicas(world, old) == 7
    await world.edit(model=SPEC["model"])
    await load.lasts(2 * EVERY_S)
    assert load.shares()[old] == 100
    assert len(ready_pods(world, old)) == 7
    assert not world.unsafe()


async def test_an_autoscaler_of_ones_own_moves_it_within_the_bounds() -> None:
    world, _ = await scaled({"minReplicas": 2, "maxReplicas": 4, "provider": "none"})
    assert not world.server.all(kinds.HPA)
    assert replicas(world) == 2
    assert world.status()["autoscaling"]["provider"] == "none"
    for asked, runs in ((3, 3), (9, 4), (1, 2)):
        await world.edit(replicas=asked)  # as the scale subresource does
        await world.settle()
        assert replicas(world) == runs


@pytest.mark.parametrize(
    ("scaling", "reason", "fix"),
    [
        ({"provider": "keda"}, "ProviderMissing", "provider to builtin"),
    ],
)
async def test_what_lacks_its_source_holds_and_says_what_to_do(
    scaling: Any, reason: str, fix: str
) -> None:
    world, load = await scaled()
    load.per_second = 30
    await load.lasts(2 * EVERY_S)
    await world.edit(autoscaling=SCALING | scaling)
    load.per_second = 0
    await load.lasts(WINDOW_S + 60)
    limited = world.condition("AutoscalingLimited")
    assert limited["reason"] == reason
    assert fix in limited["message"]
    assert "5 replicas are held" in limited["message"]
    assert replicas(world) == 5
