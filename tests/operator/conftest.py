"""A real API server for every test of this folder, a namespace of its own, and the operator."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import assets
from controlplane import kube as kube_module
from controlplane import kubelet as kubelet_module
from controlplane.installation import ISTIO_CRDS, MONITOR_CRDS, install
from controlplane.kube import NAMESPACE, Kube, connect
from controlplane.kubelet import FakeKubelet
from controlplane.plane import ADMIN, OPERATOR, ControlPlane, control_plane
from controlplane.process import OperatorProcess
from yolofleet.api import names
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.cluster.client import Client


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.controlplane)


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """The running control plane, with the detector's CRD and no Istio."""
    with control_plane(assets.directory()) as plane:
        asyncio.run(install(plane))
        yield plane


@pytest.fixture
async def client(plane: ControlPlane) -> AsyncIterator[Client]:
    """The operator's own client, with all rights."""
    async with connect(plane.kubeconfig(ADMIN)) as client:
        yield client


@pytest.fixture
def kube(client: Client) -> Kube:
    """A person with kubectl."""
    return Kube(client)


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """`await eventually(condition, timeout_s)` returns what is true at last."""
    return kube_module.eventually


@pytest.fixture
def always() -> Callable[..., Any]:
    """`await always(condition, for_s)` fails as soon as it is not true."""
    return kube_module.always


@pytest.fixture
async def namespace(kube: Kube) -> AsyncIterator[str]:
    """A namespace of the test's own; all in it goes afterwards."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    await kube.create(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
    )
    yield name
    for detector in await kube.list(kinds.DETECTOR, name):
        await kube.delete(kinds.DETECTOR, name, detector["metadata"]["name"])
    await kube.delete(NAMESPACE, "", name)


@pytest.fixture
async def istio(kube: Kube, namespace: str) -> AsyncIterator[None]:
    """Istio's kinds exist while the test runs."""
    await kube.install(ISTIO_CRDS)
    yield
    await remove_optional_kinds(kube)


async def remove_optional_kinds(kube: Kube) -> None:
    for kind in kinds.OPTIONAL:
        await kube.delete(kinds.CRD, "", f"{kind.plural}.{kind.group}")

    async def gone() -> bool:
        return not [kind for kind in kinds.OPTIONAL if await kube.client.serves(kind)]

    await kube_module.eventually(gone, 120)  # what is made meanwhile is looked for each minute


@pytest.fixture
def istio_crds(kube: Kube) -> SimpleNamespace:
    """`await istio_crds.install()` and `await istio_crds.remove()` at any time of a test."""
    return SimpleNamespace(
        install=lambda: kube.install(ISTIO_CRDS), remove=lambda: remove_optional_kinds(kube)
    )


@pytest.fixture
def monitor_crds(kube: Kube) -> SimpleNamespace:
    """The same for PodMonitors."""
    return SimpleNamespace(
        install=lambda: kube.install(MONITOR_CRDS), remove=lambda: remove_optional_kinds(kube)
    )


@pytest.fixture
def fates() -> Any:
    """What pods can come to: ready, starting, waiting(...), crashing(...), unschedulable(...)."""
    return kubelet_module


@pytest.fixture
async def fake_kubelet(client: Client, namespace: str) -> AsyncIterator[FakeKubelet]:
    """Makes the pods of the test's namespace ready, or whatever the test decides."""
    kubelet = FakeKubelet(client, namespace)
    task = asyncio.create_task(kubelet.run())
    yield kubelet
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.fixture
def new_operator(
    plane: ControlPlane, namespace: str, tmp_path: Path
) -> Iterator[Callable[..., OperatorProcess]]:
    """`new_operator(**environment)` makes a replica that is not started; all end with the test."""
    made: list[OperatorProcess] = []

    def make(**environment: str) -> OperatorProcess:
        log = tmp_path / f"operator-{len(made)}.log"
        environment = {"YOLOFLEET_LEASE_NAMESPACE": namespace} | environment
        made.append(OperatorProcess(plane.kubeconfig(OPERATOR), log, environment))
        return made[-1]

    yield make
    for operator in made:
        operator.kill()
    crashes = [line for operator in made for line in operator.log() if _unexpected(line)]
    assert not crashes, crashes


def _unexpected(line: dict[str, Any]) -> bool:
    return line.get("message") == "reconcile failed" or line.get("level") == "critical"


@pytest.fixture
async def operator(new_operator: Callable[..., OperatorProcess]) -> OperatorProcess:
    """One replica that is ready and leads; it may do only what RIGHTS allow."""
    one = new_operator()
    one.start()
    await one.ready()
    await kube_module.eventually(one.leads)
    return one


@pytest.fixture
def make_detector(kube: Kube, namespace: str) -> Callable[..., Any]:
    """`await make_detector(name, **spec)` creates a YoloDetector and returns it."""

    async def make(name: str = "gate", **spec: Any) -> Manifest:
        return await kube.create(
            {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"model": {"uri": "demo://shapes"}, **spec},
            }
        )

    return make
