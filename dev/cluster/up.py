"""`up`: whatever is there, end with a cluster that serves."""

from __future__ import annotations

import json

from cluster import client, engine, istio, kindcluster, metrics_server, mode, released
from cluster.cache import lock
from cluster.paths import tools
from cluster.steps import say

# namespace/name of every deployment that `up` answers for
NEEDED = frozenset(
    {
        "kube-system/coredns",
        "istio-system/istiod",
        "istio-system/istio-ingressgateway",
    }
)
METRICS = "kube-system/metrics-server"


def up(*, metrics: bool) -> None:
    """Return with a healthy cluster; `metrics` asks for metrics-server as well."""
    needed = NEEDED | ({METRICS} if metrics else set())
    if healthy(needed):
        say("The cluster is up.")
        return
    with lock("up"):
        engine.ensure()
        there = still_there()
        if there:
            kindcluster.keep_service_addresses_inside()
        if there and healthy(needed):  # another `up` was quicker, or it was silent for a moment
            say("The cluster is up.")
            return
        if there:
            way = kindcluster.mode_of_running() or mode.current()
        else:
            way = mode.current()
            released.provide(way)
            kindcluster.create(way)
        istio.install(way)
        if metrics:
            metrics_server.install(way)
    say(f"The cluster is up: {tools().ingress_url}, KUBECONFIG={tools().kubeconfig}")


def still_there() -> bool:
    """Return whether there is a cluster to go on with; one whose node runs gets time to answer.

    On a slow machine the API server is silent for moments, and is restarted by its kubelet.
    """
    if not client.answers() and kindcluster.runs():
        say(f"    the node runs, its API server is silent: waiting up to {client.BACK_S} s")
        client.wait_until_back()
    return client.answers()


def healthy(needed: frozenset[str]) -> bool:
    """Return whether the API server and all of the deployments `needed` are available."""
    if not client.answers():
        return False
    listed = client.kubectl_output("get", "deployments", "--all-namespaces", "-o", "json")
    gateway = client.kubectl_output(
        "get", "gateways.networking.istio.io", "public", "--namespace=istio-system", "-o", "name"
    )
    return gateway is not None and needed <= available(listed or '{"items": []}')


def available(deployments: str) -> frozenset[str]:
    """Return namespace/name of those that have an available pod, from kubectl's JSON."""
    return frozenset(
        f"{item['metadata']['namespace']}/{item['metadata']['name']}"
        for item in json.loads(deployments)["items"]
        if item.get("status", {}).get("availableReplicas", 0) > 0
    )
