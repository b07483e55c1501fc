"""Accelerators on a real API server: what pods of any namespace hold is counted, and told."""

from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import Any

import pytest

from controlplane.kube import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, Kube
from controlplane.kubelet import FakeKubelet
from controlplane.plane import OPERATOR_USER
from controlplane.process import OperatorProcess
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime.client import Request
from yolofleet.runtime.kind import Kind

GPU = "nvidia.com/gpu"
ON_A_GPU = {"replicas": 1, "resources": {"limits": {GPU: 1}}}
RBAC = ("rbac.authorization.k8s.io", "v1")
ROLE_BINDING = Kind(*RBAC, "RoleBinding", "rolebindings")
TO_THE_OPERATOR = [{"apiGroup": RBAC[0], "kind": "User", "name": OPERATOR_USER}]

Eventually = Callable[..., Any]
MakeDetector = Callable[..., Any]


@pytest.fixture
async def node(kube: Kube, namespace: str) -> AsyncIterator[str]:
    """A node with two GPUs, tainted as such nodes usually are."""
    name = f"gpu-{namespace}"
    usual = {"key": GPU, "value": "present", "effect": "NoSchedule"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
    await kube.create(node)
    await kube.merge(kinds.NODE, "", name, {"spec": {"taints": [usual]}})
    status = {"allocatable": {GPU: "2"}, "conditions": [{"type": "Ready", "status": "True"}]}
    await kube.merge(kinds.NODE, "", name, {"status": status}, "status")
    yield name
    await kube.delete(kinds.NODE, "", name)


@pytest.fixture
async def holder(kube: Kube, namespace: str, node: str) -> AsyncIterator[Kube]:
    """Somebody's pod in another namespace, which holds both GPUs of the node."""
    limits = {"resources": {"limits": {GPU: "2"}}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"training-{namespace}", "namespace": "default"},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "train", **limits}]},
    }
    await kube.create(pod)
    yield kube
    await end(kube, "default", f"training-{namespace}")


async def end(kube: Kube, namespace: str, name: str) -> None:
    """Delete a pod that no kubelet says goodbye to."""
    if await kube.find(kinds.POD, namespace, name):
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
        await kube.client.send(Request("DELETE", kinds.POD.path(namespace, name), body=body))


async def bind(kube: Kube, pod: Manifest, node: str) -> None:
    """Place `pod` on `node`, as the scheduler does."""
    metadata = {"name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"]}
    path = kinds.POD.path(metadata["namespace"], metadata["name"], "binding")
    target = {"apiVersion": "v1", "kind": "Node", "name": node}
    body = {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
    await kube.client.send(Request("POST", path, body=body))


def says(kube: Kube, namespace: str, name: str, status: str, *words: str) -> Any:
    """Return a check that GPUAvailable of a detector has `status` and all `words`."""

    async def said() -> str:
        raw = await kube.get(kinds.DETECTOR, namespace, name)
        [told] = [c for c in raw["status"]["conditions"] if c["type"] == "GPUAvailable"]
        assert told["status"] == status, told
        assert all(word in told["message"] for word in words), told
        return str(told["reason"])

    return said


async def test_what_another_namespace_holds_is_told_and_waited_for(
    operator: OperatorProcess,
    kube: Kube,
    namespace: str,
    node: str,
    holder: Kube,
    make_detector: MakeDetector,
    eventually: Eventually,
) -> None:
    await make_detector(**ON_A_GPU)
    await eventually(
        says(kube, namespace, "gate", "False", "2 are offered: 2 held by other pods", "0 free")
    )
    assert await kube.list(kinds.POD, namespace) == [], "nothing is ever Pending for want of a GPU"
    await end(kube, "default", f"training-{namespace}")
    told, changes = says(kube, namespace, "gate", "True", "offer 2 nvidia.com/gpu"), count()

    async def woken() -> str:  # until what was listed before that end is old
        labels = {"metadata": {"labels": {"changed": str(next(changes))}}}
        await kube.merge(kinds.NODE, "", node, labels)
        return str(await told())

    await eventually(woken)
    [pod] = await eventually(lambda: kube.list(kinds.POD, namespace))
    tolerated = [each["key"] for each in pod["spec"]["tolerations"]]
    assert GPU in tolerated


async def test_what_one_detector_holds_another_lacks(
    operator: OperatorProcess,
    kube: Kube,
    namespace: str,
    node: str,
    make_detector: MakeDetector,
    eventually: Eventually,
) -> None:
    await make_detector("first", **ON_A_GPU | {"replicas": 2})

    async def both() -> list[Manifest]:
        pods = await kube.list(kinds.POD, namespace)
        assert len(pods) == 2
        return pods

    for pod in await eventually(both):
        await bind(kube, pod, node)
    held = ("2 held by other pods, 0 by this detector's, 0 free",)
    await eventually(lambda: operator.metric("yolofleet_watch_events_total", kind="Pod") >= 4)
    await make_detector("second", **ON_A_GPU)
    await eventually(says(kube, namespace, "second", "False", *held))
    assert await says(kube, namespace, "first", "True")() == "Enough"


async def test_a_pod_that_waits_for_a_place_is_told(
    operator: OperatorProcess,
    kube: Kube,
    namespace: str,
    node: str,
    make_detector: MakeDetector,
    fake_kubelet: FakeKubelet,
    fates: Any,
    eventually: Eventually,
) -> None:
    fake_kubelet.otherwise = fates.unschedulable("0/1 nodes are available: Insufficient cpu")
    await make_detector(**ON_A_GPU)
    told = await eventually(says(kube, namespace, "gate", "False", "Insufficient cpu"))
    assert told == "Unschedulable"


async def test_in_the_namespaced_mode_it_says_what_it_does_not_see(
    new_operator: Callable[..., OperatorProcess],
    kube: Kube,
    namespace: str,
    holder: Kube,
    make_detector: MakeDetector,
    eventually: Eventually,
) -> None:
    """Rights in its own namespace, as the chart gives them; of the cluster it sees the nodes."""
    of_all = await kube.get(CLUSTER_ROLE_BINDING, "", "yolofleet")
    role = await kube.get(CLUSTER_ROLE, "", "yolofleet")
    nodes = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]}
    narrow = {"apiVersion": CLUSTER_ROLE.api_version, "metadata": {"name": "yolofleet-nodes"}}
    await kube.apply(narrow | {"kind": "ClusterRole", "rules": [nodes]})

    def bound(kind: Kind, role: str, **where: str) -> Manifest:
        reference = {"apiGroup": RBAC[0], "kind": "ClusterRole", "name": role}
        metadata = {"name": role, **where}
        binding = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}
        return binding | {"roleRef": reference, "subjects": TO_THE_OPERATOR}

    await kube.apply(bound(CLUSTER_ROLE_BINDING, "yolofleet-nodes"))
    body = bound(ROLE_BINDING, role["metadata"]["name"], namespace=namespace)
    await kube.client.send(Request("POST", ROLE_BINDING.path(namespace), body=body))
    await kube.delete(CLUSTER_ROLE_BINDING, "", "yolofleet")
    try:
        operator = new_operator(YOLOFLEET_NAMESPACES=namespace)
        operator.start()
        await operator.ready()
        await make_detector(**ON_A_GPU)
        words = ("offer 2 nvidia.com/gpu", "Pods of other namespaces are not seen")
        await eventually(says(kube, namespace, "gate", "True", *words))
        assert operator.exit_status() is None
    finally:
        await kube.create(
            {k: of_all[k] for k in ("apiVersion", "kind", "roleRef", "subjects")}
            | {"metadata": {"name": "yolofleet"}}
        )
        await kube.delete(CLUSTER_ROLE_BINDING, "", "yolofleet-nodes")
        await kube.delete(CLUSTER_ROLE, "", "yolofleet-nodes")
