"""Files of the cache that are found damaged before they are used: each ends with its digest.

A disk that was full, a node that was reset, a volume that forgets: runtimes load most of what comes
of it, and answer with other boxes. A file appears whole, and replaces another one so: processes
may share the folder. What is written there by others is not found out: `own` sees to that.
"""

import hashlib
import logging
import mmap
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import BinaryIO

log = logging.getLogger(__name__)

DIGEST_BYTES = 32
CHUNK_BYTES = 2**20
PART = ".part-"  # of a name: a file that is being written
WRITTEN = ".written-"  # a folder in which somebody else writes one
LEFT_S = 3600.0  # unchanged for so long, nobody writes it any more: the process was killed


def read(place: Path) -> memoryview | None:
    """Map what was written; none, and the file is gone, where it is not that any more.

    Mapped, for the kernel may take back what a runtime keeps of it. It is read first: where the
    disk fails that is an error, and the end of the process where a page is wanted of a map.
    """
    _sweep(place.parent)
    try:
        with place.open("rb") as file:
            if _is_whole(file):
                whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
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
def keeping(place: Path) -> Iterator[Path | None]:
    """Give a folder, if there is room for one: the file that is in it at the end is kept."""
    try:
        folder = TemporaryDirectory(prefix=WRITTEN, dir=place.parent, ignore_cleanup_errors=True)
    except OSError as error:
        _not_kept(place, error.strerror)
        yield None
        return
    with folder as name:
        yield Path(name)
        try:
            written = next(Path(name).iterdir(), None)
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


def _is_whole(file: BinaryIO) -> bool:
    left, digest = os.fstat(file.fileno()).st_size - DIGEST_BYTES, hashlib.sha256()
    while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
        digest.update(chunk)
        left -= len(chunk)
    return left == 0 and file.read() == digest.digest()


def _not_kept(place: Path, reason: str | None) -> None:
    log.warning("not kept", extra={"file": str(place), "reason": reason})


def _sweep(folder: Path) -> None:
    """Remove what was never finished."""
    for left in (*folder.glob(f"{PART}*"), *folder.glob(f"{WRITTEN}*")):
        with suppress(OSError):  # another process was quicker, or nothing can be removed here
            if time.time() - left.stat().st_mtime < LEFT_S:
                continue
            if left.is_file():
                left.unlink()
            elif left.name.startswith(WRITTEN):  # a conversion that is being made writes seldom
                shutil.rmtree(left)
