"""The kinds of objects the operator reads and writes: one line a kind."""

from __future__ import annotations

from typing import Final

from yolofleet.api import names
from yolofleet.api.detector import Provider
from yolofleet.runtime import kind
from yolofleet.runtime.controller import Controller
from yolofleet.runtime.kind import Kind

_ISTIO = ("networking.istio.io", "v1")

PODS: Final = ("spec.template", "spec.replicas")
"""The parts of a Deployment that pods are made of."""

DETECTOR: Final = Kind(names.GROUP, names.VERSION, names.KIND, names.PLURAL, wakes_on_status=True)
DEPLOYMENT: Final = Kind("apps", "v1", "Deployment", "deployments", wakes_on_status=True, pods=PODS)
RAY_SERVICE: Final = Kind(
    "ray.io", "v1", "RayService", "rayservices", optional=True, wakes_on_status=True
)
RECORD: Final = Kind("apps", "v1", "ControllerRevision", "controllerrevisions", fixed="data")
SERVICE: Final = Kind("", "v1", "Service", "services")
HPA: Final = kind.HPA
PDB: Final = Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
SERVICE_ACCOUNT: Final = Kind("", "v1", "ServiceAccount", "serviceaccounts")
CONFIG_MAP: Final = Kind("", "v1", "ConfigMap", "configmaps")
NETWORK_POLICY: Final = Kind(
    "networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", gone_s=1.0
)  # so long pods are open to everybody; it costs one write, and no pod
VIRTUAL_SERVICE: Final = Kind(
    *_ISTIO, "VirtualService", "virtualservices", optional=True, leads=True
)
DESTINATION_RULE: Final = Kind(*_ISTIO, "DestinationRule", "destinationrules", optional=True)
HTTP_ROUTE: Final = Kind(
    "gateway.networking.k8s.io",
    "v1",
    "HTTPRoute",
    "httproutes",
    optional=True,
    wakes_on_status=True,
    leads=True,
)
ISTIO_GATEWAY: Final = Kind(*_ISTIO, "Gateway", "gateways", optional=True)
GATEWAY: Final = Kind("gateway.networking.k8s.io", "v1", "Gateway", "gateways", optional=True)
POD_MONITOR: Final = Kind("monitoring.coreos.com", "v1", "PodMonitor", "podmonitors", optional=True)
SCALED_OBJECT: Final = Kind(
    "keda.sh", "v1alpha1", "ScaledObject", "scaledobjects", optional=True, wakes_on_status=True
)
_DRA = ("resource.k8s.io", "v1")
CLAIM_TEMPLATE: Final = Kind(
    *_DRA, "ResourceClaimTemplate", "resourceclaimtemplates", optional=True, fixed="spec"
)
CLAIM: Final = Kind(*_DRA, "ResourceClaim", "resourceclaims")
DEVICE_CLASS: Final = Kind(*_DRA, "DeviceClass", "deviceclasses", namespaced=False)
DEVICE_SLICE: Final = Kind(*_DRA, "ResourceSlice", "resourceslices", namespaced=False)
POD: Final = Kind("", "v1", "Pod", "pods", wakes_on_status=True)
NODE: Final = Kind("", "v1", "Node", "nodes", namespaced=False)
CHILDREN: Final = (
    SERVICE_ACCOUNT,
    RECORD,
    CLAIM_TEMPLATE,
    DEPLOYMENT,
    RAY_SERVICE,
    SERVICE,
    HPA,
    SCALED_OBJECT,
    PDB,
    CONFIG_MAP,
    NETWORK_POLICY,
    VIRTUAL_SERVICE,
    DESTINATION_RULE,
    HTTP_ROUTE,
    POD_MONITOR,
)
"""What a detector owns."""

WORKLOADS: Final = (DEPLOYMENT, RAY_SERVICE)
"""What runs a revision."""

DISPENSABLE: Final = (RECORD, CONFIG_MAP)
"""Those that an operator without the right to read them does without: it serves as before, and the
status of each detector that wants one says which right lacks."""

ROUTERS: Final = {Provider.ISTIO: VIRTUAL_SERVICE, Provider.GATEWAY: HTTP_ROUTE}
"""What splits traffic, and the kind without which it cannot."""

GATEWAYS: Final = {Provider.ISTIO: ISTIO_GATEWAY, Provider.GATEWAY: GATEWAY}
"""What `gateways` of a spec name: that they exist, and whom they let in, is of interest."""

CACHED: Final = (DETECTOR, *CHILDREN, *GATEWAYS.values(), POD, NODE)
"""What the cache holds."""

OPTIONAL: Final = tuple(kind for kind in CACHED if kind.optional)

CONTROLLER: Final = Controller(
    parent=DETECTOR,
    word="detector",
    manager=names.MANAGER,
    status_manager=names.STATUS_MANAGER,
    handover_manager=names.HANDOVER_MANAGER,
    applied_annotation=names.LAST_APPLIED_ANNOTATION,
    labels={names.MANAGED_BY_LABEL: names.MANAGED_BY},
    parent_label=names.DETECTOR_LABEL,
    part_label=names.REVISION_LABEL,
    suffixes=(names.LIVE,),
    called={
        "kube-controller-manager": "an autoscaler (kube-controller-manager): use spec.autoscaling,"
        " or point it at the YoloDetector"
    },
)
"""Who we are, and how we sign what we make."""


def selector_of(kind: Kind) -> str:
    """Return the label selector under which the API server is asked for `kind`.

    Routes are asked for all: users' own say whether anybody delegates to a detector's, and which
    hosts are somebody's already.
    """
    ours = kind in CHILDREN or kind is POD
    return CONTROLLER.selector() if ours and kind not in ROUTERS.values() else ""
