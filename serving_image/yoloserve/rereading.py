"""Files that change while we run, as mounted Secrets and ConfigMaps do."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")


class Reread(Generic[T]):
    """What is in a file, read again when it is another file than before."""

    def __init__(
        self,
        file: Path,
        read: Callable[[Path], T],
        *,
        every_s: float = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the file; raises what `read` does.

        every_s: how long not to look for another one.
        """
        self._file = file
        self._read = read
        self._every_s = every_s
        self._clock = clock
        self._looked = clock()
        self._version = _version(file)
        self.content = read(file)

    def look(self) -> bool:
        """Return whether the content is another now.

        Raises what `read` does, once for each file that it does not take: better yesterday's
        content than none.
        """
        if (now := self._clock()) < self._looked + self._every_s:
            return False
        self._looked = now
        if (version := _version(self._file)) == self._version:
            return False
        self._version = version
        self.content = self._read(self._file)
        return True


def _version(file: Path) -> tuple[int, ...]:
    try:  # a mounted Secret changes by a link to another file
        found = file.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size
