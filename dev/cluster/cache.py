"""Finished artefacts appear under their name at once, or not at all: every step can be repeated."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.paths import cache_root
from cluster.steps import say


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Let one process at a time work on `name`; the kernel releases it if that process dies."""
    path = cache_root() / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"    another process makes {name}: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def artefact(key: str, make: Callable[[Path], None]) -> Path:
    """Return the cached file or folder `key`; if absent, `make` writes it to the path it is given.

    The key carries every version that went in. What a failed `make` left is deleted.
    """
    path = cache_root() / key
    if path.exists():
        return path
    with lock(key.replace("/", "_")):
        if path.exists():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        discard(part)
        make(part)
        part.rename(path)
    return path


def discard(path: Path) -> None:
    """Delete the file or folder `path` if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def content_hash(paths: Iterable[Path], *, root: Path, extra: Iterable[str] = ()) -> str:
    """Hash names, modes and contents of files and folders below `root`; 12 hex digits.

    The order of `paths` does not matter; caches that Python leaves beside sources do not count.
    `extra` holds settings that change the result without being a file.
    """
    files = sorted({file for path in paths for file in _files(path)})
    digest = hashlib.sha256()
    for file in files:
        data = file.read_bytes()
        executable = file.stat().st_mode & 0o111 != 0
        digest.update(f"{file.relative_to(root)}\0{executable}\0{len(data)}\0".encode())
        digest.update(data)
    for text in extra:
        digest.update(f"\0{text}".encode())
    return digest.hexdigest()[:12]


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for file in path.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".pyc":
            yield file
