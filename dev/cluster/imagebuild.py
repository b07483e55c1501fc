"""Build images with whichever builder the engine has, from files gathered out of the cache."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
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
    with step(f"build image {tag}"), context(files) as folder:
        run(command([tag], DOCKERFILES / dockerfile, folder, args or {}), log="images",
            env=builder_environment())  # fmt: skip


def build_of_binary(tag: str, program: Path, *, user: int = 0) -> None:
    """Build an image that holds one static program and runs it as the user of this number."""
    certificates = str(HOST_CERTIFICATES.relative_to("/"))
    held = {f"usr/local/bin/{program.name}": program, certificates: HOST_CERTIFICATES}
    with context(held) as root:
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
    """Choose the legacy builder where buildx is missing: newer clients do not fall back.

    buildx attests when it built an image, so that each build of the same would be another one.
    """
    if "DOCKER_BUILDKIT" in os.environ or output(["docker", "buildx", "version"]) is not None:
        return {"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
    return {"DOCKER_BUILDKIT": "0"}


@contextmanager
def context(files: Mapping[str, Path]) -> Iterator[Path]:
    """Gather a build context in a folder that goes afterwards; `files` as for `build`."""
    # Beside the binaries rather than in /tmp, which may be small or in memory.
    scratch = cache_root() / "contexts"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        for name, path in files.items():
            place(path, Path(folder) / name)
        yield Path(folder)


def place(path: Path, target: Path) -> None:
    """Put a copy of a file or folder at `target`, with the modes that git knows: 0644 and 0755.

    Builders keep the modes, and images run as a user who owns nothing in them: what the umask of a
    checkout takes from others, they could not read. The module cache of Go is read-only.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        leftovers = shutil.ignore_patterns("__pycache__", "*.pyc")  # as in `content_hash`
        shutil.copytree(path, target, symlinks=True, ignore=leftovers)
    else:
        shutil.copy(path, target)
    for each in (target, *target.rglob("*")):
        if not each.is_symlink():
            is_for_all = each.is_dir() or each.stat().st_mode & stat.S_IXUSR
            each.chmod(0o755 if is_for_all else 0o644)
