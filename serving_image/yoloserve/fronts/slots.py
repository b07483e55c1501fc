"""The memory that fronts make tensors in and the engine reads: slots of one size.

It has no name: who was not given its descriptor has none of it, it needs no `/dev/shm`, and it is
gone with the last process that has it. The engine's process makes it, and seals its size: what is
cut off under a reader would end that one. It counts as memory of the container.
"""

import fcntl
import heapq
import mmap
import os
from math import prod

import numpy as np

from yoloserve.images.letterbox import Image, InputSize

PAGE = mmap.PAGESIZE
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
KEPT_BYTES = 64 * 2**20  # of slots that were used; more go back to the system with their picture


def bytes_of(size: InputSize) -> int:
    """Say how long a slot for a network's largest tensor is: whole pages."""
    return -(-prod((size.height, size.width, 3)) // PAGE) * PAGE


class Memory:
    """All slots, as one process sees them."""

    def __init__(self, descriptor: int, slots: int, slot_bytes: int) -> None:
        self._map = mmap.mmap(descriptor, slots * slot_bytes)
        self._all = np.frombuffer(self._map, np.uint8).reshape(slots, slot_bytes)

    def __getitem__(self, slot: int) -> Image:
        """Give a slot, as a row of bytes."""
        row: Image = self._all[slot]
        return row

    def drop(self, slot: int) -> None:
        """Give a slot's memory back to the system; it is zeros then."""
        size = self._all.shape[1]
        self._map.madvise(mmap.MADV_REMOVE, slot * size, size)


class Slots:
    """Those that are free, in the process that made them."""

    def __init__(self, slots: int, slot_bytes: int) -> None:
        self.slot_bytes = slot_bytes
        self.count = slots
        self.descriptor = os.memfd_create("pictures", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, slots * slot_bytes)
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, SEALS)
        self.memory = Memory(self.descriptor, slots, slot_bytes)
        self._free = list(range(slots))  # a heap: what was used is used again
        self._kept = KEPT_BYTES // slot_bytes

    @property
    def free(self) -> int:
        """Count those that nobody has."""
        return len(self._free)

    def take(self) -> int | None:
        """Take one, if there is one."""
        return heapq.heappop(self._free) if self._free else None

    def give(self, slot: int) -> None:
        """Give one back."""
        heapq.heappush(self._free, slot)
        if slot >= self._kept:
            self.memory.drop(slot)

    def close(self) -> None:
        """Let go of the descriptor; what is mapped stays until the end of the process."""
        os.close(self.descriptor)
