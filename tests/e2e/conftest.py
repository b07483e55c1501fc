"""YoloFleet on the local cluster, installed once by its chart, and a namespace for the run."""

import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import gateway_api, kuberay
from cluster import images as built
from demo_cluster import pictures
from demo_cluster.detector import Detector
from demo_cluster.errors import NotYet
from demo_cluster.installation import NAMESPACE, RELEASE, Installation, install
from demo_cluster.kube import Kubectl, Manifest
from demo_cluster.load import Target
from demo_cluster.pictures import Picture
from demo_cluster.waiting import eventually

RUN = f"e2e-{uuid.uuid4().hex[:6]}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(1800))  # the first test may make the cluster


@pytest.fixture(scope="session")
def installation() -> Installation:
    """The cluster with YoloFleet in it; what is there already is kept."""
    installed = install(Path(__file__).with_name("values.yaml"))
    gateway_api.install()
    return installed


@pytest.fixture(scope="session")
def with_ray(installation: Installation) -> Iterator[Installation]:
    """KubeRay; then the chart, which gives its operator the rights to KubeRay's kind."""
    kuberay.install()
    yield install(Path(__file__).with_name("values.yaml"), ray=built.build_and_load_ray())
    kuberay.uninstall()


@pytest.fixture(scope="session")
def kubectl(installation: Installation) -> Iterator[Kubectl]:
    """kubectl in a namespace of this run, which goes afterwards with all that is in it.

    So do those of earlier runs that were killed. Nobody waits for it: each run has its own hosts.
    """
    kubectl = installation.kubectl(RUN)
    names = [item["metadata"]["name"] for item in kubectl.list("namespaces")]
    if left := [name for name in names if name.startswith("e2e-")]:
        kubectl.run("delete", "namespace", *left, "--ignore-not-found", "--wait=false")
    kubectl.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": kubectl.namespace}}
    )
    yield kubectl
    kubectl.run("delete", "namespace", kubectl.namespace, "--wait=false")


@pytest.fixture(scope="session")
def operator_kubectl(installation: Installation) -> Kubectl:
    """kubectl in the operator's own namespace."""
    return installation.kubectl(NAMESPACE)


@pytest.fixture(scope="session")
def images() -> list[Picture]:
    """The example pictures with the objects that are in them."""
    return pictures.examples()


@pytest.fixture(scope="session")
def make(kubectl: Kubectl) -> Callable[..., Detector]:
    """`make(name, **spec)` applies a small detector; what is given replaces the defaults."""

    def apply(name: str, **spec: Any) -> Detector:
        kubectl.apply(
            {
                "apiVersion": "yolofleet.io/v1alpha1",
                "kind": "YoloDetector",
                "metadata": {"name": name},
                "spec": {
                    "model": {"uri": "demo://shapes"},
                    "inference": {"deadline": "30s"},  # what is tested is who answers, not how soon
                    "resources": {
                        "requests": {"cpu": "50m", "memory": "192Mi"},
                        "limits": {"memory": "1Gi"},
                    },
                    **spec,
                },
            }
        )
        return Detector(kubectl, name)

    return apply


@pytest.fixture(scope="module")
def fleet(
    request: pytest.FixtureRequest, make: Callable[..., Detector], routed: Callable[[str], Manifest]
) -> dict[str, Detector]:
    """The detectors that the file's `fleet_of(routed)` describes, by name.

    Those of the next file are applied with them: their pods start while this file's tests run.
    """
    here = Path(__file__).parent
    run = [item for item in request.session.items if here in item.path.parents]
    files = list(dict.fromkeys(item.getparent(pytest.Module).obj for item in run))
    this = files.index(request.module)
    made, *_ = [
        {name: make(name, **spec) for name, spec in file.fleet_of(routed).items()}
        for file in files[this : this + 2]
    ]
    return made


@pytest.fixture(scope="session")
def routed() -> Callable[[str], Manifest]:
    """`routed(name)` is the `traffic` of a detector that the ingress serves."""
    return lambda name: {"hosts": [host(name)], "gateways": ["istio-system/public"]}


@pytest.fixture(scope="session")
def target(installation: Installation) -> Callable[[str], Target]:
    """`target(name)` is where requests for a routed detector go."""
    return lambda name: installation.target(host(name))


def host(name: str) -> str:
    return f"{name}.{RUN}.example.com"


@pytest.fixture(scope="session")
def events(kubectl: Kubectl) -> Callable[[str, str], Manifest]:
    """`events(name, reason)` waits for an Event about a detector and returns it."""

    def wait(name: str, reason: str) -> Manifest:
        def look() -> Manifest:
            about = [e for e in kubectl.list("events") if e["involvedObject"]["name"] == name]
            found = [e for e in about if e["reason"] == reason]
            if not found:
                raise NotYet(f"Events with {sorted({e['reason'] for e in about})}")
            return found[-1]

        return eventually(f"an Event {reason} about {name}", look, within_s=300)

    return wait


def kill_container(kubectl: Kubectl, name: str) -> None:
    """End all processes of a pod's first container as a crash does, with SIGKILL."""
    pod = kubectl.find("pod", name)
    assert pod, f"there is no pod {name}"
    first = pod["spec"]["containers"][0]["name"]
    [state] = [each for each in pod["status"]["containerStatuses"] if each["name"] == first]
    container = re.sub(r"^\w+://", "", state["containerID"])
    script = (
        f"for process in /proc/[0-9]*; do grep -qs {container} $process/cgroup &&"
        " kill -9 ${process#/proc/} && echo killed; done; true"
    )
    node = ["docker", "exec", pod["spec"]["nodeName"], "sh", "-c", script]
    done = subprocess.run(node, capture_output=True, text=True, timeout=60, check=True)
    assert "killed" in done.stdout, done.stderr


@pytest.fixture(scope="session")
def kill() -> Callable[[Kubectl, str], None]:
    """`kill(kubectl, pod)` ends a pod's first container with SIGKILL."""
    return kill_container


class Leader:
    """The replica of the operator that holds the Lease."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl

    def identity(self) -> str:
        lease = self._kubectl.find("lease", RELEASE)
        holder = str(lease["spec"].get("holderIdentity", "")) if lease else ""
        if not holder:
            raise NotYet("nobody holds the Lease")
        return holder

    def successor(self, of: str) -> str:
        """Wait until somebody else than `of` leads; return who. A dead one's Lease runs out."""

        def look() -> str:
            if (holder := self.identity()) == of:
                raise NotYet(f"{of} still holds the Lease")
            return holder

        return eventually("another leader", look, within_s=300)

    def kill(self) -> str:
        """End the leader's process as a crash does, with SIGKILL; return who it was."""
        holder = eventually("a leader", self.identity, within_s=300)
        kill_container(self._kubectl, holder.rsplit("_", 1)[0])
        return holder


@pytest.fixture(scope="session")
def leader(operator_kubectl: Kubectl) -> Leader:
    return Leader(operator_kubectl)


@pytest.fixture(scope="session")
def weights(kubectl: Kubectl) -> Callable[[str], dict[str, int]]:
    """`weights(name)` is what the router gives each revision now, in percent."""

    def read(name: str) -> dict[str, int]:
        route = kubectl.find("virtualservices.networking.istio.io", name)
        assert route, f"there is no VirtualService {name}"
        return weights_of(route)

    return read


def weights_of(route: Manifest) -> dict[str, int]:
    """Return the weights of the route without a match, by revision."""
    return {
        to["destination"]["host"].split(".")[0]: to.get("weight", 0)
        for to in route["spec"]["http"][-1]["route"]
    }


@pytest.fixture(scope="session")
def split_of() -> Callable[[Manifest], dict[str, int]]:
    """`split_of(virtual_service)` are the weights of its route without a match."""
    return weights_of
