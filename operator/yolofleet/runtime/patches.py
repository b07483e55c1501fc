"""Parts of patches that change exactly one object, or nothing; pure."""

from __future__ import annotations

from yolofleet.runtime import client as requests
from yolofleet.runtime.compare import Path
from yolofleet.runtime.objects import Manifest


def address(manifest: Manifest) -> Manifest:
    """Return the least that names exactly this object: a patch of it never creates one."""
    metadata = manifest["metadata"]
    return {
        "apiVersion": manifest["apiVersion"],
        "kind": manifest["kind"],
        "metadata": {name: metadata[name] for name in ("name", "namespace", "uid")},
    }


def replace_status(live: Manifest, status: Manifest, manager: str) -> requests.Request:
    """Replace the status as a whole: what others set there goes."""
    operations = [
        unchanged_since(live["metadata"]["resourceVersion"]),
        {"op": "replace", "path": "/status", "value": status},
    ]
    return requests.json_patch(live, operations, manager, subresource="status")


def unchanged_since(version: str) -> Manifest:
    """Make a JSON patch a `Conflict` on any other version; a failed `test` would be a plain 422."""
    return {"op": "replace", "path": "/metadata/resourceVersion", "value": version}


def pointer(path: Path) -> str:
    """Return `path` as a JSON pointer (RFC 6901)."""
    steps = (step if isinstance(step, str) else str(int(step)) for step in path)
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)
