"""kubectl and helm, pointed at this cluster and never at the one a person's KUBECONFIG names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.paths import tools
from cluster.steps import output, run, step


def kubectl(*arguments: str, stdin: bytes | None = None) -> None:
    """Run kubectl; raise StepFailed if it fails."""
    run(_kubectl(arguments), log="kubectl", stdin=stdin)


def kubectl_output(*arguments: str) -> str | None:
    """Return what kubectl prints, or None if it fails."""
    return output(_kubectl(arguments), timeout_s=15)


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
    with step(f"install {release}"):
        # A killed helm leaves its release "pending" for ever, and the next one refuses to go on.
        if '"pending-' in (output([helm, "status", release, *there, "-o", "json"]) or ""):
            run([helm, "uninstall", release, *there, "--wait"], log="helm")
        run(command, log="helm")
