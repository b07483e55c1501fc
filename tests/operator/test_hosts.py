"""One host, two detectors, on a real API server: told without a webhook, and handed on."""

from collections.abc import Callable
from typing import Any

from controlplane.kube import Kube
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds

SHARED = {"hosts": ["shared.example.com"], "gateways": ["istio-system/public"]}


async def test_of_two_detectors_on_one_host_the_younger_is_told_and_follows_the_older(
    istio: None,
    operator: Any,
    make_detector: Callable[..., Any],
    kube: Kube,
    namespace: str,
    eventually: Callable[..., Any],
) -> None:
    async def says(name: str, reason: str) -> Manifest:
        raw = await kube.get(kinds.DETECTOR, namespace, name)
        [routed] = [
            c for c in raw.get("status", {}).get("conditions", []) if c["type"] == "TrafficRouted"
        ]
        assert routed["reason"] == reason, routed
        return routed

    async def routes() -> set[str]:
        found = await kube.list(kinds.VIRTUAL_SERVICE, namespace)
        return {route["metadata"]["name"] for route in found}

    await make_detector("zebra", traffic=SHARED)
    await eventually(lambda: says("zebra", "Routed"))
    await make_detector("ant", traffic=SHARED)
    told = await eventually(lambda: says("ant", "HostTaken"))
    assert told["status"] == "False"
    assert f"{namespace}/zebra" in told["message"]
    assert await routes() == {"zebra"}

    other = {"spec": {"traffic": SHARED | {"hosts": ["other.example.com"]}}}
    await kube.merge(kinds.DETECTOR, namespace, "zebra", other)
    await eventually(lambda: says("ant", "Routed"))
    assert await routes() == {"zebra", "ant"}

    await kube.merge(kinds.DETECTOR, namespace, "zebra", {"spec": {"traffic": SHARED}})
    await eventually(lambda: says("zebra", "HostTaken"))
    await kube.delete(kinds.DETECTOR, namespace, "ant")
    await kube.delete(kinds.VIRTUAL_SERVICE, namespace, "ant")  # no garbage collector runs here
    await eventually(lambda: says("zebra", "Routed"))
