"""KubeRay with Ray, played: workers for each RayService, and what their status says.

As KubeRay 1.5.1 does: a service is pending until its application runs, and active from then on; the
status tells of no application while the head is not ready; the same config is not tried again after
it failed. Workers belong to the RayService itself: there is no RayCluster here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from memory_cluster.controllers import is_ready
from memory_cluster.server import Server
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime import objects
from yolofleet.runtime.client import Request
from yolofleet.runtime.kind import Kind

MANAGER: Final = "kuberay-operator"
TRACEBACK: Final = """\
The deployment failed to start 3 times in a row. Error:
Traceback (most recent call last):
  File "/app/yoloserve/rayserve.py", line 41, in __serve_build_asgi_app__
yoloserve.errors.DigestMismatch: the file has another digest than spec.model.sha256
"""
_TIME: Final = "2030-01-01T00:00:00Z"


class KubeRay:
    """One KubeRay. wants: how many replicas Serve's own autoscaler goes for, of those it has.

    failing: models that no replica starts with. headless: RayServices whose head is lost. ill:
    those that Ray takes for unhealthy although they answer. idle: whether it does nothing at all.
    """

    def __init__(self) -> None:
        self.wants: Callable[[str, int], int] = lambda _name, replicas: replicas
        self.failing: set[str] = set()
        self.headless: set[str] = set()
        self.ill: set[str] = set()
        self.idle = False
        self.configs: dict[str, list[str]] = {}
        """By RayService: the configs that Ray got, in turn."""

    def __call__(self, server: Server) -> None:
        """Do once what it has to do for each RayService."""
        if self.idle:
            return
        for service in server.all(kinds.RAY_SERVICE):
            self._bring(server, service)

    def _bring(self, server: Server, service: Manifest) -> None:
        metadata, spec = service["metadata"], service["spec"]
        name = metadata["name"]
        seen = self.configs.setdefault(metadata["uid"], [])
        if spec["serveConfigV2"] not in seen[-1:] and "applications" in spec["serveConfigV2"]:
            seen.append(spec["serveConfigV2"])  # what Ray cannot read it refuses
        [application] = json.loads(seen[-1])["applications"]
        [deployment] = application["deployments"]
        workers = [
            pod for pod in server.all(kinds.POD) if objects.controller_uid(pod) == metadata["uid"]
        ]
        cluster = spec["rayClusterConfig"]
        [group] = cluster["workerGroupSpecs"]
        failed = any(model in json.dumps(group["template"]) for model in self.failing)
        if name in self.headless:
            if not cluster.get("gcsFaultToleranceOptions"):
                for pod in workers:
                    _delete(server, pod)
                workers = []
        else:
            wanted = self._replicas(name, deployment, len(workers))
            for pod in workers[wanted:]:
                _delete(server, pod)
            for _ in range(wanted - len(workers)):
                _make(server, service, group["template"])
        ready = 0 if failed else sum(map(is_ready, workers))
        _tell(server, service, self._status(service, len(workers), ready, failed=failed))

    def _replicas(self, name: str, deployment: Manifest, running: int) -> int:
        scaling = deployment["autoscaling_config"]
        wanted = self.wants(name, running)
        return int(min(max(wanted, scaling["min_replicas"]), scaling["max_replicas"]))

    def _status(self, service: Manifest, workers: int, ready: int, *, failed: bool) -> Manifest:
        metadata, before = service["metadata"], service.get("status") or {}
        name, headless = metadata["name"], metadata["name"] in self.headless
        active = bool(before.get("activeServiceStatus", {}).get("rayClusterName")) or ready > 0
        was_ready = any(
            each["type"] == "Ready" and each["reason"] != "Initializing"
            for each in before.get("conditions", ())
        )
        reason = "NonZeroServeEndpoints" if ready else "ZeroServeEndpoints"
        reason = reason if ready or was_ready else "Initializing"
        deployment: Manifest = {"status": "HEALTHY" if ready >= workers else "UPDATING"}
        application = "RUNNING" if ready else "DEPLOYING"
        if failed:
            deployment = {"status": "DEPLOY_FAILED", "message": TRACEBACK}
            application = "DEPLOY_FAILED"
        if name in self.ill:
            deployment = {"status": "UNHEALTHY", "message": "a replica is ill"}
        head = {
            "type": "HeadPodReady",
            "status": "False" if headless else "True",
            "reason": "HeadPodNotFound" if headless else "HeadPodRunningAndReady",
            "message": "Head Pod not found" if headless else "",
            "lastTransitionTime": _TIME,
        }
        current: Manifest = {
            "rayClusterName": f"{name}-abcde",
            "rayClusterStatus": {"desiredWorkerReplicas": workers, "conditions": [head]},
        }
        if not headless:
            told = {"status": application, "serveDeploymentStatuses": {"yoloserve": deployment}}
            current["applicationStatuses"] = {"detector": told}
        return {
            "observedGeneration": metadata["generation"],
            "numServeEndpoints": ready,
            "conditions": [
                {"type": "Ready", "status": "True" if ready else "False", "reason": reason}
            ],
            "activeServiceStatus": current if active else {},
            "pendingServiceStatus": {} if active else current,
        }


def _make(server: Server, service: Manifest, template: Manifest) -> None:
    metadata = service["metadata"]
    owner = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "controller": True}
    pod: Manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": template["metadata"]
        | {
            "name": f"{metadata['name']}-{server.made}",
            "namespace": metadata["namespace"],
            "ownerReferences": [owner | {"name": metadata["name"], "uid": metadata["uid"]}],
        },
        "spec": template["spec"],
    }
    _send(server, "POST", kinds.POD, metadata["namespace"], body=pod)


def _delete(server: Server, pod: Manifest) -> None:
    metadata = pod["metadata"]
    _send(server, "DELETE", kinds.POD, metadata["namespace"], metadata["name"])


def _tell(server: Server, service: Manifest, status: Manifest) -> None:
    if service.get("status") == status:
        return
    metadata = service["metadata"]
    path = kinds.RAY_SERVICE.path(metadata["namespace"], metadata["name"], "status")
    live = server.find(kinds.RAY_SERVICE, metadata["namespace"], metadata["name"])
    assert live
    request = Request("PUT", path, {"fieldManager": MANAGER}, live | {"status": status})
    answer = server.answer(request)
    assert answer.code < 300, answer.body


def _send(
    server: Server, method: str, kind: Kind, namespace: str, name: str = "", body: Any = None
) -> None:
    request = Request(method, kind.path(namespace, name), {"fieldManager": MANAGER}, body)
    answer = server.answer(request)
    assert answer.code < 300, answer.body
