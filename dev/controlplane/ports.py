"""Ports for programs that have to be told one: ours from now on, whoever else is about to listen.

What is found free and closed again may be taken by anybody in the moment before our program listens
there, and other test runs look for ports as we do. So each number is locked in a file that all of
them share, until this process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import secrets
import socket
import tempfile
from pathlib import Path
from typing import Final

_OURS: Final = range(10_000, 30_000)
"""Below the ports that the kernel lends to connections, which nobody could lock."""

_given: set[int] = set()  # a process is never refused a lock that it has itself


def reserve(count: int) -> list[int]:
    """Return ports that nobody listens on, and that nobody else is given while we live."""
    found: list[int] = []
    while len(found) < count:
        port = secrets.choice(_OURS)
        if port not in _given and _locked(port) and _free(port):
            _given.add(port)
            found.append(port)
    return found


def _locked(port: int) -> bool:
    with contextlib.suppress(OSError):
        fcntl.lockf(_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        return True
    return False


@functools.cache
def _locks() -> int:
    """Open the file whose bytes are the ports; closing any handle to it would end all locks."""
    path = Path(tempfile.gettempdir()) / f"yolofleet-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def _free(port: int) -> bool:
    with contextlib.suppress(OSError), socket.socket() as listening:
        listening.bind(("", port))
        return True
    return False
