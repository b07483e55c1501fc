"""Who is measured side by side: our operator and its peers, each as it is delivered.

The peers are built from their Go modules, with the CRDs that their modules have. Each looks after
objects of its own kind that are as near to a detector as it has: two replicas, and what leads to
them. None of their admission webhooks is installed, as none of ours is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import yaml

from cluster import components, gobuild
from controlplane import ports
from controlplane.installation import ISTIO_CRDS, install
from controlplane.kube import CLUSTER_ROLE_BINDING, Kube
from controlplane.plane import OPERATOR, OPERATOR_USER, ControlPlane
from controlplane.process import OperatorProcess
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime.kind import Kind

RAY_CLUSTER: Final = Kind("ray.io", "v1", "RayCluster", "rayclusters")
INFERENCE_SERVICE: Final = Kind(
    "serving.kserve.io", "v1beta1", "InferenceService", "inferenceservices"
)


class Manager(Protocol):
    """A process that looks after objects, with its probes and metrics."""

    port: int  # of /metrics, under the names that controller-runtime has for them

    @property
    def pid(self) -> int:
        """Return the id of the process."""

    def start(self) -> None:
        """Start it, without waiting for anything."""

    def probe(self, path: str) -> int:
        """Return the status with which a probe is answered; 0 without an answer."""

    def terminate(self) -> int:
        """Ask it to end, as the kubelet does, and return the exit status."""

    def kill(self) -> None:
        """End it without warning."""

    def text(self) -> str:
        """Return all that it logged."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One of them. spec: of an object before (0) and after (1) the edit that changes one child."""

    name: str
    kind: Kind
    install: Callable[[ControlPlane, Kube], Awaitable[None]]
    manager: Callable[[ControlPlane, Path], Manager]
    spec: Callable[[str, int], Manifest]

    def manifest(self, namespace: str, name: str) -> Manifest:
        """Return one object for it to look after."""
        return {
            "apiVersion": self.kind.api_version,
            "kind": self.kind.name,
            "metadata": {"name": name, "namespace": namespace},
            "spec": self.spec(name, 0),
        }


class GoManager:
    """The manager of a peer, as a process."""

    def __init__(
        self,
        binary: Path,
        arguments: Sequence[str],
        log: Path,
        environment: dict[str, str],
        *,
        port: int,
        probe_port: int,
    ) -> None:
        self.port = port
        self._probe_port = probe_port
        self._call = [str(binary), *arguments]
        self._log = log
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return the id of the process that was started last."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, without waiting for anything."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._call, stdout=log, stderr=log, env=self._environment
            )

    def probe(self, path: str) -> int:
        """Return the status with which a probe is answered; 0 without an answer."""
        assert self._process is not None
        if (status := self._process.poll()) is not None:
            raise RuntimeError(f"{self._call[0]} exited with {status}:\n{self.text()[-4000:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._probe_port}/{path}") as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0

    def terminate(self) -> int:
        """Ask it to end, as the kubelet does, and return the exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(60)

    def kill(self) -> None:
        """End it without warning."""
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def text(self) -> str:
        """Return all that it logged."""
        return self._log.read_text(errors="replace")


async def _install_ours(plane: ControlPlane, kube: Kube) -> None:
    await install(plane)
    await kube.install(ISTIO_CRDS)


def _ours(plane: ControlPlane, log: Path) -> Manager:
    lease = {"YOLOFLEET_LEASE_NAMESPACE": "default", "YOLOFLEET_DRAIN_SECONDS": "3"}
    return OperatorProcess(plane.kubeconfig(OPERATOR), log, lease, fresh=True)


def _detector(name: str, turn: int) -> Manifest:
    return {
        "model": {"uri": "demo://shapes"},
        "replicas": 2 + turn,
        "canary": {"model": {"uri": "demo://shapes-v2"}, "weight": 10},
        "traffic": {"hosts": [f"{name}.example.com"], "gateways": ["istio-system/public"]},
    }


async def _let_do_anything(kube: Kube) -> None:
    api = "rbac.authorization.k8s.io"
    await kube.apply(
        {
            "apiVersion": CLUSTER_ROLE_BINDING.api_version,
            "kind": CLUSTER_ROLE_BINDING.name,
            "metadata": {"name": "measured"},
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"apiGroup": api, "kind": "User", "name": OPERATOR_USER}],
        }
    )


async def _install_kuberay(_plane: ControlPlane, kube: Kube) -> None:
    await _let_do_anything(kube)
    folder = gobuild.source(components.KUBERAY) / "config" / "crd" / "bases"
    await kube.install(*sorted(folder.glob("*.yaml")))


def _kuberay(*more: str) -> Callable[[ControlPlane, Path], Manager]:
    def manager(plane: ControlPlane, log: Path) -> Manager:
        port, probes = ports.reserve(2)
        arguments = [
            f"--metrics-addr=127.0.0.1:{port}",
            f"--health-probe-bind-address=127.0.0.1:{probes}",
            "--leader-election-namespace=default",
            *more,
        ]
        environment = {"KUBECONFIG": str(plane.kubeconfig(OPERATOR))}
        return GoManager(
            components.kuberay(), arguments, log, environment, port=port, probe_port=probes
        )

    return manager


def _ray_cluster(_name: str, turn: int) -> Manifest:
    def group(container: str) -> Manifest:
        small = {"cpu": "1", "memory": "1Gi"}
        one = {
            "name": container,
            "image": "rayproject/ray:2.46.0",
            "resources": {"limits": small, "requests": small},
        }
        return {"rayStartParams": {}, "template": {"spec": {"containers": [one]}}}

    workers = {"groupName": "small", "replicas": 1 + turn, "minReplicas": 1, "maxReplicas": 5}
    return {
        "rayVersion": "2.46.0",
        "headGroupSpec": group("ray-head"),
        "workerGroupSpecs": [workers | group("ray-worker")],
    }


async def _install_kserve(_plane: ControlPlane, kube: Kube) -> None:
    await _let_do_anything(kube)
    module = gobuild.source(components.KSERVE)
    charts = module / "charts" / "kserve-crd"
    rendered = [f for f in (charts / "templates").glob("*.yaml") if "{{" not in f.read_text()]
    await kube.install(*sorted([*rendered, *(charts / "files").glob("*.yaml")]))
    await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kserve"}})
    settings = yaml.safe_load((module / "config/configmap/inferenceservice.yaml").read_text())
    await kube.apply(without_knative(settings))


def without_knative(settings: Manifest) -> Manifest:
    """Return KServe's settings as its guide to plain Deployments changes them."""
    data = settings["data"]
    ingress = json.loads(data["ingress"]) | {"disableIstioVirtualHost": True}
    deploy = {"defaultDeploymentMode": "Standard"}
    changed = data | {"deploy": json.dumps(deploy), "ingress": json.dumps(ingress)}
    return settings | {"data": changed}


def _kserve(plane: ControlPlane, log: Path) -> Manager:
    port, probes, webhook = ports.reserve(3)
    # Its manager cannot be started without a webhook server; nobody ever calls this one.
    keys = log.parent / "kserve" / "k8s-webhook-server" / "serving-certs"
    keys.mkdir(parents=True, exist_ok=True)
    for ours, theirs in (("server.crt", "tls.crt"), ("server.key", "tls.key")):
        shutil.copy(plane.folder / ours, keys / theirs)
    arguments = [
        f"--metrics-addr=127.0.0.1:{port}",
        f"--health-probe-addr=127.0.0.1:{probes}",
        f"--webhook-port={webhook}",
    ]
    environment = {
        "KUBECONFIG": str(plane.kubeconfig(OPERATOR)),
        "TMPDIR": str(log.parent / "kserve"),
    }
    return GoManager(components.kserve(), arguments, log, environment, port=port, probe_port=probes)


def _inference_service(_name: str, turn: int) -> Manifest:
    small = {"cpu": "1", "memory": "1Gi"}
    container = {
        "name": "kserve-container",
        "image": f"example.com/detector:{turn}",
        "resources": {"limits": small, "requests": small},
    }
    return {"predictor": {"minReplicas": 2, "maxReplicas": 4, "containers": [container]}}


OURS: Final = "yolofleet"
KUBERAY: Final = "kuberay"
CONTENDERS: Final = (
    Contender(OURS, kinds.DETECTOR, _install_ours, _ours, _detector),
    Contender(KUBERAY, RAY_CLUSTER, _install_kuberay, _kuberay(), _ray_cluster),
    Contender(
        "kuberay-10",
        RAY_CLUSTER,
        _install_kuberay,
        _kuberay("--reconcile-concurrency=10"),
        _ray_cluster,
    ),
    Contender("kserve", INFERENCE_SERVICE, _install_kserve, _kserve, _inference_service),
)
