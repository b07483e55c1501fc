"""Accelerators and a real scheduler: nodes whose status is patched, devices written by hand.

Whole GPUs, MIG slices (both strategies), GPUs that are shared, and devices that are claimed.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from controlplane.kube import Kube
from controlplane.kubelet import FakeKubelet
from controlplane.plane import ControlPlane
from controlplane.process import OperatorProcess
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds

GPU, SLICE, SHARED = "nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "nvidia.com/gpu.shared"
PRODUCT, SHARING = "nvidia.com/gpu.product", "nvidia.com/gpu.sharing-strategy"
A_SLICE = "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb"
DRIVER = "gpu.nvidia.com"
ENOUGH_MEMORY = f"device.capacity['{DRIVER}'].memory.compareTo(quantity('40Gi')) >= 0"

Eventually = Callable[..., Any]
MakeDetector = Callable[..., Any]
MakeNode = Callable[..., Any]


@pytest.fixture
def scheduler(plane: ControlPlane, fake_kubelet: FakeKubelet, fates: Any) -> Iterator[None]:
    """The real one; pods get ready once it has found them a node."""
    fake_kubelet.otherwise = fates.placed
    plane.scheduler.start()
    yield
    plane.scheduler.stop(signal.SIGKILL)


@pytest.fixture
async def make_node(kube: Kube, namespace: str) -> AsyncIterator[MakeNode]:
    """`await make_node(name, offered, **labels)` makes a node that is ready, tainted as usual."""
    made = []

    async def make(name: str, offered: dict[str, str], labels: Any = None) -> str:
        name = f"{name}-{namespace}"
        metadata = {"name": name, "labels": (labels or {}) | {"of": namespace}}
        await kube.create({"apiVersion": "v1", "kind": "Node", "metadata": metadata})
        made.append(name)
        usual = {"key": GPU, "value": "present", "effect": "NoSchedule"}
        await kube.merge(kinds.NODE, "", name, {"spec": {"taints": [usual]}})
        amounts = {"cpu": "8", "memory": "32Gi", "pods": "50"} | offered
        status = {"capacity": amounts, "allocatable": amounts}
        status |= {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}
        await kube.merge(kinds.NODE, "", name, {"status": status}, "status")
        return name

    yield make
    for name in made:
        await kube.delete(kinds.NODE, "", name)


@pytest.fixture
async def devices(kube: Kube, make_node: MakeNode) -> AsyncIterator[str]:
    """One node with one GPU of 80 GiB, which has to be claimed, and another of 24 GiB."""
    node = await make_node("claimed", {})
    api = kinds.DEVICE_CLASS.api_version
    selectors = [{"cel": {"expression": f"device.driver == '{DRIVER}'"}}]
    a_class = {"apiVersion": api, "kind": "DeviceClass", "metadata": {"name": DRIVER}}
    await kube.create(a_class | {"spec": {"selectors": selectors}})
    published = [
        {"name": f"gpu-{number}", "capacity": {"memory": {"value": memory}}}
        for number, memory in enumerate(("80Gi", "24Gi"))
    ]
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": DRIVER, "nodeName": node, "pool": pool, "devices": published}
    metadata = {"name": f"{node}-{DRIVER}"}
    await kube.create(
        {"apiVersion": api, "kind": "ResourceSlice", "metadata": metadata, "spec": spec}
    )
    yield node
    await kube.delete(kinds.DEVICE_SLICE, "", metadata["name"])
    await kube.delete(kinds.DEVICE_CLASS, "", DRIVER)


def told(raw: Manifest, kind: str) -> Manifest:
    said: dict[str, Manifest] = {each["type"]: each for each in raw["status"]["conditions"]}
    return said[kind]


@pytest.fixture
def here(namespace: str) -> Any:
    """Only nodes of the test's own."""
    return {"spec": {"nodeSelector": {"of": namespace}}}


async def of_a_pair(kube: Kube, namespace: str) -> tuple[Manifest, Manifest]:
    """Return who of two got what there was, and who was told that it did not."""
    pair = await kube.list(kinds.DETECTOR, namespace)
    assert len(pair) == 2
    won, lost = sorted(pair, key=lambda one: told(one, "Ready")["status"], reverse=True)
    assert told(won, "Ready")["status"] == told(won, "GPUAvailable")["status"] == "True"
    assert told(lost, "Ready")["status"] == told(lost, "GPUAvailable")["status"] == "False"
    return won, lost


async def both_want_the_last(
    kube: Kube, namespace: str, make_detector: MakeDetector, eventually: Eventually, **spec: Any
) -> Manifest:
    """Have two detectors made at once; return what the one is told that got nothing."""
    await asyncio.gather(*(make_detector(name, **spec) for name in ("first", "second")))
    won, lost = await eventually(lambda: of_a_pair(kube, namespace))
    said = told(lost, "GPUAvailable")
    pending = [
        pod
        for pod in await kube.list(kinds.POD, namespace)
        if not pod["spec"].get("nodeName")
        and pod["metadata"]["labels"]["yolofleet.io/detector"] == won["metadata"]["name"]
    ]
    assert not pending
    await kube.delete(kinds.DETECTOR, namespace, won["metadata"]["name"])

    async def goes_on() -> bool:
        name = lost["metadata"]["name"]
        raw = await kube.get(kinds.DETECTOR, namespace, name)
        assert told(raw, "GPUAvailable")["status"] == told(raw, "Ready")["status"] == "True", raw
        return True

    await eventually(goes_on)
    return said


async def test_of_two_that_want_the_last_gpu_at_once_one_gets_it_and_the_other_is_told(
    operator: OperatorProcess,
    scheduler: None,
    make_node: MakeNode,
    here: Any,
    make_detector: MakeDetector,
    kube: Kube,
    namespace: str,
    eventually: Eventually,
) -> None:
    await make_node("whole", {GPU: "1"})
    spec = {"resources": {"limits": {GPU: 1}}, "podTemplate": here}
    said = await both_want_the_last(kube, namespace, make_detector, eventually, **spec)
    assert said["reason"] in ("Missing", "Unschedulable")
    assert f"Free {GPU}, or add a node with {GPU}" in said["message"]


async def test_of_two_that_claim_the_last_gpu_at_once_one_gets_it_and_the_other_is_told(
    operator: OperatorProcess,
    scheduler: None,
    devices: str,
    here: Any,
    make_detector: MakeDetector,
    kube: Kube,
    namespace: str,
    eventually: Eventually,
) -> None:
    """There are two devices, of which one has the memory that is asked for."""
    accelerator = {"deviceClassName": DRIVER, "selectors": [ENOUGH_MEMORY]}
    spec = {"accelerator": accelerator, "podTemplate": here}
    said = await both_want_the_last(kube, namespace, make_detector, eventually, **spec)
    assert said["reason"] in ("Missing", "Unschedulable")
    assert f"Free {DRIVER}, or add a node with {DRIVER} (and its DRA driver)" in said["message"]


async def test_what_claims_are_made_from_is_kept_as_it_was_written_and_goes_with_its_revision(
    operator: OperatorProcess,
    scheduler: None,
    devices: str,
    here: Any,
    make_detector: MakeDetector,
    kube: Kube,
    namespace: str,
    eventually: Eventually,
) -> None:
    accelerator = {"deviceClassName": DRIVER, "selectors": [ENOUGH_MEMORY]}
    await make_detector(accelerator=accelerator, podTemplate=here, replicas=2)

    async def one_of_two() -> Manifest:
        raw = await kube.get(kinds.DETECTOR, namespace, "gate")
        assert "1 by this detector's, 0 free" in told(raw, "GPUAvailable")["message"]
        return raw

    raw = await eventually(one_of_two)
    said = told(raw, "GPUAvailable")
    assert said["reason"] == "Missing"
    assert f"1 more replica has no room: a replica needs 1 {DRIVER} where" in said["message"]
    [pod] = await kube.list(kinds.POD, namespace)
    assert pod["spec"]["nodeName"] == devices
    assert {each["key"] for each in pod["spec"]["tolerations"]} >= {GPU}
    [claim] = await kube.list(kinds.CLAIM, namespace)
    assert claim["metadata"]["labels"]["yolofleet.io/detector"] == "gate"
    [held] = claim["status"]["allocation"]["devices"]["results"]
    assert held["device"] == "gpu-0"
    [template] = await kube.list(kinds.CLAIM_TEMPLATE, namespace)
    stable = raw["status"]["stable"]["revision"]
    assert template["metadata"]["name"] == stable

    await kube.delete(kinds.CLAIM_TEMPLATE, namespace, stable)

    async def is_back() -> Manifest:
        found = await kube.get(kinds.CLAIM_TEMPLATE, namespace, stable)
        assert found["metadata"]["uid"] != template["metadata"]["uid"]
        return found

    again = await eventually(is_back)
    assert again["spec"] == template["spec"]
    await kube.merge(kinds.DETECTOR, namespace, "gate", {"metadata": {"annotations": {"a": "b"}}})
    await kube.merge(kinds.DETECTOR, namespace, "gate", {"spec": {"replicas": 1}})

    async def enough() -> bool:
        raw = await kube.get(kinds.DETECTOR, namespace, "gate")
        return bool(told(raw, "GPUAvailable")["status"] == "True")

    await eventually(enough)
    found = await kube.get(kinds.CLAIM_TEMPLATE, namespace, stable)
    assert found["metadata"]["uid"] == again["metadata"]["uid"], "what is as asked is left alone"

    await kube.delete(kinds.DETECTOR, namespace, "gate")

    async def nothing() -> bool:
        claims = [*await kube.list(kinds.CLAIM_TEMPLATE, namespace)]
        return not [*claims, *await kube.list(kinds.CLAIM, namespace)]

    await eventually(nothing)


async def test_without_a_spare_device_a_release_goes_replica_by_replica(
    operator: OperatorProcess,
    scheduler: None,
    devices: str,
    here: Any,
    make_detector: MakeDetector,
    kube: Kube,
    namespace: str,
    eventually: Eventually,
) -> None:
    await make_detector(accelerator={"deviceClassName": DRIVER}, podTemplate=here, replicas=2)

    async def released_on(revision: str = "") -> str:
        raw = await kube.get(kinds.DETECTOR, namespace, "gate")
        status = raw["status"]
        assert (told(raw, "Released")["status"], status["ready"]) == ("True", "2/2"), status
        assert status["stable"]["revision"] != revision
        return str(status["stable"]["revision"])

    before = await eventually(released_on)
    model = {"uri": "demo://shapes-v2"}
    await kube.merge(kinds.DETECTOR, namespace, "gate", {"spec": {"model": model}})
    await eventually(lambda: released_on(before))
    templates = await kube.list(kinds.CLAIM_TEMPLATE, namespace)
    assert len(templates) == 2, "the former one's stays for a roll-back"


async def test_a_selector_that_is_no_cel_is_refused_in_the_users_words(
    operator: OperatorProcess,
    devices: str,
    make_detector: MakeDetector,
    kube: Kube,
    namespace: str,
    eventually: Eventually,
) -> None:
    accelerator = {"deviceClassName": DRIVER, "selectors": ["device.memory >"]}
    await make_detector(accelerator=accelerator)

    async def refused() -> str:
        raw = await kube.get(kinds.DETECTOR, namespace, "gate")
        return str(told(raw, "Written")["message"])

    message = await eventually(refused)
    assert "spec.accelerator.selectors[0]" in message
    assert "Syntax error" in message


async def test_slices_and_shared_gpus_are_counted_as_the_scheduler_counts_them(
    operator: OperatorProcess,
    scheduler: None,
    make_node: MakeNode,
    make_detector: MakeDetector,
    kube: Kube,
    namespace: str,
    eventually: Eventually,
) -> None:
    """Each asks for one more than there are of its kind: no pod is made that would wait."""
    nodes = {
        "single": ({GPU: "1"}, {"nvidia.com/mig.strategy": "single", PRODUCT: A_SLICE}),
        "mixed": ({SLICE: "1"}, {"nvidia.com/mig.strategy": "mixed"}),
        "sliced": ({GPU: "1"}, {SHARING: "time-slicing"}),
        "mps": ({SHARED: "1"}, {SHARING: "mps"}),
    }
    at = {n: await make_node(n, *there) for n, there in nodes.items()}
    where = {
        "single": {PRODUCT: A_SLICE, "of": namespace},
        "sliced": {SHARING: "time-slicing", "of": namespace},
    }
    for name, (offered, _) in nodes.items():
        [resource] = offered
        selector = where.get(name, {"of": namespace})
        await make_detector(
            name,
            replicas=2,
            resources={"limits": {resource: 1}},
            podTemplate={"spec": {"nodeSelector": selector}},
        )

    async def each_has_one() -> dict[str, str]:
        found = {d["metadata"]["name"]: d for d in await kube.list(kinds.DETECTOR, namespace)}
        messages = {name: told(raw, "GPUAvailable")["message"] for name, raw in found.items()}
        for name, message in messages.items():
            assert "1 are offered: 0 held by other pods, 1 by this detector's, 0 free" in message
            assert found[name]["status"]["ready"].startswith("1/")
        return messages

    messages = await eventually(each_has_one)
    pods = await kube.list(kinds.POD, namespace)
    placed = {p["metadata"]["labels"]["yolofleet.io/detector"]: p["spec"]["nodeName"] for p in pods}
    assert placed == at
    assert len(pods) == 4, "nothing is Pending"
    assert f"a replica needs 1 {SLICE}; 1 nodes offer it" in messages["mixed"]
    assert f"{at['sliced']} (0 free) does not match nodeSelector" in messages["single"]

    for name in nodes:
        await kube.merge(kinds.DETECTOR, namespace, name, {"spec": {"replicas": 1}})

    async def enough() -> dict[str, str]:
        found = {d["metadata"]["name"]: d for d in await kube.list(kinds.DETECTOR, namespace)}
        said = {name: told(raw, "GPUAvailable") for name, raw in found.items()}
        assert {each["status"] for each in said.values()} == {"True"}
        return {name: each["message"] for name, each in said.items()}

    messages = await eventually(enough)
    assert f"on {at['single']} each is a slice ({A_SLICE})" in messages["single"]
    assert messages["mixed"] == f"the nodes offer 1 {SLICE}"
    assert f"{at['sliced']} gives one GPU to several pods (time-slicing)" in messages["sliced"]
    assert f"{at['mps']} gives one GPU to several pods (mps)" in messages["mps"]
