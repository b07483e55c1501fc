"""Build images with whichever builder the engine has, from files gathered out of the cache."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from cluster.debian import HOST_CERTIFICATES
from cluster.paths import HERE, cache_root
from cluster.steps import output, run, step

DOCKERFILES = HERE / "docker"


def build(
    tag: str,
    dockerfile: str,
    files: Mapping[str, Path],
    *,
    args: Mapping[str, str] | None = None,
) -> None:
    """Build `tag` from a Dockerfile of this package; `files` maps names in its context to files."""
    with step(f"build image {tag}"), tempfile.TemporaryDirectory(dir=_scratch()) as folder:
        context = Path(folder)
        for name, path in files.items():
            place(path, context / name)
        run(command([tag], DOCKERFILES / dockerfile, context, args or {}), log="images",
            env=builder_environment())  # fmt: skip


def build_of_binary(tag: str, program: Path, *, user: int = 0) -> None:
    """Build an image that holds one static program and runs it as the user of this number."""
    with tempfile.TemporaryDirectory(dir=_scratch()) as folder:
        root = Path(folder)
        place(program, root / "usr/local/bin" / program.name)
        place(HOST_CERTIFICATES, root / HOST_CERTIFICATES.relative_to("/"))
        (root / "entrypoint").symlink_to(f"/usr/local/bin/{program.name}")
        build(tag, "binary.Dockerfile", {"root": root}, args={"USER_ID": str(user)})


def command(
    tags: Iterable[str],
    dockerfile: Path,
    context: Path,
    args: Mapping[str, str],
    *,
    target: str = "",
    labels: Mapping[str, str] | None = None,
) -> list[str | Path]:
    """Return the `docker build` that works with BuildKit and with the legacy builder.

    The host's network is used because a package mirror may be reachable only from there.
    """
    return [
        *("docker", "build", "--network=host", "-f", dockerfile),
        *(word for tag in tags for word in ("-t", tag)),
        *(word for name, value in args.items() for word in ("--build-arg", f"{name}={value}")),
        *(
            word
            for name, value in (labels or {}).items()
            for word in ("--label", f"{name}={value}")
        ),
        *(("--target", target) if target else ()),
        context,
    ]


def builder_environment() -> dict[str, str]:
    """Choose the legacy builder where buildx is missing: newer clients do not fall back."""
    if "DOCKER_BUILDKIT" in os.environ or output(["docker", "buildx", "version"]) is not None:
        return {}
    return {"DOCKER_BUILDKIT": "0"}


def place(path: Path, target: Path) -> None:
    """Put a file or folder into a build context."""
    if path.is_dir():
        leftovers = shutil.ignore_patterns("__pycache__", "*.pyc")  # as in `content_hash`
        shutil.copytree(path, target, symlinks=True, ignore=leftovers)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def _scratch() -> Path:
    # Beside the binaries rather than in /tmp, which may be small or in memory.
    path = cache_root() / "contexts"
    path.mkdir(parents=True, exist_ok=True)
    return path
