"""The Gateway API as router: when it is used, what its route says, and what gateways say of it."""

import copy
from datetime import timedelta

import pytest
import yaml
from jsonschema import Draft202012Validator

from controlplane.installation import GATEWAY_CRDS
from yolofleet.api.base import InvalidSpec
from yolofleet.api.crd import crd
from yolofleet.api.detector import Provider
from yolofleet.cluster import kinds
from yolofleet.cluster.cache import Cache
from yolofleet.plan.status import report
from yolofleet.routers.choice import ROUTERS, provider_for

V2 = {"uri": "demo://shapes-v2"}
ISTIO, GATEWAY, SERVICE = Provider.ISTIO, Provider.GATEWAY, Provider.SERVICE
GIVEN = {"gateways": ["edge/public"], "hosts": ["gate.example.com"]}


@pytest.mark.parametrize(
    ("traffic", "routers", "used"),
    [
        ({}, {ISTIO, GATEWAY}, ISTIO),
        ({}, {GATEWAY}, SERVICE),  # nothing says which gateway
        (GIVEN, {GATEWAY}, GATEWAY),
        (GIVEN, {ISTIO, GATEWAY}, ISTIO),
        (GIVEN | {"provider": "gateway"}, {ISTIO, GATEWAY}, GATEWAY),
        ({"provider": "gateway"}, {GATEWAY}, GATEWAY),
        ({"provider": "gateway"}, {ISTIO}, SERVICE),
        ({"provider": "istio"}, {GATEWAY}, SERVICE),
        ({"provider": "service"}, {ISTIO, GATEWAY}, SERVICE),
        (GIVEN, set(), SERVICE),
    ],
)
def test_who_routes(detector_with, traffic, routers, used):
    assert provider_for(detector_with(traffic=traffic), routers) is used


@pytest.fixture
def at_the_edge(world):
    world.mesh, world.gateway = False, True
    world.edit(traffic=GIVEN)
    world.settle()
    return world


def route(world):
    return world.children["HTTPRoute", "gate"]


def test_a_canary_gets_its_weight_and_is_promoted(at_the_edge):
    world = at_the_edge
    stable = world.status().stable.revision
    world.edit(canary={"model": V2, "weight": 10})
    world.settle()
    canary = world.status().canary.revision
    assert world.weights() == {stable: 90, canary: 10}
    assert world.status().canary.weight == 10
    assert world.status().url == "http://gate.example.com"
    world.edit(model=V2, canary=None)
    world.settle()
    assert world.weights() == {canary: 100}
    assert not [kind for kind, _ in world.children if kind in ("VirtualService", "DestinationRule")]


def test_the_route_hangs_on_the_gateways_that_were_named(at_the_edge):
    spec = route(at_the_edge)["spec"]
    assert spec["hostnames"] == ["gate.example.com"]
    assert spec["parentRefs"] == [
        {
            "group": "gateway.networking.k8s.io",
            "kind": "Gateway",
            "namespace": "edge",
            "name": "public",
        }
    ]
    at_the_edge.edit(traffic={"provider": "gateway"})
    at_the_edge.reconcile()
    spec = route(at_the_edge)["spec"]
    assert "hostnames" not in spec
    assert spec["parentRefs"] == [{"group": "", "kind": "Service", "name": "gate", "port": 80}]


def cameras(many):
    return [f"camera-{number}.example.com" for number in range(many)]


def schema_of(document):
    return document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]


def test_the_largest_spec_makes_a_route_that_the_gateway_api_takes(at_the_edge):
    """17 hosts passed ours: the API server refused the route, and no weight moved any more."""
    ours = schema_of(crd())["properties"]
    traffic, match = ours["traffic"]["properties"], ours["canary"]["properties"]["match"]
    headers = match["items"]["properties"]["headers"]
    longest = headers["additionalProperties"]["properties"]["prefix"]["maxLength"]
    values = [{"exact": ""}, {"prefix": "." * longest}, {"regex": "z" * longest}]
    names = "!#$%&'*+-.^_`|~" * 18
    asked = {
        f"{number}{names}"[:256]: values[number % 3] for number in range(headers["maxProperties"])
    }
    gateways = [f"{'n' * 63}/g{number}" for number in range(traffic["gateways"]["maxItems"])]
    at_the_edge.edit(
        traffic={
            "gateways": gateways,
            "hosts": [f"CAMERA-{host}" for host in cameras(traffic["hosts"]["maxItems"])],
            "stickyHeader": "X" * traffic["stickyHeader"]["maxLength"],
        },
        canary={"model": V2, "weight": 50, "match": [{"headers": asked}] * match["maxItems"]},
    )
    at_the_edge.settle()
    spec = route(at_the_edge)["spec"]
    assert len(spec["rules"]) == 4
    [theirs] = [
        schema_of(each)
        for each in yaml.safe_load_all(GATEWAY_CRDS.read_text())
        if each["spec"]["names"]["kind"] == "HTTPRoute"
    ]
    wrong = Draft202012Validator(theirs).iter_errors(spec)
    assert [(each.json_path, each.message[-40:]) for each in wrong] == []


@pytest.mark.parametrize("name", ["", "x y", "x:y", "tür", "a" * 257, "a\n"])
def test_what_is_no_name_of_a_header_is_told_by_its_field(detector_with, name):
    """No router takes a route with it."""
    match = [{"headers": {name: {"exact": "1"}}}]
    with pytest.raises(
        InvalidSpec, match=r"(?s)spec\.canary\.match\.0\.headers.*name of a request"
    ):
        detector_with(canary={"model": V2, "match": match})


@pytest.mark.parametrize(
    "name", [":path", "@request.auth.claims.groups", "@request.auth.claims[groups]", "X-Camera_1"]
)
def test_what_istio_knows_beside_headers_may_be_matched(detector_with, name):
    detector = detector_with(canary={"model": V2, "match": [{"headers": {name: {"exact": "1"}}}]})
    assert name in detector.spec.canary.match[0].headers


def test_hosts_for_which_a_route_has_no_room_are_told_and_weights_move_on(at_the_edge):
    world = at_the_edge
    world.edit(traffic=GIVEN | {"hosts": cameras(17)[1:]})
    world.settle()
    assert world.status().condition("TrafficRouted").status == "True"
    world.edit(traffic=GIVEN | {"hosts": cameras(17)}, canary={"model": V2, "weight": 10})
    world.settle()
    told = world.status().condition("TrafficRouted")
    assert (told.status, told.reason) == ("False", "HostRefused")
    assert "spec.traffic.hosts: camera-0.example.com" in told.message
    assert "camera-1.example.com has" not in told.message
    assert route(world)["spec"]["hostnames"] == cameras(17)[1:]
    assert sorted(world.weights().values()) == [10, 90]
    del world.children["HTTPRoute", "gate"]
    world.settle()
    assert route(world)["spec"]["hostnames"] == cameras(16)


def test_headers_become_matches(at_the_edge):
    world = at_the_edge
    headers = {
        "a": {"exact": "1"},
        "b": {"prefix": "x.y"},
        "c": {"regex": "z+"},
        "d": {"exact": ""},
    }
    world.edit(canary={"model": V2, "match": [{"headers": headers}]})
    world.settle()
    matched, _ = route(world)["spec"]["rules"]
    assert matched["matches"] == [
        {
            "headers": [
                {"name": "a", "type": "Exact", "value": "1"},
                {"name": "b", "type": "RegularExpression", "value": r"x\.y.*"},
                {"name": "c", "type": "RegularExpression", "value": "z+"},
                {"name": "d", "type": "RegularExpression", "value": "^$"},
            ]
        }
    ]
    assert matched["backendRefs"][0]["name"] == world.status().canary.revision


def test_what_the_gateway_says_against_the_route_is_told(at_the_edge):
    world = at_the_edge
    against = {"type": "Accepted", "status": "False", "reason": "NotAllowedByListeners"}
    parent = {"parentRef": {"name": "public"}, "conditions": [against]}
    route(world)["status"] = {"parents": [parent]}
    told = report(world.detector(), world.observed(), world.decide(), now=world.now).condition(
        "TrafficRouted"
    )
    assert (told.status, told.reason) == ("False", "RouteRefused")
    assert "public: NotAllowedByListeners" in told.message


def test_asked_for_and_absent_it_says_what_to_install(world):
    world.edit(traffic={"provider": "gateway"})
    world.settle()
    told = world.status().condition("TrafficRouted")
    assert told.reason == "MeshAbsent"
    assert "gateway.networking.k8s.io/v1" in told.message


def test_a_release_in_steps_walks_on_it(at_the_edge):
    world = at_the_edge
    old = world.status().stable.revision
    steps = [{"weight": 50, "hold": "10s"}]
    world.edit(model=V2, rollout={"strategy": "Canary", "steps": steps})
    world.settle()
    assert world.weights() == {world.status().stable.revision: 100}
    assert world.status().stable.revision != old


@pytest.mark.parametrize(
    ("hosts", "url"),
    [
        (["*.example.com", "GATE.example.com"], "http://gate.example.com"),
        (["*.example.com", "*"], "http://gate.shop.svc"),
        ([], "http://gate.shop.svc"),
    ],
)
def test_the_url_is_one_that_can_be_asked(at_the_edge, hosts, url):
    at_the_edge.edit(traffic={"provider": "gateway", "gateways": ["edge/public"], "hosts": hosts})
    at_the_edge.reconcile()
    assert at_the_edge.status().url == url


def test_auto_stays_on_the_gateway_when_istios_api_appears(at_the_edge):
    world = at_the_edge
    before = copy.deepcopy(route(world)["spec"])
    world.edit(traffic={"gateways": ["edge/public"], "hosts": ["gate.example.com"]})
    world.reconcile()
    for lost in ({}, {"conditions": "lost"}):
        world.mesh = True  # as with Istio as the implementation of the Gateway API
        world.raw["status"] |= lost
        world.reconcile()
        assert route(world)["spec"] == before
        assert not [kind for kind, _ in world.children if kind == "VirtualService"]
        assert world.status().provider == GATEWAY


def test_a_router_whose_api_is_gone_is_told_and_none_is_taken_in_its_place(world):
    world.edit(traffic={"gateways": ["istio-system/public"], "hosts": ["gate.example.com"]})
    world.settle()
    world.mesh, world.gateway = False, True
    world.reconcile()
    told = world.status().condition("TrafficRouted")
    assert (told.status, told.reason) == ("False", "MeshAbsent")
    assert "on istio, whose API is not in the cluster any more" in told.message
    assert not [kind for kind, _ in world.children if kind == "HTTPRoute"]
    world.mesh = True
    world.settle()
    assert world.status().condition("TrafficRouted").status == "True"


def test_the_user_moves_it_by_name(at_the_edge):
    world = at_the_edge
    world.mesh = True
    world.edit(traffic={"provider": "istio", "hosts": ["gate.example.com"]})
    world.settle()
    assert world.status().provider == ISTIO
    assert [kind for kind, _ in world.children if kind == "VirtualService"]


# from a plain Service to a router that appears


def on_a_service(world, **traffic):
    """Return the revision that the Service of a detector sends to where there is no router."""
    world.mesh, world.gateway = False, False
    world.edit(traffic=traffic)
    world.settle()
    assert world.status().provider == SERVICE
    return world.status().stable.revision


def routed(world):
    return world.status().condition("TrafficRouted")


def on_its_service(world, stable, reason):
    told = routed(world)
    assert (told.status, told.reason) == ("False", reason)
    assert f"Until then the Service gate sends everything to {stable}" in told.message
    status = world.status()
    assert status.provider == SERVICE
    assert status.url == "http://gate.shop.svc"
    assert world.selected() == stable


def test_a_detector_moves_to_a_gateway_once_that_has_accepted_its_route(world):
    stable = on_a_service(world, **GIVEN)
    world.edit(canary={"model": V2, "weight": 10})
    world.settle()
    world.gateway, world.accepts = True, False
    world.settle()
    on_its_service(world, stable, "RoutePending")
    assert world.weights() == {"gate": 100}, "whoever follows it early finds what the Service has"
    assert world.status().canary.weight == 0
    before = copy.deepcopy(route(world)["spec"])
    world.raw["status"] = {}
    world.reconcile()
    assert route(world)["spec"] == before, "a lost status is no acceptance"
    world.settle()
    world.accepts = True
    world.settle()
    assert world.status().provider == GATEWAY
    assert world.weights() == {stable: 90, world.status().canary.revision: 10}
    assert routed(world).status == "True"
    assert world.status().url == "http://gate.example.com"


def test_what_a_gateway_says_against_the_route_is_told_before_the_move_too(world):
    stable = on_a_service(world, **GIVEN)
    world.gateway, world.accepts = True, False
    world.settle()
    against = {"type": "Accepted", "status": "False", "reason": "NotAllowedByListeners"}
    parents = [
        {"parentRef": p, "conditions": [against]} for p in route(world)["spec"]["parentRefs"]
    ]
    route(world)["status"] = {"parents": parents}
    world.reconcile()
    on_its_service(world, stable, "RouteRefused")
    assert "public: NotAllowedByListeners" in routed(world).message


@pytest.mark.parametrize("router", ["mesh", "gateway"])
def test_a_detector_does_not_move_to_gateways_that_do_not_exist(world, router):
    stable = on_a_service(world, **GIVEN)
    world.absent = frozenset({"edge/public"})
    setattr(world, router, True)
    world.settle()
    on_its_service(world, stable, "GatewayAbsent")
    assert not {kind for kind, _ in world.children} & {"VirtualService", "HTTPRoute"}
    world.absent = frozenset()
    world.settle()
    assert world.status().provider == (ISTIO if router == "mesh" else GATEWAY)
    assert world.weights() == {stable: 100}


def test_a_route_that_waits_stays_when_one_of_its_gateways_goes(world):
    stable = on_a_service(world, hosts=GIVEN["hosts"], gateways=["edge/public", "edge/inner"])
    world.gateway, world.accepts = True, False
    world.settle()
    world.absent = frozenset({"edge/inner"})
    world.settle()
    on_its_service(world, stable, "GatewayAbsent")
    assert world.weights() == {"gate": 100}


def test_a_detector_moves_into_the_mesh_once_somebody_delegates_to_it(world):
    stable = on_a_service(world)
    world.edit(canary={"model": V2, "weight": 10})
    world.settle()
    world.mesh, world.delegated = True, False
    world.settle()
    on_its_service(world, stable, "NotReferenced")
    assert world.weights() == {"gate": 100}
    assert not [kind for kind, _ in world.children if kind == "DestinationRule"]
    world.delegated = True
    world.settle()
    assert world.status().provider == ISTIO
    assert world.weights() == {stable: 90, world.status().canary.revision: 10}
    world.delegated = False
    world.settle()
    assert world.status().provider == ISTIO, "it moves back for nobody"


def test_a_plain_detector_has_nothing_to_complain_of_when_istios_api_appears(world):
    on_a_service(world)
    world.mesh, world.delegated = True, False
    world.settle()
    assert routed(world).status == "True"


def test_of_two_apis_it_moves_to_the_one_that_has_its_gateways(world):
    on_a_service(world, **GIVEN)
    world.mesh = world.gateway = True  # Istio as the implementation of the Gateway API
    world.absent_for = {ISTIO: frozenset({"edge/public"})}
    world.settle()
    assert world.status().provider == GATEWAY


def test_a_release_goes_on_by_the_service_while_the_route_waits(world):
    old = on_a_service(world, **GIVEN)
    world.gateway, world.accepts = True, False
    world.edit(model=V2)
    world.settle()
    new = world.selected()
    assert new != old
    assert world.weights() == {"gate": 100}
    assert not world.replicas()[old]


def test_a_move_whose_status_was_not_written_is_not_undone(world):
    on_a_service(world, **GIVEN)
    world.gateway = True
    world.reconcile()
    world.run_pods()
    before = copy.deepcopy(world.raw["status"])
    world.reconcile()
    moved = copy.deepcopy(route(world)["spec"])
    assert world.status().provider == GATEWAY
    world.raw["status"] = before
    world.reconcile()
    assert route(world)["spec"] == moved
    assert world.status().provider == GATEWAY


def test_named_by_the_user_it_moves_at_once(world):
    stable = on_a_service(world, **GIVEN)
    world.gateway, world.accepts = True, False
    world.edit(traffic=GIVEN | {"provider": "gateway"})
    world.reconcile()
    assert world.status().provider == GATEWAY
    assert world.weights() == {stable: 100}


# from one router to another


def on_istio(world):
    """Return the stable revision of a detector that Istio's ingress serves."""
    world.mesh = True
    world.edit(traffic={"hosts": GIVEN["hosts"], "gateways": ["istio-system/public"]})
    world.settle()
    assert world.status().provider == ISTIO
    return world.status().stable.revision


def virtual_service(world):
    return world.children.get(("VirtualService", "gate"), {}).get("spec", {})


NOT_YET = {
    "its API is absent": ({"gateway": False}, "MeshAbsent"),
    "nobody accepts the route": ({"gateway": True, "accepts": False}, "RoutePending"),
    "its gateway is absent": (
        {"gateway": True, "absent_for": {GATEWAY: frozenset({"edge/public"})}},
        "GatewayAbsent",
    ),
    "another has the host": (
        {"gateway": True, "taken": {("edge/public", "gate.example.com"): "shop/other"}},
        "HostTaken",
    ),
}


@pytest.mark.parametrize(("lacks", "reason"), NOT_YET.values(), ids=NOT_YET)
def test_a_router_that_is_named_takes_nothing_from_the_one_that_serves(world, lacks, reason):
    stable = on_istio(world)
    for name, value in lacks.items():
        setattr(world, name, value)
    before = copy.deepcopy(virtual_service(world))
    world.edit(traffic=GIVEN | {"provider": "gateway"})
    world.settle()
    assert virtual_service(world) == before
    told = routed(world)
    assert (told.status, told.reason) == ("False", reason)
    assert f"Until then requests go by istio as they did: 100 % {stable}" in told.message
    assert world.status().provider == ISTIO
    assert world.status().url == "http://gate.example.com"

    world.edit(canary={"model": V2, "weight": 10})  # and releases go on
    world.settle()
    canary = world.status().canary.revision
    assert ROUTERS[ISTIO].leads(virtual_service(world)) == {stable: 90, canary: 10}

    world.gateway = world.accepts = True
    world.absent_for, world.taken = {}, {}
    world.settle()
    assert routed(world).status == "True"
    assert world.status().provider == GATEWAY
    assert world.weights() == {stable: 90, canary: 10}
    assert not virtual_service(world)
    assert not [kind for kind, _ in world.children if kind == "DestinationRule"]


def not_accepted(world):
    """The gateway answers to no route, whatever it said before."""
    world.accepts = False
    route(world).pop("status", None)


def waiting(world):
    """Return the stable revision of one on Istio that the gateway which is named does not take."""
    stable = on_istio(world)
    world.gateway, world.accepts = True, False
    world.edit(traffic=GIVEN | {"provider": "gateway"})
    world.settle()
    return stable


def test_a_suspended_detector_does_not_move(world):
    """Its status alone would: and that is what tells which router it is on."""
    stable = waiting(world)
    world.edit(suspend=True)
    world.accepts = True
    world.settle()
    assert world.status().provider == ISTIO
    assert "spec.suspend holds it where it is" in routed(world).message
    assert world.status().condition("Stalled").status == "False", "it is as was asked"
    assert world.status().stable.weight == 100
    not_accepted(world)
    world.edit(suspend=False)
    world.settle()
    assert ROUTERS[ISTIO].leads(virtual_service(world)) == {stable: 100}


def test_a_move_that_was_told_and_not_written_is_none(world):
    """The API server refused the route's weights, and then the gateway the route."""
    stable = waiting(world)
    world.raw["status"]["provider"] = "gateway"
    world.settle()
    assert ROUTERS[ISTIO].leads(virtual_service(world)) == {stable: 100}
    assert world.status().provider == ISTIO


def test_a_router_whose_api_is_away_for_a_while_is_the_one_that_it_is_on(world):
    stable = waiting(world)
    hidden = copy.deepcopy(world.children.pop(("VirtualService", "gate")))
    world.mesh = False
    world.settle()
    assert f"Until then the Service gate sends everything to {stable}" in routed(world).message
    assert "or at once" not in routed(world).message
    assert world.weights() == {"gate": 100}
    world.mesh, world.children["VirtualService", "gate"] = True, hidden
    world.settle()
    assert ROUTERS[ISTIO].leads(virtual_service(world)) == {stable: 100}
    assert world.status().provider == ISTIO
    world.children.pop(("VirtualService", "gate"))
    world.mesh, world.accepts = False, True
    world.settle()
    assert world.status().provider == GATEWAY
    assert world.weights() == {stable: 100}


def test_a_host_that_is_withdrawn_goes_from_a_route_that_stays(world):
    on_istio(world)
    hosts = ["gate.example.com", "old.example.com"]
    world.edit(traffic={"hosts": hosts, "gateways": ["istio-system/public"]})
    world.settle()
    world.edit(traffic=GIVEN | {"provider": "gateway"})
    world.settle()
    assert virtual_service(world)["hosts"] == ["gate.example.com"]


def test_what_waits_leads_to_the_service_and_goes_when_the_user_comes_back(world):
    stable = on_istio(world)
    world.gateway, world.accepts = True, False
    world.edit(traffic=GIVEN | {"provider": "gateway"})
    world.settle()
    [rule] = route(world)["spec"]["rules"]
    assert [to["name"] for to in rule["backendRefs"]] == ["gate"]
    assert world.selected() == stable
    world.edit(traffic={"hosts": GIVEN["hosts"], "gateways": ["istio-system/public"]})
    world.settle()
    assert not [kind for kind, _ in world.children if kind == "HTTPRoute"]
    assert routed(world).status == "True"


def test_istio_takes_over_once_its_gateway_is_there(at_the_edge):
    world = at_the_edge
    stable = world.status().stable.revision
    world.mesh, world.absent_for = True, {ISTIO: frozenset({"istio-system/pubilc"})}
    before = copy.deepcopy(route(world)["spec"])
    there = {"provider": "istio", "hosts": GIVEN["hosts"], "gateways": ["istio-system/pubilc"]}
    world.edit(traffic=there)
    world.settle()
    assert route(world)["spec"] == before
    assert (world.status().provider, routed(world).reason) == (GATEWAY, "GatewayAbsent")
    world.absent_for = {}
    world.settle()
    assert world.status().provider == ISTIO
    assert world.weights() == {stable: 100}


def test_where_nobody_goes_by_the_old_router_the_new_one_is_taken_at_once(world):
    on_istio(world)
    world.absent_for = {ISTIO: frozenset({"istio-system/public"})}
    world.gateway, world.accepts = True, False
    world.edit(traffic=GIVEN | {"provider": "gateway"})
    world.settle()
    assert world.status().provider == GATEWAY
    assert not virtual_service(world)


@pytest.mark.parametrize("router", [ISTIO, GATEWAY])
def test_a_route_is_not_taken_to_gateways_that_do_not_exist(world, router):
    """A slip of the pen; what else changes waits with it."""
    world.mesh, world.gateway = router is ISTIO, router is GATEWAY
    world.edit(traffic=GIVEN)
    world.settle()
    stable = world.status().stable.revision
    kind = "VirtualService" if router is ISTIO else "HTTPRoute"
    before = copy.deepcopy(world.children[kind, "gate"]["spec"])
    world.absent = frozenset({"edge/pubilc"})
    world.edit(traffic={"gateways": ["edge/pubilc"], "hosts": ["other.example.com"]})
    world.settle()
    assert world.children[kind, "gate"]["spec"] == before
    told = routed(world)
    assert (told.status, told.reason) == ("False", "GatewayAbsent")
    assert (
        "edge/pubilc does not exist; make it, or name another;"
        f" until then the route stays on edge/public. the route has 100 % {stable}" in told.message
    )
    world.edit(canary={"model": V2, "weight": 10})
    world.settle()
    assert world.weights()[stable] == 90, "its weights go on"
    world.absent = frozenset()
    world.settle()
    assert world.children[kind, "gate"]["spec"] != before
    assert routed(world).status == "True"


def test_a_gateway_that_went_away_holds_up_no_host(world):
    on_istio(world)
    world.absent = frozenset({"istio-system/public"})
    world.edit(traffic={"hosts": ["b.example.com"], "gateways": ["istio-system/public"]})
    world.settle()
    assert virtual_service(world)["hosts"] == ["b.example.com"]


def test_a_route_that_nobody_can_remove_keeps_those_that_it_leads_to(world):
    old = on_istio(world)
    left = copy.deepcopy(world.children["VirtualService", "gate"])
    world.edit(traffic={"provider": "service"}, model=V2)
    for _ in range(20):
        world.reconcile()
        world.children["VirtualService", "gate"] = left
        world.run_pods()
        world.now += timedelta(minutes=1)
    new = world.selected()
    assert new != old
    assert world.ready(old) == 2, "requests still come by that route"
    assert ("Service", old) in world.children
    del world.children["VirtualService", "gate"]
    world.settle()
    world.now += timedelta(minutes=10)
    world.settle()
    assert not world.replicas()[old]


def test_a_new_detector_takes_the_router_that_has_its_gateways(world):
    world.mesh = world.gateway = True
    traffic = {"hosts": ["gate.example.com"], "gateways": ["edge/public"]}
    world.edit(traffic=traffic)
    world.absent_for = {Provider.ISTIO: frozenset({"edge/public"})}
    world.settle()
    assert world.status().provider == Provider.GATEWAY
    assert ("VirtualService", "gate") not in world.children
    assert ("HTTPRoute", "gate") in world.children


def test_a_new_detector_whose_gateways_nobody_has_waits_on_its_service_and_says_so(world):
    world.mesh = world.gateway = True
    world.absent = frozenset({"edge/public"})
    world.edit(traffic={"hosts": ["gate.example.com"], "gateways": ["edge/public"]})
    world.settle()
    on_its_service(world, world.status().stable.revision, "GatewayAbsent")
    assert not {kind for kind, _ in world.children} & {"VirtualService", "HTTPRoute"}
    world.absent_for = {ISTIO: frozenset({"edge/public"})}
    world.absent = frozenset()
    world.settle()
    assert world.status().provider == GATEWAY
    assert routed(world).status == "True"


def test_what_a_new_detector_claims_follows_the_gateways_that_there_are():
    """It has no hosts: by the Gateway API it asks for all of its gateway's, by Istio for none."""
    cache, everything = Cache(), ("edge/public", "*")
    for kind in (kinds.VIRTUAL_SERVICE, kinds.HTTP_ROUTE, kinds.ISTIO_GATEWAY, kinds.GATEWAY):
        cache.set_served(kind, True)
    metadata = {"name": "gate", "namespace": "shop", "uid": "1", "resourceVersion": "1"}
    spec = {"model": {"uri": "demo://shapes"}, "traffic": {"gateways": ["edge/public"]}}
    cache.put(kinds.DETECTOR, {"metadata": metadata | {"generation": 1}, "spec": spec})
    assert cache.routes.holder(everything) == ""
    there = {"name": "public", "namespace": "edge", "uid": "2", "resourceVersion": "2"}
    cache.put(kinds.GATEWAY, {"metadata": there})
    assert cache.routes.holder(everything) == "shop/gate"
    assert cache.routes.stirred() == {"shop/gate"}
    cache.remove(kinds.GATEWAY, "2", 3)
    assert cache.routes.holder(everything) == ""
    assert cache.routes.stirred() == {"shop/gate"}
