"""The cache: events, lists and answers in any order, and it never goes back."""

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolofleet.cluster import kinds
from yolofleet.cluster.cache import Cache, entry_of
from yolofleet.runtime.kind import Kind

KEY = "shop/gate"


def a_child(
    kind: Kind = kinds.SERVICE,
    uid: str = "c1",
    version: int = 1,
    name: str = "gate",
    owner: str = "d1",
    **parts: Any,
) -> dict[str, Any]:
    reference = {"kind": "YoloDetector", "name": "gate", "uid": owner, "controller": True}
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": uid,
            "resourceVersion": str(version),
            "labels": {"yolofleet.io/detector": "gate"},
            "ownerReferences": [reference],
            "managedFields": [{"manager": "yolofleet", "operation": "Apply", "fieldsV1": {}}],
        },
        **parts,
    }


def a_detector(uid: str = "d1", version: int = 1) -> dict[str, Any]:
    metadata = {"name": "gate", "namespace": "shop", "uid": uid, "resourceVersion": str(version)}
    return {
        "apiVersion": "yolofleet.io/v1alpha1",
        "kind": "YoloDetector",
        "metadata": metadata,
        "spec": {"replicas": 1},
    }


@pytest.fixture
def cache() -> Cache:
    return Cache()


def test_a_detector_is_found_by_its_key_and_its_children_by_its_uid(cache: Cache) -> None:
    assert cache.put(kinds.DETECTOR, a_detector()) == KEY
    assert cache.put(kinds.SERVICE, a_child()) == KEY
    assert cache.put(kinds.SERVICE, a_child(uid="c2", name="other", owner="d2")) == KEY
    raw = cache.detector(KEY)
    assert raw is not None
    assert raw["spec"] == {"replicas": 1}
    (child,) = cache.children("d1")
    assert child["metadata"]["uid"] == "c1"
    assert "managedFields" not in child["metadata"]


def test_what_is_read_can_be_changed_without_harm(cache: Cache) -> None:
    cache.put(kinds.SERVICE, a_child())
    cache.children("d1")[0]["metadata"]["name"] = "changed"
    assert cache.children("d1")[0]["metadata"]["name"] == "gate"


def test_list_items_get_their_kind_back(cache: Cache) -> None:
    item = a_child()
    del item["kind"], item["apiVersion"]
    cache.put(kinds.SERVICE, item)
    (child,) = cache.children("d1")
    assert (child["apiVersion"], child["kind"]) == ("v1", "Service")


def test_an_echo_and_late_news_wake_nobody(cache: Cache) -> None:
    cache.put(kinds.SERVICE, a_child(version=5))
    assert cache.put(kinds.SERVICE, a_child(version=5)) is None
    assert cache.put(kinds.SERVICE, a_child(version=4, spec={"old": True})) is None
    assert "spec" not in cache.children("d1")[0]


@pytest.mark.parametrize(
    ("kind", "wakes"), [(kinds.DEPLOYMENT, True), (kinds.POD, True), (kinds.HPA, False)], ids=str
)
def test_a_change_of_status_alone_wakes_only_where_it_matters(
    cache: Cache, kind: Kind, wakes: bool
) -> None:
    cache.put(kind, a_child(kind, version=1, status={"n": 1}))
    assert bool(cache.put(kind, a_child(kind, version=2, status={"n": 2}))) is wakes


def test_a_change_of_owners_of_fields_wakes(cache: Cache) -> None:
    cache.put(kinds.HPA, a_child(kinds.HPA, version=1))
    changed = a_child(kinds.HPA, version=2)
    fields = {"f:spec": {"f:maxReplicas": {}}}
    changed["metadata"]["managedFields"].append({"manager": "kubectl", "fieldsV1": fields})
    assert cache.put(kinds.HPA, changed) == KEY
    (entry,) = cache.owned_by("d1")
    assert entry.ownership.foreign_managers == ("kubectl",)


def test_what_was_deleted_does_not_come_back(cache: Cache) -> None:
    cache.put(kinds.SERVICE, a_child(version=1))
    assert cache.remove(kinds.SERVICE, "c1", 3) == KEY
    assert cache.put(kinds.SERVICE, a_child(version=2)) is None
    assert cache.children("d1") == []


def test_what_lost_its_label_comes_back_with_it(cache: Cache) -> None:
    """A watch by label tells of that as of a deletion; it may tell so after we put it right."""
    cache.put(kinds.SERVICE, a_child(version=1))
    assert cache.remove(kinds.SERVICE, "c1", 2) == KEY
    assert cache.put(kinds.SERVICE, a_child(version=3)) == KEY
    assert cache.remove(kinds.SERVICE, "c1", 2) is None
    assert cache.children("d1") != []


def test_a_successor_of_the_same_name_survives_the_late_end_of_the_first(cache: Cache) -> None:
    cache.put(kinds.DETECTOR, a_detector("d1", 1))
    cache.put(kinds.DETECTOR, a_detector("d2", 9))
    assert cache.remove(kinds.DETECTOR, "d1", 10) == KEY
    raw = cache.detector(KEY)
    assert raw is not None
    assert raw["metadata"]["uid"] == "d2"


def test_a_list_finds_deletions_but_not_of_what_is_younger(cache: Cache) -> None:
    cache.put(kinds.SERVICE, a_child(uid="gone", name="gone", version=5))
    cache.put(kinds.SERVICE, a_child(uid="kept", name="kept", version=6))
    cache.put(kinds.SERVICE, a_child(uid="young", name="young", version=50))
    listed = [entry_of(kinds.SERVICE, a_child(uid="kept", name="kept", version=6))]
    assert cache.replace_all(kinds.SERVICE, listed, version=40) == {KEY: 1}
    assert sorted(c["metadata"]["name"] for c in cache.children("d1")) == ["kept", "young"]


def test_a_list_of_one_namespace_says_nothing_about_others(cache: Cache) -> None:
    cache.put(kinds.SERVICE, a_child(version=1))
    assert not cache.replace_all(kinds.SERVICE, [], version=9, namespace="elsewhere")
    assert cache.children("d1")


def test_pods_are_found_by_detector(cache: Cache) -> None:
    pod = a_child(kinds.POD, owner="replica-set")
    pod["metadata"]["ownerReferences"][0]["kind"] = "ReplicaSet"
    assert cache.put(kinds.POD, pod) == KEY
    assert len(cache.pods(KEY)) == 1
    cache.remove(kinds.POD, "c1", 2)
    assert cache.pods(KEY) == []


def test_of_a_node_only_what_places_pods_is_kept_and_nobody_wakes(cache: Cache) -> None:
    node = {
        "metadata": {"name": "n1", "uid": "n", "resourceVersion": "1", "labels": {"gpu": "yes"}},
        "spec": {"unschedulable": True, "podCIDR": "10.0.0.0/24"},
        "status": {
            "allocatable": {"nvidia.com/gpu": "2"},
            "images": [{"names": ["big"]}],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "DiskPressure"}],
        },
    }
    assert cache.put(kinds.NODE, node) is None
    (slim,) = cache.nodes()
    assert slim["spec"] == {"unschedulable": True}
    assert slim["metadata"]["labels"] == {"gpu": "yes"}
    assert slim["status"] == {
        "allocatable": {"nvidia.com/gpu": "2"},
        "conditions": [{"type": "Ready", "status": "True"}],
    }


def test_optional_kinds_come_and_go_with_their_objects(cache: Cache) -> None:
    assert cache.serves(kinds.DEPLOYMENT)
    assert not cache.serves(kinds.VIRTUAL_SERVICE)
    assert cache.set_served(kinds.VIRTUAL_SERVICE, True)
    assert not cache.set_served(kinds.VIRTUAL_SERVICE, True)
    cache.put(kinds.VIRTUAL_SERVICE, a_child(kinds.VIRTUAL_SERVICE))
    assert cache.set_served(kinds.VIRTUAL_SERVICE, False)
    assert cache.children("d1") == []


Step = tuple[str, str, int]


@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "remove"]), st.sampled_from("abc"), st.integers(1, 9))
    )
)
def test_in_any_order_the_indexes_agree_with_the_objects(steps: list[Step]) -> None:
    cache = Cache()
    for action, uid, version in steps:
        if action == "put":
            child = a_child(uid=uid, version=version, name=uid, owner=f"d{version % 2}")
            cache.put(kinds.SERVICE, child)
        else:
            cache.remove(kinds.SERVICE, uid, version)
    newest = {uid: (0, "remove") for _, uid, _ in steps}
    for action, uid, version in steps:  # what was gone at a version was not there at it
        if version > newest[uid][0] or (version == newest[uid][0] and action == "remove"):
            newest[uid] = version, action
    expected = {uid: version for uid, (version, action) in newest.items() if action == "put"}
    seen = {e.uid: e.version for owner in ("d0", "d1") for e in cache.owned_by(owner)}
    assert seen == expected
    assert cache.size() == len(expected)
    for uid, version in expected.items():
        entry = cache.named(kinds.SERVICE, "shop", uid)
        assert entry is not None
        assert entry.owner == f"d{version % 2}"


GPU = "nvidia.com/gpu"


def a_gpu_pod(uid: str = "p1", version: int = 1, node: str = "n1", phase: str = "") -> Any:
    pod = a_child(kinds.POD, uid=uid, version=version, status={"phase": phase or "Running"})
    container = {"name": "yoloserve", "resources": {"limits": {GPU: "2"}}}
    return pod | {"spec": {"nodeName": node, "containers": [container]}}


def test_what_pods_hold_of_a_node_is_known_until_they_end(cache: Cache) -> None:
    cache.put(kinds.POD, a_gpu_pod(node=""))
    assert cache.held() == {}
    cache.put(kinds.POD, a_gpu_pod(version=2))
    cache.put(kinds.POD, a_gpu_pod("p2"))
    assert cache.held() == {"n1": {GPU: 4}}
    cache.put(kinds.POD, a_gpu_pod(version=3, phase="Failed"))
    assert cache.held() == {"n1": {GPU: 2}}
    cache.remove(kinds.POD, "p2", 4)
    assert cache.held() == {}


def a_node(version: int, heartbeat: str = "", **spec: Any) -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": heartbeat}
    metadata = {
        "name": "n1",
        "uid": "n",
        "resourceVersion": str(version),
        "annotations": {"a": "b"},
    }
    return {"metadata": metadata, "spec": spec, "status": {"conditions": [ready]}}


def test_a_node_is_news_only_when_it_offers_something_else(cache: Cache) -> None:
    cache.put(kinds.NODE, a_node(1))
    before = cache.nodes_version
    cache.put(kinds.NODE, a_node(2, heartbeat="later"))
    assert cache.nodes_version == before
    cache.put(kinds.NODE, a_node(3, unschedulable=True))
    assert cache.nodes_version > before
    [node] = cache.nodes()
    assert "annotations" not in node["metadata"]
    before = cache.nodes_version
    cache.remove(kinds.NODE, "n", 4)
    assert cache.nodes_version > before


def test_of_what_a_node_offers_accelerators_alone_are_news(cache: Cache) -> None:
    def versions(version: int, **allocatable: str) -> tuple[int, int]:
        node = a_node(version)
        node["status"]["allocatable"] = {n.replace("_", "/"): q for n, q in allocatable.items()}
        cache.put(kinds.NODE, node)
        return cache.nodes_version, cache.offers_version

    assert versions(1, cpu="8") == (1, 0)
    assert versions(2, cpu="7", memory="1Gi") == (1, 0)
    assert versions(3, cpu="7", gpu_x="1") == (2, 1)
    assert versions(4, gpu_x="0") == (3, 2)
    assert versions(5) == (4, 3), "it did offer some"
    cache.remove(kinds.NODE, "n", 6)
    assert (cache.nodes_version, cache.offers_version) == (5, 3)


def test_what_outlives_the_absence_of_its_api_is_known_again() -> None:
    """A CRD that stops serving a version, and serves it again, deletes nothing."""
    cache = Cache()
    gateway = {"name": "public", "namespace": "istio-system", "uid": "u", "resourceVersion": "5"}
    manifest = {"metadata": gateway, "spec": {}}
    cache.set_served(kinds.ISTIO_GATEWAY, True)
    cache.put(kinds.ISTIO_GATEWAY, manifest)
    cache.set_served(kinds.ISTIO_GATEWAY, False)
    assert cache.named(kinds.ISTIO_GATEWAY, "istio-system", "public") is None
    cache.set_served(kinds.ISTIO_GATEWAY, True)
    cache.replace_all(kinds.ISTIO_GATEWAY, [entry_of(kinds.ISTIO_GATEWAY, manifest)], 99)
    assert cache.named(kinds.ISTIO_GATEWAY, "istio-system", "public") is not None


PUBLIC = "istio-system/public"


def a_routed(namespace: str, has: str, asks: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a detector and its route, which has `has` while the detector asks for `asks`."""
    detector, route = a_detector(uid=f"d-{namespace}"), a_child(kinds.VIRTUAL_SERVICE)
    for each, host in ((detector, asks or has), (route, has)):
        each["metadata"] |= {"namespace": namespace, "uid": f"{each['kind']}-{namespace}"}
        each["metadata"]["generation"] = 1
        traffic = {"hosts": [host], "gateways": [PUBLIC]}
        each["spec"] = traffic if each is route else {"traffic": traffic}
    detector["status"] = {"observedGeneration": 1, "provider": "istio"}
    return detector, route


def a_cache_of(*routed: tuple[dict[str, Any], dict[str, Any]]) -> Cache:
    cache = Cache()
    cache.set_served(kinds.VIRTUAL_SERVICE, True)
    for detector, route in routed:
        cache.put(kinds.DETECTOR, detector)
        cache.put(kinds.VIRTUAL_SERVICE, route)
    return cache


@pytest.mark.parametrize("there", [True, False])
def test_a_namespace_that_is_left_keeps_its_hosts_until_it_is_read_without_them(
    there: bool,
) -> None:
    """A Role that went takes nothing from the routes that serve."""
    left = a_routed("shop", "a.example.com")
    cache = a_cache_of(left)
    claim = (PUBLIC, "a.example.com")
    cache.forget("shop")
    cache.forget("shop")  # asked for again in vain
    assert cache.detectors() == []
    assert cache.routes.taken("yard/gate", [claim]) == {claim: KEY}
    cache.routes.stirred()
    cache.put(kinds.DETECTOR, a_routed("yard", "a.example.com")[0])
    for kind, manifest in zip((kinds.DETECTOR, kinds.VIRTUAL_SERVICE), left, strict=True):
        assert cache.routes.holder(claim) == KEY
        listed = [entry_of(kind, manifest)] if there else []
        cache.replace_all(kind, listed, 9, "shop")
    assert cache.routes.holder(claim) == (KEY if there else "yard/gate")
    assert ("yard/gate" in cache.routes.stirred()) is not there
    for kind, manifest in zip((kinds.DETECTOR, kinds.VIRTUAL_SERVICE), left, strict=True):
        cache.remove(kind, manifest["metadata"]["uid"], 10)
    assert cache.routes.holder(claim) == "yard/gate"


def test_nothing_is_exchanged_with_a_namespace_that_is_left() -> None:
    """Nobody writes its routes: it would keep the host that it is to give."""
    cache = a_cache_of(
        a_routed("shop", "a.example.com", asks="b.example.com"),
        a_routed("yard", "b.example.com", asks="a.example.com"),
    )
    claim = (PUBLIC, "a.example.com")
    assert cache.routes.holder(claim) == "yard/gate"
    cache.forget("shop")
    assert cache.routes.holder(claim) == KEY


def test_an_object_takes_little_more_room_than_it_has_bytes() -> None:
    """At 1,000 detectors there are 16,000; what makes their JSON begins with 8 KiB for each."""
    child = a_child(data={"record": "x" * 1000})
    entry_of(kinds.RECORD, child)  # what is alike is kept once
    tracemalloc.start()
    entries = [entry_of(kinds.RECORD, child) for _ in range(100)]
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken / len(entries) < 2 * len(entries[0].body)
