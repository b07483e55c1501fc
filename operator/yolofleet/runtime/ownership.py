"""Who set which field of an object, as far as the operator must know; read from managedFields.

The API server's own record of what we applied is the proof that we need: it survives restarts,
cannot drift from the object, and is not copied by those who copy annotations. A hash of the
desired object, kept in an annotation, would stay while the object drifts; what that can tell is
whether we still want what we wanted (`last_applied`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson

from yolofleet.runtime.compact import compact
from yolofleet.runtime.controller import Controller
from yolofleet.runtime.objects import Manifest

Fields = Mapping[str, Any]
"""A tree of FieldsV1: "f:name" for a field, 'k:{"name":"x"}' for an item of a list, "v:1"."""

_STATUS: Final = "f:status"  # others write there by right
_METADATA: Final = "f:metadata"  # there too, but for the labels and annotations that are ours
_ACCOUNT_FIELDS: Final = frozenset({"f:secrets", "f:imagePullSecrets"})
"""What clouds and OpenShift add to every ServiceAccount: theirs, and they would add it again."""
CONTROLLERS: Final = frozenset({"kube-controller-manager"})
"""Whose status and notes are no drift; what its autoscaler does through `scale` may be."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """The fields we applied, and those of each other manager; JSON, shared by what is alike."""

    applied: bytes
    foreign: tuple[tuple[str, bytes], ...]

    def applied_fields(self) -> Fields:
        """Return the tree of what our manager applied; empty if it never did."""
        return _tree(self.applied)

    def foreign_fields(self) -> list[tuple[str, Fields]]:
        """Return, for each manager that is not ours, what it set beside status."""
        return [(manager, _tree(fields)) for manager, fields in self.foreign]

    def is_applied(self, *path: str) -> bool:
        """Return whether the field at `path` is as our manager applied it."""
        tree: Any = self.applied_fields()
        for step in path:
            tree = tree.get(f"f:{step}") if isinstance(tree, dict) else None
        return tree is not None

    @property
    def foreign_managers(self) -> tuple[str, ...]:
        """The managers that set more than metadata."""
        return tuple(name for name, tree in self.foreign_fields() if tree.keys() - {_METADATA})


def ownership_of(manifest: Manifest, ours: Controller) -> Ownership:
    """Extract from `manifest` who set what; entries that cannot be read count as nobody's."""
    applied: dict[str, Any] = {}
    foreign: dict[str, dict[str, Any]] = {}
    ignored = {_STATUS} | (_ACCOUNT_FIELDS if manifest.get("kind") == "ServiceAccount" else set())
    for entry in manifest["metadata"].get("managedFields") or ():
        manager, fields = str(entry.get("manager", "")), entry.get("fieldsV1") or {}
        if not isinstance(fields, dict) or entry.get("subresource") == "status":
            continue
        if manager == ours.manager and entry.get("operation") == "Apply":
            _merge(applied, fields)
        elif manager not in ours.managers and (manager not in CONTROLLERS or _scales(entry)):
            wanted = {name: tree for name, tree in fields.items() if name not in ignored}
            if wanted:
                _merge(foreign.setdefault(manager, {}), wanted)
    return Ownership(_shared(applied), tuple((name, _shared(t)) for name, t in foreign.items()))


def _scales(entry: Manifest) -> bool:
    return entry.get("subresource") == "scale"


def list_key(name: str) -> Mapping[str, Any] | None:
    """Return what identifies the list item that the tree calls `name`; None for other names."""
    return _list_key(name) if name.startswith("k:") else None


@lru_cache(maxsize=4096)
def _list_key(name: str) -> Mapping[str, Any] | None:
    try:
        key = orjson.loads(name[2:])
    except orjson.JSONDecodeError:
        return None
    return key if isinstance(key, dict) else None


def setters(foreign: Sequence[tuple[str, Fields]], path: Sequence[str | int]) -> list[str]:
    """Return the managers whose fields reach to `path`, whose items of lists are told by label."""
    return [manager for manager, tree in foreign if _reaches(tree, [str(step) for step in path])]


def _reaches(tree: Fields, steps: Sequence[str]) -> bool:
    """Follow `steps` as far as they can be told: an item's label need not be its key."""
    if not steps or not tree:
        return True
    if f"f:{steps[0]}" in tree:
        return _reaches(tree[f"f:{steps[0]}"], steps[1:])
    items = {name: key for name in tree if (key := list_key(name)) is not None}
    labelled = [name for name, key in items.items() if steps[0] in map(str, key.values())]
    return any(_reaches(tree[name], steps[1:]) for name in labelled or items)


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
    return _one_copy(compact(fields, sort_keys=True))


@lru_cache(maxsize=4096)
def _one_copy(content: bytes) -> bytes:
    """Return the one copy of `content`: the children of a thousand detectors look alike."""
    return content
