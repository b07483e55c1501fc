"""Releases as a user drives them: edits of the resource, and what traffic and pods do meanwhile."""

import copy
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from yolofleet.api.base import InvalidSpec
from yolofleet.api.detector import Detector
from yolofleet.api.names import RENDER_ANNOTATION, REVISION_LABEL
from yolofleet.plan.revisions import stable_revision

V1, V2 = {"uri": "demo://shapes"}, {"uri": "demo://shapes-v2"}
SCALED = {
    "replicas": None,
    "autoscaling": {"minReplicas": 2, "maxReplicas": 10, "cpu": 60},
    "resources": {"requests": {"cpu": "1"}},
}
GPU = {"resources": {"limits": {"nvidia.com/gpu": 1}, "requests": {"cpu": "1"}}}


def detector_of(world: Any, **spec: Any) -> Detector:
    return Detector.parse(world.raw | {"spec": world.raw["spec"] | spec})


def condition(world: Any, kind: str) -> Any:
    return world.status().condition(kind)


def revision_of(world: Any, uri: str) -> str:
    [name] = [
        n for n, d in world.deployments().items() if f'"{uri}"' in str(d["metadata"]["annotations"])
    ]
    return name


def released(world: Any, **spec: Any) -> str:
    """Bring the world to a settled release; return the stable revision."""
    world.edit(**spec)
    world.settle()
    return world.status().stable.revision


def test_the_first_revision_becomes_stable_and_ready(world):
    stable = released(world)
    assert world.weights() == {stable: 100}
    assert world.selected() == stable
    assert condition(world, "Ready").status == "True"
    assert condition(world, "Progressing").reason == "Settled"
    assert world.status().observed_generation == 2


def proxied(cpu: Any, memory: Any = "1Gi") -> dict[str, Any]:
    """Return a pod template with a container of these amounts."""
    resources = {"requests": {"cpu": cpu}, "limits": {"memory": memory}}
    proxy = {"name": "proxy", "image": "proxy:1", "resources": resources}
    return {"spec": {"containers": [proxy]}}


def test_the_same_amounts_in_other_words_are_no_release(world):
    """0.5 for 500m made another revision, and replaced all pods by the same ones."""
    stable = released(world, podTemplate=proxied("500m"))
    pods = copy.deepcopy(world.deployments())
    for words in (proxied(0.5), proxied("0.5", "1024Mi"), proxied("500m", 1073741824)):
        assert released(world, podTemplate=words) == stable
        assert world.deployments() == pods
        assert condition(world, "Released").status == "True"
    assert released(world, podTemplate=proxied("501m")) != stable


def test_the_same_amounts_in_other_words_are_a_roll_back(world):
    first = released(world, podTemplate=proxied("500m"))
    assert released(world, podTemplate=proxied(1)) != first
    assert released(world, podTemplate=proxied("0.5")) == first


def test_a_canary_promoted_in_other_words_keeps_its_pods(world):
    released(world, podTemplate=proxied("500m"))
    world.edit(canary={"podTemplate": proxied(1), "weight": 10})
    world.settle()
    canary = world.decide().canary
    assert released(world, podTemplate=proxied("1000m"), canary=None) == canary


def test_where_both_words_have_a_revision_the_one_that_serves_stays(world):
    """So it may be once an operator that took them for two was upgraded."""
    stable = released(world, podTemplate=proxied("500m"))
    record = world.deployments()[stable]["metadata"]["annotations"][RENDER_ANNOTATION]
    other = stable_revision(detector_of(world, podTemplate=proxied("0.5")), world.defaults)
    twin = copy.deepcopy(world.deployments()[stable])
    assert record != other.record()
    twin["metadata"] |= {"name": other.name, "uid": "twin"}
    twin["metadata"]["annotations"] = {RENDER_ANNOTATION: other.record()}
    twin["spec"]["replicas"], twin["status"]["availableReplicas"] = 0, 0
    world.children["Deployment", other.name] = twin
    assert released(world, podTemplate=proxied("0.5")) == stable


def test_a_canary_gets_its_weight_once_it_is_ready(world):
    stable = released(world)
    world.edit(canary={"model": V2, "weight": 10})
    world.reconcile()
    canary = world.decide().canary
    assert world.weights() == {stable: 100, canary: 0}
    assert condition(world, "CanaryHealthy").status == "Unknown"
    world.settle()
    assert world.weights() == {stable: 90, canary: 10}
    assert world.status().canary.weight == 10
    assert condition(world, "CanaryHealthy").status == "True"


@pytest.mark.parametrize("kind", ["Service", "DestinationRule"])
def test_the_pointer_stays_where_the_route_is_while_what_it_needs_next_is_missing(world, kind):
    """What was refused is in the memory of a process alone; what is missing anybody sees."""
    old = released(world)
    world.edit(model=V2)
    target = world.decide().target
    for _ in range(6):
        world.reconcile()
        world.children.pop((kind, target), None)  # its write is refused
        world.run_pods()
    assert world.ready(target)
    assert (world.decide().stable, world.selected()) == (old, old)
    world.settle()
    assert world.selected() == target


def test_a_revision_that_the_route_still_names_keeps_its_replicas_while_none_is_ready(world):
    """The route could not be written: one blink of these pods was an outage for good."""
    old = released(world)
    route = copy.deepcopy(world.children["VirtualService", "gate"])
    assert released(world, model=V2) != old
    world.children["VirtualService", "gate"] = route
    world.deployments()[old]["spec"]["replicas"] = 2
    assert world.ready(old) == 0
    assert world.decide().replicas(old) == 2
    world.settle()
    assert world.replicas()[old] == 0


def test_a_move_that_broke_off_between_pointer_and_route_goes_on_and_not_back(world):
    """Our note on the Deployment, just before, has made its status one of a generation ago."""
    old = released(world)
    world.edit(model=V2)
    while world.selected() == old:
        world.run_pods()
        route, status = world.children["VirtualService", "gate"], copy.deepcopy(world.status())
        world.reconcile()
    world.children["VirtualService", "gate"] = route
    world.raw["status"] = status.dump()
    new = world.selected()
    world.deployments()[new]["metadata"]["generation"] = 3
    world.deployments()[new]["status"]["observedGeneration"] = 2
    assert (world.weights()[old], world.status().stable.revision) == (100, old)
    assert world.decide().stable == new


def test_promotion_moves_the_pointer_and_touches_no_pod(world):
    old = released(world, canary={"model": V2, "weight": 50})
    new = world.status().canary.revision
    pods = {n: copy.deepcopy(d["spec"]["template"]) for n, d in world.deployments().items()}

    world.edit(model=V2, canary=None)
    world.reconcile()
    assert world.weights() == {old: 50, new: 50}, "the old weights hold until the capacity is there"
    assert world.status().stable.revision == old
    world.run_pods()
    world.reconcile()
    assert world.weights() == {new: 100}
    assert world.selected() == new
    assert world.status().stable.revision == new
    assert world.replicas()[old] == 2, "the old revision still finishes its requests"
    assert {n: d["spec"]["template"] for n, d in world.deployments().items()} == pods

    world.settle()
    assert world.replicas() == {old: 0, new: 2}


def test_rolling_back_finds_the_former_revision_and_its_pods(world):
    old = released(world)
    new = released(world, model=V2)
    assert world.replicas() == {old: 0, new: 2}
    template = copy.deepcopy(world.deployments()[old]["spec"]["template"])
    assert released(world, model=V1) == old
    assert world.deployments()[old]["spec"]["template"] == template
    assert world.weights() == {old: 100}


def test_rolling_back_while_the_old_one_drains_needs_no_new_pod(world):
    old = released(world)
    world.edit(model=V2)
    world.reconcile()
    world.run_pods()
    world.reconcile()
    world.reconcile()
    assert [d.revision for d in world.status().draining] == [old]
    world.edit(model=V1)
    world.reconcile()
    assert world.weights() == {old: 100}
    assert world.status().stable.revision == old


def test_a_clock_that_was_set_back_delays_no_drain(world):
    old = released(world)
    world.edit(model=V2)
    world.reconcile()
    world.run_pods()
    world.reconcile()
    world.reconcile()
    assert [d.revision for d in world.status().draining] == [old]
    world.now -= timedelta(hours=1)
    world.reconcile()
    world.now += timedelta(seconds=30)
    world.reconcile()
    assert world.replicas()[old] == 0


def test_pods_outlive_their_last_weight_by_the_drain_time(world):
    old = released(world)
    world.edit(model=V2)
    world.reconcile()
    world.run_pods()
    world.reconcile()  # moves the route
    plan = world.reconcile()  # sees it moved
    assert plan.requeue_after == timedelta(seconds=30)
    world.now += timedelta(seconds=29)
    world.reconcile()
    assert world.replicas()[old] == 2
    world.now += timedelta(seconds=1)
    world.reconcile()
    assert world.replicas()[old] == 0


def test_a_new_revision_that_never_gets_ready_changes_no_traffic(world):
    old = released(world)
    world.broken.add("broken")
    world.edit(model={"uri": "https://models/broken.onnx"})
    world.settle()
    assert world.weights()[old] == 100
    assert world.selected() == old
    assert condition(world, "Ready").status == "True"
    assert condition(world, "Progressing").reason == "RollingOut"


def test_a_canary_that_never_gets_ready_gets_no_traffic(world):
    old = released(world)
    world.broken.add("broken")
    world.edit(canary={"model": {"uri": "https://models/broken.onnx"}, "weight": 30})
    world.settle()
    assert world.weights()[old] == 100
    assert condition(world, "TrafficRouted").reason == "ShortOfCapacity"


def test_a_canary_gets_no_more_than_its_replicas_carry(world):
    released(world, replicas=4)
    world.edit(canary={"model": V2, "weight": 80, "replicas": 1})
    world.settle()
    assert world.status().canary.weight == 25
    assert "raise spec.canary.replicas" in condition(world, "TrafficRouted").message


def test_calling_the_canary_off_gives_stable_everything_and_drains_it(world):
    old = released(world, canary={"model": V2, "weight": 50})
    canary = world.status().canary.revision
    world.edit(canary=None)
    world.reconcile()
    assert world.weights() == {old: 100}
    assert world.replicas()[canary] == 1
    world.settle()
    assert world.replicas() == {old: 2, canary: 0}


def test_traffic_returns_to_stable_only_as_fast_as_it_can_carry_it(world):
    old = released(world, canary={"model": V2, "weight": 50})
    canary = world.status().canary.revision
    world.deployments()[old]["status"]["availableReplicas"] = 1
    world.edit(canary={"model": V2, "weight": 10})
    world.reconcile()
    assert world.weights() == {old: 50, canary: 50}
    world.run_pods()
    world.reconcile()
    assert world.weights() == {old: 90, canary: 10}


def test_a_new_model_at_zero_replicas_keeps_no_old_pod(world):
    old = released(world)
    world.edit(model=V2, replicas=0)
    world.settle()
    assert old not in world.weights()
    assert set(world.replicas().values()) == {0}


def test_one_that_comes_back_from_zero_leaves_the_first_pod_to_no_others(world):
    """Somebody scaled up the revision that is given up: its pods go, and nobody would answer."""
    held = {"strategy": "Canary", "steps": [{"weight": 10, "hold": "Approval"}]}
    stable = released(world, rollout=held)
    world.edit(model=V2, replicas=0)
    world.settle()
    [given_up] = world.replicas().keys() - {stable}
    world.edit(model=V1, replicas=1)
    world.deployments()[given_up]["spec"]["replicas"] = 7
    world.run_pods()
    world.reconcile()
    assert world.replicas()[stable] == 1


def test_growing_moves_no_traffic_onto_a_stable_that_is_itself_short(world):
    old = released(world, canary={"model": V2, "weight": 50})
    canary = world.status().canary.revision
    world.edit(replicas=6)
    world.reconcile()
    ready = {old: 2, canary: 1}
    assert {n: round(w / ready[n] / 5) for n, w in world.weights().items()} == {old: 7, canary: 7}
    world.settle()
    assert world.weights() == {old: 50, canary: 50}


def test_lowering_the_weight_keeps_the_pods_until_the_router_has_let_go(world):
    released(world, replicas=4, canary={"model": V2, "weight": 50})
    canary = world.status().canary.revision
    assert world.replicas()[canary] == 2
    world.edit(canary={"model": V2, "weight": 10})
    world.reconcile()
    assert (world.weights()[canary], world.replicas()[canary]) == (10, 2)
    world.reconcile()
    assert world.replicas()[canary] == 1


@pytest.mark.parametrize("seen", [6, 7], ids=["the spec before is told of", "pods still count"])
def test_rolling_back_onto_pods_that_are_going_waits_for_new_ones(world, seen):
    """A Deployment's status still counts pods for a while after it was scaled down.

    Those that were to go are not asked for again before they are gone: they would count as ready.
    """
    old = released(world)
    new = released(world, model=V2)
    deployment = world.deployments()[old]
    deployment["metadata"]["generation"] = 7
    deployment["status"] = {"availableReplicas": 2, "observedGeneration": seen}
    world.edit(model=V1)
    for _ in range(3):
        world.reconcile()
        assert world.replicas()[old] == 0
        assert world.weights()[new] == 100
        assert world.status().stable.revision == new
        world.deployments()[old]["metadata"]["generation"] = 7
    world.deployments()[old]["status"] = {"availableReplicas": 0, "observedGeneration": 7}
    world.reconcile()
    assert world.replicas()[old] == 2
    assert world.weights()[new] == 100
    world.settle()
    assert world.weights()[old] == 100
    assert world.status().stable.revision == old


def test_the_outgoing_revision_does_not_grow_with_the_new_size(world):
    old = released(world)
    world.edit(model=V2, replicas=10)
    world.reconcile()
    assert world.replicas() == {old: 2, revision_of(world, "demo://shapes-v2"): 10}


def test_an_image_that_was_never_to_be_had_is_not_kept(world):
    world.reconcile()
    [name] = world.deployments()
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    world.pods = [
        {
            "metadata": {"name": "p", "labels": {"yolofleet.io/revision": name}},
            "status": {"containerStatuses": [{"name": "yoloserve", "state": waiting}]},
        }
    ]
    world.defaults = replace(world.defaults, image_cpu="serve:mended")
    world.reconcile()
    [pod] = world.deployments()[name]["spec"]["template"]["spec"]["containers"]
    assert pod["image"] == "serve:mended"


def test_a_third_spec_in_mid_rollout_lets_the_second_go(world):
    first = released(world)
    world.broken.add("second")
    world.edit(model={"uri": "https://models/second.onnx"})
    world.reconcile()
    second = revision_of(world, "https://models/second.onnx")
    third = released(world, model=V2)
    assert world.weights() == {third: 100}
    assert world.replicas() == {first: 0, second: 0, third: 2}


STRATEGIES = [
    {"strategy": "BlueGreen"},
    {"strategy": "InPlace"},
    *(
        {"strategy": "Canary", "steps": [{"weight": 5, "hold": "10s"}], **surge}
        for surge in ({}, {"maxSurge": 1})
    ),
]


@pytest.mark.parametrize("rollout", STRATEGIES, ids=lambda r: "-".join(map(str, r.values())))
@pytest.mark.parametrize("pods", [1, 2])
@pytest.mark.parametrize(("before", "after"), [(1, 2), (1, 3), (2, 3), (3, 4), (3, 2)])
def test_a_third_spec_with_more_replicas_does_not_wait_for_the_second(
    world, rollout, pods, before, after
):
    """Stable is short at once, the canary that is no more serves in its place, and room is scarce.

    Stable has to grow, and whoever is not needed has to make room, or nobody ever moves on.
    """
    old = released(world, replicas=before)
    world.edit(canary={"model": V2, "weight": 50, "replicas": pods})
    world.settle(4)
    world.edit(
        model={"uri": "https://models/third.onnx"}, canary=None, replicas=after, rollout=rollout
    )
    world.settle(40)
    third = revision_of(world, "https://models/third.onnx")
    assert (world.status().stable.revision, third != old) == (third, True)
    assert world.weights() == {third: 100}
    assert {name: n for name, n in world.replicas().items() if n} == {third: after}


def test_when_stable_has_nothing_ready_the_canary_serves(world):
    old = released(world, canary={"model": V2, "weight": 10})
    canary = world.status().canary.revision
    world.deployments()[old]["status"]["availableReplicas"] = 0
    world.reconcile()
    assert world.weights() == {old: 0, canary: 100}


def test_a_dark_launch_gets_no_traffic_even_then(world):
    old = released(world, canary={"model": V2, "weight": 0})
    canary = world.status().canary.revision
    world.deployments()[old]["status"]["availableReplicas"] = 0
    world.reconcile()
    assert world.weights() == {old: 100, canary: 0}
    assert world.replicas()[canary] == 1


def test_a_fix_of_a_broken_first_release_serves_with_its_first_replica(world):
    world.broken.add("broken")
    world.edit(model={"uri": "https://models/broken.onnx"})
    world.settle()
    world.edit(model=V1)
    world.reconcile()
    world.run_pods(step=1)
    world.reconcile()
    broken, fix = world.status().stable.revision, revision_of(world, "demo://shapes")
    assert world.weights() == {broken: 0, fix: 100}
    world.settle()
    assert world.status().stable.revision == fix


def test_the_pointer_does_not_move_because_stable_blinks(world):
    old = released(world, replicas=3)
    world.edit(model=V2)
    world.reconcile()
    new = revision_of(world, "demo://shapes-v2")
    world.run_pods(step=1)
    world.deployments()[old]["status"]["availableReplicas"] = 0
    world.reconcile()
    assert (world.status().stable.revision, world.selected()) == (old, old)
    assert world.weights() == {old: 0, new: 100}, "traffic goes to whoever is alive"
    assert f"requests go to {new}" in condition(world, "Ready").message
    world.deployments()[old]["status"]["availableReplicas"] = 3
    world.reconcile()
    world.reconcile()
    assert world.weights() == {old: 100, new: 0}, "a whole set goes over at once, when it is whole"
    assert (world.status().stable.revision, world.replicas()) == (old, {old: 3, new: 3})


@pytest.mark.parametrize("weight", [0, 10])
def test_without_a_mesh_the_service_takes_in_whoever_may_answer_until_stable_is_back(world, weight):
    world.mesh = False
    old = released(world, canary={"model": V2, "weight": weight})
    everybody = {"yolofleet.io/detector": "gate"}
    selector = world.children["Service", "gate"]["spec"]["selector"]
    world.deployments()[old]["status"]["availableReplicas"] = 0
    world.reconcile()
    after = world.children["Service", "gate"]["spec"]["selector"]
    assert after == (everybody if weight else selector), "a dark launch gets no request even then"
    world.deployments()[old]["status"]["availableReplicas"] = 2
    world.reconcile()
    assert world.children["Service", "gate"]["spec"]["selector"] == selector


def test_headers_reach_the_canary_only_while_it_is_ready(world):
    released(world)
    match = [{"headers": {"x-canary": {"exact": "always"}}}]
    world.edit(canary={"model": V2, "weight": 0, "match": match})
    world.reconcile()
    assert len(world.children["VirtualService", "gate"]["spec"]["http"]) == 1
    world.settle()
    matched, _ = world.children["VirtualService", "gate"]["spec"]["http"]
    assert matched["match"] == match
    assert matched["route"][0]["destination"]["host"] == world.status().canary.revision


def test_nothing_that_is_written_or_told_takes_the_clusters_domain_for_known(world):
    """A name with dots is a whole one for Istio: in a cluster of another domain it led nowhere."""
    old = released(world)
    world.edit(canary={"model": V2, "weight": 10})
    world.settle()
    weighted = world.children["VirtualService", "gate"]["spec"]["http"][-1]["route"]
    canary = world.status().canary.revision
    assert [to["destination"]["host"] for to in weighted] == [old, canary]
    assert [world.children["DestinationRule", each]["spec"]["host"] for each in (old, canary)] == [
        old,
        canary,
    ]
    written = [*world.children.values(), world.status().model_dump(mode="json")]
    assert "cluster.local" not in json.dumps(written)


def test_without_istio_the_service_follows_the_release(world):
    world.mesh = False
    old = released(world)
    assert world.selected() == old
    assert not [k for k, _ in world.children if k in ("VirtualService", "DestinationRule")]
    new = released(world, model=V2)
    assert world.selected() == new
    assert condition(world, "TrafficRouted").status == "True"


def test_a_canary_without_istio_runs_dark_and_says_so(world):
    world.mesh = False
    stable = released(world, canary={"model": V2, "weight": 10})
    assert world.selected() == stable
    assert condition(world, "TrafficRouted").reason == "MeshAbsent"
    assert world.status().canary.ready == 1
    world.mesh = True
    world.settle()
    assert world.status().canary.weight == 10


def test_history_is_bounded_and_the_oldest_goes_first(world):
    names = []
    for n in range(5):
        world.now += timedelta(minutes=5)
        names.append(released(world, model={"uri": f"https://models/{n}.onnx"}))
    assert set(world.replicas()) == set(names[-3:])


def test_an_upgraded_operator_with_other_defaults_restarts_no_pod(world):
    stable = released(world, canary={"model": V2, "weight": 10})
    before = copy.deepcopy(world.deployments())
    world.defaults = type(world.defaults)(
        image_cpu="serve:next", image_torch="", image_gpu="", drain_seconds=99
    )
    world.settle()
    assert world.deployments() == before
    assert released(world, model=V2, canary=None) != stable
    images = {
        d["spec"]["template"]["spec"]["containers"][0]["image"]
        for d in world.deployments().values()
    }
    assert images == {"serve:cpu"}, "promotion keeps the canary's pods as they were judged"


def test_lost_status_is_rebuilt_from_the_world(world):
    old = released(world)
    world.broken.add("broken")
    world.edit(model={"uri": "https://models/broken.onnx"})
    world.settle()
    world.raw["status"] = {"stable": "garbage", "draining": 7}
    world.reconcile()
    assert world.status().stable.revision == old
    assert world.weights()[old] == 100


def test_suspended_means_hands_off(world):
    released(world)
    released(world, canary={"model": V2, "weight": 100})
    before, stable = copy.deepcopy(world.children), world.status().stable.revision
    world.edit(suspend=True, model=V2, canary=None)
    world.settle()
    assert world.children == before
    assert condition(world, "Progressing").reason == "Suspended"
    assert condition(world, "Ready").status == "True"
    assert world.status().stable.revision == stable


def test_a_revision_whose_record_was_edited_is_neither_written_nor_deleted(world):
    old = released(world)
    world.deployments()[old]["metadata"]["annotations"]["yolofleet.io/render"] = "{}"
    world.children["ControllerRevision", old]["data"] = {"record": "{}"}
    new = released(world, model=V2)
    assert world.status().stable.revision == new
    assert world.replicas()[old] == 2
    assert world.children["ControllerRevision", old]["data"] == {"record": "{}"}


class TestAutoscaling:
    def test_the_autoscaler_owns_the_replicas_once_they_run(self, world):
        stable = released(world, **SCALED)
        assert world.replicas()[stable] == 2
        assert world.decide().replicas(stable) is None
        hpa = world.children["HorizontalPodAutoscaler", stable]
        assert hpa["spec"]["scaleTargetRef"]["name"] == stable
        assert (hpa["spec"]["minReplicas"], hpa["spec"]["maxReplicas"]) == (2, 10)

    def test_a_promotion_starts_with_what_the_old_one_served_with(self, world):
        old = released(world, **SCALED)
        world.deployments()[old]["spec"]["replicas"] = 7  # the autoscaler's
        world.settle()
        world.edit(model=V2)
        world.reconcile()
        new = revision_of(world, "demo://shapes-v2")
        assert world.replicas()[new] == 7
        world.run_pods(step=6)
        world.reconcile()
        assert world.status().stable.revision == old, "six are not seven"
        world.run_pods()
        world.settle()
        assert world.replicas() == {old: 0, new: 7}
        assert [k for k in world.children if k[0] == "HorizontalPodAutoscaler"] == [
            ("HorizontalPodAutoscaler", new)
        ]

    @pytest.mark.parametrize("weight", [50, 90, 100])
    def test_a_canary_keeps_its_replicas_when_the_autoscaler_sees_stable_idle(self, world, weight):
        released(world, **SCALED)
        stable = world.status().stable.revision
        world.deployments()[stable]["spec"]["replicas"] = 8
        world.settle()
        world.edit(canary={"model": V2, "weight": weight})
        world.settle()
        canary = world.status().canary.revision
        needed = world.replicas()[canary]
        for _ in range(5):  # the autoscaler follows what is left to stable
            world.deployments()[stable]["spec"]["replicas"] = max(2, 8 * (100 - weight) // 100)
            world.settle(2)
        assert world.replicas()[canary] == needed
        assert world.weights()[canary] == weight
        world.edit(model=V2, canary=None)
        world.settle()
        assert world.status().stable.revision == canary
        assert world.replicas()[canary] >= 7

    def test_turning_it_off_goes_back_to_the_replicas_asked_for(self, world):
        stable = released(world, **SCALED)
        released(world, autoscaling=None, replicas=3)
        assert world.replicas()[stable] == 3


class TestAccelerators:
    @staticmethod
    def node(gpus: str, **spec: Any) -> dict[str, Any]:
        return {
            "metadata": {"name": "n"},
            "spec": spec,
            "status": {"allocatable": {"cpu": "8", "nvidia.com/gpu": gpus}},
        }

    @staticmethod
    def pod(revision: str = "", node: str = "n") -> dict[str, Any]:
        container = {"name": "c", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
        return {
            "metadata": {"name": "p", "labels": {"yolofleet.io/revision": revision}},
            "spec": {"nodeName": node, "containers": [container]},
        }

    def test_without_a_node_no_pod_is_made_and_the_numbers_are_told(self, world):
        world.edit(**GPU)
        plan = world.reconcile()
        assert set(world.replicas().values()) == {0}
        told = condition(world, "GPUAvailable")
        assert (told.status, told.reason) == ("False", "Missing")
        assert "a replica needs 1 nvidia.com/gpu; 0 nodes offer it" in told.message
        assert plan.requeue_after is not None

    def test_a_cordoned_node_offers_nothing(self, world):
        world.nodes = [self.node("4", unschedulable=True)]
        world.edit(**GPU)
        world.reconcile()
        assert condition(world, "GPUAvailable").status == "False"

    def test_what_others_hold_is_not_there(self, world):
        world.nodes = [self.node("1")]
        world.others = [self.pod()]
        world.edit(**GPU)
        world.reconcile()
        assert set(world.replicas().values()) == {0}
        told = condition(world, "GPUAvailable").message
        assert "1 are offered: 1 held by other pods, 0 by this detector's, 0 free" in told
        world.others = []
        world.settle()
        assert condition(world, "GPUAvailable").status == "True"

    def test_what_the_detector_itself_holds_is_no_shortage(self, world):
        world.nodes = [self.node("2")]
        stable = released(world, **GPU)
        world.pods = [self.pod(stable), self.pod(stable)]
        world.reconcile()
        assert condition(world, "GPUAvailable").status == "True"

    def test_a_replica_that_lost_its_place_is_told(self, world):
        world.nodes = [self.node("2")]
        stable = released(world, **GPU)
        world.pods, world.others = [self.pod(stable)], [self.pod()]
        world.deployments()[stable]["status"]["availableReplicas"] = 1
        plan = world.reconcile()
        told = condition(world, "GPUAvailable")
        assert (told.status, told.reason) == ("False", "Missing")
        assert "1 more replica has no room" in told.message
        assert plan.requeue_after == timedelta(seconds=30)

    def test_a_pod_that_the_scheduler_cannot_place_is_told(self, world):
        world.nodes = [self.node("2")]
        stable = released(world, **GPU)
        why = {"type": "PodScheduled", "status": "False", "message": "Insufficient memory"}
        world.pods = [self.pod(stable, node="") | {"status": {"conditions": [why]}}]
        world.reconcile()
        told = condition(world, "GPUAvailable")
        assert (told.status, told.reason) == ("False", "Unschedulable")
        assert told.message.startswith(f"{stable}: no node fits: Insufficient memory. Add a node")

    def test_a_node_that_appears_is_used(self, world):
        world.edit(**GPU)
        world.reconcile()
        world.nodes = [self.node("4")]
        world.settle()
        assert condition(world, "GPUAvailable").status == "True"
        assert condition(world, "Ready").status == "True"

    def test_where_nodes_follow_pods_these_are_made_and_the_schedulers_words_told(self, world):
        world.scheduler, world.defaults = True, replace(world.defaults, nodes_follow_pods=True)
        world.edit(replicas=2, canary={"model": V2, "weight": 10, "replicas": 1}, **GPU)
        plan = world.reconcile()
        assert (plan.replicas(plan.stable), plan.replicas(plan.canary)) == (2, 1)
        assert plan.missing is None
        why = {"type": "PodScheduled", "status": "False", "message": "Insufficient nvidia.com/gpu"}
        world.run_pods()
        for pod in world.pods:
            pod["status"] = {"conditions": [why]}
        world.reconcile()
        told = condition(world, "GPUAvailable")
        assert (told.status, told.reason) == ("False", "Unschedulable")
        assert condition(world, "Ready").status == "False"
        for pod in world.pods:
            del pod["status"]
        world.nodes = [self.node("3")]
        world.settle()
        assert condition(world, "GPUAvailable").message == "the nodes offer 3 nvidia.com/gpu"
        assert condition(world, "Released").status == "True"

    def test_where_nodes_follow_pods_a_release_waits_for_them_and_stable_goes_on(self, world):
        world.scheduler, world.defaults = True, replace(world.defaults, nodes_follow_pods=True)
        world.nodes = [self.node("2")]
        stable = released(world, replicas=2, **GPU)
        world.edit(model=V2)
        world.settle(20)
        target = world.status().rollout.revision
        assert (world.replicas()[stable], world.ready(stable)) == (2, 2)
        assert (world.replicas()[target], world.ready(target)) == (2, 0)
        world.nodes = [self.node("4")]
        world.settle(20)
        assert world.replicas() == {stable: 0, target: 2}

    def test_the_gpu_image_is_taken_and_no_second_gpu_is_asked_for(self, world):
        world.nodes = [self.node("4")]
        stable = released(world, **GPU)
        spec = world.deployments()[stable]["spec"]
        container = spec["template"]["spec"]["containers"][0]
        assert container["image"] == "serve:gpu"
        assert container["resources"]["limits"] == {"nvidia.com/gpu": "1"}
        assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}

    def test_a_canary_for_which_none_is_free_is_told_to_ask_for_no_more_replicas(self, world):
        world.scheduler, world.nodes = True, [self.node("1")]
        released(world, replicas=1, **GPU)
        world.edit(canary={"model": V2, "weight": 10})
        world.settle()
        assert world.replicas()[world.status().canary.revision] == 0
        message = condition(world, "TrafficRouted").message
        assert message.endswith("accelerator for more: GPUAvailable says what to do")

    @pytest.mark.parametrize(
        ("gpus", "stable", "canary", "made"),
        [(1, 1, 1, (1, 0)), (2, 1, 4, (1, 1)), (3, 2, 1, (2, 1))],
    )
    def test_made_together_stable_has_its_gpus_before_a_canary(
        self, world, gpus, stable, canary, made
    ):
        """Whose pod the scheduler takes first nobody knows: untried it would answer everything."""
        world.scheduler, world.nodes = True, [self.node(str(gpus))]
        asked = {"model": V2, "weight": 10, "replicas": canary}
        world.edit(replicas=stable, canary=asked, **GPU)
        plan = world.reconcile()
        assert (plan.replicas(plan.stable), plan.replicas(plan.canary)) == made
        world.settle()
        assert not [pod for pod in world.pods if not pod["spec"]["nodeName"]], "none is Pending"

    @pytest.mark.parametrize(
        ("replicas", "way_out", "edit"),
        [(1, "release", {"model": V2, "canary": None}), (2, "remove", {"canary": None})],
    )
    def test_who_lost_its_gpu_to_a_canary_is_told_the_way_out(self, world, replicas, way_out, edit):
        """One that answers in the place of a dead stable one goes on, whatever is asked for."""
        world.scheduler, world.nodes = True, [self.node(str(replicas + 1))]
        stable = released(world, replicas=replicas, **GPU)
        world.edit(canary={"model": V2, "weight": 10, "replicas": 1})
        world.settle()
        canary = world.status().canary.revision
        world.nodes = [self.node(str(replicas))]
        world.pods.remove(
            next(p for p in world.pods if p["metadata"]["labels"][REVISION_LABEL] == stable)
        )
        world.settle()
        assert (world.ready(stable), world.ready(canary)) == (replicas - 1, 1)
        told = condition(world, "GPUAvailable").message
        assert told.startswith(f"{stable}: 1 more replica has no room")
        assert told.endswith(f"Or {way_out} spec.canary: {canary} holds what would do")
        world.edit(**edit)
        world.settle(20)
        assert world.ready(world.status().stable.revision) == replicas

    def test_a_canary_without_a_gpu_leaves_stable_alone(self, world):
        stable = released(world)
        world.edit(canary={**GPU, "weight": 10})
        world.settle()
        assert world.weights()[stable] == 100
        assert condition(world, "CanaryHealthy").reason == "Missing"
        assert condition(world, "Ready").status == "True"


def big(kilobytes: int, mark: str = "x") -> dict[str, Any]:
    """Return a pod template of that size."""
    env = [{"name": f"LIST_{i}", "value": mark * 980} for i in range(kilobytes)]
    return {"spec": {"containers": [{"name": "yoloserve", "env": env}]}}


def test_a_big_pod_template_works_from_its_record_alone(world):
    """140 kB are 288 kB of a record, and an object has room for 256 KiB of annotations."""
    stable = released(world, podTemplate=big(140))
    annotations = world.deployments()[stable]["metadata"]["annotations"]
    assert sum(map(len, annotations.values())) < 200_000
    before = copy.deepcopy(world.deployments())
    assert released(world) == stable
    assert world.deployments() == before
    assert released(world, podTemplate=big(140, "y")) != stable
    assert released(world, podTemplate=big(140)) == stable


def test_a_pod_template_too_big_to_be_kept_is_refused_in_words(world):
    with pytest.raises(
        InvalidSpec, match=r"spec.podTemplate: has 6\d\d kB as JSON, and at most 512"
    ):
        detector_of(world, podTemplate=big(600))


@pytest.mark.parametrize("number", range(8))
def test_a_route_to_three_names_them_in_the_same_order_in_every_process(world, number):
    """An order by hash is another one after a restart, and would be written without a reason."""
    world.settle()
    old = world.status().stable.revision
    steps = [{"weight": 50, "hold": "1h"}]
    world.edit(
        model={"uri": f"demo://next-{number}"},
        canary={"model": {"uri": f"demo://trial-{number}"}, "weight": 10},
        rollout={"strategy": "Canary", "steps": steps},
    )
    world.settle(20)
    plan = world.decide()
    assert list(plan.weights) == [old, plan.target, plan.canary]
