"""Ports for the programs of tests: nobody else is given one of ours."""

import os
import subprocess
import sys
from pathlib import Path

from controlplane import ports

DEV = Path(__file__).resolve().parents[2] / "dev"


def elsewhere(script: str) -> str:
    """Return what another process prints."""
    command = [sys.executable, "-c", f"from controlplane import ports; {script}"]
    environment = os.environ | {"PYTHONPATH": str(DEV)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_no_port_is_given_twice() -> None:
    found = ports.reserve(30) + ports.reserve(30)
    assert len(set(found)) == 60


def test_a_port_is_ours_as_long_as_we_live_and_another_process_is_given_others() -> None:
    [ours] = ports.reserve(1)
    tried = f"tried = iter([{ours}, *range(20_000, 30_000)])"
    choose = "ports.secrets.choice = lambda _: next(tried)"
    theirs = int(elsewhere(f"{tried}; {choose}; print(*ports.reserve(1))"))
    assert theirs != ours
    assert ports._locked(theirs), "it has ended, and so has its lock"
