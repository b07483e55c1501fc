"""Routed means that somebody routes: a route alone moves no request, and no step."""

from dataclasses import replace
from datetime import timedelta

import pytest

from yolofleet.api.names import child_labels
from yolofleet.cluster import kinds
from yolofleet.cluster.cache import Cache
from yolofleet.plan.defaults import Defaults
from yolofleet.plan.status import next_look
from yolofleet.routers.following import Followed, Following, Mesh, on_gateways
from yolofleet.routers.gateway import accepted
from yolofleet.routers.istio import delegated, delegates_of

V2 = {"uri": "demo://shapes-v2"}
V3 = {"uri": "demo://shapes-v3"}
PUBLIC = {"gateways": ["edge/public"], "hosts": ["gate.example.com"]}
STEPS = {"strategy": "Canary", "steps": [{"weight": 50, "hold": "10s"}]}
STEPS_HELD = {"strategy": "Canary", "steps": [{"weight": 75, "hold": "Approval"}]}
DEFAULTS = Defaults(image_cpu="a", image_torch="b", image_gpu="c")


@pytest.fixture
def at_the_edge(world):
    world.mesh, world.gateway = False, True
    world.edit(traffic=PUBLIC)
    return world


def routed(world):
    return world.status().condition("TrafficRouted")


def test_a_route_that_no_gateway_accepts_is_not_routed_and_no_step_advances(at_the_edge):
    world = at_the_edge
    world.accepts = False
    world.settle()
    assert (routed(world).status, routed(world).reason) == ("Unknown", "RoutePending")
    assert "public has not accepted the route: nobody routes by it yet" in routed(world).message
    assert world.status().url == "http://gate.shop.svc"
    world.edit(model=V2, rollout=STEPS)
    world.settle(40)
    assert sorted(world.weights().values()) == [50, 50]
    assert world.status().rollout.since is None
    assert "waits for who routes by it" in world.status().condition("Progressing").message
    world.accepts = True
    world.settle()
    assert list(world.weights().values()) == [100]
    assert (routed(world).status, routed(world).reason) == ("True", "Routed")


def test_what_was_accepted_in_an_older_generation_is_pending_and_nobody_drains(at_the_edge):
    world = at_the_edge
    world.settle()
    old = world.status().stable.revision
    world.accepts = False
    world.edit(model=V2)
    world.settle(40)
    assert world.weights() == {world.status().stable.revision: 100}
    assert routed(world).status == "Unknown"
    assert world.replicas()[old] == 2, "the gateway may still send to it"
    world.accepts = True
    world.settle()
    assert world.replicas()[old] == 0


def never_accepted(world):
    world.accepts = False
    world.settle()


def accepted_as_it_was(world):
    world.settle()
    world.accepts = False
    world.edit(model=V2)
    world.settle()


def accepted_by_others(world):
    world.stays_behind = frozenset({"inner"})
    world.edit(traffic=PUBLIC | {"gateways": ["edge/public", "edge/inner"]})
    parent = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "inner"}
    world.reconcile()
    world.children["HTTPRoute", "gate"]["status"] = {
        "parents": [{"parentRef": parent | {"namespace": "edge"}, "conditions": []}]
    }
    world.settle()


@pytest.mark.parametrize("pending", [never_accepted, accepted_as_it_was, accepted_by_others])
def test_a_route_that_stays_unaccepted_waits_for_a_person_after_a_minute(at_the_edge, pending):
    world = at_the_edge
    pending(world)
    stalled = world.status().condition("Stalled")
    assert (stalled.status, stalled.reason) == ("True", "RoutePending")
    assert "has not accepted the route" in stalled.message
    assert world.status().condition("Released").status == "False"
    world.accepts, world.stays_behind = True, frozenset()
    world.settle()
    assert world.status().condition("Stalled").status == "False"
    assert world.status().condition("Released").status == "True"


def test_a_gateway_has_a_minute_to_accept_the_route_and_is_looked_at_then(at_the_edge):
    world = at_the_edge
    world.settle()
    world.now += timedelta(hours=1)
    world.accepts = False
    world.edit(traffic=PUBLIC | {"hosts": ["yard.example.com"]})
    world.reconcile()
    world.reconcile()
    assert routed(world).reason == "RoutePending"
    assert world.status().condition("Stalled").status == "False"
    seen = world.think()
    world.now += next_look(world.detector(), seen.observed, seen.plan, seen.status, now=world.now)
    world.reconcile()
    assert world.now - routed(world).last_transition_time == timedelta(minutes=1)
    assert world.status().condition("Stalled").status == "True"


def test_a_clock_that_is_set_back_begins_the_minute_anew_and_no_longer(at_the_edge):
    world = at_the_edge
    world.accepts = False
    world.settle(2)
    assert routed(world).reason == "RoutePending"
    world.now -= timedelta(hours=1)
    world.settle(4)
    assert world.status().condition("Stalled").status == "True"


def test_what_suspend_kept_waiting_is_no_delay_of_a_gateway(at_the_edge):
    world = at_the_edge
    world.edit(canary={"model": V2, "weight": 50})
    world.settle()
    world.edit(suspend=True, canary={"model": V2, "weight": 10})
    world.settle()
    assert (routed(world).status, routed(world).reason) == ("False", "Suspended")
    assert "spec.suspend holds the route as it is" in routed(world).message
    world.edit(suspend=False)
    for _ in range(3):  # the gateway takes its time
        world.reconcile()
        world.now += timedelta(seconds=15)
        assert world.status().condition("Stalled").status == "False"
    assert routed(world).reason == "RoutePending"
    world.settle()
    assert routed(world).reason == "Routed"


def unaccepted(world, *, replicas=4, **spec):
    """Return the revision to which the gateway sends: it accepts no other route any more."""
    world.edit(replicas=replicas, **spec)
    world.settle()
    world.accepts = False
    return world.status().stable.revision


NOT_YET = "public has not accepted the route as it is now yet"
RELEASES = {
    "in place": ({"strategy": "InPlace"}, 4, 3),  # one less serves meanwhile
    "two in place": ({"strategy": "InPlace"}, 2, 1),
    "in parts": (STEPS | {"maxSurge": 1}, 4, 4),
    "whole": ({"strategy": "BlueGreen"}, 4, 4),
}
each_way = pytest.mark.parametrize(("rollout", "full", "kept"), RELEASES.values(), ids=RELEASES)


@each_way
def test_no_replica_goes_for_a_route_that_no_gateway_has_accepted(at_the_edge, rollout, full, kept):
    world = at_the_edge
    old = unaccepted(world, replicas=full, rollout=rollout)
    world.edit(model=V2)
    world.settle(60)
    assert world.replicas()[old] == world.ready(old) == kept
    for kind in ("Progressing", "Released", "TrafficRouted"):
        assert NOT_YET in world.status().condition(kind).message
    world.accepts = True
    world.settle(40)
    assert (world.replicas()[old], list(world.weights().values())) == (0, [100])
    assert world.status().condition("Released").status == "True"


@each_way
def test_a_release_that_no_gateway_follows_can_be_called_off(at_the_edge, rollout, full, kept):
    world = at_the_edge
    old = unaccepted(world, replicas=full, rollout=rollout)
    model = world.raw["spec"]["model"]
    world.edit(model=V2)
    world.settle(40)
    world.edit(model=model)
    world.settle(40)
    assert world.weights()[old] == 100
    assert world.replicas()[old] >= kept
    world.accepts = True
    world.settle()
    assert {name: pods for name, pods in world.replicas().items() if pods} == {old: full}
    assert world.status().condition("Progressing").reason == "Settled"


def least(world):
    """Return the fewest replicas that the stable revision's autoscaler may choose."""
    (scaler,) = (c for (kind, _), c in world.children.items() if kind == "HorizontalPodAutoscaler")
    assert scaler["spec"]["scaleTargetRef"]["name"] == world.status().stable.revision
    return scaler["spec"]["minReplicas"]


def unaccepted_by_cpu(world, **spec):
    """The same beside an autoscaler, which chose 4 replicas and sees what stable has alone."""
    world.edit(replicas=None, autoscaling={"minReplicas": 1, "maxReplicas": 6, "cpu": 70}, **spec)
    world.settle()
    old = world.status().stable.revision
    world.deployments()[old]["spec"]["replicas"] = 4
    world.settle()
    assert least(world) == 1
    world.accepts = False
    return old


def test_nor_may_an_autoscaler_take_them_from_who_gets_no_requests_yet(at_the_edge):
    """What is promoted has none until a gateway accepts that; then it has all at once."""
    world = at_the_edge
    old = unaccepted_by_cpu(world)
    world.edit(model=V2)
    world.settle(40)
    new = world.status().stable.revision
    assert new != old
    assert world.replicas() == {old: 4, new: 4}
    assert least(world) == 4
    world.deployments()[new]["spec"]["replicas"] = 6
    world.settle()
    assert least(world) == 6, "it grew, and the gateway may have accepted the route meanwhile"
    world.accepts = True
    world.settle()
    assert (least(world), world.replicas()[old]) == (1, 0)


def test_nor_from_who_is_to_have_back_what_a_canary_has(at_the_edge):
    world = at_the_edge
    old = unaccepted_by_cpu(world, canary={"model": V2, "weight": 50})
    world.edit(canary=None)
    world.settle()
    assert world.weights() == {old: 100}
    assert least(world) == 4


def test_where_nobody_else_has_replicas_stable_sees_all_requests_itself(at_the_edge):
    """One of two gateways may be gone for good: nothing would be given up any more."""
    world = at_the_edge
    unaccepted_by_cpu(world)
    world.edit(traffic=PUBLIC | {"hosts": ["two.example.com"]})
    world.settle()
    assert NOT_YET in routed(world).message
    assert least(world) == 1


def test_what_sees_the_requests_of_all_is_left_to_itself(at_the_edge):
    world = at_the_edge
    old = unaccepted_by_cpu(world)
    by_load = {"minReplicas": 1, "maxReplicas": 6, "load": 70, "provider": "keda"}
    world.keda, world.defaults = True, replace(world.defaults, prometheus="http://prometheus")
    world.edit(autoscaling=by_load)
    world.edit(traffic=PUBLIC | {"hosts": ["two.example.com"]})
    world.settle()
    assert NOT_YET in routed(world).message
    assert world.children["ScaledObject", old]["spec"]["minReplicaCount"] == 1


def test_an_outage_by_consent_that_no_gateway_ends_can_be_called_off(at_the_edge):
    """With one replica in place: the gateway still sends to the one that is gone."""
    world = at_the_edge
    old = unaccepted(world, replicas=1, rollout={"strategy": "InPlace"})
    model = world.raw["spec"]["model"]
    world.edit(model=V2)
    world.settle()
    assert world.replicas()[old] == 0
    world.edit(model=model)
    world.settle()
    assert (world.replicas()[old], world.weights()) == (1, {old: 100})


def test_a_canary_keeps_its_replicas_until_its_smaller_weight_is_accepted(at_the_edge):
    world = at_the_edge
    unaccepted(world, canary={"model": V2, "weight": 75})
    canary = world.status().canary.revision
    world.edit(canary={"model": V2, "weight": 5})
    world.settle()
    assert world.weights()[canary] == 5
    assert world.replicas()[canary] == 3
    world.accepts = True
    world.settle()
    assert world.replicas()[canary] == 1


def test_what_an_unaccepted_route_may_lead_to_keeps_its_replicas_while_none_is_ready(at_the_edge):
    world = at_the_edge
    old = unaccepted(world)
    world.edit(model=V2)
    world.settle(3)
    world.deployments()[old]["status"]["availableReplicas"] = 0
    world.reconcile()
    assert world.replicas()[old] == 4


def test_fewer_replicas_are_asked_for_and_had_whatever_the_gateway_has_accepted(at_the_edge):
    world = at_the_edge
    old = unaccepted(world, canary={"model": V2, "weight": 0})
    world.edit(canary={"model": V2, "weight": 25}, replicas=2)
    world.settle()
    assert NOT_YET in routed(world).message
    assert world.replicas()[old] == 2


def test_a_drain_that_a_roll_back_ended_begins_anew(at_the_edge):
    """While no gateway accepts a route, nobody drains who did before it was asked for again."""
    world = at_the_edge
    world.edit(replicas=4)
    world.settle()
    old, model = world.status().stable.revision, world.raw["spec"]["model"]
    world.edit(model=V2)
    for _ in range(20):
        world.reconcile()
        world.run_pods()
        if world.status().draining:
            break
    assert [each.revision for each in world.status().draining] == [old]
    world.accepts = False
    world.edit(traffic=PUBLIC | {"hosts": ["two.example.com"]})
    world.reconcile()
    world.reconcile()
    assert NOT_YET in routed(world).message
    for back in (model, V2):
        world.edit(model=back)
        world.reconcile()
        world.reconcile()
    world.now += timedelta(minutes=1)
    world.reconcile()
    assert world.replicas()[old] == 4


def test_a_gateway_beside_one_that_is_absent_has_to_accept_the_route_too(at_the_edge):
    world = at_the_edge
    world.edit(traffic=PUBLIC | {"gateways": ["edge/public", "edge/gone"]})
    old = unaccepted(world)
    world.absent = frozenset({"edge/gone"})
    world.edit(model=V2)
    world.settle(40)
    assert world.replicas()[old] == 4
    assert routed(world).reason == "GatewayAbsent"
    assert NOT_YET in routed(world).message
    world.accepts = True
    world.settle()
    assert world.replicas()[old] == 0
    assert "accepted" not in routed(world).message


CRASHES = {
    "name": "yoloserve",
    "restartCount": 9,
    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
    "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
}


@pytest.mark.parametrize("crashes", [False, True])
@pytest.mark.parametrize("steps", [STEPS_HELD | {"maxSurge": 1}, {"strategy": "InPlace"}])
def test_what_is_called_off_goes_back_by_the_gateways_that_follow(at_the_edge, steps, crashes):
    """One of two accepts nothing any more: that keeps nobody from the way back by the other."""
    world = at_the_edge
    world.edit(traffic=PUBLIC | {"gateways": ["edge/public", "edge/second"]})
    world.edit(replicas=4, rollout=steps)
    world.settle()
    old, model = world.status().stable.revision, world.raw["spec"]["model"]
    world.edit(model=V2)
    for _ in range(12 if "steps" in steps else 3):
        world.reconcile()
        world.run_pods()
    (new,) = world.weights().keys() - {old}
    assert world.weights()[new] >= 33
    assert world.replicas()[old] < 4
    world.stays_behind = frozenset({"second"})
    if crashes:
        world.broken = {V2["uri"]}
        world.deployments()[new]["status"]["availableReplicas"] = 0
        world.pods = [
            {
                "metadata": {"name": "p", "labels": {"yolofleet.io/revision": new}},
                "status": {"containerStatuses": [CRASHES]},
            }
        ]
    had = world.replicas()[new]
    world.edit(model=model)
    world.settle(40)
    assert "second has not accepted the route as it is now yet" in routed(world).message
    assert world.weights() == {old: 100}
    assert world.ready(old) == 4
    assert world.replicas() == {old: 4, new: 0 if crashes else had}, "second may send to it"
    world.stays_behind, world.pods = frozenset(), []
    world.settle(40)
    assert world.replicas() == {old: 4, new: 0}


def test_a_third_spec_too_has_the_second_walked_back_by_the_gateways_that_follow(at_the_edge):
    world = at_the_edge
    world.edit(traffic=PUBLIC | {"gateways": ["edge/public", "edge/second"]})
    world.edit(replicas=4, rollout=STEPS_HELD | {"maxSurge": 1})
    world.settle()
    old = world.status().stable.revision
    world.edit(model=V2)
    world.settle()
    (second,) = world.weights().keys() - {old}
    assert (world.weights()[second], world.replicas()) == (75, {old: 2, second: 3})
    world.stays_behind = frozenset({"second"})
    world.edit(model=V3)
    world.settle(40)
    third = world.status().rollout.revision
    assert world.weights() == {old: 100, third: 0}
    assert world.replicas() == {old: 4, second: 3, third: 0}
    world.stays_behind = frozenset()
    world.settle()
    assert world.replicas() == {old: 2, second: 0, third: 3}


def parent(name, **condition):
    told = {"type": "Accepted", "status": "True", "observedGeneration": 3} | condition
    return {"parentRef": {"name": name}, "conditions": [told]}


@pytest.mark.parametrize(
    ("told", "by"),
    [
        ([parent("a"), parent("b")], Following.YES),
        ([parent("a")], Following.YES),  # and b is told of
        ([parent("a"), parent("b", observedGeneration=2)], Following.PENDING),
        ([parent("a", observedGeneration=2)], Following.PENDING),
        ([parent("a", status="False")], Following.NOBODY),
        ([parent("a", type="ResolvedRefs")], Following.NOBODY),
        ([parent("c")], Following.NOBODY),
        ([parent("a", status="False"), parent("a")], Following.YES),  # two controllers
        ([], Following.NOBODY),
    ],
)
def test_a_gateway_follows_what_it_accepted_at_this_generation(told, by):
    route = {
        "metadata": {"name": "gate", "namespace": "shop", "generation": 3},
        "spec": {"parentRefs": [{"kind": "Gateway", "name": "a"}, {"name": "b"}]},
        "status": {"parents": told},
    }
    found = accepted(route)
    assert found.by is by
    assert bool(found.why) is (
        len({each["parentRef"]["name"] for each in told} & {"a", "b"}) < 2
        or by is not Following.YES
    )


def test_a_delegate_that_nobody_references_splits_nothing(world):
    world.delegated = False
    world.settle()
    assert routed(world).status == "True"
    assert "the Service gate sends everything to" in routed(world).message
    world.edit(model=V2, rollout=STEPS)
    world.settle(40)
    assert (routed(world).status, routed(world).reason) == ("False", "NotReferenced")
    assert "no VirtualService delegates to shop/gate" in routed(world).message
    assert sorted(world.weights().values()) == [50, 50]
    world.delegated = True
    world.settle()
    assert list(world.weights().values()) == [100]


def test_a_root_that_cannot_be_read_is_not_known_and_steps_go_on(world):
    world.delegated = False
    world.defaults = Defaults("serve:cpu", "serve:torch", "serve:gpu", namespaces=("shop",))
    world.settle()
    world.edit(canary={"model": V2, "weight": 50})
    world.settle()
    assert (routed(world).status, routed(world).reason) == ("Unknown", "RouteUnseen")
    assert "watchNamespaces" in routed(world).message
    world.edit(model=V2, canary=None, rollout=STEPS)
    world.settle(40)
    assert list(world.weights().values()) == [100]


def test_a_gateway_that_went_is_told_and_no_step_advances(world):
    world.edit(traffic=PUBLIC)
    world.settle()
    world.absent = frozenset({"edge/public"})
    world.settle()
    assert (routed(world).status, routed(world).reason) == ("False", "GatewayAbsent")
    assert "spec.traffic.gateways: edge/public does not exist" in routed(world).message
    assert world.status().url == "http://gate.shop.svc"
    world.edit(model=V2, rollout=STEPS)
    world.settle(40)
    assert sorted(world.weights().values()) == [50, 50]
    world.absent = frozenset()
    world.settle()
    assert list(world.weights().values()) == [100]
    assert world.status().url == "http://gate.example.com"


def test_of_several_gateways_one_that_exists_routes():
    assert on_gateways(["a", "b/c"], "shop", {"b/c"}).by is Following.YES
    assert on_gateways(["a", "b/c"], "shop", {"b/c"}).status is False
    assert on_gateways(["a", "b/c"], "shop", {"b/c", "shop/a"}).by is Following.NOBODY
    assert on_gateways(["mesh", "b/c"], "shop", {"b/c"}).by is Following.YES
    assert on_gateways([], "shop", {"b/c"}) == Followed()


def test_who_delegates_is_known_while_it_can_be_read():
    assert delegated("shop/gate", Mesh(delegates=True, everywhere=False)).by is Following.YES
    assert delegated("shop/gate", Mesh(everywhere=True)).by is Following.NOBODY
    assert delegated("shop/gate", Mesh(everywhere=False)).by is Following.UNKNOWN


# what the cache knows of others' objects


def held(name, kind, uid="r", version="1", namespace="edge", **spec):
    metadata = {"name": name, "namespace": namespace, "uid": uid, "resourceVersion": version}
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, "spec": spec}


def detector(**traffic):
    made = held("gate", kinds.DETECTOR, uid="d", namespace="shop")
    made["spec"] = {"model": {"uri": "demo://shapes"}, "traffic": traffic}
    return made


def test_a_root_of_a_user_wakes_whom_it_delegates_to_and_is_held_small():
    cache = Cache()
    cache.put(kinds.DETECTOR, detector())
    assert not cache.elsewhere("shop/gate", detector(), DEFAULTS).mesh.delegates
    http = [{"match": [], "delegate": {"name": "gate", "namespace": "shop"}}, {"route": []}]
    root = held("cameras", kinds.VIRTUAL_SERVICE, hosts=["a.example.com"], http=http)
    assert delegates_of(root) == {"shop/gate"}
    cache.put(kinds.VIRTUAL_SERVICE, root)
    assert cache.routes.stirred() == {"shop/gate"}
    assert cache.elsewhere("shop/gate", detector(), DEFAULTS).mesh.delegates
    assert cache.routes.holder(("mesh of shop", "a.example.com")) == ""
    entry = cache.named(kinds.VIRTUAL_SERVICE, "edge", "cameras")
    assert entry is not None
    assert not entry.manifest()["spec"]
    cache.remove(kinds.VIRTUAL_SERVICE, "r", 2)
    assert cache.routes.stirred() == {"shop/gate"}
    assert not cache.elsewhere("shop/gate", detector(), DEFAULTS).mesh.delegates


def test_our_own_route_is_held_whole():
    cache = Cache()
    ours = held("gate", kinds.VIRTUAL_SERVICE, namespace="shop", hosts=["a.example.com"])
    ours["metadata"]["labels"] = child_labels("gate")
    cache.put(kinds.VIRTUAL_SERVICE, ours)
    entry = cache.named(kinds.VIRTUAL_SERVICE, "shop", "gate")
    assert entry is not None
    assert entry.manifest()["spec"] == {"hosts": ["a.example.com"]}
    assert cache.routes.holder(("mesh of shop", "a.example.com")) == "shop/gate"


def test_a_gateway_that_comes_or_goes_wakes_who_names_it():
    cache = Cache()
    wish = detector(hosts=["a.example.com"], gateways=["edge/public"])
    cache.put(kinds.DETECTOR, wish)
    cache.routes.stirred()
    assert not cache.elsewhere("shop/gate", wish, DEFAULTS).absent, "nobody knows"
    cache.set_served(kinds.ISTIO_GATEWAY, True)

    def absent(defaults=DEFAULTS):
        return [set(each) for each in cache.elsewhere("shop/gate", wish, defaults).absent.values()]

    assert absent() == [{"edge/public"}]
    elsewhere = Defaults("a", "b", "c", namespaces=("shop",))
    assert absent(elsewhere) == [set()], "where nobody may look, nothing is known to be absent"
    cache.put(kinds.ISTIO_GATEWAY, held("public", kinds.ISTIO_GATEWAY, uid="g"))
    assert cache.routes.stirred() == {"shop/gate"}
    assert absent() == [set()]
    cache.put(kinds.ISTIO_GATEWAY, held("public", kinds.ISTIO_GATEWAY, uid="g", version="2"))
    assert cache.routes.stirred() == set()
    cache.remove(kinds.ISTIO_GATEWAY, "g", 3)
    assert cache.routes.stirred() == {"shop/gate"}
