"""Files of the cache that are found damaged before they are used: each ends with its digest.

A disk that was full, a node that was reset, a volume that forgets: runtimes load most of what comes
of it, and answer with other boxes. A file appears whole, and replaces another one so: processes
may share the folder. What is written there by others is not found out: `own` sees to that.

What goes by itself is locked by who is at it. The lock is the kernel's: it ends with its holder,
however that ends, on another node of a shared volume too.
"""

import fcntl
import hashlib
import logging
import mmap
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import BinaryIO

log = logging.getLogger(__name__)

DIGEST_BYTES = 32
CHUNK_BYTES = 2**20
PART = ".part-"  # of a name: a file, or a folder, that is being made
LOCK = ".lock"  # of a folder
LEFT_S = 3600.0  # unchanged for so long, it is nobody's who has yet to lock it
UNUSED_S = 30 * 86400.0


def read(place: Path) -> memoryview | None:
    """Map what was written; none, and the file is gone, where it is not that any more.

    Mapped, for the kernel may take back what a runtime keeps of it; and locked for as long, so that
    no `sweep` removes it: on a network volume that would end this process. It is read first: where
    the disk fails that is an error, and the end of the process where a page is wanted of a map.
    """
    sweep(place.parent)
    try:
        with place.open("rb") as file:
            _lock(file, fcntl.LOCK_SH)
            with suppress(OSError):  # the volume may be read-only
                os.utime(file.fileno())
            if _is_whole(file):
                whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # it has the lock
                return memoryview(whole)[:-DIGEST_BYTES]
    except FileNotFoundError:
        return None
    except OSError as error:  # it may be whole: there is no memory, or the volume is away
        fields = {"file": str(place), "reason": error.strerror}
        log.warning("file in the cache could not be read", extra=fields)
        return None
    reason = "it is not what was written there"
    log.warning("damaged file in the cache", extra={"file": str(place), "reason": reason})
    with suppress(OSError):  # it is replaced as soon as there is something to put there
        place.unlink()
    return None


def write(place: Path, content: bytes | memoryview) -> None:
    """Write a file that appears whole or not at all; raise `OSError` where there is no room."""
    part = place.with_name(f"{PART}{token_hex(8)}")
    try:
        with part.open("xb") as file:
            _lock(file, fcntl.LOCK_EX)
            file.write(content)
            file.write(hashlib.sha256(content).digest())
        part.replace(place)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def keep(place: Path, content: bytes | memoryview) -> None:
    """Write a file that can be made again: without room, each start makes it."""
    try:
        write(place, content)
    except OSError as error:
        _not_kept(place, error.strerror)


@contextmanager
def making(folder: Path) -> Iterator[Path]:
    """Give a folder in `folder` that goes at the end; if this process is killed, by `sweep`."""
    with (
        TemporaryDirectory(prefix=PART, dir=folder, ignore_cleanup_errors=True) as part,
        (Path(part) / LOCK).open("wb") as lock,
    ):
        _lock(lock, fcntl.LOCK_EX)
        made = Path(part) / "made"
        made.mkdir()
        yield made


@contextmanager
def keeping(place: Path) -> Iterator[Path | None]:
    """Give a folder, if there is room for one: the file that is in it at the end is kept."""
    with ExitStack() as until_then:
        try:
            made = until_then.enter_context(making(place.parent))
        except OSError as error:
            _not_kept(place, error.strerror)
            yield None
            return
        yield made
        try:
            written = next(made.iterdir(), None)
            if written is None:
                _not_kept(place, "it could not be written")
                return
            written.chmod(0o600)  # runtimes leave it read-only
            with written.open("rb+") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
                file.write(digest)
            written.replace(place)
        except OSError as error:
            _not_kept(place, error.strerror)


def sweep(folder: Path) -> None:
    """Remove what was never finished, and that nobody is at any more."""
    for left in folder.glob(f"{PART}*"):
        with suppress(OSError):  # somebody is, or another process was quicker
            if _unchanged_for(left) < LEFT_S:
                continue
            if left.is_file():
                with _alone(left):
                    left.unlink()
            else:
                with _alone(left / LOCK):
                    pass  # held open, it would keep its folder on NFS
                shutil.rmtree(left)


def forget_unused(folder: Path) -> None:
    """Remove what no start took up for long, and no process has mapped; it can be made again."""
    for place in folder.glob("*"):
        with suppress(OSError):
            if place.is_file() and (unused := _unchanged_for(place)) >= UNUSED_S:
                with _alone(place):
                    place.unlink()
                fields = {"file": str(place), "reason": f"unused for {unused / 86400:.0f} days"}
                log.info("removed from the cache", extra=fields)


def _not_kept(place: Path, reason: str | None) -> None:
    log.warning("not kept", extra={"file": str(place), "reason": reason})


def _is_whole(file: BinaryIO) -> bool:
    left, digest = os.fstat(file.fileno()).st_size - DIGEST_BYTES, hashlib.sha256()
    while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
        digest.update(chunk)
        left -= len(chunk)
    return left == 0 and file.read() == digest.digest()


def _unchanged_for(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def _lock(file: BinaryIO, how: int) -> None:
    """Take a lock that nobody can have; a volume without locks has no `sweep` that asks either."""
    with suppress(OSError):
        fcntl.flock(file, how | fcntl.LOCK_NB)


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Hold a file that nobody else holds; raise `OSError` where somebody does."""
    with place.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
