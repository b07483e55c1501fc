"""The registry of our own: nothing of it outlives its user."""

import os
import select
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from cluster.paths import cache_root

USER = """
import sys
from cluster import registry
with registry.serve(registry.LOOPBACK) as (address,):
    print(address, flush=True)
    sys.stdin.read()
"""


def folders() -> set[Path]:
    return set((cache_root() / "registries").glob("*"))


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.nightly  # compiles the registry where no release was ever made
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_registry_ends_and_leaves_nothing_however_its_user_ends(sent: signal.Signals) -> None:
    before = folders()
    with subprocess.Popen(
        [sys.executable, "-c", USER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as user:
        assert user.stdout
        address = user.stdout.readline().strip()
        with urllib.request.urlopen(f"http://{address}/v2/", timeout=30) as answer:
            assert answer.status == 200
        assert len(folders() - before) == 1
        [registry] = children(user.pid)
        end = os.pidfd_open(registry)
        user.send_signal(sent)
        assert select.select([end], [], [], 60)[0], "the registry still runs"
        os.close(end)
    assert folders() == before
