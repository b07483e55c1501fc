"""Every object that a detector has, in the order in which they are written.

Pods before Services, both before the routes that point at them: nothing is referenced before it is.
"""

from yolofleet.api.detector import Detector, Provider
from yolofleet.api.names import Manifest
from yolofleet.plan.decide import Plan
from yolofleet.resources.deployment import deployment
from yolofleet.resources.gateway import http_route
from yolofleet.resources.hpa import hpa
from yolofleet.resources.istio import destination_rule, virtual_service
from yolofleet.resources.pdb import pdb
from yolofleet.resources.service import revision_service, stable_service


def build(detector: Detector, plan: Plan) -> list[Manifest]:
    """Return all children of `detector`. Cannot fail on what a parsed detector holds."""
    routed = plan.weights
    names = [
        p.revision.name for p in plan.revisions if p.replicas != 0 or p.revision.name in routed
    ]
    meshed = plan.provider is Provider.ISTIO
    scaling = detector.spec.autoscaling
    return [
        *(deployment(detector, planned) for planned in plan.revisions),
        *(revision_service(detector, name) for name in names),
        *(destination_rule(detector, name) for name in names if meshed),
        stable_service(detector, plan),
        *([virtual_service(detector, plan)] if meshed else []),
        *([http_route(detector, plan)] if plan.provider is Provider.GATEWAY else []),
        *([hpa(detector, plan.stable, scaling)] if scaling else []),
        *([pdb(detector, plan.stable)] if plan.full >= 2 else []),
    ]
