"""The product's images: built from the repository, loaded into the node, named by their content."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster import base_image, engine, imagebuild, kindcluster, mode
from cluster.cache import content_hash, lock
from cluster.paths import REPOSITORY
from cluster.steps import output, run, step

TAG: Final = "dev"
# What a person may set to reach package indexes, handed on to builds.
PASSED_ON: Final = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass(frozen=True, slots=True)
class Product:
    """An image that the project ships; `variant` is appended to its tags."""

    name: str
    dockerfile: str
    target: str = ""
    variant: str = ""


PRODUCTS: Final = {
    "operator": Product("yolofleet/operator", "operator/Dockerfile"),
    "yoloserve_cpu": Product(
        "yolofleet/yoloserve", "serving_image/Dockerfile", target="cpu", variant="-cpu"
    ),
}
# For detectors with `spec.runtime.engine: ray`; large, so built where it is asked for.
RAY: Final = Product(
    "yolofleet/yoloserve", "serving_image/Dockerfile", target="ray", variant="-ray"
)
# No products: the server with an engine that only waits, for tests of what is around engines, and
# with a network in trouble, for releases that are to be called off.
STUB: Final = Product("yolofleet/yoloserve-stub", "dev/stub_engine/Dockerfile")
TROUBLED: Final = Product("yolofleet/yoloserve-troubled", "dev/troubled_engine/Dockerfile")


def build_and_load() -> dict[str, str]:
    """Build what changed and load it; return each image's tag, new when its content is."""
    way = kindcluster.mode_of_running() or mode.current()
    with lock("images"):
        args = arguments(way)
        tags = {key: _build(product, args) for key, product in PRODUCTS.items()}
        if kindcluster.runs():
            kindcluster.load(list(tags.values()))
    return tags


def build_and_load_ray() -> str:
    """Build RAY and load it; return its tag."""
    with lock("images"):
        tag = _build(RAY, arguments(kindcluster.mode_of_running() or mode.current()))
        if kindcluster.runs():
            kindcluster.load([tag])
    return tag


def build_and_load_upon(product: Product) -> str:
    """Build STUB or TROUBLED upon the server's image; return its tag."""
    serving = build_and_load()["yoloserve_cpu"]
    with lock("images"):
        tag = _build(product, {"BASE_IMAGE": serving})
        if kindcluster.runs():
            kindcluster.load([tag])
    return tag


def inputs(dockerfile: str) -> list[str]:
    """Return what a Dockerfile copies out of its build context, as written there.

    Nothing else can change the image, so nothing else has to be hashed or sent to the builder.
    """
    found: list[str] = []
    for line in dockerfile.replace("\\\n", " ").splitlines():
        words = line.split()
        if not words or words[0].upper() not in {"COPY", "ADD"}:
            continue
        if any(word.startswith("--from=") for word in words):
            continue
        sources = [word for word in words[1:] if not word.startswith("--")][:-1]
        found += [source for source in sources if source not in found]
    return found


def arguments(way: mode.Mode) -> dict[str, str]:
    """Return what builds are told: the image they start from, and how to reach package indexes."""
    return {"BASE_IMAGE": base_image.image(way), **_passed_on(os.environ)}


def _passed_on(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: environ[name] for name in PASSED_ON if environ.get(name)}


def _build(product: Product, args: dict[str, str]) -> str:
    base = output(["docker", "image", "inspect", "--format", "{{.Id}}", args["BASE_IMAGE"]]) or ""
    content = content_hash(
        [REPOSITORY / product.dockerfile, *_sources(product)],
        root=REPOSITORY,
        extra=[base, product.target, *args.values()],
    )
    newest = f"{product.name}:{TAG}{product.variant}"
    tag = f"{newest}-{content}"
    if not engine.has_image(tag):
        build_as(tag, product, args)
    run(["docker", "tag", tag, newest], log="images")
    return tag


def build_as(
    tag: str, product: Product, args: Mapping[str, str], *, labels: Mapping[str, str] | None = None
) -> None:
    """Build an image from what its Dockerfile copies out of the repository, and nothing else."""
    files = {str(path.relative_to(REPOSITORY)): path for path in _sources(product)}
    with step(f"build {tag}"), imagebuild.context(files) as folder:
        dockerfile = REPOSITORY / product.dockerfile
        run(
            imagebuild.command(
                [tag], dockerfile, folder, args, target=product.target, labels=labels or {}
            ),
            log=product.name.replace("/", "-"),
            env=imagebuild.builder_environment(),
        )


def _sources(product: Product) -> list[Path]:
    patterns = inputs((REPOSITORY / product.dockerfile).read_text())
    return sorted({path for pattern in patterns for path in REPOSITORY.glob(pattern)})
