"""The kinds of objects the operator reads and writes: one line a kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from yolofleet.api import names
from yolofleet.api.detector import Provider
from yolofleet.api.names import Manifest


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """One kind of object and where its API is; compared by identity: there is one of each."""

    group: str
    version: str
    name: str
    plural: str
    namespaced: bool = True
    optional: bool = False  # its CRD may be absent, appear and vanish
    wakes_on_status: bool = False  # a change of its status alone makes its detector look again
    fixed: str = ""  # the part that nobody can change: another one takes another object

    @property
    def api_version(self) -> str:
        """Return what its manifests carry as `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def api_path(self) -> str:
        """Return where the API server tells about its group and version."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the address of the collection, of one object, or of a part of it."""
        parts = [self.api_path]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/".join(parts)

    def __str__(self) -> str:
        return self.name


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
CRD: Final = Kind(
    "apiextensions.k8s.io",
    "v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
    namespaced=False,
)
LEASE: Final = Kind("coordination.k8s.io", "v1", "Lease", "leases")
EVENT: Final = Kind("", "v1", "Event", "events")

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

_BY_NAME: Mapping[tuple[str, str], Kind] = {
    (kind.api_version, kind.name): kind for kind in (*CACHED, CRD, LEASE, EVENT)
}


def kind_of(manifest: Manifest) -> Kind:
    """Return the kind of `manifest`."""
    return _BY_NAME[manifest["apiVersion"], manifest["kind"]]


OURS: Final = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"
"""Selects what we made."""


def selector_of(kind: Kind) -> str:
    """Return the label selector under which the API server is asked for `kind`.

    VirtualServices are asked for all: users' own say whether anybody delegates to a detector's.
    """
    ours = kind in CHILDREN or kind is POD
    return OURS if ours and kind is not VIRTUAL_SERVICE else ""


def identity(manifest: Manifest) -> tuple[str, str]:
    """Return the kind and the name, which tell the children of one detector apart."""
    return manifest["kind"], manifest["metadata"]["name"]


def controller_uid(manifest: Manifest) -> str:
    """Return the uid of the object that controls `manifest`, or nothing."""
    return str(controller_of(manifest).get("uid", ""))


def controller_of(manifest: Manifest) -> Mapping[str, Any]:
    """Return the owner reference of what controls `manifest`, or an empty one."""
    references = manifest["metadata"].get("ownerReferences") or ()
    return next((reference for reference in references if reference.get("controller")), {})


def owner_key(manifest: Manifest) -> str:
    """Return "namespace/name" of the detector that `manifest` belongs to, or nothing."""
    metadata = manifest["metadata"]
    controller = controller_of(manifest)
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
    labels, controller = metadata.get("labels") or {}, controller_of(manifest)
    ours = {names.MANAGED_BY_LABEL: names.MANAGED_BY, names.DETECTOR_LABEL: name}
    return (
        metadata.get("namespace") == namespace
        and ours.items() <= labels.items()
        and metadata["name"] in (name, labels.get(names.REVISION_LABEL))
        and (not controller or (controller["kind"], controller["name"]) == (names.KIND, name))
    )
