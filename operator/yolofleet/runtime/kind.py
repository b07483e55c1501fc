"""A kind of object and where its API is; each is declared once, in one line, by who uses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from yolofleet.runtime.objects import Manifest

_KNOWN: Final[dict[tuple[str, str], Kind]] = {}
"""All that were declared, so that a manifest tells where it is to be sent."""


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """One kind of object and where its API is; compared by identity: there is one of each."""

    group: str
    version: str
    name: str
    plural: str
    namespaced: bool = True
    optional: bool = False  # its CRD may be absent, appear and vanish
    wakes_on_status: bool = False  # a change of its status alone makes its owner look again
    pods: tuple[str, ...] = ()  # the parts that pods are made of: each repair of them costs pods
    gone_s: float = 60.0  # at most so long it stays away from one deletion by others to the next
    leads: bool = False  # it leads requests to others, and goes before them
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

    def __post_init__(self) -> None:
        _KNOWN.setdefault((self.api_version, self.name), self)

    def __str__(self) -> str:
        return self.name


HPA: Final = Kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
CRD: Final = Kind(
    "apiextensions.k8s.io",
    "v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
    namespaced=False,
)
LEASE: Final = Kind("coordination.k8s.io", "v1", "Lease", "leases")
EVENT: Final = Kind("", "v1", "Event", "events")


def kind_of(manifest: Manifest) -> Kind:
    """Return the kind of `manifest`."""
    return _KNOWN[manifest["apiVersion"], manifest["kind"]]
