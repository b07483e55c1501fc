"""A real API server takes what the chart renders, and grants what the operator needs."""

import json
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import components, gobuild
from cluster.definitions import await_established
from yolofleet.api.detector import Detector
from yolofleet.resources.pod_monitor import pod_monitor

pytestmark = pytest.mark.controlplane

KINDS = "example/prometheus-operator-crd/monitoring.coreos.com_{}.yaml"
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
def installed(restricted: Kubectl, chart: Any, await_right: Callable[..., None]) -> Kubectl:
    """The chart's CRD and roles, applied and heard of."""
    manifests = chart.render()
    chosen = [m for m in manifests if "Role" in m["kind"] or "Custom" in m["kind"]]
    done = restricted("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(chosen))
    assert done.returncode == 0, done.stderr
    await_established(
        lambda: restricted("get", "crd/yolodetectors.yolofleet.io", "-o", "json").stdout
    )
    await_right(OPERATOR, "create deployments.apps", "cameras")
    await_right(OPERATOR, "create leases.coordination.k8s.io", "platform")
    return restricted


def test_the_definition_is_stored_as_it_is_rendered(installed, chart):
    """What compares the two, as Argo CD does, would never be done with a field that is dropped."""
    found = installed("get", "crd/yolodetectors.yolofleet.io", "-o", "json")
    stored = json.loads(found.stdout)
    rendered = chart.one("CustomResourceDefinition", "yolodetectors.yolofleet.io")
    assert list(lost(rendered, stored)) == []


def lost(rendered: Any, stored: Any, path: str = "") -> Iterator[str]:
    """Name what is not stored as it was given."""
    if isinstance(rendered, dict) and isinstance(stored, dict):
        for name, value in rendered.items():
            yield from lost(value, stored.get(name), f"{path}.{name}")
    elif isinstance(rendered, list) and isinstance(stored, list) and len(rendered) == len(stored):
        for index, (value, kept) in enumerate(zip(rendered, stored, strict=True)):
            yield from lost(value, kept, f"{path}[{index}]")
    elif rendered != stored:
        yield path


def told(kubectl: Kubectl, crd: str) -> str:
    return kubectl("get", "-f", crd, "-o", "json").stdout


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


def test_the_prometheus_operator_s_own_kinds_take_what_is_made_for_it(installed, chart):
    """Its CRDs as its module has them: a field that they do not know is an error."""
    source = gobuild.source(components.PROMETHEUS_OPERATOR)
    for kind in ("servicemonitors", "podmonitors", "prometheusrules"):
        crd = str(source / KINDS.format(kind))
        done = installed("apply", "--server-side", "-f", crd)
        assert done.returncode == 0, done.stderr
        await_established(partial(told, installed, crd))
    labels = {"release": "kube-prometheus-stack"}
    on = {"enabled": True, "labels": labels}
    made = [
        each
        for each in chart.render(metrics={"serviceMonitor": on, "rules": on})
        if each["apiVersion"].startswith("monitoring.coreos.com/")
    ]
    example = yaml.safe_load((EXAMPLES / "yolodetector.yaml").read_text())
    example["metadata"] |= {"namespace": "cameras", "uid": "0-1", "generation": 1}
    on_ray = {"gate-12345678": "server-metrics"}
    made.append(pod_monitor(Detector.parse(example), labels, on_ray))
    assert {each["kind"] for each in made} == {"ServiceMonitor", "PrometheusRule", "PodMonitor"}
    strict = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
    done = installed(*strict, stdin=yaml.safe_dump_all(made))
    assert (done.returncode, done.stderr) == (0, "")
    made[-1]["spec"]["podMetricsEndpoints"][0]["labels"] = labels
    done = installed(*strict, stdin=yaml.safe_dump(made[-1]))
    assert "not declared in schema" in done.stderr, "nothing is checked"
