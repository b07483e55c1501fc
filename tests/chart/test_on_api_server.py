"""A real API server takes what the chart renders, and grants what the operator needs."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.controlplane

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
OPERATOR = "system:serviceaccount:platform:fleet-yolofleet"
RESTRICTED = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/warn": "restricted",
}

Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def restricted(kubectl: Kubectl, module_cleared: None) -> Kubectl:
    """kubectl, with three namespaces that hold pods to the restricted standard."""
    namespaces = [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": RESTRICTED},
        }
        for name in ("platform", "cameras", "labs")
    ]
    done = kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(namespaces))
    assert done.returncode == 0, done.stderr
    return kubectl


@pytest.fixture(scope="module")
def installed(restricted: Kubectl, chart: Any) -> Kubectl:
    """The chart's CRD and roles, applied."""
    manifests = chart.render()
    chosen = [m for m in manifests if "Role" in m["kind"] or "Custom" in m["kind"]]
    done = restricted("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(chosen))
    assert done.returncode == 0, done.stderr
    crd = "crd/yolodetectors.yolofleet.io"
    done = restricted("wait", crd, "--for=condition=Established", "--timeout=120s")
    assert done.returncode == 0, done.stderr
    return restricted


def test_everything_rendered_is_valid_and_warns_of_nothing(restricted, chart, values):
    done = restricted(
        *("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict"),
        *("-f", "-"),
        stdin=chart.text(**values),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("namespace", "right"),
    [
        ("cameras", "list yolodetectors.yolofleet.io"),
        ("cameras", "patch yolodetectors.yolofleet.io --subresource=status"),
        ("cameras", "create deployments.apps"),
        ("cameras", "patch deployments.apps"),
        ("cameras", "create controllerrevisions.apps"),
        ("cameras", "delete controllerrevisions.apps"),
        ("cameras", "delete services"),
        ("cameras", "create serviceaccounts"),
        ("cameras", "patch networkpolicies.networking.k8s.io"),
        ("cameras", "create events"),
        ("cameras", "list events"),
        ("platform", "create leases.coordination.k8s.io"),
        ("platform", "update leases.coordination.k8s.io/fleet-yolofleet"),
    ],
)
def test_the_operator_may(installed, namespace, right):
    done = installed("auth", "can-i", *right.split(), "-n", namespace, "--as", OPERATOR)
    assert done.stdout.strip() == "yes", done.stderr


@pytest.mark.parametrize(
    ("namespace", "right"),
    [
        ("cameras", "patch yolodetectors.yolofleet.io"),
        ("cameras", "delete yolodetectors.yolofleet.io"),
        ("cameras", "get secrets"),
        ("cameras", "create pods"),
        ("cameras", "create pods --subresource=exec"),
        ("cameras", "update leases.coordination.k8s.io/fleet-yolofleet"),
        ("platform", "update leases.coordination.k8s.io/another"),
        ("cameras", "create serviceaccounts --subresource=token"),
        ("cameras", "create rolebindings.rbac.authorization.k8s.io"),
    ],
)
def test_the_operator_may_not(installed, namespace, right):
    done = installed("auth", "can-i", *right.split(), "-n", namespace, "--as", OPERATOR)
    assert done.stdout.strip() == "no", done.stderr


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.name)
def test_an_example_is_accepted(installed, file):
    done = installed(
        "apply", "-n", "cameras", "--dry-run=server", "--validate=strict", "-f", str(file)
    )
    assert done.returncode == 0, done.stderr


def test_the_detector_in_the_notes_is_accepted(installed, chart, tmp_path):
    notes = chart.notes(tmp_path, watchNamespaces=["cameras"])
    [manifest] = [part.split("YAML\n")[0] for part in notes.split("<<'YAML'\n")[1:]]
    done = installed("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=manifest)
    assert done.returncode == 0, done.stderr
