"""Devices that pods claim: which of them would do, what is made for it, and what is said."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolofleet.api.detector import Detector
from yolofleet.api.names import DETECTOR_LABEL
from yolofleet.plan.devices import Offer, devices_for
from yolofleet.plan.inventory import Holder, Inventory, devices_in, held_by
from yolofleet.plan.nodes import needs_accelerators
from yolofleet.plan.selectors import Device, selector
from yolofleet.workloads.accelerators import tolerations
from yolofleet.workloads.revision import RENDER_VERSION

CLASS = "gpu.nvidia.com"
CLASSES = {CLASS: (f"device.driver == '{CLASS}'",)}
H100 = Device(
    driver=CLASS,
    pool="n1",
    name="gpu-0",
    node="n1",
    attributes={f"{CLASS}/type": "gpu", f"{CLASS}/cores": 132, f"{CLASS}/ecc": True},
    capacity={f"{CLASS}/memory": "80Gi"},
)
L4 = replace(H100, name="gpu-1", capacity={f"{CLASS}/memory": "24Gi"})
LARGE = f"device.capacity['{CLASS}'].memory.compareTo(quantity('40Gi')) >= 0"
ASKED = {"deviceClassName": CLASS}
NODE: dict[str, Any] = {"metadata": {"name": "n1"}, "spec": {}, "status": {}}


@pytest.mark.parametrize(
    ("expression", "holds", "whole"),
    [
        (f"device.driver == '{CLASS}'", True, True),
        (f'device.driver=="{CLASS}"', True, True),
        ("device.driver == 'other.example.com'", False, True),
        (f"device.attributes['{CLASS}'].type == 'gpu'", True, True),
        (f"device.attributes['{CLASS}'].type == 'mig'", False, True),
        (f"device.attributes['{CLASS}'].type != 'mig'", True, True),
        (f"device.attributes['{CLASS}'].lacks == 'gpu'", False, True),
        (f"device.attributes['{CLASS}'].cores == 132", True, True),
        (f"device.attributes['{CLASS}'].cores == '132'", False, True),
        (f"device.attributes['{CLASS}'].cores != '132'", True, True),
        (f"device.attributes['{CLASS}'].ecc != 1", True, True),
        (f"device.attributes['{CLASS}'].lacks != 'gpu'", False, True),
        (f"device.attributes['{CLASS}'].ecc", True, True),
        (f"device.attributes['{CLASS}'].ecc == false", False, True),
        (LARGE, True, True),
        (LARGE.replace(">=", "<"), False, True),
        (LARGE.replace("40Gi", "80Gi").replace(">=", "=="), True, True),
        (LARGE.replace("memory", "bandwidth"), False, True),
        (f"device.capacity['{CLASS}'].memory == quantity(\"80Gi\")", True, True),
        (f"device.capacity['{CLASS}'].memory != quantity(\"80Gi\")", False, True),
        (f"device.capacity['{CLASS}'].memory.isGreaterThan(quantity('40Gi'))", True, True),
        (f"device.capacity['{CLASS}'].memory.isLessThan(quantity('40Gi'))", False, True),
        (LARGE.replace("40Gi", "forty"), True, False),
        (f"device.driver == '{CLASS}' && {LARGE}", True, True),
        (f"device.driver == '{CLASS}' && {LARGE.replace('40Gi', '90Gi')}", False, True),
        # What is not read narrows nothing, and no part of it does.
        ("device.driver == 'other' || true", True, False),
        ("!(true && device.driver == 'other' && true)", True, False),
        ("device.driver == 'other' ? true : true", True, False),
        ("true // && device.driver == 'other'", True, False),
        ("[1].exists(x, x == 1 && device.driver == 'other' && x == 1)", True, False),
        ("'a && device.driver == \\'other\\' && b' != ''", True, False),
        (f"true && {LARGE.replace('40Gi', '90Gi')}", False, False),
        (f"device.attributes['{CLASS}'].model.startsWith('H')", True, False),
        ("", True, False),
    ],
)
def test_a_selector_is_read_as_far_as_it_is_understood(
    expression: str, holds: bool, whole: bool
) -> None:
    read = selector(expression)
    assert (read.holds(H100), read.whole) == (holds, whole)


@given(st.text(alphabet="device.drv=&|?!()'\"[] a1", max_size=60))
def test_whatever_is_written_reading_it_ends(expression: str) -> None:
    assert isinstance(selector(expression).holds(H100), bool)


def a_slice(generation: int = 1, node: str = "n1", **spec: Any) -> dict[str, Any]:
    pool = {"name": node, "generation": generation, "resourceSliceCount": 1}
    devices = [
        {
            "name": "gpu-0",
            "attributes": {"type": {"string": "gpu"}, "other.com/fast": {"bool": True}},
            "capacity": {"memory": {"value": "80Gi"}},
        }
    ]
    return {"spec": {"driver": CLASS, "pool": pool, "nodeName": node, "devices": devices} | spec}


def test_of_a_pool_the_newest_generation_counts_and_names_get_their_domain() -> None:
    old = a_slice(1, devices=[{"name": "gpu-0"}, {"name": "gpu-1"}])
    [device] = devices_in([old, a_slice(2)])
    assert device.attributes == {f"{CLASS}/type": "gpu", "other.com/fast": True}
    assert (device.capacity, device.node) == ({f"{CLASS}/memory": "80Gi"}, "n1")


@pytest.mark.parametrize("value", [{"version": "550.54.15"}, {"strings": ["550.54.15"]}])
@pytest.mark.parametrize("how", ["==", "!="])
def test_what_cel_takes_for_no_text_is_left_to_the_scheduler(
    how: str, value: dict[str, Any], detector_with: Callable[..., Detector]
) -> None:
    attributes = {"type": {"string": "gpu"}, "driverVersion": value}
    devices = tuple(devices_in([a_slice(devices=[{"name": "gpu-0", "attributes": attributes}])]))

    def offered(attribute: str) -> tuple[int, bool]:
        selector = f"device.attributes['{CLASS}'].{attribute}"
        detector = detector_with(accelerator=ASKED | {"selectors": [selector]})
        there = devices_for(detector, [], Inventory(CLASSES, devices))
        [by_node] = there.by_ask.values()
        return sum(each.offered for each in by_node.values()), not there.unsure

    assert offered(f"driverVersion {how} '550.54.15'") == (1, False)
    assert offered(f"driverVersion {how} '1.0.0'") == (1, False)
    assert offered("type == 'gpu'") == (1, True), "who does not ask for it is sure"
    assert offered(f"type == 'mig' && device.attributes['{CLASS}'].driverVersion") == (0, True)


def a_claim(device: str, detector: str = "", **result: Any) -> dict[str, Any]:
    results = [{"driver": CLASS, "pool": "n1", "device": device} | result]
    labels = {DETECTOR_LABEL: detector} if detector else {}
    return {
        "metadata": {
            "namespace": "shop",
            "labels": labels,
            "ownerReferences": [{"kind": "Pod", "uid": "pod-1", "controller": True}],
        },
        "status": {"allocation": {"devices": {"results": results}}},
    }


def test_a_claim_holds_what_it_was_allocated_unless_it_only_looks_on() -> None:
    of_gate = Holder("shop/gate", "pod-1")
    assert dict(held_by(a_claim("gpu-0", "gate"))) == {(CLASS, "n1", "gpu-0"): of_gate}
    assert dict(held_by(a_claim("gpu-0"))) == {(CLASS, "n1", "gpu-0"): Holder("", "pod-1")}
    assert not dict(held_by(a_claim("gpu-0", adminAccess=True)))
    assert not dict(held_by({"metadata": {"namespace": "shop"}}))


def found(
    detector: Detector, *devices: Device, held: Any = None, classes: Any = None
) -> dict[str, Any]:
    inventory = Inventory(CLASSES if classes is None else classes, devices, held or {})
    return dict(devices_for(detector, [], inventory).by_ask)


def test_devices_that_would_do_are_counted_by_node_and_holder(
    detector_with: Callable[..., Detector],
) -> None:
    far = replace(H100, node="n2", pool="n2")
    other = replace(H100, driver="other.example.com")
    held = {H100.id: Holder("shop/gate"), L4.id: Holder()}
    plain, picky = ASKED, ASKED | {"selectors": [LARGE]}
    detector = detector_with(accelerator=plain, canary={"accelerator": picky})
    there = found(detector, H100, L4, far, other, held=held)
    assert there == {
        CLASS: {"n1": Offer(2, 0, 1), "n2": Offer(1, 1, 0)},
        f"{CLASS} where {LARGE}": {"n1": Offer(1, 0, 1), "n2": Offer(1, 1, 0)},
    }
    assert found(detector, H100, classes={}) == {CLASS: {}, f"{CLASS} where {LARGE}": {}}


def claiming(world: Any, *devices: Device, **accelerator: Any) -> Any:
    """Return the world with these devices, and a detector that claims one a replica."""
    world.nodes, world.inventory = [NODE], Inventory(CLASSES, devices)
    world.edit(accelerator=ASKED | accelerator)
    return world


def one(world: Any, kind: str) -> Any:
    [made] = [child for child in world.think().desired if child["kind"] == kind]
    return made


def said(world: Any, kind: str = "GPUAvailable") -> Any:
    told = world.status().condition(kind)
    assert told
    return told


def test_pods_get_their_claim_from_a_template_that_is_written_before_them(world: Any) -> None:
    claiming(world, H100, L4, count=2, selectors=[LARGE])
    kinds = [child["kind"] for child in world.think().desired]
    assert kinds.index("ResourceClaimTemplate") < kinds.index("Deployment")
    template, deployment = one(world, "ResourceClaimTemplate"), one(world, "Deployment")
    name = deployment["metadata"]["name"]
    assert template["metadata"]["name"] == name
    assert template["spec"]["metadata"]["labels"][DETECTOR_LABEL] == "gate"
    [request] = template["spec"]["spec"]["devices"]["requests"]
    assert request["exactly"] == {
        "deviceClassName": CLASS,
        "allocationMode": "ExactCount",
        "count": 2,
        "selectors": [{"cel": {"expression": LARGE}}],
    }
    pod = deployment["spec"]["template"]["spec"]
    assert pod["resourceClaims"] == [{"name": "accelerator", "resourceClaimTemplateName": name}]
    [server] = pod["containers"]
    assert server["resources"]["claims"] == [{"name": "accelerator"}]
    assert server["image"] == world.defaults.image_gpu
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0
    assert {each["key"] for each in pod["tolerations"]} == {"nvidia.com/gpu"}


def test_claims_of_the_users_own_stay_beside(world: Any) -> None:
    more = {"name": "nic", "resourceClaimName": "fast"}
    container = {"name": "s", "image": "s:1", "resources": {"claims": [{"name": "nic"}]}}
    claiming(world, H100)
    world.edit(podTemplate={"spec": {"resourceClaims": [more], "containers": [container]}})
    pod = one(world, "Deployment")["spec"]["template"]["spec"]
    assert [each["name"] for each in pod["resourceClaims"]] == ["accelerator", "nic"]
    claims = [each["resources"]["claims"] for each in pod["containers"]]
    assert claims == [[{"name": "accelerator"}], [{"name": "nic"}]]


def test_what_is_claimed_makes_a_revision_and_is_read_back_from_its_record(world: Any) -> None:
    plain = world.decide().stable
    claiming(world, H100)
    first = world.decide().stable
    world.edit(accelerator=ASKED | {"count": 2})
    names = {plain, first, world.decide().stable}
    assert len(names) == 3
    claiming(world, H100, L4).settle()
    assert world.status().stable.revision == first
    world.edit(accelerator=ASKED | {"count": 1, "selectors": []})
    assert world.decide().stable == first, "the default is no other revision"
    [seen] = [each for each in world.observed().revisions.values() if each.name == first]
    assert seen.revision is not None
    assert seen.revision.accelerator is not None
    assert seen.revision.accelerator.device_class_name == CLASS
    record = json.loads(seen.revision.record())
    assert record["spec"]["accelerator"] == ASKED


def test_a_template_goes_with_its_revision(world: Any) -> None:
    claiming(world, H100, L4).settle()
    world.edit(accelerator=None, revisionHistory=0)
    world.settle()
    assert [name for kind, name in world.children if kind == "ResourceClaimTemplate"] == []


def test_a_former_revision_keeps_its_template_so_that_a_roll_back_finds_it(world: Any) -> None:
    claiming(world, H100, L4).settle()
    first = world.status().stable.revision
    world.edit(accelerator=None)
    world.settle()
    assert world.status().stable.revision != first
    assert ("ResourceClaimTemplate", first) in world.children


def test_a_canary_has_a_claim_of_its_own_or_limits_in_its_place(world: Any) -> None:
    claiming(world, H100, L4)
    world.edit(canary={"accelerator": ASKED | {"selectors": [LARGE]}})
    templates = [c for c in world.think().desired if c["kind"] == "ResourceClaimTemplate"]
    assert len(templates) == 2
    world.edit(canary={"resources": {"limits": {"nvidia.com/gpu": "1"}}})
    assert len([c for c in world.think().desired if c["kind"] == "ResourceClaimTemplate"]) == 1


def test_without_the_api_nothing_is_made_that_could_not_be_and_it_is_told(world: Any) -> None:
    claiming(world)
    world.inventory = Inventory()
    world.settle()
    assert said(world).reason == "Missing"
    assert "spec.accelerator needs the API resource.k8s.io/v1" in said(world).message
    assert "dra.enabled" in said(world).message
    assert not [name for kind, name in world.children if kind == "ResourceClaimTemplate"]
    assert set(world.replicas().values()) == {0}


@pytest.mark.parametrize("classes", [None, {"other.example.com": ()}])
def test_where_nodes_follow_pods_none_is_made_whose_device_no_node_can_bring(
    world: Any, classes: Any
) -> None:
    claiming(world)
    world.defaults = replace(world.defaults, nodes_follow_pods=True)
    world.inventory = Inventory(classes)
    world.settle()
    assert said(world).reason == "Missing"
    assert set(world.replicas().values()) == {0}
    world.inventory = Inventory(CLASSES)
    world.settle()
    assert set(world.replicas().values()) == {2}


def test_without_the_class_it_is_told_which_lacks(world: Any) -> None:
    claiming(world, H100)
    world.inventory = Inventory({"other.example.com": ()}, (H100,))
    world.settle()
    assert f"there is no DeviceClass {CLASS}. Please install the driver" in said(world).message
    assert set(world.replicas().values()) == {0}


def test_what_runs_keeps_its_devices_when_their_class_goes_and_it_is_said(world: Any) -> None:
    claiming(world, H100, L4).settle()
    released = world.status().condition("Released").status
    world.inventory = Inventory({"other.example.com": ()}, (H100,))
    world.settle()
    assert set(world.replicas().values()) == {2}
    assert (said(world).status, said(world).reason) == ("Unknown", "Missing")
    assert (
        "what runs keeps its devices, and no other pod gets any: there is no" in said(world).message
    )
    assert released == world.status().condition("Released").status == "True"


def test_with_too_few_devices_as_many_pods_are_made_as_there_are_and_the_rest_is_told(
    world: Any,
) -> None:
    claiming(world, H100, L4, selectors=[LARGE]).reconcile()
    assert set(world.replicas().values()) == {1}
    assert said(world).message.endswith(
        f"1 more replica has no room: a replica needs 1 {CLASS} where {LARGE}; 1 nodes offer it."
        f" Where it may run 1 are offered: 0 held by other pods, 0 by this detector's, 1 free, at"
        f" most 1 on one node. Free {CLASS}, or add a node with {CLASS} (and its DRA driver)"
    ), said(world).message
    world.inventory = Inventory(CLASSES, ())
    world.edit(replicas=3)
    world.reconcile()
    assert "0 nodes offer it. Please add a node" in said(world).message
    assert "or change spec.accelerator" in said(world).message


@pytest.mark.parametrize(
    ("more", "free"),
    [
        ({"taints": [{"key": "broken", "effect": "NoSchedule"}]}, 0),
        ({"consumesCounters": [{"counterSet": "gpu-0", "counters": {}}]}, 0),
        ({"bindingConditions": ["attached"]}, 0),
        ({"allowMultipleAllocations": True}, 1),
    ],
)
def test_of_devices_that_are_had_by_more_than_a_claim_only_the_scheduler_can_tell(
    world: Any, more: dict[str, Any], free: int
) -> None:
    devices = tuple(devices_in([a_slice(devices=[{"name": "gpu-0"} | more])]))
    claiming(world)
    world.inventory = Inventory(CLASSES, devices, {H100.id: Holder()})
    [node] = world.rooms()
    assert (node.unsure, node.offered, node.free) == ({CLASS}, {CLASS: 1}, {CLASS: free})


def test_a_slash_in_a_selector_makes_no_extended_resource_of_it(world: Any) -> None:
    path = "device.attributes['a.b'].path == '/dev/gpu0'"
    claiming(world, H100, selectors=[path]).reconcile()
    assert "or change spec.accelerator" in said(world).message
    assert "(and its DRA driver)" in said(world).message


def test_who_holds_devices_is_told(world: Any) -> None:
    claiming(world, H100, L4)
    world.inventory = Inventory(
        CLASSES, (H100, L4), {H100.id: Holder(), L4.id: Holder("shop/other")}
    )
    world.settle()
    assert (
        "2 are offered: 2 held by other pods, 0 by this detector's, 0 free" in said(world).message
    )


def test_devices_chosen_by_more_than_is_read_may_do_until_the_scheduler_has_placed_pods(
    world: Any,
) -> None:
    claiming(world, H100, L4, selectors=["device.attributes['a.b'].model.startsWith('H')"])
    world.reconcile()
    world.reconcile()
    assert (said(world).status, said(world).reason) == ("Unknown", "Unsure")
    assert "which of them would do, only the scheduler tells" in said(world).message
    world.settle()
    assert said(world).status == "True"


def just_placed(world: Any) -> None:
    """Have one pod on the node, u-p, of whose claim no list has told yet."""
    [template] = [name for kind, name in world.children if kind == "ResourceClaimTemplate"]
    claims = [{"name": "accelerator", "resourceClaimTemplateName": template}]
    placed = {"nodeName": "n1", "resourceClaims": claims}
    world.pods = [{"metadata": {"name": "p", "uid": "u-p"}, "spec": placed}]


def test_pods_that_were_just_placed_hold_devices_although_their_claims_were_not_listed_yet(
    world: Any,
) -> None:
    claiming(world, H100, L4).settle()
    just_placed(world)
    [node] = world.rooms()
    assert (node.offered, node.free, node.own) == ({CLASS: 2}, {CLASS: 1}, {CLASS: 1})
    world.inventory = Inventory(CLASSES, (H100, L4), {H100.id: Holder("shop/gate", "u-p")})
    [node] = world.rooms()
    assert (node.free, node.own) == ({CLASS: 1}, {CLASS: 1}), "by now it is listed"


def test_devices_of_a_pod_that_was_just_placed_are_free_to_nobody_however_they_are_asked_for(
    world: Any,
) -> None:
    claiming(world, H100, L4).settle()
    just_placed(world)
    world.edit(canary={"accelerator": ASKED | {"selectors": [LARGE]}})
    [node] = world.rooms()
    large = f"{CLASS} where {LARGE}"
    assert node.free == {CLASS: 1, large: 0}, "it may be the large one"
    world.inventory = Inventory(CLASSES, (H100, L4), {L4.id: Holder("shop/gate", "u-p")})
    [node] = world.rooms()
    assert node.free == {CLASS: 1, large: 1}, "by now it is known which"


def test_what_a_successor_waits_for_is_left_to_it_however_it_asks_for_that(world: Any) -> None:
    """Both may grow at once; a selector more is another name for the same devices."""
    devices = [replace(H100, name=f"gpu-{number}") for number in range(4)]
    claiming(world, *devices)
    steps = {"strategy": "Canary", "maxSurge": 1, "steps": [{"weight": 50, "hold": "1h"}]}
    world.edit(replicas=2, rollout=steps)
    world.settle()
    old = world.status().stable.revision
    world.edit(accelerator=ASKED | {"selectors": [LARGE]})
    world.settle()
    world.inventory = Inventory(
        CLASSES, tuple(devices), {each.id: Holder("shop/gate") for each in devices[:3]}
    )
    world.edit(replicas=4)
    plan = world.reconcile()
    assert plan.replicas(old) == 2
    assert plan.replicas(plan.target) == 2, "the last device"


def test_devices_that_several_nodes_reach_are_counted_on_each_and_not_relied_on(
    world: Any,
) -> None:
    claiming(world, replace(H100, node=""))
    world.nodes = [NODE, NODE | {"metadata": {"name": "n2"}}]
    assert [room.offered for room in world.rooms()] == [{CLASS: 1}, {CLASS: 1}]
    assert all(room.unsure for room in world.rooms())
    world.inventory = Inventory(CLASSES, (replace(H100, node=""), L4))
    offered = [(room.offered, room.free) for room in world.rooms()]
    assert offered == [({CLASS: 2}, {CLASS: 2}), ({CLASS: 1}, {CLASS: 1})], "beside its own"


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("0/1 nodes are available: 1 cannot allocate all claims.", f"Free {CLASS}, or add a node"),
        ("0/1 nodes are available: 1 Insufficient cpu.", ""),
    ],
)
def test_the_schedulers_words_get_a_fix_where_it_is_an_accelerator_that_lacks(
    world: Any, words: str, fix: str
) -> None:
    claiming(world, H100, L4).settle()
    name = world.status().stable.revision
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    world.pods = [
        {
            "metadata": {"name": "p", "labels": {"yolofleet.io/revision": name}},
            "spec": {},
            "status": {"conditions": [condition | {"message": words}]},
        }
    ]
    world.reconcile()
    told = said(world)
    assert told.reason == "Unschedulable"
    assert words in told.message
    assert (fix in told.message) if fix else ("Free" not in told.message)


def test_only_who_claims_something_looks_for_devices(
    detector_with: Callable[..., Detector],
) -> None:
    assert needs_accelerators(detector_with(accelerator=ASKED), [])
    assert needs_accelerators(detector_with(canary={"accelerator": ASKED}), [])
    assert not needs_accelerators(detector_with(), [])


def test_a_claim_is_no_reason_to_tolerate_more_where_a_class_has_no_vendor(world: Any) -> None:
    claiming(world, H100)
    revision = world.think().plan.revisions[0].revision
    assert revision.render_version == RENDER_VERSION
    plain = replace(
        revision, accelerator=revision.accelerator.model_copy(update={"device_class_name": "gpu"})
    )
    assert [each["key"] for each in tolerations(plain)] == ["gpu/gpu"]
