"""How Python lives with a large cache: when it looks for garbage, and what it gives back."""

import ctypes
import gc
import sys


def spare_the_old() -> None:
    """Keep the garbage collector from looking through all that is cached whenever that grows."""
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, sys.maxsize >> 32)


def give_back_memory() -> None:
    """Look for garbage among what is old, and return to the system what lists took for a moment.

    glibc would keep that for ever.
    """
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # musl has none
        trim(0)
