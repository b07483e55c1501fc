"""kubectl and helm, pointed at this cluster and never at the one a person's KUBECONFIG names."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from cluster.definitions import await_established
from cluster.errors import StepFailed
from cluster.paths import tools
from cluster.steps import output, run, say, step

# How kubectl and helm word that the connection was lost: it says nothing of what was asked for.
LOST: Final = re.compile(
    r"\bEOF\b|connection re(set|fused)|connection to the server \S+ was refused|i/o timeout"
    r"|Unable to connect to the server|client connection lost|TLS handshake timeout|broken pipe"
    r"|etcdserver: (leader changed|request timed out)|server is (currently unable|not ready)"
    r"|apiserver is shutting down|GOAWAY|Client\.Timeout exceeded"
    r"|unable to return a response in the time allotted"
)
HOOK: Final = "failed calling webhook"  # it was reached, and somebody else was not
TRIES: Final = 4
PAUSE_S: Final = 1.0
BACK_S: Final = 120  # a control plane's pod that its kubelet starts again is there by then


def kubectl(*arguments: str, stdin: bytes | None = None) -> None:
    """Run kubectl; raise StepFailed if it fails."""
    outlasting(lambda: run(_kubectl(arguments), log="kubectl", stdin=stdin))


def kubectl_output(*arguments: str) -> str | None:
    """Return what kubectl prints, or None if it fails."""
    return output(_kubectl(arguments), timeout_s=15)


def await_definitions() -> None:
    """Wait until all custom resource definitions are established."""
    await_established(lambda: kubectl_output("get", "crd", "-o", "json") or '{"items": []}')


def answers() -> bool:
    """Return whether the cluster's API server says that it is ready."""
    return tools().kubectl.exists() and kubectl_output("get", "--raw=/readyz") == "ok"


def lost(text: str) -> bool:
    """Return whether kubectl or helm says in `text` that the API server went away meanwhile."""
    return HOOK not in text and LOST.search(text) is not None


def wait_until_back() -> None:
    """Return when the API server answers again, or has had its time to."""
    time.sleep(PAUSE_S)
    until = time.monotonic() + BACK_S
    while not answers() and time.monotonic() < until:
        time.sleep(PAUSE_S)


def outlasting(command: Callable[[], None]) -> None:
    """Run `command`, which may be repeated, again where the API server went away meanwhile.

    That of a new node does so on a slow machine: its kubelet misses an answer and restarts it.
    """
    for _ in range(TRIES - 1):
        try:
            return command()
        except StepFailed as failure:
            if not lost(failure.told):
                raise
        say(" the connection to the API server was lost: again …")
        wait_until_back()
    return command()


def _kubectl(arguments: Sequence[str]) -> list[str]:
    return [str(tools().kubectl), "--kubeconfig", str(tools().kubeconfig), *arguments]


def helm_install(
    release: str,
    chart: Sequence[str],
    *,
    namespace: str,
    values: Sequence[Path],
    settings: Mapping[str, str],
) -> None:
    """Install or upgrade a release and wait until its pods are ready."""
    there = ("--kubeconfig", str(tools().kubeconfig), "--namespace", namespace)
    helm = str(tools().helm)
    command = [
        *(helm, "upgrade", "--install", release, *chart, *there),
        *("--create-namespace", "--wait", "--timeout", "10m"),
        *(word for path in values for word in ("--values", str(path))),
        *(word for name, value in settings.items() for word in ("--set-string", f"{name}={value}")),
    ]

    def install() -> None:
        # A killed helm leaves its release "pending" for ever, and the next one refuses to go on.
        if '"pending-' in (output([helm, "status", release, *there, "-o", "json"]) or ""):
            run([helm, "uninstall", release, *there, "--wait"], log="helm")
        run(command, log="helm")

    with step(f"install {release}"):
        outlasting(install)
