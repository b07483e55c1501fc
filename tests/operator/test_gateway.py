"""The Gateway API on a real API server: picked up when it appears, let go when it vanishes."""

from collections.abc import Callable
from typing import Any

from controlplane.installation import GATEWAY_CRDS
from controlplane.kube import Kube
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds

TRAFFIC = {"provider": "gateway", "gateways": ["edge/public"], "hosts": ["gate.example.com"]}
STICKY = {"stickyHeader": "X-Camera-Id"}
V2 = {"uri": "demo://shapes-v2"}


async def test_the_gateway_api_appears_splits_traffic_and_vanishes(
    optional_kinds: Any,
    operator: Any,
    fake_kubelet: Any,
    make_detector: Callable[..., Any],
    kube: Kube,
    namespace: str,
    eventually: Callable[..., Any],
) -> None:
    await make_detector(replicas=2, traffic=TRAFFIC | STICKY, canary={"model": V2, "weight": 30})

    async def says(reason: str) -> Manifest:
        raw = await kube.get(kinds.DETECTOR, namespace, "gate")
        conditions = (raw.get("status") or {}).get("conditions", [])
        [routed] = [c for c in conditions if c["type"] == "TrafficRouted"]
        assert routed["reason"] == reason, routed
        return routed

    await eventually(lambda: says("MeshAbsent"))
    await optional_kinds.install(GATEWAY_CRDS)

    async def split() -> bool:
        route = await kube.get(kinds.HTTP_ROUTE, namespace, "gate")
        *by_camera, rule = route["spec"]["rules"]
        assert len(by_camera) == 2
        assert [to["weight"] for to in rule["backendRefs"]] == [70, 30]
        return bool(await says("RoutePending"))

    async def told(**condition: Any) -> None:
        route = await kube.get(kinds.HTTP_ROUTE, namespace, "gate")
        since = {"lastTransitionTime": "2030-01-01T00:00:00Z", "message": ""}
        seen = {"observedGeneration": route["metadata"]["generation"]}
        parent = route["spec"]["parentRefs"][0]
        said = {"parents": [{"parentRef": parent, "conditions": [since | seen | condition]}]}
        await kube.merge(kinds.HTTP_ROUTE, namespace, "gate", {"status": said}, "status")

    await eventually(split)
    await told(type="Accepted", status="True", reason="Accepted")
    await eventually(lambda: says("Routed"))
    no = {"status": "False", "reason": "NotAllowedByListeners"}
    await told(type="Accepted", message="no listener takes gate.example.com", **no)
    refused = await eventually(lambda: says("RouteRefused"))
    assert "no listener takes gate.example.com" in refused["message"]
    await optional_kinds.remove()
    await eventually(lambda: says("MeshAbsent"))


async def test_a_detector_on_its_service_moves_once_a_gateway_has_accepted_its_route(
    optional_kinds: Any,
    operator: Any,
    fake_kubelet: Any,
    make_detector: Callable[..., Any],
    kube: Kube,
    namespace: str,
    eventually: Callable[..., Any],
) -> None:
    gateway = f"{namespace}/public"
    await make_detector(traffic={"gateways": [gateway], "hosts": ["move.example.com"]})

    async def is_on(provider: str, reason: str) -> Manifest:
        raw = await kube.get(kinds.DETECTOR, namespace, "gate")
        status = raw.get("status") or {}
        [routed] = [c for c in status["conditions"] if c["type"] == "TrafficRouted"]
        assert (status["provider"], routed["reason"]) == (provider, reason), routed
        return raw

    async def leads_to() -> list[str]:
        route = await kube.get(kinds.HTTP_ROUTE, namespace, "gate")
        return [to["name"] for to in route["spec"]["rules"][0]["backendRefs"]]

    await eventually(lambda: is_on("service", "MeshAbsent"))
    await optional_kinds.install(GATEWAY_CRDS)
    try:
        raw = await eventually(lambda: is_on("service", "RoutePending"))
        assert await eventually(leads_to) == ["gate"]
        route = await kube.get(kinds.HTTP_ROUTE, namespace, "gate")
        yes = {
            "type": "Accepted",
            "status": "True",
            "reason": "Accepted",
            "message": "",
            "lastTransitionTime": "2030-01-01T00:00:00Z",
            "observedGeneration": route["metadata"]["generation"],
        }
        told = {"parentRef": route["spec"]["parentRefs"][0], "conditions": [yes]}
        told["controllerName"] = "example.com/gateway"
        status = {"status": {"parents": [told]}}
        await kube.merge(kinds.HTTP_ROUTE, namespace, "gate", status, "status")
        await eventually(lambda: is_on("gateway", "RoutePending"))
        assert await eventually(leads_to) == [raw["status"]["stable"]["revision"]]
    finally:
        await optional_kinds.remove()
