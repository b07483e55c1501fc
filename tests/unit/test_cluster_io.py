"""Small parts of the talk with the API server: errors, owners of fields, watch events, metrics."""

import asyncio
import dataclasses
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from yarl import URL

from yolofleet import handlers
from yolofleet.cluster import kinds
from yolofleet.cluster.accelerators import Accelerators
from yolofleet.cluster.cache import Cache
from yolofleet.cluster.sweep import Sweep
from yolofleet.handlers import Watch
from yolofleet.runtime import errors
from yolofleet.runtime.client import Client, Listing
from yolofleet.runtime.kind import CRD, Kind
from yolofleet.runtime.ownership import ownership_of
from yolofleet.runtime.queue import Priority, WorkQueue


@pytest.mark.parametrize(
    ("code", "body", "error"),
    [
        (400, {}, errors.Invalid),
        (401, {}, errors.Unauthenticated),
        (403, {}, errors.Forbidden),
        (404, {}, errors.NotFound),
        (405, {}, errors.Gone),
        (409, {}, errors.Conflict),
        (410, {}, errors.Gone),
        (422, {}, errors.Invalid),
        (422, {"details": {"causes": [{"field": "metadata.uid"}]}}, errors.Conflict),
        (418, {}, errors.Invalid),
        (429, {}, errors.Throttled),
        (500, {}, errors.Unavailable),
        (503, {}, errors.Unavailable),
    ],
)
def test_each_answer_says_who_must_act(
    code: int, body: dict[str, Any], error: type[errors.ClusterError]
) -> None:
    assert type(errors.from_status(code, body | {"message": "why"}, {})) is error


def test_a_field_that_the_kind_does_not_have_is_not_tried_again() -> None:
    told = (
        "failed to create typed patch object (shop/gate; apps/v1, Kind=Deployment):"
        " .spec.template.spec.nodeSelectors: field not declared in schema"
    )
    error = errors.from_status(500, {"message": told}, {})
    assert isinstance(error, errors.Invalid)
    assert str(error) == ".spec.template.spec.nodeSelectors: field not declared in schema"


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("", 1.0), ("soon", 1.0)])
def test_a_throttled_client_waits_as_told(header: str, seconds: float) -> None:
    error = errors.from_status(429, {}, {"Retry-After": header} if header else {})
    assert isinstance(error, errors.Throttled)
    assert error.retry_after == seconds


def managed(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"managedFields": list(entries)}}


REPLICAS = {"f:spec": {"f:replicas": {}}}


@pytest.mark.parametrize(
    ("entry", "foreign"),
    [
        ({"manager": "kubectl", "fieldsV1": REPLICAS}, True),
        ({"manager": "yolofleet", "operation": "Update", "fieldsV1": REPLICAS}, False),
        ({"manager": "yolofleet-handover", "operation": "Apply", "fieldsV1": REPLICAS}, False),
        ({"manager": "kube-controller-manager", "fieldsV1": REPLICAS}, False),
        ({"manager": "x", "subresource": "status", "fieldsV1": REPLICAS}, False),
        ({"manager": "x", "fieldsV1": {"f:metadata": {"f:labels": {}}}}, False),
        ({"manager": "x", "fieldsV1": {"f:status": {}}}, False),
        ({"manager": "x", "fieldsV1": "garbage"}, False),
        ({}, False),
    ],
)
def test_whose_fields_are_foreign(entry: dict[str, Any], foreign: bool) -> None:
    assert bool(ownership_of(managed(entry), kinds.CONTROLLER).foreign_managers) is foreign


def test_what_we_applied_in_several_versions_is_one_tree() -> None:
    ours = {"manager": "yolofleet", "operation": "Apply"}
    other = {"f:spec": {"f:paused": {}}}
    found = ownership_of(
        managed(ours | {"fieldsV1": REPLICAS}, ours | {"fieldsV1": other}), kinds.CONTROLLER
    )
    assert found.applied_fields() == {"f:spec": {"f:replicas": {}, "f:paused": {}}}


def an_object(kind: Kind, version: int = 1, **metadata: Any) -> dict[str, Any]:
    basic = {"name": "gate", "namespace": "shop", "uid": "u", "resourceVersion": str(version)}
    return {"metadata": basic | metadata, "spec": {}}


@pytest.fixture
def watch() -> Watch:
    cache, queue = Cache(), WorkQueue()
    sweep = Sweep(cast(Client, None), cache, queue)
    return Watch(cache, queue, sweep, lambda _kind, _type: None)


def test_what_a_user_changes_comes_before_drift(watch: Watch) -> None:
    labels = {"yolofleet.io/detector": "other"}
    watch.event(kinds.SERVICE, "MODIFIED", an_object(kinds.SERVICE, labels=labels))
    watch.event(kinds.DETECTOR, "ADDED", an_object(kinds.DETECTOR))
    assert [watch.queue.take(), watch.queue.take()] == ["shop/gate", "shop/other"]


def test_a_deletion_wakes_the_owner_once(watch: Watch) -> None:
    labels = {"yolofleet.io/detector": "gate"}
    service = an_object(kinds.SERVICE, labels=labels)
    watch.event(kinds.SERVICE, None, service)
    assert watch.queue.take() == "shop/gate"
    watch.queue.done("shop/gate")
    watch.event(kinds.SERVICE, "DELETED", service)
    assert watch.queue.take() == "shop/gate"
    watch.queue.done("shop/gate")
    watch.event(kinds.SERVICE, "DELETED", service)
    assert watch.queue.take() is None


def test_an_urgent_wish_is_not_held_up_by_a_resync(watch: Watch) -> None:
    watch.queue.add("shop/other", Priority.RESYNC)
    watch.event(kinds.DETECTOR, "MODIFIED", an_object(kinds.DETECTOR))
    assert watch.queue.take() == "shop/gate"


@pytest.mark.parametrize(
    ("kind", "type", "served", "looks"),
    [
        (kinds.POD_MONITOR, "ADDED", False, True),
        (kinds.POD_MONITOR, None, False, True),  # it came between our look and the watch
        (kinds.POD_MONITOR, None, True, False),
        (kinds.SERVICE, "ADDED", False, False),
    ],
)
def test_a_definition_that_is_news_is_looked_into(
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
    kind: Kind,
    type: str | None,
    served: bool,
    looks: bool,
) -> None:
    looked: list[bool] = []
    monkeypatch.setattr(watch.sweep, "definitions_changed", lambda: looked.append(True))
    watch.cache.set_served(kind, served)
    definition = an_object(CRD) | {"spec": {"group": kind.group, "names": {"plural": kind.plural}}}
    watch.event(CRD, type, definition)
    assert bool(looked) is looks


class Answer:
    """An answer of an HTTP server."""

    def __init__(self, status: int) -> None:
        self.status = status

    def release(self) -> None:
        pass


@pytest.mark.parametrize(
    ("path", "status", "held_back"),
    [
        ("/apis/networking.istio.io/v1/virtualservices", 404, True),
        ("/apis/networking.istio.io/v1/virtualservices", 200, False),
        ("/apis/apps/v1/deployments", 404, False),
    ],
)
async def test_only_the_absence_of_an_optional_kind_is_held_back_from_kopf(
    path: str, status: int, held_back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "_GRACE_FOR_VANISHED_API_S", 0.0)
    answer: Any = Answer(status)

    async def send(_: Any) -> Any:
        return answer

    request: Any = SimpleNamespace(url=URL(f"https://server{path}"))
    if held_back:
        with pytest.raises(aiohttp.ClientConnectionError):
            await handlers._forgive_vanished_apis(request, send)
    else:
        assert await handlers._forgive_vanished_apis(request, send) is answer


def test_a_node_that_changes_wakes_who_waits_for_one(watch: Watch) -> None:
    waiting = dataclasses.replace(watch, waiting=lambda: ["shop/gate"])
    node = an_object(kinds.NODE)
    waiting.event(kinds.NODE, "ADDED", node)
    assert watch.queue.take() == "shop/gate"
    watch.queue.done("shop/gate")
    heartbeat = an_object(kinds.NODE, version=2)
    waiting.event(kinds.NODE, "MODIFIED", heartbeat)
    assert watch.queue.take() is None
    waiting.event(kinds.NODE, "DELETED", an_object(kinds.NODE, version=3))
    assert watch.queue.take() == "shop/gate"


GPU = "nvidia.com/gpu"


class PodLists:
    """An API server that lists pods; of all namespaces only to who may."""

    def __init__(self, *pods: dict[str, Any], all_of_them: bool = True) -> None:
        self.pods = pods
        self.all_of_them = all_of_them
        self.asked: list[str] = []

    async def list(self, kind: Any, keep: Any, *, namespace: str, fields: str) -> Listing[Any]:
        assert kind is kinds.POD
        assert "status.phase!=Failed" in fields
        (node,) = (each.removeprefix("spec.nodeName=") for each in fields.split(",")[:1])
        self.asked.append(f"{node}:{namespace}")
        if not namespace and not self.all_of_them:
            raise errors.Forbidden("no")
        there = [p for p in self.pods if p["spec"]["nodeName"] == node]
        found = [p for p in there if namespace in ("", p["metadata"]["namespace"])]
        return Listing([keep(pod) for pod in found], 1)


def a_gpu_pod(namespace: str, gpus: int, **labels: str) -> dict[str, Any]:
    container = {"name": "c", "resources": {"limits": {GPU: gpus}}}
    return {
        "metadata": {"name": "p", "namespace": namespace, "labels": labels},
        "spec": {"nodeName": "n1", "containers": [container]},
    }


def accelerators(server: PodLists, *namespaces: str) -> tuple[Accelerators, list[float]]:
    cache, now = Cache(), [0.0]
    node = an_object(kinds.NODE, namespace="", name="n1")
    cache.put(kinds.NODE, node | {"status": {"allocatable": {GPU: "8"}}})
    plain = an_object(kinds.NODE, namespace="", name="n2", uid="u-n2")
    cache.put(kinds.NODE, plain | {"status": {"allocatable": {"cpu": "8"}}})
    clock = lambda: now[0]  # noqa: E731 (a name would be longer than what it says)
    return Accelerators(cast(Client, server), cache, namespaces=namespaces, clock=clock), now


WATCHED = {"app.kubernetes.io/managed-by": "yolofleet"}


async def test_pods_of_all_namespaces_hold_accelerators() -> None:
    server = PodLists(a_gpu_pod("a", 1), a_gpu_pod("b", 2), a_gpu_pod("b", 4, **WATCHED))
    [node] = await accelerators(server)[0].rooms("shop/gate")
    assert node.free == {GPU: 5}, "what we watch is counted from the watch"
    assert not node.blind


async def test_without_the_right_to_see_all_pods_it_says_so_and_counts_what_it_sees() -> None:
    server = PodLists(a_gpu_pod("a", 1), a_gpu_pod("shop", 2), all_of_them=False)
    [node] = await accelerators(server, "shop")[0].rooms("shop/gate")
    assert node.free == {GPU: 6}
    assert node.blind


async def test_of_another_operators_pods_those_count_that_we_do_not_watch() -> None:
    server = PodLists(a_gpu_pod("a", 1, **WATCHED), a_gpu_pod("shop", 2, **WATCHED))
    [node] = await accelerators(server, "shop")[0].rooms("shop/gate")
    assert node.free == {GPU: 7}


async def test_one_list_serves_all_detectors_for_a_few_seconds() -> None:
    server = PodLists(a_gpu_pod("a", 1))
    found, now = accelerators(server)
    await asyncio.gather(*(found.rooms(f"shop/{n}") for n in range(5)))
    assert server.asked == ["n1:"]
    now[0] += 60.0
    server.pods = ()
    [node] = await found.rooms("shop/gate")
    assert node.free == {GPU: 8}


def test_who_no_longer_exists_waits_no_more() -> None:
    found, _ = accelerators(PodLists())
    found._cache.put(kinds.DETECTOR, an_object(kinds.DETECTOR))
    found.waits("shop/gate", True)
    found.waits("shop/gone", True)
    assert found.waiting() == ["shop/gate"]
    found.waits("shop/gate", False)
    assert found.waiting() == []


class EmptyCluster:
    """An API server that has nothing, and no optional API."""

    def __init__(self) -> None:
        self.listed: asyncio.Queue[Kind] = asyncio.Queue()

    async def list(self, kind: Kind, *_: Any, **__: Any) -> Listing[Any]:
        self.listed.put_nowait(kind)
        return Listing([], 9)

    async def serves(self, _: Any) -> bool:
        return False

    async def probe(self, _: Any) -> None:
        pass


async def test_a_watch_that_begins_anew_with_nothing_left_is_answered_by_a_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last object of its kind was deleted, and the deletion fell into the gap."""
    monkeypatch.setattr("yolofleet.cluster.sweep.RELIST_DELAY_S", 0.0)
    cluster, cache, queue, relists = EmptyCluster(), Cache(), WorkQueue(), list[str]()
    sweep = Sweep(cast(Client, cluster), cache, queue, relisted=relists.append)
    cache.put(kinds.PDB, an_object(kinds.PDB, labels={"yolofleet.io/detector": "gate"}))
    running = asyncio.create_task(sweep.run())
    sweep.watch_begun(kinds.PDB, kinds.PDB.path())
    sweep.watch_begun(kinds.SERVICE, kinds.SERVICE.path())
    assert relists == [], "a watch has to begin"
    sweep.watch_begun(kinds.PDB, kinds.PDB.path())
    assert await asyncio.wait_for(cluster.listed.get(), 5) is kinds.PDB
    assert await asyncio.wait_for(queue.get(), 5) == "shop/gate"
    assert relists == ["PodDisruptionBudget"]
    assert cache.named(kinds.PDB, "shop", "gate") is None
    running.cancel()


@pytest.mark.parametrize("question", ["serves", "list", "probe"])
async def test_a_server_that_is_busy_at_the_start_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    monkeypatch.setattr("yolofleet.cluster.sweep.RETRY_S", 0.0)
    cluster = EmptyCluster()
    answer, busy = getattr(cluster, question), [errors.Unavailable("no"), errors.Throttled("no", 1)]

    async def busy_twice(*asked: Any, **options: Any) -> Any:
        if busy:
            raise busy.pop()
        return await answer(*asked, **options)

    monkeypatch.setattr(cluster, question, busy_twice)
    await Sweep(cast(Client, cluster), Cache(), WorkQueue()).first()
    assert not busy


async def test_after_a_whole_sweep_memory_can_be_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("yolofleet.cluster.sweep.SETTLE_S", 0.0)
    swept = asyncio.Event()
    cluster = cast(Client, EmptyCluster())
    sweep = Sweep(cluster, Cache(), WorkQueue(), swept=swept.set)
    running = asyncio.create_task(sweep.run())
    await asyncio.wait_for(swept.wait(), 5)
    running.cancel()


async def test_an_optional_kind_that_may_not_be_listed_ends_nothing() -> None:
    """As after an upgrade of the operator whose new rights somebody else has to give."""

    class Closed(EmptyCluster):
        async def serves(self, _: Any) -> bool:
            return True

        async def list(self, kind: Kind, *_: Any, **__: Any) -> Listing[Any]:
            if kind is kinds.ISTIO_GATEWAY:
                raise errors.Forbidden("gateways may not be listed")
            return Listing([], 9)

    cache = Cache()
    sweep = Sweep(cast(Client, Closed()), cache, WorkQueue())
    await sweep.first()
    await sweep.discover()
    assert not cache.serves(kinds.ISTIO_GATEWAY), "nobody can say which gateways there are"
    assert cache.serves(kinds.HTTP_ROUTE), "what comes after it is found"


async def test_without_the_right_to_list_records_the_operator_works_and_says_so_elsewhere() -> None:
    """Roles that an admin keeps by hand are upgraded after the operator."""

    class Older(EmptyCluster):
        async def list(self, kind: Kind, *_: Any, **__: Any) -> Listing[Any]:
            if kind is kinds.RECORD:
                raise errors.Forbidden("controllerrevisions may not be listed")
            return Listing([], 9)

    sweep = Sweep(cast(Client, Older()), Cache(), WorkQueue())
    await sweep.first()
    assert not sweep.readable(kinds.RECORD)
    assert sweep.readable(kinds.DEPLOYMENT)
