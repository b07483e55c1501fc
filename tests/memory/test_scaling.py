"""Replicas by what the pods say of their load, in the middle of everything."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from math import ceil
from typing import Any

import pytest

from faults.traces import SPEC, B
from memory_cluster.controllers import is_ready, revision_of
from memory_cluster.faults import ALWAYS, Call, Refused
from memory_cluster.keda import keda
from memory_cluster.kuberay import KubeRay
from memory_cluster.server import MERGE
from memory_cluster.world import NAMESPACE, World
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.plan.floor import EVERY, WINDOW
from yolofleet.runtime.kind import Kind

EVERY_S, WINDOW_S = EVERY.total_seconds(), WINDOW.total_seconds()
LOOK_S = EVERY_S + 0.5  # with the time for what comes of it
SCALING = {"minReplicas": 1, "maxReplicas": 10, "load": 70}
STEPS = [{"weight": 50, "hold": "10s"}]
EACH = 10.0  # requests a second that a pod can answer: it is given seven


class Load:
    """What pods are asked: so much a second in all, by the weights of the route."""

    def __init__(self, world: World, per_second: float = 0.0) -> None:
        self.world, self.per_second = world, per_second
        self.silent = False
        self.each = EACH
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
            "capacity_per_second": self.each,
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


async def scaled(
    scaling: Any = SCALING, world: World | None = None, **spec: Any
) -> tuple[World, Load]:
    """Return a world whose detector is released, and asked nothing yet."""
    world = world or World()
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


async def test_what_is_said_of_the_floor_is_of_the_floor_that_there_is() -> None:
    world, load = await scaled()
    load.per_second = 30
    await load.lasts(2 * EVERY_S)
    for least, floor in ((8, 8), (1, 5)):
        await world.edit(autoscaling=SCALING | {"minReplicas": least})
        await load.lasts(WINDOW_S + 120)
        told = world.status()["autoscaling"]
        assert told["floor"] == floor
        assert told["reason"].startswith(f"floor {floor}: ")


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


async def test_a_load_beyond_the_most_is_told_until_five_minutes_asked_for_less() -> None:
    """The autoscaler cannot tell: it does not know of the load."""
    world, load = await scaled(SCALING | {"maxReplicas": 3})
    load.per_second = 100
    await load.lasts(2 * EVERY_S)
    limited = world.condition("AutoscalingLimited")
    assert limited["reason"] == "TooManyReplicas"
    assert "more than spec.autoscaling.maxReplicas (3); raise it" in limited["message"]
    world.suffer()
    await load.lasts(120)
    assert not world.writes()
    world.operator = None
    await load.lasts(120)
    assert not world.writes(), "nor does the next leader forget it"
    load.per_second = 7
    await load.lasts(WINDOW_S + EVERY_S)
    assert not world.condition("AutoscalingLimited")
    assert replicas(world) == 2


async def test_while_suspended_the_status_keeps_the_floor_that_the_autoscaler_has() -> None:
    world, load = await scaled()
    load.per_second = 30
    await load.lasts(2 * EVERY_S)
    before = world.status()["autoscaling"]
    await world.edit(suspend=True)
    await load.lasts(EVERY_S)
    world.suffer()
    asked, load.per_second = load.asked, 60
    await load.lasts(120)
    assert world.status()["autoscaling"] == before
    assert (before["floor"], floor_of(world)) == (5, 5)
    assert not world.writes()
    assert load.asked == asked, "what nobody acts on, nobody asks"
    await world.edit(suspend=False)
    await load.lasts(3 * EVERY_S)
    assert world.status()["autoscaling"]["floor"] == floor_of(world) == 9
    assert not world.failures


async def test_a_metric_that_was_lost_is_still_named_of_who_is_suspended_meanwhile() -> None:
    world, load = await scaled()
    load.silent = True
    await load.lasts(120)
    said = world.condition("AutoscalingLimited")
    await world.edit(suspend=True)
    await load.lasts(60)
    assert world.condition("AutoscalingLimited")["message"] == said["message"]
    assert world.status()["autoscaling"]["held"]
    load.silent = False
    await world.edit(suspend=False)
    await load.lasts(3 * EVERY_S)
    assert not world.condition("AutoscalingLimited")


async def test_that_the_metric_is_lost_is_still_told_by_the_next_leader() -> None:
    world, load = await scaled()
    load.per_second = 30
    await load.lasts(2 * EVERY_S)
    load.silent = True
    await load.lasts(120)
    assert world.status()["autoscaling"]["held"]
    world.suffer()
    world.operator = None
    await load.lasts(180)
    assert not world.writes()
    load.silent = False
    await load.lasts(3 * EVERY_S)
    assert not world.condition("AutoscalingLimited")
    assert not world.status()["autoscaling"]["held"]


async def test_pods_that_never_tell_what_they_can_do_hold_what_runs_and_it_is_told() -> None:
    world, load = await scaled()
    load.per_second = 30
    await load.lasts(2 * EVERY_S)
    world.operator = None  # whoever comes does not know it from before
    load.each = 0.0
    await load.lasts(120)
    limited = world.condition("AutoscalingLimited")
    assert limited["reason"] == "MetricLost"
    assert limited["message"] == (
        "0 of 5 ready pods tell how much they can answer (GET /evidence, port 8081); 5 replicas are"
        " held until more do"
    )


@pytest.mark.parametrize("each", [5e-324, 1e308, 1e400])
async def test_numbers_that_cannot_be_hold_what_runs_and_it_is_told(each: float) -> None:
    world, load = await scaled()
    load.per_second = 30
    await load.lasts(2 * EVERY_S)
    world.operator = None
    load.each = each
    await load.lasts(WINDOW_S + 60)
    assert replicas(world) == 5
    assert world.condition("AutoscalingLimited")["reason"] == "MetricLost"


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


AT_50 = {"strategy": "Canary", "steps": [{"weight": 50, "hold": "Approval"}]}
BY_CPU = {"minReplicas": 2, "maxReplicas": 40}
CANARY_OF_HALF = {"canary": {"model": B, "weight": 50}}


def by_cpu(world: World, load: Load, *, all_of_it: int) -> None:
    """Have the autoscaler see what stable is left with, as near to its target as Kubernetes'."""

    def wants(autoscaler: Any, running: int) -> int:
        of = load.shares().get(autoscaler["spec"]["scaleTargetRef"]["name"], 0)
        needed = all_of_it * of / 100
        return running if abs(needed / running - 1) <= 0.1 else ceil(needed)

    world.controllers.wants = wants


def pods_by_revision(world: World) -> dict[str, int]:
    found = world.server.all(kinds.DEPLOYMENT)
    return {d["metadata"]["name"]: d["spec"]["replicas"] for d in found if d["spec"]["replicas"]}


@pytest.mark.parametrize(
    ("begun", "undone"),
    [
        ({"canary": {"model": B, "weight": 50}}, {"canary": None}),
        ({"canary": {"model": B, "weight": 50}}, {"canary": {"model": B, "weight": 5}}),
        ({"model": B, "rollout": AT_50}, {"model": SPEC["model"]}),
    ],
)
async def test_what_is_undone_beside_an_autoscaler_by_cpu_gives_back_what_it_answers(
    begun: Any, undone: Any
) -> None:
    """Once stable was never asked to grow: its autoscaler saw only what it was left with."""
    world, load = await scaled(BY_CPU)
    by_cpu(world, load, all_of_it=20)
    await load.lasts(4 * EVERY_S)
    old = world.stable()
    await world.edit(**begun)
    await load.lasts(8 * EVERY_S)
    assert load.shares()[old] == 50
    assert replicas(world, old) == 10
    await world.edit(**undone)
    await load.lasts(20 * EVERY_S)
    assert load.shares()[old] == (95 if undone.get("canary") else 100)
    assert 19 <= replicas(world, old) <= 22
    assert floor_of(world) == 2, "the autoscaler is free again"
    assert not world.unsafe()


async def test_what_is_undone_while_there_is_no_room_holds_no_autoscaler_up() -> None:
    """What was asked of the autoscaler once is no reason to ask for it again."""
    world, load = await scaled(BY_CPU)
    by_cpu(world, load, all_of_it=20)
    await load.lasts(4 * EVERY_S)
    await world.edit(canary={"model": B, "weight": 50})
    await load.lasts(8 * EVERY_S)
    placed = set[str]()

    def has_a_place(pod: Manifest) -> bool:
        placed.intersection_update(p["metadata"]["uid"] for p in world.server.all(kinds.POD))
        if len(placed) < 14:
            placed.add(pod["metadata"]["uid"])
        return pod["metadata"]["uid"] in placed

    for pod in world.server.all(kinds.POD):
        has_a_place(pod)
    world.controllers.ready = has_a_place
    await world.edit(canary=None)
    await load.lasts(15 * EVERY_S)
    by_cpu(world, load, all_of_it=4)
    await load.lasts(40 * EVERY_S)
    assert load.shares() == {world.stable(): 100}
    assert replicas(world, world.stable()) <= 5
    assert floor_of(world) == 2


@pytest.mark.parametrize(
    ("all_of_it", "canary", "lifted"),
    [
        (6, {"weight": 90}, {6}),
        (1, {"weight": 90, "replicas": 6}, {6}),
        (1, {"weight": 90, "replicas": 12}, {13}),
        (20, {"weight": 50}, {19}),
        (10, {"weight": 90, "replicas": 2}, set()),
    ],
)
async def test_what_is_undone_lifts_the_autoscaler_once(
    all_of_it: int, canary: Any, lifted: set[int]
) -> None:
    """Its pods go after its requests: they stood for the more the fewer of these it still had."""
    world, load = await scaled(BY_CPU)
    by_cpu(world, load, all_of_it=all_of_it)
    await load.lasts(4 * EVERY_S)
    await world.edit(canary={"model": B} | canary)
    await load.lasts(6 * EVERY_S)
    world.suffer()
    await world.edit(canary=None)
    await load.lasts(20 * EVERY_S)
    assert load.shares() == {world.stable(): 100}
    seen = [each.manifest["spec"] for each in world.happened() if each.kind is kinds.HPA]
    assert {each["minReplicas"] for each in seen} - {2} == lifted
    assert floor_of(world) == 2
    assert not world.unsafe()


@pytest.mark.parametrize("canary", [{"weight": 50}, {"weight": 50, "replicas": 6}])
async def test_a_canary_that_is_removed_when_the_load_fell_keeps_nothing(canary: Any) -> None:
    world, load = await scaled()
    load.per_second = 60
    await load.lasts(2 * EVERY_S)
    await world.edit(canary={"model": B} | canary)
    await load.lasts(4 * EVERY_S)
    load.per_second = 10
    await load.lasts(WINDOW_S + 8 * 60)
    [on_trial] = load.shares().keys() - {world.stable()}
    assert replicas(world) == 2
    assert replicas(world, on_trial) == canary.get("replicas", 1), "it goes along"
    await world.edit(canary=None)
    await load.lasts(120)
    assert pods_by_revision(world) == {world.stable(): 2}


@pytest.mark.parametrize("canary", [{"weight": 5}, {"weight": 50}, {"weight": 5, "replicas": 2}])
@pytest.mark.parametrize("scaling", [SCALING | {"maxReplicas": 20}, BY_CPU])
async def test_a_promotion_asks_for_no_more_than_carries_all(scaling: Any, canary: Any) -> None:
    """Once the more of it was ready the more it was to have: up to maxReplicas."""
    world, load = await scaled(scaling)
    load.per_second, old = 18, world.stable()
    if scaling is BY_CPU:
        by_cpu(world, load, all_of_it=3)
    await load.lasts(2 * EVERY_S)
    await world.edit(canary={"model": B} | canary)
    await load.lasts(4 * EVERY_S)
    await world.edit(model=B, canary=None)
    most = 0
    for _ in range(8):
        await load.lasts(EVERY_S)
        most = max(most, sum(pods_by_revision(world).values()))
    assert world.stable() != old
    assert most <= 2 * 3
    assert pods_by_revision(world) == {world.stable(): 3}
    assert not world.unsafe()


@pytest.mark.parametrize(
    ("begun", "goes_on"),
    [
        (
            {"model": B, "rollout": {"strategy": "Canary", "steps": STEPS}},
            {},
        ),
        ({"canary": {"model": B, "weight": 50}}, {"model": B, "canary": None}),
    ],
    ids=["in steps", "a canary"],
)
async def test_no_autoscaler_of_a_promotion_takes_what_the_former_one_has_for_load(
    begun: Any, goes_on: Any
) -> None:
    """Half of the requests went to as many pods as carry all: that asks for no twice as many."""
    world, load = await scaled(BY_CPU | {"minReplicas": 4})
    old = world.stable()
    world.controllers.wants = lambda _autoscaler, running: running
    await world.edit(**begun)
    await load.lasts(2 * EVERY_S)
    await world.edit(**goes_on)
    await load.lasts(8 * EVERY_S)
    assert world.stable() != old
    seen = [each.manifest["spec"] for each in world.happened() if each.kind is kinds.HPA]
    assert {each["scaleTargetRef"]["name"] for each in seen} == {old, world.stable()}
    assert {each["minReplicas"] for each in seen} == {4}
    assert pods_by_revision(world) == {world.stable(): 4}


async def test_a_revision_called_off_in_mid_steps_leaves_stable_its_size() -> None:
    steps = [{"weight": 10, "hold": "60s"}, {"weight": 50, "hold": "Approval"}]
    world, load = await scaled(rollout={"strategy": "Canary", "steps": steps})
    load.per_second = 30
    await load.lasts(2 * EVERY_S)
    await world.edit(model=B)
    await load.lasts(12 * EVERY_S)
    assert sorted(pods_by_revision(world).values()) == [3, 5], "half of five"
    await world.edit(model=SPEC["model"])
    await load.lasts(120)
    assert pods_by_revision(world) == {world.stable(): 5}


def route_of(kind: Kind) -> Callable[[Call], bool]:
    """Choose writes of what leads requests to one revision or another."""
    return lambda call: bool(call.number) and (call.kind, call.name) == (kind.plural, "gate")


async def refused(route: Kind, before: Any, edit: Any, **spec: Any) -> tuple[World, Load]:
    """Make `edit` after `before` where the route that it asks for is refused from now on."""
    world, load = await scaled(BY_CPU, **spec)
    by_cpu(world, load, all_of_it=10)
    await load.lasts(4 * EVERY_S)
    await world.edit(**before)
    await load.lasts(6 * EVERY_S)
    world.suffer(Refused(route_of(route), times=ALWAYS))
    await world.edit(**edit)
    return world, load


@pytest.mark.parametrize(
    ("route", "spec", "before", "edit"),
    [
        (kinds.VIRTUAL_SERVICE, {}, {}, {"model": B}),
        (kinds.SERVICE, {"traffic": {"provider": "service"}}, {}, {"model": B}),
        (kinds.VIRTUAL_SERVICE, {}, CANARY_OF_HALF, {"model": B, "canary": None}),
        (kinds.VIRTUAL_SERVICE, {}, CANARY_OF_HALF, {"canary": None}),
    ],
    ids=["whole", "by a Service", "a canary", "a canary that is removed"],
)
async def test_no_autoscaler_takes_what_a_route_that_is_refused_is_to_bring(
    route: Kind, spec: Any, before: Any, edit: Any
) -> None:
    """It sees no request come, and took pods; which were asked for again, and taken again."""
    world, load = await refused(route, before, edit, **spec)
    await load.lasts(12 * EVERY_S)
    assert replicas(world) >= 9
    lifted = [write for write in writes_to(world, "horizontalpodautoscalers") if "patch" in write]
    assert len(lifted) <= 2, "as it is made, and once more"
    world.heal()
    await load.lasts(3 * EVERY_S)
    assert load.shares()[world.stable()] == 100
    await load.lasts(6 * EVERY_S)
    assert floor_of(world) == 2, "the autoscaler is free again"
    assert not world.unsafe()


async def test_a_peak_while_a_route_is_refused_goes_again() -> None:
    """What stable needs beside its autoscaler is what others stand for, not what it had itself."""
    world, load = await refused(kinds.VIRTUAL_SERVICE, CANARY_OF_HALF, {"canary": None})
    await load.lasts(6 * EVERY_S)
    by_cpu(world, load, all_of_it=40)
    await load.lasts(8 * EVERY_S)
    assert replicas(world) == 20, "half of the requests"
    by_cpu(world, load, all_of_it=4)
    await load.lasts(20 * EVERY_S)
    assert replicas(world) == 9, "of which half are the five of the canary"


@pytest.mark.parametrize("weight", [1, 5])
async def test_what_a_canary_has_by_number_asks_for_no_more_than_stable_does_with(
    weight: int,
) -> None:
    """Two replicas for one percent stood for a hundred, while the route was refused."""
    world, load = await scaled(BY_CPU)
    by_cpu(world, load, all_of_it=4)
    await load.lasts(4 * EVERY_S)
    await world.edit(canary={"model": B, "weight": weight, "replicas": 2})
    await load.lasts(6 * EVERY_S)
    world.suffer(Refused(route_of(kinds.VIRTUAL_SERVICE), times=ALWAYS))
    await world.edit(canary=None)
    await load.lasts(8 * EVERY_S)
    assert world.condition("Written")["reason"] == "WriteRefused"
    assert (replicas(world), floor_of(world)) == (4, 4)


async def test_an_autoscaler_of_ones_own_moves_it_within_the_bounds() -> None:
    world, _ = await scaled({"minReplicas": 2, "maxReplicas": 4, "provider": "none"})
    assert not world.server.all(kinds.HPA)
    assert replicas(world) == 2
    assert world.status()["autoscaling"]["provider"] == "none"
    for asked, runs in ((3, 3), (9, 4), (1, 2)):
        await world.edit(replicas=asked)  # as the scale subresource does
        await world.settle()
        assert replicas(world) == runs


@pytest.mark.parametrize("strategy", [{}, {"strategy": "Canary", "steps": STEPS}])
@pytest.mark.parametrize("by", ["kubectl scale", "an autoscaler of theirs"])
async def test_a_release_goes_on_where_others_scaled_the_stable_revision_up(
    strategy: Any, by: str
) -> None:
    world = World()
    await world.settle()
    left = {"driftPolicy": "Report"} if by == "kubectl scale" else {}
    await world.create(**SPEC | {"rollout": strategy} | left)
    await world.settle()
    before = world.stable()
    if by == "kubectl scale":
        world.merge(kinds.DEPLOYMENT, before, {"spec": {"replicas": 5}})
    else:
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": before}
        bounds = {"minReplicas": 5, "maxReplicas": 8}
        theirs = {"metadata": {"name": "theirs"}, "spec": {"scaleTargetRef": target, **bounds}}
        world.send("POST", kinds.HPA.path(NAMESPACE), theirs)
    await world.settle()
    assert replicas(world, before) == 5
    await world.edit(model=B)
    await world.settle()
    assert world.stable() != before
    assert world.condition("Released")["status"] == "True"


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


KEDA_TOO = (kinds.HTTP_ROUTE, kinds.GATEWAY, kinds.POD_MONITOR)  # absent
PROMETHEUS = "http://prometheus.monitoring.svc:9090"


async def scaled_beside_keda(
    scaling: Any = SCALING, *, prometheus: str = PROMETHEUS, runs: bool = True
) -> tuple[World, Load]:
    """Return a released detector in a cluster that has KEDA, its API at least."""
    world = World(absent=KEDA_TOO)
    world.defaults = replace(world.defaults, prometheus=prometheus)
    if runs:
        world.controllers.others.append(keda)
    return await scaled(scaling, world=world)


def autoscalers(world: World) -> list[tuple[str, str]]:
    """Return each autoscaler, with the kind of its owner."""
    return [
        (one["metadata"]["name"], one["metadata"]["ownerReferences"][0]["kind"])
        for one in world.server.all(kinds.HPA)
    ]


def scaled_objects(world: World) -> list[str]:
    return [one["metadata"]["name"] for one in world.server.all(kinds.SCALED_OBJECT)]


async def test_auto_goes_by_keda_where_it_is_there_and_stays_with_what_it_chose() -> None:
    world, load = await scaled_beside_keda()
    assert world.status()["autoscaling"] == {"provider": "keda", "reason": "", "held": False}
    assert scaled_objects(world) == [world.stable()]
    assert autoscalers(world) == [(world.stable(), "ScaledObject")]
    assert not load.asked, "Prometheus has it"
    said = {condition["type"] for condition in world.status()["conditions"]}
    assert "Drifted" not in said, "what KEDA adds by itself is nobody's edit"
    world.suffer()
    await load.lasts(600)
    assert not world.writes()
    world, load = await scaled()
    world.server.absent.discard(kinds.SCALED_OBJECT)
    world.operator.deps = replace(
        world.operator.deps, defaults=replace(world.defaults, prometheus=PROMETHEUS)
    )
    await world.operator.resync()
    await world.edit(logLevel="debug")
    await load.lasts(60)
    assert world.status()["autoscaling"]["provider"] == "builtin"
    assert not scaled_objects(world)


def status_is_lost(world: World) -> None:
    """As by a restore, or a hand."""
    detector = world.detector()
    assert detector
    path = kinds.DETECTOR.path(NAMESPACE, detector["metadata"]["name"], "status")
    world.send("PUT", path, detector | {"status": {}})


@pytest.mark.parametrize("chosen", ["builtin", "keda"])
async def test_what_auto_chose_outlives_the_status(chosen: str) -> None:
    """Once a lost status had it choose anew, by what was in the cluster by then."""
    beside = chosen == "keda"
    world, load = await (scaled_beside_keda() if beside else scaled())
    prometheus = "" if beside else PROMETHEUS
    world.server.absent.discard(kinds.SCALED_OBJECT)
    world.operator.deps = replace(
        world.operator.deps, defaults=replace(world.defaults, prometheus=prometheus)
    )
    status_is_lost(world)
    await world.operator.resync()
    await load.lasts(60)
    assert world.status()["autoscaling"]["provider"] == chosen


async def test_who_takes_over_a_number_that_stays_says_why_it_does() -> None:
    world, load = await scaled(None, replicas=5)
    load.per_second = 30
    await world.edit(replicas=None, autoscaling=SCALING)
    await load.lasts(WINDOW_S)
    told = world.status()["autoscaling"]
    assert told["floor"] == 5
    assert "requests a second, 7.0 each" in told["reason"]
    world.suffer()
    await load.lasts(120)
    assert not world.writes()


async def test_the_autoscaler_goes_to_keda_and_back_with_the_number_that_it_has() -> None:
    world, load = await scaled_beside_keda(SCALING | {"provider": "builtin"})
    load.per_second = 30
    await load.lasts(2 * EVERY_S)
    fewest, stable = 99, world.stable()
    world.controllers.wants = lambda _autoscaler, replicas: replicas
    world.suffer()
    for provider, owner in (("keda", "ScaledObject"), ("builtin", "YoloDetector")):
        await world.edit(autoscaling=SCALING | {"provider": provider})
        for _ in range(8):
            await load.lasts(EVERY_S)
            fewest = min(fewest, replicas(world))
        assert autoscalers(world) == [(stable, owner)]
        assert scaled_objects(world) == ([stable] if provider == "keda" else [])
        assert world.status()["autoscaling"]["provider"] == provider
    assert fewest == replicas(world) == floor_of(world) == 5
    gone = [seen.type for seen in world.happened() if seen.kind is kinds.HPA].count("DELETED")
    assert gone == 1, "only KEDA's own, with what owns it"
    assert not world.failures
    assert not world.condition("Written")


async def test_a_promotion_leaves_no_scaled_object_on_the_former_revision() -> None:
    world, load = await scaled_beside_keda()
    world.controllers.wants = lambda _autoscaler, replicas: max(replicas, 4)
    await load.lasts(60)
    old = world.stable()
    await world.edit(model=B)
    await load.lasts(180)
    assert world.stable() != old
    assert scaled_objects(world) == [world.stable()]
    assert autoscalers(world) == [(world.stable(), "ScaledObject")]
    assert replicas(world) == 4
    assert replicas(world, old) == 0
    assert not world.unsafe()


async def test_keda_without_a_prometheus_holds_what_runs_and_says_what_to_set() -> None:
    world, load = await scaled_beside_keda(SCALING | {"provider": "keda"}, prometheus="")
    limited = world.condition("AutoscalingLimited")
    assert limited["reason"] == "ProviderMissing"
    assert "prometheus.url is not set in the operator's chart" in limited["message"]
    assert not scaled_objects(world)
    assert autoscalers(world) == [(world.stable(), "YoloDetector")]
    assert not load.asked


async def test_when_keda_is_removed_with_its_api_what_runs_is_held() -> None:
    world, load = await scaled_beside_keda()
    world.controllers.wants = lambda _autoscaler, replicas: max(replicas, 4)
    await load.lasts(30)
    world.controllers.wants = lambda _autoscaler, _replicas: 1
    world.controllers.others.clear()
    for scaled_object in world.server.all(kinds.SCALED_OBJECT):  # as its definition goes
        path = kinds.SCALED_OBJECT.path(NAMESPACE, scaled_object["metadata"]["name"])
        world.send("PATCH", path, {"metadata": {"finalizers": None}}, MERGE)
        world.send("DELETE", path)
    world.server.absent.add(kinds.SCALED_OBJECT)
    await world.operator.resync()
    await load.lasts(600)
    assert world.condition("AutoscalingLimited")["reason"] == "ProviderMissing"
    assert "4 replicas are held" in world.condition("AutoscalingLimited")["message"]
    assert world.status()["autoscaling"]["provider"] == "keda", "the user decides"
    assert replicas(world) == 4
    assert autoscalers(world) == [(world.stable(), "YoloDetector")]


async def test_a_scaled_object_that_cannot_go_is_told_and_holds_up_nothing_else() -> None:
    """KEDA went first: its finalizer stays, and with it its autoscaler."""
    world, load = await scaled_beside_keda()
    stable = world.stable()
    world.controllers.others.clear()
    await world.edit(autoscaling=SCALING | {"provider": "builtin"})
    await load.lasts(120)
    limited = world.condition("AutoscalingLimited")
    assert limited["reason"] == "ScaledObjectStays"
    assert f"patch scaledobject {stable} --type=merge" in limited["message"]
    assert autoscalers(world) == [(stable, "ScaledObject")]
    path = kinds.SCALED_OBJECT.path(NAMESPACE, stable)
    world.send("PATCH", path, {"metadata": {"finalizers": None}}, MERGE)
    await load.lasts(120)
    assert autoscalers(world) == [(stable, "YoloDetector")]
    assert not world.condition("AutoscalingLimited")


async def test_a_scaled_object_that_cannot_go_is_told_also_where_rays_autoscaler_waits_for_it() -> (
    None
):
    world, load = await scaled_beside_keda({"minReplicas": 2, "maxReplicas": 6, "inFlight": 4})
    world.controllers.others[:] = [KubeRay()]
    former = world.stable()
    await world.edit(runtime={"engine": "ray"})
    await load.lasts(300)
    assert world.stable() != former
    limited = world.condition("AutoscalingLimited")
    assert limited["reason"] == "ScaledObjectStays"
    assert f"patch scaledobject {former} --type=merge" in limited["message"]
    assert "2 replicas are held until it is gone" in limited["message"]
    more = {"minReplicas": 3, "maxReplicas": 6, "inFlight": 4}
    await world.edit(autoscaling=more)
    await load.lasts(60)
    assert "3 replicas are held" in world.condition("AutoscalingLimited")["message"]
    path = kinds.SCALED_OBJECT.path(NAMESPACE, former)
    world.send("PATCH", path, {"metadata": {"finalizers": None}}, MERGE)
    await load.lasts(60)
    assert not world.condition("AutoscalingLimited")


async def test_a_detector_whose_keda_went_first_is_deleted_but_for_its_scaled_object() -> None:
    world, _ = await scaled_beside_keda()
    stable = world.stable()
    world.controllers.others.clear()
    await world.delete()
    await world.settle()
    assert world.detector() is None
    assert {kind for kind, _ in world.children()} <= {"ScaledObject", "HorizontalPodAutoscaler"}
    [left] = world.server.all(kinds.SCALED_OBJECT)
    assert left["metadata"]["name"] == stable
    assert "deletionTimestamp" in left["metadata"]
    assert not world.restless


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"status": {}}, "KedaSilent", "is its operator running?"),
        (
            {"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "Bad",
                                        "message": "no such query"}]}},
            "Bad",
            "KEDA says: no such query",
        ),
        (
            {"status": {"conditions": [{"type": "Fallback", "status": "True"}]}},
            "MetricLost",
            "the replicas that run are held",
        ),
    ],
)  # fmt: skip
async def test_what_keda_says_of_its_work_is_passed_on(
    change: Any, reason: str, words: str
) -> None:
    world, load = await scaled_beside_keda()
    world.controllers.others.clear()
    live = world.server.find(kinds.SCALED_OBJECT, NAMESPACE, world.stable())
    assert live
    path = kinds.SCALED_OBJECT.path(NAMESPACE, world.stable(), "status")
    world.send("PUT", path, live | change)
    await load.lasts(120)
    assert world.condition("AutoscalingLimited")["reason"] == reason
    assert words in world.condition("AutoscalingLimited")["message"]


async def test_where_an_exporter_of_gpus_is_believed_is_told_with_a_metric_that_is_lost() -> None:
    world, load = await scaled_beside_keda(SCALING | {"gpu": 80})
    world.controllers.others.clear()
    live = world.server.find(kinds.SCALED_OBJECT, NAMESPACE, world.stable())
    assert live
    path = kinds.SCALED_OBJECT.path(NAMESPACE, world.stable(), "status")
    lost = {"status": {"conditions": [{"type": "Fallback", "status": "True"}]}}
    world.send("PUT", path, live | lost)
    await load.lasts(120)
    assert "keda.gpu.exporterNamespace" in world.condition("AutoscalingLimited")["message"]
