"""What the operator sees of a cluster that changes under it: watches, lists, optional kinds."""

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest

from controlplane.installation import ISTIO_CRDS, MONITOR_CRDS
from controlplane.kube import CLUSTER_ROLE, Kube, connect
from controlplane.kubelet import FakeKubelet
from controlplane.plane import OPERATOR, ControlPlane
from controlplane.process import OperatorProcess
from yolofleet.api.names import DETECTOR_LABEL
from yolofleet.cluster import kinds
from yolofleet.cluster.cache import Cache
from yolofleet.cluster.informer import Informer
from yolofleet.runtime.client import Client
from yolofleet.runtime.errors import Forbidden
from yolofleet.runtime.kind import LEASE, Kind
from yolofleet.runtime.queue import WorkQueue

MakeDetector = Callable[..., Any]
Eventually = Callable[..., Any]


def a_service(namespace: str, name: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/managed-by": "yolofleet", DETECTOR_LABEL: "gate"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"ports": [{"port": 80, "protocol": "TCP"}]},
    }


async def children(kube: Kube, kind: Kind, namespace: str) -> list[str]:
    found = await kube.list(kind, namespace, f"{DETECTOR_LABEL}=gate")
    return [item["metadata"]["uid"] for item in found]


@pytest.mark.parametrize("kind", [kinds.DEPLOYMENT, kinds.SERVICE], ids=str)
async def test_a_deleted_child_comes_back(
    operator: OperatorProcess,
    kube: Kube,
    namespace: str,
    make_detector: MakeDetector,
    eventually: Eventually,
    kind: Kind,
) -> None:
    await make_detector()

    async def all_made() -> bool:  # status is written after the last child
        told = (await kube.get(kinds.DETECTOR, namespace, "gate")).get("status", {})
        return bool(told.get("observedGeneration") == 1)

    await eventually(all_made)
    before = await children(kube, kind, namespace)
    assert before
    for item in await kube.list(kind, namespace, f"{DETECTOR_LABEL}=gate"):
        await kube.delete(kind, namespace, item["metadata"]["name"])

    async def back() -> bool:
        now = await children(kube, kind, namespace)
        return len(now) == len(before) and not set(now) & set(before)

    await eventually(back)


async def test_deleting_a_detector_leaves_nothing(
    operator: OperatorProcess,
    kube: Kube,
    namespace: str,
    make_detector: MakeDetector,
    fake_kubelet: FakeKubelet,
    eventually: Eventually,
) -> None:
    detector = await make_detector()
    assert "finalizers" not in detector["metadata"]
    await eventually(lambda: children(kube, kinds.DEPLOYMENT, namespace))
    await kube.delete(kinds.DETECTOR, namespace, "gate")

    async def nothing() -> bool:
        left = [await kube.list(kind, namespace) for kind in kinds.CHILDREN if not kind.optional]
        return not any(left)

    await eventually(nothing)
    assert not operator.log(level="error")


async def test_kopf_writes_nothing_to_a_detector(
    operator: OperatorProcess,
    kube: Kube,
    namespace: str,
    make_detector: MakeDetector,
    eventually: Eventually,
) -> None:
    await make_detector()

    async def told() -> Any:
        return (await kube.get(kinds.DETECTOR, namespace, "gate")).get("status", {})["conditions"]

    await eventually(told)
    metadata = (await kube.get(kinds.DETECTOR, namespace, "gate"))["metadata"]
    assert "annotations" not in metadata
    assert "finalizers" not in metadata


async def test_what_was_deleted_while_nobody_watched_is_noticed(
    client: Client, kube: Kube, namespace: str
) -> None:
    """The cache keeps what it knew; a list tells what is gone, and whom that concerns."""
    cache, queue = Cache(), WorkQueue()
    informer = Informer(client, cache, queue, namespaces=[namespace])
    await kube.create(a_service(namespace, "gate"))
    await informer.first()
    assert queue.take() == f"{namespace}/gate"
    queue.done(f"{namespace}/gate")
    assert cache.named(kinds.SERVICE, namespace, "gate")
    await kube.delete(kinds.SERVICE, namespace, "gate")
    await informer.list(kinds.SERVICE)
    assert cache.named(kinds.SERVICE, namespace, "gate") is None
    assert queue.take() == f"{namespace}/gate"
    await informer.list(kinds.SERVICE)
    queue.done(f"{namespace}/gate")
    assert queue.take() is None


@pytest.mark.nightly
async def test_a_deletion_that_the_watch_lost_is_found_by_a_list(
    new_operator: Callable[..., OperatorProcess],
    plane: ControlPlane,
    kube: Kube,
    namespace: str,
    eventually: Eventually,
) -> None:
    """A new API server forgets what came before it: the watch begins anew, without the deletion.

    The replica is a standby, which may sleep for long and lose nothing but events.
    """
    await kube.create(a_lease_of_somebody(namespace))
    await kube.create(a_service(namespace, "kept"))
    await kube.create(a_service(namespace, "lost"))
    standby = new_operator(YOLOFLEET_NAMESPACES=namespace)
    standby.start()
    await standby.ready()
    assert standby.metric("yolofleet_children", kind="Service") == 2
    await eventually(lambda: standby.metric("yolofleet_watch_events_total", kind="Service") >= 2)
    await kube.merge(kinds.SERVICE, namespace, "kept", {"metadata": {"labels": {"a": "b"}}})
    told = {"kind": "Service", "type": "MODIFIED"}
    await eventually(lambda: standby.metric("yolofleet_watch_events_total", **told) >= 1)

    plane.apiserver.signal(signal.SIGSTOP)  # no event leaves it any more
    second = plane.another_apiserver()
    try:
        async with connect(second.kubeconfig) as client:
            await Kube(client).delete(kinds.SERVICE, namespace, "lost")
    finally:
        second.program.stop(signal.SIGKILL)
    await asyncio.to_thread(plane.restart_apiserver)

    await eventually(lambda: standby.metric("yolofleet_children", kind="Service") == 1)
    assert standby.metric("yolofleet_relists_total", kind="Service") >= 1
    assert not standby.metric("yolofleet_watch_events_total", kind="Service", type="DELETED")


def a_lease_of_somebody(namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": LEASE.api_version,
        "kind": "Lease",
        "metadata": {"name": "yolofleet", "namespace": namespace},
        "spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 3600},
    }


async def test_kinds_appear_and_vanish_while_the_operator_runs(
    optional_kinds: Any,
    operator: OperatorProcess,
    kube: Kube,
    namespace: str,
    make_detector: MakeDetector,
    fake_kubelet: FakeKubelet,
    eventually: Eventually,
    always: Eventually,
) -> None:
    await make_detector(
        traffic={"hosts": ["gate.example.com"], "gateways": ["istio-system/public"]}
    )
    await eventually(lambda: children(kube, kinds.DEPLOYMENT, namespace))
    appearing = (kinds.VIRTUAL_SERVICE, kinds.POD_MONITOR)
    for times in (1, 2):
        await optional_kinds.install(ISTIO_CRDS, MONITOR_CRDS)
        for kind in appearing:
            [before] = await eventually(lambda kind=kind: children(kube, kind, namespace))
            await kube.delete(kind, namespace, "gate")

            async def back(kind: Kind = kind, before: str = before) -> bool:
                now = await children(kube, kind, namespace)
                return bool(now and now != [before])

            await eventually(back)
        await optional_kinds.remove()

        def all_told(times: int = times) -> bool:
            for kind in appearing:
                for message in ("API appeared", "API vanished"):
                    assert len(operator.log(message=message, kind=kind.name)) == times
            return True

        await eventually(all_told)

    async def alive() -> bool:
        return operator.exit_status() is None and operator.probe("healthz") == 200

    await always(alive, 8)  # a watch of what is gone is answered with 404 for some seconds

    async def settled() -> bool:
        raw = await kube.get(kinds.DETECTOR, namespace, "gate")
        return {c["type"]: c["reason"] for c in raw["status"]["conditions"]}["Progressing"] == (
            "Settled"
        )

    await eventually(settled)


async def test_an_operator_that_may_not_see_nodes_or_crds_does_without(
    new_operator: Callable[..., OperatorProcess],
    plane: ControlPlane,
    kube: Kube,
    namespace: str,
    make_detector: MakeDetector,
    eventually: Eventually,
) -> None:
    """In the namespaced mode it has no cluster-wide rights."""

    async def sees_nodes(does: bool) -> bool:
        """Say whether the API server has heard of it."""
        async with connect(plane.kubeconfig(OPERATOR)) as client:
            try:
                await client.list(kinds.NODE, lambda node: node)
            except Forbidden:
                return not does
        return does

    role = await kube.get(CLUSTER_ROLE, "", "yolofleet")
    without = [
        rule
        for rule in role["rules"]
        if not {"nodes", "customresourcedefinitions"} & set(rule["resources"])
    ]
    pods = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
    try:
        await kube.merge(CLUSTER_ROLE, "", "yolofleet", {"rules": [*without, pods]})
        await eventually(lambda: sees_nodes(False))
        operator = new_operator(YOLOFLEET_NAMESPACES=namespace)
        operator.start()
        await operator.ready()
        await make_detector()
        await eventually(lambda: children(kube, kinds.DEPLOYMENT, namespace))
        assert operator.log(message="no right to list; doing without", kind="Node")
        assert operator.exit_status() is None
    finally:
        await kube.merge(CLUSTER_ROLE, "", "yolofleet", {"rules": role["rules"]})
        await eventually(lambda: sees_nodes(True))
