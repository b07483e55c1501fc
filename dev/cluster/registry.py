"""A container registry on this machine, for as long as somebody uses it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from cluster import components
from cluster.errors import StepFailed
from cluster.paths import cache_root
from cluster.steps import log_path

LOOPBACK = "127.0.0.1"
END_S = 180


@contextmanager
def serve(*hosts: str) -> Iterator[tuple[str, ...]]:
    """Serve an empty registry on these addresses of this machine; yield HOST:PORT of each.

    Plain HTTP, and anybody who reaches the address may write. It goes with this process, also with
    one that is killed, and so does what was pushed to it.
    """
    program = components.registry()
    folder = cache_root() / "registries"
    folder.mkdir(parents=True, exist_ok=True)
    log = log_path("registry")
    with (
        log.open("ab") as told,
        subprocess.Popen(
            [program, folder, *hosts],
            stdin=subprocess.PIPE,  # its end is the registry's end
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
        ) as process,
    ):
        assert process.stdin
        assert process.stdout
        addresses = tuple(process.stdout.readline().strip() for _ in hosts)
        if not all(addresses):
            raise StepFailed(str(program), "did not listen", log)
        try:
            yield addresses
        finally:
            process.stdin.close()
            process.wait(END_S)
