"""Releases of the chart beside each other, on a real API server: what helm is told of the first."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controlplane.plane import ControlPlane

pytestmark = pytest.mark.controlplane

Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@dataclass
class Cluster:
    """A cluster to install releases of the chart in."""

    chart: Any
    kubeconfig: Path
    run: Kubectl

    def install(self, name: str, namespace: str, **values: Any) -> None:
        self.chart.install(name, namespace, self.kubeconfig, **values)

    def refused(self, name: str, namespace: str, **values: Any) -> str:
        with pytest.raises(self.chart.Refused) as refusal:
            self.install(name, namespace, **values)
        return str(refusal.value)

    def kubectl(self, *arguments: str) -> None:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def cluster(chart: Any, plane: ControlPlane, kubectl: Kubectl, cleared: None) -> Cluster:
    return Cluster(chart, plane.kubeconfig(), kubectl)


FLEET = "system:serviceaccount:one:fleet-yolofleet"
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
    """Its webhook alone would be: nobody answers it."""
    cluster.install("fleet", "leaving", webhook={"enabled": True})
    cluster.kubectl("delete", "namespace", "leaving", "--wait=false")
    told = cluster.refused("second", "two", **BESIDE)
    [command] = [line for line in told.splitlines() if "kubectl" in line]
    cluster.kubectl(*command.split()[1:])
    cluster.install("second", "two", **BESIDE)


def test_a_namespace_that_is_not_there_is_told_before_rights_are_cut(cluster: Cluster) -> None:
    cluster.install("fleet", "one")
    told = cluster.refused("fleet", "one", watchNamespaces=["one", "typo"])
    assert "watchNamespaces: there is no namespace typo" in told
    done = cluster.run("auth", "can-i", "list", "pods", "-A", "--as", FLEET)
    assert done.stdout.strip() == "yes", done.stderr
    cluster.install("fleet", "one", watchNamespaces=["one"])
    cluster.install("second", "yet-to-come", **BESIDE, watchNamespaces=["yet-to-come"])


def test_an_older_chart_can_leave_the_newer_definition_in_place(cluster: Cluster) -> None:
    cluster.install("fleet", "one")
    cluster.install("fleet", "one", **BESIDE)
    cluster.kubectl("get", "crd/yolodetectors.yolofleet.io")
    cluster.install("fleet", "one")
