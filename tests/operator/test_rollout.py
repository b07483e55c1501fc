"""Strategies on a real API server: all weights and pods on the way, and an operator killed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from controlplane import kube as kube_module
from controlplane.kube import Kube
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime.errors import NotFound
from yolofleet.runtime.kind import Kind

V2 = {"uri": "demo://shapes-v2"}


class Watcher:
    """Notes weights and replicas while a release goes on."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self.kube = kube
        self.namespace = namespace
        self.weights: list[dict[str, int]] = []
        self.replicas: list[dict[str, int]] = []
        self._live: dict[Kind, dict[str, Manifest]] = {}

    async def status(self) -> Manifest:
        raw = await self.kube.get(kinds.DETECTOR, self.namespace, "gate")
        status: Manifest = raw.get("status", {})
        return status

    async def settled(self) -> bool:
        raw = await self.kube.get(kinds.DETECTOR, self.namespace, "gate")
        status = raw["status"]
        assert status["observedGeneration"] == raw["metadata"]["generation"]
        reason = {c["type"]: c["reason"] for c in status["conditions"]}["Progressing"]
        assert reason in ("Settled", "Draining"), reason
        return True

    async def edit(self, **spec: Any) -> None:
        await self.kube.merge(kinds.DETECTOR, self.namespace, "gate", {"spec": spec})

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Note each change within the block, however short it lasts."""
        with contextlib.ExitStack() as tasks:
            for kind in (kinds.DEPLOYMENT, kinds.VIRTUAL_SERVICE):
                with contextlib.suppress(NotFound):  # a kind that is not there
                    tasks.callback((await self._follow(kind)).cancel)
            yield
            await kube_module.eventually(self._has_heard_of_all)

    async def _follow(self, kind: Kind) -> "asyncio.Task[None]":
        client, here = self.kube.client, self.namespace
        self._live[kind] = live = dict[str, Manifest]()
        listing = await client.list(kind, lambda item: item, namespace=here)
        live.update({item["metadata"]["name"]: item for item in listing.items})
        self._note_all()

        def take(event: str, item: Manifest) -> None:
            if event == "BOOKMARK":
                return
            live[item["metadata"]["name"]] = item
            if event == "DELETED":
                del live[item["metadata"]["name"]]
            self._note_all()

        watch = client.watch(kind, listing.version, take, namespace=here)
        return asyncio.create_task(watch)

    async def _has_heard_of_all(self) -> bool:
        for kind, live in self._live.items():
            with contextlib.suppress(NotFound):
                for item in await self.kube.list(kind, self.namespace):
                    heard = live[item["metadata"]["name"]]["metadata"]["resourceVersion"]
                    assert int(heard) >= int(item["metadata"]["resourceVersion"])
        return True

    def _note_all(self) -> None:
        deployments = self._live[kinds.DEPLOYMENT].items()
        self._note(self.replicas, {name: d["spec"]["replicas"] for name, d in deployments})
        if route := self._live.get(kinds.VIRTUAL_SERVICE, {}).get("gate"):
            weighted = route["spec"]["http"][-1]["route"]
            self._note(
                self.weights,
                {r["destination"]["host"].split(".")[0]: r["weight"] for r in weighted},
            )

    @staticmethod
    def _note(seen: list[dict[str, int]], now: dict[str, int]) -> None:
        if not seen or seen[-1] != now:
            seen.append(now)


HOSTS = {"hosts": ["gate.example.com"], "gateways": ["istio-system/public"]}
"""A delegate that nobody references walks no steps."""


async def released(make_detector: Callable[..., Any], watch: Watcher, ev: Any, **spec: Any) -> str:
    await make_detector(**spec)
    await ev(watch.settled)
    stable: str = (await watch.status())["stable"]["revision"]
    return stable


def steps(*holds: str) -> dict[str, Any]:
    weights = (25, 50, 75)
    given = [{"weight": w, "hold": h} for w, h in zip(weights, holds, strict=False)]
    return {"strategy": "Canary", "steps": given}


async def test_steps_are_walked_and_the_end_is_a_promotion(
    istio: None,
    new_operator: Callable[..., Any],
    fake_kubelet: Any,
    make_detector: Callable[..., Any],
    kube: Kube,
    namespace: str,
    eventually: Any,
) -> None:
    operator = new_operator(YOLOFLEET_DRAIN_SECONDS="600")  # what was replaced stays while we look
    operator.start()
    await operator.ready()
    watch = Watcher(kube, namespace)
    rollout = steps("1s", "1s", "1s")
    old = await released(
        make_detector, watch, eventually, replicas=4, rollout=rollout, traffic=HOSTS
    )
    async with watch.watching():
        await watch.edit(model=V2)
        await eventually(watch.settled)
    new = (await watch.status())["stable"]["revision"]
    assert new != old
    shares = [weights.get(new, 0) for weights in watch.weights]
    assert shares == sorted(shares)
    assert {25, 50, 75, 100} <= set(shares)
    assert all(sum(weights.values()) == 100 for weights in watch.weights)
    assert all(replicas[old] == 4 for replicas in watch.replicas), "a whole second set fits"


async def test_a_killed_operator_goes_on_at_the_same_step(
    istio: None,
    new_operator: Callable[..., Any],
    fake_kubelet: Any,
    make_detector: Callable[..., Any],
    kube: Kube,
    namespace: str,
    eventually: Any,
    free_lease: Callable[[], Any],
) -> None:
    first = new_operator()
    first.start()
    await first.ready()
    watch = Watcher(kube, namespace)
    rollout = steps("1s", "Approval")
    await released(make_detector, watch, eventually, replicas=2, rollout=rollout, traffic=HOSTS)
    await watch.edit(model=V2)

    async def awaits_approval() -> Manifest:
        going = (await watch.status())["rollout"]
        assert (going["step"], "since" in going) == (2, True), going
        return going

    going = await eventually(awaits_approval)
    first.kill()
    await free_lease()
    second = new_operator()
    second.start()
    await second.ready()
    await eventually(second.leads)
    async with watch.watching():
        await asyncio.sleep(2)
    assert await awaits_approval() == going
    assert len(watch.weights) == len(watch.replicas) == 1, "a restart moves nothing"
    approved = {"revision": going["revision"], "step": 2}
    await watch.edit(rollout={**rollout, "approved": approved})
    await eventually(watch.settled)
    assert (await watch.status())["stable"]["revision"] == going["revision"]


async def test_in_place_never_has_a_pod_more_than_replicas(
    operator: Any,
    fake_kubelet: Any,
    make_detector: Callable[..., Any],
    kube: Kube,
    namespace: str,
    eventually: Any,
) -> None:
    watch = Watcher(kube, namespace)
    in_place = {"strategy": "InPlace"}
    old = await released(make_detector, watch, eventually, replicas=3, rollout=in_place)
    async with watch.watching():
        await watch.edit(model=V2)
        await eventually(watch.settled)
    assert (await watch.status())["stable"]["revision"] != old
    assert all(sum(replicas.values()) <= 3 for replicas in watch.replicas), watch.replicas
    assert [r[old] for r in watch.replicas] == sorted(
        (r[old] for r in watch.replicas), reverse=True
    )


async def test_a_real_autoscaler_gets_the_replicas_and_gives_them_back(
    operator: Any,
    fake_kubelet: Any,
    make_detector: Callable[..., Any],
    kube: Kube,
    namespace: str,
    eventually: Any,
) -> None:
    watch = Watcher(kube, namespace)
    stable = await released(make_detector, watch, eventually, replicas=3)

    def replicas(count: int) -> Callable[[], Any]:
        async def are() -> bool:
            deployment = await kube.get(kinds.DEPLOYMENT, namespace, stable)
            return bool(deployment["spec"]["replicas"] == count)

        return are

    async with watch.watching():
        await watch.edit(replicas=None, autoscaling={"minReplicas": 2, "maxReplicas": 9})
        await eventually(lambda: kube.get(kinds.HPA, namespace, stable))
        await asyncio.sleep(1)
        assert await replicas(3)(), "the live value"
        # without metrics the controller still holds the bounds
        await watch.edit(autoscaling={"minReplicas": 5, "maxReplicas": 9})
        await eventually(replicas(5))
        await watch.edit(replicas=5, autoscaling=None)
        await eventually(watch.settled)
    assert [r[stable] for r in watch.replicas] == [3, 5]
