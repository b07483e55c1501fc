"""Nobody who answers stops before another does: at zero replicas, and beside a stable that died."""

from datetime import timedelta
from itertools import product
from typing import Any

import pytest

from yolofleet.analysis.margins import margins_hash
from yolofleet.api.analysis import Failed
from yolofleet.api.detector import Detector
from yolofleet.api.names import FAILED_ANNOTATION, RELEASED_ANNOTATION, REVISION_LABEL
from yolofleet.plan.live import FRAMES_OF_A_POD
from yolofleet.routers import gateway, istio

GPU = "nvidia.com/gpu"
MATCH = [{"headers": {"x-canary": {"exact": "always"}}}]
V1, V2, V3, V4 = ({"uri": f"demo://shapes-v{version}"} for version in (1, 2, 3, 4))


def released(world: Any, **spec: Any) -> str:
    """Bring the world to a settled release; return the stable revision."""
    world.edit(**{"model": V1, **spec})
    world.settle()
    return world.status().stable.revision


def at_zero(world, **canary):
    """Serve by a canary alone; return the name of the podless stable revision and the canary's."""
    old = released(world, canary={"model": V2, "weight": 10, **canary})
    first = world.status().canary.revision
    world.edit(replicas=0)
    world.settle()
    assert world.replicas()[old] == 0
    return old, first


def who_answers(world):
    """Return of whom pods are ready and requests get there, by the route, or by the Service."""
    ready = {name for name in world.deployments() if world.ready(name)}
    if by_route := world.weights():
        return {name for name, weight in by_route.items() if weight} & ready
    selector = world.children["Service", "gate"]["spec"]["selector"]
    return ready & {selector.get(REVISION_LABEL, name) for name in ready}


@pytest.fixture(params=["istio", "gateway", "service"])
def routed_world(request, world):
    """A world with each of the routers."""
    world.mesh, world.gateway = request.param == "istio", request.param == "gateway"
    if request.param == "gateway":
        gateways = ["infra/public"]
        world.edit(traffic={"hosts": ["gate.example.com"], "gateways": gateways})
    return world


def test_scaling_to_zero_moves_the_route_to_the_canary_with_the_pods_of_the_stable(routed_world):
    world = routed_world
    released(world, canary={"model": V2, "weight": 10})
    canary = world.status().canary.revision
    world.edit(replicas=0)
    for _ in range(4):
        world.reconcile()
        if world.weights():
            assert who_answers(world) == {canary}
        assert canary in who_answers(world)
        world.run_pods(1)
    assert world.weights().get(canary, 100) == 100


@pytest.mark.parametrize("replicas", [1, 3])
def test_at_zero_replicas_a_canary_answers_until_the_next_one_is_ready(routed_world, replicas):
    world = routed_world
    old, first = at_zero(world, replicas=replicas)
    assert who_answers(world) == {first}
    world.edit(canary={"model": V3, "weight": 10, "replicas": replicas})
    for _ in range(5):  # it starts slowly
        world.reconcile()
        assert who_answers(world) == {first}
        assert world.replicas()[first] == replicas
        world.now += timedelta(minutes=5)
    second = world.status().canary.revision
    for _ in range(20):
        world.run_pods(1)
        world.reconcile()
        assert who_answers(world)
        world.now += timedelta(seconds=20)
    assert who_answers(world) == {second}
    assert world.replicas() == {old: 0, first: 0, second: replicas}


def test_whoever_is_scaled_to_zero_with_another_canary_answers_by_the_former(world):
    released(world, canary={"model": V2, "weight": 10})
    first = world.status().canary.revision
    world.edit(replicas=0, canary={"model": V3, "weight": 10})
    world.broken = {V3["uri"]}
    for _ in range(6):
        world.reconcile()
        assert first in who_answers(world)
        world.run_pods()
        world.now += timedelta(minutes=5)
    world.edit(canary=None)
    world.settle()
    assert set(world.replicas().values()) == {0}


def test_a_stable_that_dies_leaves_the_service_to_whoever_answers_while_a_third_comes(world):
    world.mesh = False
    old = released(world, replicas=3, rollout={"strategy": "InPlace"})
    world.edit(model=V2)
    for _ in range(3):
        world.reconcile()
        world.run_pods(1)
    second = next(name for name in world.deployments() if name != old)
    world.broken = {V1["uri"], V3["uri"]}
    world.run_pods()
    world.reconcile()
    assert who_answers(world) == {second}
    world.edit(model=V3)
    for _ in range(6):
        world.reconcile()
        assert who_answers(world) == {second}
        world.run_pods()
        world.now += timedelta(minutes=5)
    world.broken = set()
    for _ in range(20):
        world.run_pods(1)
        world.reconcile()
        assert who_answers(world)
        world.now += timedelta(seconds=20)
    assert who_answers(world) == {world.status().stable.revision}


RELEASES = {
    "whole": {"strategy": "BlueGreen"},
    "replica by replica": {"strategy": "InPlace"},
    "steps": {"strategy": "Canary", "steps": [{"weight": 50, "hold": "1m"}]},
}


def can(world, *strategies):
    """Say whether what routes in `world` can walk these: steps need parts."""
    return "steps" not in strategies or world.mesh or world.gateway


def dying(world, rollout, replicas=3):
    """Release V1, then V2, whose pods die as soon as it is stable; return the names of both."""
    old = released(world, replicas=replicas, rollout=rollout)
    world.edit(model=V2)
    for _ in range(60):
        world.reconcile()
        if world.status().stable.revision != old:
            break
        world.run_pods()
        world.now += timedelta(seconds=5)
    new = world.status().stable.revision
    assert new != old
    world.broken = {V2["uri"]}
    world.run_pods()
    assert not world.ready(new)
    return old, new


def is_answered(world, looks=20, seconds=20):
    """Let time pass; return who answered at the end, after somebody always did."""
    for _ in range(looks):
        world.reconcile()
        assert who_answers(world)
        world.run_pods(1)
        world.now += timedelta(seconds=seconds)
    return who_answers(world)


@pytest.mark.parametrize("rollout", RELEASES)
@pytest.mark.parametrize("later", [0, 20])
def test_a_stable_that_dies_leaves_its_requests_to_the_one_before_that_drains(
    routed_world, rollout, later
):
    world = routed_world
    if not can(world, rollout):
        return
    old, new = dying(world, RELEASES[rollout])
    if not world.ready(old):
        assert rollout == "replica by replica"
        return
    world.broken = set()
    world.run_pods()
    for _ in range(3):  # the route is at the new one, and the old one drains
        world.reconcile()
    assert who_answers(world) == {new}
    world.now += timedelta(seconds=later)
    world.broken = {V2["uri"]}
    world.run_pods()
    assert is_answered(world) == {old}
    assert world.status().stable.revision == new
    world.broken = set()
    assert is_answered(world, looks=40) == {new}
    assert world.replicas() == {old: 0, new: 3}


@pytest.mark.parametrize(
    ("rollout", "after", "replicas"),
    [
        ("whole", "whole", 1),
        ("whole", "replica by replica", 1),
        *product(RELEASES, RELEASES, [3]),
    ],
)
def test_what_comes_after_one_that_died_takes_over_from_the_one_before(
    routed_world, rollout, after, replicas
):
    world = routed_world
    if not can(world, rollout, after):
        return
    old, new = dying(world, RELEASES[rollout], replicas)
    if not world.ready(old):
        return
    assert is_answered(world, looks=3, seconds=10)
    world.edit(model=V3, rollout=RELEASES[after])
    third = is_answered(world, looks=60)
    assert third == {world.status().stable.revision}
    assert not third & {old, new}
    assert world.replicas() == {old: 0, new: 0, third.pop(): replicas}


def test_what_comes_after_one_that_died_is_whole_beside_an_autoscaler(world):
    scaled = {"minReplicas": 3, "maxReplicas": 6, "targetCPUUtilization": 60}
    world.edit(resources={"requests": {"cpu": "1"}})
    old, new = dying(world, RELEASES["whole"])
    world.edit(replicas=None, autoscaling=scaled)
    assert is_answered(world, looks=3, seconds=10) == {old}
    world.edit(model=V3)
    third = is_answered(world, looks=40)
    assert third == {world.status().stable.revision}
    assert world.replicas() == {old: 0, new: 0, third.pop(): 3}


def test_what_comes_after_one_that_died_is_compared_with_the_one_that_answers(world):
    world.mesh = True
    old, new = dying(world, RELEASES["whole"])
    assert is_answered(world, looks=2, seconds=5) == {old}
    world.edit(model=V3, rollout={**RELEASES["steps"], "analysis": {}})
    is_answered(world, looks=3, seconds=5)
    assert world.status().stable.revision == new
    trial = world.decide().trial
    assert (trial.against, trial.revision) == (old, world.status().rollout.revision)


def two_that_could_stand_in(world, younger):
    """Let two before V2, which dies, still have pods; return the names of all three.

    younger: pods of the younger; the older has three.
    """
    older = released(world, model={"uri": "demo://shapes-v0"}, replicas=3)
    world.now += timedelta(minutes=5)
    old, new = dying(world, RELEASES["whole"])
    for name, replicas in ((older, 3), (old, younger)):
        world.deployments()[name]["spec"]["replicas"] = replicas
        world.deployments()[name]["status"] = {"availableReplicas": replicas}
    return older, old, new


def test_of_two_that_stand_in_it_is_compared_with_the_one_that_the_service_selects(world):
    world.mesh = False
    older, _, _ = two_that_could_stand_in(world, 2)
    world.edit(model=V3, rollout={**RELEASES["whole"], "analysis": {}})
    assert is_answered(world, looks=3, seconds=5) == {older}
    assert world.decide().trial.against == older


@pytest.mark.parametrize("after", RELEASES)
def test_of_two_that_could_stand_in_the_younger_does_and_a_third_finds_room(routed_world, after):
    world = routed_world
    if not can(world, after):
        return
    older, old, new = two_that_could_stand_in(world, 3)
    assert is_answered(world) == {old}
    assert world.replicas() == {older: 0, old: 3, new: 3}
    world.edit(model=V3, rollout=RELEASES[after])
    third = is_answered(world, looks=60)
    assert third == {world.status().stable.revision}
    assert {name: pods for name, pods in world.replicas().items() if pods} == {third.pop(): 3}


def call_off(world, name):
    """Note that `name` failed, by the limits that the detector has now."""
    limits = Detector.parse(world.raw).spec.rollout.analysis
    failed = Failed(revision=name, check="errors", at=world.now, margins_hash=margins_hash(limits))
    note = failed.model_dump_json(by_alias=True, exclude_none=True)
    for kind in ("Deployment", "ControllerRevision"):
        annotations = world.children[kind, name]["metadata"].setdefault("annotations", {})
        annotations[FAILED_ANNOTATION] = note


@pytest.mark.parametrize("was", ["never released", "called off"])
def test_what_nobody_is_to_get_does_not_answer_for_one_that_died(routed_world, was):
    world = routed_world
    old, new = dying(world, RELEASES["whole"])
    if was == "called off":
        world.edit(rollout={**RELEASES["whole"], "analysis": {}})
        call_off(world, old)
    else:
        for kind in ("Deployment", "ControllerRevision"):
            world.children[kind, old]["metadata"]["annotations"].pop(RELEASED_ANNOTATION)
    for _ in range(4):
        world.reconcile()
        assert who_answers(world) == set()
        assert world.status().stable.revision == new


@pytest.mark.parametrize("third", [False, True])
def test_what_stands_in_stays_when_nobody_is_ready_for_a_moment(routed_world, third):
    world = routed_world
    old, new = dying(world, RELEASES["whole"])
    assert is_answered(world, looks=3, seconds=10) == {old}
    if third:
        world.broken |= {V3["uri"]}
        world.edit(model=V3)
        assert is_answered(world, looks=3) == {old}
    world.deployments()[old]["status"]["availableReplicas"] = 0
    for _ in range(3):
        world.reconcile()
        assert world.replicas()[old] == 3
        world.now += timedelta(minutes=5)
    world.run_pods()
    assert is_answered(world) == {old}
    assert world.status().stable.revision == new


@pytest.mark.parametrize("after", ["whole", "replica by replica"])
def test_what_stood_in_and_died_too_is_in_the_way_of_nothing(routed_world, after):
    world = routed_world
    dying(world, RELEASES["whole"])
    is_answered(world, looks=3, seconds=10)
    world.broken |= {V1["uri"]}
    world.run_pods()
    world.reconcile()
    assert who_answers(world) == set()
    world.edit(model=V3, rollout=RELEASES[after])
    world.settle(30)
    third = world.status().stable.revision
    assert who_answers(world) == {third}
    assert world.replicas()[third] == 3
    assert sum(world.replicas().values()) == 3


def test_what_stood_in_and_died_too_leaves_the_accelerators_to_stable(world):
    world.scheduler = True
    world.nodes = [{"metadata": {"name": "n"}, "status": {"allocatable": {GPU: "6"}}}]
    world.edit(resources={"limits": {GPU: 1}, "requests": {"cpu": "1"}})
    old, new = dying(world, RELEASES["whole"])
    assert is_answered(world, looks=3, seconds=10) == {old}
    world.nodes[0]["status"]["allocatable"][GPU] = "3"
    ours = [pod for pod in world.pods if pod["metadata"]["labels"][REVISION_LABEL] == new]
    for pod in ours:  # their node is gone
        del pod["spec"]["nodeName"]
    world.broken = {V1["uri"]}
    world.run_pods()
    world.settle()
    assert who_answers(world) == {new}
    assert world.replicas() == {old: 0, new: 3}


def test_a_pause_leaves_its_pods_to_a_stable_that_died(routed_world):
    world = routed_world
    old, new = dying(world, RELEASES["whole"])
    assert is_answered(world, looks=3, seconds=10) == {old}
    world.edit(model=V3, rollout={**RELEASES["whole"], "paused": True})
    assert is_answered(world) == {old}
    assert world.replicas()[new] == 3, "weights and replicas stay"
    world.broken = set()
    assert is_answered(world) == {new}


DARK = {
    "weight 0": {"model": V3, "weight": 0},
    "matched": {"model": V3, "weight": 0, "match": MATCH},
}


def whom_it_selects(world):
    """Return the revisions of which the Service selects pods, ready or not."""
    selector = world.children["Service", "gate"]["spec"]["selector"]
    running = {name for name, replicas in world.replicas().items() if replicas}
    return running & {selector.get(REVISION_LABEL, name) for name in running}


def standing_in(world):
    """Let V1 answer by the Service in the place of V2, which died; return the names of both."""
    world.mesh = False
    old, new = dying(world, RELEASES["whole"])
    assert is_answered(world, looks=3, seconds=10) == {old}
    return old, new


def is_answered_by(world, names, *, never=(), looks=20):
    """Let time pass: somebody always answers, at last `names`; of `never` no pod is selected."""
    for _ in range(looks):
        world.reconcile()
        assert who_answers(world)
        assert not whom_it_selects(world) & {*never}
        world.run_pods(1)
        world.now += timedelta(seconds=20)
    assert who_answers(world) == {*names}


def test_what_stands_in_is_not_taken_all_at_once_by_a_drained_node(routed_world):
    world = routed_world
    old, _ = dying(world, RELEASES["whole"])
    assert ("PodDisruptionBudget", old) not in world.children
    assert is_answered(world, looks=3, seconds=10) == {old}
    selector = world.children["PodDisruptionBudget", old]["spec"]["selector"]
    assert selector["matchLabels"][REVISION_LABEL] == old
    world.broken = set()
    is_answered(world)
    assert ("PodDisruptionBudget", old) not in world.children


@pytest.mark.parametrize("dark", DARK)
@pytest.mark.parametrize("steps", [None, *RELEASES])
def test_a_canary_in_the_dark_takes_nobody_his_stand_in(world, dark, steps):
    old, new = standing_in(world)
    rollout = RELEASES[steps] if steps else None
    if steps == "replica by replica":
        return  # refused at admission beside a canary
    world.edit(canary=DARK[dark], rollout=rollout)
    world.reconcile()
    canary = world.status().canary.revision
    is_answered_by(world, {old}, never={canary})
    assert world.ready(canary)
    assert world.status().stable.revision == world.stands_for() == new
    weights = {each.name: each.weight for each in world.status().revisions}
    assert weights == {new: 0, canary: 0, old: 100}
    routed, ready = (world.status().condition(name) for name in ("TrafficRouted", "Ready"))
    assert f"everything to {old}" in routed.message
    assert f"meanwhile requests go to {old}, which is not released by that" in ready.message
    world.broken = set()
    is_answered_by(world, {new}, never={canary}, looks=40)
    assert world.replicas() == {old: 0, new: 3, canary: 1}


def test_a_canary_that_goes_into_the_dark_is_shown_no_more(world):
    old, _ = standing_in(world)
    world.edit(canary={"model": V3, "weight": 20})
    canary = world.decide().canary
    is_answered_by(world, {old, canary})
    world.edit(canary=DARK["weight 0"])
    is_answered_by(world, {old}, never={canary})
    world.edit(canary={"model": V3, "weight": 20})
    is_answered_by(world, {old, canary})
    world.edit(canary=None)
    is_answered_by(world, {old})


@pytest.mark.parametrize("after", ["whole", "replica by replica"])
@pytest.mark.parametrize("ready", [None, 0, 1, 3])
def test_a_third_that_is_paused_answers_for_nobody(world, after, ready):
    old, new = standing_in(world)
    world.edit(model=V3, rollout=RELEASES[after])
    third = world.decide().target
    if ready is not None:
        world.reconcile()
        world.run_pods(ready)
    pods = world.replicas()[old]
    world.edit(rollout={**RELEASES[after], "paused": True})
    is_answered_by(world, {old}, never={third})
    assert world.replicas()[old] == pods, "none is given up for one that answers nobody"
    assert world.status().stable.revision == world.stands_for() == new
    world.edit(rollout=RELEASES[after])
    is_answered_by(world, {third}, looks=60)
    assert world.replicas() == {old: 0, new: 0, third: 3}


@pytest.mark.parametrize("canary", [None, {"model": V3, "weight": 20, "replicas": 3}])
def test_a_roll_back_that_is_paused_leaves_the_stand_in_where_it_is(world, canary):
    old, new = standing_in(world)
    world.edit(canary=canary)
    answer = {old, world.decide().canary} - {None}
    is_answered_by(world, answer)
    world.edit(model=V1, rollout={**RELEASES["whole"], "paused": True})
    is_answered_by(world, answer)
    assert world.status().stable.revision == new
    world.edit(rollout=RELEASES["whole"])
    is_answered_by(world, {old})
    assert world.status().stable.revision == world.selected() == old


def test_what_goes_into_the_dark_has_taken_no_pod_of_the_stand_in(world):
    old, _ = standing_in(world)
    world.edit(canary={"model": V4, "weight": 20, "replicas": 2})
    canary = world.decide().canary
    is_answered_by(world, {old, canary})
    world.edit(model=V3, canary={"model": V4, "weight": 0})
    world.reconcile()
    assert who_answers(world) == {old}
    assert world.replicas()[old] == 3


@pytest.mark.parametrize("asked", [V2, V3])
def test_another_former_one_that_failed_keeps_nobody_from_the_good_one(world, asked):
    old, new = standing_in(world)
    world.edit(model=V3, rollout={**RELEASES["whole"], "analysis": {}})
    is_answered(world, looks=6)
    third = world.status().rollout.revision
    assert world.ready(third) == 3
    call_off(world, third)
    world.edit(model=asked)
    is_answered_by(world, {old}, never={third})
    assert world.status().stable.revision == new
    assert world.replicas() == {old: 3, new: 3, third: 0}


def test_what_answered_and_failed_does_no_more_though_its_stand_in_is_short(world):
    old, new = standing_in(world)
    world.edit(canary={"model": V3, "weight": 20})
    canary = world.decide().canary
    is_answered_by(world, {old, canary})
    world.edit(rollout={**RELEASES["whole"], "analysis": {}})
    call_off(world, canary)
    world.deployments()[old]["status"]["availableReplicas"] = 2
    is_answered_by(world, {old}, never={canary})
    assert world.replicas() == {old: 3, new: 3, canary: 0}


def test_a_canary_that_is_removed_answers_while_its_stand_in_is_short(world):
    old, _ = standing_in(world)
    world.edit(canary={"model": V3, "weight": 20})
    canary = world.decide().canary
    is_answered_by(world, {old, canary})
    world.edit(canary=None)
    for ready, answer in ((2, {old, canary}), (3, {old})):
        world.deployments()[old]["status"]["availableReplicas"] = ready
        for _ in range(3):
            world.reconcile()
            assert who_answers(world) == answer
            world.now += timedelta(seconds=60)
    assert world.replicas()[canary] == 0


def test_a_third_that_is_judged_in_the_dark_answers_once_nobody_else_is_there(world):
    old, new = standing_in(world)
    world.edit(model=V3, rollout={**RELEASES["whole"], "analysis": {}})
    world.reconcile()
    third = world.status().rollout.revision
    is_answered_by(world, {old}, never={third})
    assert world.ready(third) == 3
    world.broken |= {V1["uri"]}
    world.run_pods()
    assert is_answered(world) == {third}
    assert world.status().stable.revision == new


def test_of_several_beside_one_that_may_not_answer_the_one_with_most_pods_does(world):
    old, _ = standing_in(world)
    world.edit(model=V3, rollout={**RELEASES["whole"], "paused": True})
    world.edit(canary={"model": V4, "weight": 20, "replicas": 2})
    canary = world.decide().canary
    is_answered_by(world, {old})
    assert world.ready(canary) == 2
    for ready, answers in ((2, old), (1, canary), (2, canary), (3, old), (2, old)):
        world.deployments()[old]["status"]["availableReplicas"] = ready
        for _ in range(3):
            world.reconcile()
            assert who_answers(world) == {answers}
            world.now += timedelta(seconds=60)
    assert world.replicas()[old] == 3, "the canary alone was too few"


def test_whoever_begins_anew_in_the_middle_takes_no_stand_in_for_the_stable_one(world):
    old, new = standing_in(world)
    world.edit(canary=DARK["weight 0"])
    is_answered_by(world, {old})
    world.raw["status"] = {}
    for count in range(len(world.think().desired) + 1):
        for manifest in world.think().desired[:count]:
            world._write(manifest)
        world.raw["status"] = {}
        assert world.decide().stable == new
        assert who_answers(world) == {old}
    world.reconcile()
    world.broken = set()
    is_answered_by(world, {new}, looks=40)
    assert world.replicas()[old] == 0


@pytest.mark.parametrize("dark", [*DARK, None])
def test_without_room_for_both_the_stand_in_keeps_its_accelerators(world, dark):
    world.scheduler = True
    world.nodes = [{"metadata": {"name": "n"}, "status": {"allocatable": {GPU: "6"}}}]
    world.edit(resources={"limits": {GPU: 1}, "requests": {"cpu": "1"}})
    old, new = standing_in(world)
    world.nodes[0]["status"]["allocatable"][GPU] = "3"
    for pod in world.pods:  # their node is gone
        if pod["metadata"]["labels"][REVISION_LABEL] == new:
            pod["spec"]["nodeName"] = ""
    world.edit(canary=DARK[dark] if dark else None)
    is_answered_by(world, {old})
    assert world.ready(old) == 3
    assert world.status().condition("GPUAvailable").status == "False"
    world.nodes[0]["status"]["allocatable"][GPU] = "9"
    world.broken = set()
    is_answered_by(world, {new}, looks=40)
    assert world.ready(new) == 3


@pytest.mark.parametrize("back", [V1, V3])
@pytest.mark.parametrize("stood_in", [True, False])
def test_an_autoscaler_of_a_dead_stable_keeps_no_release_from_its_end(world, back, stood_in):
    world.edit(resources={"requests": {"cpu": "1"}})
    _, new = dying(world, RELEASES["whole"])
    scaled = {"minReplicas": 3, "maxReplicas": 6, "targetCPUUtilization": 60}
    world.edit(replicas=None, autoscaling=scaled, rollout=RELEASES["steps"] | {"maxSurge": 1})
    world.reconcile()
    if not stood_in:
        world.broken |= {V1["uri"]}
        world.settle(3)
    world.deployments()[new]["spec"]["replicas"] = 6  # of its own accord; it never gives them up
    world.broken -= {back["uri"]}
    world.edit(model=back)
    world.settle(40)
    assert world.status().stable.revision != new
    assert who_answers(world) == {world.status().stable.revision}
    assert world.replicas()[new] == 0


def test_status_says_who_answers_by_a_service_in_the_place_of_one_that_died(world):
    world.mesh = False
    old, new = dying(world, RELEASES["whole"])
    is_answered(world, looks=3, seconds=10)
    assert {each.name: each.weight for each in world.status().revisions} == {new: 0, old: 100}
    world.broken = set()
    world.run_pods(1)
    world.reconcile()
    assert {each.name: each.weight for each in world.status().revisions} == {new: 25, old: 75}


def test_traffic_routed_says_to_whom_the_service_of_a_delegate_leads(world):
    old, new = dying(world, RELEASES["whole"])
    is_answered(world, looks=4, seconds=10)
    routed = world.status().condition("TrafficRouted")
    assert f"the Service sends to all that is ready of {new} and {old}" in routed.message


def test_whoever_stands_in_shows_no_more_copies_than_stable_would(world):
    dying(world, RELEASES["whole"])
    is_answered(world, looks=3, seconds=10)
    world.edit(canary={"model": V3, "weight": 0, "shadow": 100, "replicas": 1})
    is_answered(world, looks=3)
    shadow = world.decide().shadow
    assert shadow.max_per_second == pytest.approx(FRAMES_OF_A_POD / 3, abs=0.01)


def who_answers_what_matches(world):
    """Return the revision with ready pods to which the route leads what matches; None: nobody."""
    for router in (istio, gateway):
        if route := world.children.get((router.KIND, "gate")):
            name = router.matched(route["spec"])
            return name if name and world.ready(name) else None
    return None


@pytest.mark.parametrize("replicas", [0, 2])
def test_what_matches_is_answered_until_the_next_canary_is_ready(routed_world, replicas):
    world = routed_world
    released(world, canary={"model": V2, "match": MATCH})
    first = world.status().canary.revision
    world.edit(replicas=replicas)
    world.settle()
    routes = bool(world.weights())
    assert who_answers_what_matches(world) == (first if routes else None)
    world.edit(canary={"model": V3, "match": MATCH})
    for _ in range(5):  # it starts slowly
        world.reconcile()
        if not replicas and routes:
            assert who_answers_what_matches(world) == first, "nobody else is there to answer"
            assert world.replicas()[first] == 1
        else:
            assert who_answers_what_matches(world) is None, "the stable revision answers it"
        world.now += timedelta(minutes=5)
    second = world.status().canary.revision
    for _ in range(20):
        world.run_pods(1)
        world.reconcile()
        assert replicas or not routes or who_answers_what_matches(world)
        world.now += timedelta(seconds=20)
    assert who_answers_what_matches(world) == (second if routes else None)
    assert world.replicas().get(first, 0) == 0


def test_at_zero_replicas_it_is_said_that_only_what_matches_is_answered(world):
    released(world, canary={"model": V2, "match": MATCH})
    canary = world.status().canary.revision
    world.edit(replicas=0)
    world.settle()
    [ready] = [each for each in world.status().conditions if each.type == "Ready"]
    answered = f"only what matches spec.canary.match is answered, by {canary}"
    assert (ready.reason, ready.message) == (
        "ScaledToZero",
        f"spec.replicas is 0: {answered}; raise it to serve again",
    )
    world.edit(canary=None)
    world.settle()
    [ready] = [each for each in world.status().conditions if each.type == "Ready"]
    assert ready.message == "spec.replicas is 0: nothing serves; raise it to serve again"
