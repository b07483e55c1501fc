"""The image that the product's images start from: Python's official one, or a stand-in."""

from __future__ import annotations

import os
from typing import Final

from cluster import debian, engine, imagebuild, versions
from cluster.cache import content_hash
from cluster.mode import Mode
from cluster.paths import HERE
from cluster.steps import run

STAND_IN: Final = f"yolofleet/base-python:{versions.DEBIAN}"


def image(mode: Mode) -> str:
    """Return the base image; the stand-in is built unless the engine has it."""
    if mode is Mode.PULL:
        return versions.PYTHON_IMAGE
    index = os.environ.get("PIP_INDEX_URL", "")
    recipe = content_hash([HERE / "docker/base-python.Dockerfile"], root=HERE, extra=[index])
    exact = f"{STAND_IN}-{recipe}"
    if not engine.has_image(exact):
        args = {"BASE_IMAGE": debian.image(), "PIP_INDEX_URL": index}
        imagebuild.build(exact, "base-python.Dockerfile", {}, args=args)
    run(["docker", "tag", exact, STAND_IN], log="images")
    return STAND_IN
