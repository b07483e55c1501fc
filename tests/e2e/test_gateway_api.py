"""A release through the Gateway API, with Istio's gateway behind it; no VirtualService anywhere."""

import pytest

from demo_cluster import release
from demo_cluster.errors import NotYet
from demo_cluster.load import Load, wait_until_served
from demo_cluster.waiting import eventually

V2 = {"uri": "demo://shapes-v2"}
ROUTE = "httproutes.gateway.networking.k8s.io"


def fleet_of(routed):
    """Host and gateway as the listener of `istio-system/api` takes them."""
    (host,) = (
        name.replace(".example.com", ".gw.example.com") for name in routed("routed")["hosts"]
    )
    traffic = {"provider": "gateway", "gateways": ["istio-system/api"], "hosts": [host]}
    return {"routed": {"replicas": 2, "traffic": traffic}}


@pytest.fixture(scope="module")
def routed_by_gateway(fleet):
    detector = fleet["routed"]
    detector.wait_ready()
    yield detector
    detector.leave()


def test_a_canary_is_promoted_without_a_failed_request(
    routed_by_gateway, installation, images, kubectl
):
    detector = routed_by_gateway
    target = installation.target(detector.raw()["spec"]["traffic"]["hosts"][0])

    def served() -> None:
        route = kubectl.find(ROUTE, "routed")
        parents = (route or {}).get("status", {}).get("parents", [])
        conditions = {c["type"]: c["status"] for p in parents for c in p["conditions"]}
        if conditions.get("Accepted") != "True" or conditions.get("ResolvedRefs") != "True":
            raise NotYet(str(conditions))

    eventually("the gateway to accept the route", served, within_s=300)
    data = [image.data for image in images]
    wait_until_served(target, data, within_s=300)
    with Load(target, data) as load:
        detector.patch({"canary": {"model": V2, "weight": 20}})
        canary = detector.wait_weight(20)["revision"]
        eventually("the canary's first answer", lambda: answered(load, canary), within_s=300)
        mark = load.answered
        load.wait_for(500, within_s=300)
        release.check_share(load.summary(since=mark, until=mark + 500), canary, 20)
        detector.patch({"model": V2, "canary": None})
        detector.wait_released(V2["uri"])
        load.wait_for(100, within_s=300)
    assert load.summary().failures == {}
    assert kubectl.find("virtualservices.networking.istio.io", "routed") is None
    assert detector.raw()["status"]["stable"]["revision"] == canary


def answered(load: Load, revision: str) -> None:
    if revision not in (found := load.summary().revisions):
        raise NotYet(str(dict(found)))


def test_a_host_that_no_listener_takes_is_told(routed_by_gateway):
    detector = routed_by_gateway
    detector.patch({"traffic": {"hosts": ["elsewhere.example.com"]}})
    told = detector.wait_for("TrafficRouted", "False")
    assert told["reason"] == "RouteRefused"
    assert "api:" in told["message"]
