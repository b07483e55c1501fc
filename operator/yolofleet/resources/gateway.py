"""The Gateway API: one HTTPRoute a detector, over the Services of its revisions."""

import re
from typing import Any

from yolofleet.api.detector import Detector, StringMatch
from yolofleet.api.hosts import MESH
from yolofleet.api.names import Manifest, child_labels
from yolofleet.plan.claims import EVERY_HOST
from yolofleet.plan.decide import Plan
from yolofleet.resources.owner import owner
from yolofleet.resources.render import render


def http_route(detector: Detector, plan: Plan) -> Manifest:
    """Return the routes: those that match go to the canary, all others by weight."""
    at = plan.exposure
    return render(
        "http_route.yaml.j2",
        name=detector.name,
        namespace=detector.namespace,
        labels=child_labels(detector.name),
        owner=owner(detector),
        parents=[_parent(detector, name) for name in at.gateways or (MESH,)],
        hosts=None if EVERY_HOST in at.hosts else at.hosts or None,
        rules=[*_matched(detector, plan), _weighted(detector, plan)],
    )


def _parent(detector: Detector, gateway: str) -> dict[str, Any]:
    if gateway == MESH:  # clients inside a mesh, which call the detector's Service (GAMMA)
        return {"group": "", "kind": "Service", "name": detector.name, "port": 80}
    namespace, _, name = gateway.rpartition("/")
    return {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "namespace": namespace or detector.namespace,
        "name": name,
    }


def _weighted(detector: Detector, plan: Plan) -> dict[str, Any]:
    leads = plan.leads(detector.name)
    return {"backendRefs": [_backend(name, weight) for name, weight in leads.items()]}


def _matched(detector: Detector, plan: Plan) -> list[dict[str, Any]]:
    canary = detector.spec.canary
    if canary is None or not canary.match or not plan.matched or plan.courted:
        return []
    matches = [
        {"headers": [_header(name, how) for name, how in entry.headers.items()]}
        for entry in canary.match
    ]
    return [{"matches": matches, "backendRefs": [_backend(plan.matched, 1)]}]


def _header(name: str, how: StringMatch) -> dict[str, str]:
    if how.exact is not None:
        return {"name": name, "type": "Exact", "value": how.exact}
    pattern = how.regex if how.regex is not None else f"{re.escape(how.prefix or '')}.*"
    return {"name": name, "type": "RegularExpression", "value": pattern}


def _backend(revision: str, weight: int) -> dict[str, Any]:
    return {"group": "", "kind": "Service", "name": revision, "port": 80, "weight": weight}
