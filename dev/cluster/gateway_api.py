"""The Gateway API, with Istio as its controller and the ingress gateway as its door."""

from __future__ import annotations

from typing import Final

from cluster import client, gobuild, kindcluster, mode
from cluster.gobuild import Module
from cluster.mode import Mode
from cluster.paths import HERE
from cluster.steps import step

VERSION: Final = "v1.6.0"  # what this Istio was built with
MODULE: Final = Module("gateway-api", "sigs.k8s.io/gateway-api", VERSION)
RELEASE: Final = (
    "https://github.com/kubernetes-sigs/gateway-api/releases/download/"
    f"{VERSION}/standard-install.yaml"
)


def install() -> None:
    """Install the CRDs and a Gateway `istio-system/api` for *.gw.example.com."""
    way = kindcluster.mode_of_running() or mode.current()
    crds = RELEASE if way is Mode.PULL else str(gobuild.source(MODULE) / "config/crd/standard")
    with step(f"install the Gateway API {VERSION}"):
        client.kubectl("apply", "--server-side", "-f", crds)
        client.await_definitions()
        client.kubectl("apply", "-f", str(HERE / "manifests/gateway-api.yaml"))
