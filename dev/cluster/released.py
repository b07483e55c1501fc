"""kubectl, kind and helm: from the PATH, compiled, or downloaded from their releases."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import platform
import re
import shutil
import tarfile
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cluster import components, pulled, versions
from cluster.cache import artefact
from cluster.errors import NotPossibleHere
from cluster.mode import Mode
from cluster.paths import tools
from cluster.steps import again, output, step


def provide(mode: Mode) -> None:
    """Leave kubectl, kind and helm where `paths.tools()` says."""
    system = platform.system().lower()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    kind = f"https://kind.sigs.k8s.io/dl/v{versions.KIND}/kind-{system}-{machine}"
    kubernetes = pulled.kubernetes()
    kubectl = f"https://dl.k8s.io/release/v{kubernetes}/bin/{system}/{machine}/kubectl"
    helm = f"https://get.helm.sh/helm-v{versions.HELM}-{system}-{machine}.tar.gz"
    if mode is Mode.BUILD:  # their exact versions, because nobody else has tried these images
        found = {
            "kubectl": components.kubernetes("kubectl"),
            "kind": components.kind(),
            "helm": components.helm(),
        }
    else:
        found = {
            "kubectl": _find("kubectl", kubectl, f"{kubectl}.sha256", None, _speaks_with_the_node),
            "kind": _find("kind", kind, f"{kind}.sha256sum", components.kind, _makes_the_node),
            "helm": _find("helm", helm, f"{helm}.sha256sum", components.helm),
        }
    for name, path in found.items():
        _link(getattr(tools(), name), path)


def _find(
    name: str,
    url: str,
    checksum: str,
    build: Callable[[], Path] | None,
    will_do: Callable[[str], bool] = lambda _: True,
) -> Path:
    if (path := shutil.which(name)) and will_do(path):
        return Path(path).resolve()  # the demo tells people to put our own links on the PATH
    if build and shutil.which("go"):
        return build()
    # The whole address, because a file of another version may have the same name.
    key = re.sub(r"[^\w.-]+", "-", url.partition("//")[2])
    return artefact(f"released/{key}/{name}", lambda p: _get(url, checksum, p))


def _speaks_with_the_node(kubectl: str) -> bool:
    told = output([kubectl, "version", "--client", "--output=json"])
    return near(json.loads(told or "{}"), pulled.kubernetes())


def _makes_the_node(kind: str) -> bool:
    return knows_the_node(output([kind, "version"]) or "")


def knows_the_node(told: str) -> bool:
    """Return whether a kind, by what its `version` tells, is not older than the node's image.

    Images are for the kind that they were released with; newer ones do what they can.
    """
    found = re.search(r"\bv(\d+)\.(\d+)\.", told)
    return found is not None and (int(found[1]), int(found[2])) >= _minor(versions.KIND)


def _minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def near(told: Mapping[str, Any], server: str) -> bool:
    """Return whether a kubectl, by what its `version` tells, is at most one minor from a server.

    https://kubernetes.io/releases/version-skew-policy/ promises nothing beyond.
    """
    client = told.get("clientVersion", {}).get("gitVersion", "")
    found = re.match(r"v(\d+)\.(\d+)\.", client)
    major, minor = _minor(server)
    return found is not None and int(found[1]) == major and abs(int(found[2]) - minor) <= 1


def _get(url: str, checksum: str, part: Path) -> None:
    with step(f"download {url}"):
        data = again(lambda: _read(url))
        expected = again(lambda: _read(checksum)).decode().split()[0]
        if hashlib.sha256(data).hexdigest() != expected:
            raise NotPossibleHere(
                f"{url} does not have the SHA-256 {expected} that its site tells."
            )
        if url.endswith(".tar.gz"):
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                name = next(n for n in archive.getnames() if n.endswith("/helm"))
                member = archive.extractfile(name)
                assert member is not None, "helm in its archive is a regular file"
                data = member.read()
        part.write_bytes(data)
        part.chmod(0o755)


def _read(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            data: bytes = answer.read()
            return data
    except (OSError, http.client.HTTPException) as error:  # the latter: it ended half-way
        tool = url.split("//")[1].split("/")[0]
        raise NotPossibleHere(f"{url}: {error}. Install it from {tool} by hand, or Go.") from error


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    fresh = link.with_name(link.name + ".new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)
