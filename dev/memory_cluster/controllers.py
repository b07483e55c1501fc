"""What else works on the objects of a cluster: Deployments get pods, these get ready, orphans go.

One `step` is what each of them does once; a cluster at rest is one where a step changes nothing.
A Deployment's pods belong to it itself: there are no ReplicaSets here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from memory_cluster.server import KINDS, MERGE, Server
from yolofleet.api.names import REVISION_LABEL, Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime import objects
from yolofleet.runtime.client import APPLY, Request
from yolofleet.runtime.kind import Kind, kind_of

CONTROLLER: Final = "kube-controller-manager"
KUBELET: Final = "kubelet"

Fate = Callable[[Manifest], bool]
"""Says of a pod whether it can get ready."""


Measure = Callable[[Manifest, int], int]
"""Says how many replicas an autoscaler wants by its metrics, where it has so many."""


class Controllers:
    """The controllers of one cluster. ready: which pods get ready.

    wants: what autoscalers measure; without metrics they hold what is, in their bounds.
    """

    def __init__(self, server: Server, ready: Fate = lambda _pod: True) -> None:
        self._server = server
        self.ready = ready
        self.wants: Measure = lambda _autoscaler, replicas: replicas
        self.others: list[Callable[[Server], None]] = []
        """What else works in the cluster."""

    def settle(self, limit: int = 50) -> bool:
        """Step until nothing moves; return whether anything did."""
        for number in range(limit):
            if not self.step():
                return number > 0
        raise AssertionError("the controllers never come to rest")

    def step(self) -> bool:
        """Let each do once what it has to; return whether anything changed."""
        before = self._server.version
        self._collect_garbage()
        for other in self.others:
            other(self._server)
        for autoscaler in self._server.all(kinds.HPA):
            self._autoscale(autoscaler)
        for deployment in self._server.all(kinds.DEPLOYMENT):
            self._scale(deployment)
        for pod in self._server.all(kinds.POD):
            self._run(pod)
        for deployment in self._server.all(kinds.DEPLOYMENT):
            self._report(deployment)
        for route in self._server.all(kinds.HTTP_ROUTE):
            self._accept(route)
        return self._server.version != before

    def _collect_garbage(self) -> None:
        there = {one["metadata"]["uid"] for one in self._server.objects.values()}
        for (plural, namespace, name), one in list(self._server.objects.items()):
            owners = [r["uid"] for r in one["metadata"].get("ownerReferences") or ()]
            if owners and not there.intersection(owners):
                self._send("DELETE", _kind(plural), namespace, name)

    def _autoscale(self, autoscaler: Manifest) -> None:
        spec, namespace = autoscaler["spec"], autoscaler["metadata"]["namespace"]
        name = spec["scaleTargetRef"]["name"]
        deployment = self._server.find(kinds.DEPLOYMENT, namespace, name)
        if deployment is None or not (replicas := deployment["spec"]["replicas"]):
            return  # at zero it sleeps
        wanted = self.wants(autoscaler, replicas)
        wanted = min(max(wanted, spec["minReplicas"]), spec["maxReplicas"])
        if wanted != replicas:
            path, query = kinds.DEPLOYMENT.path(namespace, name), {"fieldManager": CONTROLLER}
            body = {"spec": {"replicas": wanted}}
            assert self._server.answer(Request("PATCH", path, query, body, MERGE)).code < 300

    def _scale(self, deployment: Manifest) -> None:
        spec, metadata = deployment["spec"], deployment["metadata"]
        pods = self._pods_of(deployment)
        template = json.dumps(spec["template"], sort_keys=True)
        old = [p for p in pods if p["metadata"]["annotations"]["template"] != template]
        current = [p for p in pods if p not in old]
        extra = current[spec["replicas"] :]
        for pod in [*old, *extra]:
            self._send("DELETE", kinds.POD, metadata["namespace"], pod["metadata"]["name"])
        for _ in range(spec["replicas"] - len(current)):
            self._send(
                "POST", kinds.POD, metadata["namespace"], body=self._pod(deployment, template)
            )

    def _pod(self, deployment: Manifest, template: str) -> Manifest:
        metadata, made = deployment["metadata"], json.loads(template)
        owner = {"apiVersion": "apps/v1", "kind": "Deployment", "controller": True}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{metadata['name']}-{self._server.made}",
                "namespace": metadata["namespace"],
                "labels": made["metadata"]["labels"],
                "annotations": {"template": template},
                "ownerReferences": [
                    owner | {"name": metadata["name"], "uid": metadata["uid"]},
                ],
            },
            "spec": made["spec"],
        }

    def _pods_of(self, deployment: Manifest) -> list[Manifest]:
        uid = deployment["metadata"]["uid"]
        return [p for p in self._server.all(kinds.POD) if objects.controller_uid(p) == uid]

    def _run(self, pod: Manifest) -> None:
        ready = "True" if self.ready(pod) else "False"
        names = [container["name"] for container in pod["spec"]["containers"]]
        self._tell(
            pod,
            KUBELET,
            {
                "phase": "Running",
                "podIP": address_of(pod),
                "conditions": [{"type": "Ready", "status": ready}],
                "containerStatuses": [{"name": n, "ready": ready == "True"} for n in names],
            },
        )

    def _report(self, deployment: Manifest) -> None:
        pods = self._pods_of(deployment)
        ready = sum(is_ready(pod) for pod in pods)
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": len(pods),
            "updatedReplicas": len(pods),
            "readyReplicas": ready,
            "availableReplicas": ready,
        }
        self._tell(deployment, CONTROLLER, {k: v for k, v in status.items() if v})

    def _accept(self, route: Manifest) -> None:
        seen = {"observedGeneration": route["metadata"]["generation"]}
        conditions = [
            {"type": type, "status": "True", "reason": type, **seen}
            for type in ("Accepted", "ResolvedRefs")
        ]
        parents = [
            {"parentRef": parent, "controllerName": "example.com/gateway", "conditions": conditions}
            for parent in route["spec"].get("parentRefs", ())
        ]
        self._tell(route, "gateway", {"parents": parents})

    def _tell(self, one: Manifest, manager: str, status: Manifest) -> None:
        if one.get("status") == status:
            return
        kind, metadata = kind_of(one), one["metadata"]
        body = {
            "apiVersion": one["apiVersion"],
            "kind": one["kind"],
            "metadata": {"name": metadata["name"], "uid": metadata["uid"]},
            "status": status,
        }
        path = kind.path(metadata["namespace"], metadata["name"], "status")
        query = {"fieldManager": manager, "force": "true"}
        answer = self._server.answer(Request("PATCH", path, query, body, APPLY))
        assert answer.code < 300, answer.body

    def _send(
        self, method: str, kind: Kind, namespace: str, name: str = "", body: Any = None
    ) -> None:
        path = kind.path(namespace, name)
        answer = self._server.answer(Request(method, path, {"fieldManager": CONTROLLER}, body))
        assert answer.code < 300 or method == "DELETE", answer.body


def address_of(pod: Manifest) -> str:
    """Return the address of a pod: by the number in its name."""
    number = int(pod["metadata"]["name"].rpartition("-")[2])
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def is_ready(pod: Manifest) -> bool:
    """Say whether a pod answers."""
    conditions = pod.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def revision_of(pod: Manifest) -> str:
    """Return the revision that a pod is of."""
    return str(pod["metadata"]["labels"].get(REVISION_LABEL, ""))


def _kind(plural: str) -> Kind:
    return next(kind for kind in KINDS if kind.plural == plural)
