"""Memory that a moment's work leaves behind."""

import ctypes


def give_back() -> None:
    """Return to the system what compiling took for a moment; glibc would keep it for ever."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # musl has none
        trim(0)
