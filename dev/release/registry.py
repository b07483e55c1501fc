"""What a registry has already, and what is pushed to it: by docker and helm, with their logins."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cluster.paths import tools
from cluster.steps import output, run, step
from release.errors import Refused, WrongResult
from release.rules import is_loopback

# How docker and helm word that there is no such thing; anything else says nothing about it.
# A program that is not found is one of theirs, such as that which knows the login.
ABSENT: Final = re.compile(
    r"no such manifest|manifest unknown|name unknown|(?<!executable file )not found", re.IGNORECASE
)
CHARTS: Final = "charts"  # below the registry's path
TIMEOUT_S: Final = 600


def chart_reference(registry: str, name: str) -> str:
    """Return what `helm install` is given beside the version."""
    return f"oci://{registry}/{CHARTS}/{name}"


def plain(registry: str) -> list[str]:
    """Return helm's word for a registry without TLS, where it is on this machine."""
    return ["--plain-http"] if is_loopback(registry) else []


def refuse_chart(registry: str, name: str, version: str) -> None:
    """Raise Refused where the registry has this version of the chart: that release is whole."""
    chart = chart_reference(registry, name)
    asked = [str(tools().helm), "show", "chart", chart, "--version", version, *plain(registry)]
    if _find(asked, f"{chart} {version}") is not None:
        raise Refused(f"{chart} {version} exists, and a version is never overwritten.")


def refuse_others(image: str) -> None:
    """Raise Refused where the registry has another image of this name and tag than the engine."""
    insecure = ["--insecure"] if is_loopback(image) else []
    found = _find(["docker", "manifest", "inspect", "--verbose", *insecure, image], image)
    if found is not None and identity(image) not in digests_of(json.loads(found)):
        raise Refused(
            f"{image} exists with other content, and a version is never overwritten: an earlier"
            " release of it ended half-way, on another machine or from another commit."
        )


def push(image: str) -> str:
    """Push an image; return its digest there."""
    with step(f"push {image}"):
        run(["docker", "push", image], log="release")
    told = output(["docker", "image", "inspect", "--format", "{{json .RepoDigests}}", image])
    repository = image.rsplit(":", 1)[0]
    for known in json.loads(told or "[]"):
        name, _, digest = known.partition("@")
        if name == repository:
            return str(digest)
    raise WrongResult(f"the engine does not know the digest of {image}, which it has pushed")


def push_chart(archive: Path, registry: str) -> None:
    """Push a packed chart."""
    with step(f"push {archive.name}"):
        to = f"oci://{registry}/{CHARTS}"
        run([tools().helm, "push", archive, to, *plain(registry)], log="release")


@contextmanager
def forgotten(registry: str) -> Iterator[None]:
    """Leave no image of the engine named after a registry that is about to go."""
    try:
        yield
    finally:
        listed = ("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
        names = [name for name in (output(listed) or "").split() if not name.endswith("<none>")]
        if left := [name for name in names if name.startswith(f"{registry}/")]:
            run(["docker", "image", "rm", *left], log="release")


def identity(image: str) -> str:
    """Return the engine's own id of an image: the digest of its configuration, or its manifest."""
    return output(["docker", "image", "inspect", "--format", "{{.Id}}", image]) or ""


def digests_of(told: Any) -> set[str]:
    """Return the digests of manifests and configurations in `docker manifest inspect --verbose`."""
    found: set[str] = set()
    for entry in told if isinstance(told, list) else [told]:
        found.add(entry["Descriptor"]["digest"])
        for kind in ("SchemaV2Manifest", "OCIManifest"):
            if kind in entry:
                found.add(entry[kind]["config"]["digest"])
    return found


def _find(command: Sequence[str], what: str) -> str | None:
    """Return what is printed of something in a registry; None where that says it has no such."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise Refused(
            f"Nobody can tell whether {what} exists: no answer in {TIMEOUT_S} s."
        ) from None
    if done.returncode == 0:
        return done.stdout
    if ABSENT.search(done.stderr):
        return None
    raise Refused(
        f"Nobody can tell whether {what} exists: {done.stderr.strip()}\nLog in with `docker login`."
        " Some registries say the same of a repository that nothing was ever pushed to: push"
        " anything there once."
    )
