"""A Service of the cluster on a port of this machine, without any ingress."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from demo_cluster.errors import KubectlFailed
from demo_cluster.kube import Kubectl
from demo_cluster.load import Target


@contextmanager
def forwarded(kubectl: Kubectl, service: str, *, port: int = 80) -> Iterator[Target]:
    """Lead a free local port to one pod of a Service, as `kubectl port-forward` does."""
    process = subprocess.Popen(
        kubectl.command("port-forward", f"service/{service}", f":{port}"),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    with process.stdout as said:
        try:
            line = said.readline()
            local = re.search(r"127\.0\.0\.1:(\d+)", line)
            if not local:
                raise KubectlFailed(f"kubectl port-forward service/{service} said {line!r}")
            yield Target(f"http://127.0.0.1:{local[1]}", service)
        finally:
            process.terminate()
            process.wait(10)
