"""KubeRay, whose RayServices run detectors with `spec.runtime.engine: ray`."""

from __future__ import annotations

from typing import Any, Final

import yaml

from cluster import client, components, gobuild, kindcluster, mode, versions
from cluster.errors import ClusterError
from cluster.mode import Mode
from cluster.paths import tools
from cluster.steps import output, step

NAMESPACE: Final = "kuberay-system"
NAME: Final = "kuberay-operator"
NOBODY: Final = 65532
RELEASE: Final = (
    "https://github.com/ray-project/kuberay/ray-operator/config/default"
    f"?ref=v{versions.KUBERAY}&timeout=90s"
)
# Of its own it asks for half a gigabyte, and gets a tenth of a core at most.
RESOURCES: Final = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}


def install() -> None:
    """Install KubeRay's CRDs, and its manager in NAMESPACE."""
    manifests = _applied()
    with step(f"install KubeRay {versions.KUBERAY}"):
        client.kubectl("apply", "--server-side", "-f", "-", stdin=manifests)
        client.await_definitions()
        there = ("--namespace", NAMESPACE, f"deployment/{NAME}", "--timeout=180s")
        client.kubectl("rollout", "status", *there)


def uninstall() -> None:
    """Take it away with its kinds; while it is there it sees to what they leave in a Redis."""
    manifests = _applied()
    with step("remove KubeRay"):
        client.kubectl("delete", "rayservices,rayclusters", "--all", "--all-namespaces")
        client.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=manifests)


def _applied() -> bytes:
    if (kindcluster.mode_of_running() or mode.current()) is Mode.PULL:
        return adapted(_manifests(RELEASE), "")
    return adapted(_manifests(f"{gobuild.source(components.KUBERAY)}/config/default"), _image())


def adapted(manifests: str, image: str) -> bytes:
    """Put the manager into its namespace, and give it `image` (else the released one)."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    objects: list[dict[str, Any]] = [namespace, *filter(None, yaml.safe_load_all(manifests))]
    for each in objects:
        for placed in (each["metadata"], *each.get("subjects", ())):
            if placed.get("namespace"):
                placed["namespace"] = NAMESPACE
        if each["kind"] == "Deployment":
            pod = each["spec"]["template"]["spec"]
            (container,) = pod["containers"]
            container["resources"] = RESOURCES
            if image:
                container |= {"image": image, "command": ["/entrypoint"]}
    return yaml.safe_dump_all(objects).encode()


def _manifests(folder: str) -> str:
    told = output([tools().kubectl, "kustomize", folder], timeout_s=120)
    if told is None:
        raise ClusterError(f"`kubectl kustomize '{folder}'` fails. Run it to see why.")
    return told


def _image() -> str:
    tag = f"yolofleet/kuberay:{components.KUBERAY.key}"
    kindcluster.load_program(tag, components.kuberay, user=NOBODY)
    return tag
