"""What the pull way asks for, under the names that it asks for: built here, served on loopback.

Nothing of it is what the names' owners publish. The node is this project's own with a list of
mirrors and without a network to install; Envoy lacks Istio's filters, so the charts turn off what
needs them; Python is Debian's. What is tried is the way: each name is asked for, and used.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import io
import platform
import ssl
import tarfile
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from cluster import base_image, components, gobuild, imagebuild, istio, node_image, versions
from cluster.cache import content_hash
from cluster.mode import Mode
from cluster.paths import HERE as CLUSTER
from cluster.steps import run, step

HERE: Final = Path(__file__).resolve().parent
NODE: Final = f"kindest/node:v{versions.KUBERNETES}"  # kind's own of this version has a digest
HUB: Final = "docker.io/istio"
# Who is asked for images, and for files; `own_engine.py` leads these names here.
REGISTRIES: Final = ("docker.io", "registry-1.docker.io", "registry.k8s.io")
SITES: Final = (
    "istio-release.storage.googleapis.com",
    "dl.k8s.io",
    "kind.sigs.k8s.io",
    "get.helm.sh",
)
CHARTS: Final = ("base", "istiod", "gateway")


def images() -> dict[str, str]:
    """Build what is missing; return the engine's image for each path and tag of a registry."""
    pilot, proxy = istio.images()
    pause = f"yolofleet/pause:{versions.PAUSE_IMAGE.rsplit(':', 1)[1]}"
    imagebuild.build_of_binary(pause, gobuild.own("pause"))
    return {
        NODE: _node(),
        f"library/{versions.PYTHON_IMAGE}": base_image.image(Mode.BUILD),
        f"istio/pilot:{versions.ISTIO}": pilot,
        f"istio/proxyv2:{versions.ISTIO}": proxy,
        versions.PAUSE_IMAGE.partition("/")[2]: pause,
    }


def _node() -> str:
    own = node_image.image()
    recipe = content_hash([HERE / "node.Dockerfile"], root=HERE, extra=[own])
    name = f"yolofleet/pulled-node:{recipe}"
    with step(f"build image {name}"), imagebuild.context({}) as folder:
        command = imagebuild.command([name], HERE / "node.Dockerfile", folder, {"BASE_IMAGE": own})
        run(command, log="images", env=imagebuild.builder_environment())
    return name


def push(images: Mapping[str, str], registry: str) -> None:
    """Push each image to `registry` (HOST:PORT) under its public name; leave no name behind."""
    for name, image in images.items():
        there = f"{registry}/{name}"
        with step(f"serve {name}"):
            run(["docker", "tag", image, there], log="pulling")
            try:
                run(["docker", "push", "--quiet", there], log="pulling")
            finally:
                run(["docker", "image", "rm", there], log="pulling")


def files(folder: Path) -> None:
    """Write into `folder` what sites serve, each under its path: programs and charts."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    system = f"{platform.system().lower()}-{machine}"
    kubectl = f"release/v{versions.KUBERNETES}/bin/{system.replace('-', '/')}/kubectl"
    _publish(folder / kubectl, components.kubernetes("kubectl").read_bytes(), ".sha256")
    kind = f"dl/v{versions.KIND}/kind-{system}"
    _publish(folder / kind, components.kind().read_bytes(), ".sha256sum")
    helm = components.helm()
    archive = _archive({f"{system}/helm": helm.read_bytes()})
    _publish(folder / f"helm-v{versions.HELM}-{system}.tar.gz", archive, ".sha256sum")
    _charts(folder / "charts", helm)


def _publish(path: Path, data: bytes, checksum: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    path.with_name(path.name + checksum).write_text(f"{digest}  {path.name}\n")


def _archive(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def _charts(folder: Path, helm: Path) -> None:
    """Pack Istio's charts as a release does: with its version, and the images of that."""
    folder.mkdir()
    with tempfile.TemporaryDirectory() as scratch:
        for name in CHARTS:
            chart = Path(scratch) / name
            imagebuild.place(istio.source_chart(name), chart)
            values = chart / "values.yaml"
            values.write_text(yaml.safe_dump(as_released(yaml.safe_load(values.read_text()) or {})))
            version = ("--version", versions.ISTIO, "--app-version", versions.ISTIO)
            run([helm, "package", chart, *version, "--destination", folder], log="pulling")
    run([helm, "repo", "index", folder], log="pulling")


def as_released(values: dict[str, Any]) -> dict[str, Any]:
    """Return a chart's values as a release has them, and as an Envoy without Istio's filters needs.

    Istio keeps its defaults one level below, so that they can be told from what a user set.
    """
    defaults = values.get("_internal_defaults_do_not_set", values)
    if "global" in defaults and "hub" in defaults["global"]:
        defaults["global"] |= {"hub": HUB, "tag": versions.ISTIO}
    if "pilot" in str(defaults.get("image", "")):
        upstream = yaml.safe_load((CLUSTER / "manifests/istiod-upstream-envoy.yaml").read_text())
        defaults["telemetry"] = {**defaults.get("telemetry", {}), **upstream["telemetry"]}
        defaults["env"] = {**(defaults.get("env") or {}), **upstream["env"]}
    return values


@dataclass(frozen=True, slots=True)
class Site:
    """Where files are served with TLS, and the certificate to trust (PEM)."""

    port: int
    authority: bytes


@contextlib.contextmanager
def serve(folder: Path, host: str) -> Iterator[Site]:
    """Serve a folder with TLS as each of SITES, until the end of this block."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as scratch:
        key, certificate = Path(scratch) / "tls.key", Path(scratch) / "tls.crt"
        names = ",".join(f"DNS:{site}" for site in SITES)
        run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-subj", "/CN=pulling", "-addext", f"subjectAltName={names}"),
                *("-keyout", key, "-out", certificate),
            ],
            log="pulling",
        )
        context.load_cert_chain(certificate, key)
        authority = certificate.read_bytes()
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer((host, 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield Site(server.server_port, authority)
        finally:
            server.shutdown()
            thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Says nothing of each request."""

    def log_message(self, format: str, *args: Any) -> None:
        """Do nothing."""
