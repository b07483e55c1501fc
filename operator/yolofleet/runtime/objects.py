"""Objects as the API server speaks them: what they are called, and who controls them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Manifest = dict[str, Any]
"""A Kubernetes object as the API server speaks it."""


def identity(manifest: Manifest) -> tuple[str, str]:
    """Return the kind and the name, which tell the children of one owner apart."""
    return manifest["kind"], manifest["metadata"]["name"]


def controller_uid(manifest: Manifest) -> str:
    """Return the uid of the object that controls `manifest`, or nothing."""
    return str(controller_of(manifest).get("uid", ""))


def controller_of(manifest: Manifest) -> Mapping[str, Any]:
    """Return the owner reference of what controls `manifest`, or an empty one."""
    for reference in manifest["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            found: Mapping[str, Any] = reference
            return found
    return {}
