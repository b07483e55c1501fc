"""Istio: one VirtualService a detector, one DestinationRule a revision.

Weights point at the Services of revisions, not at subsets of one: a destination exists from the
moment its revision does, and changing or dropping one can never touch another.
"""

from typing import Any

from yolofleet.api.detector import Detector, HeaderMatch
from yolofleet.api.hosts import MESH
from yolofleet.api.names import REVISION_LABEL, Manifest, child_labels
from yolofleet.plan.decide import Plan
from yolofleet.resources.owner import owner
from yolofleet.resources.render import render

RETRY_ON = "connect-failure,refused-stream,reset-before-request"
"""Only what surely did not reach a model: a request is never run twice."""

_OWN_NAMESPACE = ["."]
"""For a route inside the mesh: it changes where the clients that see it go, and these are its own
namespace's. A gateway, and a root that delegates, have to see it from elsewhere."""


def virtual_service(detector: Detector, plan: Plan) -> Manifest:
    """Return the routes: those that match go to the canary, all others by weight."""
    at = plan.exposure
    return render(
        "virtual_service.yaml.j2",
        name=detector.name,
        namespace=detector.namespace,
        labels=child_labels(detector.name),
        owner=owner(detector),
        hosts=at.hosts or None,
        gateways=at.gateways or None,
        seen_by=_OWN_NAMESPACE if at.hosts and set(at.gateways) <= {MESH} else None,
        http=[*_matched(detector, plan), _weighted(detector, plan)],
    )


def _weighted(detector: Detector, plan: Plan) -> dict[str, Any]:
    route = [
        {"destination": _destination(detector, name), "weight": weight}
        for name, weight in plan.leads(detector.name).items()
    ]
    return {"name": "weighted", "route": route, "retries": _retries(detector)}


def _retries(detector: Detector) -> dict[str, Any]:
    attempts = detector.spec.traffic.retries
    return {"attempts": attempts} | ({"retryOn": RETRY_ON} if attempts else {})


def _matched(detector: Detector, plan: Plan) -> list[dict[str, Any]]:
    canary = detector.spec.canary
    if canary is None or not canary.match or not plan.matched or plan.courted:
        return []
    route = [{"destination": _destination(detector, plan.matched), "weight": 100}]
    match = [{"headers": _headers(entry)} for entry in canary.match]
    return [{"name": "matched", "match": match, "route": route, "retries": _retries(detector)}]


def _headers(entry: HeaderMatch) -> dict[str, Any]:
    return {name: how.model_dump(exclude_none=True) for name, how in entry.headers.items()}


def _destination(detector: Detector, revision: str) -> dict[str, Any]:
    return {"host": _host(detector, revision), "port": {"number": 80}}


def _host(detector: Detector, revision: str) -> str:
    return f"{revision}.{detector.namespace}.svc.cluster.local"


def destination_rule(detector: Detector, revision: str) -> Manifest:
    """Return how proxies talk to the pods of `revision`."""
    return render(
        "destination_rule.yaml.j2",
        name=revision,
        namespace=detector.namespace,
        labels=child_labels(detector.name) | {REVISION_LABEL: revision},
        owner=owner(detector),
        host=_host(detector, revision),
    )
