"""Server-side apply: which manager owns which fields, and what an apply makes of an object; pure.

A field is a path in the words of FieldsV1: `f:spec`, `f:containers`, `k:{"name":"a"}`, `f:image`.
The rules are those of structured-merge-diff; `shape_of` knows of the schemas what they need: which
lists have items with keys, and what is replaced as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

import orjson

from yolofleet.api.names import GROUP, Manifest

Path = tuple[str, ...]
Paths = frozenset[Path]

_ITEM: Final = object()
"""What stands for an item with a key itself, beside its fields."""

_KEYED: Final[Mapping[str, tuple[str, ...]]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "imagePullSecrets": ("name",),
    "secrets": ("name",),
    "ownerReferences": ("uid",),
    "conditions": ("type",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "hostAliases": ("ip",),
}
_PORTS: Final = {"Service": ("port", "protocol"), "Pod": ("containerPort", "protocol")}
_PORTS_OF: Final = {"Deployment": _PORTS["Pod"], **_PORTS}
_SETS: Final = {"finalizers"}
_WHOLE: Final = {
    "selector",
    "podSelector",
    "namespaceSelector",
    "labelSelector",
    "nodeSelector",
    "fieldRef",
    "secretKeyRef",
    "configMapKeyRef",
    "resourceFieldRef",
    "requiredDuringSchedulingIgnoredDuringExecution",
}
_WHOLE_OF: Final = {("ControllerRevision", "data")}
_BUILT_IN: Final = (
    "",
    "apps",
    "autoscaling",
    "policy",
    "networking.k8s.io",
    "coordination.k8s.io",
    "resource.k8s.io",
)
_ALWAYS: Final = {"ownerReferences", "finalizers"}  # of custom objects too: metadata is typed


def shape_of(manifest: Manifest, name: str) -> tuple[str, ...] | str:
    """Return how the field `name` of `manifest` is merged: the keys of its items, or "", or "set".

    "whole": as one value. "parts": what is a map is merged, and what is a list is one value.
    """
    group = manifest["apiVersion"].rpartition("/")[0]
    if name in _SETS:
        return "set"
    if group == GROUP and name == "conditions":
        return ("type",)
    if group not in _BUILT_IN and name not in _ALWAYS:
        return "parts"
    if name == "ports":
        return _PORTS_OF.get(manifest["kind"], "parts")
    whole = name in _WHOLE or (manifest["kind"], name) in _WHOLE_OF
    return _KEYED.get(name) or ("whole" if whole else "parts")


def key_of(item: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Return the name of an item of a list in FieldsV1."""
    values = {key: item.get(key, "TCP" if key == "protocol" else None) for key in keys}
    return "k:" + orjson.dumps(values, option=orjson.OPT_SORT_KEYS).decode()


def leaves(manifest: Manifest) -> dict[Path, Any]:
    """Return every field of `manifest` that can have an owner, and its value."""
    found: dict[Path, Any] = {}
    _gather(found, manifest, manifest, (), "parts")
    return found


def _gather(
    found: dict[Path, Any], of: Manifest, value: Any, path: Path, shape: tuple[str, ...] | str
) -> None:
    if isinstance(value, dict) and value and shape != "whole":
        for name, inner in value.items():
            here = (*path, "f:" + name)
            if isinstance(inner, dict | list):
                _gather(found, of, inner, here, shape_of(of, name))
            else:
                found[here] = inner
    elif isinstance(value, list) and value and isinstance(shape, tuple):
        for item in value:
            here = (*path, key_of(item, shape))
            found[here] = _ITEM
            if path[-1] != "f:ownerReferences":  # each is one value
                _gather(found, of, item, here, "parts")
            else:
                found[here] = item
    elif isinstance(value, list) and value and shape == "set":
        for item in value:
            found[(*path, "v:" + json.dumps(item))] = item
    else:
        found[path] = value


_STRIPPED: Final = {
    ("f:apiVersion",),
    ("f:kind",),
    *(
        ("f:metadata", f"f:{name}")
        for name in (
            "name",
            "namespace",
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "managedFields",
        )
    ),
}


def owned_by_nobody(path: Path) -> bool:
    """Say whether no manager ever owns the field: identity, and what the API server keeps."""
    return path[:1] in _STRIPPED or path[:2] in _STRIPPED


def is_status(path: Path) -> bool:
    """Say whether the field is in the status."""
    return path[:1] == ("f:status",)


_TYPE: Final = {"apiVersion", "kind"}  # which say how all else is merged


@dataclass(frozen=True)
class Changes:
    """What differs between two forms of an object: fields set, and fields that are gone."""

    set: Paths
    gone: Paths

    def __bool__(self) -> bool:
        return bool(self.set or self.gone)


def changes(before: Manifest, after: Manifest) -> Changes:
    """Return the fields that differ."""
    same = {name for name, value in before.items() if after.get(name, _ITEM) == value} - _TYPE
    was, now = (leaves({k: v for k, v in one.items() if k not in same}) for one in (before, after))
    new = frozenset(path for path, value in now.items() if path not in was or was[path] != value)
    return Changes(new, frozenset(was.keys() - now.keys()))


def merged(live: Any, config: Any, of: Manifest, shape: tuple[str, ...] | str = "parts") -> Any:
    """Return `live` with what `config` says of it."""
    if isinstance(live, dict) and isinstance(config, dict) and shape != "whole":
        return live | {
            name: merged(live[name], value, of, shape_of(of, name)) if name in live else value
            for name, value in config.items()
        }
    if isinstance(live, list) and isinstance(config, list) and isinstance(shape, tuple):
        return _in_order(live, {key_of(item, shape): item for item in config}, of, shape)
    if isinstance(live, list) and isinstance(config, list) and shape == "set":
        return [*live, *(item for item in config if item not in live)]
    return config


def _in_order(
    live: list[Any], wanted: Mapping[Any, Any], of: Manifest, shape: tuple[str, ...]
) -> list[Any]:
    """Return the items of both, in the order of `wanted`; others stay between those they were."""
    left, found = {key_of(item, shape): item for item in live}, list[Any]()
    for key, item in wanted.items():
        others = list(takewhile(lambda each: each not in wanted, left))
        found += [left.pop(other) for other in others]
        found.append(merged(left.pop(key), item, of) if key in left else item)
    return [*found, *left.values()]


_KEYS: Final = frozenset(f"f:{name}" for names in _KEYED.values() for name in names)


def without(value: Any, paths: Collection[Path], of: Manifest) -> Any:
    """Return `value` without the fields at `paths`, nor what is left empty by that."""
    # What an item is known by goes last: nothing more of it is found after that.
    for path in sorted(paths, key=lambda path: (-len(path), path[-1] in _KEYS)):
        value = _cut(value, path, of, "parts")
    return value


def _cut(value: Any, path: Path, of: Manifest, shape: tuple[str, ...] | str) -> Any:
    step, rest = path[0], path[1:]
    if isinstance(value, dict) and step.startswith("f:") and (name := step[2:]) in value:
        left = _cut(value[name], rest, of, shape_of(of, name)) if rest else None
        others = {k: v for k, v in value.items() if k != name}
        return others if left in (None, {}, []) else value | {name: left}
    if isinstance(value, list) and isinstance(shape, tuple) and step.startswith("k:"):
        return [
            kept for item in value if (kept := _cut_item(item, step, rest, of, shape)) is not None
        ]
    if isinstance(value, list) and step.startswith("v:"):
        return [item for item in value if json.dumps(item) != step[2:]]
    return value


def _cut_item(item: Any, step: str, rest: Path, of: Manifest, shape: tuple[str, ...]) -> Any:
    if key_of(item, shape) != step:
        return item
    return (_cut(item, rest, of, "parts") or None) if rest else None


def tree_of(paths: Collection[Path]) -> dict[str, Any]:
    """Return `paths` as FieldsV1."""
    tree: dict[str, Any] = {}
    for path in sorted(paths):
        at = tree
        for step in path:
            at = at.setdefault(step, {})
    for path in paths:
        at = tree
        for step in path:
            at = at[step]
        if at and path[-1].startswith("k:"):
            at["."] = {}
    return tree


def paths_of(tree: Mapping[str, Any]) -> Paths:
    """Return FieldsV1 as paths."""
    found: set[Path] = set()
    _trace(found, tree, ())
    return frozenset(found)


def _trace(found: set[Path], tree: Mapping[str, Any], path: Path) -> None:
    for name, inner in tree.items():
        here = path if name == "." else (*path, name)
        if inner:
            _trace(found, inner, here)
        else:
            found.add(here)
