"""What has to be in a cluster before the operator can run: its CRD, and its rights, no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import yaml

from cluster.cache import artefact
from cluster.components import KUBERAY
from cluster.gobuild import source
from controlplane.kube import CLUSTER_ROLE, Kube, connect
from controlplane.plane import OPERATOR_USER, ControlPlane
from yolofleet.api import names
from yolofleet.api.names import Manifest

ROOT: Final = Path(__file__).resolve().parents[2]
DETECTOR_CRD: Final = ROOT / "crds" / "yolodetectors.yolofleet.io.yaml"
ISTIO_CRDS: Final = ROOT / "dev" / "controlplane" / "manifests" / "istio.yaml"
GATEWAY_CRDS: Final = ROOT / "dev" / "controlplane" / "manifests" / "gateway.yaml"
KEDA_CRDS: Final = ROOT / "dev" / "controlplane" / "manifests" / "keda.yaml"
MONITOR_CRDS: Final = ROOT / "dev" / "controlplane" / "manifests" / "monitoring.yaml"


def _rule(group: str, resources: str, verbs: str) -> Manifest:
    return {"apiGroups": [group], "resources": resources.split(), "verbs": verbs.split()}


_CHILD: Final = "get list watch create patch delete"
RIGHTS: Final = [
    _rule(names.GROUP, "yolodetectors", "get list watch"),
    _rule(names.GROUP, "yolodetectors/status", "patch"),
    _rule("apps", "deployments controllerrevisions", _CHILD),
    _rule("", "services serviceaccounts configmaps", _CHILD),
    _rule("autoscaling", "horizontalpodautoscalers", _CHILD),
    _rule("policy", "poddisruptionbudgets", _CHILD),
    _rule("networking.k8s.io", "networkpolicies", _CHILD),
    _rule("keda.sh", "scaledobjects", _CHILD),
    _rule("resource.k8s.io", "resourceclaimtemplates", _CHILD),
    _rule("resource.k8s.io", "resourceclaims deviceclasses resourceslices", "list"),
    _rule("ray.io", "rayservices", _CHILD),
    _rule("monitoring.coreos.com", "podmonitors", _CHILD),
    _rule("networking.istio.io", "virtualservices destinationrules", _CHILD),
    _rule("gateway.networking.k8s.io", "httproutes", _CHILD),
    _rule("", "pods nodes", "get list watch"),
    _rule("", "events", "list create patch"),
    _rule("apiextensions.k8s.io", "customresourcedefinitions", "list watch"),
    _rule("coordination.k8s.io", "leases", "get create update"),
]
"""All that the operator may do: every test of it proves that this is enough."""


ROLE: Final = "yolofleet"


def ray_service_crd() -> Path:
    """Return the file of KubeRay's own CustomResourceDefinition of RayServices, without its words.

    These are most of a megabyte, which an API server takes seconds to read.
    """

    def write(part: Path) -> None:
        file = source(KUBERAY) / "config" / "crd" / "bases" / "ray.io_rayservices.yaml"
        definition = yaml.load(file.read_text(), Loader=yaml.CSafeLoader)
        versions = definition["spec"]["versions"]
        definition["spec"]["versions"] = [each for each in versions if each["storage"]]
        part.write_text(json.dumps(_without_words(definition)))

    return artefact(f"crds/{KUBERAY.name}-{KUBERAY.version}.yaml", write)


def _without_words(node: Any) -> Any:
    if isinstance(node, dict):
        kept = {k: v for k, v in node.items() if k != "description" or not isinstance(v, str)}
        return {key: _without_words(value) for key, value in kept.items()}
    return [_without_words(item) for item in node] if isinstance(node, list) else node


async def install(plane: ControlPlane) -> None:
    """Install the detector's CRD and what the operator may do."""
    async with connect(plane.kubeconfig()) as client:
        kube = Kube(client, "installer")
        await kube.install(DETECTOR_CRD)
        await grant(kube, ROLE, OPERATOR_USER)


async def grant(kube: Kube, role: str, user: str) -> None:
    """Let `user` do what the operator may, by a ClusterRole `role` of its own."""
    api = "rbac.authorization.k8s.io"
    named = {"apiVersion": CLUSTER_ROLE.api_version, "metadata": {"name": role}}
    subject = {"apiGroup": api, "kind": "User", "name": user}
    granted = {"apiGroup": api, "kind": "ClusterRole", "name": role}
    await kube.apply(named | {"kind": "ClusterRole", "rules": RIGHTS})
    await kube.apply(
        named | {"kind": "ClusterRoleBinding", "roleRef": granted, "subjects": [subject]}
    )
