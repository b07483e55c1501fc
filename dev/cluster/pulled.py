"""The node's image where one is pulled, and the Kubernetes in it."""

from __future__ import annotations

import os
import re

from cluster import versions
from cluster.errors import NotPossibleHere

VARIABLE = "YOLOFLEET_NODE_IMAGE"


def node_image() -> str:
    """Return kind's own image, or the one that a person names: of a mirror, or another version."""
    return os.environ.get(VARIABLE) or versions.NODE_IMAGE


def kubernetes() -> str:
    """Return the version of Kubernetes that the node's image is tagged with: kubectl follows it."""
    found = re.search(r":v(\d+\.\d+\.\d+)(@|$)", node_image())
    if found is None:
        raise NotPossibleHere(
            f"{VARIABLE} is {node_image()!r}: its tag has to tell the version, as in"
            f" {versions.NODE_IMAGE.partition('@')[0]}."
        )
    return found[1]
