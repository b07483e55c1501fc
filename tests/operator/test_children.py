"""Every kind of child on a real API server: made, left in peace, fought for, taken away."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from controlplane.kube import Kube
from controlplane.process import OperatorProcess
from yolofleet.api.names import DETECTOR_LABEL, Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime.kind import Kind

Eventually = Callable[..., Any]
MakeDetector = Callable[..., Any]

FULL: dict[str, Any] = {
    "model": {"uri": "http://store.example.com:9000/a.onnx", "sha256": "a" * 64},
    "resources": {
        "requests": {"cpu": "0.5", "memory": "1024Mi", "ephemeral-storage": "1e9"},
        "limits": {"memory": "2048Mi"},
    },
    "autoscaling": {"minReplicas": 2, "maxReplicas": 4, "behavior": {"scaleDown": {}}},
    "traffic": {"hosts": ["gate.example.com"], "gateways": ["istio-system/public"]},
    "access": {
        "jwt": {
            "issuer": "https://login.example.com",
            "jwksUri": "https://login.example.com:8443/keys",
            "audiences": ["gate"],
        },
        "apiKeys": {"secretName": "gate-keys"},
        "shadowKey": {"secretName": "gate-shadow"},
        "allowFrom": [
            {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "prometheus"}}},
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
        ],
        "allowTo": [{"to": [{"namespaceSelector": {}}]}, {"ports": [{"port": 4317}]}],
    },
    "canary": {"inference": {"confidence": 0.5}, "shadow": 100},
    "podTemplate": {
        "metadata": {"annotations": {"team": "vision"}},
        "spec": {
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
            "initContainers": [{"name": "wait", "image": "wait:1"}],
            "containers": [
                {"name": "yoloserve", "env": [{"name": "TZ", "value": "UTC"}]},
                {"name": "side", "image": "side:1", "ports": [{"containerPort": 9000}]},
            ],
            "volumes": [{"name": "cache", "emptyDir": {"sizeLimit": "1024Mi"}}],
        },
    },
}
"""A detector with every kind of child, and amounts that the API server spells otherwise."""

EVERY_KIND = {
    "ServiceAccount",
    "ControllerRevision",
    "Deployment",
    "Service",
    "DestinationRule",
    "VirtualService",
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
    "NetworkPolicy",
    "PodMonitor",
    "ConfigMap",
}


async def children(kube: Kube, namespace: str) -> dict[tuple[str, str], Manifest]:
    found: dict[tuple[str, str], Manifest] = {}
    for kind in kinds.CHILDREN:
        if await kube.client.serves(kind):
            for child in await kube.list(kind, namespace, DETECTOR_LABEL):
                found[kind.name, child["metadata"]["name"]] = child
    return found


async def condition(kube: Kube, namespace: str, kind: str, name: str = "gate") -> Manifest:
    raw = await kube.get(kinds.DETECTOR, namespace, name)
    assert raw["status"]["observedGeneration"] == raw["metadata"]["generation"]
    return {c["type"]: c for c in raw["status"]["conditions"]}[kind]


async def settled(kube: Kube, namespace: str) -> bool:
    said = await condition(kube, namespace, "Progressing")
    assert said["reason"] == "Settled", said
    return True


def writes(operator: OperatorProcess) -> float:
    """Return how many writes were sent, but those of the Lease, which are PUTs."""
    name = "rest_client_requests_total"
    return sum(operator.metric(name, method=m) for m in ("PATCH", "POST", "DELETE"))


@pytest.fixture
async def whole(
    istio: None,
    operator: OperatorProcess,
    fake_kubelet: Any,
    make_detector: MakeDetector,
    kube: Kube,
    namespace: str,
    eventually: Eventually,
) -> OperatorProcess:
    """The operator of a settled detector that has every kind of child."""
    await make_detector(**FULL)
    await eventually(lambda: settled(kube, namespace))

    async def all_made() -> bool:
        made = {kind for kind, _ in await children(kube, namespace)}
        assert made == EVERY_KIND, EVERY_KIND - made
        return True

    await eventually(all_made)
    return operator


async def test_a_settled_detector_costs_no_write_and_no_line_not_even_after_a_restart(
    whole: OperatorProcess,
    new_operator: Callable[..., OperatorProcess],
    kube: Kube,
    namespace: str,
    eventually: Eventually,
    always: Eventually,
) -> None:
    def did() -> tuple[float, int]:
        return writes(whole), len(whole.log())

    async def calm() -> bool:
        before = did()

        async def idle() -> bool:
            return did() == before

        await always(idle, 5)
        return True

    await eventually(calm)  # the autoscaler's own writes end some day
    before = await children(kube, namespace)
    whole.terminate()
    again = new_operator()
    again.start()
    await again.ready()
    await eventually(again.leads)
    await eventually(lambda: again.metric("controller_runtime_reconcile_total") >= 1)

    async def nothing_written() -> bool:
        return writes(again) == 0

    await always(nothing_written, 5)
    after = await children(kube, namespace)
    assert {key: child["metadata"]["uid"] for key, child in after.items()} == {
        key: child["metadata"]["uid"] for key, child in before.items()
    }
    assert not again.log(level="warning", detector=f"{namespace}/gate")


DRIFTS: list[tuple[Kind, Manifest, str]] = [
    (kinds.NETWORK_POLICY, {"spec": {"ingress": [{}]}}, "spec.ingress"),
    (kinds.NETWORK_POLICY, {"spec": {"egress": [{}]}}, "spec.egress"),
    (
        kinds.SERVICE_ACCOUNT,
        {"automountServiceAccountToken": True},
        "automountServiceAccountToken",
    ),
    (
        kinds.POD_MONITOR,
        {"spec": {"namespaceSelector": {"any": True}}},
        "spec.namespaceSelector",
    ),
    (kinds.PDB, {"spec": {"maxUnavailable": 2}}, "spec.maxUnavailable"),
    (kinds.CONFIG_MAP, {"data": {"other.json": "{}"}}, "data.other.json"),
]
NAMES = {kinds.CONFIG_MAP: "gate-live"}


async def test_drift_of_a_child_is_put_right(
    whole: OperatorProcess, kube: Kube, namespace: str, eventually: Eventually
) -> None:
    for kind, drift, field in DRIFTS:
        name = NAMES.get(kind, "gate")

        async def wanted(kind: Kind = kind, name: str = name) -> Manifest:
            child = await kube.get(kind, namespace, name)
            return {k: v for k, v in child.items() if k not in ("metadata", "status")}

        before = await wanted()
        await kube.merge(kind, namespace, name, drift)

        async def put_right(
            about: str = f"{kind} {name}: {field} (",
            wanted: Callable[[], Awaitable[Manifest]] = wanted,
            before: Manifest = before,
        ) -> bool:
            assert await wanted() == before
            told = await condition(kube, namespace, "Drifted")
            assert told["reason"] == "DriftRepaired", told
            assert about in told["message"], told
            assert "by kubectl-edit" in told["message"], told
            return True

        await eventually(put_right)
        labels = {"kind": kind.name, "field_class": field}
        assert whole.metric("yolofleet_drift_repairs_total", **labels) == 1


async def test_what_a_cloud_adds_to_an_account_is_left(
    whole: OperatorProcess, kube: Kube, namespace: str, always: Eventually
) -> None:
    """OpenShift adds pull secrets to every account, and would add them again."""
    pull = {"imagePullSecrets": [{"name": "dockercfg"}], "secrets": [{"name": "dockercfg"}]}
    await kube.merge(kinds.SERVICE_ACCOUNT, namespace, "gate", pull)

    async def left() -> bool:
        account = await kube.get(kinds.SERVICE_ACCOUNT, namespace, "gate")
        return "imagePullSecrets" in account and "secrets" in account

    await always(left, 2)


FOREIGN: dict[Kind, Manifest] = {
    kinds.SERVICE_ACCOUNT: {"automountServiceAccountToken": True},
    kinds.NETWORK_POLICY: {"spec": {"podSelector": {}, "policyTypes": ["Ingress"]}},
    kinds.POD_MONITOR: {"spec": {"selector": {}, "podMetricsEndpoints": [{"port": "web"}]}},
    kinds.PDB: {"spec": {"selector": {"matchLabels": {"app": "mine"}}, "minAvailable": 1}},
    kinds.SERVICE: {"spec": {"ports": [{"port": 5432, "protocol": "TCP"}]}},
}


async def test_an_object_of_somebody_else_is_refused_and_left(
    istio: None,
    operator: OperatorProcess,
    make_detector: MakeDetector,
    kube: Kube,
    namespace: str,
    eventually: Eventually,
) -> None:
    """One detector for each kind, of that kind's name, which is what the object is called."""

    def untold(child: Manifest) -> Manifest:
        return {n: v for n, v in child.items() if n not in ("metadata", "status")}

    before: dict[Kind, Manifest] = {}
    for kind, theirs in FOREIGN.items():
        metadata = {"name": kind.plural, "namespace": namespace}
        address = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}
        before[kind] = await kube.create(address | theirs)
        await make_detector(kind.plural, replicas=2)
    for kind in FOREIGN:

        async def refused(kind: Kind = kind) -> bool:
            said = await condition(kube, namespace, "Progressing", kind.plural)
            assert said["reason"] == "ResourceConflict", said
            told = f"{kind} {kind.plural} already exists in namespace {namespace}"
            assert told in said["message"]
            return True

        await eventually(refused)
        after = await kube.get(kind, namespace, kind.plural)
        assert "ownerReferences" not in after["metadata"]
        assert untold(after) == untold(before[kind])


async def test_what_the_spec_no_longer_asks_for_is_taken_away(
    whole: OperatorProcess, kube: Kube, namespace: str, eventually: Eventually
) -> None:
    off = {
        "access": {"networkPolicy": "None", "allowFrom": None, "allowTo": None},
        "autoscaling": None,
        "replicas": 2,  # as many as run: fewer only afterwards
    }
    await kube.merge(kinds.DETECTOR, namespace, "gate", {"spec": off})
    await kube.merge(kinds.DETECTOR, namespace, "gate", {"spec": {"replicas": 1}})
    gone = {"NetworkPolicy", "HorizontalPodAutoscaler", "PodDisruptionBudget"}

    async def taken_away() -> bool:
        left = {kind for kind, _ in await children(kube, namespace)}
        assert left == EVERY_KIND - gone, left & gone
        return True

    await eventually(taken_away)


async def test_monitors_can_be_switched_off_and_labelled(
    whole: OperatorProcess,
    new_operator: Callable[..., OperatorProcess],
    kube: Kube,
    namespace: str,
    eventually: Eventually,
) -> None:
    whole.terminate()
    labelled = new_operator(YOLOFLEET_MONITOR_LABELS="release=prometheus, team=vision")
    labelled.start()
    await labelled.ready()

    async def has_labels() -> bool:
        labels = (await kube.get(kinds.POD_MONITOR, namespace, "gate"))["metadata"]["labels"]
        return (labels.get("release"), labels.get("team")) == ("prometheus", "vision")

    await eventually(has_labels)
    labelled.terminate()
    without = new_operator(YOLOFLEET_MONITORS="false")
    without.start()
    await without.ready()

    async def gone() -> bool:
        return await kube.find(kinds.POD_MONITOR, namespace, "gate") is None

    await eventually(gone)
