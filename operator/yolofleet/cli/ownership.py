"""Which fields of a detector a GitOps tool keeps as they are in Git: the API server records it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path as File
from typing import Any, Final

from yolofleet.api.seen import Seen
from yolofleet.cli.merging import Path

Fields = Mapping[str, Any]
"""As the API server records them (FieldsV1): `f:NAME` with what is in it, empty for a value."""

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"

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


def _recorded(seen: Seen) -> Iterator[tuple[str, Fields]]:
    for entry in seen.raw["metadata"].get("managedFields") or ():
        if entry.get("manager") in TOOLS and not entry.get("subresource"):
            yield entry["manager"], _given(seen, entry)


def _given(seen: Seen, entry: Mapping[str, Any]) -> Fields:
    """Return the fields that the tool gave.

    By an Update it owns whatever was stored with them, defaults too. Client-side apply notes what
    was given; of what others give (Helm 3), a default may as well be nobody's.
    """
    fields: Fields = entry.get("fieldsV1") or {}
    if entry.get("operation") != "Update":
        return fields
    if _has(fields, ("metadata", "annotations", LAST_APPLIED)):
        annotations = seen.raw["metadata"].get("annotations") or {}
        with contextlib.suppress(KeyError, ValueError):
            return _as_fields(json.loads(annotations[LAST_APPLIED]))
    return {**fields, "f:spec": _but(defaults(), fields.get("f:spec") or {}, seen.spec)}


def _as_fields(value: Any) -> Fields:
    if not isinstance(value, Mapping):
        return {}
    return {".": {}} | {f"f:{name}": _as_fields(each) for name, each in value.items()}


def _but(defaults: Mapping[str, Any], fields: Fields, live: Mapping[str, Any]) -> Fields:
    """Return `fields` without those that are by default as they are."""
    left: dict[str, Any] = {".": {}}
    for key, inner in fields.items():
        name = key.removeprefix("f:")
        default, now = defaults.get(name), live.get(name)
        if name in defaults and now == default:
            continue
        if inner and isinstance(default, Mapping) and isinstance(now, Mapping):
            inner = _but(default, inner, now)
        left[key] = inner
    return left


@lru_cache(maxsize=1)
def defaults() -> Mapping[str, Any]:
    """Return the spec of a detector of which nobody said anything."""
    found: dict[str, Any] = json.loads((File(__file__).parent / "defaults.json").read_text())
    return found


def _has(fields: Fields, path: Path) -> bool:
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
