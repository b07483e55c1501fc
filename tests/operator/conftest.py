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
from yolofleet.runtime.client import Client
from yolofleet.runtime.kind import CRD, LEASE

HERE = Path(__file__).parent
OF_CRDS = [kind for kind in kinds.OPTIONAL if kind is not kinds.CLAIM_TEMPLATE]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who wants no optional kinds comes last, all together."""
    places = [index for index, item in enumerate(items) if HERE in item.path.parents]
    ours = sorted((items[index] for index in places), key=_wants_bare_kinds)
    for index, item in zip(places, ours, strict=True):
        item.add_marker(pytest.mark.controlplane)
        items[index] = item


def _wants_bare_kinds(item: pytest.Item) -> bool:
    return "bare_kinds" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """The running control plane, with the detector's CRD and the optional ones.

    They are there before the controllers: the garbage collector learns of others each 30 s.
    """
    with control_plane(assets.directory(), controllers=False) as plane:
        asyncio.run(install(plane))
        asyncio.run(_install_optional(plane))
        plane.controller_manager.start()
        yield plane


async def _install_optional(plane: ControlPlane) -> None:
    async with connect(plane.kubeconfig(ADMIN)) as client:
        await Kube(client).install(ISTIO_CRDS, MONITOR_CRDS)


class OptionalKinds:
    """Istio's, Prometheus' and the Gateway API's kinds, which a cluster may or may not have.

    Making and removing them takes seconds, so that they stay as they are until a test wants it
    otherwise. there: whether Istio's and Prometheus' are; None: a test has made some of them.
    """

    def __init__(self) -> None:
        self.there: bool | None = True

    async def bring(self, kube: Kube) -> None:
        """See to it that Istio's and Prometheus' are there."""
        if not self.there:
            await self.install(kube, ISTIO_CRDS, MONITOR_CRDS)
            self.there = True

    async def take_away(self, kube: Kube) -> None:
        """See to it that there are none."""
        if self.there is False:
            return
        for kind in OF_CRDS:
            await kube.delete(CRD, "", f"{kind.plural}.{kind.group}")

        async def gone() -> bool:
            return not [kind for kind in OF_CRDS if await kube.client.serves(kind)]

        await kube_module.eventually(gone)  # what is made meanwhile is looked for each minute
        self.there = False

    async def install(self, kube: Kube, *files: Path) -> None:
        """Install those of `files`."""
        self.there = None
        await kube.install(*files)


@pytest.fixture(scope="session")
def kinds_of_cluster(plane: ControlPlane) -> OptionalKinds:
    """What the control plane has of them."""
    return OptionalKinds()


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


@pytest.fixture(scope="session")
def bare_kinds(kinds_of_cluster: OptionalKinds) -> OptionalKinds:
    """The same, for who wants to begin without them; tests with this one come last."""
    return kinds_of_cluster


@pytest.fixture
async def istio(kube: Kube, kinds_of_cluster: OptionalKinds) -> None:
    """Istio's kinds exist, and Prometheus' as well."""
    await kinds_of_cluster.bring(kube)


@pytest.fixture
async def optional_kinds(kube: Kube, bare_kinds: OptionalKinds) -> SimpleNamespace:
    """None of the optional kinds is there; `install(FILE)` and `remove()` at any time of a test."""
    await bare_kinds.take_away(kube)
    return SimpleNamespace(
        install=lambda *files: bare_kinds.install(kube, *files),
        remove=lambda: bare_kinds.take_away(kube),
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
    """`new_operator(**environment)` makes a replica that is not started; all end with the test.

    patient: as of `OperatorProcess`.
    """
    made: list[OperatorProcess] = []

    def make(*, patient: bool = True, **environment: str) -> OperatorProcess:
        log = tmp_path / f"operator-{len(made)}.log"
        environment = {"YOLOFLEET_LEASE_NAMESPACE": namespace} | environment
        config = plane.kubeconfig(OPERATOR)
        made.append(OperatorProcess(config, log, environment, patient=patient))
        return made[-1]

    yield make
    for operator in made:
        operator.kill()
    crashes = [line for operator in made for line in operator.log() if _unexpected(line)]
    assert not crashes, crashes


@pytest.fixture
def free_lease(kube: Kube, namespace: str) -> Callable[[], Any]:
    """`await free_lease()` does what time does to the Lease of a leader that was killed."""

    async def free() -> None:
        patch = {"spec": {"holderIdentity": "", "leaseDurationSeconds": 1}}
        await kube.merge(LEASE, namespace, "yolofleet", patch)

    return free


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
