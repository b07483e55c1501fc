"""Sticky cameras: each bucket has one revision, and no more of them move than have to."""

import re
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolofleet.routers.buckets import BUCKETS, assigned, buckets_of, pattern

V2 = {"uri": "demo://shapes-v2"}
NAMES = ("gate-a", "gate-b", "gate-c")


@st.composite
def weights(draw):
    """Draw weights that sum to 100, of one to three revisions, the stable one first."""
    names = draw(st.permutations(NAMES))[: draw(st.integers(1, 3))]
    cuts = sorted(draw(st.lists(st.integers(0, 100), min_size=2, max_size=2)))
    shares = [100, 0, 0]
    if len(names) == 2:
        shares = [100 - cuts[0], cuts[0]]
    elif len(names) == 3:
        shares = [100 - cuts[1], cuts[0], cuts[1] - cuts[0]]
    return dict(zip(names, shares, strict=False))


def moved(before, after):
    """Return how many buckets have another revision than before."""
    was = {bucket: name for name, own in before.items() for bucket in own}
    now = {bucket: name for name, own in after.items() for bucket in own}
    return sum(was[bucket] != now[bucket] for bucket in was)


@given(st.lists(weights(), min_size=1, max_size=6))
def test_each_bucket_has_one_revision_and_no_more_of_them_move_than_have_to(story):
    before, had = {}, {}
    for leads in story:
        after = assigned(before, leads)
        shares = {name: share for name, share in leads.items() if share}
        if len(shares) < 2:
            assert after == {}
        else:
            assert {name: len(own) for name, own in after.items()} == shares
            assert sorted(n for own in after.values() for n in own) == list(range(BUCKETS))
            if before:
                lost = sum(max(0, had[name] - shares.get(name, 0)) for name in had)
                assert moved(before, after) == lost
        before, had = after, shares


@given(st.lists(st.integers(0, 99), min_size=1, max_size=8))
def test_a_canary_has_the_lowest_buckets_whatever_its_weight_was_before(story):
    buckets = {}
    for weight in story:
        buckets = assigned(buckets, {"stable": 100 - weight, "canary": weight})
        assert buckets.get("canary", frozenset()) == frozenset(range(weight))


def test_a_promotion_in_the_middle_sends_no_camera_back():
    """The new one is the stable one from then on, and lacks pods: the old one keeps a part."""
    before = assigned({}, {"old": 50, "new": 50})
    after = assigned(before, {"new": 70, "old": 30})
    assert after["new"] > before["new"]


def test_a_canary_keeps_its_cameras_while_a_release_passes_it():
    before = assigned({}, {"old": 90, "canary": 10})
    for weight in (1, 5, 25, 50, 90):
        after = assigned(before, {"old": 90 - weight, "canary": 10, "new": weight})
        assert after["canary"] == frozenset(range(10))
        assert after["new"] >= before.get("new", frozenset())
        before = after
    assert assigned(before, {"new": 90, "canary": 10}) == {k: before[k] for k in ("new", "canary")}


@given(st.sets(st.integers(0, 99), min_size=1), st.text("abc-0123456789,x", max_size=9))
def test_an_expression_says_its_buckets_and_is_read_again(buckets, start):
    written = pattern(buckets)
    assert buckets_of(written) == buckets
    for bucket in range(BUCKETS):
        found = re.fullmatch(written, f"{start}{bucket:02d}")
        assert bool(found) is (bucket in buckets)


def test_expressions_are_short_enough_to_be_read_by_a_person():
    assert pattern(range(5)) == "^.*(?:0[0-4])$"
    assert pattern(range(5, 100)) == "^.*(?:0[5-9]|[1-9][0-9])$"
    assert pattern(range(25)) == "^.*(?:[01][0-9]|2[0-4])$"


@pytest.mark.parametrize("value", ["", "7", "camera", "camera-7", "42x", "٤٢"])
def test_what_does_not_end_in_two_digits_is_in_no_bucket(value):
    assert not re.fullmatch(pattern(range(BUCKETS)), value)


@pytest.mark.parametrize(
    "edited", ["", "^.*(?:)$", "^.*(?:[)$", "^.*(?:9-|])$", "^(a+)+$", "^.*(?:(0+)+)$", "always"]
)
def test_what_somebody_else_wrote_has_no_buckets(edited):
    assert buckets_of(edited) == frozenset()


# in a detector's route


def rules(world):
    """Return the names or expressions of the rules, in order, and where they lead."""
    route = world.children["VirtualService", "gate"]["spec"]["http"]
    return {
        rule["name"]: [to["destination"]["host"].partition(".")[0] for to in rule["route"]]
        for rule in route
    }


def expressions(world):
    """Return the expression by revision."""
    route = world.children["VirtualService", "gate"]["spec"]["http"]
    return {
        rule["name"].removeprefix("sticky-"): rule["match"][0]["headers"]["x-camera-id"]["regex"]
        for rule in route
        if rule["name"].startswith("sticky-")
    }


@pytest.fixture
def sticky(world):
    world.edit(traffic={"stickyHeader": "X-Camera-Id"})
    world.settle()
    return world


def test_while_two_revisions_have_a_weight_a_camera_stays_on_one(sticky):
    world = sticky
    assert list(rules(world)) == ["weighted"]
    match = [{"headers": {"x-canary": {"exact": "always"}}}]
    world.edit(canary={"model": V2, "weight": 5, "match": match})
    world.settle()
    stable, canary = world.status().stable.revision, world.status().canary.revision
    assert rules(world) == {
        "matched": [canary],
        f"sticky-{stable}": [stable],
        f"sticky-{canary}": [canary],
        "weighted": [stable, canary],
    }
    assert expressions(world) == {
        stable: "^.*(?:0[5-9]|[1-9][0-9])$",
        canary: "^.*(?:0[0-4])$",
    }
    assert world.weights() == {stable: 95, canary: 5}
    told = world.status().condition("TrafficRouted").message
    assert "5 % gate" in told
    assert "(cameras by the last two digits of X-Camera-Id)" in told


def test_in_the_dark_and_without_the_header_there_is_no_route_for_cameras(sticky):
    world = sticky
    world.edit(canary={"model": V2, "weight": 0})
    world.settle()
    assert list(rules(world)) == ["weighted"]
    world.edit(canary={"model": V2, "weight": 10})
    world.settle()
    assert len(rules(world)) == 3
    world.edit(traffic=None)
    world.settle()
    assert list(rules(world)) == ["weighted"]


def test_through_a_release_in_steps_and_its_end_no_camera_goes_back(sticky):
    world = sticky
    old = world.status().stable.revision
    steps = [{"weight": weight, "hold": "10s"} for weight in (1, 5, 25, 50)]
    world.edit(model=V2, rollout={"strategy": "Canary", "steps": steps, "maxSurge": 1})
    seen = []
    for _ in range(40):
        world.reconcile()
        world.run_pods(step=1)
        world.now += timedelta(seconds=20)
        found = {name: buckets_of(told) for name, told in expressions(world).items()}
        seen.append(next((own for name, own in found.items() if name != old), frozenset()))
        assert sum(world.weights().values()) == 100
    assert world.status().stable.revision != old
    walked = [own for own in seen if own]
    assert {len(own) for own in walked} >= {1, 5, 25, 50}
    assert all(after >= before for before, after in pairwise(walked))


def test_a_rule_that_somebody_edits_is_put_right(sticky):
    world = sticky
    world.edit(canary={"model": V2, "weight": 5})
    world.settle()
    before = expressions(world)
    for rule in world.children["VirtualService", "gate"]["spec"]["http"][:-1]:
        rule["match"] = [{"headers": {"x-camera-id": {"regex": "^.*(?:[0-9][0-9])$"}}}]
    world.reconcile()
    assert expressions(world) == before


def test_a_header_by_another_name_moves_no_camera(sticky):
    world = sticky
    world.edit(canary={"model": V2, "weight": 5})
    world.settle()
    before = expressions(world)
    world.edit(traffic={"stickyHeader": "x-site"})
    world.reconcile()
    route = world.children["VirtualService", "gate"]["spec"]["http"][:-1]
    assert [rule["match"][0]["headers"]["x-site"]["regex"] for rule in route] == [*before.values()]


def test_on_a_plain_service_it_is_told_that_it_has_no_effect(sticky):
    world = sticky
    world.edit(traffic={"provider": "service", "stickyHeader": "X-Camera-Id"})
    world.settle()
    told = world.status().condition("TrafficRouted")
    assert told.status == "True"
    assert "spec.traffic.stickyHeader has no effect" in told.message


def test_by_the_gateway_api_too_and_what_it_needs_is_told(world):
    world.mesh, world.gateway = False, True
    traffic = {"gateways": ["edge/public"], "hosts": ["gate.example.com"]}
    match = [{"headers": {"x-canary": {"exact": "always"}}}]
    world.edit(
        traffic=traffic | {"stickyHeader": "X-Camera-Id"},
        canary={"model": V2, "weight": 5, "match": match},
    )
    world.settle()
    stable, canary = world.status().stable.revision, world.status().canary.revision
    matched, *by_camera, weighted = world.children["HTTPRoute", "gate"]["spec"]["rules"]
    assert matched["matches"][0]["headers"][0]["name"] == "x-canary"
    assert [
        (rule["matches"][0]["headers"], rule["backendRefs"][0]["name"]) for rule in by_camera
    ] == [
        (
            [{"name": "x-camera-id", "type": "RegularExpression", "value": expression}],
            name,
        )
        for expression, name in [
            ("^.*(?:0[5-9]|[1-9][0-9])$", stable),
            ("^.*(?:0[0-4])$", canary),
        ]
    ]
    assert [to["weight"] for to in weighted["backendRefs"]] == [95, 5]
    no = {"type": "Accepted", "status": "False", "reason": "UnsupportedValue", "message": "regex"}
    route = world.children["HTTPRoute", "gate"]
    route["status"] = {"parents": [{"parentRef": {"name": "public"}, "conditions": [no]}]}
    world.reconcile()
    told = world.status().condition("TrafficRouted")
    assert told.reason == "RouteRefused"
    assert "stickyHeader needs a gateway that matches headers by RegularExpression" in told.message
