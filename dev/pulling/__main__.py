"""`make pull-walk`: `make demo` on a machine that pulls, without Go and without what was built.

Everything that it pulls is built here first, and served under its public names to an engine of its
own. That lives in namespaces (mounts, network, processes), and is gone with its images when this
ends, also by SIGKILL; the machine's own files, engine and rules are not touched. Needs root, and
what the build way needs.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cluster import engine, pulled, registry
from cluster.debian import HOST_CERTIFICATES
from cluster.errors import ClusterError, StepFailed
from cluster.mode import Facts, Mode, decide
from cluster.paths import REPOSITORY, cache_root
from cluster.steps import log_path
from pulling import own_engine, served

LOOPBACK: Final = registry.LOOPBACK
DIES_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL", "--")
READY_S: Final = 120


def main() -> int:
    """Walk; return the exit status of the demo."""
    try:
        _requires()
        with scratch() as folder, registry.serve(LOOPBACK) as (address,):
            served.push(served.images(), address)
            files = folder / "sites"
            files.mkdir()
            served.files(files)
            with served.serve(files, LOOPBACK) as site:
                port = int(address.rpartition(":")[2])
                status = walk(folder, registry_port=port, site=site)
    except ClusterError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    print("\nThat cluster, its engine and its images are gone: they were the walk's own.")
    return status


def _requires() -> None:
    engine.ensure()
    decide(Facts(wish=Mode.BUILD, pulls=False, go=True, root=os.geteuid() == 0))
    if not _has("slirp4netns"):
        engine.install(("slirp4netns",))


def _has(program: str) -> bool:
    return any((Path(folder) / program).exists() for folder in own_engine.PATH.split(":"))


@contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder. A shell deletes it when this process ends, in whatever way."""
    parent = cache_root() / "pulling"
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent))
    # The engine's mounts in it go with the last of its processes, a moment later.
    gone = f"until rm -rf {shlex.quote(str(folder))}; do sleep 1; done"
    with (
        log_path("pulling").open("ab") as log,
        subprocess.Popen(
            ["sh", "-c", f"cat > /dev/null; {gone}"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a terminal's Ctrl-C is not for it
        ),
    ):
        yield folder


def walk(folder: Path, *, registry_port: int, site: served.Site) -> int:
    """Run the demo beside an engine of its own; return its exit status."""
    trusted = folder / "trusted.pem"
    trusted.write_bytes(HOST_CERTIFICATES.read_bytes() + site.authority)
    environment = {
        **os.environ,
        "HOME": str(folder),
        "YOLOFLEET_CACHE": str(folder / "cache"),
        "SSL_CERT_FILE": str(trusted),
        pulled.VARIABLE: served.NODE,
    }
    inside = subprocess.Popen(
        [
            *DIES_WITH_US,
            *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("--", sys.executable, "-m", "pulling.own_engine", str(folder)),
            *("--registry-port", str(registry_port), "--site-port", str(site.port), "--"),
            *(sys.executable, "-m", "demo_cluster"),
        ],
        stdin=subprocess.PIPE,
        env=environment,
        cwd=REPOSITORY,
        text=True,
    )
    with inside:
        try:
            with network(inside.pid):
                assert inside.stdin
                inside.stdin.write("ready\n")
                inside.stdin.close()
                return inside.wait()
        finally:
            inside.kill()


@contextmanager
def network(pid: int) -> Iterator[None]:
    """Give the network namespace of `pid` a way out, through a process that only forwards."""
    _wait_for_a_namespace(pid)
    ready, tell = os.pipe()
    with (
        log_path("pulling").open("ab") as log,
        subprocess.Popen(
            [
                *DIES_WITH_US,
                *("slirp4netns", "--configure", "--mtu=65520", f"--ready-fd={tell}"),
                *("--netns-type=path", f"/proc/{pid}/ns/net", "tap0"),
            ],
            stdout=log,
            stderr=log,
            pass_fds=(tell,),
        ) as process,
    ):
        os.close(tell)
        with os.fdopen(ready, "rb") as told:
            if not told.read(1):
                raise StepFailed("slirp4netns", "ended", log_path("pulling"))
        try:
            yield
        finally:
            process.terminate()


def _wait_for_a_namespace(pid: int) -> None:
    """Return when `pid` has left this network: until then, ours would be changed."""
    deadline = time.monotonic() + READY_S
    while os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        if time.monotonic() > deadline:
            raise StepFailed("unshare", f"no namespace after {READY_S} s", log_path("pulling"))
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
