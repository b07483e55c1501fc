"""Files of the cache that are found damaged before they are used: each ends with its digest.

A disk that was full, a node that was reset, a volume that forgets: runtimes load most of what comes
of it, and answer with other boxes. A file appears whole, and replaces another one so: processes
may share the folder. What is written there by others is not found out: `own` sees to that.
"""

import hashlib
import logging
import mmap
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

log = logging.getLogger(__name__)

DIGEST_BYTES = 32


def read(place: Path) -> memoryview | None:
    """Map what was written; none, and the file is gone, where it is not that any more.

    Mapped, for the kernel may take back what a runtime keeps of it.
    """
    try:
        with place.open("rb") as file:
            whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        content, digest = whole[:-DIGEST_BYTES], whole[-DIGEST_BYTES:]
        if hashlib.sha256(content).digest() == digest:
            return content
        reason = "it is not what was written there"
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        reason = str(error)
    log.warning("damaged file in the cache", extra={"file": str(place), "reason": reason})
    with suppress(OSError):  # it is replaced as soon as there is something to put there
        place.unlink()
    return None


def write(place: Path, content: bytes | memoryview) -> None:
    """Write a file that appears whole or not at all; raise `OSError` where there is no room."""
    part = place.with_name(f".part-{token_hex(8)}")
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
        log.warning("not kept", extra={"file": str(place), "reason": error.strerror})
