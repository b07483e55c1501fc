"""KEDA, whose operator and adapter scale what a ScaledObject names; on demand, and taken away."""

from __future__ import annotations

import json
import subprocess
from typing import Any, Final

import yaml

from cluster import client, components, gobuild, kindcluster, mode, versions
from cluster.mode import Mode
from cluster.paths import tools
from cluster.steps import step

NAMESPACE: Final = "keda"
PROGRAMS: Final = {"keda-operator": "operator", "keda-metrics-apiserver": "adapter"}
"""Its Deployments, and the command of its module that each runs."""

RELEASE: Final = (
    f"https://github.com/kedacore/keda/releases/download/v{versions.KEDA}"
    f"/keda-{versions.KEDA}-core.yaml"
)
LEFT: Final = 'jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}{"\\n"}{end}'
USER: Final = 65532  # as in its own images; its pods must not run as root


def install() -> None:
    """Install it and wait until the API server can ask it for metrics."""
    way = kindcluster.mode_of_running() or mode.current()
    manifests = _applied(way)
    with step(f"install KEDA {versions.KEDA}"):
        client.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifests)
        for deployment in PROGRAMS:
            client.kubectl("-n", NAMESPACE, "rollout", "status", "deployment", deployment)
        api = "apiservice/v1beta1.external.metrics.k8s.io"
        client.kubectl("wait", "--for=condition=Available", api, "--timeout=120s")


def uninstall() -> None:
    """Take it away as nobody should: its programs first, while there are ScaledObjects."""
    way = kindcluster.mode_of_running() or mode.current()
    kept = "CustomResourceDefinition"
    program = [each for each in yaml.safe_load_all(_applied(way)) if each["kind"] != kept]
    with step("remove KEDA"):
        client.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=_written(program))


def forget() -> None:
    """Take its kinds away, too, and what is left of them, though nobody sees to its finalizers."""
    with step("remove KEDA's kinds"):
        left = client.kubectl_output("get", "scaledobjects.keda.sh", "-A", "-o", LEFT) or ""
        for line in left.splitlines():
            namespace, name = line.split()
            free = '{"metadata":{"finalizers":null}}'
            object_ = ("-n", namespace, "patch", "scaledobject", name)
            client.kubectl(*object_, "--type=merge", "-p", free)
        listed = client.kubectl_output("get", "crd", "-o", "name") or ""
        ours = [name for name in listed.split() if name.endswith(".keda.sh")]
        if ours:
            client.kubectl("delete", *ours)


def _applied(way: Mode) -> bytes:
    if way is Mode.PULL:
        return subprocess.run(  # kubectl fetches what it is to apply
            [tools().kubectl, "create", "--dry-run=client", "-o", "yaml", "-f", RELEASE],
            capture_output=True,
            check=True,
        ).stdout
    source = gobuild.source(components.KEDA) / "config/minimal"
    plain = subprocess.run(
        [tools().kubectl, "kustomize", source], capture_output=True, check=True
    ).stdout
    return _written([_ours(each) for each in yaml.safe_load_all(plain)])


def _ours(manifest: dict[str, Any]) -> dict[str, Any]:
    """Let a Deployment of KEDA's run what was compiled here, and ask little of two cores."""
    if manifest["kind"] != "Deployment":
        return manifest
    [container] = manifest["spec"]["template"]["spec"]["containers"]
    container["image"] = _image(PROGRAMS[manifest["metadata"]["name"]])
    container["imagePullPolicy"] = "IfNotPresent"
    container["command"] = ["/entrypoint"]
    container["args"] = [each for each in container["args"] if each.startswith("--")]
    container["resources"]["requests"] = {"cpu": "50m", "memory": "64Mi"}
    return manifest


def _image(command: str) -> str:
    image = f"yolofleet/keda-{command}:{components.KEDA.key}"
    kindcluster.load_program(image, lambda: components.keda(command), user=USER)
    return image


def _written(manifests: list[dict[str, Any]]) -> bytes:
    return "\n---\n".join(json.dumps(each) for each in manifests).encode()
