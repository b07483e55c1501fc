"""Who set which field of an object, as far as the operator must know; read from managedFields.

The API server's own record of what we applied is the proof that we need: it survives restarts,
cannot drift from the object, and is not copied by those who copy annotations. A hash of the
desired object, kept in an annotation, would stay while the object drifts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson

from yolofleet.api.names import HANDOVER_MANAGER, MANAGER, STATUS_MANAGER, Manifest

Fields = Mapping[str, Any]
"""A tree of FieldsV1: "f:name" for a field, 'k:{"name":"x"}' for an item of a list, "v:1"."""

_OURS: Final = frozenset({MANAGER, STATUS_MANAGER, HANDOVER_MANAGER})
_NOT_DESIRED: Final = frozenset({"f:metadata", "f:status"})  # others write there by right
_CONTROLLERS: Final = frozenset({"kube-controller-manager"})  # its autoscaler, its status


@dataclass(frozen=True, slots=True)
class Ownership:
    """The fields we applied, and those others added; as JSON, shared by objects that are alike."""

    applied: bytes
    foreign: bytes
    foreign_managers: tuple[str, ...]

    def applied_fields(self) -> Fields:
        """Return the tree of what our manager applied; empty if it never did."""
        return _tree(self.applied)

    def foreign_fields(self) -> Fields:
        """Return the tree of what managers other than ours set beside metadata and status."""
        return _tree(self.foreign)


def ownership_of(manifest: Manifest) -> Ownership:
    """Extract from `manifest` who set what; entries that cannot be read count as nobody's."""
    applied: dict[str, Any] = {}
    foreign: dict[str, Any] = {}
    managers: list[str] = []
    for entry in manifest["metadata"].get("managedFields") or ():
        manager, fields = str(entry.get("manager", "")), entry.get("fieldsV1") or {}
        if not isinstance(fields, dict) or entry.get("subresource") == "status":
            continue
        if manager == MANAGER and entry.get("operation") == "Apply":
            _merge(applied, fields)
        elif manager not in _OURS and manager not in _CONTROLLERS:
            wanted = {name: tree for name, tree in fields.items() if name not in _NOT_DESIRED}
            if wanted:
                _merge(foreign, wanted)
                managers.append(manager)
    return Ownership(_shared(applied), _shared(foreign), tuple(managers))


def list_key(name: str) -> Mapping[str, Any] | None:
    """Return what identifies the list item that the tree calls `name`; None for other names."""
    return _list_key(name) if name.startswith("k:") else None


@lru_cache(maxsize=4096)
def _list_key(name: str) -> Mapping[str, Any]:
    key: dict[str, Any] = orjson.loads(name[2:])
    return key


def _merge(into: dict[str, Any], fields: Fields) -> None:
    for name, tree in fields.items():
        if isinstance(into.get(name), dict) and isinstance(tree, dict):
            _merge(into[name], tree)
        else:
            into[name] = tree


@lru_cache(maxsize=1024)
def _tree(content: bytes) -> Fields:
    fields: dict[str, Any] = orjson.loads(content)
    return fields


def _shared(fields: Fields) -> bytes:
    return _one_copy(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS))


@lru_cache(maxsize=4096)
def _one_copy(content: bytes) -> bytes:
    """Return the one copy of `content`: the children of a thousand detectors look alike."""
    return content
