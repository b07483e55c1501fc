"""Starts servers by forking: a server's start is three seconds of imports, and tests start many.

`python zygote.py PACKAGE ...` imports these and listens on file descriptor 0, a socket. Each
message is JSON, {"module": str, "anew": bool, "environment": {...}}, with two descriptors: the
stderr of a new process that runs `main` of that module, and where to tell its pid and then its exit
status, a line each. anew: in an interpreter of its own, as users start it.

It ends when nobody holds the other end of its socket, and such a process when nobody would read its
exit status: tests that are killed leave nothing behind.
"""

import importlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

MOST = 2**20  # bytes of a message


def forked() -> Callable[[], Any] | None:
    """Fork for each message; return in the new process with what it is to do, else at the end."""
    with socket.socket(fileno=0) as asked:
        while True:
            message, fds, _, _ = socket.recv_fds(asked, MOST, 2)
            if not message:
                return None
            if os.fork() == 0:  # it waits for the process, and is waited for by nobody
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                stderr, status = fds
                if (pid := os.fork()) == 0:
                    os.close(status)
                    asked.detach()
                    return become(stderr, **json.loads(message))
                os.close(stderr)  # or nobody would read its end
                report(status, pid)
                report(status, exit_status(pid, status))
                os._exit(0)
            for fd in fds:
                os.close(fd)


def report(status: int, number: int) -> None:
    """Write a number to whoever still reads."""
    with suppress(BrokenPipeError):
        os.write(status, b"%d\n" % number)


def exit_status(pid: int, status: int) -> int:
    """Wait for the end of a process; end it once nobody can read of that any more."""
    awaited = select.poll()
    awaited.register(os.pidfd_open(pid), select.POLLIN)
    awaited.register(status, 0)  # of a pipe that is written to, its reader's end is told anyway
    if status in dict(awaited.poll()):
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def become(stderr: int, module: str, anew: bool, environment: dict[str, str]) -> Callable[[], Any]:
    """Make this process what an interpreter is that is told to run `module`."""
    os.dup2(stderr, 2)
    os.close(stderr)
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if anew:
        os.execve(sys.executable, [sys.executable, "-m", module, "serve"], environment)
    sys.argv = [module, "serve"]
    program = importlib.import_module(f"{module}.__main__")
    return program.main


if __name__ == "__main__":
    for name in sys.argv[1:]:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if main := forked():
        sys.exit(main())
