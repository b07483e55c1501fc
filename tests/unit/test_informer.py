"""What the informer makes of lists and watches: the cache, and who is to look."""

import asyncio
import time
from collections import defaultdict
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest

from controlplane.kube import eventually
from yolofleet.__main__ import Operator
from yolofleet.cluster import kinds
from yolofleet.cluster.cache import Cache
from yolofleet.cluster.informer import Informer
from yolofleet.runtime import errors
from yolofleet.runtime.client import Client, Listing
from yolofleet.runtime.kind import CRD, Kind
from yolofleet.runtime.objects import Manifest
from yolofleet.runtime.queue import Priority, WorkQueue
from yolofleet.runtime.watch_health import WatchHealth

OWNED = {"yolofleet.io/detector": "gate"}


def an_object(kind: Kind, version: int = 1, **metadata: Any) -> Manifest:
    basic = {"name": "gate", "namespace": "shop", "uid": "u", "resourceVersion": str(version)}
    return {"metadata": basic | metadata, "spec": {}}


class Cluster:
    """An API server with nothing in it but `there`, whose watches tell nothing.

    served: which optional APIs it has.
    """

    def __init__(self, *served: Kind) -> None:
        self.served = set(served)
        self.there: dict[Kind, list[Manifest]] = {}
        self.forbidden: set[tuple[Kind, str]] = set()
        self.refused: set[tuple[Kind, str]] = set()
        self.away_for = self.knows_rights_after = 0  # questions
        self.asked: list[tuple[Kind, str]] = []
        self.watched: list[tuple[Kind, str, int]] = []
        self.forgets: defaultdict[Kind, asyncio.Event] = defaultdict(asyncio.Event)

    async def list(self, kind: Kind, keep: Any, *, namespace: str = "", **_: Any) -> Listing[Any]:
        if (kind, namespace) in self.forbidden:
            self.refused.add((kind, namespace))
            raise errors.Forbidden(f"{kind} may not be listed in {namespace!r}")
        self.asked.append((kind, namespace))
        there = self.there.get(kind, ())
        return Listing(
            [keep(one) for one in there if namespace in ("", one["metadata"]["namespace"])], 9
        )

    def lose(self, namespace: str) -> None:
        """Have no Role in `namespace` any more, as when that is deleted."""
        self.forbidden |= {(kind, namespace) for kind in kinds.CACHED if kind.namespaced}

    async def watch(
        self, kind: Kind, version: int, *_: Any, namespace: str, opened: Any, **__: Any
    ) -> None:
        opened(SimpleNamespace(total_bytes=0))
        self.watched.append((kind, namespace, version))
        await self.forgets[kind].wait()
        self.forgets[kind].clear()
        raise errors.Gone("too old")

    async def serves(self, kind: Kind) -> bool:
        if self.away_for:
            self.away_for -= 1
            raise errors.Unavailable("nobody is there")
        if self.knows_rights_after:
            self.knows_rights_after -= 1
            raise errors.Forbidden(f"cannot get path {kind.api_path}")
        return kind in self.served


class World:
    def __init__(self, *served: Kind, **options: Any) -> None:
        self.cluster, self.cache, self.queue = Cluster(*served), Cache(), WorkQueue()
        client = cast(Client, self.cluster)
        self.informer = Informer(client, self.cache, self.queue, **options)

    def look(self) -> str | None:
        """Return who is to look next, and be done with it."""
        if (key := self.queue.take()) is not None:
            self.queue.done(key)
        return key


@pytest.fixture
def world() -> World:
    return World()


def test_what_a_user_changes_comes_before_drift(world: World) -> None:
    labels = {"yolofleet.io/detector": "other"}
    world.informer.take(kinds.SERVICE, "MODIFIED", an_object(kinds.SERVICE, labels=labels))
    world.informer.take(kinds.DETECTOR, "ADDED", an_object(kinds.DETECTOR))
    assert [world.look(), world.look()] == ["shop/gate", "shop/other"]


def test_a_deletion_wakes_the_owner_once(world: World) -> None:
    service = an_object(kinds.SERVICE, labels=OWNED)
    world.informer.take(kinds.SERVICE, "ADDED", service)
    assert world.look() == "shop/gate"
    world.informer.take(kinds.SERVICE, "DELETED", service)
    assert world.look() == "shop/gate"
    world.informer.take(kinds.SERVICE, "DELETED", service)
    assert world.look() is None


def test_an_urgent_wish_is_not_held_up_by_a_resync(world: World) -> None:
    world.queue.add("shop/other", Priority.RESYNC)
    world.informer.take(kinds.DETECTOR, "MODIFIED", an_object(kinds.DETECTOR))
    assert world.look() == "shop/gate"


def waiting(claiming: bool) -> list[str]:
    return ["shop/claims"] if claiming else ["shop/gate"]


@pytest.mark.parametrize(
    ("offered", "woken"), [({"nvidia.com/gpu": "1"}, "shop/gate"), ({"cpu": "8"}, "shop/claims")]
)
def test_a_node_that_changes_wakes_who_waits_for_such_a_one(offered: Any, woken: str) -> None:
    """One without accelerators woke all, for each label of it."""
    world = World(waiting=waiting)

    def take(type: str, version: int, **spec: Any) -> str | None:
        node = an_object(kinds.NODE, version) | {"status": {"allocatable": offered}, "spec": spec}
        world.informer.take(kinds.NODE, type, node)
        return world.look()

    assert take("ADDED", 1) == woken
    assert take("MODIFIED", 2) is None, "a heartbeat"
    assert take("MODIFIED", 3, taints=[{"key": "a"}]) == woken
    assert take("DELETED", 4) == woken


@pytest.mark.parametrize(
    ("pod", "frees"),
    [
        ({"containers": [{"resources": {"limits": {"nvidia.com/gpu": 1}}}]}, True),
        ({"containers": [], "resourceClaims": [{"name": "accelerator"}]}, True),
        ({"containers": []}, False),
    ],
)
def test_a_pod_that_goes_wakes_who_waits_for_what_it_held(pod: Any, frees: bool) -> None:
    world = World(waiting=waiting)
    holder = an_object(kinds.POD) | {"spec": {"nodeName": "n1", **pod}}
    world.informer.take(kinds.POD, "ADDED", holder)
    while world.look():
        pass
    world.informer.take(kinds.POD, "DELETED", holder)
    woken = {world.look(), world.look()}
    assert ("shop/gate" in woken) is frees


@pytest.mark.parametrize(
    ("name", "looks"),
    [("podmonitors.monitoring.coreos.com", True), ("services.example.com", False)],
)
def test_a_definition_that_is_news_is_looked_into(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, looks: bool
) -> None:
    looked: list[bool] = []
    monkeypatch.setattr(world.informer, "definitions_changed", lambda: looked.append(True))
    world.informer.take(CRD, "ADDED", an_object(CRD, name=name))
    assert bool(looked) is looks


async def test_each_watch_goes_on_where_the_first_list_ended() -> None:
    world = World(kinds.POD_MONITOR, namespaces=["a", "b"])
    await world.informer.first()
    async with running(world):
        await eventually(lambda: (CRD, "", 9) in world.cluster.watched)
    watched = set(world.cluster.watched)
    assert {(kinds.POD_MONITOR, "a", 9), (kinds.POD_MONITOR, "b", 9)} <= watched
    assert (kinds.NODE, "", 9) in watched, "nodes are of no namespace"
    assert kinds.HTTP_ROUTE not in {kind for kind, _, _ in watched}
    assert len(watched) == len(world.cluster.watched)


async def test_a_watch_that_lost_its_place_is_answered_by_a_list() -> None:
    """The last object of its kind was deleted, and the deletion fell into the gap."""
    relists: list[str] = []
    world = World(relisted=relists.append)
    world.cluster.there[kinds.PDB] = [an_object(kinds.PDB, labels=OWNED)]
    await world.informer.first()
    assert world.look() == "shop/gate"
    assert relists == [], "a watch has to begin"
    async with running(world):
        await eventually(lambda: (kinds.PDB, "", 9) in world.cluster.watched)
        world.cluster.there.clear()
        world.cluster.forgets[kinds.PDB].set()
        assert await asyncio.wait_for(world.queue.get(), 60) == "shop/gate"
        await eventually(lambda: world.cluster.watched.count((kinds.PDB, "", 9)) == 2)
    assert relists == ["PodDisruptionBudget"]
    assert world.cache.named(kinds.PDB, "shop", "gate") is None


async def test_a_kind_that_appears_is_followed_and_one_that_vanishes_is_not() -> None:
    world = World()
    await world.informer.first()
    async with running(world):
        world.cluster.served.add(kinds.POD_MONITOR)
        await world.informer.discover()
        await eventually(lambda: (kinds.POD_MONITOR, "", 9) in world.cluster.watched)
        world.cluster.served.clear()
        await world.informer.discover()
        assert not world.cache.serves(kinds.POD_MONITOR)
        names = {task.get_name() for task in asyncio.all_tasks() if not task.cancelling()}
        assert "watch PodMonitor" not in names
        assert "watch Service" in names


@pytest.mark.parametrize("question", ["serves", "list"])
async def test_a_server_that_is_busy_at_the_start_is_asked_again(
    world: World, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    monkeypatch.setattr("yolofleet.cluster.informer.RETRY_S", 0.0)
    answer = getattr(world.cluster, question)
    busy = [errors.Unavailable("no"), errors.Throttled("no", 1)]

    async def busy_twice(*asked: Any, **options: Any) -> Any:
        if busy:
            raise busy.pop()
        return await answer(*asked, **options)

    monkeypatch.setattr(world.cluster, question, busy_twice)
    await world.informer.first()
    assert not busy


async def test_after_a_resync_memory_can_be_given_back() -> None:
    resynced = asyncio.Event()
    world = World(resynced=resynced.set, period_s=0.01)
    await world.informer.first()
    async with running(world):
        await asyncio.wait_for(resynced.wait(), 60)


async def test_an_optional_kind_that_may_not_be_listed_ends_nothing() -> None:
    """As after an upgrade of the operator whose new rights somebody else has to give."""
    world = World(*kinds.OPTIONAL)
    world.cluster.forbidden.add((kinds.ISTIO_GATEWAY, ""))
    await world.informer.first()
    await world.informer.discover()
    cache = world.cache
    assert not cache.serves(kinds.ISTIO_GATEWAY), "nobody can say which gateways there are"
    assert cache.serves(kinds.HTTP_ROUTE), "what comes after it is found"


async def test_a_right_that_is_given_later_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolofleet.runtime.reflector.PAUSE_WITHOUT_RIGHT_S", 0.0)
    world = World(kinds.POD_MONITOR)
    world.cluster.forbidden = {(kinds.POD_MONITOR, ""), (CRD, "")}
    await world.informer.first()
    assert not world.cache.serves(kinds.POD_MONITOR)
    async with running(world):
        world.cluster.forbidden.clear()
        await eventually(lambda: world.cache.serves(kinds.POD_MONITOR))
        await eventually(lambda: (CRD, "", 9) in world.cluster.watched)


async def test_what_appeared_before_definitions_could_be_listed_is_looked_for_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("yolofleet.runtime.reflector.PAUSE_WITHOUT_RIGHT_S", 0.0)
    monkeypatch.setattr("yolofleet.cluster.informer.DISCOVERY_DELAYS_S", (0.0,))
    world = World()
    world.cluster.forbidden = {(CRD, "")}
    await world.informer.first()
    async with running(world):
        world.cluster.served = {kinds.POD_MONITOR}
        world.cluster.forbidden.clear()
        await eventually(lambda: (kinds.POD_MONITOR, "", 9) in world.cluster.watched)


@pytest.mark.parametrize("kind", kinds.DISPENSABLE, ids=str)
async def test_a_right_that_lacks_in_one_namespace_is_missed_in_no_other(kind: Kind) -> None:
    """Roles that an admin keeps by hand are upgraded after the operator."""
    world = World(namespaces=["shop", "other"])
    world.cluster.forbidden.add((kind, "other"))
    world.cluster.there[kind] = [an_object(kind, labels=OWNED)]
    await world.informer.first()
    assert world.cache.named(kind, "shop", "gate")
    await world.informer.list(kind)
    async with running(world):
        await eventually(lambda: (kind, "shop", 9) in world.cluster.watched)


async def test_a_server_that_does_not_know_our_rights_yet_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one that has just begun and has not read its own roles: which kinds, and which lists."""
    monkeypatch.setattr("yolofleet.cluster.informer.RETRY_S", 0.0)
    world = World(kinds.POD_MONITOR)
    world.cluster.knows_rights_after = 3
    await world.informer.first()
    assert world.cache.serves(kinds.POD_MONITOR)
    world = World()
    world.cluster.forbidden.add((kinds.DEPLOYMENT, ""))
    first = asyncio.create_task(world.informer.first())
    await eventually(lambda: (kinds.DEPLOYMENT, "") in world.cluster.refused)
    world.cluster.forbidden.clear()
    await first


async def test_a_server_that_was_away_for_long_has_its_time_to_know_our_rights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half a minute for each question: away for ten, and for one it knows nobody."""
    world = World()
    world.cluster.away_for, world.cluster.knows_rights_after = 10, 2
    left = [*range(1000, 2000, 30)]
    monkeypatch.setattr(
        "yolofleet.runtime.patience.time", SimpleNamespace(monotonic=lambda: left.pop(0))
    )
    monkeypatch.setattr("yolofleet.cluster.informer.RETRY_S", 0.0)
    await world.informer.first()
    assert not world.cluster.knows_rights_after


@pytest.mark.parametrize("refusal", [errors.Unauthenticated, errors.Untrusted])
async def test_what_a_new_process_would_read_anew_ends_the_start(
    refusal: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token of another cluster, the authorities of before a rotation: not a busy server."""
    world, asked = World(), []

    async def serves(kind: Kind) -> bool:
        asked.append(kind)
        raise refusal("not by you")

    monkeypatch.setattr(world.cluster, "serves", serves)
    left = [*range(1000, 2000, 25)]
    monkeypatch.setattr(
        "yolofleet.runtime.patience.time", SimpleNamespace(monotonic=lambda: left.pop(0))
    )
    monkeypatch.setattr("yolofleet.cluster.informer.RETRY_S", 0.0)
    with pytest.raises(refusal):
        await world.informer.first()
    assert len(asked) == 4


async def test_what_has_to_be_read_and_may_not_be_ends_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("yolofleet.cluster.informer.RIGHTS_S", 0.0)
    world = World()
    world.cluster.forbidden.add((kinds.DEPLOYMENT, ""))
    with pytest.raises(errors.Forbidden):
        await world.informer.first()


def detector(namespace: str) -> Manifest:
    return an_object(kinds.DETECTOR, namespace=namespace, uid=f"u-{namespace}")


@pytest.mark.parametrize("lost", [kinds.DETECTOR, kinds.POD], ids=str)
async def test_a_namespace_that_may_not_be_read_keeps_no_other_from_its_operator(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lost: Kind
) -> None:
    """When it is deleted its Role goes with it; one kept by hand may lack a kind."""
    monkeypatch.setattr("yolofleet.cluster.informer.RIGHTS_S", 0.0)
    world = World(kinds.POD_MONITOR, namespaces=["gone", "shop"])
    world.cluster.forbidden = {(lost, "gone")}
    world.cluster.there[kinds.DETECTOR] = [detector("gone"), detector("shop")]
    await world.informer.first()
    assert world.cache.detectors() == ["shop/gate"]
    async with running(world):
        await eventually(lambda: (kinds.POD_MONITOR, "shop", 9) in world.cluster.watched)
        await eventually(lambda: not world.informer.watches.unopened())
        assert {namespace for _, namespace, _ in world.cluster.watched} == {"shop", ""}
    [told] = [each for each in caplog.records if "watchNamespaces" in each.message]
    assert getattr(told, "fields", {})["namespace"] == "gone"


async def test_where_every_namespace_refuses_there_is_no_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("yolofleet.cluster.informer.RIGHTS_S", 0.0)
    world = World(namespaces=["one", "other"])
    world.cluster.lose("one")
    world.cluster.forbidden.add((kinds.SERVICE, "other"))
    with pytest.raises(errors.Forbidden):
        await world.informer.first()


async def test_rights_that_are_late_in_one_namespace_are_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("yolofleet.cluster.informer.RETRY_S", 0.0)
    world = World(namespaces=["late", "shop"])
    world.cluster.lose("late")
    world.cluster.there[kinds.DETECTOR] = [detector("late")]
    first = asyncio.create_task(world.informer.first())
    await eventually(lambda: (kinds.DETECTOR, "late") in world.cluster.refused)
    world.cluster.forbidden.clear()
    await first
    assert world.cache.detectors() == ["late/gate"]


async def test_a_namespace_that_is_late_has_its_time_whatever_the_others_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One is refused at first, and then more than a minute is spent on its list."""
    monkeypatch.setattr("yolofleet.cluster.informer.RETRY_S", 0.0)
    world, now = World(namespaces=["large", "late"]), [1000.0]
    monkeypatch.setattr(
        "yolofleet.runtime.patience.time", SimpleNamespace(monotonic=lambda: now[0])
    )
    refusals, answer = {"large": 1, "late": 2}, world.cluster.list

    async def slow(kind: Kind, keep: Any, *, namespace: str = "", **more: Any) -> Listing[Any]:
        if refusals.get(namespace):
            refusals[namespace] -= 1
            raise errors.Forbidden(f"not in {namespace} yet")
        now[0] += 70.0 if namespace == "large" else 0.0
        return await answer(kind, keep, namespace=namespace, **more)

    monkeypatch.setattr(world.cluster, "list", slow)
    world.cluster.there[kinds.DETECTOR] = [detector("late")]
    await world.informer.first()
    assert world.cache.detectors() == ["late/gate"]


async def test_namespaces_that_refuse_share_one_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute for each of many, one after the other, would be no start."""
    monkeypatch.setattr("yolofleet.cluster.informer.RETRY_S", 0.0)
    world = World(namespaces=["gone", "shop", "other-gone", "other", "third-gone"])
    for namespace in ("gone", "other-gone", "third-gone"):
        world.cluster.lose(namespace)
    world.cluster.there[kinds.DETECTOR] = [detector("shop"), detector("other")]
    left = [*range(1000, 2000, 20)]
    monkeypatch.setattr(
        "yolofleet.runtime.patience.time", SimpleNamespace(monotonic=lambda: left.pop(0))
    )
    await world.informer.first()
    assert left[0] == 1080, "refused at first, and three times more, until a minute was over"
    assert sorted(world.cache.detectors()) == ["other/gate", "shop/gate"]


async def test_a_namespace_that_refuses_holds_up_the_resync_of_no_other() -> None:
    world = World(kinds.POD_MONITOR, namespaces=["gone", "shop"])
    await world.informer.first()
    world.cluster.lose("gone")
    for kind in (kinds.SERVICE, kinds.POD_MONITOR):
        world.cluster.there[kind] = [an_object(kind, labels=OWNED)]
        await world.informer.list(kind)
        assert world.cache.named(kind, "shop", "gate")
    world.cluster.lose("shop")
    with pytest.raises(errors.Forbidden):
        await world.informer.list(kinds.SERVICE)


@pytest.mark.parametrize("namespaces", [["one"], ["one", "other"]])
async def test_a_list_that_is_refused_beside_a_watch_is_no_lost_right(
    monkeypatch: pytest.MonkeyPatch, namespaces: list[str]
) -> None:
    """As one of a resync that meets an API server which has just begun: nothing goes unseen."""
    for name in ("RIGHTS_S", "LISTEN_S"):
        monkeypatch.setattr(f"yolofleet.cluster.informer.{name}", 0.0)
    world = World(namespaces=namespaces)
    world.cluster.there[kinds.DETECTOR] = [detector(each) for each in namespaces]
    await world.informer.first()
    async with running(world):
        await eventually(lambda: (kinds.POD, "one", 9) in world.cluster.watched)
        world.cluster.lose("one")
        with suppress(errors.Forbidden):
            await world.informer.list(kinds.POD)
        assert (kinds.POD, "one") in world.cluster.refused
        for _ in range(20):
            await asyncio.sleep(0)
        assert not world.informer.failing()
        assert world.cache.detectors() == [f"{each}/gate" for each in namespaces]


async def test_a_namespace_whose_rights_went_is_forgotten_and_comes_back_with_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for name in ("RIGHTS_S", "LISTEN_S", "PAUSE_WITHOUT_RIGHT_S"):
        monkeypatch.setattr(f"yolofleet.cluster.informer.{name}", 0.0)
    now = [0.0]
    watches = WatchHealth(clock=lambda: now[0])
    world = World(namespaces=["shop", "lost"], watches=watches)
    cluster, cache = world.cluster, world.cache
    service = an_object(kinds.SERVICE, namespace="lost", uid="u-service", labels=OWNED)
    news = {"name": "news", "uid": "u-news"}
    cluster.there = {
        kinds.DETECTOR: [detector("shop"), detector("lost")],
        kinds.SERVICE: [service],
    }
    await world.informer.first()
    assert {world.look(), world.look()} == {"shop/gate", "lost/gate"}
    async with running(world):
        await eventually(lambda: (kinds.POD, "lost", 9) in cluster.watched)
        cluster.there[kinds.SERVICE] = [service, service | {"metadata": service["metadata"] | news}]
        await world.informer.list(kinds.SERVICE)
        cluster.lose("lost")
        cluster.forgets[kinds.POD].set()
        await eventually(lambda: cache.detectors() == ["shop/gate"])
        assert cache.named(kinds.SERVICE, "lost", "gate") is None
        names = [task.get_name() for task in asyncio.all_tasks() if not task.cancelling()]
        assert names.count("watch Service") == 1
        assert {world.look(), world.look()} == {"lost/gate", None}, "what else is kept of it goes"
        now[0] = 1000.0
        assert not watches.failing(), "nobody is to tell of what was not told before"
        now[0] = 0.0
        asked = len(cluster.asked)
        cluster.watched.clear()
        cluster.forbidden.clear()
        await eventually(lambda: (kinds.DETECTOR, "lost", 9) in cluster.watched)
        assert cache.named(kinds.SERVICE, "lost", "gate"), "the same version of it is known again"
        assert sorted(cache.detectors()) == ["lost/gate", "shop/gate"]
        listed = [kind for kind, namespace in cluster.asked[asked:] if namespace == "lost"]
        assert listed[-1] is kinds.DETECTOR, "nothing is decided before its children are known"
    told = [each.message for each in caplog.records if "namespace" in each.message]
    assert ["watchNamespaces" in each for each in told] == [True, False], "each is told once"


async def test_nothing_is_forgotten_while_every_namespace_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after the restart of an API server, which has to read its roles first."""
    monkeypatch.setattr("yolofleet.cluster.informer.LISTEN_S", 0.0)
    world = World(namespaces=["one", "other"])
    world.cluster.there[kinds.DETECTOR] = [detector("one"), detector("other")]
    await world.informer.first()
    world.cluster.lose("one")
    world.cluster.lose("other")
    async with running(world):
        await eventually(lambda: (kinds.DETECTOR, "other", 9) in world.cluster.watched)
        world.cluster.forgets[kinds.DETECTOR].set()
        await eventually(lambda: len(world.cluster.refused) == 2)
        monkeypatch.setattr("yolofleet.cluster.informer.RIGHTS_S", 0.0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(world.cache.detectors()) == 2


async def test_rights_that_are_taken_are_told_after_a_while_and_until_they_are_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("yolofleet.runtime.reflector.PAUSE_WITHOUT_RIGHT_S", 0.0)
    world = World()
    await world.informer.first()
    async with running(world):
        await eventually(lambda: (kinds.POD, "", 9) in world.cluster.watched)
        world.cluster.forbidden.add((kinds.POD, ""))
        world.cluster.forgets[kinds.POD].set()
        await eventually(lambda: world.cluster.refused)
        assert not world.informer.failing()
        monkeypatch.setattr("yolofleet.cluster.informer.RIGHTS_S", 0.0)
        assert world.informer.failing() == "no right any more to read Pod"
        world.cluster.forbidden.clear()
        await eventually(lambda: not world.informer.failing())


class running:  # noqa: N801 (reads as a verb)
    """Runs the informer of a world meanwhile."""

    def __init__(self, world: World) -> None:
        self._informer = world.informer

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._informer.run())
        await asyncio.sleep(0)

    async def __aexit__(self, *_: object) -> None:
        assert not self._task.done(), "it ends by being cancelled only"
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_who_begins_to_lead_lists_what_was_not_read_since() -> None:
    world = World(namespaces=["gone", "shop"])
    began = time.monotonic()
    await world.informer.first()
    world.cluster.there[kinds.DETECTOR] = [detector("shop")]
    world.cluster.asked.clear()
    await world.informer.catch_up(began)
    assert not world.cluster.asked, "a first start has listed all"

    world.cluster.forbidden = {(kinds.DETECTOR, "gone")}
    await world.informer.catch_up(time.monotonic())
    assert world.cluster.asked == [(kinds.DETECTOR, "shop")]
    assert world.cache.detectors() == ["shop/gate"]
    async with running(world):
        await eventually(lambda: (kinds.POD, "shop") in world.cluster.asked)
    assert world.cluster.asked.count((kinds.DETECTOR, "shop")) == 1

    world.cluster.forbidden.add((kinds.DETECTOR, "shop"))
    await world.informer.catch_up(time.monotonic())  # as before: by what watches tell


async def test_nobody_works_before_that() -> None:
    done = asyncio.Event()
    done.set()
    caught_up: list[float] = []

    async def catch_up(since: float) -> None:
        caught_up.append(since)

    def detectors() -> list[str]:
        assert caught_up, "it works on what it knew as a standby"
        return ["shop/gate"]

    process = SimpleNamespace(
        _leader=SimpleNamespace(elected=done),
        _health=SimpleNamespace(warm=done),
        _informer=SimpleNamespace(catch_up=catch_up),
        _cache=SimpleNamespace(detectors=detectors),
        _queue=WorkQueue[str](),
        _deps=None,
        _metrics=SimpleNamespace(workers=None),
        _settings=SimpleNamespace(workers=0),
    )
    began = time.monotonic()
    await Operator._work(cast(Operator, process))
    assert process._queue.take() == "shop/gate"
    assert caught_up[0] >= began


async def test_a_store_that_went_back_ends_the_process() -> None:
    world = World()
    await world.informer.first()
    following = asyncio.create_task(world.informer.run())
    await eventually(lambda: (kinds.SERVICE, "", 9) in world.cluster.watched)
    world.informer.take(kinds.SERVICE, "ADDED", an_object(kinds.SERVICE, version=20))
    world.cluster.forgets[kinds.SERVICE].set()
    with pytest.raises(ExceptionGroup) as ended:
        await asyncio.wait_for(following, 60)
    assert ended.group_contains(errors.WentBack)


async def test_news_that_overtakes_a_list_is_no_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.cluster.there[kinds.SERVICE] = [an_object(kinds.SERVICE, version=8)]
    await world.informer.first()
    listed = world.cluster.list

    async def overtaken(*asked: Any, **options: Any) -> Listing[Any]:
        answer = await listed(*asked, **options)
        world.informer.take(kinds.SERVICE, "MODIFIED", an_object(kinds.SERVICE, version=20))
        return answer

    monkeypatch.setattr(world.cluster, "list", overtaken)
    await world.informer.list(kinds.SERVICE)
    service = world.cache.named(kinds.SERVICE, "shop", "gate")
    assert service
    assert service.version == 20
