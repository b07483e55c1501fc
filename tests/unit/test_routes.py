"""Who has which host, worked out in few steps whatever tenants write: one operator is for all."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import permutations, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolofleet.cluster import kinds
from yolofleet.cluster.cache import Cache, entry_of
from yolofleet.cluster.routes import Routes, Standing
from yolofleet.plan.defaults import Defaults
from yolofleet.routers.claims import MOST_CROSSINGS, Area, Claim, below, routed, shadowed, wanted
from yolofleet.routers.hostnames import Hostnames

PUBLIC = "istio-system/public"
DEFAULTS = Defaults("a", "b", "c")
MOST = 32
GATEWAYS = [f"n/g{number}" for number in range(MOST)]


@contextmanager
def at_most(calls: int) -> Iterator[None]:
    """Stop what makes more calls: no clock, so that a slow machine says the same."""
    count = 0

    def counted(_frame: Any, event: str, _arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")
        if count > calls:
            sys.setprofile(None)
            raise AssertionError(f"more than {calls} calls")

    sys.setprofile(counted)
    try:
        yield
    finally:
        sys.setprofile(None)


def claims(*hosts: str) -> frozenset[Claim]:
    return frozenset((PUBLIC, host) for host in hosts)


# exchanges


def test_who_exchanges_hosts_in_a_long_chain_is_found_without_trying_every_way() -> None:
    """Each wish of each detector was tried for each wish of the one before: 32 to the sixth."""
    hosts = [claims(*(f"h{n}.s{at}.example.com" for n in range(MOST))) for at in range(7)]
    routes = Routes()
    for at in range(7):
        for is_route in (False, True):
            made = Standing(f"evil/d{at}", "2030", hosts[at], is_route)
            routes.change(f"{at} {is_route}", None, made)
    with at_most(100_000):
        for at in range(6):
            key = f"evil/d{at}"
            before, after = (Standing(key, "2030", hosts[at + n], routed=False) for n in (0, 1))
            routes.change(f"{at} False", before, after)
            assert set(routes.taken(key, hosts[at + 1]).values()) == {f"evil/d{at + 1}"}
    before, after = (Standing("evil/d6", "2030", hosts[n], routed=False) for n in (6, 0))
    with at_most(100_000):
        routes.change("6 False", before, after)
        assert not routes.taken("evil/d0", hosts[1]), "the last one closes the ring: all move"


KEYS, LETTERS = ("a/1", "a/2", "a/3", "a/4"), "pqrs"
SOME = st.frozensets(st.sampled_from(LETTERS))
WORLDS = st.fixed_dictionaries(
    {key: st.tuples(SOME, SOME, st.booleans(), st.integers(0, 2)) for key in KEYS}
)
Place = tuple[frozenset[str], frozenset[str], bool, int]
"""What a detector has, what it asks for, whether it writes its route, and when it was made."""

World = Mapping[str, Place]


def changes(
    key: str, before: Place | None, after: Place
) -> Iterator[tuple[str, tuple[Standing | None, Standing]]]:
    """Say what a detector and its route were and are, by uid."""
    for at, uid in enumerate((f"route {key}", f"cr {key}")):
        was, now = (
            Standing(key, str(since), claims(*(has, asks)[at]), at == 0, moves=writes)
            for has, asks, writes, since in (before or after, after)
        )
        yield uid, (was if before else None, now)


def change(routes: Routes, key: str, before: Place | None, after: Place) -> None:
    """Have a detector and its route become what they are `after`."""
    for uid, (was, now) in changes(key, before, after):
        routes.change(uid, was, now)


def told(world: World, host: str, moving: frozenset[str], trying: str = "") -> str:
    """Say who has `host` in the plain way: whoever leads back to one that moves moves with it."""

    def moves(key: str) -> bool:
        _, asks, writes, _ = world[key]
        if host in asks or not asks or not (writes or key == trying):
            return False
        further = moving | {key}
        return key in moving or any(
            told(world, each, further, trying) == key
            for each in asks
            if any(each in has for has, *_ in world.values())
        )

    routed = [(since, key) for key, (has, _, _, since) in world.items() if host in has]
    asking = [(since, key) for key, (_, asks, _, since) in world.items() if host in asks]
    staying = [each for each in routed if not moves(each[1])]
    return min(staying or asking or routed, default=(0, ""))[1]


def wishing(hosts: Iterable[str], still: str) -> dict[str, Place]:
    """Return a world in which each has a host, and asks for one; `still` does not write."""
    each = zip(KEYS, LETTERS, hosts, strict=True)
    return {key: (frozenset(has), frozenset(asks), key != still, 0) for key, has, asks in each}


def routes_of(world: World) -> Routes:
    routes = Routes()
    for key, each in world.items():
        change(routes, key, None, each)
    routes.stirred()
    return routes


@pytest.mark.parametrize("still", [*KEYS, ""])
def test_of_four_who_ask_each_for_one_host_it_is_told_who_gets_it(still: str) -> None:
    for hosts in product(LETTERS, repeat=4):
        agrees(wishing(hosts, still))


@given(WORLDS)
def test_whose_each_host_is_agrees_with_the_plain_way_of_telling_it(world: World) -> None:
    agrees(world)


def agrees(world: World) -> None:
    routes = routes_of(world)
    for host in LETTERS:
        assert routes.holder((PUBLIC, host)) == told(world, host, frozenset())
    for key in KEYS:
        taken = {host: told(world, host, frozenset(), trying=key) for host in LETTERS}
        others = {(PUBLIC, host): who for host, who in taken.items() if who not in ("", key)}
        assert routes.taken(key, claims(*LETTERS)) == others


@given(WORLDS, WORLDS)
def test_whoever_gains_a_host_by_what_others_do_is_woken(before: World, after: World) -> None:
    routes, now = routes_of(before), dict(before)
    for key, each in after.items():
        wakes(routes, now, key, each)
        now[key] = each


def wakes(routes: Routes, world: World, key: str, after: Place) -> None:
    had = {host: told(world, host, frozenset()) for host in LETTERS}
    change(routes, key, world[key], after)
    now = {**world, key: after}
    gained = {who for host in LETTERS if (who := told(now, host, frozenset())) != had[host]}
    assert gained - {key, ""} <= routes.stirred()


@pytest.mark.parametrize("still", [*KEYS, ""])
def test_whoever_waits_in_a_ring_is_woken_when_it_closes_and_when_it_opens(still: str) -> None:
    for hosts in permutations(LETTERS):
        closed = wishing(hosts, still)
        for key, own in zip(KEYS, LETTERS, strict=True):
            opened = {**closed, key: (frozenset(own), frozenset(own), True, 0)}
            routes = routes_of(opened)
            wakes(routes, opened, key, closed[key])
            wakes(routes, closed, key, opened[key])


# what nobody routes


def waiting(number: int) -> Routes:
    """Return a world of detectors with one host each, which ask for what others route in part."""
    routes, hosts = Routes(), [f"h{n}.example.com" for n in range(MOST - 1)]
    for n in range(number):
        own = f"d{n}.example.com"
        has = frozenset({(GATEWAYS[0], own)})
        asks = frozenset(product(GATEWAYS, [own, *hosts]))
        routes.change(f"route {n}", None, Standing(f"evil/d{n}", f"{n}", has, routed=True))
        routes.change(f"cr {n}", None, Standing(f"evil/d{n}", f"{n}", asks, routed=False))
    return routes


def test_who_of_those_that_wait_comes_first_costs_as_much_as_they_ask_for() -> None:
    """What each of them would be given is worked out once, however many hosts hang on that."""
    counts = list[int]()
    for number in (4, 8, 16):
        routes = waiting(number)
        blocks = frozenset((GATEWAYS[0], f"h{n}.example.com") for n in range(MOST - 1))
        blocker = Standing("shop/gate", "9", blocks, routed=True)
        counts.append(calls_of(partial(routes.change, "route", None, blocker)))
        assert routes.holder((GATEWAYS[1], "h0.example.com")) == "evil/d0"
        asks = frozenset({(GATEWAYS[1], "h0.example.com")})
        routes.change("cr", None, Standing("shop/door", "9", asks, routed=False))
        assert routes.holder((GATEWAYS[1], "h0.example.com")) == "shop/door"
    assert counts[2] < 500_000, "worked out for each host"
    assert counts[1] < 2.3 * counts[0]
    assert counts[2] < 2.3 * counts[1]


def test_a_thousand_that_wait_for_one_host_are_not_asked_anew_at_each_look() -> None:
    """Each asks for one of its own as well; somebody routes that of all on one of the gateways."""
    routes = Routes()
    for number in range(300):
        asking = Standing(f"evil/d{number}", "2030", asks_of(number), routed=False)
        routes.change(f"cr {number}", None, asking)
    blocks = frozenset({(GATEWAYS[0], "all.example.com")})
    routes.change("route", None, Standing("shop/gate", "2029", blocks, routed=True))
    assert routes.holder((GATEWAYS[1], "all.example.com")) == "evil/d0"
    before = Standing("evil/d7", "2030", asks_of(7), routed=False)
    with at_most(5_000):
        routes.change("cr 7", before, replace(before, moves=False))
    with at_most(5_000):
        assert routes.taken("evil/d8", asks_of(8))


def asks_of(number: int) -> frozenset[Claim]:
    return frozenset(product(GATEWAYS[:2], [f"d{number}.example.com", "all.example.com"]))


# wildcards


NAMES = st.lists(st.sampled_from(["*", "b", "a.b", "*.b", "c.a.b", "*.a.b", "xb", "a.xb"]))


@given(NAMES, NAMES)
def test_those_below_a_wildcard_are_looked_up_as_they_would_be_searched(
    names: list[str], gone: list[str]
) -> None:
    kept, left = Hostnames(names), set(names)
    for name in {*gone} & left:
        kept.remove(name)
        left.remove(name)
    for name in {*gone} - {*names}:
        kept.add(name)
        left.add(name)
    assert (set(kept), len(kept)) == (left, len(left))
    for wildcard in ("*", "*.b", "*.a.b", "a.b", "*.c"):
        assert set(kept.below(wildcard)) == {name for name in left if below(name, wildcard)}
        assert (wildcard in kept) == (wildcard in left)


def detector(number: int, **traffic: Any) -> dict[str, Any]:
    metadata = {"name": f"d{number}", "namespace": "evil", "uid": f"u{number}", "generation": 1}
    metadata |= {"resourceVersion": f"{number + 1}", "creationTimestamp": "2030-01-01T00:00:00Z"}
    spec = {"model": {"uri": "demo://shapes"}, "traffic": {"provider": "istio"} | traffic}
    return {"metadata": metadata, "spec": spec}


def test_a_detector_of_many_wildcards_is_taken_in_without_a_look_at_all_there_are() -> None:
    """For each of 1,024 wildcards it went through all claims of all detectors."""
    cache = Cache()
    cache.set_served(kinds.VIRTUAL_SERVICE, True)
    raws = [
        detector(n, hosts=[f"*.h{at}.d{n}.example.com" for at in range(MOST)], gateways=GATEWAYS)
        for n in range(6)
    ]
    for raw in raws[:5]:
        cache.put(kinds.DETECTOR, raw)
    with at_most(200_000):
        cache.put(kinds.DETECTOR, raws[5])
        assert not cache.elsewhere("evil/d5", raws[5], DEFAULTS).crossed


def test_of_many_hosts_below_many_wildcards_so_many_are_told() -> None:
    """Each is below each of 32 wildcards that are below one another, on each of 32 gateways."""
    cache, names = Cache(), [".".join(["a"] * (n + 1)) for n in range(MOST)]
    cache.set_served(kinds.VIRTUAL_SERVICE, True)
    for number in range(5):
        hosts = [f"h{at}.d{number}.{names[-1]}.example.com" for at in range(MOST)]
        cache.put(kinds.DETECTOR, detector(number, hosts=hosts, gateways=GATEWAYS))
    wide = detector(9, hosts=[f"*.{name}.example.com" for name in names], gateways=GATEWAYS)
    with at_most(1_000_000):
        cache.put(kinds.DETECTOR, wide)
        found = cache.elsewhere("evil/d9", wide, DEFAULTS).crossed
    assert len(found) == MOST_CROSSINGS
    assert cache.routes.stirred() == {f"evil/d{number}" for number in range(5)}


# what nobody bounded


def a_route(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "big", "namespace": "evil", "uid": "u", "resourceVersion": "1"}
    return {"kind": "VirtualService", "metadata": metadata, "spec": spec}


MANY = [f"h{number}.example.com" for number in range(2000)]


def test_hosts_and_gateways_of_somebodys_route_are_not_multiplied_out() -> None:
    """One of 56 KiB took half a minute and 1.2 GiB, at each start of the operator."""
    on = [f"evil/g{number}" for number in range(2000)]
    big = a_route(hosts=MANY, gateways=[*on, "mesh"], exportTo=["*"], http=[{"route": []}])
    cache = Cache()
    cache.set_served(kinds.VIRTUAL_SERVICE, True)
    asked = detector(0, hosts=MANY[:3], gateways=on[:2])
    cache.put(kinds.DETECTOR, asked)
    with at_most(100_000):
        cache.put_entry(entry_of(kinds.VIRTUAL_SERVICE, big))
        assert cache.routes.stirred() == {"evil/d0"}
        others = cache.elsewhere("evil/d0", asked, DEFAULTS).others
    [[_, found], [_, none]] = others.items()
    assert found == dict.fromkeys(product(on[:2], MANY[:3]), "VirtualService evil/big")
    assert not none


def test_an_area_has_the_names_by_which_clients_inside_the_mesh_call_its_hosts() -> None:
    route = a_route(hosts=["Big", "a.example.com"], gateways=["mesh", "g"], http=[{}])
    assert shadowed(route) == shadowed(route | {"spec": route["spec"] | {"exportTo": ["*"]}})
    [outside] = shadowed(route)
    assert outside == Area(frozenset({"big", "a.example.com"}), frozenset({"evil/g"}))
    route["spec"] |= {"exportTo": ["."]}
    inside, outside = shadowed(route)
    assert inside == Area(frozenset({"big.evil", "a.example.com"}), frozenset({"mesh of evil"}))


@pytest.mark.parametrize("ours", [True, False], ids=["a route", "a spec"])
def test_of_what_claims_to_be_a_detectors_no_more_is_counted_than_it_may_name(ours: bool) -> None:
    """The webhook multiplied out whatever came to its port, before it was read as a detector."""
    asked = {"hosts": MANY, "gateways": [f"n/g{number}" for number in range(2000)]}
    with at_most(50_000):
        found = routed(a_route(**asked)) if ours else wanted(detector(0, **asked))
    assert len(found) == MOST * MOST


# many objects at once


SIDE = 6
"""Of each detector so many hosts on so many gateways."""


def chain(length: int) -> tuple[list[Any], list[Any]]:
    """Return detectors that ask each for what the next one has, for ever, and their routes."""
    detectors, routes = list[Any](), list[Any]()
    for n in range(length):
        hosts = [[f"h{each}.d{at}.example.com" for each in range(SIDE)] for at in (n, n + 1)]
        asked = detector(n, hosts=hosts[n + 1 < length], gateways=GATEWAYS[:SIDE])
        said = {"observedGeneration": 1, "conditions": [{"type": "Ready", "reason": "Ready"}]}
        ours = {"app.kubernetes.io/managed-by": "yolofleet", "yolofleet.io/detector": f"d{n}"}
        owner = {"apiVersion": "yolofleet.io/v1alpha1", "kind": "YoloDetector", "name": f"d{n}"}
        metadata = asked["metadata"] | {"uid": f"v{n}", "labels": ours}
        metadata["ownerReferences"] = [owner | {"uid": f"u{n}", "controller": True}]
        spec = {"hosts": hosts[0], "gateways": GATEWAYS[:SIDE], "http": [{"route": []}]}
        detectors.append(entry_of(kinds.DETECTOR, asked | {"status": said}))
        route = {"kind": "VirtualService", "metadata": metadata, "spec": spec}
        routes.append(entry_of(kinds.VIRTUAL_SERVICE, route))
    return detectors, routes


def istio_gateway(version: int, *hosts: str) -> Any:
    metadata = {"name": "g0", "namespace": "n", "uid": "g", "resourceVersion": f"{version}"}
    return {"metadata": metadata, "spec": {"servers": [{"hosts": [*hosts]}]}}


def lists(cache: Cache, detectors: list[Any], routes: list[Any]) -> None:
    cache.replace_all(kinds.DETECTOR, detectors, 100)
    cache.replace_all(kinds.VIRTUAL_SERVICE, routes, 100)


def shut_out(cache: Cache) -> None:
    cache.put(kinds.ISTIO_GATEWAY, istio_gateway(101, "other/*.example.com"))


def served(cache: Cache) -> None:
    cache.set_served(kinds.VIRTUAL_SERVICE, False)
    cache.set_served(kinds.VIRTUAL_SERVICE, True)


def calls_of(act: Callable[[], Any]) -> int:
    count = 0

    def counted(_frame: Any, event: str, _arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(
    "act",
    [
        shut_out,
        served,
        lambda cache: cache.forget("evil"),
        lambda cache: cache.replace_all(kinds.DETECTOR, [], 200),
        lambda cache: cache.replace_all(kinds.VIRTUAL_SERVICE, [], 200),
        None,
    ],
    ids=["a gateway", "an API", "a namespace", "no detectors", "no routes", "the start"],
)
def test_what_changes_many_detectors_costs_twice_as_much_for_twice_as_many(act: Any) -> None:
    """For each of them the whole chain was walked: 10 s for 24 detectors and one edit."""
    counts = list[int]()
    for length in (8, 16, 32):
        cache = Cache()
        for kind in (kinds.VIRTUAL_SERVICE, kinds.ISTIO_GATEWAY):
            cache.set_served(kind, True)
        cache.put(kinds.ISTIO_GATEWAY, istio_gateway(1, "*/*.example.com"))
        start = partial(lists, cache, *chain(length))
        if act:
            start()
        counts.append(calls_of(partial(act, cache) if act else start))
    assert counts[1] < 2.3 * counts[0]
    assert counts[2] < 2.3 * counts[1]


@given(WORLDS, WORLDS)
def test_changes_at_once_come_to_the_same_as_one_by_one(before: World, after: World) -> None:
    routes, once = routes_of(before), routes_of(before)
    for key in KEYS:
        change(routes, key, before[key], after[key])
    several = dict(each for key in KEYS for each in changes(key, before[key], after[key]))
    once.change_all(several)
    for host in LETTERS:
        assert once.holder((PUBLIC, host)) == routes.holder((PUBLIC, host))
    had = {host: told(before, host, frozenset()) for host in LETTERS}
    gained = {who for host in LETTERS if (who := told(after, host, frozenset())) != had[host]}
    edited = [new.key for old, new in several.values() if old != new]
    assert gained - {"", *(edited if len(edited) == 1 else ())} <= once.stirred()
