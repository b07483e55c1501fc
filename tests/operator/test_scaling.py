"""Autoscaling on a real API server: what KEDA's own schema says of what is written for it."""

from collections.abc import Callable
from typing import Any

from controlplane.installation import KEDA_CRDS
from controlplane.kube import Kube
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds

PROMETHEUS = "http://prometheus.monitoring.svc:9090"
SCALED = {"minReplicas": 2, "maxReplicas": 9, "load": 70, "inFlight": 4, "cpu": 80}
FINALIZER = "finalizer.keda.sh"


async def test_keda_s_object_is_kept_as_it_was_written_and_a_detector_goes_although_that_stays(
    optional_kinds: Any,
    new_operator: Callable[..., Any],
    fake_kubelet: Any,
    make_detector: Callable[..., Any],
    kube: Kube,
    namespace: str,
    eventually: Callable[..., Any],
    always: Callable[..., Any],
) -> None:
    await optional_kinds.install(KEDA_CRDS)
    operator = new_operator(YOLOFLEET_PROMETHEUS_URL=PROMETHEUS, YOLOFLEET_KEDA_AUTHENTICATION="by")
    operator.start()
    await operator.ready()
    await make_detector(autoscaling=SCALED)

    async def made() -> Manifest:
        [scaled] = await kube.list(kinds.SCALED_OBJECT, namespace)
        return scaled

    scaled = await eventually(made)
    stable, spec = scaled["metadata"]["name"], scaled["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": stable}
    assert spec["advanced"]["horizontalPodAutoscalerConfig"]["name"] == stable
    assert spec["fallback"] == {
        "failureThreshold": 3,
        "replicas": 2,
        "behavior": "currentReplicasIfHigher",
    }
    load, in_flight, cpu = spec["triggers"]
    assert (load["metricType"], load["metadata"]["threshold"]) == ("AverageValue", "70")
    assert load["metadata"]["serverAddress"] == PROMETHEUS
    assert load["metadata"]["ignoreNullValues"] == in_flight["metadata"]["ignoreNullValues"]
    assert load["metadata"]["ignoreNullValues"] == "false", "a series that vanished is no 0"
    assert load["authenticationRef"] == {"kind": "ClusterTriggerAuthentication", "name": "by"}
    assert in_flight["metadata"]["threshold"] == "4"
    assert cpu == {"type": "cpu", "metricType": "Utilization", "metadata": {"value": "80"}}
    assert await kube.find(kinds.HPA, namespace, stable) is None, "KEDA makes it"

    at_work = kube.acting_as("keda-operator")
    labels = {"scaledobject.keda.sh/name": stable}
    theirs = {"metadata": {"finalizers": [FINALIZER], "labels": labels}}
    version = (await at_work.merge(kinds.SCALED_OBJECT, namespace, stable, theirs))["metadata"]

    async def is_left() -> bool:
        now = (await kube.get(kinds.SCALED_OBJECT, namespace, stable))["metadata"]
        return bool(now["resourceVersion"] == version["resourceVersion"])

    await always(is_left, 2)
    await kube.delete(kinds.DETECTOR, namespace, "gate")

    async def stays_alone() -> bool:
        left = await kube.get(kinds.SCALED_OBJECT, namespace, stable)
        gone = await kube.find(kinds.DEPLOYMENT, namespace, stable) is None
        return gone and "deletionTimestamp" in left["metadata"]

    await eventually(stays_alone)
    assert await kube.find(kinds.DETECTOR, namespace, "gate") is None
    await kube.merge(kinds.SCALED_OBJECT, namespace, stable, {"metadata": {"finalizers": None}})

    async def nothing() -> bool:
        return not await kube.list(kinds.SCALED_OBJECT, namespace)

    await eventually(nothing)


async def test_a_real_autoscaler_keeps_what_runs_when_the_operator_takes_its_floor(
    operator: Any,
    fake_kubelet: Any,
    make_detector: Callable[..., Any],
    kube: Kube,
    namespace: str,
    eventually: Callable[..., Any],
) -> None:
    """Nobody answers for these pods: that is a lost metric, and no reason to go to the minimum."""
    await make_detector(replicas=3)

    async def runs(replicas: int) -> Manifest:
        [deployment] = await kube.list(kinds.DEPLOYMENT, namespace)
        assert deployment["status"]["readyReplicas"] == deployment["spec"]["replicas"] == replicas
        return deployment

    stable = (await eventually(lambda: runs(3)))["metadata"]["name"]
    scaling: Any = {"minReplicas": 1, "maxReplicas": 9, "load": 70}
    await kube.merge(
        kinds.DETECTOR, namespace, "gate", {"spec": {"replicas": None, "autoscaling": scaling}}
    )

    async def floor(replicas: int) -> Manifest:
        hpa = await kube.get(kinds.HPA, namespace, stable)
        assert hpa["spec"]["minReplicas"] == replicas
        return hpa

    hpa = await eventually(lambda: floor(3))
    [metric] = hpa["spec"]["metrics"]
    assert metric["resource"]["target"] == {"type": "AverageValue", "averageValue": "1k"}
    assert hpa["spec"]["behavior"]["scaleDown"]["policies"] == [
        {"type": "Pods", "value": 1, "periodSeconds": 60}
    ]
    await kube.merge(
        kinds.DETECTOR, namespace, "gate", {"spec": {"autoscaling": {"minReplicas": 5}}}
    )
    await eventually(lambda: runs(5))  # without metrics, too: a minimum is obeyed before any
    await floor(5)
    told = (await kube.get(kinds.DETECTOR, namespace, "gate"))["status"]["autoscaling"]
    assert (told["provider"], told["floor"]) == ("builtin", 5)
