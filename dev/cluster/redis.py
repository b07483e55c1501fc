"""A Redis in the local cluster, for Ray clusters that are to outlive their heads; on demand."""

from __future__ import annotations

import json
from typing import Final

import yaml

from cluster import base_image, client, engine, imagebuild, kindcluster, mode
from cluster.cache import content_hash
from cluster.paths import HERE
from cluster.steps import step

NAME: Final = "redis"
ADDRESS: Final = f"{NAME}:6379"
"""In its own namespace."""


def install(namespace: str, password: str) -> None:
    """Install it in a namespace, with a Secret NAME whose key `password` is its password."""
    image = _image()
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME}}
    service, deployment = yaml.safe_load_all((HERE / "manifests/redis.yaml").read_text())
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    container["image"] = image
    made = [secret | {"stringData": {"password": password}}, service, deployment]
    stated = "\n---\n".join(json.dumps(each) for each in made).encode()
    with step("install Redis"):
        client.kubectl("-n", namespace, "apply", "--server-side", "-f", "-", stdin=stated)
        client.kubectl("-n", namespace, "rollout", "status", "deployment", NAME)


def _image() -> str:
    base = base_image.image(kindcluster.mode_of_running() or mode.current())
    recipe = content_hash([HERE / "docker/redis.Dockerfile"], root=HERE, extra=[base])
    tag = f"yolofleet/redis:{recipe}"
    if not engine.has_image(tag):
        imagebuild.build(tag, "redis.Dockerfile", {}, args={"BASE_IMAGE": base})
    kindcluster.load([tag])
    return tag
