"""Whose route has which host: one holder each, nothing taken away, and who is left out is told."""

from dataclasses import replace
from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolofleet.api.detector import Detector, Provider
from yolofleet.api.hosts import gateway_name
from yolofleet.cluster import kinds
from yolofleet.cluster.cache import Cache
from yolofleet.cluster.routes import Routes, Standing
from yolofleet.plan.admission import Neighbours, judge
from yolofleet.plan.defaults import Defaults
from yolofleet.routers import istio
from yolofleet.routers.claims import MOST_CROSSINGS, Claim, Crossing, claim, routed, wanted
from yolofleet.routers.exposure import Allowed, expose
from yolofleet.webhook import _neighbours

PUBLIC = "istio-system/public"
SHARED = ("istio-system/public", "shared.example.com")
V2 = {"uri": "demo://shapes-v2"}


def raw(name: str = "gate", namespace: str = "shop", **traffic: Any) -> dict[str, Any]:
    spec = {"model": {"uri": "demo://shapes"}, "traffic": traffic}
    metadata = {"name": name, "namespace": namespace, "uid": "u", "generation": 1}
    return {"metadata": metadata, "spec": spec}


def virtual_service(hosts: list[str], gateways: list[str], **metadata: Any) -> dict[str, Any]:
    named = {"name": "gate", "namespace": "shop"} | metadata
    spec = {"hosts": hosts, "gateways": gateways}
    return {"kind": "VirtualService", "metadata": named, "spec": spec}


# what a route may have


def exposed(live: Any, taken: Any, *, allowed: Allowed | None = None, **traffic: Any) -> Any:
    detector = Detector.parse(raw(**traffic))
    held = dict.fromkeys(taken, "yard/door")
    return expose(detector, live, held, allowed or Allowed(), bare=False)


def test_what_nobody_else_has_is_routed_as_it_is_asked_for():
    found = exposed(None, [], hosts=["A.example.com"], gateways=["public", PUBLIC])
    assert (found.hosts, found.gateways) == (("a.example.com",), ("public", PUBLIC))
    assert not found.denials


def test_of_several_hosts_those_that_are_free_are_routed():
    found = exposed(
        None, [SHARED], hosts=["shared.example.com", "own.example.com"], gateways=[PUBLIC]
    )
    assert found.hosts == ("own.example.com",)
    [denial] = found.denials
    assert denial.reason == "HostTaken"
    assert "shared.example.com on the gateway istio-system/public is taken by" in denial.message
    assert "yard/door" in denial.message


def test_with_nothing_free_no_route_is_written():
    found = exposed(None, [SHARED], hosts=["shared.example.com"], gateways=[PUBLIC])
    assert not found.routes


def test_a_host_that_is_free_on_one_gateway_is_routed_there():
    found = exposed(None, [SHARED], hosts=["shared.example.com"], gateways=[PUBLIC, "edge/public"])
    assert (found.hosts, found.gateways) == (("shared.example.com",), ("edge/public",))


@pytest.mark.parametrize(
    ("live", "now"),
    [
        # both were there before anybody looked: neither is taken away
        ((["shared.example.com"], [PUBLIC]), (("shared.example.com",), (PUBLIC,))),
        # a host that is taken on the new gateway keeps the old one
        ((["shared.example.com"], ["edge/public"]), (("shared.example.com",), ("edge/public",))),
        # what is asked for instead of the old host is taken: the old one stays
        ((["old.example.com"], [PUBLIC]), (("old.example.com",), (PUBLIC,))),
        # others route to it
        (([], []), ((), ())),
    ],
)
def test_a_live_route_is_never_pruned_for_anybody(live, now):
    gateways = [PUBLIC, "edge/public"] if "edge/public" in live[1] else [PUBLIC]
    found = exposed(live, [SHARED], hosts=["shared.example.com"], gateways=gateways)
    assert found.routes
    assert (found.hosts, found.gateways) == now
    assert found.denials[0].reason == "HostTaken"


HOSTS = st.lists(st.sampled_from("abc").map("{}.example.com".format), unique=True, max_size=3)
GATEWAYS = st.lists(st.sampled_from(["mesh", "x/g", "y/g"]), unique=True, min_size=1, max_size=3)


@given(
    HOSTS.filter(bool),
    GATEWAYS,
    st.one_of(st.none(), st.tuples(HOSTS.filter(bool), GATEWAYS)),
    st.data(),
)
def test_a_route_gains_nothing_that_another_has_and_loses_nothing(hosts, gateways, live, data):
    every = [claim(g, h, "shop") for g in ("mesh", "x/g", "y/g") for h in hosts]
    taken = data.draw(st.sets(st.sampled_from(every)))
    allowed = Allowed(gateways=("mesh", "x/*", "y/*"))
    found = exposed(live, taken, allowed=allowed, hosts=hosts, gateways=gateways)
    has = {claim(g, h, "shop") for g in found.gateways or ["mesh"] for h in found.hosts}
    had = {claim(g, h, "shop") for g in live[1] for h in live[0]} if live else set()
    asked = {claim(g, h, "shop") for g in gateways for h in hosts}
    assert not (has - had) & taken
    assert has >= had & asked
    assert bool(found.denials) == bool(asked & taken)
    assert found.routes or live is None


@given(
    HOSTS.filter(bool),
    GATEWAYS,
    st.one_of(st.none(), st.tuples(HOSTS.filter(bool), GATEWAYS)),
)
def test_no_route_inside_the_mesh_comes_to_be_seen_by_all_namespaces(hosts, gateways, live):
    found = exposed(live, [], hosts=hosts, gateways=gateways)
    seen_before = live is not None and "mesh" in live[1] and len(live[1]) > 1
    assert "mesh" not in found.gateways or len(found.gateways) == 1 or seen_before
    mixed = "mesh" in gateways and len(gateways) > 1
    assert bool(found.denials) == mixed
    assert all("mesh beside other gateways" in each.message for each in found.denials)
    assert found.routes
    if live is not None and set(live[0]) & set(hosts):
        assert set(found.gateways or ["mesh"]) >= set(live[1]) & set(gateways)


@pytest.mark.parametrize(
    ("allowed", "traffic", "told"),
    [
        (Allowed(hosts=("*.example.com",)), {"hosts": ["a.b.example.com", "*.example.com"]}, ""),
        (Allowed(hosts=("*.example.com",)), {"hosts": ["example.com"]}, "example.com is not among"),
        (Allowed(hosts=("*.example.com",)), {"hosts": ["a.example.com.evil.org"]}, "not among"),
        (Allowed(hosts=("*.example.com",)), {"hosts": ["evilexample.com"]}, "not among"),
        (Allowed(hosts=("*.a.example.com",)), {"hosts": ["*.example.com"]}, "not among"),
        (Allowed(hosts=("a.example.com",)), {"hosts": ["*"]}, "all hosts of a gateway"),
        (Allowed(hosts=("*",)), {"hosts": ["*"]}, ""),
        (Allowed(hosts=("*",)), {"hosts": ["gate.example.com", "*.example.com", "gate"]}, ""),
        (Allowed(gateways=(PUBLIC,)), {"hosts": ["a.example.com"]}, ""),
        (Allowed(gateways=("istio-system/*",)), {"hosts": ["a.example.com"]}, ""),
        (Allowed(gateways=("edge/*",)), {"hosts": ["a.example.com"]}, f"gateways: {PUBLIC} is not"),
        (
            Allowed(gateways=(PUBLIC,)),
            {"hosts": ["a.example.com"], "gateways": ["public"]},
            "gateways: shop/public is not among",
        ),
    ],
)
def test_what_the_admin_does_not_allow_is_not_routed(allowed, traffic, told):
    found = exposed(None, [], allowed=allowed, **{"gateways": [PUBLIC], **traffic})
    assert found.routes is not bool(told)
    if told:
        [denial] = found.denials
        assert denial.reason == "HostNotAllowed"
        assert told in denial.message


def test_inside_the_mesh_alone_is_a_gateway_to_be_allowed_too():
    found = exposed(None, [], allowed=Allowed(gateways=(PUBLIC,)), hosts=["a.example.com"])
    assert not found.routes
    found = exposed(None, [], allowed=Allowed(gateways=("mesh",)), hosts=["a.example.com"])
    assert (found.routes, found.gateways) == (True, ())


def test_without_hosts_the_gateway_api_takes_all_of_a_gateway_and_needs_all_allowed():
    detector = Detector.parse(raw(provider="gateway", gateways=["edge/public"]))
    taken: dict[Claim, str] = {}
    some = Allowed(hosts=("*.example.com",))
    assert not expose(detector, None, taken, some, bare=True).routes
    assert expose(detector, None, taken, Allowed(), bare=True).hosts == ()
    assert wanted(raw(provider="gateway", gateways=["edge/public"])) == {("edge/public", "*")}


ISTIO, GATEWAY = Provider.ISTIO, Provider.GATEWAY
ALL = frozenset({("edge/public", "*")})


@pytest.mark.parametrize(
    ("provider", "on", "routers", "claims"),
    [
        ("auto", None, {GATEWAY}, ALL),
        ("auto", "service", {GATEWAY}, ALL),
        ("auto", "gateway", {ISTIO, GATEWAY}, ALL),
        ("auto", "gateway", set(), ALL),  # its API may come back
        ("auto", None, {ISTIO, GATEWAY}, frozenset()),  # others delegate to it
        ("auto", "istio", {GATEWAY}, frozenset()),
        ("istio", "gateway", {GATEWAY}, frozenset()),
        ("auto", ["junk"], set(), frozenset()),
    ],
)
def test_without_hosts_auto_claims_what_its_router_would_give_it(provider, on, routers, claims):
    asked = raw(provider=provider, gateways=["edge/public"]) | {"status": {"provider": on}}
    assert wanted(asked, routers) == claims


def test_a_gateway_that_another_has_is_not_shared_with_one_on_auto_without_hosts(world):
    """Such a detector was stored before there was a rule against it."""
    world.mesh, world.gateway = False, True
    world.taken = {("edge/public", "*"): "yard/door"}
    world.edit(traffic={"gateways": ["edge/public"]})
    world.settle()
    assert world.status().condition("TrafficRouted").reason == "HostTaken"
    assert ("HTTPRoute", "gate") not in world.children
    around = Neighbours((), world.taken, routers=frozenset({GATEWAY}))
    asked = raw(gateways=["edge/public"])
    [refusal] = judge(asked, None, around).refusals
    assert (
        "all other hosts on the gateway edge/public is taken by the detector yard/door" in refusal
    )


def test_what_detectors_ask_for_follows_the_routers_that_there_are():
    cache = Cache()
    for number in ("1", "2"):
        asked = raw(f"gate-{number}", gateways=["edge/public"])
        version = {"uid": number, "resourceVersion": number, "creationTimestamp": f"2030-{number}"}
        cache.put(kinds.DETECTOR, asked | {"metadata": asked["metadata"] | version})
    everything = ("edge/public", "*")
    assert cache.routes.holder(everything) == ""
    cache.set_served(kinds.HTTP_ROUTE, True)
    assert cache.routes.holder(everything) == "shop/gate-1"
    taken = cache.elsewhere("shop/gate-2", asked, Defaults("a", "b", "c")).taken
    assert taken == {everything: "shop/gate-1"}
    cache.set_served(kinds.VIRTUAL_SERVICE, True)
    assert cache.routes.holder(everything) == ""


MANY = [f"camera-{number}.example.com" for number in range(18)]


def exposed_at_the_edge(live: Any, hosts: list[str], *taken: str) -> Any:
    detector = Detector.parse(raw(hosts=hosts, gateways=["edge/public"]))
    held = {("edge/public", host): "yard/door" for host in taken}
    return expose(detector, live, held, Allowed(), bare=True, most=16)


def test_a_route_has_the_first_hosts_that_it_has_room_for_also_for_one_that_is_taken():
    """Else it had another one beyond these that it does not claim, and so might somebody else."""
    found = exposed_at_the_edge(None, [*MANY[1:], MANY[0].upper()], MANY[2])
    assert found.hosts == (MANY[1], *MANY[3:17])
    assert [each.reason for each in found.denials] == ["HostTaken", "HostRefused", "HostRefused"]
    assert found.denials[2].message == (
        "spec.traffic.hosts: camera-0.example.com: a route has room for the first 16 that are asked"
        " for, what others have among them; remove some, or name several by a wildcard such as"
        " *.example.com"
    )


def test_hosts_that_a_route_has_are_not_taken_from_it_for_want_of_room():
    found = exposed_at_the_edge((MANY[2:], ["edge/public"]), MANY)
    assert found.hosts == tuple(MANY[2:])
    assert ["camera-0." in each.message for each in found.denials] == [True, False]


def test_a_route_for_all_hosts_has_room_for_any():
    found = exposed_at_the_edge(None, [*MANY, "*"])
    assert not found.denials
    assert "*" in found.hosts


def test_what_a_route_has_no_room_for_is_left_to_other_detectors():
    def holders(cache):
        return [cache.routes.holder(("edge/public", host)) for host in (MANY[0], MANY[16])]

    cache, version = Cache(), {"resourceVersion": "1", "creationTimestamp": "2030-01-01"}
    cache.set_served(kinds.HTTP_ROUTE, True)
    asked = raw(hosts=MANY[:17], gateways=["edge/public"])
    asked["metadata"] |= version
    cache.put(kinds.DETECTOR, asked)
    assert holders(cache) == ["shop/gate", ""]
    cache.put(kinds.HTTP_ROUTE, http_route(MANY[1:17]))
    assert holders(cache) == ["", "shop/gate"]
    cache.remove(kinds.HTTP_ROUTE, "route", 2)
    assert holders(cache) == ["shop/gate", ""]


def test_what_a_route_keeps_although_it_may_not_have_it_takes_room_too():
    cache, version = Cache(Allowed(hosts=tuple(MANY[1:]))), {"creationTimestamp": "2030-01-01"}
    cache.set_served(kinds.HTTP_ROUTE, True)
    asked = raw(hosts=MANY[:17], gateways=["edge/public"])
    asked["metadata"] |= version | {"resourceVersion": "1"}
    cache.put(kinds.DETECTOR, asked)
    cache.put(kinds.HTTP_ROUTE, http_route(MANY[:16]))
    assert cache.routes.holder(("edge/public", MANY[16])) == ""
    live = (MANY[:16], ["edge/public"])
    found = expose(
        Detector.parse(asked), live, {}, Allowed(hosts=tuple(MANY[1:])), bare=True, most=16
    )
    assert found.hosts == tuple(MANY[:16])


def test_on_a_gateway_that_is_not_allowed_any_more_a_route_gets_no_new_host_nor_bars_it():
    gateways = ["edge/inner", "edge/public"]
    allowed = Allowed(gateways=("edge/public",))
    cache = Cache(allowed)
    cache.set_served(kinds.HTTP_ROUTE, True)
    asked = raw(hosts=MANY[:2], gateways=gateways)
    asked["metadata"] |= {"creationTimestamp": "2030-01-01", "resourceVersion": "1"}
    cache.put(kinds.DETECTOR, asked)
    assert cache.routes.holder(("edge/public", MANY[1])) == "shop/gate"
    cache.put(kinds.HTTP_ROUTE, http_route(MANY[:1], *gateways))
    assert cache.routes.holder(("edge/public", MANY[1])) == ""
    live = (MANY[:1], gateways)
    found = expose(Detector.parse(asked), live, {}, allowed, bare=True)
    assert (list(found.hosts), list(found.gateways)) == (MANY[:1], gateways)


def test_what_a_route_keeps_that_is_not_allowed_any_more_keeps_it_from_new_gateways_and_bars_none():
    gateways, allowed = ["edge/inner", "edge/public"], Allowed(hosts=(MANY[1],))
    cache = Cache(allowed)
    cache.set_served(kinds.HTTP_ROUTE, True)
    asked = raw(hosts=MANY[:2], gateways=gateways)
    asked["metadata"] |= {"creationTimestamp": "2030-01-01", "resourceVersion": "1"}
    cache.put(kinds.DETECTOR, asked)
    cache.put(kinds.HTTP_ROUTE, http_route(MANY[:1], "edge/inner"))
    holders = [cache.routes.holder((gateway, MANY[1])) for gateway in gateways]
    assert holders == ["shop/gate", ""]
    found = expose(Detector.parse(asked), (MANY[:1], gateways[:1]), {}, allowed, bare=True)
    assert (list(found.hosts), list(found.gateways)) == (MANY[:2], gateways[:1])


def test_on_other_gateways_a_route_begins_anew_with_the_hosts_that_it_claims():
    cache = Cache()
    cache.set_served(kinds.HTTP_ROUTE, True)
    asked = raw(hosts=MANY, gateways=["edge/public"])
    asked["metadata"] |= {"creationTimestamp": "2030-01-01", "resourceVersion": "1"}
    cache.put(kinds.DETECTOR, asked)
    live = (MANY[-1:], ["edge/inner"])
    cache.put(kinds.HTTP_ROUTE, http_route(live[0], *live[1]))
    found = expose(Detector.parse(asked), live, {}, Allowed(), bare=True, most=16)
    held = [host for host in MANY if cache.routes.holder(("edge/public", host))]
    assert list(found.hosts) == held == MANY[:16]


def test_a_new_route_of_which_no_host_is_free_everywhere_begins_on_a_gateway_not_in_the_mesh():
    detector = Detector.parse(raw(hosts=MANY[:2], gateways=["mesh", "edge/inner", "edge/public"]))
    taken = {("edge/inner", MANY[1]): "yard/a", ("edge/public", MANY[0]): "yard/b"}
    found = expose(detector, None, taken, Allowed(), bare=True)
    assert (found.hosts, found.gateways) == ((MANY[0],), ("mesh", "edge/inner"))


def test_of_a_route_inside_the_mesh_and_on_a_gateway_each_host_is_its_own_as_it_claims():
    """By what a route in the mesh might be refused, hosts at the gateway would be nobody's."""
    cache, gateways = Cache(), ["mesh", "edge/public"]
    cache.set_served(kinds.HTTP_ROUTE, True)
    asked = raw(hosts=["a.example.com", "svc.shop"], gateways=gateways)
    asked["metadata"] |= {"creationTimestamp": "2030-01-01", "resourceVersion": "1"}
    cache.put(kinds.DETECTOR, asked)
    found = expose(Detector.parse(asked), None, {}, Allowed(), bare=True)
    held = [host for host in found.hosts if cache.routes.holder(("edge/public", host))]
    assert list(found.hosts) == held == ["a.example.com", "svc.shop"]
    assert list(found.gateways) == gateways


def test_what_others_have_on_a_gateway_is_left_inside_the_mesh_and_the_gateway_comes_once_free():
    detector = Detector.parse(raw(hosts=MANY[:1], gateways=["edge/public", "mesh"]))
    taken = {("edge/public", MANY[0]): "yard/a"}
    found = expose(detector, None, taken, Allowed(), bare=True)
    assert (list(found.hosts), list(found.gateways)) == (MANY[:1], ["mesh"])
    live = (found.hosts, found.gateways)
    assert expose(detector, live, taken, Allowed(), bare=True) == found
    free = expose(detector, live, {}, Allowed(), bare=True)
    assert list(free.gateways) == ["edge/public", "mesh"]
    kept = (free.hosts, free.gateways)
    assert expose(detector, kept, taken, Allowed(), bare=True).gateways == free.gateways


def test_the_mesh_beside_a_gateway_of_the_gateway_api_has_to_be_allowed():
    detector = Detector.parse(raw(hosts=MANY[:1], gateways=["edge/public", "mesh"]))
    found = expose(detector, None, {}, Allowed(gateways=("edge/public",)), bare=True)
    assert list(found.gateways) == ["edge/public"]
    assert [each.reason for each in found.denials] == ["HostNotAllowed"]


def test_a_gateway_that_passes_over_the_route_hinders_no_host_on_another_one():
    """A new route is on the other one alone; one that is there has both, and loses none."""
    gateways = ["edge/inner", "edge/public"]
    detector = Detector.parse(raw(hosts=MANY[:2], gateways=gateways))
    shut = {("edge/inner", host): "edge/*" for host in MANY[:2]}
    live = (MANY[:1], gateways)
    found = expose(detector, live, {}, Allowed(), bare=True, shut=shut)
    assert (list(found.hosts), list(found.gateways)) == (MANY[:2], gateways)
    of_one = {claim: let_in for claim, let_in in shut.items() if claim[1] == MANY[1]}
    found = expose(detector, live, {}, Allowed(), bare=True, shut=of_one)
    assert list(found.hosts) == MANY[:1], "it would be on both"


def http_route(hosts: list[str], *gateways: str) -> Any:
    labels = {"app.kubernetes.io/managed-by": "yolofleet", "yolofleet.io/detector": "gate"}
    metadata = {"name": "gate", "namespace": "shop", "uid": "route", "labels": labels}
    pairs = [each.split("/") for each in gateways or ["edge/public"]]
    parents = [{"namespace": namespace, "name": name} for namespace, name in pairs]
    metadata |= {"resourceVersion": "1", "creationTimestamp": "2030-01-01"}
    spec = {"hostnames": hosts, "parentRefs": parents}
    return {"kind": "HTTPRoute", "metadata": metadata, "spec": spec}


def test_more_hosts_than_the_router_has_room_for_are_refused_but_not_who_removes_some():
    around = Neighbours((), {}, routers=frozenset({GATEWAY}))
    sixteen, most, more = (raw(hosts=MANY[-n:], gateways=["edge/public"]) for n in (16, 17, 18))
    assert len(judge(more, None, around).refusals) == 2
    assert not judge(most, more, around).refusals
    assert len(judge(most, sixteen, around).refusals) == 1
    assert not judge(most, None, replace(around, routers=frozenset({ISTIO}))).refusals


def test_what_was_stored_before_there_was_a_rule_is_not_routed():
    found = exposed(None, [], hosts=["pay.shop.svc.cluster.local"], gateways=[PUBLIC])
    assert not found.routes
    assert found.denials[0].reason == "HostRefused"
    assert "spec.traffic.hosts: pay.shop.svc.cluster.local: names of the cluster" in (
        found.denials[0].message
    )
    assert wanted(raw(hosts=["pay.shop.svc.cluster.local"])) == frozenset()


# who has what


def test_the_claims_of_a_detector_and_of_its_route_are_the_same():
    asked = raw(hosts=["A.Example.com", "b.example.com"], gateways=["public", "mesh"])
    route = virtual_service(["a.example.com", "b.example.com"], ["public", "mesh"])
    assert wanted(asked) == routed(route)
    assert ("shop/public", "a.example.com") in wanted(asked)
    parents = [
        {"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "e", "name": "p"},
        {"group": "", "kind": "Service", "name": "gate"},
    ]
    spec = {"parentRefs": parents, "hostnames": ["a.example.com"]}
    metadata = {"name": "gate", "namespace": "shop"}
    assert routed({"kind": "HTTPRoute", "metadata": metadata, "spec": spec}) == {
        ("e/p", "a.example.com")
    }
    assert istio.places({"http": []}) == ([], [])


def test_the_gateways_of_a_namespace_have_long_and_short_names():
    short = wanted(raw(namespace="edge", hosts=["a.example.com"], gateways=["public"]))
    assert short == wanted(raw(hosts=["a.example.com"], gateways=["edge/public"]))
    assert gateway_name("mesh", "edge") == "mesh"


def standing(key: str, since: str, *claims: Claim, is_route: bool = False) -> Standing:
    return Standing(key, since, frozenset(claims or [SHARED]), is_route)


def test_whoever_is_routed_keeps_a_host_else_the_older_has_it():
    one, two = standing("a/one", "2030-01-02"), standing("b/two", "2030-01-01")
    for order in permutations([("1", one), ("2", two)]):
        routes = Routes()
        for uid, each in order:
            routes.change(uid, None, each)
        assert routes.holder(SHARED) == "b/two"
    routes.change("vs", None, standing("a/one", "2030-01-03", is_route=True))
    assert routes.holder(SHARED) == "a/one"
    assert routes.taken("b/two", [SHARED]) == {SHARED: "a/one"}
    assert routes.taken("a/one", [SHARED]) == {}


def test_of_the_same_age_the_first_by_name_has_it():
    routes = Routes()
    for uid, key in (("1", "b/x"), ("2", "a/y"), ("3", "a/z")):
        routes.change(uid, None, standing(key, "2030-01-01"))
    assert routes.holder(SHARED) == "a/y"


def test_who_gains_a_host_is_woken_and_who_is_not_concerned_sleeps_on():
    routes = Routes()
    one, two = standing("a/one", "2030-01-01"), standing("b/two", "2030-01-02")
    routes.change("1", None, one)
    routes.change("2", None, two)
    routes.change("3", None, standing("c/three", "2030-01-01", (PUBLIC, "else.example.com")))
    assert routes.stirred() == set()
    routes.change("1", one, one)
    assert routes.stirred() == set()
    routes.change("1", one, None)
    assert routes.stirred() == {"b/two"}
    assert routes.stirred() == set()


def test_a_thousand_who_want_one_host_do_not_wake_each_other():
    routes = Routes()
    for number in range(1000):
        routes.change(str(number), None, standing(f"a/{number:04}", f"2030-{number:04}"))
    assert routes.stirred() == set()


class Yard:
    """Detectors that each ask for hosts, look only when they are woken, and write what they may."""

    def __init__(self, *hosts: str) -> None:
        self.index, self.asks, self.has, self.time = Routes(), dict[str, str](), {}, 0
        self.states: dict[str, Standing] = {}
        for number, host in enumerate(hosts):
            self.ask(f"shop/{number}", host)
        self.run()

    def tell(self, uid: str, new: Standing) -> None:
        self.index.change(uid, self.states.get(uid), new)
        self.states[uid] = new

    def ask(self, key: str, host: str) -> None:
        """Edit a spec: its detector looks by itself, others only if it wakes them."""
        self.asks[key], self.time = host, self.time + 1
        self.tell(f"cr {key}", standing(key, key, (PUBLIC, host)))
        self.index.wake([key])

    def run(self) -> None:
        for _ in range(50):
            woken = self.index.stirred()
            if not woken:
                return
            for key in sorted(woken):
                self.look(key)
        raise AssertionError("it never ends")

    def look(self, key: str) -> None:
        detector = Detector.parse(raw(key[5:], hosts=[self.asks[key]], gateways=[PUBLIC]))
        taken = self.index.taken(key, wanted(raw(hosts=[self.asks[key]], gateways=[PUBLIC])))
        live = ([self.has[key]], [PUBLIC]) if key in self.has else None
        found = expose(detector, live, taken, Allowed(), bare=False)
        assert found.routes or live is None, "a live route was pruned for somebody else"
        if found.routes and found.hosts != (self.has.get(key),):
            self.has[key] = found.hosts[0]
            claims = standing(key, f"{self.time:03}", (PUBLIC, self.has[key]), is_route=True)
            self.tell(f"route {key}", claims)


@given(st.permutations("abcde"), st.permutations(range(5)))
def test_detectors_that_ask_for_the_hosts_of_each_other_exchange_them(hosts, order):
    yard = Yard(*(f"{letter}.example.com" for letter in "abcde"))
    for number in order:
        yard.ask(f"shop/{number}", f"{hosts[number]}.example.com")
        yard.run()
    assert yard.has == yard.asks


def test_who_asks_for_a_host_that_is_served_elsewhere_keeps_the_old_one_until_it_is_free():
    yard = Yard("a.example.com", "b.example.com", "c.example.com")
    yard.ask("shop/0", "b.example.com")
    yard.ask("shop/2", "a.example.com")
    yard.run()
    assert yard.has == {f"shop/{n}": f"{host}.example.com" for n, host in enumerate("abc")}
    yard.ask("shop/1", "d.example.com")
    yard.run()
    assert yard.has == yard.asks


REPORTED = {"observedGeneration": 2, "conditions": [{"type": "Ready", "reason": "Ready"}]}


def saying(kind: str, reason: str) -> dict[str, Any]:
    return REPORTED | {"conditions": [{"type": kind, "status": "False", "reason": reason}]}


@pytest.mark.parametrize(
    ("status", "exchanged"),
    [
        (REPORTED, True),
        (saying("Progressing", "HostTaken"), True),
        (saying("Progressing", "Suspended"), False),
        (saying("Progressing", "InvalidSpec"), False),
        (saying("Progressing", "ReadFailed"), False),
        (saying("Written", "WriteRefused"), False),
        (REPORTED | {"observedGeneration": 1}, False),  # nobody has read yet what it asks for now
    ],
)
def test_a_host_is_not_exchanged_with_who_will_not_write_its_route(status, exchanged):
    """Its own host went dark, and the one it has was routed twice."""
    cache, hosts = Cache(), ("a.example.com", "b.example.com")
    cache.set_served(kinds.VIRTUAL_SERVICE, True)
    for number, told in enumerate((REPORTED, REPORTED)):
        cache.put(kinds.DETECTOR, stored(f"gate-{number}", hosts[1 - number], 10 + number, told))
        route = stored(f"gate-{number}", hosts[number], 20 + number, {})
        labels = {"app.kubernetes.io/managed-by": "yolofleet"}
        labels["yolofleet.io/detector"] = f"gate-{number}"
        owner = {"kind": "YoloDetector", "controller": True, "name": f"gate-{number}"}
        owner |= {"uid": f"{10 + number}", "apiVersion": "yolofleet.io/v1alpha1"}
        route["metadata"] |= {"labels": labels, "ownerReferences": [owner]}
        spec = {"hosts": [hosts[number]], "gateways": [PUBLIC]}
        cache.put(kinds.VIRTUAL_SERVICE, route | {"kind": "VirtualService", "spec": spec})
    cache.routes.stirred()
    silent = stored("gate-1", hosts[0], 11, status)
    silent["metadata"]["resourceVersion"] = "30"
    cache.put(kinds.DETECTOR, silent)
    assert (cache.routes.holder((PUBLIC, hosts[1])) == "shop/gate-0") == exchanged
    assert ("shop/gate-0" in cache.routes.stirred()) != exchanged  # who is told when that changes


def stored(name: str, host: str, number: int, status: Any) -> dict[str, Any]:
    found = raw(name, hosts=[host], gateways=[PUBLIC])
    version = {"uid": f"{number}", "resourceVersion": f"{number}", "generation": 2}
    created = {"creationTimestamp": "2030-01-01T00:00:00Z"}
    return found | {"metadata": found["metadata"] | version | created, "status": status}


def test_a_detector_that_is_made_anew_under_its_name_asks_on_when_the_old_one_is_forgotten():
    yard = Yard("a.example.com", "b.example.com")
    yard.tell("cr new", yard.states["cr shop/0"])
    yard.index.change("cr shop/0", yard.states["cr shop/0"], None)
    yard.asks["shop/0"] = "b.example.com"
    yard.tell("cr new", standing("shop/0", "shop/0", (PUBLIC, "b.example.com")))
    yard.ask("shop/1", "a.example.com")
    yard.index.wake(["shop/0"])
    yard.run()
    assert yard.has == yard.asks


def test_who_asks_for_what_the_admin_does_not_allow_stands_in_nobodys_way_by_it():
    cache = Cache(Allowed(("*.example.com",), (PUBLIC,)))
    cache.set_served(kinds.VIRTUAL_SERVICE, True)
    for number, host in enumerate(("a.example.com", "*.com", "a.other.com")):
        cache.put(kinds.DETECTOR, stored(f"gate-{number}", host, 30 + number, REPORTED))
    assert cache.routes.holder((PUBLIC, "a.example.com")) == "shop/gate-0"
    assert not cache.routes.crossed("shop/gate-0", [(PUBLIC, "a.example.com")])
    assert not cache.routes.holder((PUBLIC, "a.other.com"))


# routes of those who are no detectors


def others_route(created: str, number: int = 50, **spec: Any) -> dict[str, Any]:
    metadata = {"name": "legacy", "namespace": "yard", "uid": f"{number}"}
    metadata |= {"resourceVersion": f"{number}", "creationTimestamp": f"{created}T00:00:00Z"}
    asked = {"hosts": ["shared.example.com"], "gateways": [PUBLIC], "http": [{"route": []}]} | spec
    return {"kind": "VirtualService", "metadata": metadata, "spec": asked}


def a_route_of_ours(created: str, number: int = 20) -> dict[str, Any]:
    labels = {"app.kubernetes.io/managed-by": "yolofleet", "yolofleet.io/detector": "gate"}
    owner = {"kind": "YoloDetector", "controller": True, "name": "gate", "uid": "10"}
    owner |= {"apiVersion": "yolofleet.io/v1alpha1"}
    metadata = {"name": "gate", "namespace": "shop", "uid": f"{number}", "labels": labels}
    metadata |= {"resourceVersion": f"{number}", "creationTimestamp": f"{created}T00:00:00Z"}
    spec = {"hosts": ["shared.example.com"], "gateways": [PUBLIC]}
    return {
        "kind": "VirtualService",
        "metadata": metadata | {"ownerReferences": [owner]},
        "spec": spec,
    }


DEFAULTS = Defaults("a", "b", "c")


def others(cache: Cache, raw: dict[str, Any]) -> Any:
    return cache.elsewhere("shop/gate", raw, DEFAULTS).others[ISTIO]


@pytest.mark.parametrize(
    ("spec", "taken"),
    [
        ({}, True),
        ({"http": [{"match": [{"uri": {"prefix": "/"}}]}]}, True),
        ({"http": [{"match": [{"uri": {"prefix": "/api"}}]}]}, False),  # the rest is ours
        ({"http": [{"match": [{"uri": {"prefix": "/"}, "headers": {"x": {}}}]}]}, False),
        ({"tls": [{}], "http": None}, False),
        ({"exportTo": ["."]}, False),  # the gateway does not see it
        ({"exportTo": ["*"]}, True),
        ({"exportTo": ["istio-system"]}, True),
        ({"gateways": ["public"]}, False),  # of its own namespace
        ({"hosts": ["SHARED.example.com."]}, True),
        ({"hosts": ["*.example.com"]}, False),
        ({"hosts": "junk", "http": "junk"}, False),
    ],
)
def test_a_host_is_somebodys_whose_route_leaves_no_request_to_ours(spec, taken):
    cache = Cache()
    cache.set_served(kinds.VIRTUAL_SERVICE, True)
    asked = stored("gate", "shared.example.com", 10, {})
    cache.put(kinds.DETECTOR, asked)
    cache.put(kinds.VIRTUAL_SERVICE, others_route("2029-01-01", **spec))
    expected = {SHARED: "VirtualService yard/legacy"} if taken else {}
    assert others(cache, asked) == expected
    assert (cache.routes.stirred() == {"shop/gate"}) == taken


@pytest.mark.parametrize(
    ("namespace", "exported", "taken"),
    [
        ("shop", ["."], True),
        ("shop", ["shop"], True),
        ("shop", None, False),  # what is for one namespace alone, as ours is, goes before it
        ("yard", ["."], False),  # no client of ours sees it
        ("yard", None, False),
    ],
)
def test_inside_the_mesh_only_a_route_for_the_same_namespace_goes_before_ours(
    namespace, exported, taken
):
    cache = Cache()
    cache.set_served(kinds.VIRTUAL_SERVICE, True)
    asked = stored("gate", "shared.example.com", 10, {})
    asked["spec"]["traffic"]["gateways"] = []
    cache.put(kinds.DETECTOR, asked)
    other = others_route("2029-01-01", gateways=None, exportTo=exported)
    other["metadata"]["namespace"] = namespace
    cache.put(kinds.VIRTUAL_SERVICE, other)
    assert bool(others(cache, asked)) == taken


def test_the_older_of_two_live_routes_keeps_the_host_and_what_goes_frees_it():
    cache = Cache()
    cache.set_served(kinds.VIRTUAL_SERVICE, True)
    asked = stored("gate", "shared.example.com", 10, {})
    cache.put(kinds.DETECTOR, asked)
    cache.put(kinds.VIRTUAL_SERVICE, a_route_of_ours("2030-01-01"))
    cache.put(kinds.VIRTUAL_SERVICE, others_route("2031-01-01"))
    assert others(cache, asked) == {}
    older = others_route("2029-01-01", 51)
    older["metadata"] |= {"name": "older", "uid": "51"}
    cache.put(kinds.VIRTUAL_SERVICE, older)
    assert others(cache, asked) == {SHARED: "VirtualService yard/older"}
    cache.routes.stirred()
    cache.remove(kinds.VIRTUAL_SERVICE, "51", 60)
    assert cache.routes.stirred() == {"shop/gate"}
    assert others(cache, asked) == {}


@pytest.mark.parametrize(
    ("change", "taken"),
    [
        ({}, True),
        ({"accepted": "False"}, False),
        ({"sectionName": "https"}, False),  # other listeners are free
        ({"rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/api"}}]}]}, False),
    ],
)
def test_an_http_route_that_a_gateway_took_has_its_hosts(change, taken):
    cache = Cache()
    cache.set_served(kinds.HTTP_ROUTE, True)
    asked = stored("gate", "shared.example.com", 10, {})
    cache.put(kinds.DETECTOR, asked)
    ref = {"namespace": "istio-system", "name": "public"}
    ref |= {"sectionName": change["sectionName"]} if "sectionName" in change else {}
    accepted = {"type": "Accepted", "status": change.get("accepted", "True")}
    route = others_route("2029-01-01")
    route["spec"] = {"parentRefs": [ref], "hostnames": ["shared.example.com"]}
    route["spec"]["rules"] = change.get("rules", [{"backendRefs": []}])
    route["status"] = {"parents": [{"parentRef": ref, "conditions": [accepted]}]}
    cache.put(kinds.HTTP_ROUTE, route | {"kind": "HTTPRoute"})
    found = cache.elsewhere("shop/gate", asked, DEFAULTS).others
    assert found[GATEWAY] == ({SHARED: "HTTPRoute yard/legacy"} if taken else {})
    assert found[ISTIO] == {}


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ({"status": "True", "observedGeneration": 1}, True),  # it serves while it is edited
        ({"status": "False", "observedGeneration": 1}, False),
        (None, False),  # no gateway ever took it
    ],
)
def test_who_edits_an_http_route_of_his_own_has_its_hosts_before_the_gateway_has_seen_it(
    said, taken
):
    """Each edit gave a detector that waits a route for the host, which stayed."""
    cache = Cache()
    cache.set_served(kinds.HTTP_ROUTE, True)
    asked = stored("gate", "shared.example.com", 10, {})
    cache.put(kinds.DETECTOR, asked)
    ref = {"namespace": "istio-system", "name": "public"}
    conditions = [{"type": "Accepted"} | said] if said else []
    route = others_route("2029-01-01") | {"kind": "HTTPRoute"}
    route["spec"] = {"parentRefs": [ref], "hostnames": ["shared.example.com"], "rules": [{}]}
    route["status"] = {"parents": [{"parentRef": ref, "conditions": conditions}]}
    metadata = route["metadata"]
    cache.put(kinds.HTTP_ROUTE, route | {"metadata": metadata | {"generation": 1}})
    cache.routes.stirred()
    edited = metadata | {"generation": 2, "resourceVersion": "60"}
    cache.put(kinds.HTTP_ROUTE, route | {"metadata": edited})
    found = cache.elsewhere("shop/gate", asked, DEFAULTS).others[GATEWAY]
    assert found == ({SHARED: "HTTPRoute yard/legacy"} if taken else {})
    assert cache.routes.stirred() == set()


def test_admission_tells_of_somebodys_route_too():
    cache = Cache()
    cache.set_served(kinds.VIRTUAL_SERVICE, True)
    cache.put(kinds.VIRTUAL_SERVICE, others_route("2029-01-01"))
    asked = stored("gate", "shared.example.com", 10, {})
    [refusal] = judge(asked, None, _neighbours(asked, cache, DEFAULTS)).refusals
    assert "is taken by the VirtualService yard/legacy already" in refusal


# wildcards


def with_detectors(*hosts: str) -> Cache:
    cache = Cache()
    cache.set_served(kinds.VIRTUAL_SERVICE, True)
    for number, host in enumerate(hosts):
        cache.put(kinds.DETECTOR, stored(f"gate-{number}", host, 10 + number, {}))
    return cache


def test_of_a_wildcard_and_a_host_below_it_both_are_told():
    cache = with_detectors("*.example.com", "a.example.com", "*.b.example.com", "c.other.com")
    told = {
        number: [
            str(each) for each in cache.elsewhere(f"shop/gate-{number}", raw, DEFAULTS).crossed
        ]
        for number, raw in enumerate(cache.detector(f"shop/gate-{n}") for n in range(4))
    }
    assert told == {
        0: [
            "requests for *.b.example.com go to the detector shop/gate-2, not to *.example.com",
            "requests for a.example.com go to the detector shop/gate-1, not to *.example.com",
        ],
        1: ["a.example.com takes its requests from *.example.com of the detector shop/gate-0"],
        2: ["*.b.example.com takes its requests from *.example.com of the detector shop/gate-0"],
        3: [],
    }


def test_who_has_a_wildcard_looks_again_when_a_host_below_comes_and_goes():
    cache = with_detectors("*.example.com", "elsewhere.com")
    assert cache.routes.stirred() == set()
    cache.put(kinds.DETECTOR, stored("late", "a.example.com", 30, {}))
    assert cache.routes.stirred() == {"shop/gate-0"}
    cache.remove(kinds.DETECTOR, "30", 40)
    assert cache.routes.stirred() == {"shop/gate-0"}


@pytest.mark.parametrize(
    ("crossings", "more"), [(4, ""), (5, "and 1 more"), (MOST_CROSSINGS, "and at least 96 more")]
)
def test_of_many_hosts_that_share_requests_a_few_are_named(world, crossings, more):
    world.edit(traffic={"hosts": ["*.example.com"], "gateways": [PUBLIC]})
    world.crossed = tuple(
        Crossing(PUBLIC, "*.example.com", f"h{n}.example.com", "yard/door")
        for n in range(crossings)
    )
    world.settle()
    told = world.status().condition("TrafficRouted")
    assert told.reason == "Routed"
    assert told.message.endswith(
        more or "h3.example.com go to the detector yard/door, not to *.example.com"
    )


def test_admission_warns_of_a_wildcard_and_refuses_nothing_for_it():
    cache = with_detectors("*.example.com")
    asked = stored("late", "a.example.com", 30, {})
    verdict = judge(asked, None, _neighbours(asked, cache, DEFAULTS))
    assert not verdict.refusals
    [warning] = verdict.warnings
    assert "takes its requests from *.example.com of the detector shop/gate-0" in warning


# a whole reconcile


def test_a_new_detector_leaves_a_host_to_somebodys_route_and_says_whose_it_is(world):
    world.others_routes = {ISTIO: {SHARED: "VirtualService yard/legacy"}}
    world.edit(traffic={"hosts": ["shared.example.com"], "gateways": [PUBLIC]})
    world.settle()
    told = world.status().condition("TrafficRouted")
    assert (told.status, told.reason) == ("False", "HostTaken")
    assert "taken by the VirtualService yard/legacy already" in told.message
    assert ("VirtualService", "gate") not in world.children
    world.others_routes = {}
    world.settle()
    assert world.status().condition("TrafficRouted").reason == "Routed"


def test_a_live_route_behind_an_older_one_stays_is_told_and_no_step_counts_on_it(world):
    traffic = {"hosts": ["shared.example.com"], "gateways": [PUBLIC]}
    world.edit(traffic=traffic)
    world.settle()
    world.others_routes = {ISTIO: {SHARED: "VirtualService yard/legacy"}}
    steps = [{"weight": 10, "hold": "1m"}]
    world.edit(model=V2, rollout={"strategy": "Canary", "steps": steps})
    before = world.status().stable.revision
    world.settle()
    world.now += timedelta(hours=1)
    world.settle()
    assert ("VirtualService", "gate") in world.children
    assert world.status().stable.revision == before, "a step went on without any request"
    assert world.status().condition("TrafficRouted").reason == "HostTaken"
    assert world.status().condition("Released").status == "False"
    assert world.status().url == "http://gate.shop.svc"
    world.others_routes = {}
    world.settle()
    world.now += timedelta(hours=1)
    world.settle()
    assert world.status().stable.revision != before


def test_a_detector_whose_host_is_taken_serves_by_its_service_and_says_so(world):
    world.taken = {SHARED: "yard/door"}
    world.edit(traffic={"hosts": ["shared.example.com"], "gateways": [PUBLIC]})
    world.settle()
    told = world.status().condition("TrafficRouted")
    assert (told.status, told.reason) == ("False", "HostTaken")
    assert "yard/door" in told.message
    assert ("VirtualService", "gate") not in world.children
    assert world.status().url == "http://gate.shop.svc"
    assert world.status().stable.weight == 100
    world.edit(model=V2)
    world.settle()
    assert world.status().stable.revision == world.selected()
    world.taken = {}
    world.settle()
    assert world.status().condition("TrafficRouted").reason == "Routed"
    assert world.children["VirtualService", "gate"]["spec"]["hosts"] == ["shared.example.com"]
    assert world.status().url == "http://shared.example.com"


def test_a_route_that_is_there_goes_on_with_its_weights_and_the_clash_is_told(world):
    world.edit(traffic={"hosts": ["shared.example.com"], "gateways": [PUBLIC]})
    world.settle()
    world.taken = {SHARED: "yard/door"}
    world.edit(canary={"model": V2, "weight": 50})
    world.settle()
    assert set(world.weights().values()) == {50}
    assert world.status().condition("TrafficRouted").reason == "HostTaken"


def test_only_a_route_inside_the_mesh_is_for_its_own_namespace_alone(world):
    def exported() -> Any:
        world.reconcile()
        return world.children["VirtualService", "gate"]["spec"].get("exportTo")

    assert exported() is None, "a delegate has to be seen by its root"
    world.edit(traffic={"hosts": ["gate.example.com"]})
    assert exported() == ["."]
    world.edit(traffic={"hosts": ["gate.example.com"], "gateways": ["mesh"]})
    assert exported() == ["."]
    world.edit(traffic={"hosts": ["gate.example.com"], "gateways": ["mesh", PUBLIC]})
    assert exported() == ["."], "nobody allowed it"
    assert world.status().condition("TrafficRouted").reason == "HostNotAllowed"
    allowed = Allowed(gateways=("mesh", PUBLIC))
    world.defaults = replace(world.defaults, allowed=allowed)
    assert exported() is None
