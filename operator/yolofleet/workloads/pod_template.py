"""Merges `spec.podTemplate` into rendered pods, as `kubectl patch` would: lists by their key.

What cannot be honoured was refused when the resource was parsed (`api.pod_template`). A record of
an older version may hold it yet, so the labels that select the pods win here too.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from yolofleet.api.names import Manifest
from yolofleet.api.pod_template import MERGE_KEYS, PodTemplate

_WHOLE = frozenset({"env", "volumes"})
"""Lists whose items are each one of several things (value or valueFrom): merged, they were two."""


def merged(pod: Manifest, template: PodTemplate) -> Manifest:
    """Return the template `pod` with what the user wrote merged into it."""
    if not (template.metadata or template.spec):
        return pod
    ours = pod["metadata"]["labels"]
    changes = {"metadata": template.metadata, "spec": template.spec}
    pod = _merge(pod, deepcopy(changes))  # what is made may be changed, a revision may not
    pod["metadata"]["labels"] = {**pod["metadata"].get("labels", {}), **ours}
    return pod


def _merge(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for name, value in changes.items():
        before = out.get(name)
        if isinstance(before, dict) and isinstance(value, Mapping):
            out[name] = _merge(before, value)
        elif isinstance(before, list) and isinstance(value, list) and name in MERGE_KEYS:
            out[name] = _merge_lists(before, value, name)
        else:
            out[name] = value
    return out


def _merge_lists(base: list[Any], changes: list[Any], name: str) -> list[Any]:
    key = MERGE_KEYS[name]
    merged = {item[key]: item for item in base}
    for item in changes:
        before = {} if name in _WHOLE else merged.get(item[key], {})
        merged[item[key]] = _merge(before, item)
    return list(merged.values())
