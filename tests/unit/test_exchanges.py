"""Detectors that ask for hosts of each other: what one gives up, another one gets, and writes."""

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations, product
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolofleet.api.detector import Detector, Provider
from yolofleet.cluster import kinds
from yolofleet.cluster.cache import Cache
from yolofleet.plan.defaults import Defaults
from yolofleet.routers.claims import Claim, claim
from yolofleet.routers.exposure import Allowed, expose

DEFAULTS: Final = Defaults("a", "b", "c")
ONE, TWO, MESH = "infra/one", "infra/two", "mesh"
Places = tuple[Collection[str], Collection[str]]
"""Hosts, each of them on each of the gateways."""


def claims_of(places: Places, namespace: str = "shop") -> set[Claim]:
    hosts, gateways = places
    return {claim(gateway, host, namespace) for gateway, host in product(gateways, hosts)}


def home(name: str) -> tuple[str, str]:
    """Return the namespace of a detector, which is named without where it is the usual one."""
    namespace, _, bare = name.rpartition("/")
    return namespace or "shop", bare


def key(name: str) -> str:
    return "/".join(home(name))


class Yard:
    """Detectors that look when woken, and write what they may. two: what that gateway lists."""

    def __init__(
        self, has: Mapping[str, Places], allowed: Allowed | None = None, two: Sequence[str] = ()
    ) -> None:
        self.allowed = allowed or Allowed()
        self.cache, self.version = Cache(self.allowed), 1
        self.asks, self.has = dict[str, dict[str, Any]](), dict[str, Places]()
        self.rest = set[str]()  # for whom nothing is written
        self.cache.set_served(kinds.VIRTUAL_SERVICE, True)
        if two:
            self.gateway(two)
        for number, (name, places) in enumerate(has.items()):
            self.write(name, places, f"{2020 + number}")

    def gateway(self, two: Sequence[str]) -> None:
        self.version += 1
        metadata = {"name": "two", "namespace": "infra", "uid": "two"}
        metadata["resourceVersion"] = f"{self.version}"
        gateway = {"metadata": metadata, "spec": {"servers": [{"hosts": two}]}}
        self.cache.put(kinds.ISTIO_GATEWAY, gateway)

    def others(self, host: str, gateway: str) -> None:
        """Have the namespace yard write a route of its own."""
        self.version += 1
        metadata = {"name": "legacy", "namespace": "yard", "uid": "legacy"}
        metadata |= {"resourceVersion": f"{self.version}"}
        metadata |= {"creationTimestamp": "2025-01-01T00:00:00Z"}
        spec = {"hosts": [host], "gateways": [gateway], "http": [{"route": []}]}
        legacy = {"kind": "VirtualService", "metadata": metadata, "spec": spec}
        self.cache.put(kinds.VIRTUAL_SERVICE, legacy)

    def restart(self, allowed: Allowed, two: Sequence[str]) -> None:
        """Have the operator read all anew, with other hosts allowed, and let in by the gateway."""
        before, self.allowed, self.cache = self.cache, allowed, Cache(allowed)
        for kind in (kinds.VIRTUAL_SERVICE, kinds.DETECTOR):
            self.cache.set_served(kind, True)
            for name in sorted(self.asks.keys() | self.has.keys()):
                if known := before.named(kind, *home(name)):
                    self.cache.put(kind, known.manifest())
        self.gateway(two)

    def answers(self, name: str) -> set[Claim]:
        """Return where the route of a detector gets requests: not where a gateway shuts it out."""
        route = self.cache.named(kinds.VIRTUAL_SERVICE, *home(name))
        claims = route.standing.claims if route and route.standing else ()
        return {(self.allowed.seen(gateway), host) for gateway, host in claims}

    def metadata(self, name: str, uid: str, year: str) -> dict[str, Any]:
        self.version += 1
        namespace, bare = home(name)
        named = {"name": bare, "namespace": namespace, "uid": uid, "generation": 1}
        made = {"creationTimestamp": f"{year}-01-01T00:00:00Z"}
        return named | made | {"resourceVersion": f"{self.version}"}

    def write(self, name: str, places: Places, year: str = "2031") -> None:
        if known := self.cache.named(kinds.VIRTUAL_SERVICE, *home(name)):
            year = known.manifest()["metadata"]["creationTimestamp"][:4]
        _, bare = home(name)
        owner = {"apiVersion": "yolofleet.io/v1alpha1", "kind": "YoloDetector", "name": bare}
        ours = {"app.kubernetes.io/managed-by": "yolofleet", "yolofleet.io/detector": bare}
        metadata = self.metadata(name, f"route {name}", year) | {"labels": ours}
        metadata["ownerReferences"] = [owner | {"uid": name, "controller": True}]
        hosts, gateways = map(list, places)
        spec = {"hosts": hosts, "gateways": gateways, "http": [{"name": "weighted", "route": []}]}
        route = {"kind": "VirtualService", "metadata": metadata, "spec": spec}
        self.cache.put(kinds.VIRTUAL_SERVICE, route)
        self.has[name] = hosts, gateways

    def ask(self, name: str, places: Places, year: str = "2030", why: str = "Ready") -> None:
        """Edit a spec that was read, and can be followed. why: why not, if it cannot."""
        hosts, gateways = map(list, places)
        traffic = {"provider": "istio", "hosts": hosts, "gateways": gateways}
        status = {"observedGeneration": 1, "conditions": [{"type": "Progressing", "reason": why}]}
        spec = {"model": {"uri": "demo://shapes"}, "traffic": traffic}
        self.rest.discard(name)
        self.rest |= {name} if why != "Ready" else set()
        self.asks[name] = {"metadata": self.metadata(name, name, year), "spec": spec}
        self.cache.put(kinds.DETECTOR, self.asks[name] | {"status": status})

    def look(self, name: str) -> bool:
        """Have a detector write what it may have; return whether that is another route."""
        if name in self.rest:
            return False
        live = self.has.get(name)
        seen = self.cache.elsewhere(key(name), self.asks[name], DEFAULTS)
        detector, shut = Detector.parse(self.asks[name]), seen.shut[Provider.ISTIO]
        taken = {**seen.others[Provider.ISTIO], **seen.taken}
        found = expose(detector, live, taken, self.allowed, bare=False, shut=shut)
        assert found.routes or live is None, "a live route is never taken away"
        written = found.hosts, found.gateways
        if not found.routes or (live and set(product(*written)) == set(product(*live))):
            return False
        self.write(name, written)
        return True

    def run(self, woken: Collection[str] = ()) -> None:
        """Have those look whom something woke, until nobody writes any more."""
        woken = list(woken or self.asks)
        for _ in range(50):
            wrote = [name for name in woken if self.look(name)]
            stirred = {each.removeprefix("shop/") for each in self.cache.routes.stirred()}
            woken = sorted(stirred | {*wrote})
            if not woken:
                return
        raise AssertionError("it never ends")

    def claims(self, name: str, places: Places) -> set[Claim]:
        """Return what a route with `places` has, of the mesh as it counts in this cluster."""
        found = claims_of(places, home(name)[0])
        return {(self.allowed.seen(gateway), host) for gateway, host in found}

    def routed(self, name: str) -> set[Claim]:
        return self.claims(name, self.has.get(name, ((), ())))

    def asked(self, name: str) -> set[Claim]:
        known = self.cache.named(kinds.DETECTOR, *home(name))
        claims = known.standing.claims if known and known.standing else ()
        return {(self.allowed.seen(gateway), host) for gateway, host in claims}

    def offered(self, name: str) -> set[Claim]:
        """Return what a detector would be given if nobody had anything but by a route."""
        others = set().union(*(self.answers(each) for each in self.has if each != name))
        seen = self.cache.elsewhere(key(name), self.asks[name], DEFAULTS)
        wish = product(*map(self.asks[name]["spec"]["traffic"].get, ("gateways", "hosts")))
        wanted = [claim(gateway, host, home(name)[0]) for gateway, host in wish]
        by_others = {
            (gateway, host): "some/other"
            for gateway, host in wanted
            if (self.allowed.seen(gateway), host) in others
        }
        detector, shut = Detector.parse(self.asks[name]), seen.shut[Provider.ISTIO]
        taken = {**seen.others[Provider.ISTIO], **by_others}
        live = self.has.get(name)
        found = expose(detector, live, taken, self.allowed, bare=False, shut=shut)
        return self.claims(name, (found.hosts, found.gateways)) if found.routes else set()


def twice(yard: Yard) -> list[Claim]:
    every = [claim for name in yard.has for claim in yard.answers(name)]
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
    yard.others("b.test", ONE)
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


def test_an_exchange_of_two_does_not_hang_on_what_a_third_one_wishes_for() -> None:
    """Of its hosts one was whole only once it was clear that the other one stays with its owner."""
    yard = Yard(
        {
            "d1": (["a0.test"], [ONE]),
            "d2": (["h1.test"], [ONE, TWO]),
            "d3": (["h2.test"], [ONE]),
            "d4": (["h2.test"], [TWO]),
            "d5": (["x.test"], [ONE]),
        }
    )
    yard.ask("d4", (["h2.test"], [TWO]))
    yard.ask("d5", (["x.test"], [ONE]))
    yard.ask("d2", (["x.test"], [ONE]))
    yard.ask("d1", (["h1.test", "h2.test"], [ONE, TWO]))
    yard.ask("d3", (["a0.test"], [ONE]))
    yard.run()
    assert (yard.has["d1"], yard.has["d3"]) == ((["h2.test"], [ONE]), (["a0.test"], [ONE]))
    assert yard.has["d2"] == (["h1.test"], [ONE, TWO])


# what nobody routes


def test_who_is_never_given_a_host_leaves_it_to_who_asks_for_just_that() -> None:
    """It has the other host on both gateways, so this one stays out: nobody had it, or got it."""
    yard = Yard({"d1": (["h1.test"], [TWO])})
    yard.ask("d1", (["h1.test"], [TWO]))
    yard.ask("d2", (["h1.test", "h2.test"], [ONE, TWO]), "2028")
    yard.run()
    assert yard.has["d2"] == (["h2.test"], [ONE, TWO])
    yard.ask("d3", (["h1.test"], [ONE]), "2029")
    yard.run(["d3"])
    assert yard.has["d3"] == (["h1.test"], [ONE])


def test_until_it_is_given_it_the_older_one_comes_first() -> None:
    yard = Yard({})
    yard.ask("d1", (["h1.test"], [ONE]), "2029")
    yard.ask("d2", (["h1.test", "h2.test"], [ONE, TWO]), "2028")
    yard.run(["d1", "d2"])
    assert yard.has == {"d2": (["h1.test", "h2.test"], [ONE, TWO])}


def test_whoever_may_have_what_another_no_longer_can_is_woken() -> None:
    yard = Yard({})
    yard.ask("d1", (["h1.test"], [TWO]), "2027")
    yard.ask("d2", (["h1.test", "h2.test"], [ONE, TWO]), "2028")
    yard.ask("d3", (["h1.test"], [ONE]), "2029")
    yard.write("d2", (["h2.test"], [ONE, TWO]))
    assert yard.cache.routes.holder((ONE, "h1.test")) == "shop/d2", "it may have it on both"
    yard.cache.routes.stirred()
    yard.write("d1", (["h1.test"], [TWO]))
    assert yard.cache.routes.holder((ONE, "h1.test")) == "shop/d3"
    assert "shop/d3" in yard.cache.routes.stirred()
    yard.cache.remove(kinds.VIRTUAL_SERVICE, "route d1", 99)
    yard.cache.remove(kinds.DETECTOR, "d1", 99)
    assert yard.cache.routes.holder((ONE, "h1.test")) == "shop/d2"
    assert "shop/d2" in yard.cache.routes.stirred()


def test_nor_does_it_bar_others_while_somebodys_own_route_has_the_host_on_its_other_gateway() -> (
    None
):
    yard = Yard({}, two=["shop/h1.test", "shop/h2.test"])
    yard.others("h1.test", TWO)
    yard.ask("d2", (["h1.test", "h2.test"], [ONE, TWO]), "2028")
    yard.ask("d3", (["h1.test"], [ONE]), "2029")
    yard.write("d2", (["h2.test"], [ONE, TWO]))
    assert yard.cache.routes.holder((ONE, "h1.test")) == "shop/d2", "the gateway passes it over"
    for two, first in (["*/h1.test"], "shop/d3"), (["shop/h1.test"], "shop/d2"):
        yard.cache.routes.stirred()
        yard.gateway([*two, "shop/h2.test"])
        assert yard.cache.routes.holder((ONE, "h1.test")) == first
        assert first in yard.cache.routes.stirred()
    yard.gateway(["*/h1.test", "shop/h2.test"])
    yard.cache.routes.stirred()
    yard.cache.remove(kinds.VIRTUAL_SERVICE, "legacy", 99)
    assert yard.cache.routes.holder((ONE, "h1.test")) == "shop/d2"
    assert "shop/d2" in yard.cache.routes.stirred()


def test_of_hosts_each_of_which_is_free_on_another_gateway_one_is_given() -> None:
    """It was given nothing, and barred both."""
    yard = Yard({"d1": (["h1.test"], [TWO]), "d2": (["h2.test"], [ONE])})
    yard.ask("d1", (["h1.test"], [TWO]))
    yard.ask("d2", (["h2.test"], [ONE]))
    yard.ask("d3", (["h1.test", "h2.test"], [ONE, TWO]))
    yard.run()
    assert yard.has["d3"] == (["h1.test"], [ONE])
    yard.ask("d4", (["h2.test"], [TWO]), "2031")
    yard.run(["d4"])
    assert yard.has["d4"] == (["h2.test"], [TWO])


def test_who_is_suspended_holds_what_its_route_has_and_no_more() -> None:
    """It was dark on the one gateway, and on the other one nobody was given it for that."""
    yard = Yard({"d1": (["h3.test"], [ONE])})
    yard.ask("d1", (["h1.test", "h3.test"], [ONE]), "2027", "Suspended")
    yard.ask("d2", (["h1.test", "h2.test"], [ONE, TWO]), "2028")
    yard.ask("d3", (["h1.test"], [TWO]), "2029")
    yard.ask("d4", (["h3.test"], [ONE]), "2029")
    yard.run(["d3", "d4", "d2"])
    assert yard.has["d2"] == (["h1.test", "h2.test"], [ONE, TWO])
    assert not yard.has.keys() & {"d3", "d4"}
    yard.cache.remove(kinds.VIRTUAL_SERVICE, "route d2", 999)
    yard.cache.remove(kinds.DETECTOR, "d2", 999)
    assert "shop/d3" in yard.cache.routes.stirred()
    yard.ask("d1", (["h1.test", "h3.test"], [ONE]), "2027")
    yard.run(["d1"])
    assert yard.has["d1"] == (["h1.test", "h3.test"], [ONE]), "once it writes it asks for all"


def test_who_is_invalid_asks_all_the_same_for_another_operator_may_find_it_valid() -> None:
    """It would write its route without having asked, as would everybody who asks for the same."""
    yard = Yard({})
    yard.ask("d1", (["h1.test"], [ONE]), "2027", "InvalidSpec")
    yard.ask("d2", (["h1.test"], [ONE]), "2028", "InvalidSpec")
    yard.rest.clear()
    yard.run(["d2", "d1"])
    assert yard.has == {"d1": (["h1.test"], [ONE])}


def test_a_kept_host_that_its_gateway_shuts_out_keeps_others_from_no_other_host() -> None:
    """Who decides who comes first took the route for a new one: it is given no b on the other."""
    yard = Yard({"d1": (["a.test"], [TWO]), "d2": (["a.test"], [ONE])}, two=["*/b.test", "yard/*"])
    yard.ask("d1", (["a.test", "b.test"], [ONE, TWO]), "2027")
    yard.ask("d2", (["a.test"], [ONE]), "2028")
    yard.ask("d3", (["b.test"], [ONE]), "2029")
    yard.run()
    assert yard.has == {
        "d1": (["a.test", "b.test"], [TWO]),
        "d2": (["a.test"], [ONE]),
        "d3": (["b.test"], [ONE]),
    }


# inside the mesh


@pytest.mark.parametrize("which", [[MESH], []], ids=["by name", "by default"])
def test_a_host_inside_the_mesh_is_anothers_for_clients_of_another_namespace(
    which: list[str],
) -> None:
    """Each is seen by its own namespace alone: whoever took the name first barred all others."""
    yard = Yard({})
    yard.ask("yard/d1", (["gate.web.test"], which), "2028")
    yard.run()
    yard.ask("d1", (["gate.web.test"], which), "2029")
    yard.ask("d2", (["gate.web.test"], which), "2030")
    yard.run(["d1", "d2"])
    assert {*yard.has} == {"yard/d1", "d1"}


def test_where_mesh_may_stand_beside_gateways_it_is_one_detectors_for_clients_everywhere() -> None:
    yard = Yard({"yard/d1": (["gate.web.test"], [MESH])}, Allowed(gateways=(MESH, "infra/*")))
    yard.ask("yard/d1", (["gate.web.test"], [MESH]))
    yard.ask("d1", (["gate.web.test"], [MESH, ONE]))
    yard.ask("d2", (["gate.web.test"], [MESH]))
    yard.run()
    assert yard.has == {
        "yard/d1": (["gate.web.test"], [MESH]),
        "d1": (["gate.web.test"], [ONE]),
    }


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
    assert yard.cache.routes.holder(claim(MESH, "a.web.test", "shop")) == "", (
        "a new one is for the gateway"
    )


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


NAMES: Final = ("d1", "d2", "d3", "yard/d4", "yard/d5")
HOSTS = st.lists(
    st.sampled_from(["a.test", "b.web.test", "c.web.test"]), min_size=1, max_size=2, unique=True
)
GATEWAYS = st.lists(st.sampled_from([ONE, TWO, MESH]), min_size=1, max_size=3, unique=True)
PLACES = st.tuples(HOSTS, GATEWAYS)
RULES: Final = [
    [Allowed(), Allowed(gateways=(ONE, TWO)), Allowed(hosts=("b.web.test", "a.test"))],
    [Allowed(gateways=(MESH, "infra/*")), Allowed(("c.web.test",), (ONE, MESH))],
]
"""Those of one list agree on whether a host inside the mesh is one detector's in all of it."""
ENDS = st.sampled_from(["Ready", "Ready", "Suspended"])
LISTED: Final = [
    ["*/*"],
    ["yard/c.web.test", "*/b.web.test"],
    ["yard/*", "shop/a.test"],
    ["yard/*"],
]


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
    yard = Yard({}, allowed, two)
    for number, (name, places) in enumerate(zip(NAMES, has, strict=False)):
        had = set().union(*(yard.routed(each) for each in yard.has))
        shut = two and (TWO, "c.web.test") in claims_of(places)
        if not had & yard.claims(name, places) and not shut:
            yard.write(name, places, f"{2020 + number}")
    routes = [*yard.has]
    for name, (places, year) in zip(NAMES, asks, strict=True):
        yard.ask(name, places, year)
    yard.run([name for name in order if name in yard.asks])
    assert not twice(yard)
    assert not any(yard.look(name) for name in order), "somebody was not woken"
    for name in routes:
        assert any(yard.cache.routes.holder(each) == key(name) for each in yard.routed(name)), (
            "it answers nowhere any more"
        )
    # A route keeps what its detector would be refused now, which is no part of what that asks for.
    refused = any("a.test" in hosts and MESH in on for hosts, on in yard.has.values())
    for name in NAMES:
        offered = yard.offered(name) - yard.routed(name)
        assert refused or not offered, "nobody routes it, and it may be had"
    assert not exchanges(yard), "they wait for each other"


@given(
    st.lists(
        st.tuples(PLACES, PLACES, st.sampled_from(["2028", "2029"]), ENDS), min_size=2, max_size=5
    ),
    st.permutations(NAMES),
    st.sampled_from(RULES).flatmap(lambda some: st.tuples(*[st.sampled_from(some)] * 2)),
    st.tuples(*[st.sampled_from(LISTED)] * 2),
)
def test_whatever_is_forbidden_later_each_host_is_answered_by_one_if_anybody_may_have_it(
    asks: list[tuple[Places, Places, str, str]],
    order: list[str],
    rules: tuple[Allowed, Allowed],
    listed: tuple[list[str], list[str]],
) -> None:
    yard = Yard({}, rules[0], listed[0])
    for at in range(2):
        for name, each in zip(NAMES, asks, strict=False):
            yard.ask(name, each[at], each[2], each[3] if at else "Ready")
        if at:
            yard.restart(rules[1], listed[1])
        yard.run([name for name in order if name in yard.asks])
    assert not twice(yard)
    for name in yard.asks.keys() - yard.rest:
        assert not yard.look(name), "somebody was not woken"
        assert not yard.offered(name) - yard.routed(name), "nobody routes it, and it may be had"


def exchanges(yard: Yard) -> list[tuple[str, ...]]:
    """Return who could move together, each to what one of them leaves, in the plain way."""
    asked, has = ({name: of(name) for name in NAMES} for of in (yard.asked, yard.routed))
    made = {name: yard.asks[name]["metadata"]["creationTimestamp"] for name in NAMES}

    def gains(name: str, group: tuple[str, ...]) -> bool:
        staying = set().union(*(has[each] for each in NAMES if each not in group))
        left = set().union(*(has[each] - asked[each] for each in group if each != name))
        return any(
            min((made[each], key(each)) for each in NAMES if wish in asked[each])[1] == key(name)
            for wish in (asked[name] & left) - staying
        )

    leaving = [name for name in yard.has if asked[name] and not has[name] <= asked[name]]
    groups = (group for n in range(2, len(NAMES) + 1) for group in combinations(leaving, n))
    return [group for group in groups if all(gains(name, group) for name in group)]


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
        found = expose(Detector.parse(yard.asks["d"]), live, {}, yard.allowed, bare=False)
        given = yard.claims("d", (found.hosts, found.gateways)) if found.routes else set()
        assert given - yard.routed("d") <= yard.asked("d"), asked
