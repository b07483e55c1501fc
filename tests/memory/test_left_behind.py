"""Children are taken over for nobody who is gone: garbage collection would take them, pods and all.

A detector goes with `--cascade=orphan`, and what it served by serves on; or it is made again, and
the operator hears late of either.
"""

from typing import Any

import pytest

from faults.stage import NAME
from faults.traces import SPEC, B
from memory_cluster.faults import Call, Slow, write
from memory_cluster.operator import Operator
from memory_cluster.world import NAMESPACE, World
from yolofleet.api import names
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime import objects
from yolofleet.runtime.kind import Kind


async def serving(**spec: Any) -> World:
    world = World()
    await world.settle()
    await world.create(**SPEC | spec)
    await world.settle()
    return world


def pods(world: World) -> set[str]:
    return {pod["metadata"]["uid"] for pod in world.server.all(kinds.POD)}


def leave_behind(world: World) -> None:
    """Delete the detector as garbage collection does by `--cascade=orphan`, all of it heard."""
    world.merge(kinds.DETECTOR, NAME, {"metadata": {"finalizers": ["orphan"]}})
    world.remove(kinds.DETECTOR, NAME, policy="Orphan")
    world.merge(kinds.DETECTOR, NAME, {"metadata": {"finalizers": None}})
    assert world.operator
    world.operator.hear()


@pytest.mark.parametrize(
    ("edit", "number"),
    [*(({"model": B}, number) for number in range(1, 7)), ({"replicas": 3}, 1)],
)
async def test_what_is_left_behind_in_the_middle_of_writes_serves_on(
    edit: Manifest, number: int
) -> None:
    world = await serving()
    before = pods(world)

    async def meanwhile() -> None:
        leave_behind(world)

    world.suffer(orphaned := Slow(write(number), meanwhile=meanwhile))
    await world.edit(**edit)
    await world.settle()
    assert orphaned.struck
    assert pods(world) >= before
    assert not {objects.controller_uid(child) for child in world.children().values()} - {""}


class HearsLate:
    """Watches of which the one of detectors is late: its news waits."""

    def __init__(self, informer: Any) -> None:
        self._informer = informer
        self._waiting: list[tuple[Kind, str, Manifest]] = []
        self._late = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._informer, name)

    def take(self, kind: Kind, type: str, manifest: Manifest) -> None:
        if kind is kinds.DETECTOR and self._late:
            self._waiting.append((kind, type, manifest))
        else:
            self._informer.take(kind, type, manifest)

    def catch_up(self) -> None:
        self._late = False
        for news in self._waiting:
            self._informer.take(*news)


@pytest.mark.parametrize("made_again", [False, True])
async def test_so_it_does_when_that_is_heard_late(
    monkeypatch: pytest.MonkeyPatch, made_again: bool
) -> None:
    world = await serving()
    assert isinstance(world.operator, Operator)
    before, watches = pods(world), HearsLate(world.operator._informer)
    monkeypatch.setattr(world.operator, "_informer", watches)
    world.remove(kinds.DETECTOR, NAME, policy="Orphan")
    if made_again:
        await world.create(**SPEC)
    for _ in range(20):
        await world.pass_time(0.1)
        world.controllers.settle()
    assert pods(world) == before
    watches.catch_up()
    if not made_again:
        await world.create(**SPEC)
    await world.settle()
    assert pods(world) == before
    (detector,) = world.server.all(kinds.DETECTOR)
    owners = {objects.controller_uid(child) for child in world.children().values()}
    assert owners == {detector["metadata"]["uid"]}


async def lead_late(world: World, operator: Operator) -> None:
    """Let `operator`, which has heard of no detector since it began, work on alone."""
    operator._informer = HearsLate(operator._informer)  # type: ignore[assignment]
    world.operator = operator
    for _ in range(30):
        await world.pass_time(1.0)
        world.controllers.settle()


@pytest.mark.parametrize("policy", ["Orphan", "Background"])
async def test_a_successor_of_the_operator_takes_no_children_for_a_former_detector(
    policy: str,
) -> None:
    world = await serving()
    standby = Operator(world.server, world.client)
    await standby.start()
    world.remove(kinds.DETECTOR, NAME, policy=policy)
    world.controllers.settle()
    await world.pass_time(1.0)
    await world.create(**SPEC)
    await world.settle()
    before = pods(world)
    await lead_late(world, standby)
    assert pods(world) == before
    assert world.condition("Ready")["status"] == "True"


async def test_a_successor_of_the_operator_undoes_no_roll_back() -> None:
    world = await serving()
    await world.edit(model=B)
    await world.settle()
    standby = Operator(world.server, world.client)
    await standby.start()
    await world.edit(model=SPEC["model"])
    await world.settle()
    good = world.stable()
    world.suffer()
    await standby.lead()
    await lead_late(world, standby)
    assert world.stable() == good
    assert not world.writes()


async def test_what_a_status_was_refused_for_is_looked_at() -> None:
    """Nobody listed, and no watch tells: the first refusal of its status does."""
    world = await serving()
    standby = Operator(world.server, world.client)
    await standby.start()
    await world.edit(replicas=3)
    await world.settle()
    world.suffer()
    world.broken = {SPEC["model"]["uri"]}
    for pod in world.server.all(kinds.POD):
        world.remove(kinds.POD, pod["metadata"]["name"])  # there is something to tell
    await lead_late(world, standby)
    assert world.status()["observedGeneration"] == 2, world.status()
    assert world.writes().count("patch yolodetectors/gate") < 10


PLAIN = {"model": SPEC["model"], "replicas": 1, "traffic": {"provider": "service"}}
SCALED = {"autoscaling": {"minReplicas": 3, "maxReplicas": 8, "cpu": 70}}


async def test_what_was_left_behind_and_is_wanted_no_more_goes() -> None:
    """A route and an autoscaler: they led to who is gone, and kept three replicas for ever."""
    world = await serving(**SCALED)
    leave_behind(world)
    await world.create(**PLAIN)
    await world.settle()
    (detector,) = world.server.all(kinds.DETECTOR)
    owners = {objects.controller_uid(child) for child in world.children().values()}
    assert owners == {detector["metadata"]["uid"]}
    gone = (kinds.HPA, kinds.VIRTUAL_SERVICE, kinds.DESTINATION_RULE)
    assert not [one for kind in gone for one in world.server.all(kind)]
    [stable] = world.server.all(kinds.DEPLOYMENT)
    assert stable["spec"]["replicas"] == 1


async def test_what_only_looks_alike_stays() -> None:
    world = await serving()
    labels = world.children()["Service", NAME]["metadata"]["labels"]
    pod = world.server.all(kinds.POD)[0]
    owner = {"apiVersion": "v1", "kind": "Pod", "controller": True}
    owner |= {"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    of_ours = f"{NAME}-{names.LIVE}"
    alike: list[Manifest] = [
        {"name": "door", "labels": labels},
        {"name": of_ours, "labels": labels | {names.MANAGED_BY_LABEL: "them"}},
        {"name": of_ours, "labels": labels, "ownerReferences": [owner]},
    ]
    for kind, metadata in zip((kinds.SERVICE, kinds.SERVICE, kinds.CONFIG_MAP), alike, strict=True):
        world.send("POST", kind.path(NAMESPACE), {"metadata": metadata, "spec": {}})
    await world.edit(replicas=3)
    await world.settle()
    left = {("Service", "door"), ("Service", of_ours), ("ConfigMap", of_ours)}
    assert left <= world.children().keys()


async def test_what_is_left_behind_in_the_middle_of_deletions_stays() -> None:
    """The detector goes before the list of what is to be deleted, and nobody has heard of it."""
    world = await serving(**SCALED)

    async def meanwhile() -> None:
        world.merge(kinds.DETECTOR, NAME, {"metadata": {"finalizers": ["orphan"]}})
        world.remove(kinds.DETECTOR, NAME, policy="Orphan")

    def lists(call: Call) -> bool:
        return call.kind == kinds.HPA.plural and not (call.name or call.number)

    world.suffer(leave := Slow(lists, meanwhile=meanwhile))
    await world.edit(**PLAIN | {"autoscaling": None})
    await world.settle()
    assert leave.struck
    assert world.server.all(kinds.HPA)
