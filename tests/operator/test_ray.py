"""Ray on a real API server: what KubeRay's own schema says of what is written for it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controlplane.installation import ray_service_crd
from controlplane.kube import Kube
from yolofleet.api.detector import Detector
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.plan.defaults import Defaults
from yolofleet.plan.revisions import stable_revision
from yolofleet.runtime.kind import kind_of
from yolofleet.workloads import ray_service
from yolofleet.workloads.serve_config import ServeConfig
from yolofleet.workloads.workload import PlannedRevision, Record

ON_RAY = {"engine": "ray", "ray": {"redis": {"address": "redis:6379"}}}
READY = {"conditions": [{"type": "Ready", "status": "True"}], "phase": "Running"}


class KubeRay:
    """As much of it as a status needs: workers that are ready, and what is said of them."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube, self._namespace = kube.acting_as("kuberay-operator"), namespace

    async def bring(self, service: Manifest) -> None:
        """Make a worker for each replica, and tell of them."""
        name, spec = service["metadata"]["name"], service["spec"]
        config = ServeConfig.read(spec["serveConfigV2"])
        assert config
        replicas = config.deployment.autoscaling_config.min_replicas
        [group] = spec["rayClusterConfig"]["workerGroupSpecs"]
        for number in range(replicas):
            pod = group["template"]["metadata"] | {"name": f"{name}-{number}"}
            made = {"apiVersion": "v1", "kind": "Pod", "spec": group["template"]["spec"]}
            await self._kube.apply(made | {"metadata": pod | {"namespace": self._namespace}})
            await self._kube.merge(
                kinds.POD, self._namespace, pod["name"], {"status": READY}, "status"
            )
        deployment = {"yoloserve": {"status": "HEALTHY"}}
        told = {"detector": {"status": "RUNNING", "serveDeploymentStatuses": deployment}}
        condition = {"type": "Ready", "status": "True", "reason": "NonZeroServeEndpoints"}
        condition |= {"message": "", "lastTransitionTime": "2030-01-01T00:00:00Z"}
        status = {
            "observedGeneration": service["metadata"]["generation"],
            "numServeEndpoints": replicas,
            "conditions": [condition],
            "activeServiceStatus": {"rayClusterName": f"{name}-x", "applicationStatuses": told},
        }
        path = (kinds.RAY_SERVICE, self._namespace, name)
        await self._kube.merge(*path, {"status": status}, "status")


async def test_kuberay_takes_a_ray_service_as_it_is_written_and_what_it_tells_is_told(
    optional_kinds: Any,
    new_operator: Callable[..., Any],
    make_detector: Callable[..., Any],
    kube: Kube,
    namespace: str,
    eventually: Callable[..., Any],
    always: Callable[..., Any],
) -> None:
    await optional_kinds.install(ray_service_crd())
    operator = new_operator(YOLOFLEET_IMAGE_RAY="serve:ray")
    operator.start()
    await operator.ready()
    detector = await make_detector(runtime=ON_RAY, replicas=2)
    kuberay = KubeRay(kube, namespace)

    async def made() -> Manifest:
        [service] = await kube.list(kinds.RAY_SERVICE, namespace)
        return service

    service = await eventually(made)
    cluster = service["spec"]["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["gcsFaultToleranceOptions"] == {"redisAddress": "redis:6379"}
    await kuberay.bring(service)

    async def is_released() -> bool:
        status = (await kube.get(kinds.DETECTOR, namespace, "gate")).get("status", {})
        told = {c["type"]: c["status"] for c in status.get("conditions", ())}
        return bool(told.get("Released") == "True" and status["ready"] == "2/2")

    await eventually(is_released)
    version = (await made())["metadata"]["resourceVersion"]

    async def is_left() -> bool:
        return bool((await made())["metadata"]["resourceVersion"] == version)

    await always(is_left, 2)
    await kube.merge(kinds.DETECTOR, namespace, "gate", {"spec": {"replicas": 3}})

    async def has_more() -> bool:
        config = ServeConfig.read((await made())["spec"]["serveConfigV2"])
        return bool(config and config.deployment.autoscaling_config.min_replicas == 3)

    await eventually(has_more)
    after = (await made())["spec"]["rayClusterConfig"]
    cluster["workerGroupSpecs"][0]["replicas"] = 3
    assert after == cluster, "a change of the number makes no other pods"
    assert detector["spec"]["runtime"]["engine"] == "ray"


async def test_kuberay_keeps_what_workers_claim(
    optional_kinds: Any, make_detector: Callable[..., Any], kube: Kube, namespace: str
) -> None:
    await optional_kinds.install(ray_service_crd())
    runtime = ON_RAY | {"image": "serve:ray-gpu"}
    detector = Detector.parse(
        await make_detector(runtime=runtime, accelerator={"deviceClassName": "gpu.nvidia.com"})
    )
    revision = stable_revision(detector, Defaults(image_cpu="", image_torch="", image_gpu=""))
    made = ray_service.build(detector, PlannedRevision(revision, Record(""), 1))
    await kube.apply(made)
    [stored] = await kube.list(kinds.RAY_SERVICE, namespace)
    asked, kept = ray_service.pod(made)["spec"], ray_service.pod(stored)["spec"]
    assert kept["resourceClaims"] == asked["resourceClaims"]
    assert kept["containers"][0]["resources"] == asked["containers"][0]["resources"]
    assert asked["containers"][0]["resources"]["claims"]


def without_tokens(version: Manifest) -> None:
    """Make of KubeRay's schema what it was before 1.5.1: nobody is asked for a token."""
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["rayClusterConfig"]["properties"].pop("authOptions")


def of_another_version(version: Manifest) -> None:
    """Make of it what it was before 1.0: there was no v1."""
    version["name"] = "v1alpha1"


@pytest.mark.parametrize(
    ("age", "condition", "told"),
    [
        (without_tokens, "Written", "install KubeRay 1.5.1 or later"),
        (of_another_version, "Ready", "needs KubeRay 1.5.1 or later"),
    ],
)
async def test_an_older_kuberay_gets_no_ray_service_and_is_told(
    optional_kinds: Any,
    new_operator: Callable[..., Any],
    make_detector: Callable[..., Any],
    age: Callable[[Manifest], None],
    condition: str,
    told: str,
    tmp_path: Path,
    kube: Kube,
    namespace: str,
    eventually: Callable[..., Any],
) -> None:
    definition = json.loads(ray_service_crd().read_text())
    for version in definition["spec"]["versions"]:
        age(version)
    older = tmp_path / "older.yaml"
    older.write_text(json.dumps(definition))
    await optional_kinds.install(older)
    operator = new_operator(YOLOFLEET_IMAGE_RAY="serve:ray")
    operator.start()
    await operator.ready()
    await make_detector(runtime=ON_RAY)

    async def said() -> bool:
        status = (await kube.get(kinds.DETECTOR, namespace, "gate")).get("status", {})
        return any(
            told in each["message"]
            for each in status.get("conditions", ())
            if each["type"] == condition
        )

    await eventually(said)
    if age is without_tokens:
        assert not await kube.list(kinds.RAY_SERVICE, namespace)
    assert kind_of({"apiVersion": "ray.io/v1", "kind": "RayService"}) is kinds.RAY_SERVICE
