"""The model cache on disk: by digest, whole or absent, shared by processes and pods."""

import fcntl
import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

log = logging.getLogger(__name__)

HASH_CHUNK = 2**20
LOCK, PART = ".lock-", ".part-"
LEFT_S = 86400.0  # who wanted it has been started anew many times since, if anybody still does


class Store:
    """A folder in which each file is named by its digest.

    What is unfinished has a name that begins with a dot, and is gone on with by whoever comes next:
    a process may be killed at any moment. One at a time works on an address; the lock is the
    kernel's, so it ends with its holder, on another node of a shared volume too. What nobody came
    for is removed by who downloads another file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, sha256: str | None) -> Path | None:
        """Return the file of that digest, if it is here and still what its name says."""
        if sha256 is None or not (path := self._folder / sha256).is_file():
            return None
        if digest_of(path) == sha256:
            return path
        path.unlink(missing_ok=True)  # a disk that lies is no reason to fail for ever
        return None

    @contextmanager
    def unfinished(self, address: str) -> Iterator[Path]:
        """Hold the lock of an address, and give the path at which its download goes on."""
        self._folder.mkdir(parents=True, exist_ok=True)
        key = hashlib.sha256(address.encode()).hexdigest()[:32]
        with (self._folder / f"{LOCK}{key}").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("waiting", extra={"reason": "another process downloads it", "key": key})
                fcntl.flock(lock, fcntl.LOCK_EX)
            self._sweep()
            yield self._folder / f"{PART}{key}"

    def _sweep(self) -> None:
        for place in self._folder.glob(f"{LOCK}*"):  # locks stay: others may wait for them
            part = self._folder / (PART + place.name.removeprefix(LOCK))
            with suppress(OSError):  # nothing was left, or somebody goes on with it
                if time.time() - part.stat().st_mtime >= LEFT_S:
                    with place.open("a") as lock:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        discard(part)

    def keep(self, part: Path, sha256: str) -> Path:
        """Give a finished file its name."""
        path = self._folder / sha256
        part.replace(path)
        validator_of(part).unlink(missing_ok=True)
        return path


def discard(part: Path) -> None:
    """Forget what was downloaded."""
    for path in (part, validator_of(part)):
        path.unlink(missing_ok=True)


def validator_of(part: Path) -> Path:
    """Return where the version of an unfinished file is noted: no other may continue it."""
    return part.with_name(part.name + ".version")


def size_of(path: Path) -> int:
    """Return how many bytes are there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def digest_of(path: Path) -> str:
    """Digest a file without holding it in memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
