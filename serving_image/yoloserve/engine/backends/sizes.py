"""Networks compiled for the few sizes that really come, while a general one answers the rest."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from yoloserve.engine import memory

log = logging.getLogger(__name__)

C = TypeVar("C")
Size = tuple[int, ...]  # height, width; on a GPU the batch before them

MOST = 4  # each holds its own memory; a fleet of cameras has one or two formats
# Calls before a size is worth compiling. Odd pictures are not, and the calls that warm up do not
# reach it: what is compiled then would take the CPUs from what is still starting.
SEEN = 10
STALE = 500  # calls without a size before another may take its place


def rounded(count: int, most: int) -> int:
    """Return the next power of two, or `most`: few then serve batches of all sizes."""
    return min(1 << (count - 1).bit_length(), most)


@dataclass(slots=True)
class _Entry(Generic[C]):
    used: int  # number of the call that asked for it last
    calls: int = 0
    compiled: C | None = None  # none yet, or it failed


class CompiledSizes(Generic[C]):
    """The least recently used of few: `find` never waits, it compiles beside the calls.

    A place is given up only when its size has not been asked for in a long while. So more formats
    than places do not push each other out for ever, compiling all the time.
    """

    def __init__(
        self, compile_for: Callable[[Size], C], *, most: int = MOST, seen: int = SEEN
    ) -> None:
        self._compile_for = compile_for
        self._most = most
        self._seen = seen
        self._entries: dict[Size, _Entry[C]] = {}
        self._call = 0
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, "compile")

    def find(self, size: Size) -> C | None:
        """Return what is compiled for `size`; none while there is not, or will not be, any."""
        with self._lock:
            self._call += 1
            entry = self._entries.get(size)
            if entry is None:
                if not self._make_room():
                    return None
                entry = self._entries[size] = _Entry(self._call)
            entry.used = self._call
            entry.calls += 1
            if entry.calls == self._seen:
                self._worker.submit(self._compile, size, entry)
            return entry.compiled

    def prepare(self, size: Size) -> None:
        """Compile for a size that is known to come, and wait for it."""
        for _ in range(self._seen):
            self.find(size)
        self.settle()

    def settle(self) -> None:
        """Return when nothing is being compiled any more."""
        self._worker.submit(lambda: None).result()

    def _make_room(self) -> bool:
        if len(self._entries) < self._most:
            return True
        oldest = min(self._entries, key=lambda size: self._entries[size].used)
        if self._call - self._entries[oldest].used <= STALE:
            return False
        del self._entries[oldest]  # a call that runs on it keeps it until it ends
        return True

    def _compile(self, size: Size, entry: _Entry[C]) -> None:
        try:
            entry.compiled = self._compile_for(size)
        except Exception as error:  # a runtime's own: the general network goes on answering
            log.warning("size not compiled", extra={"size": list(size), "reason": str(error)})
        memory.give_back()
