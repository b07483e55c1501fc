"""A Debian root file system to stand in for the base images that no registry serves here."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cluster import engine, versions
from cluster.cache import artefact
from cluster.errors import NotPossibleHere
from cluster.steps import output, run, step

IMAGE: Final = f"yolofleet/debian:{versions.DEBIAN}"
HOST_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def image() -> str:
    """Return a minimal Debian image that trusts what this host trusts."""
    if not engine.has_image(IMAGE):
        archive = artefact(f"rootfs/{versions.DEBIAN}.tar", _bootstrap)
        with step(f"import {IMAGE}"):
            run(["docker", "import", archive, IMAGE], log="debian")
    return IMAGE


def mirror(targets: str) -> str | None:
    """Return the mirror of Debian in what `apt-get indextargets` printed for this host, if any.

    Lines are "URI release-origin release-codename". None leaves the choice to debootstrap.
    """
    for line in targets.splitlines():
        uri, origin, codename = (*line.split(), "", "", "")[:3]
        if (origin, codename) == ("Debian", versions.DEBIAN):
            return uri
    return None


def _bootstrap(part: Path) -> None:
    if os.geteuid() != 0:
        raise NotPossibleHere("Making a root file system needs root (or a container registry).")
    if not shutil.which("debootstrap"):
        engine.install(("debootstrap",))
    listed = output(["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(CODENAME)"])
    with (
        tempfile.TemporaryDirectory(prefix="rootfs-", dir=part.parent) as folder,
        step(f"debootstrap Debian {versions.DEBIAN}", "downloads and unpacks 100 packages"),
    ):
        root = Path(folder)
        run(
            [
                *("debootstrap", "--variant=minbase", "--include=ca-certificates"),
                *(versions.DEBIAN, root),
                *_words(mirror(listed or "")),
            ],
            log="debian",
        )
        for left in ("var/cache/apt", "var/lib/apt/lists"):
            shutil.rmtree(root / left)
            (root / left).mkdir()
        # A proxy on the way may re-sign TLS; this image never leaves this machine.
        shutil.copyfile(HOST_CERTIFICATES, root / HOST_CERTIFICATES.relative_to("/"))
        run(["tar", "--numeric-owner", "-C", root, "-cf", part, "."], log="debian")


def _words(word: str | None) -> Iterable[str]:
    return [word] if word else []
