"""Last applied: what we wanted of an object when we last wrote it; on it, as hashes by part.

It proves nothing about the object: fields of it drift while this stays. It tells whose doing a
difference is. A part that we want as we did, and that is not so, was changed by others; without
that, a field that somebody removed looks like one that we want for the first time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import orjson

from yolofleet.runtime.objects import Manifest
from yolofleet.runtime.ownership import Fields

_IDENTITY: Final = frozenset({"apiVersion", "kind"})

Hashes = Mapping[str, str]
"""Hashes by part: "spec.replicas", "metadata.labels"."""


def hashes_of(desired: Manifest) -> Hashes:
    """Return what is wanted of each part of `desired`."""
    parts: dict[str, Any] = {}
    for name, value in desired.items():
        if name not in _IDENTITY:
            inside = value if isinstance(value, dict) else {}
            parts |= {f"{name}.{inner}": part for inner, part in inside.items()}
            parts |= {} if isinstance(value, dict) else {name: value}
    return {name: _hash(part) for name, part in parts.items()}


def with_hashes(desired: Manifest, hashes: Hashes, annotation: str) -> Manifest:
    """Return `desired` with `hashes` written on it, as its `annotation`."""
    metadata = desired["metadata"]
    text = orjson.dumps(hashes, option=orjson.OPT_SORT_KEYS).decode()
    annotations = (metadata.get("annotations") or {}) | {annotation: text}
    return desired | {"metadata": metadata | {"annotations": annotations}}


def still_applied(
    hashes: Hashes, live: Manifest, applied: Fields, annotation: str
) -> frozenset[str] | None:
    """Return the parts that are wanted as they were; None if `live` does not tell what was.

    What it tells counts only while the note is as we wrote it, which `applied` says.
    """
    ours: Any = applied
    for step in ("metadata", "annotations", annotation):
        ours = ours.get(f"f:{step}") if isinstance(ours, dict) else None
    if ours is None:
        return None
    try:
        before = orjson.loads((live["metadata"].get("annotations") or {})[annotation])
        return frozenset(part for part, was in before.items() if hashes.get(part) == was)
    except (orjson.JSONDecodeError, KeyError, AttributeError):
        return None


def _hash(value: Any) -> str:
    content = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(content, digest_size=4).hexdigest()
