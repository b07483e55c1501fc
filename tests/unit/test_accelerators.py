"""How many more pods fit where, and what is said when they do not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.conftest import a_detector

from yolofleet.api.detector import Detector, Resources
from yolofleet.api.pod_template import PodTemplate
from yolofleet.plan.defaults import Defaults
from yolofleet.plan.nodes import BOUNDLESS, NodeRoom, needs_accelerators, room, rooms
from yolofleet.plan.revisions import stable_revision
from yolofleet.plan.shortage import shortage
from yolofleet.workloads.accelerators import place, pod_requests, requests_of, tolerations
from yolofleet.workloads.revision import Revision

GPU = "nvidia.com/gpu"
MIG = "nvidia.com/mig-1g.5gb"
NODE = NodeRoom(
    name="n1", labels={"zone": "a", "gen": "7"}, taints=(), offered={GPU: 8}, free={GPU: 4}
)


@pytest.fixture
def revision(detector_with: Callable[..., Detector]) -> Revision:
    detector = detector_with(resources={"limits": {GPU: "1"}})
    return stable_revision(detector, Defaults(image_cpu="c", image_torch="t", image_gpu="g"))


def with_pod(revision: Revision, **spec: Any) -> Revision:
    return replace(revision, pod_template=PodTemplate(spec=spec))


def asking(revision: Revision, **limits: str) -> Revision:
    named = {name.replace("_", "/", 1): quantity for name, quantity in limits.items()}
    return replace(revision, resources=Resources(limits=named))


@pytest.mark.parametrize(
    ("need", "free", "fit"),
    [
        ({GPU: "1"}, {GPU: 4}, 4),
        ({GPU: "2"}, {GPU: 5}, 2),
        ({GPU: "1"}, {GPU: 0}, 0),
        ({GPU: "1"}, {}, 0),
        ({MIG: "1"}, {GPU: 4, MIG: 7}, 7),
        ({"nvidia.com/gpu.shared": "3"}, {"nvidia.com/gpu.shared": 8}, 2),
        ({GPU: "1", "rdma/hca": "1"}, {GPU: 4, "rdma/hca": 1}, 1),
        ({"cpu": "1"}, {}, BOUNDLESS),
    ],
)
def test_a_node_fits_as_many_as_its_scarcest_accelerator(
    revision: Revision, need: dict[str, str], free: dict[str, int], fit: int
) -> None:
    asker = replace(revision, resources=Resources(limits=need))
    assert room(asker, [replace(NODE, free=free)]) == fit


def test_free_amounts_of_two_nodes_do_not_make_one_replica(revision: Revision) -> None:
    half = replace(NODE, free={GPU: 1})
    asker = replace(revision, resources=Resources(limits={GPU: "2"}))
    assert room(asker, [half, half]) == 0
    told = shortage(asker, 1, [half, half])
    assert told is not None
    assert "2 free, at most 1 on one node" in told


TAINT = {"key": "dedicated", "value": "ml", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("taint", "toleration", "tolerated"),
    [
        (TAINT, None, False),
        (TAINT, {"key": "dedicated", "operator": "Exists"}, True),
        (TAINT, {"key": "dedicated", "value": "ml"}, True),
        (TAINT, {"key": "dedicated", "operator": "Equal", "value": "web"}, False),
        (TAINT, {"key": "other", "operator": "Exists"}, False),
        (TAINT, {"key": "dedicated", "operator": "Exists", "effect": "NoExecute"}, False),
        (TAINT, {"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}, True),
        (TAINT, {"operator": "Exists"}, True),
        (TAINT, "garbage", False),
        (TAINT | {"effect": "NoExecute"}, None, False),
        (TAINT | {"effect": "PreferNoSchedule"}, None, True),
        ({"key": GPU, "value": "present", "effect": "NoSchedule"}, None, True),
        ({"key": GPU, "effect": "NoExecute"}, None, False),
        ({"key": "amd.com/gpu", "effect": "NoSchedule"}, None, False),
    ],
)
def test_a_tainted_node_is_only_for_who_tolerates_it(
    revision: Revision, taint: dict[str, str], toleration: Any, tolerated: bool
) -> None:
    asker = with_pod(revision, tolerations=[toleration]) if toleration else revision
    assert room(asker, [replace(NODE, taints=[taint])]) == (4 if tolerated else 0)


def test_a_slice_tolerates_the_taint_of_whole_gpus_and_what_the_user_says(
    revision: Revision,
) -> None:
    mine = {"key": "dedicated", "operator": "Exists"}
    asker = replace(with_pod(revision, tolerations=[mine]), resources=Resources(limits={MIG: "1"}))
    assert [each["key"] for each in tolerations(asker)] == ["dedicated", GPU, MIG]
    assert tolerations(replace(asker, render_version=1)) == [mine], "an upgrade restarts no pod"


def affinity(*expressions: Any, fields: Any = ()) -> dict[str, Any]:
    term = {"matchExpressions": list(expressions), "matchFields": list(fields)}
    required = {"nodeSelectorTerms": [term]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, "values": list(values)}


@pytest.mark.parametrize(
    ("pod", "allowed"),
    [
        ({"nodeSelector": {"zone": "a"}}, True),
        ({"nodeSelector": {"zone": "b"}}, False),
        ({"nodeSelector": {"zone": "a", "disk": "ssd"}}, False),
        ({"nodeSelector": {"zone": ["a"]}}, False),
        ({"nodeName": "n1"}, True),
        ({"nodeName": "n2"}, False),
        ({"affinity": affinity(expression("zone", "In", "a", "b"))}, True),
        ({"affinity": affinity(expression("zone", "In", "b"))}, False),
        ({"affinity": affinity(expression("disk", "In", "ssd"))}, False),
        ({"affinity": affinity(expression("zone", "NotIn", "b"))}, True),
        ({"affinity": affinity(expression("disk", "NotIn", "ssd"))}, True),
        ({"affinity": affinity(expression("zone", "NotIn", "a"))}, False),
        ({"affinity": affinity(expression("zone", "Exists"))}, True),
        ({"affinity": affinity(expression("disk", "Exists"))}, False),
        ({"affinity": affinity(expression("disk", "DoesNotExist"))}, True),
        ({"affinity": affinity(expression("zone", "DoesNotExist"))}, False),
        ({"affinity": affinity(expression("gen", "Gt", "6"))}, True),
        ({"affinity": affinity(expression("gen", "Gt", "7"))}, False),
        ({"affinity": affinity(expression("gen", "Lt", "8"))}, True),
        ({"affinity": affinity(expression("gen", "Lt", "7"))}, False),
        ({"affinity": affinity(expression("zone", "Gt", "7"))}, False),
        ({"affinity": affinity(expression("gen", "Gt"))}, False),
        ({"affinity": affinity(expression("zone", "Near", "a"))}, False),
        ({"affinity": affinity(expression("zone", "Exists"), expression("gen", "Lt", "1"))}, False),
        ({"affinity": affinity(fields=[expression("metadata.name", "In", "n1")])}, True),
        ({"affinity": affinity(fields=[expression("metadata.name", "In", "n2")])}, False),
        ({"affinity": affinity()}, False),
        (
            {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}},
            True,
        ),
        ({"affinity": {"podAntiAffinity": {}}}, True),
        ({"affinity": "garbage"}, True),
    ],
)
def test_a_node_counts_only_where_the_pod_may_run(
    revision: Revision, pod: dict[str, Any], allowed: bool
) -> None:
    assert room(with_pod(revision, **pod), [NODE]) == (4 if allowed else 0)


def test_terms_of_an_affinity_are_alternatives(revision: Revision) -> None:
    terms = affinity(expression("zone", "In", "b"))
    required = terms["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    required["nodeSelectorTerms"].append({"matchExpressions": [expression("gen", "Exists")]})
    assert room(with_pod(revision, affinity=terms), [NODE]) == 4


def a_node(name: str = "n1", gpus: str = "4", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": spec,
        "status": {"allocatable": {"cpu": "8", "hugepages-2Mi": "0", GPU: gpus}},
    }


def a_pod(*gpus: int, node: str = "n1", phase: str = "Running", **spec: Any) -> dict[str, Any]:
    containers = [{"resources": {"limits": {GPU: number}}} for number in gpus]
    return {
        "spec": {"nodeName": node, "containers": containers, **spec},
        "status": {"phase": phase},
    }


def gpus(*numbers: int, **more: Any) -> list[dict[str, Any]]:
    return [{"resources": {"requests": {GPU: str(number)}}, **more} for number in numbers]


@pytest.mark.parametrize(
    ("pod", "held"),
    [
        (a_pod(1), {GPU: 1}),
        (a_pod(1, 2), {GPU: 3}),
        (a_pod(), {}),
        (a_pod(0), {}),
        (a_pod(1, initContainers=gpus(2)), {GPU: 2}),
        (a_pod(1, initContainers=gpus(2, 4, 1)), {GPU: 4}),
        (a_pod(1, initContainers=gpus(2, restartPolicy="Always")), {GPU: 3}),
        (a_pod(1, initContainers=[*gpus(2, restartPolicy="Always"), *gpus(3)]), {GPU: 5}),
        ({"spec": {"containers": [{"resources": {"limits": {GPU: "many"}}}, "x"]}}, {}),
        ({"spec": {"containers": [{"resources": {"limits": {"cpu": "1"}}}]}}, {}),
        ({}, {}),
    ],
)
def test_a_pod_holds_what_the_scheduler_counts(pod: dict[str, Any], held: dict[str, int]) -> None:
    assert pod_requests(pod) == held


@pytest.mark.parametrize(
    ("pod", "node"),
    [
        (a_pod(1), "n1"),
        (a_pod(1, phase="Pending"), "n1"),
        (a_pod(1, phase="Succeeded"), ""),
        (a_pod(1, phase="Failed"), ""),
        (a_pod(1, node=""), ""),
    ],
)
def test_a_pod_holds_from_its_placement_to_its_end(pod: dict[str, Any], node: str) -> None:
    assert place(pod) == node


def test_what_containers_of_the_pod_template_ask_for_counts(revision: Revision) -> None:
    more = [{"name": "side", "resources": {"limits": {GPU: 1}}}]
    assert requests_of(with_pod(revision, containers=more)) == {GPU: 2}
    server = [{"name": "yoloserve", "resources": {"limits": {GPU: 4}}}]
    assert requests_of(with_pod(revision, containers=server)) == {GPU: 4}


@pytest.mark.parametrize(
    ("spec", "asking"),
    [
        ({}, False),
        ({"resources": {"limits": {GPU: 1}}}, True),
        ({"canary": {"resources": {"limits": {GPU: 1}}}}, True),
        ({"canary": {"model": {"uri": "demo://other"}}}, False),
        (
            {
                "podTemplate": {
                    "spec": {
                        "containers": [
                            {"name": "s", "image": "s:1", "resources": {"limits": {GPU: 1}}}
                        ]
                    }
                }
            },
            True,
        ),
    ],
)
def test_only_a_detector_that_may_need_an_accelerator_looks_for_one(
    detector_with: Callable[..., Detector], spec: dict[str, Any], asking: bool
) -> None:
    assert needs_accelerators(detector_with(**spec), []) is asking


def test_a_release_that_still_runs_on_gpus_looks_for_them(
    detector_with: Callable[..., Detector],
) -> None:
    pods = {"template": {"spec": a_pod(1)["spec"]}}
    before = {"kind": "Deployment", "metadata": {"name": "gate-1a2b3c4d"}, "spec": pods}
    assert needs_accelerators(detector_with(), [before, {"kind": "Service", "spec": {}}])


def test_a_revision_on_gpus_whose_deployment_was_deleted_looks_for_them(new_world) -> None:
    world = new_world(mesh=False)
    world.edit(resources={"limits": {GPU: "1"}})
    world.reconcile()
    children = list(world.children.values())
    world.edit(resources=None)
    assert needs_accelerators(world.detector(), [c for c in children if c["kind"] != "Deployment"])
    assert not needs_accelerators(world.detector(), [c for c in children if c["kind"] == "Service"])


def test_pods_of_all_namespaces_hold_and_those_of_the_detector_are_told_apart() -> None:
    [node] = rooms(
        [a_node(), a_node("n2", "0")][:1], {"n1": {GPU: 3}, "gone": {GPU: 1}}, [a_pod(1)]
    )
    assert (node.offered, node.free, node.own) == ({GPU: 4}, {GPU: 1}, {GPU: 1})


def test_a_node_that_offers_less_than_is_held_has_nothing_free() -> None:
    [node] = rooms([a_node(gpus="1")], {"n1": {GPU: 3}})
    assert node.free == {GPU: 0}


def test_nodes_without_accelerators_are_left_out() -> None:
    plain = {"metadata": {"name": "p"}, "status": {"allocatable": {"cpu": "4"}}}
    assert rooms([plain, {"metadata": {"name": "new"}}], {}) == ()


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (a_node(unschedulable=True), "n1 (4 free) cordoned"),
        (
            a_node()
            | {
                "status": a_node()["status"]
                | {"conditions": [{"type": "Ready", "status": "Unknown"}]}
            },
            "n1 (4 free) not ready",
        ),
        (
            a_node(taints=[TAINT]),
            "n1 (4 free) taint dedicated=ml:NoSchedule is not tolerated. Free nvidia.com/gpu, or"
            " add a node with nvidia.com/gpu (and its device plugin); or tolerate the taint in"
            " spec.podTemplate.spec.tolerations",
        ),
    ],
)
def test_a_node_that_is_left_out_is_named_with_the_reason(
    revision: Revision, node: dict[str, Any], why: str
) -> None:
    told = shortage(revision, 1, rooms([node], {}))
    assert told is not None
    assert f"Left out: {why}" in told


def test_who_holds_what_is_told_in_numbers(revision: Revision) -> None:
    nodes = rooms([a_node(), a_node("n2")], {"n1": {GPU: 4}, "n2": {GPU: 3}}, [a_pod(2)])
    assert shortage(revision, 1, nodes) is None
    told = shortage(revision, 3, nodes)
    assert told == (
        "2 more replicas have no room: a replica needs 1 nvidia.com/gpu; 2 nodes offer it. Where it"
        " may run 8 are offered: 5 held by other pods, 2 by this detector's, 1 free, at most 1 on"
        " one node. Free nvidia.com/gpu, or add a node with nvidia.com/gpu (and its device plugin)"
    )


def test_many_nodes_are_not_all_named(revision: Revision) -> None:
    told = shortage(
        revision, 1, rooms([a_node(f"n{i}", unschedulable=True) for i in range(40)], {})
    )
    assert told is not None
    assert "n4 (4 free) cordoned and 35 more" in told
    assert len(told) < 1000


def test_who_cannot_see_other_namespaces_says_so(revision: Revision) -> None:
    told = shortage(revision, 9, rooms([a_node()], {}, blind=True))
    assert told is not None
    assert "Pods of other namespaces are not seen" in told


amounts = st.dictionaries(st.sampled_from([GPU, MIG]), st.integers(0, 5))
node_rooms = st.builds(
    NodeRoom,
    name=st.sampled_from("abc"),
    labels=st.dictionaries(st.just("zone"), st.sampled_from("xy")),
    taints=st.lists(st.just(TAINT), max_size=1),
    offered=amounts,
    free=amounts,
    out=st.sampled_from(["", "", "cordoned"]),
)


def _a_revision(limits: dict[str, int], pod: dict[str, Any]) -> Revision:
    raw = a_detector(
        resources={"limits": {r: str(n) for r, n in limits.items() if n}}, podTemplate={"spec": pod}
    )
    defaults = Defaults(image_cpu="c", image_torch="t", image_gpu="g")
    return stable_revision(Detector.parse(raw), defaults)


@given(
    limits=amounts,
    pod=st.fixed_dictionaries({}, optional={"nodeSelector": st.just({"zone": "x"})}),
    nodes=st.lists(node_rooms, max_size=5),
    wanted=st.integers(0, 10),
)
def test_room_is_exact_and_a_shortage_is_its_absence(
    limits: dict[str, int], pod: dict[str, Any], nodes: list[NodeRoom], wanted: int
) -> None:
    revision = _a_revision(limits, pod)
    fit = room(revision, nodes)
    assert (shortage(revision, wanted, nodes) is None) is (wanted <= fit)
    if fit == BOUNDLESS:
        assert not any(limits.values())
        return
    assert room(revision, nodes[1:]) + room(revision, nodes[:1]) == fit, "nodes do not add up"
    placed = 0
    for node in nodes:  # place pods one by one until none fits, as a scheduler would
        free = dict(node.free)
        open_to_all = not node.out and not node.taints
        while open_to_all and pod.get("nodeSelector", {}).items() <= node.labels.items():
            free = {r: free.get(r, 0) - limits.get(r, 0) for r in {*free, *limits}}
            if min(free.values()) < 0:
                break
            placed += 1
    assert placed == fit
