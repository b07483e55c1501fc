"""One detector in a namespace of its own, with an operator of its own behind a proxy of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections import ChainMap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from controlplane.kube import NAMESPACE, PATIENCE_S, REPLICA_SET, Kube, eventually
from controlplane.kubelet import FakeKubelet
from controlplane.plane import OPERATOR, ControlPlane
from controlplane.process import OperatorProcess
from faults import heard
from faults.heard import Heard
from faults.history import History, Seen
from faults.proxy import FaultProxy
from faults.size import CONVERGE_S
from yolofleet.api import names
from yolofleet.api.names import DETECTOR_LABEL, MANAGED_BY, MANAGED_BY_LABEL, Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime import kind as api
from yolofleet.runtime.errors import NotFound
from yolofleet.runtime.leader import LEASE_SECONDS

NAME: Final = "gate"
LEASE: Final = "yolofleet"
BYSTANDER: Final = "bystander"
LOST: Final = 1
"""The exit status of an operator that lost its Lease; of others, too."""


class Stage:
    """What a fault is played on. Objects carry the detector's name, `gate`.

    patient: whether its operators keep their Lease however long they get no processor.
    """

    def __init__(
        self,
        plane: ControlPlane,
        kube: Kube,
        kubelet: FakeKubelet,
        history: History,
        proxy: FaultProxy,
        namespace: str,
        folder: Path,
        environment: dict[str, str],
        module: str,
        token: str,
        patient: bool,
    ) -> None:
        self.plane = plane
        self.kube = kube
        self.kubelet = kubelet
        self.history = history
        self.proxy = proxy
        self._proxies: list[FaultProxy] = []
        self.namespace = namespace
        self.since = 0
        self.exits: list[int] = []
        self.restarts = True
        self._folder = folder
        self._module = module
        self._token = token
        self._patient = patient
        self._environment = {
            "YOLOFLEET_LEASE_NAMESPACE": namespace,
            "YOLOFLEET_LEASE_NAME": LEASE,
            "YOLOFLEET_NAMESPACES": namespace,
        } | environment
        self.operator = self.replica(proxy)

    def replica(
        self, proxy: FaultProxy, module: str = "", *, patient: bool = True, **environment: str
    ) -> OperatorProcess:
        """Return an operator of this stage behind `proxy` that is not started."""
        self._proxies.append(proxy)
        config = proxy.kubeconfig(self._folder / f"proxy-{proxy.port}.kubeconfig", self._token)
        log = self._folder / f"operator-{uuid.uuid4().hex[:6]}.log"
        return OperatorProcess(
            config,
            log,
            self._environment | environment,
            module or self._module,
            patient=patient and self._patient,
        )

    # the operator's life

    async def start(self) -> None:
        """Start the operator and wait until it leads and has a warm cache."""
        self.operator.start()
        await self.leading(self.operator)

    async def leading(self, operator: OperatorProcess, timeout_s: float = CONVERGE_S) -> None:
        """Wait until `operator` leads with a warm cache."""

        async def leads() -> bool:
            assert operator.exit_status() is None, operator.text()[-2000:]
            ready = await asyncio.to_thread(operator.probe, "readyz") == 200
            return ready and await asyncio.to_thread(operator.leads)

        await eventually(leads, timeout_s)

    async def look_after(self) -> None:
        """Start the operator again whenever it ends, as its Deployment does; until cancelled.

        The dead one's Lease is given back, so that nobody waits for it to run out. Where no API
        server answers, the product's own has run out before that.
        """
        patience_s = PATIENCE_S if self._patient else LEASE_SECONDS
        while True:
            await asyncio.sleep(0.05)
            status = self.operator.exit_status()
            if status is None or not self.restarts:
                continue
            self.exits.append(status)
            with contextlib.suppress(AssertionError, TimeoutError):
                await asyncio.wait_for(eventually(self.free_lease, patience_s), patience_s)
            self.operator.start()

    async def free_lease(self) -> bool:
        """Do what time does to the Lease of a holder that died."""
        given = self._environment
        namespace, name = given["YOLOFLEET_LEASE_NAMESPACE"], given["YOLOFLEET_LEASE_NAME"]
        if await self.kube.find(api.LEASE, namespace, name):
            patch = {"spec": {"holderIdentity": "", "leaseDurationSeconds": 1}}
            await self.kube.merge(api.LEASE, namespace, name, patch)
        return True

    # what a user does

    async def create(self, **spec: Any) -> Manifest:
        """Create the detector."""
        return await self.kube.create(self.manifest(**spec))

    def manifest(self, **spec: Any) -> Manifest:
        """Return the detector as a user writes it."""
        return {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": NAME, "namespace": self.namespace},
            "spec": spec,
        }

    async def edit(self, **spec: Any) -> None:
        """Change the detector; None removes a field."""
        await self.kube.merge(kinds.DETECTOR, self.namespace, NAME, {"spec": spec})

    async def delete(self) -> None:
        """Delete the detector."""
        await self.kube.delete(kinds.DETECTOR, self.namespace, NAME)

    async def bystander(self) -> None:
        """Put an object there that looks like a child and belongs to nobody."""
        labels = {MANAGED_BY_LABEL: MANAGED_BY, DETECTOR_LABEL: NAME}
        await self.kube.create(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": BYSTANDER, "namespace": self.namespace, "labels": labels},
                "spec": {"ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
            }
        )

    # what is

    async def detector(self) -> Manifest:
        """Read the detector."""
        return await self.kube.get(kinds.DETECTOR, self.namespace, NAME)

    async def children(self) -> dict[tuple[str, str], Manifest]:
        """Read all that can be a detector's child, by kind and name, but the bystander."""
        found: dict[tuple[str, str], Manifest] = {}
        for kind in kinds.CHILDREN:
            with contextlib.suppress(NotFound):  # an API that is not there
                for item in await self.kube.list(kind, self.namespace):
                    if item["metadata"]["name"] != BYSTANDER:
                        found[kind.name, item["metadata"]["name"]] = item
        return found

    def happened(self) -> list[Seen]:
        """Return what happened since `begin`, in order."""
        return self.history.of(self.namespace, self.since)

    def heard(self) -> dict[int, Heard]:
        """Return what an operator had heard of when it made a version of an object."""
        return dict(ChainMap(*(proxy.heard for proxy in self._proxies)))

    async def begin(self) -> None:
        """Number writes and judge history from here."""
        listing = await self.kube.client.list(
            kinds.DETECTOR, lambda item: item, namespace=self.namespace
        )
        self.since = listing.version
        self.proxy.number_from_here()

    async def settled(self, timeout_s: float = CONVERGE_S) -> None:
        """Wait until status says that the spec is reached, or until all is gone.

        Fails with what the operator believes of the detector, beside what is.
        """
        try:
            await eventually(self._is_settled, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\nit believes: {await self._belief()}") from None

    async def _belief(self) -> str:
        path = f"detectors/{self.namespace}/{NAME}"
        try:
            return json.dumps(await asyncio.to_thread(self.operator.debug, path))
        except (OSError, KeyError) as error:
            return f"nothing: {error!r}"

    async def rest(self, seconds: float) -> None:
        """Wait until the operator has written nothing for so long, and waits for no answer."""

        async def written() -> list[str] | None:
            return None if self.proxy.under_way else list(map(str, self.proxy.writes))

        await self.operator.silent(written, seconds, CONVERGE_S)

    async def written_within(self, seconds: float) -> list[str]:
        """Return what the operator writes in so many seconds."""
        before = len(self.proxy.writes)
        await asyncio.sleep(seconds)
        return [str(call) for call in self.proxy.writes[before:]]

    async def _is_settled(self) -> bool:
        raw = await self.kube.find(kinds.DETECTOR, self.namespace, NAME)
        if raw is None:
            assert not (left := await self.children()), list(left)
            for kind in (REPLICA_SET, kinds.POD):  # which go after what owns them
                assert not await self.kube.list(kind, self.namespace), f"{kind} are going"
            return True
        status = raw["status"]
        assert status["observedGeneration"] == raw["metadata"]["generation"], "a new spec"
        said = {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}
        assert said["Ready"][0] == "True", said
        assert said["Progressing"] == ("False", "Settled"), said
        routed, why = said["TrafficRouted"]
        assert routed == "True" or why == "NotReferenced", said  # random specs have no root
        assert said.get("CanaryHealthy", ("True",))[0] == "True", said
        await self.assert_pods_are_as_told()
        return True

    async def assert_pods_are_as_told(self) -> None:
        """Check that every Deployment has the pods it was told to have: the controller is slow."""
        for deployment in await self.kube.list(kinds.DEPLOYMENT, self.namespace):
            status, metadata = deployment.get("status", {}), deployment["metadata"]
            told = f"{metadata['name']}: {status}"
            assert status.get("observedGeneration") == metadata["generation"], told
            assert status.get("replicas", 0) == deployment["spec"]["replicas"], told

    async def says(self, type: str, reason: str, timeout_s: float = CONVERGE_S) -> str:
        """Wait until the condition `type` gives `reason`; return its message."""

        async def said() -> str:
            status = (await self.detector())["status"]
            found = {c["type"]: c for c in status["conditions"]}[type]
            assert found["reason"] == reason, found
            message: str = found["message"]
            return message

        told: str = await eventually(said, timeout_s)
        return told

    async def remove(self) -> None:
        """Leave nothing behind."""
        await self.kube.delete(kinds.DETECTOR, self.namespace, NAME)
        await self.kube.delete(NAMESPACE, "", self.namespace)
        self.history.forget(self.namespace)


@contextlib.asynccontextmanager
async def stage(
    plane: ControlPlane,
    kube: Kube,
    kubelet: FakeKubelet,
    history: History,
    folder: Path,
    *,
    module: str = heard.__name__,
    token: str = OPERATOR,
    patient: bool = True,
    **environment: str,
) -> AsyncIterator[Stage]:
    """Give a stage whose operator is not started; it is gone when the block is left.

    token: of the user that the operator is. patient: as of `Stage`.
    """
    namespace = f"fault-{uuid.uuid4().hex[:8]}"
    await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    folder = folder / namespace
    folder.mkdir(parents=True)
    async with FaultProxy(plane.server, plane.trust).running() as proxy:
        made = Stage(
            plane,
            kube,
            kubelet,
            history,
            proxy,
            namespace,
            folder,
            environment,
            module,
            token,
            patient,
        )
        await made.bystander()
        keeper = asyncio.create_task(made.look_after())
        try:
            yield made
        finally:
            made.restarts = False
            keeper.cancel()
            made.operator.kill()
            await made.remove()
