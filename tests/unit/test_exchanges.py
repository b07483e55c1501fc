"""Detectors that ask for hosts of each other: what one gives up, another one gets, and writes."""

from collections.abc import Collection, Mapping, Sequence
from itertools import product
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolofleet.api.detector import Detector, Provider
from yolofleet.cluster import kinds
from yolofleet.cluster.cache import Cache
from yolofleet.plan.defaults import Defaults
from yolofleet.routers.claims import Claim
from yolofleet.routers.exposure import Allowed, expose

DEFAULTS: Final = Defaults("a", "b", "c")
ONE, TWO, MESH = "infra/one", "infra/two", "mesh"
Places = tuple[Collection[str], Collection[str]]
"""Hosts, each of them on each of the gateways."""


def claims_of(places: Places) -> set[Claim]:
    hosts, gateways = places
    return set(product(gateways, hosts))


class Yard:
    """Detectors that look when woken, and write what they may. two: what that gateway lists."""

    def __init__(
        self, has: Mapping[str, Places], allowed: Allowed | None = None, two: Sequence[str] = ()
    ) -> None:
        self.allowed = allowed or Allowed()
        self.cache, self.version = Cache(self.allowed), 1
        self.asks, self.has = dict[str, dict[str, Any]](), dict[str, Places]()
        self.cache.set_served(kinds.VIRTUAL_SERVICE, True)
        if two:
            metadata = {"name": "two", "namespace": "infra", "uid": "two", "resourceVersion": "1"}
            gateway = {"metadata": metadata, "spec": {"servers": [{"hosts": two}]}}
            self.cache.put(kinds.ISTIO_GATEWAY, gateway)
        for number, (name, places) in enumerate(has.items()):
            self.write(name, places, f"{2020 + number}")

    def metadata(self, name: str, uid: str, year: str) -> dict[str, Any]:
        self.version += 1
        named = {"name": name, "namespace": "shop", "uid": uid, "generation": 1}
        made = {"creationTimestamp": f"{year}-01-01T00:00:00Z"}
        return named | made | {"resourceVersion": f"{self.version}"}

    def write(self, name: str, places: Places, year: str = "2031") -> None:
        if known := self.cache.named(kinds.VIRTUAL_SERVICE, "shop", name):
            year = known.manifest()["metadata"]["creationTimestamp"][:4]
        owner = {"apiVersion": "yolofleet.io/v1alpha1", "kind": "YoloDetector", "name": name}
        ours = {"app.kubernetes.io/managed-by": "yolofleet", "yolofleet.io/detector": name}
        metadata = self.metadata(name, f"route {name}", year) | {"labels": ours}
        metadata["ownerReferences"] = [owner | {"uid": name, "controller": True}]
        hosts, gateways = map(list, places)
        spec = {"hosts": hosts, "gateways": gateways, "http": [{"name": "weighted", "route": []}]}
        route = {"kind": "VirtualService", "metadata": metadata, "spec": spec}
        self.cache.put(kinds.VIRTUAL_SERVICE, route)
        self.has[name] = hosts, gateways

    def ask(self, name: str, places: Places, year: str = "2030") -> None:
        """Edit a spec that was read, and can be followed."""
        hosts, gateways = map(list, places)
        traffic = {"provider": "istio", "hosts": hosts, "gateways": gateways}
        status = {"observedGeneration": 1, "conditions": [{"type": "Ready", "reason": "Ready"}]}
        spec = {"model": {"uri": "demo://shapes"}, "traffic": traffic}
        self.asks[name] = {"metadata": self.metadata(name, name, year), "spec": spec}
        self.cache.put(kinds.DETECTOR, self.asks[name] | {"status": status})

    def look(self, name: str) -> bool:
        """Have a detector write what it may have; return whether that is another route."""
        live = self.has.get(name)
        seen = self.cache.elsewhere(f"shop/{name}", self.asks[name], DEFAULTS)
        detector, shut = Detector.parse(self.asks[name]), seen.shut[Provider.ISTIO]
        taken = {**seen.others[Provider.ISTIO], **seen.taken}
        found = expose(detector, live, taken, self.allowed, bare=False, shut=shut)
        assert found.routes or live is None, "a live route is never taken away"
        written = found.hosts, found.gateways
        if not found.routes or (live and claims_of(written) == claims_of(live)):
            return False
        self.write(name, written)
        return True

    def run(self, woken: Collection[str] = ()) -> None:
        """Have those look whom something woke, until nobody writes any more."""
        woken = list(woken or self.asks)
        for _ in range(50):
            wrote = [name for name in woken if self.look(name)]
            stirred = {key.removeprefix("shop/") for key in self.cache.routes.stirred()}
            woken = sorted(stirred | {*wrote})
            if not woken:
                return
        raise AssertionError("it never ends")


def twice(yard: Yard) -> list[Claim]:
    every = [claim for places in yard.has.values() for claim in claims_of(places)]
    return sorted({claim for claim in every if every.count(claim) > 1})


@pytest.mark.parametrize("second", ["2019", "2021"], ids=["the older", "the younger"])
def test_a_host_is_left_to_nobody_who_gets_none_for_his(second: str) -> None:
    """Of its hosts each was free on one gateway, none on both: half of the exchange was written."""
    yard = Yard({"d1": (["h0.test"], [ONE])})
    yard.write("d2", (["h2.test"], [ONE]), second)
    yard.write("d3", (["h3.test"], [ONE]), "2022")
    yard.write("d4", (["h2.test"], [TWO]), "2023")
    yard.ask("d2", (["h0.test"], [ONE]))
    yard.ask("d1", (["h2.test", "h3.test"], [ONE, TWO]))
    yard.ask("d3", (["h3.test"], [ONE]))
    yard.ask("d4", (["h2.test"], [TWO]))
    yard.run()
    assert not twice(yard)


def test_nor_on_a_gateway_that_the_operator_leaves_out_beside_others() -> None:
    yard = Yard(
        {
            "d1": (["h0.test"], [ONE]),
            "d2": (["h2.web.test"], [MESH]),
            "d3": (["h2.web.test"], [ONE]),
        }
    )
    yard.ask("d2", (["h0.test"], [ONE]))
    yard.ask("d1", (["h2.web.test"], [MESH, ONE]))
    yard.ask("d3", (["h2.web.test"], [ONE]))
    before = dict(yard.has)
    yard.run()
    assert yard.has == before


def test_nor_for_one_that_somebodys_own_route_leaves_nothing_of() -> None:
    """The one moved to the host of the other, which got no route for his and kept its own."""
    yard = Yard({"d1": (["a.test"], [ONE]), "d2": (["b.test"], [ONE])})
    yard.version += 1
    metadata = {"name": "legacy", "namespace": "yard", "uid": "legacy"}
    metadata |= {"resourceVersion": f"{yard.version}", "creationTimestamp": "2025-01-01T00:00:00Z"}
    spec = {"hosts": ["b.test"], "gateways": [ONE], "http": [{"route": []}]}
    legacy = {"kind": "VirtualService", "metadata": metadata, "spec": spec}
    yard.cache.put(kinds.VIRTUAL_SERVICE, legacy)
    yard.ask("d1", (["b.test"], [ONE]))
    yard.ask("d2", (["a.test"], [ONE]))
    before = dict(yard.has)
    yard.run()
    assert yard.has == before
    yard.cache.remove(kinds.VIRTUAL_SERVICE, "legacy", 99)
    stirred = yard.cache.routes.stirred()
    assert stirred == {"shop/d1", "shop/d2"}, "the exchange is free now"
    yard.run()
    assert yard.has == {"d1": (["b.test"], [ONE]), "d2": (["a.test"], [ONE])}


def test_a_gateway_on_which_all_of_it_stays_with_others_holds_up_no_exchange() -> None:
    yard = Yard(
        {"d1": (["a.test"], [ONE]), "d2": (["b.test"], [ONE]), "d3": (["a.test", "b.test"], [TWO])}
    )
    yard.ask("d1", (["b.test"], [ONE, TWO]))
    yard.ask("d2", (["a.test"], [ONE, TWO]))
    yard.ask("d3", (["a.test", "b.test"], [TWO]))
    yard.run()
    assert (yard.has["d1"], yard.has["d2"]) == ((["b.test"], [ONE]), (["a.test"], [ONE]))


# mesh beside gateways, which the operator leaves out by default


def test_who_asks_for_mesh_beside_a_gateway_stands_in_nobodys_way_inside_the_mesh() -> None:
    yard = Yard({})
    yard.ask("d1", (["a.web.test"], [ONE, MESH]), "2028")
    yard.ask("d2", (["a.web.test"], [MESH]), "2029")
    yard.run()
    assert yard.has == {"d1": (["a.web.test"], [ONE]), "d2": (["a.web.test"], [MESH])}


def test_nor_on_the_gateway_when_its_route_is_inside_the_mesh_alone() -> None:
    yard = Yard({"d1": (["a.web.test"], [MESH]), "d2": (["b.web.test"], [ONE])})
    yard.ask("d1", (["a.web.test"], [ONE, MESH]), "2028")
    yard.ask("d2", (["a.web.test"], [ONE]), "2029")
    yard.run()
    assert yard.has == {"d1": (["a.web.test"], [MESH]), "d2": (["a.web.test"], [ONE])}
    yard.cache.remove(kinds.VIRTUAL_SERVICE, "route d1", 999)
    assert yard.cache.routes.holder((MESH, "a.web.test")) == "", "a new one is for the gateway"


def test_a_route_that_has_both_keeps_both_and_stands_in_the_way_by_nothing_else() -> None:
    yard = Yard({"d1": (["a.web.test"], [ONE, MESH])})
    yard.ask("d1", (["a.web.test", "b.web.test"], [ONE, MESH]), "2028")
    yard.ask("d2", (["b.web.test"], [ONE]), "2029")
    yard.ask("d3", (["a.web.test"], [MESH]), "2029")
    yard.run()
    assert yard.has == {
        "d1": (["a.web.test"], [ONE, MESH]),
        "d2": (["b.web.test"], [ONE]),
    }


def test_a_name_that_is_none_inside_the_mesh_is_asked_for_on_the_gateway_alone() -> None:
    """It was given there without a look at who has it: to clients inside it names a Service."""
    yard = Yard({"d1": (["a.test"], [ONE])})
    yard.ask("d1", (["a.test"], [ONE]))
    yard.ask("d2", (["a.test"], [MESH, ONE]))
    yard.run()
    assert yard.has == {"d1": (["a.test"], [ONE])}


# all of it


NAMES: Final = ("d1", "d2", "d3", "d4", "d5")
HOSTS = st.lists(
    st.sampled_from(["a.test", "b.web.test", "c.web.test"]), min_size=1, max_size=2, unique=True
)
GATEWAYS = st.lists(st.sampled_from([ONE, TWO, MESH]), min_size=1, max_size=2, unique=True)
PLACES = st.tuples(HOSTS, GATEWAYS)


@given(
    st.lists(PLACES, min_size=2, max_size=5),
    st.lists(st.tuples(PLACES, st.sampled_from(["2028", "2029"])), min_size=5, max_size=5),
    st.permutations(NAMES),
    st.sampled_from([Allowed(), Allowed(gateways=(MESH, "infra/*"))]),
    st.sampled_from([[], ["yard/c.web.test", "*/b.web.test"]]),
)
def test_no_host_has_two_routes_whatever_detectors_ask_for(
    has: list[Places],
    asks: list[tuple[Places, str]],
    order: list[str],
    allowed: Allowed,
    two: list[str],
) -> None:
    routes, had = dict[str, Places](), set[Claim]()
    for name, places in zip(NAMES, has, strict=False):
        if not had & claims_of(places) and not (two and (TWO, "c.web.test") in claims_of(places)):
            routes[name] = places
            had |= claims_of(places)
    yard = Yard(routes, allowed, two)
    for name, (places, year) in zip(NAMES, asks, strict=True):
        yard.ask(name, places, year)
    yard.run([name for name in order if name in yard.asks])
    assert not twice(yard)
    assert not any(yard.look(name) for name in order), "somebody was not woken"
    for name in routes:
        assert any(
            yard.cache.routes.holder(claim) == f"shop/{name}" for claim in claims_of(yard.has[name])
        ), "it answers nowhere any more"


SOME: Final = [["a.web.test"], ["b.web.test"], ["a.web.test", "b.web.test"]]
DOORS: Final = [[ONE], [TWO], [MESH], [ONE, TWO], [ONE, MESH], [TWO, MESH], [ONE, TWO, MESH]]
PLACES: Final = list(product(SOME, DOORS))


@pytest.mark.parametrize("gateways", [(), ("infra/*",), ("infra/*", "mesh"), ("infra/one",)])
@pytest.mark.parametrize("live", [None, *PLACES], ids=str)
def test_what_a_detector_may_be_given_it_is_known_to_ask_for(
    live: Places | None, gateways: tuple[str, ...]
) -> None:
    """Else two that look at once would both write it, and nobody would wake who waits for it."""
    yard = Yard({}, Allowed(gateways=gateways))
    if live:
        yard.write("d", live)
    for asked in PLACES:
        yard.ask("d", asked)
        known = yard.cache.named(kinds.DETECTOR, "shop", "d")
        assert known
        claims = known.standing.claims if known.standing else ()
        found = expose(Detector.parse(yard.asks["d"]), live, {}, yard.allowed, bare=False)
        given = claims_of((found.hosts, found.gateways)) if found.routes else set()
        assert given - claims_of(live or ((), ())) <= set(claims), asked
