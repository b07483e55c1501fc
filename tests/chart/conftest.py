"""The chart as helm renders it, and one API server that takes it, for all tests of this folder."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import assets, components
from cluster.paths import tools
from controlplane.kube import PATIENCE_S
from controlplane.plane import ControlPlane, control_plane
from release import chart as packing

HERE = Path(__file__).parent
CHART = HERE.parents[1] / "charts" / "yolofleet"

Manifest = dict[str, Any]
Kubectl = Callable[..., subprocess.CompletedProcess[str]]

OF_A_RELEASE = (
    "clusterrole,clusterrolebinding,validatingwebhookconfiguration,role,rolebinding,deployment,"
    "service,serviceaccount,configmap,secret,poddisruptionbudget,networkpolicy"
)


class Refused(Exception):
    """What helm said instead of rendering."""


class Chart:
    """The chart, rendered with other values."""

    Refused = Refused

    def __init__(self, helm: str, folder: Path = CHART) -> None:
        self._helm = helm
        self.folder = folder
        self._said: dict[str, str] = {}  # helm takes half a second, and many tests ask the same

    def lint(self, **values: Any) -> str:
        return self._run("lint", "--strict", str(self.folder), "--values", "-", values=values)

    def text(self, *arguments: str, release: str = "fleet", **values: Any) -> str:
        """Return what `helm template` prints for a release in namespace `platform`."""
        chart = str(self.folder)
        command = ("template", release, chart, "--namespace", "platform", "--values", "-")
        return self._run(*command, *arguments, values=values)

    def render(self, *arguments: str, **values: Any) -> list[Manifest]:
        text = self.text(*arguments, **values)
        return [m for m in yaml.load_all(text, Loader=yaml.CSafeLoader) if m is not None]

    def one(self, kind: str, name: str = "fleet-yolofleet", **values: Any) -> Manifest:
        [found] = [
            m for m in self.render(**values) if m["kind"] == kind and m["metadata"]["name"] == name
        ]
        return found

    def as_released(self, folder: Path, **metadata: Any) -> "Chart":
        """Return the chart as `make release` packs it: with another Chart.yaml."""
        copy = shutil.copytree(self.folder, folder / "released")
        written = packing.metadata((self.folder / "Chart.yaml").read_text(), **metadata)
        (copy / "Chart.yaml").write_text(yaml.safe_dump(written))
        return Chart(self._helm, copy)

    def notes(self, folder: Path, **values: Any) -> str:
        """Return what a person is told after `helm install`; `helm template` leaves that out."""
        copy = shutil.copytree(self.folder, folder / "chart")
        notes = copy / "templates" / "NOTES.txt"
        define = '{{- define "notes" }}' + notes.read_text() + "{{- end }}"
        (copy / "templates" / "_notes.tpl").write_text(define)
        (copy / "templates" / "notes.yaml").write_text('notes: {{ include "notes" . | quote }}')
        command = ("template", "fleet", str(copy), "--namespace", "platform", "--values", "-")
        text = self._run(*command, "--show-only", "templates/notes.yaml", values=values)
        return str(yaml.safe_load(text)["notes"])

    def install(self, release: str, namespace: str, kubeconfig: Path, **values: Any) -> None:
        """Install or upgrade a release, without waiting for its pods."""
        done = subprocess.run(
            [
                *(self._helm, "--kubeconfig", kubeconfig, "upgrade", "--install", release),
                *(self.folder, "--namespace", namespace, "--create-namespace", "--values", "-"),
            ],
            input=yaml.safe_dump(values),
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        if done.returncode:
            raise Refused(done.stdout + done.stderr)

    def _run(self, *arguments: str, values: dict[str, Any]) -> str:
        text = yaml.safe_dump(values)
        question = repr((arguments, text))
        if question not in self._said:
            done = subprocess.run(
                [self._helm, *arguments],
                input=text,
                capture_output=True,
                text=True,
                timeout=180,
                check=False,
            )
            if done.returncode:
                raise Refused(done.stdout + done.stderr)
            self._said[question] = done.stdout
        return self._said[question]


@pytest.fixture(scope="session")
def chart() -> Chart:
    """The chart; helm is the cluster's, or the machine's, or compiled once."""
    found = str(tools().helm) if tools().helm.exists() else shutil.which("helm")
    return Chart(found or str(components.helm()))


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """An API server and no controllers; each module leaves it without releases (`cleared`)."""
    with control_plane(assets.directory(), controllers=False) as plane:
        yield plane


@pytest.fixture(scope="session")
def kubectl(plane: ControlPlane) -> Kubectl:
    """kubectl as an admin."""

    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        program = str(assets.directory() / "kubectl")
        return subprocess.run(
            [program, "--kubeconfig", str(plane.kubeconfig()), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def await_right(kubectl: Kubectl) -> Callable[[str, str, str], None]:
    """`await_right(account, right, namespace)`: an API server hears of a role some time later."""

    def wait(account: str, right: str, namespace: str) -> None:
        until = time.monotonic() + PATIENCE_S
        asked = ("auth", "can-i", *right.split(), "-n", namespace, "--as", account)
        while (done := kubectl(*asked)).stdout.strip() != "yes":
            assert time.monotonic() < until, f"{account} may not {right}: {done.stderr}"

    return wait


@pytest.fixture(scope="module")
def module_cleared(kubectl: Kubectl) -> Iterator[None]:
    """Whatever the module installs is gone when it ends."""
    yield
    clear(kubectl)


@pytest.fixture
def cleared(kubectl: Kubectl) -> Iterator[None]:
    """Whatever the test installs is gone when it ends."""
    yield
    clear(kubectl)


def clear(kubectl: Kubectl) -> None:
    """Remove every release, helm's notes of them, and the detector's CRD; namespaces stay.

    The CRD goes without what Kubernetes does at its end, which may take minutes on a busy machine;
    what it would delete is deleted before.
    """
    crd = "crd/yolodetectors.yolofleet.io"
    if kubectl("get", crd).returncode == 0:
        _done(kubectl("delete", "yolodetectors.yolofleet.io", "-A", "--all"))
        _done(kubectl("delete", crd, "--wait=false"))
        kubectl("patch", crd, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
        _done(kubectl("wait", crd, "--for=delete", "--timeout=120s"))
    _done(kubectl("delete", OF_A_RELEASE, "-A", "-l", "app.kubernetes.io/managed-by=Helm"))
    _done(kubectl("delete", "secret", "-A", "-l", "owner=helm"))


def _done(command: subprocess.CompletedProcess[str]) -> None:
    assert command.returncode == 0, command.stderr


VALUE_SETS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "one namespace, one replica": {"watchNamespaces": ["cameras"], "replicas": 1},
    "two namespaces": {"watchNamespaces": ["cameras", "labs"]},
    "own images": {
        "image": {"repository": "registry.example.com/op", "tag": "1", "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "registry"}],
        "servingImages": {"cpu": "a:1", "torch": "b:1", "gpu": "c@sha256:0", "pullPolicy": "Never"},
    },
    "own account, no CRD, no roles": {
        "serviceAccount": {"create": False, "name": "ours"},
        "crds": {"enabled": False},
        "rbac": {"create": False, "aggregateToDefaultRoles": False},
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
    },
    "placed": {
        "fullnameOverride": "detectors",
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule",
             "labelSelector": {"matchLabels": {"app.kubernetes.io/component": "operator"}}}
        ],
        "priorityClassName": "system-cluster-critical",
        "podAnnotations": {"note": "on"},
        "podLabels": {"team": "vision"},
        "serviceAccount": {"annotations": {"iam": "0755"}},
    },
    "webhook, certificate by the chart": {
        "webhook": {"enabled": True, "failurePolicy": "Ignore", "timeoutSeconds": 3,
                    "namespaceSelector": {"matchLabels": {"vision": "on"}}},
    },
    "webhook of one namespace": {"webhook": {"enabled": True}, "watchNamespaces": ["cameras"]},
    "closed": {
        "networkPolicy": {"metricsFrom": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]},
        "webhook": {"enabled": True},
        "podTemplate": {"forbid": ["hostPath", "secrets"]},
    },
    "on dashboards": {
        "metrics": {"dashboards": {"enabled": True, "annotations": {"grafana_folder": "Fleet"}}},
    },
    "tuned": {
        "logLevel": "debug",
        "workers": 8,
        "drainSeconds": 0,
        "crds": {"keep": False},
        "resources": {"requests": {"cpu": 1, "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
    },
}  # fmt: skip


@pytest.fixture(params=VALUE_SETS.values(), ids=VALUE_SETS.keys())
def values(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each set of values that the chart is tried with."""
    found: dict[str, Any] = request.param
    return found
