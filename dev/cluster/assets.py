"""The programs of a bare control plane: tests of an operator need no node.

Their places follow envtest's conventions, so that what `setup-envtest` installed is used.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cluster import components
from cluster.cache import artefact

NAMES: Final = (
    "kube-apiserver",
    "etcd",
    "kubectl",
    "kube-controller-manager",
    "kube-scheduler",
)


def directory() -> Path:
    """Return a folder with all of NAMES: given, cached, or built."""
    found = given(os.environ)
    if len(found) == len(NAMES) and len({path.parent for path in found.values()}) == 1:
        return found[NAMES[0]].parent
    paths = {name: found.get(name) or _built(name) for name in NAMES}
    key = hashlib.sha256(repr(sorted(paths.items())).encode()).hexdigest()[:12]
    return artefact(f"assets/{key}", lambda part: _link(paths, part))


def prometheus(command: str) -> Path:
    """Return prometheus or promtool: named by TEST_ASSET_PROMETHEUS and the like, or built."""
    one = Path(os.environ.get("TEST_ASSET_" + command.upper(), ""))
    return one.absolute() if one.is_file() else components.prometheus(command)


def given(environ: Mapping[str, str]) -> dict[str, Path]:
    """Return the programs that the environment points at and that exist.

    TEST_ASSET_ETCD and the like name one program, KUBEBUILDER_ASSETS a folder (which, as
    setup-envtest fills it, lacks kube-controller-manager).
    """
    folder = environ.get("KUBEBUILDER_ASSETS")
    found: dict[str, Path] = {}
    for name in NAMES:
        one = environ.get("TEST_ASSET_" + name.upper().replace("-", "_"))
        path = Path(one) if one else Path(folder) / name if folder else None
        if path and path.is_file() and path.name == name:
            found[name] = path.absolute()
    return found


def _built(name: str) -> Path:
    return components.etcd() if name == "etcd" else components.kubernetes(name)


def _link(paths: Mapping[str, Path], part: Path) -> None:
    part.mkdir()
    for name, path in paths.items():
        (part / name).symlink_to(path)
