"""metrics-server: without it `kubectl top` and autoscalers on CPU see nothing."""

from __future__ import annotations

from cluster import client, components, gobuild, kindcluster, versions
from cluster.mode import Mode
from cluster.paths import HERE

CHARTS = "https://kubernetes-sigs.github.io/metrics-server"
VALUES = HERE / "manifests/metrics-server.yaml"


def install(mode: Mode) -> None:
    """Install or upgrade metrics-server."""
    settings: dict[str, str] = {}
    if mode is Mode.PULL:
        chart = ["metrics-server", "--repo", CHARTS, "--version", versions.METRICS_SERVER_CHART]
    else:
        name, tag = "yolofleet/metrics-server", components.METRICS_SERVER.key
        kindcluster.load_program(f"{name}:{tag}", components.metrics_server)
        chart = [str(gobuild.source(components.METRICS_SERVER) / "charts/metrics-server")]
        settings = {"image.repository": name, "image.tag": tag}
    client.helm_install(
        "metrics-server", chart, namespace="kube-system", values=[VALUES], settings=settings
    )
