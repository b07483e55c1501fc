"""A Docker engine that answers: found, started or installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from cluster import runc_shim
from cluster.errors import NotPossibleHere, StepFailed
from cluster.paths import HERE
from cluster.steps import again, log_path, output, run, say, step

PACKAGES = ("docker.io", "debootstrap", "iptables", "ca-certificates")
SHIM = Path("/usr/local/bin/yolofleet-runc-shim")
PID_FILE = Path("/var/run/docker.pid")
START_S = 180  # of a slow machine, while it boots
LOCK_S = 300  # a new machine may be busy updating itself
_started: list[subprocess.Popen[bytes]] = []
"""It runs on when we are done: one that nobody holds any more warns that it still runs."""


def answers() -> bool:
    """Return whether a daemon is there; the client alone says nothing."""
    return output(["docker", "version", "--format", "{{.Server.Version}}"]) is not None


def ensure() -> None:
    """Return with a daemon that answers, or say what a person has to do."""
    if answers():
        return
    if os.geteuid() != 0:
        raise NotPossibleHere(
            "No Docker engine answers. Start it (or install it), and see that `docker version`"
            " shows a Server. As root on Debian or Ubuntu this command does it itself."
        )
    if not shutil.which("dockerd"):
        install(PACKAGES)
    if not answers():  # where systemd runs, installing it started it
        start()


def install(packages: tuple[str, ...]) -> None:
    """Install Debian packages, as root."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise NotPossibleHere(
            f"Needed and not installed: {', '.join(packages)}. This command can install them only"
            " as root on Debian or Ubuntu."
        )
    apt = ("apt-get", "-o", f"DPkg::Lock::Timeout={LOCK_S}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}

    def update_and_install() -> None:
        # Always both: that a mirror does not answer is a mere warning of `update`, and shows when a
        # package is not found. Nobody waits for the lock on the lists, which has no timeout.
        run([*apt, "update"], log="apt", env=quiet)
        run([*apt, "install", "-y", "--no-install-recommends", *packages], log="apt", env=quiet)

    with step(f"install {', '.join(packages)}"):
        again(update_and_install)


def start(*options: str) -> None:
    """Start a daemon, and return once it answers."""
    log = log_path("dockerd")
    command = ["dockerd", *_runtime_options(), *options]
    with step("start the Docker engine"), log.open("ab") as out:
        daemon = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
        _started.append(daemon)
        deadline = time.monotonic() + START_S
        while not answers():
            # While a machine boots, its own engine may be on its way: ours then finds its pid file.
            if daemon.poll() is not None and not PID_FILE.exists():
                raise StepFailed("dockerd", f"exit status {daemon.returncode}", log)
            if time.monotonic() > deadline:
                daemon.terminate()
                raise StepFailed("dockerd", f"no answer after {START_S} s", log)
            time.sleep(0.5)


def _runtime_options() -> list[str]:
    """Put the shim in front of runc only where a capability is missing."""
    here = runc_shim.allowed(Path("/proc/self/status").read_text())
    missing = {f"CAP_{name}" for name in runc_shim.CAPABILITIES} - here
    if not missing:
        return []
    say(f"    this host lacks {', '.join(sorted(missing))}: containers get a runtime without")
    # Not in the cache: the engine goes on needing it after a purge.
    shutil.copyfile(HERE / "runc_shim.py", SHIM)
    SHIM.chmod(0o755)
    return [f"--add-runtime=without-missing={SHIM}", "--default-runtime=without-missing"]


def has_image(reference: str) -> bool:
    """Return whether the daemon has this image."""
    return output(["docker", "image", "inspect", "--format", "{{.Id}}", reference]) is not None
