"""KEDA's own operator and a real Prometheus that scrapes real pods; `make test-all` alone.

By what both do here the autoscaler's way down is as short as it can be: where nobody goes while
Prometheus is away, nothing but the fallback has kept them.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import images, keda, prometheus
from demo_cluster.detector import Detector, condition, told
from demo_cluster.errors import NotYet
from demo_cluster.installation import Installation, install
from demo_cluster.kube import Kubectl, Manifest
from demo_cluster.load import Load, Target, wait_until_served
from demo_cluster.waiting import eventually

pytestmark = pytest.mark.nightly

VALUES = Path(__file__).with_name("values.yaml")
SERVICE_MS = 100
REPLICA = 1000 / SERVICE_MS
"""What one replica answers a second."""

LOAD = 50
IN_VAIN = 15
"""Looks of the autoscaler without an answer: at each of them it could go down."""

SCALED = "scaledobject"
AT_ONCE = {
    "stabilizationWindowSeconds": 0,
    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
}
BY_KEDA = {
    "minReplicas": 1,
    "maxReplicas": 5,
    "load": LOAD,
    "provider": "keda",
    "behavior": {"scaleDown": AT_ONCE},
}


def fleet_of(routed: Callable[[str], Manifest]) -> dict[str, Manifest]:
    return {}  # they want KEDA to be there first


@pytest.fixture(scope="module")
def with_keda(installation: Installation) -> Iterator[Installation]:
    """Both installed; then the chart, which gives its operator the rights to KEDA's kind."""
    prometheus.install()
    keda.install()
    yield install(VALUES)
    keda.uninstall()
    keda.forget()


@pytest.fixture(scope="module")
def stub(with_keda: Installation) -> Manifest:
    """What a detector has to say for a server that answers ten pictures a second at no cost."""
    env = [{"name": "YOLOSTUB_SERVICE_MS", "value": str(SERVICE_MS)}]
    return {
        "runtime": {"image": images.build_and_load_upon(images.STUB)},
        "inference": {"deadline": "2s"},
        "resources": {"requests": {"cpu": "20m", "memory": "96Mi"}},
        "podTemplate": {"spec": {"containers": [{"name": "yoloserve", "env": env}]}},
    }


@pytest.fixture(scope="module")
def busy(stub: Manifest, make: Any, routed: Any) -> Iterator[Detector]:
    """One that KEDA scales, with one replica."""
    detector = make("busy", **stub, traffic={**routed("busy"), "retries": 0}, autoscaling=BY_KEDA)
    detector.wait_ready()
    yield detector
    detector.leave()


@pytest.fixture(scope="module")
def loaded(busy: Detector, target: Callable[[str], Target], images: Any) -> Iterator[Load]:
    """One and a half times what a replica answers."""
    data = [image.data for image in images]
    wait_until_served(target("busy"), data, within_s=300)
    with Load(target("busy"), data, callers=32, per_second=1.5 * REPLICA) as load:
        yield load


def stable(detector: Detector) -> str:
    return str(detector.raw()["status"]["stable"]["revision"])


def replicas(detector: Detector) -> int:
    found = detector.kubectl.find("deployment", stable(detector))
    assert found
    return int(found["spec"]["replicas"])


def at_least(detector: Detector, count: int) -> None:
    if (now := replicas(detector)) < count:
        raise NotYet(f"{now} replicas")


def unlimited(detector: Detector) -> None:
    found = condition(detector.acted_on(), "AutoscalingLimited")
    if found.get("status", "False") != "False":
        raise NotYet(told(found))


def autoscaler(detector: Detector) -> Manifest:
    if (found := detector.kubectl.find("hpa", stable(detector))) is None:
        raise NotYet("there is no HorizontalPodAutoscaler")
    return found


def owner(detector: Detector) -> str:
    [owner] = autoscaler(detector)["metadata"]["ownerReferences"]
    return str(owner["kind"])


def fewest(versions: list[Manifest]) -> int:
    return min(version["spec"]["replicas"] for version in versions)


def test_replicas_follow_the_load_that_prometheus_tells(busy: Detector, loaded: Load) -> None:
    eventually("three replicas", lambda: at_least(busy, 3), within_s=600, hint=busy.hint())
    assert owner(busy) == "ScaledObject"
    assert busy.raw()["status"]["autoscaling"]["provider"] == "keda"
    unlimited(busy)
    assert "status" not in condition(busy.raw(), "Drifted"), "KEDA's own fields are no drift"


def test_the_autoscaler_is_handed_over_both_ways_and_the_live_number_stays(
    busy: Detector, loaded: Load
) -> None:
    live = replicas(busy)
    with busy.kubectl.watched("deployment", stable(busy)) as watch:
        busy.patch({"autoscaling": {"provider": "builtin"}})

        def by(kind: str, provider: str) -> None:
            feeds = busy.acted_on()["status"]["autoscaling"]["provider"]
            if (owner(busy), feeds) != (kind, provider):
                raise NotYet(f"{owner(busy)} owns the autoscaler, {feeds} feeds it")

        eventually("the floor", lambda: by("YoloDetector", "builtin"), within_s=300)
        assert busy.kubectl.find(SCALED, stable(busy)) is None
        assert autoscaler(busy)["spec"]["minReplicas"] >= live
        busy.patch({"autoscaling": {"provider": "keda"}})
        eventually("KEDA again", lambda: by("ScaledObject", "keda"), within_s=300)

        def asks() -> None:
            metrics = autoscaler(busy)["spec"]["metrics"]
            if [metric["type"] for metric in metrics] != ["External"]:
                raise NotYet(str(metrics))

        eventually("KEDA's metric", asks, within_s=300)
    assert fewest(watch.versions) >= live


def test_nobody_goes_while_prometheus_is_away_and_they_would_have(
    busy: Detector, loaded: Load, target: Callable[[str], Target]
) -> None:
    kubectl = Kubectl(prometheus.NAMESPACE)
    live = replicas(busy)
    with busy.kubectl.watched("deployment", stable(busy)) as watch:
        kubectl.run("scale", "deployment/prometheus", "--replicas=0")
        try:
            loaded.__exit__(None, None, None)  # nobody asks any more: none of them is needed

            def in_vain() -> None:
                scaled = busy.kubectl.find(SCALED, stable(busy)) or {}
                health = scaled.get("status", {}).get("health", {})
                failures = [each["numberOfFailures"] for each in health.values()]
                if not failures or min(failures) < IN_VAIN:
                    raise NotYet(f"{failures} failures")

            eventually("looks in vain", in_vain, within_s=900)
            lost = busy.wait_for("AutoscalingLimited", within_s=120)
        finally:
            kubectl.run("scale", "deployment/prometheus", "--replicas=1")
    assert lost["reason"] == "MetricLost"
    assert "are held" in lost["message"]
    assert fewest(watch.versions) == live

    def alone() -> None:
        if (now := replicas(busy)) > 1:
            raise NotYet(f"{now} replicas")

    eventually("the replicas to go", alone, within_s=600, hint=busy.hint())
    eventually("nothing to be said of it", lambda: unlimited(busy), within_s=120)


def test_where_keda_goes_first_its_object_stays_and_what_is_told_lets_it_go(
    busy: Detector, stub: Manifest, with_keda: Installation
) -> None:
    """A detector that stays, one that is deleted, and one that goes with its namespace."""
    doomed = with_keda.kubectl(f"{busy.kubectl.namespace}-doomed")
    doomed.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": doomed.namespace}})
    deleted, gone_with = Detector(busy.kubectl, "deleted"), Detector(doomed, "doomed")
    for detector in (deleted, gone_with):
        detector.kubectl.apply(
            {
                "apiVersion": "yolofleet.io/v1alpha1",
                "kind": "YoloDetector",
                "metadata": {"name": detector.name},
                "spec": {"model": {"uri": "demo://shapes"}, **stub, "autoscaling": BY_KEDA},
            }
        )
    for detector in (deleted, gone_with):
        detector.wait_ready()
        eventually("KEDA's autoscaler", lambda at=detector: owner(at), within_s=300)
    left, doomed_too = stable(deleted), stable(gone_with)
    keda.uninstall()

    deleted.kubectl.run("delete", "yolodetector", "deleted", "--timeout=60s")
    eventually("its pods to go", deleted._no_pods, within_s=300)
    assert "deletionTimestamp" in (deleted.kubectl.find(SCALED, left) or {})["metadata"]

    busy.patch({"autoscaling": {"provider": "builtin"}})
    stays = busy.wait_for("AutoscalingLimited")
    assert stays["reason"] == "ScaledObjectStays"
    command = re.search(r"kubectl (-n \S+ patch scaledobject .+)$", stays["message"])
    assert command, stays["message"]

    doomed.run("delete", "namespace", doomed.namespace, "--wait=false")

    def stuck() -> None:
        namespace = doomed.find("namespace", doomed.namespace) or {}
        left = condition(namespace, "NamespaceContentRemaining").get("message", "")
        if not left.endswith("remaining: scaledobjects.keda.sh has 1 resource instances"):
            raise NotYet(left)
        why = condition(namespace, "NamespaceFinalizersRemaining")
        assert "finalizer.keda.sh in 1 resource instances" in why["message"]

    eventually("its namespace to hang on KEDA's object alone", stuck, within_s=300)

    busy.kubectl.run(*shlex.split(command[1])[2:])
    eventually("the autoscaler to be ours", lambda: ours(busy), within_s=300)
    assert busy.wait_for("Ready")
    for kubectl, name in ((deleted.kubectl, left), (doomed, doomed_too)):
        finalizers = {"metadata": {"finalizers": None}}  # as docs/guides/scaling.md says
        kubectl.run("patch", SCALED, name, "--type=merge", f"--patch={json.dumps(finalizers)}")
    eventually("the namespace to go", lambda: nothing(doomed), within_s=300)
    assert busy.kubectl.find(SCALED, left) is None


def ours(detector: Detector) -> None:
    if (kind := owner(detector)) != "YoloDetector":
        raise NotYet(f"it is of a {kind}")


def nothing(kubectl: Kubectl) -> None:
    if found := kubectl.find("namespace", kubectl.namespace):
        raise NotYet(str(found["status"]))
