"""The kinds of objects the operator reads and writes: one line a kind."""

from __future__ import annotations

from typing import Final

from yolofleet.api import names
from yolofleet.api.detector import Provider
from yolofleet.api.names import Manifest
from yolofleet.runtime import objects
from yolofleet.runtime.kind import Kind

_ISTIO = ("networking.istio.io", "v1")

DETECTOR: Final = Kind(names.GROUP, names.VERSION, names.KIND, names.PLURAL, wakes_on_status=True)
DEPLOYMENT: Final = Kind("apps", "v1", "Deployment", "deployments", wakes_on_status=True)
RECORD: Final = Kind("apps", "v1", "ControllerRevision", "controllerrevisions", fixed="data")
SERVICE: Final = Kind("", "v1", "Service", "services")
HPA: Final = Kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
PDB: Final = Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
SERVICE_ACCOUNT: Final = Kind("", "v1", "ServiceAccount", "serviceaccounts")
NETWORK_POLICY: Final = Kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
VIRTUAL_SERVICE: Final = Kind(*_ISTIO, "VirtualService", "virtualservices", optional=True)
DESTINATION_RULE: Final = Kind(*_ISTIO, "DestinationRule", "destinationrules", optional=True)
HTTP_ROUTE: Final = Kind(
    "gateway.networking.k8s.io",
    "v1",
    "HTTPRoute",
    "httproutes",
    optional=True,
    wakes_on_status=True,
)
ISTIO_GATEWAY: Final = Kind(*_ISTIO, "Gateway", "gateways", optional=True)
GATEWAY: Final = Kind("gateway.networking.k8s.io", "v1", "Gateway", "gateways", optional=True)
POD_MONITOR: Final = Kind("monitoring.coreos.com", "v1", "PodMonitor", "podmonitors", optional=True)
POD: Final = Kind("", "v1", "Pod", "pods", wakes_on_status=True)
NODE: Final = Kind("", "v1", "Node", "nodes", namespaced=False)
CHILDREN: Final = (
    SERVICE_ACCOUNT,
    RECORD,
    DEPLOYMENT,
    SERVICE,
    HPA,
    PDB,
    NETWORK_POLICY,
    VIRTUAL_SERVICE,
    DESTINATION_RULE,
    HTTP_ROUTE,
    POD_MONITOR,
)
"""What a detector owns."""

ROUTERS: Final = {Provider.ISTIO: VIRTUAL_SERVICE, Provider.GATEWAY: HTTP_ROUTE}
"""What splits traffic, and the kind without which it cannot."""

GATEWAYS: Final = {Provider.ISTIO: ISTIO_GATEWAY, Provider.GATEWAY: GATEWAY}
"""What `gateways` of a spec name; only that they exist is of interest."""

CACHED: Final = (DETECTOR, *CHILDREN, *GATEWAYS.values(), POD, NODE)
"""What the cache holds."""

OPTIONAL: Final = tuple(kind for kind in CACHED if kind.optional)

OURS: Final = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"
"""Selects what we made."""


def selector_of(kind: Kind) -> str:
    """Return the label selector under which the API server is asked for `kind`.

    VirtualServices are asked for all: users' own say whether anybody delegates to a detector's.
    """
    ours = kind in CHILDREN or kind is POD
    return OURS if ours and kind is not VIRTUAL_SERVICE else ""


def owner_key(manifest: Manifest) -> str:
    """Return "namespace/name" of the detector that `manifest` belongs to, or nothing."""
    metadata = manifest["metadata"]
    controller = objects.controller_of(manifest)
    if controller.get("kind") == names.KIND:
        return f"{metadata['namespace']}/{controller['name']}"
    detector = (metadata.get("labels") or {}).get(names.DETECTOR_LABEL, "")
    return f"{metadata['namespace']}/{detector}" if detector else ""


def is_free(manifest: Manifest, key: str) -> bool:
    """Say whether `manifest` is beyond doubt of the detector `key` and has no owner, or none left.

    Its name and labels are what the operator gives, and nobody else controls it: restored from a
    backup, or left behind by `--cascade=orphan`. A detector of that name with another uid is gone.
    """
    metadata, (namespace, _, name) = manifest["metadata"], key.partition("/")
    labels, controller = metadata.get("labels") or {}, objects.controller_of(manifest)
    ours = {names.MANAGED_BY_LABEL: names.MANAGED_BY, names.DETECTOR_LABEL: name}
    return (
        metadata.get("namespace") == namespace
        and ours.items() <= labels.items()
        and metadata["name"] in (name, labels.get(names.REVISION_LABEL))
        and (not controller or (controller["kind"], controller["name"]) == (names.KIND, name))
    )
