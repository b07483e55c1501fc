"""Which fields of a detector a GitOps tool keeps as they are in Git: the API server records it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from yolofleet.api.seen import Seen
from yolofleet.cli.merging import Path

TOOLS: Final = {
    "argocd-controller": "Argo CD",
    "argocd-application-controller": "Argo CD",  # before 2.5
    "kustomize-controller": "Flux",
    "helm-controller": "Flux",
    "flux": "Flux",
    "flux-client-side-apply": "Flux",
    "helm": "Helm",
    "Helm": "Helm",
    "fleetagent": "Fleet",
    "configsync.gke.io": "Config Sync",
    "kapp-controller": "kapp",
    "pulumi-kubernetes": "Pulumi",
    "Terraform": "Terraform",
}
"""Field managers by which tools write what stands in Git or in a chart, and their names."""


@dataclass(frozen=True, slots=True)
class Owned:
    """A field that a tool would put back."""

    path: Path
    manager: str

    def __str__(self) -> str:
        """Return it for people."""
        return f"{'.'.join(self.path)} is set by {self.manager} ({TOOLS[self.manager]})"


def owned(seen: Seen, paths: Iterable[Path]) -> list[Owned]:
    """Return which of `paths` a GitOps tool has set, each with the first that has."""
    recorded = list(_recorded(seen))
    found = []
    for path in paths:
        who = next((manager for manager, fields in recorded if _has(fields, path)), None)
        if who:
            found.append(Owned(path, who))
    return found


def _recorded(seen: Seen) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for entry in seen.raw["metadata"].get("managedFields") or ():
        if entry.get("manager") in TOOLS and not entry.get("subresource"):
            yield entry["manager"], entry.get("fieldsV1") or {}


def _has(fields: Mapping[str, Any], path: Path) -> bool:
    """Say whether `fields` has what is at `path`, something in it, or a whole that it is part of.

    An empty entry is a value that is owned whole; "." beside others is the map without its fields.
    """
    for name in path:
        inner = fields.get(f"f:{name}")
        if inner is None:
            return False
        if not inner:
            return True
        fields = inner
    return True
