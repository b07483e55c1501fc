"""A real API server takes what the chart renders, and grants what the operator needs."""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import assets
from controlplane.plane import ControlPlane, control_plane

pytestmark = pytest.mark.controlplane

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
OPERATOR = "system:serviceaccount:platform:fleet-yolofleet"
RESTRICTED = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/warn": "restricted",
}

Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with control_plane(assets.directory()) as plane:
        yield plane


@pytest.fixture(scope="module")
def kubectl(plane: ControlPlane) -> Kubectl:
    """kubectl as an admin, with three namespaces that hold pods to the restricted standard."""

    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        program = str(assets.directory() / "kubectl")
        return subprocess.run(
            [program, "--kubeconfig", str(plane.kubeconfig()), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    namespaces = [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": RESTRICTED},
        }
        for name in ("platform", "cameras", "labs")
    ]
    done = run("apply", "-f", "-", stdin=yaml.safe_dump_all(namespaces))
    assert done.returncode == 0, done.stderr
    return run


@pytest.fixture(scope="module")
def installed(kubectl: Kubectl, chart: Any) -> Kubectl:
    """The chart's CRD and roles, applied."""
    manifests = chart.render()
    chosen = [m for m in manifests if "Role" in m["kind"] or "Custom" in m["kind"]]
    done = kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(chosen))
    assert done.returncode == 0, done.stderr
    crd = "crd/yolodetectors.yolofleet.io"
    done = kubectl("wait", crd, "--for=condition=Established", "--timeout=30s")
    assert done.returncode == 0, done.stderr
    return kubectl


def test_everything_rendered_is_valid_and_warns_of_nothing(kubectl, chart, values):
    done = kubectl(
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


@dataclass
class Cluster:
    """A cluster to install releases of the chart in."""

    chart: Any
    kubeconfig: Path

    def install(self, name: str, namespace: str, **values: Any) -> None:
        self.chart.install(name, namespace, self.kubeconfig, **values)

    def refused(self, name: str, namespace: str, **values: Any) -> str:
        with pytest.raises(self.chart.Refused) as refusal:
            self.install(name, namespace, **values)
        return str(refusal.value)

    def kubectl(self, *arguments: str) -> None:
        program = str(assets.directory() / "kubectl")
        command = [program, "--kubeconfig", str(self.kubeconfig), *arguments]
        subprocess.run(command, capture_output=True, timeout=60, check=True)


@pytest.fixture
def cluster(chart: Any) -> Iterator[Cluster]:
    with control_plane(assets.directory()) as plane:
        yield Cluster(chart, plane.kubeconfig())


BESIDE: Any = {"crds": {"enabled": False}}


def test_a_second_release_works_beside_the_first_or_is_told_what_to_do(cluster: Cluster) -> None:
    """Helm said that an object "cannot be imported", or two operators undid each other's work."""
    cluster.install("fleet", "one")
    told = cluster.refused("second", "two")
    assert "belongs to the release fleet in namespace one" in told
    assert "set crds.enabled=false" in told
    assert "release-name=second meta.helm.sh/release-namespace=two" in told
    taken = "would be looked after by this release and by the release fleet in namespace one"
    assert f"watchNamespaces: * {taken}" in cluster.refused("second", "two", **BESIDE)
    two = BESIDE | {"watchNamespaces": ["two"]}
    assert f"watchNamespaces: two {taken}" in cluster.refused("second", "two", **two)

    cluster.install("fleet", "one", watchNamespaces=["one"])
    assert "Choose another release name, or set fullnameO" in cluster.refused("fleet", "two", **two)
    for webhook in (True, False):
        cluster.install("second", "two", **two, webhook={"enabled": webhook})
    both = BESIDE | {"watchNamespaces": ["one", "two"]}
    assert f"watchNamespaces: one {taken}" in cluster.refused("second", "two", **both)
    assert "watchNamespaces: * would be looked" in cluster.refused(
        "fleet", "one", watchNamespaces=[]
    )


def test_releases_that_fight_already_can_be_told_to_give_way(cluster: Cluster) -> None:
    """As they can be by a chart that did not look, and left no note of what it looks after."""
    cluster.install("fleet", "one", watchNamespaces=["one"])
    cluster.install("second", "two", **BESIDE, watchNamespaces=["two"])
    for name in ("fleet", "second"):
        role = f"clusterrole/{name}-yolofleet"
        cluster.kubectl("annotate", role, "yolofleet.io/watch-namespaces-")
    assert "(it has *)" in cluster.refused("third", "three", **BESIDE, watchNamespaces=["three"])
    cluster.install("fleet", "one", watchNamespaces=["one"])
    cluster.install("second", "two", **BESIDE, watchNamespaces=["two"])
    cluster.install("third", "three", **BESIDE, watchNamespaces=["three"])


def test_a_release_whose_namespace_is_gone_is_in_nobodys_way(cluster: Cluster) -> None:
    cluster.install("fleet", "one")
    cluster.kubectl("delete", "namespace", "one", "--wait=false")
    cluster.install("second", "two", **BESIDE)
