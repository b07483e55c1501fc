"""Starts servers by forking: a server's start is three seconds of imports, and tests start many.

`python zygote.py PACKAGE ...` imports these and listens on file descriptor 0, a socket. Each
message is JSON, {"module": str, "environment": {...}}, with two descriptors: the stderr of a new
process that runs `main` of that module, and where to tell its pid and then its exit status, a line
each. It ends when nobody holds the other end of its socket.
"""

import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
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
                os.write(status, b"%d\n" % pid)
                os.close(stderr)  # or nobody would read its end
                _, ended = os.waitpid(pid, 0)
                os.write(status, b"%d\n" % os.waitstatus_to_exitcode(ended))
                os._exit(0)
            for fd in fds:
                os.close(fd)


def become(stderr: int, module: str, environment: dict[str, str]) -> Callable[[], Any]:
    """Make this process what an interpreter is that is told to run `module`."""
    os.dup2(stderr, 2)
    os.close(stderr)
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = [module, "serve"]
    program = importlib.import_module(f"{module}.__main__")
    return program.main


if __name__ == "__main__":
    for name in sys.argv[1:]:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if main := forked():
        sys.exit(main())
