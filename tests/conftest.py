"""What all tests share."""

import gc
import os
import signal
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# The same examples on every run: a release must not wait for luck. Campaigns draw at random.
# How long they take to draw is the machine's affair.
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("campaign", deadline=None, print_blob=True)
settings.load_profile("steady")


# API servers, etcd, kubectl and helm have small heaps, which Go collects all the time: some hundred
# MB more take a tenth less of the processors (see "Where the time goes").
os.environ.setdefault("GOGC", "300")


SEARCHES = 5_000, 10, 20
"""After so many new objects; of those that outlast it, after so many searches; and of these."""


def pytest_configure() -> None:
    """End at SIGTERM as at Ctrl-C: what fixtures started is taken down with us.

    A shell has what it starts with `&` ignore Ctrl-C, and so would all that we start.
    """
    if threading.current_thread() is threading.main_thread():
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.default_int_handler)
    gc.disable()  # all that collecting tests makes stays


def pytest_collection_finish() -> None:
    """Leave all tests out of every search for garbage, and search less often.

    They were looked through again and again, for a seventh of what the tests computed.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*SEARCHES)
    gc.enable()


SHARED = {"e2e", "faults", "operator", "chart"}
"""Folders whose tests share what takes long to make: a cluster, a control plane."""

APART = {"tests/faults/test_servers.py"}
"""Files of these that have one of their own: they break it for all others."""

BY_TRACE = "tests/memory/test_every_write.py"
"""Computes for longer than any other file; its tests share what a trace does without a fault."""


def group_of(nodeid: str) -> str:
    """Return what has to run in one process with the test `nodeid`: its folder, or its file."""
    file = nodeid.partition("::")[0]
    if file == BY_TRACE:
        return file + nodeid[nodeid.rfind("-") :]
    folder = file.split("/")[1]
    return folder if folder in SHARED and file not in APART else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep groups together where several processes run them, as `make test` does.

    Not by pytest-xdist's markers: since pytest 9 it cannot write them into the names of tests.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Groups(config, log)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a test by none of its bytes: an archive holds its time, and workers want one name."""
    return argname if isinstance(val, bytes) else None
