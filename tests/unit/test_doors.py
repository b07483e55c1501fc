"""Whom Gateways let in: a host is not taken by a route that the gateway passes over or refuses."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolofleet.api.detector import Provider
from yolofleet.cluster import kinds
from yolofleet.cluster.cache import Cache
from yolofleet.plan.admission import judge
from yolofleet.plan.defaults import Defaults
from yolofleet.routers import gateway as gateway_api
from yolofleet.routers.claims import Claim
from yolofleet.routers.doors import Doors, _Hosts
from yolofleet.routers.istio import doors
from yolofleet.runtime.kind import Kind
from yolofleet.webhook import _neighbours

HOST = "gate.example.com"
PUBLIC = "istio-system/public"
CLAIM: Claim = (PUBLIC, HOST)
DEFAULTS = Defaults("a", "b", "c")


def gateway(*hosts: Any, version: int = 1, kind: Kind = kinds.ISTIO_GATEWAY) -> Any:
    metadata = {"name": "public", "namespace": "istio-system", "uid": f"g {kind.api_version}"}
    spec = {"servers": [{"hosts": [host]} for host in hosts]}
    if kind is kinds.GATEWAY:
        spec = {"listeners": [listener(host) for host in hosts]}
    return {"metadata": metadata | {"resourceVersion": f"{version}"}, "spec": spec}


def listener(listed: str) -> dict[str, Any]:
    """Return the listener of the Gateway API that lets in what Istio writes as `listed`."""
    namespace, slash, host = listed.rpartition("/")
    named = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    let_in = {"from": "Selector", "selector": named} if slash else {"from": "All"}
    if namespace == "*":
        let_in = {"from": "All"}
    said = {"protocol": "HTTP", "hostname": host} if host != "*" else {"protocol": "HTTP"}
    return said | {"allowedRoutes": {"namespaces": let_in}}


@pytest.mark.parametrize(
    ("listed", "host", "namespaces"),
    [
        (HOST, HOST, "shop evil istio-system"),
        (f"*/{HOST}", HOST, "shop evil istio-system"),
        (f"./{HOST}", HOST, "istio-system"),
        (f"shop/{HOST}", HOST, "shop"),
        ("shop/GATE.example.com.", HOST, "shop"),
        ("*", HOST, "shop evil istio-system"),
        ("shop/*", HOST, "shop"),
        ("*/*", HOST, "shop evil istio-system"),
        ("shop/*.example.com", HOST, "shop"),
        ("shop/*.com", HOST, "shop"),
        ("shop/*.com", "*.example.com", "shop"),
        ("shop/*te.example.com", HOST, "shop"),
        ("shop/*-gate.example.com", HOST, ""),
        ("shop/*.example.com", "example.com", ""),
        ("shop/*.example.com", "newexample.com", ""),
        ("shop/*.gate.example.com", HOST, ""),
        (f"shop/{HOST}", "*.example.com", "shop"),  # of a wildcard it has what is listed
        (f"shop/{HOST}", "*", "shop"),
        (f"shop/{HOST}", "*.gate.example.com", ""),
        ("shop/other.example.com", HOST, ""),
        (f"~/{HOST}", HOST, ""),
    ],
)
def test_a_host_is_for_the_namespaces_that_the_gateway_lists_with_it(
    listed: str, host: str, namespaces: str
) -> None:
    at = doors(gateway("nobody/none.test", listed))
    assert at
    assert [n for n in ("shop", "evil", "istio-system") if at.let_in(n, host)] == namespaces.split()


def matches(one: str, other: str) -> bool:
    """Compare two names as Istio does (pkg/config/host/name.go, Matches)."""
    if one.startswith("*") and other.startswith("*"):
        short, long = sorted((one[1:], other[1:]), key=len)
        return long.endswith(short)
    if one.startswith("*"):
        return other.endswith(one[1:])
    return one.endswith(other[1:]) if other.startswith("*") else one == other


NAMES = st.sampled_from(["*", "b", "a.b", "*.b", "c.a.b", "*.a.b", "*a.b", "xa.b", "*b", "*.c.a.b"])


@given(st.lists(NAMES, max_size=3), NAMES)
def test_hosts_are_compared_as_istio_does(listed: list[str], host: str) -> None:
    at = Doors(frozenset(("shop", name) for name in listed))
    assert at.let_in("shop", host) == any(matches(name, host) for name in listed)
    kept = at.kept_for("evil", host)
    assert bool(kept) == at.let_in("shop", host)
    assert not kept or matches(kept.removeprefix("shop/"), host)
    assert kept.removeprefix("shop/") in ("", *listed)
    assert not at.kept_for("shop", host)


def labels(**given: Any) -> dict[str, Any]:
    return {"allowedRoutes": {"namespaces": {"from": "Selector", "selector": given}}}


NAMED = "kubernetes.io/metadata.name"


@pytest.mark.parametrize(
    ("said", "host", "namespaces"),
    [
        ({}, HOST, "istio-system"),  # the API's default: of its own namespace
        ({"allowedRoutes": {"namespaces": {"from": "Same"}}}, HOST, "istio-system"),
        ({"allowedRoutes": {"kinds": []}, "hostname": ""}, HOST, "istio-system"),
        ({"allowedRoutes": {"namespaces": {"from": "All"}}}, HOST, "shop evil istio-system"),
        ({"allowedRoutes": {"namespaces": {"from": "New"}}}, HOST, "shop evil istio-system"),
        (labels(matchLabels={NAMED: "shop"}), HOST, "shop"),
        (labels(matchLabels={NAMED: "shop", "tier": "front"}), HOST, "shop"),
        (
            labels(matchExpressions=[{"key": NAMED, "operator": "In", "values": ["shop", "evil"]}]),
            HOST,
            "shop evil",
        ),
        (
            labels(matchExpressions=[{"key": NAMED, "operator": "NotIn", "values": ["shop"]}]),
            HOST,
            "shop evil istio-system",
        ),
        (labels(matchLabels={"tier": "front"}), HOST, "shop evil istio-system"),
        (labels(), HOST, "shop evil istio-system"),
        ({"hostname": "*.example.com"}, HOST, "istio-system"),
        ({"hostname": "*.example.com"}, "*", "istio-system"),
        ({"hostname": "*.example.com"}, "example.com", ""),
        ({"hostname": "GATE.example.com"}, HOST, "istio-system"),
        ({"hostname": HOST}, "*.example.com", "istio-system"),
        ({"hostname": "other.example.com"}, HOST, ""),
        ({"protocol": "HTTPS"}, HOST, "istio-system"),
        ({"protocol": "example.com/own"}, HOST, "istio-system"),
        ({"protocol": "TCP"}, HOST, ""),  # takes no HTTPRoute
        ({"protocol": "TLS"}, HOST, ""),
        ({"allowedRoutes": {"kinds": [{"kind": "GRPCRoute"}]}}, HOST, ""),
        ({"allowedRoutes": {"kinds": [{"kind": "HTTPRoute"}]}}, HOST, "istio-system"),
        ({"allowedRoutes": "junk"}, HOST, "istio-system"),
    ],
)
def test_a_host_is_for_the_namespaces_that_a_listener_allows(
    said: Any, host: str, namespaces: str
) -> None:
    spec = {"listeners": [listener("nobody/none.test"), {"protocol": "HTTP"} | said]}
    at = gateway_api.doors(gateway() | {"spec": spec})
    assert at
    assert [n for n in ("shop", "evil", "istio-system") if at.let_in(n, host)] == namespaces.split()


@pytest.mark.parametrize(
    "spec",
    [{}, None, {"listeners": []}, {"listeners": "junk"}, {"listeners": [{"protocol": "TCP"}, "x"]}],
)
def test_of_a_gateway_without_a_listener_for_http_routes_nothing_is_known(spec: Any) -> None:
    assert gateway_api.doors(gateway() | {"spec": spec}) is None


def test_of_many_namespaces_only_those_that_are_asked_of_are_looked_at(monkeypatch: Any) -> None:
    """A Gateway of 1 MB that lists so many took 20 s, at each write of its status."""
    made = []

    class Counted(_Hosts):
        def __init__(self, names: Iterable[str]) -> None:
            made.append(self)
            super().__init__(names)

    monkeypatch.setattr("yolofleet.routers.doors._Hosts", Counted)
    at = doors(gateway(*(f"n{number}/*" for number in range(1000)), f"shop/{HOST}"))
    assert at
    assert not made, "nobody has asked yet"
    for _ in range(2):
        assert at.let_in("shop", HOST)
        assert at.kept_for("evil", HOST)
    assert len(made) == 2


@pytest.mark.parametrize(
    "spec", [{}, None, {"servers": []}, {"servers": "junk"}, {"servers": ["junk", {"hosts": "*"}]}]
)
def test_of_a_gateway_that_says_nothing_nothing_is_known(spec: Any) -> None:
    assert doors(gateway() | {"spec": spec}) is None


@dataclass(frozen=True)
class Api:
    """Gateways and routes of one of the two APIs."""

    provider: Provider
    said_in: str

    def hosts(self, route: Any) -> Any:
        return route["spec"]["hosts" if self.provider is Provider.ISTIO else "hostnames"]

    def put_gateway(self, cache: Cache, *hosts: str, version: int = 1) -> None:
        kind = kinds.GATEWAYS[self.provider]
        cache.put(kind, gateway(*hosts, version=version, kind=kind))

    def remove_gateway(self, cache: Cache, version: int) -> None:
        kind = kinds.GATEWAYS[self.provider]
        cache.remove(kind, gateway(kind=kind)["metadata"]["uid"], version)

    def put_route(self, cache: Cache, **metadata: Any) -> None:
        kind = kinds.ROUTERS[self.provider]
        ref = {"namespace": "istio-system", "name": "public"}
        spec: dict[str, Any] = {"hosts": [HOST], "gateways": [PUBLIC], "http": [{"route": []}]}
        if self.provider is Provider.GATEWAY:
            spec = {"hostnames": [HOST], "parentRefs": [ref], "rules": [{}]}
        said = {"parentRef": ref, "conditions": [{"type": "Accepted", "status": "True"}]}
        made = {"resourceVersion": "3", "creationTimestamp": "2029-01-01T00:00:00Z"}
        named = {"name": "squat", "namespace": "evil", "uid": "s"} | made | metadata
        status = {"parents": [said]}
        cache.put(kind, {"kind": kind.name, "metadata": named, "spec": spec, "status": status})


APIS = [
    Api(Provider.ISTIO, "servers.hosts"),
    Api(Provider.GATEWAY, "listeners.allowedRoutes"),
]


def detector(namespace: str, created: str, **traffic: Any) -> dict[str, Any]:
    metadata = {"name": "gate", "namespace": namespace, "uid": namespace, "generation": 1}
    metadata |= {"resourceVersion": "2", "creationTimestamp": f"{created}-01-01T00:00:00Z"}
    asked = {"provider": "istio", "hosts": [HOST], "gateways": [PUBLIC]} | traffic
    return {"metadata": metadata, "spec": {"traffic": asked}}


def watching(*gateways: Any) -> Cache:
    cache = Cache()
    for kind in (*kinds.ROUTERS.values(), *kinds.GATEWAYS.values()):
        cache.set_served(kind, True)
    for each in gateways:
        cache.put(kinds.ISTIO_GATEWAY, each)
    return cache


def taken(cache: Cache, asked: dict[str, Any]) -> set[str]:
    seen = cache.elsewhere("shop/gate", asked, DEFAULTS)
    by = Provider(asked["spec"]["traffic"]["provider"])
    return {*seen.taken.values(), *seen.others[by].values()}


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.provider)
def test_a_host_is_not_taken_by_a_route_that_the_gateway_does_not_let_in(api: Api) -> None:
    """A host that a Gateway kept for one namespace could be taken from it by a route anywhere."""
    cache, asked = watching(), detector("shop", "2030", provider=api.provider.value)
    api.put_gateway(cache, f"shop/{HOST}", "other.example.com")
    cache.put(kinds.DETECTOR, asked)
    api.put_route(cache)
    cache.routes.stirred()
    assert not taken(cache, asked)
    api.put_gateway(cache, HOST, version=4)
    assert cache.routes.stirred() == {"shop/gate"}
    assert taken(cache, asked) == {f"{kinds.ROUTERS[api.provider].name} evil/squat"}
    api.put_gateway(cache, HOST, version=5)
    assert not cache.routes.stirred(), "it lets in whom it did"


OURS = {
    "labels": {"app.kubernetes.io/managed-by": "yolofleet", "yolofleet.io/detector": "gate"},
    "ownerReferences": [
        {
            "apiVersion": "yolofleet.io/v1alpha1",
            "kind": "YoloDetector",
            "name": "gate",
            "uid": "evil",
            "controller": True,
        }
    ],
}


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.provider)
@pytest.mark.parametrize("routed", [False, True])
@pytest.mark.parametrize("first", [False, True], ids=["the gateway last", "the gateway first"])
def test_nor_by_a_detector_that_it_does_not_let_in(api: Api, routed: bool, first: bool) -> None:
    """By the Gateway API one whose route is refused kept the host for good."""
    cache, by = watching(), api.provider.value
    if first:
        api.put_gateway(cache, f"shop/{HOST}")
    asked, other = detector("shop", "2030", provider=by), detector("evil", "2029", provider=by)
    cache.put(kinds.DETECTOR, asked)
    cache.put(kinds.DETECTOR, other)
    if routed:
        api.put_route(cache, **OURS)
    if not first:
        assert taken(cache, asked) == {"evil/gate"}
        api.put_gateway(cache, f"shop/{HOST}")
    assert cache.routes.holder(CLAIM) == "shop/gate"
    assert not taken(cache, asked)
    assert cache.elsewhere("evil/gate", other, DEFAULTS).taken
    api.put_gateway(cache, f"*/{HOST}", version=4)
    assert cache.routes.holder(CLAIM) == "evil/gate"
    assert cache.routes.stirred() == {"shop/gate", "evil/gate"}
    [route] = cache.owned_by("evil") if routed else [None]
    assert route is None or route.standing == cache._entries[route.kind][route.uid].standing
    api.remove_gateway(cache, 5)
    assert taken(cache, asked) == {"evil/gate"}, "of what is not there nobody knows whom it lets in"


def test_a_host_that_a_gateway_has_for_nobody_yet_goes_to_who_asked_first() -> None:
    cache = watching(gateway("shop/other.example.com"))
    cache.put(kinds.DETECTOR, detector("shop", "2030"))
    cache.put(kinds.DETECTOR, detector("evil", "2029"))
    assert cache.routes.holder(CLAIM) == "evil/gate"


def test_gateways_of_the_two_apis_are_two() -> None:
    cache = watching(gateway(f"shop/{HOST}"))
    cache.put(kinds.GATEWAY, gateway(kind=kinds.GATEWAY))
    cache.put(kinds.DETECTOR, detector("evil", "2029", provider="gateway"))
    assert cache.routes.holder(CLAIM) == "evil/gate", "of this one Istio's doors say nothing"


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.provider)
def test_a_live_route_stays_when_the_gateway_keeps_for_others_what_is_asked_for_now(
    api: Api, world: Any, monkeypatch: Any
) -> None:
    """It was written for a host that Istio passes over there, and its own went dark."""
    own, route = "own.example.com", (kinds.ROUTERS[api.provider].name, "gate")
    cache = watching()
    api.put_gateway(cache, f"yard/{HOST}", own)
    seen = cache.elsewhere
    monkeypatch.setattr(world, "elsewhere", lambda: seen("shop/gate", world.raw, DEFAULTS))
    world.gateway = api.provider is Provider.GATEWAY
    traffic = {"provider": api.provider.value, "gateways": [PUBLIC]}
    world.edit(traffic=traffic | {"hosts": [own]})
    world.settle()
    world.edit(traffic=traffic | {"hosts": [HOST]})
    world.settle()
    assert api.hosts(world.children[route]) == [own]
    told = world.status().condition("TrafficRouted")
    assert told.reason == "HostNotAllowed"
    assert f"the Gateway {PUBLIC} lets in yard/{HOST} ({api.said_in})" in told.message
    world.edit(traffic=traffic | {"hosts": [HOST, "new.example.com"]})
    world.settle()
    assert api.hosts(world.children[route]) == ["new.example.com"], "it has what is for it"
    api.put_gateway(cache, f"*/{HOST}", version=9)
    world.settle()
    assert api.hosts(world.children[route]) == [HOST, "new.example.com"]


def test_a_new_detector_gets_no_route_for_it_and_admission_says_whose_it_is() -> None:
    cache = watching(gateway(f"yard/{HOST}"))
    asked = detector("shop", "2030") | {"apiVersion": "yolofleet.io/v1alpha1"}
    asked["spec"] |= {"model": {"uri": "demo://shapes"}}
    [refusal] = judge(asked, None, _neighbours(asked, cache, DEFAULTS)).refusals
    assert f"lets in yard/{HOST}" in refusal
    assert f"let shop/{HOST} in there" in refusal
    cache = watching(gateway(f"yard/{HOST}", f"shop/{HOST}"))
    assert not judge(asked, None, _neighbours(asked, cache, DEFAULTS)).refusals
