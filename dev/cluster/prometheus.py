"""A Prometheus in the local cluster, set up as the guide tells people to; on demand."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Final

import yaml

from cluster import client, components, kindcluster, mode, versions
from cluster.mode import Mode
from cluster.paths import HERE, REPOSITORY, tools
from cluster.steps import step

NAMESPACE: Final = "monitoring"
HOST: Final = "prometheus.localhost"  # every browser takes *.localhost for this machine
INSIDE: Final = f"http://prometheus.{NAMESPACE}.svc:9090"
"""What pods of the cluster call it."""

GUIDE: Final = REPOSITORY / "docs" / "guides" / "monitoring.md"
RULES: Final = REPOSITORY / "charts" / "yolofleet" / "files" / "rules.yaml"
OPERATOR: Final = "yolofleet-system"
"""The operator's namespace in the local cluster; the guide has that of its own commands."""
USER: Final = 65534  # as in its own image


def install() -> None:
    """Install it, or give it today's configuration and rules."""
    image = _image(kindcluster.mode_of_running() or mode.current())
    with step(f"install Prometheus {versions.PROMETHEUS}"):
        manifests = "\n---\n".join(json.dumps(each) for each in _manifests(image))
        client.kubectl("apply", "-f", "-", stdin=manifests.encode())
        client.kubectl("-n", NAMESPACE, "rollout", "status", "deployment", "prometheus")


def there() -> bool:
    """Return whether it is installed."""
    found = client.kubectl_output("-n", NAMESPACE, "get", "service", "prometheus", "-o", "name")
    return found is not None


def url() -> str:
    """Return where this machine reaches it, through the cluster's ingress."""
    return tools().ingress_url.replace("127.0.0.1", HOST)


def configuration() -> dict[str, Any]:
    """Return what it is told: the guide's scrape configuration, of the operator that is here."""
    guide = re.search(r"```yaml\n(scrape_configs:.*?)```", GUIDE.read_text(), re.DOTALL)
    assert guide, f"{GUIDE} has no scrape_configs"
    told: dict[str, Any] = yaml.safe_load(guide[1])
    for job in told["scrape_configs"]:
        for found_by in job["kubernetes_sd_configs"]:
            if "namespaces" in found_by:
                found_by["namespaces"] = {"names": [OPERATOR]}
    often = {"scrape_interval": "15s", "evaluation_interval": "15s"}
    return {"global": often, "rule_files": ["/etc/prometheus/rules.yaml"], **told}


def _manifests(image: str) -> list[dict[str, Any]]:
    files = {"prometheus.yml": json.dumps(configuration()), "rules.yaml": RULES.read_text()}
    name = {"name": "prometheus", "namespace": NAMESPACE}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": name, "data": files}
    *others, deployment = yaml.safe_load_all((HERE / "manifests/prometheus.yaml").read_text())
    template = deployment["spec"]["template"]
    template["spec"]["containers"][0]["image"] = image
    content = hashlib.sha256(json.dumps(files).encode()).hexdigest()[:12]
    template["metadata"]["annotations"] = {"configuration": content}  # it reads it when it starts
    return [*others, config, deployment]


def _image(way: Mode) -> str:
    if way is Mode.PULL:
        return f"docker.io/prom/prometheus:v{versions.PROMETHEUS}"
    image = f"yolofleet/prometheus:{components.PROMETHEUS.key}"
    kindcluster.load_program(image, lambda: components.prometheus("prometheus"), user=USER)
    return image
