"""Merges `spec.podTemplate` into rendered pods, as `kubectl patch` would: lists by their key.

What the operator needs stays: the labels that select the pods win over the user's.
"""

from collections.abc import Mapping
from typing import Any

from yolofleet.api.detector import MERGE_KEYS, PodTemplate
from yolofleet.api.names import Manifest


def merged(deployment: Manifest, template: PodTemplate) -> Manifest:
    """Return `deployment` with `template` merged into its pods."""
    pod = deployment["spec"]["template"]
    ours = pod["metadata"]["labels"]
    changes = {"metadata": dict(template.metadata), "spec": dict(template.spec)}
    pod = _merge(pod, changes)
    pod["metadata"]["labels"] = {**pod["metadata"].get("labels", {}), **ours}
    deployment["spec"]["template"] = pod
    return deployment


def _merge(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for name, value in changes.items():
        before = out.get(name)
        if isinstance(before, dict) and isinstance(value, Mapping):
            out[name] = _merge(before, value)
        elif isinstance(before, list) and isinstance(value, list) and name in MERGE_KEYS:
            out[name] = _merge_lists(before, value, MERGE_KEYS[name])
        else:
            out[name] = value
    return out


def _merge_lists(base: list[Any], changes: list[Any], key: str) -> list[Any]:
    merged = {item[key]: item for item in base}
    for item in changes:
        merged[item[key]] = _merge(merged.get(item[key], {}), item)
    return list(merged.values())
