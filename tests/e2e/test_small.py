"""What a detector has without a mesh, with an autoscaler, after damage, and after its end."""

import asyncio
import json
import subprocess

from cluster.paths import tools
from demo_cluster import pictures
from demo_cluster.errors import NotYet
from demo_cluster.forwarding import forwarded
from demo_cluster.installation import NAMESPACE, RELEASE
from demo_cluster.kube import ROUTES, Kubectl
from demo_cluster.waiting import eventually

EVERYTHING = (
    "deployments,controllerrevisions,replicasets,pods,services,endpointslices,"
    "horizontalpodautoscalers,poddisruptionbudgets,virtualservices.networking.istio.io,"
    "destinationrules.networking.istio.io"
)


def fleet_of(routed):
    service = {"provider": "service"}
    return {
        "plain": {"traffic": service},
        "dock": {"replicas": 2, "traffic": service},
        "drift": {"traffic": routed("drift")},
    }


def left(kubectl: Kubectl, detector: str) -> list[str]:
    found = kubectl.list(EVERYTHING, f"yolofleet.io/detector={detector}")
    return [f"{item['kind']}/{item['metadata']['name']}" for item in found]


def test_without_hosts_a_plain_service_is_all_and_deleting_leaves_nothing(fleet, images, kubectl):
    detector = fleet["plain"]
    detector.wait_ready()
    detector.wait_for("TrafficRouted")
    assert kubectl.find(ROUTES, "plain") is None
    assert detector.raw()["status"]["url"].startswith(f"http://plain.{kubectl.namespace}.svc")
    with forwarded(kubectl, "plain") as target:
        answer = eventually(
            "an answer from the Service",
            lambda: asyncio.run(pictures.detect(target, images[0])),
            within_s=300,
        )
    assert answer["detections"]

    assert detector.raw()["metadata"].get("finalizers", []) == []
    kubectl.run("delete", "yolodetector", "plain")

    def look() -> None:
        if found := left(kubectl, "plain"):
            raise NotYet(", ".join(found))

    eventually("everything of the detector to go", look, within_s=300)


def test_an_autoscaler_owns_the_replicas_and_the_live_number_is_kept(fleet, kubectl):
    detector = fleet["dock"]
    detector.wait_ready()
    revision = detector.raw()["status"]["stable"]["revision"]
    keep = {"scaleDown": {"selectPolicy": "Disabled"}}
    scaling = {"minReplicas": 1, "maxReplicas": 3, "cpu": 1000, "behavior": keep}
    detector.patch({"replicas": None, "autoscaling": scaling})

    def look() -> None:
        detector.acted_on()
        if kubectl.find("horizontalpodautoscaler", revision) is None:
            raise NotYet("there is none")

    eventually("the HorizontalPodAutoscaler", look, within_s=300, hint=detector.hint())

    def owners() -> set[str]:
        deployment = kubectl.run(
            "get", "deployment", revision, "--show-managed-fields", "--output=json"
        )
        return {
            entry["manager"]
            for entry in json.loads(deployment)["metadata"]["managedFields"]
            if "f:replicas" in entry["fieldsV1"].get("f:spec", {})
        }

    def handed_over() -> None:
        if "yolofleet" in owners():
            raise NotYet("the operator owns spec.replicas")

    eventually("the replicas to be handed over", handed_over, within_s=300)
    assert replicas(kubectl, revision) == 2  # as many as before, not the autoscaler's minimum

    kubectl.run("scale", "deployment", revision, "--replicas=3")  # as an autoscaler does
    detector.patch({"revisionHistory": 3})  # the operator looks again, and leaves it alone
    eventually("the operator to look again", detector.acted_on, within_s=300)
    assert replicas(kubectl, revision) == 3
    assert "yolofleet" not in owners()
    detector.leave()


def replicas(kubectl: Kubectl, deployment: str) -> int:
    found = kubectl.find("deployment", deployment)
    assert found
    return int(found["spec"]["replicas"])


def test_what_somebody_deletes_or_edits_is_repaired(fleet, kubectl):
    detector = fleet["drift"]
    detector.wait_ready()
    detector.wait_for("TrafficRouted")
    before = kubectl.find(ROUTES, "drift")
    kubectl.run("delete", ROUTES, "drift")
    kubectl.patch("service", "drift", {"spec": {"selector": {"yolofleet.io/revision": "wrong"}}})

    def look() -> None:
        route = kubectl.find(ROUTES, "drift")
        if route is None or route["spec"] != before["spec"]:
            raise NotYet("the VirtualService is not back")
        selector = kubectl.find("service", "drift")["spec"]["selector"]
        if selector["yolofleet.io/revision"] == "wrong":
            raise NotYet("the Service still selects nothing")

    eventually("the repair", look, within_s=300, hint=detector.hint())
    detector.leave()


def test_helm_test_finds_the_installation_in_order(installation):
    found = tools()
    done = subprocess.run(
        [
            *(str(found.helm), "test", RELEASE, "--namespace", NAMESPACE),
            *("--kubeconfig", str(found.kubeconfig), "--timeout", "3m"),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Succeeded" in done.stdout
