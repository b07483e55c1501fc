"""Small parts of the talk with the API server: errors, owners of fields, watch events, metrics."""

import asyncio
from collections.abc import Container
from typing import Any, cast

import pytest

from yolofleet.api.detector import Detector
from yolofleet.cluster import kinds
from yolofleet.cluster.accelerators import FRESH_S, REFUSED_S, Accelerators
from yolofleet.cluster.cache import Cache
from yolofleet.cluster.devices import DeviceLists
from yolofleet.plan.inventory import Holder
from yolofleet.runtime import errors
from yolofleet.runtime.client import Client, Listing
from yolofleet.runtime.failures import Failures
from yolofleet.runtime.kind import Kind
from yolofleet.runtime.ownership import ownership_of


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


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "upstream connect error",
        7,
        {"details": "none"},
        {"details": {"causes": "none"}},
        {"details": {"causes": ["none"]}},
        {"message": ["none"]},
    ],
)
def test_an_answer_may_be_of_anybody(body: Any) -> None:
    assert isinstance(errors.from_status(503, body, {}), errors.Unavailable)


def test_of_a_long_answer_the_beginning_is_kept() -> None:
    """The API server quotes a value that it refuses whole, and errors are kept and told."""
    error = errors.from_status(422, {"message": "Invalid value: " + "a" * 500_000}, {})
    assert len(str(error)) == errors.LONGEST_MESSAGE


def test_failures_of_what_is_no_more_are_forgotten() -> None:
    now = 0.0
    failures = Failures(lambda: now)
    for number in range(100):
        now += 60.0
        one = {"kind": "Service", "metadata": {"name": f"gate-{number}"}}
        failures.failed(one, errors.Invalid("no"))
        again = {"kind": "Service", "metadata": {"name": "gate"}}
        assert failures.failed(again, errors.Invalid("no")).times == number + 1
    assert len(failures._known) < 20


def test_a_field_that_the_kind_does_not_have_is_not_tried_again() -> None:
    told = (
        "failed to create typed patch object (shop/gate; apps/v1, Kind=Deployment):"
        " .spec.template.spec.nodeSelectors: field not declared in schema"
    )
    error = errors.from_status(500, {"message": told}, {})
    assert isinstance(error, errors.Invalid)
    assert str(error) == ".spec.template.spec.nodeSelectors: field not declared in schema"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("3.5", 3.5), ("0", 0.1), ("86400", 60.0), ("", 1.0), ("soon", 1.0)],
)
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


GPU = "nvidia.com/gpu"


class PodLists:
    """An API server that lists pods; forbidden: of which namespaces not, "" for all."""

    def __init__(self, *pods: dict[str, Any], forbidden: Container[str] = ()) -> None:
        self.pods = pods
        self.forbidden = forbidden
        self.asked: list[str] = []

    async def list(self, kind: Any, keep: Any, *, namespace: str, fields: str) -> Listing[Any]:
        assert kind is kinds.POD
        assert "status.phase!=Failed" in fields
        (node,) = (each.removeprefix("spec.nodeName=") for each in fields.split(",")[:1])
        self.asked.append(f"{node}:{namespace}")
        if namespace in self.forbidden:
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
    server = PodLists(a_gpu_pod("a", 1), a_gpu_pod("shop", 2), forbidden=("", "gone"))
    [node] = await accelerators(server, "gone", "shop")[0].rooms("shop/gate")
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


def a_full_node(server: PodLists) -> dict[str, Any]:
    """Return another node, all of which others hold."""
    of_others = a_gpu_pod("a", 8)
    of_others["spec"]["nodeName"] = "n3"
    server.pods = (of_others,)
    node = an_object(kinds.NODE, namespace="", name="n3", uid="u-n3", version=9)
    return node | {"status": {"allocatable": {GPU: "8"}}}


async def test_a_node_that_comes_while_pods_are_listed_offers_nothing_yet() -> None:
    """It offered all, to who asked then and for seconds after: nobody had listed its pods."""
    server = PodLists()
    found, _ = accelerators(server)
    node, lists = a_full_node(server), server.list

    async def meanwhile(*given: Any, **of: Any) -> Listing[Any]:
        found._cache.put(kinds.NODE, node)
        return await lists(*given, **of)

    server.list = meanwhile  # type: ignore[method-assign]
    assert [each.name for each in await found.rooms("shop/gate")] == ["n1"]
    free = {each.name: each.free[GPU] for each in await found.rooms("shop/gate")}
    assert free == {"n1": 8, "n3": 0}


async def test_a_node_whose_pods_could_not_be_listed_is_listed_by_the_next_who_asks() -> None:
    server = PodLists()
    found, _ = accelerators(server)
    await found.rooms("shop/gate")
    found._cache.put(kinds.NODE, a_full_node(server))
    lists = server.list

    async def away(*_: Any, **__: Any) -> Listing[Any]:
        server.list = lists  # type: ignore[method-assign]
        raise errors.Unavailable("try again")

    server.list = away  # type: ignore[method-assign]
    with pytest.raises(errors.Unavailable):
        await found.rooms("shop/gate")
    free = {each.name: each.free[GPU] for each in await found.rooms("shop/gate")}
    assert free == {"n1": 8, "n3": 0}


def change(found: Accelerators, name: str, version: int, offers: str = GPU, **of: Any) -> None:
    node = an_object(kinds.NODE, version, namespace="", name=name, uid=f"u-{name}")
    found._cache.put(kinds.NODE, node | {"status": {"allocatable": {offers: "8"}}} | of)


async def test_a_node_that_comes_is_listed_alone_and_one_that_changes_not_at_all() -> None:
    """All were listed for either: for a label that changed on any node of the cluster."""
    server = PodLists()
    found, now = accelerators(server)
    change(found, "n3", 2)
    await found.rooms("shop/gate")
    server.asked.clear()
    change(found, "n2", 3, "cpu", spec={"taints": []})
    change(found, "n3", 4, spec={"unschedulable": True})
    free = {each.name: each.out for each in await found.rooms("shop/gate")}
    assert free == {"n1": "", "n3": "cordoned"}
    assert server.asked == []
    now[0] += FRESH_S
    change(found, "n4", 5)
    assert len(await found.rooms("shop/gate")) == 3
    change(found, "n2", 6)
    assert len(await found.rooms("shop/gate")) == 4
    assert server.asked == ["n4:", "n2:"]
    server.asked.clear()
    now[0] += 0.1
    await found.rooms("shop/gate")
    assert sorted(server.asked) == ["n1:", "n2:", "n3:", "n4:"], (
        "they are no older for the new ones"
    )


async def test_who_waited_for_a_list_needs_no_other_for_what_changed_meanwhile() -> None:
    server = PodLists()
    found, _ = accelerators(server)
    lists = server.list

    async def meanwhile(*given: Any, **of: Any) -> Listing[Any]:
        await asyncio.sleep(0)
        taints = [{"key": str(len(server.asked))}]
        change(found, "n2", 9 + len(server.asked), "cpu", spec={"taints": taints})
        return await lists(*given, **of)

    server.list = meanwhile  # type: ignore[method-assign]
    await asyncio.gather(*(found.rooms(f"shop/{n}") for n in range(5)))
    assert server.asked == ["n1:"]


async def test_the_right_to_see_all_is_asked_for_once_in_some_minutes() -> None:
    """Each node was asked about in vain, in each round."""
    server = PodLists(a_gpu_pod("a", 1), forbidden={""})
    found, now = accelerators(server, "shop")
    for version, name in enumerate(("n3", "n4", "n5", "n6", "n7", "n8"), 2):
        change(found, name, version)
    await found.rooms("shop/gate")
    assert [each for each in server.asked if each.endswith(":")] == ["n1:"]
    server.asked.clear()
    server.forbidden = ()
    now[0] += FRESH_S + 0.1
    change(found, "n9", 9)
    assert all(each.blind for each in await found.rooms("shop/gate"))
    assert {each.partition(":")[2] for each in server.asked} == {"shop"}
    now[0] += REFUSED_S
    rooms = await found.rooms("shop/gate")
    assert {each.name: each.free[GPU] for each in rooms}["n1"] == 7, "a right that was given"
    assert not any(each.blind for each in rooms)


async def test_where_all_may_be_seen_a_refusal_is_a_fault_that_passes() -> None:
    """An API server that has just begun knows nobody's rights for some seconds."""
    server = PodLists(a_gpu_pod("a", 1), forbidden={""})
    found, now = accelerators(server)
    change(found, "n3", 2)
    assert all(each.blind for each in await found.rooms("shop/gate"))
    assert server.asked == ["n1:"]
    server.forbidden = ()
    now[0] += FRESH_S + 0.1
    assert {each.name: each.free[GPU] for each in await found.rooms("shop/gate")} == {
        "n1": 7,
        "n3": 8,
    }


async def test_of_nodes_that_came_since_less_may_be_seen_than_of_others() -> None:
    server = PodLists(a_gpu_pod("a", 1))
    found, _ = accelerators(server, "shop")
    await found.rooms("shop/gate")
    server.forbidden = {""}
    change(found, "n3", 2)
    rooms = await found.rooms("shop/gate")
    assert {each.name: each.free[GPU] for each in rooms} == {"n1": 7, "n3": 8}
    assert all(each.blind for each in rooms)


async def test_after_a_list_that_failed_nobody_asks_about_the_other_nodes() -> None:
    """Hundreds went on being asked about, beside those of the next who tried."""
    server = PodLists()
    found, _ = accelerators(server)
    for version in range(2, 30):
        change(found, f"n1{version}", version)
    lists = server.list

    async def away(*given: Any, **of: Any) -> Listing[Any]:
        await lists(*given, **of)
        await asyncio.sleep(0)
        if len(server.asked) > 1:
            raise errors.Unavailable("try again")
        return Listing([], 1)

    server.list = away  # type: ignore[method-assign]
    with pytest.raises(errors.Unavailable):
        await found.rooms("shop/gate")
    asked = len(server.asked)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(server.asked) == asked <= 10


CLAIM = {
    "metadata": {"name": "c", "namespace": "shop"},
    "status": {
        "allocation": {"devices": {"results": [{"driver": "d", "pool": "n1", "device": "gpu-0"}]}}
    },
}
SLICE = {"driver": "d", "pool": {"name": "n1"}, "nodeName": "n1", "devices": [{"name": "gpu-0"}]}


class DeviceApi:
    """An API server that lists what there is of devices; forbidden: of what not, and where."""

    def __init__(self, *forbidden: tuple[Any, str], claim: Any = CLAIM) -> None:
        self.forbidden = set(forbidden)
        self.claim = claim
        self.asked: list[str] = []

    async def list(self, kind: Any, keep: Any, *, namespace: str) -> Listing[Any]:
        self.asked.append(f"{kind}:{namespace}")
        if (kind, namespace) in self.forbidden:
            raise errors.Forbidden("no")
        a_class = {"metadata": {"name": "d"}, "spec": {}}
        there = {kinds.DEVICE_CLASS: a_class, kinds.DEVICE_SLICE: {"spec": SLICE}}
        return Listing([keep(there.get(kind, self.claim))], 1)


def device_lists(api: DeviceApi, *namespaces: str) -> tuple[DeviceLists, Cache, list[float]]:
    cache, now = Cache(), [0.0]
    cache.set_served(kinds.CLAIM_TEMPLATE, True)
    client = cast(Client, api)
    lists = DeviceLists(client, cache, namespaces=namespaces, clock=lambda: now[0])
    return lists, cache, now


async def test_what_there_is_of_devices_is_listed_once_for_all_for_a_few_seconds() -> None:
    api = DeviceApi()
    lists, cache, now = device_lists(api)
    await asyncio.gather(*(lists.inventory() for _ in range(5)))
    found = await lists.inventory()
    assert (found.classes, found.held) == ({"d": ()}, {("d", "n1", "gpu-0"): Holder()})
    assert [each.name for each in found.devices] == ["gpu-0"]
    assert (len(api.asked), found.blind) == (3, False)
    now[0] += 6.0
    await lists.inventory()
    assert len(api.asked) == 6
    cache.set_served(kinds.CLAIM_TEMPLATE, False)
    assert (await lists.inventory()).classes is None


@pytest.mark.parametrize(
    ("namespaces", "detector", "owned", "there", "free"),
    [
        ((), "other", True, True, 0),
        ((), "other", True, False, 1),
        ((), "other", False, False, 0),  # made by hand, with a label of ours: it is no pod's
        ((), "", True, False, 0),  # of somebody else, whose pods nobody watches
        (("shop",), "other", True, False, 1),
        (("dock",), "other", True, False, 0),  # of another operator
    ],
)
async def test_a_claim_of_ours_that_outlived_its_pod_holds_nothing(
    namespaces: tuple[str, ...], detector: str, owned: bool, there: bool, free: int
) -> None:
    labels = {"yolofleet.io/detector": detector} if detector else {}
    owners = [{"kind": "Pod", "uid": "u-p", "controller": True}] if owned else []
    claim = CLAIM | {"metadata": CLAIM["metadata"] | {"labels": labels, "ownerReferences": owners}}
    cache = Cache()
    cache.set_served(kinds.CLAIM_TEMPLATE, True)
    cache.put(kinds.NODE, an_object(kinds.NODE, namespace="", name="n1"))
    if there:
        cache.put(kinds.POD, an_object(kinds.POD, name="p", uid="u-p") | {"spec": {}})
    client = cast(Client, DeviceApi(claim=claim))
    found = Accelerators(client, cache, namespaces=namespaces, clock=lambda: 0.0)
    spec = {"model": {"uri": "demo://shapes"}, "accelerator": {"deviceClassName": "d"}}
    raw = an_object(kinds.DETECTOR)
    raw["metadata"]["generation"] = 1
    [node], classes = await found.found_by(Detector.parse(raw | {"spec": spec}), [])
    assert (node.offered, node.free, classes) == ({"d": 1}, {"d": free}, frozenset({"d"}))


async def test_claims_are_seen_where_they_may_be() -> None:
    forbidden = ((kinds.CLAIM, ""), (kinds.CLAIM, "gone"))
    lists, *_ = device_lists(DeviceApi(*forbidden), "gone", "shop")
    found = await lists.inventory()
    assert found.blind
    assert found.held
    for kind, namespaces in ((kinds.CLAIM, ()), (kinds.CLAIM, ["gone"]), (kinds.DEVICE_SLICE, ())):
        lists, *_ = device_lists(DeviceApi((kind, ""), *forbidden), *namespaces)
        assert (await lists.inventory()).classes is None, "as if there were none"


def test_who_no_longer_exists_waits_no_more() -> None:
    found, _ = accelerators(PodLists())
    found._cache.put(kinds.DETECTOR, an_object(kinds.DETECTOR))
    found.waits("shop/gate", True)
    found.waits("shop/gone", True)
    assert found.waiting(False) == ["shop/gate"]
    found.waits("shop/gate", False)
    assert found.waiting(False) == []


async def test_who_claims_devices_waits_for_any_node() -> None:
    cache = Cache()
    found = Accelerators(cast(Client, PodLists()), cache)
    for name, spec in (
        ("claims", {"accelerator": {"deviceClassName": "d"}}),
        ("counts", {"resources": {"limits": {GPU: 1}}}),
    ):
        raw = an_object(kinds.DETECTOR, name=name, uid=f"u-{name}", generation=1)
        raw["spec"] = {"model": {"uri": "demo://shapes"}} | spec
        cache.put(kinds.DETECTOR, raw)
        await found.found_by(Detector.parse(raw), [])
        found.waits(f"shop/{name}", True)
    assert sorted(found.waiting(False)) == ["shop/claims", "shop/counts"]
    assert found.waiting(True) == ["shop/claims"]
    raw["metadata"] |= {"name": "claims"}
    await found.found_by(Detector.parse(raw), [])
    assert found.waiting(True) == [], "it claims none any more"
