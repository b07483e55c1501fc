"""Processes forked from one that has imported the operator: a start costs a tenth of its imports.

An operator's start is two seconds of a core, and tests start some hundreds.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from multiprocessing import connection
from pathlib import Path
from typing import Final

from kubernetes.config import kube_config

PATIENT_LEASE_S: Final = 3600
"""Of an operator in tests of something else than its Lease: a machine that gives it, or its API
server, no processor for ten seconds takes no leadership from it."""

_FORKS: Final = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["yolofleet.__main__"])


class Forked:
    """A process that runs a module's `main`, with what `subprocess.Popen` has of methods.

    patient: whether the operator in it has a Lease of PATIENT_LEASE_S.
    """

    def __init__(
        self, module: str, log: Path, environment: Mapping[str, str], *, patient: bool
    ) -> None:
        arguments = (module, str(log), dict(environment), patient)
        self._process = _FORKS.Process(target=_become, args=arguments)
        self._process.start()
        self._asking = threading.Lock()  # its exit status can be read once
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """Return the exit status, if it has ended."""
        with self._asking:
            return self._process.exitcode

    def wait(self, timeout: float) -> int:
        """Wait for its end and return the exit status. Raises `subprocess.TimeoutExpired`."""
        connection.wait([self._process.sentinel], timeout)  # others may ask meanwhile
        if (status := self.poll()) is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _become(module: str, log: str, environment: Mapping[str, str], patient: bool) -> None:
    """Do what an interpreter does that is told to run `module`."""
    to = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for stream in (1, 2):
        os.dup2(to, stream)
    os.close(to)
    os.environ.clear()
    os.environ.update(environment)
    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = environment["KUBECONFIG"]  # read at import
    if patient:
        _wait_long_for_the_lease()
    try:
        sys.exit(importlib.import_module(module).main())
    finally:
        gc.collect()  # what was never awaited is told of, as an interpreter does at its end


def _wait_long_for_the_lease() -> None:
    """Set what the product has of times, in `runtime/leader.py`, in the same proportions."""
    from yolofleet import __main__ as operator
    from yolofleet.runtime import leader

    vars(leader).update(LEASE_SECONDS=PATIENT_LEASE_S, RENEW_DEADLINE_S=PATIENT_LEASE_S / 2)
    vars(operator).update(REQUEST_TIMEOUT_S=PATIENT_LEASE_S / 4)
