"""Routers: what is written is read back, wherever it stands, and nobody else knows how."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import yolofleet
from memory_cluster.server import a_copy
from yolofleet.api.detector import Detector, HeaderMatch
from yolofleet.api.names import REVISION_LABEL
from yolofleet.routers import gateway, istio, service
from yolofleet.routers.choice import ROUTERS, SPLITTING
from yolofleet.routers.router import Route

DETECTOR = Detector.parse(
    {
        "metadata": {"name": "gate", "namespace": "shop", "uid": "u-1", "generation": 1},
        "spec": {"model": {"uri": "demo://shapes"}},
    }
)
MATCH = (HeaderMatch.model_validate({"headers": {"a": {"exact": "1"}}}),)
NAMES = st.sampled_from(["gate-a", "gate-b", "gate-c"])
LEADS = st.dictionaries(NAMES, st.integers(0, 100), min_size=1)
HOSTS = st.lists(st.sampled_from(["a.example.com", "b.example.com"]), min_size=1, unique=True)
GATEWAYS = st.lists(st.sampled_from(["edge/public", "shop/own"]), min_size=1, unique=True)
BUCKETS = st.dictionaries(st.integers(0, 99), NAMES, max_size=20).map(
    lambda owners: {
        name: frozenset(bucket for bucket, who in owners.items() if who == name)
        for name in set(owners.values())
    }
)
ROUTES = st.builds(
    Route, HOSTS, GATEWAYS, LEADS, st.none() | NAMES, st.just(MATCH), st.just("x-camera"), BUCKETS
)
RULES = {istio.KIND: "http", gateway.KIND: "rules"}
SPLITTERS = [ROUTERS[each] for each in SPLITTING]


def as_stored(router, route, *, turned):
    """Return the spec of a route as the API server has it; turned: with its rules in disorder."""
    (made,) = router.routes(DETECTOR, route)
    spec = a_copy(made)["spec"]
    for rule in spec.get("rules", ()):  # a default of the CRD of the Gateway API
        rule.setdefault("matches", [{"path": {"type": "PathPrefix", "value": "/"}}])
    if turned:
        spec[RULES[router.KIND]].reverse()
    return spec


@pytest.mark.parametrize("router", SPLITTERS)
@given(route=ROUTES, turned=st.booleans())
def test_a_route_that_is_written_is_read_back_wherever_its_rules_stand(router, route, turned):
    spec = as_stored(router, route, turned=turned)
    assert router.leads(spec) == route.leads
    assert router.buckets(spec) == route.buckets
    assert router.matched(spec) == (route.matched or "")
    assert router.places(spec) == (route.hosts, route.gateways)


@pytest.mark.parametrize("router", SPLITTERS)
@pytest.mark.parametrize("spec", [{}, {"http": [], "rules": []}, {"http": None, "rules": None}])
def test_a_route_that_says_nothing_leads_nowhere(router, spec):
    assert router.leads(spec) == {}
    assert router.buckets(spec) == {}
    assert router.matched(spec) == ""


@pytest.mark.parametrize("router", SPLITTERS)
def test_a_rule_of_somebody_else_is_not_taken_for_the_weights(router):
    spec = as_stored(router, Route(["a.example.com"], [], {"gate-a": 100}), turned=False)
    foreign = {
        istio.KIND: {"name": "theirs", "route": [{"destination": {"host": "x"}}]},
        gateway.KIND: {"matches": [{"path": {"value": "/x"}}], "backendRefs": [{"name": "x"}]},
    }
    rules = spec[RULES[router.KIND]]
    for place in (0, len(rules)):
        rules.insert(place, foreign[router.KIND])
        assert router.leads(spec) == {"gate-a": 100}


def test_a_rule_that_somebody_renamed_still_tells_who_gets_the_requests():
    spec = as_stored(istio, Route([], [], {"gate-a": 100}, "gate-b", MATCH), turned=False)
    spec["http"][-1]["name"] = "theirs"
    assert istio.leads(spec) == {"gate-a": 100}


def a_service(labels, selector):
    return {"metadata": {"name": "gate", "labels": labels}, "spec": {"selector": selector}}


@pytest.mark.parametrize("answering", ["gate-a", "gate-b", None])
def test_the_service_stands_for_one_revision_whoever_answers(answering):
    made = service.stable_service(DETECTOR, "gate-a", answering=answering)
    of_another = service.revision_service(DETECTOR, "gate-b")
    read = service.selection(DETECTOR, [of_another, made])
    assert read == service.Selection("gate-a", answering, spans=answering is None)
    led = [name for name in ("gate-a", "gate-b") if read.leads_to(name)]
    assert led == ([answering] if answering else ["gate-a", "gate-b"])


ONE, ANOTHER = ({REVISION_LABEL: name} for name in ("gate-a", "gate-b"))


@pytest.mark.parametrize(
    ("labels", "selector", "stands_for"),
    [
        (ONE, ONE, "gate-a"),  # of a version before that
        (ONE, {}, "gate-a"),  # the same, while it spanned
        (ONE, ANOTHER, "gate-a"),
        ({}, ONE, "gate-a"),  # somebody took the label away
        ({}, {}, None),
        (ONE, None, "gate-a"),
    ],
)
def test_what_the_service_stands_for_is_read_off_its_label(labels, selector, stands_for):
    read = service.selection(DETECTOR, [a_service(labels, selector)])
    assert read.stands_for == stands_for
    assert read.spans == (not selector)


def test_where_there_is_no_service_nobody_is_led_anywhere():
    read = service.selection(DETECTOR, [])
    assert read == service.Selection()
    assert not read.leads_to("gate-a")


@pytest.mark.parametrize("router", ROUTERS.values())
def test_what_a_route_needs_of_a_revision_is_what_the_router_makes_beside_its_service(router):
    made = {each["kind"] for each in router.destination_rules(DETECTOR, "gate-a")}
    assert made | {"Service"} == set(router.POINTS)


def test_no_decision_and_no_builder_knows_a_router_by_its_name():
    root = Path(yolofleet.__file__).parent
    named = re.compile(r"Provider\.(ISTIO|GATEWAY)|VirtualService|HTTPRoute|DestinationRule")
    files = [each for room in ("plan", "resources") for each in (root / room).rglob("*.py")]
    assert files
    assert [each.name for each in files if named.search(each.read_text())] == []
