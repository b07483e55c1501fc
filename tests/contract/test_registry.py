"""The registry of our own: nothing of it outlives its user."""

import os
import select
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

USER = """
import pathlib, sys
from cluster import registry
registry.cache_root = lambda: pathlib.Path(sys.argv[1])  # whose registries are no other user's
with registry.serve(registry.LOOPBACK) as (address,):
    print(address, flush=True)
    sys.stdin.read()
"""


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.nightly  # compiles the registry where no release was ever made
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_registry_ends_and_leaves_nothing_however_its_user_ends(
    sent: signal.Signals, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", USER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as user:
        assert user.stdout
        address = user.stdout.readline().strip()
        with urllib.request.urlopen(f"http://{address}/v2/", timeout=60) as answer:
            assert answer.status == 200
        assert len(list((tmp_path / "registries").iterdir())) == 1
        [registry] = children(user.pid)
        end = os.pidfd_open(registry)
        user.send_signal(sent)
        assert select.select([end], [], [], 60)[0], "the registry still runs"
        os.close(end)
    assert not list((tmp_path / "registries").iterdir())
