"""Detectors by the thousand, and what stands in for those who would look after their pods."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from controlplane.kube import NAMESPACE, Kube
from yolofleet.api import names
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime.client import Request, apply
from yolofleet.runtime.kind import Kind, kind_of

SHARDS: Final = 10  # namespaces
AT_ONCE: Final = 20
REPLICAS: Final = 2

Item = TypeVar("Item")


async def each(
    items: Iterable[Item], work: Callable[[Item], Awaitable[Any]], at_once: int = AT_ONCE
) -> None:
    """Await `work` on all `items`, `at_once` at a time."""
    rest = iter(items)

    async def worker() -> None:
        for item in rest:
            await work(item)

    await asyncio.gather(*(worker() for _ in range(at_once)))


class Fleet:
    """`size` detectors with a canary each. Nothing runs: statuses are written as if it did."""

    def __init__(self, kube: Kube, size: int) -> None:
        self._kube = kube
        self.all = [(f"bench-{n % SHARDS}", f"d{n:05}") for n in range(size)]

    async def prepare(self) -> None:
        """Make the namespaces."""
        for shard in range(SHARDS):
            name = {"name": f"bench-{shard}"}
            await self._kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": name})

    async def create(self) -> None:
        """Create all detectors at once."""
        await each(self.all, self._create)

    async def _create(self, one: tuple[str, str]) -> None:
        namespace, name = one
        await self._kube.create(
            {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "metadata": {"name": name, "namespace": namespace},
                "spec": {
                    "model": {"uri": "demo://shapes"},
                    "replicas": REPLICAS,
                    "canary": {"model": {"uri": "demo://shapes-v2"}, "weight": 10},
                    "traffic": {
                        "hosts": [f"{name}.example.com"],
                        "gateways": ["istio-system/public"],
                    },
                },
            }
        )

    async def edit(self, one: tuple[str, str], **spec: Any) -> None:
        """Change one detector as a user does."""
        await self._kube.merge(kinds.DETECTOR, *one, {"spec": spec})

    async def label(self, value: str, one: tuple[str, str]) -> None:
        """Change of a detector what concerns nobody."""
        await self._kube.merge(kinds.DETECTOR, *one, {"metadata": {"labels": {"bench": value}}})

    async def run_pods(self) -> int:
        """Let all Deployments have their pods; return how many were behind."""
        return await run_pods(self._kube)

    async def give_addresses(self, chosen: Collection[tuple[str, str]]) -> dict[str, str]:
        """Have all pods of the `chosen` be ready, each on a loopback address of its own.

        Returns the revision of each, by its address.
        """
        pods = [pod for pod in await self._kube.list(kinds.POD) if _detector_of(pod) in chosen]
        of = {f"127.3.{n // 250}.{n % 250 + 1}": pod for n, pod in enumerate(pods)}
        await each(of.items(), self._be_ready)
        return {
            address: pod["metadata"]["labels"][names.REVISION_LABEL] for address, pod in of.items()
        }

    async def _be_ready(self, placed: tuple[str, Manifest]) -> None:
        address, pod = placed
        metadata = pod["metadata"]
        told = {"status": ready(address, pod)}
        await self._kube.merge(kinds.POD, metadata["namespace"], metadata["name"], told, "status")

    async def floors(self, chosen: Collection[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """Return the fewest replicas that each one's autoscaler may choose, as the status says."""
        return {
            one: (raw["status"].get("autoscaling") or {}).get("floor") or 0
            for raw in await self._kube.list(kinds.DETECTOR)
            if (one := (raw["metadata"]["namespace"], raw["metadata"]["name"])) in chosen
        }

    async def children(self) -> Counter[str]:
        """Return how many children there are of each kind."""
        found: Counter[str] = Counter()
        for kind in kinds.CHILDREN:
            if await self._kube.client.serves(kind):
                selector = kinds.selector_of(kind)
                found[kind.name] = len(await self._kube.list(kind, selector=selector))
        return found

    async def unready(self) -> int:
        """Return how many detectors do not say that they are ready and routed as asked."""
        return sum(not _as_asked(raw) for raw in await self._kube.list(kinds.DETECTOR))

    async def report_autoscalers(self, round_: int, period_s: float, for_s: float) -> None:
        """Write each autoscaler's status every `period_s`, as its controller does, for a while."""
        found = await self._kube.list(kinds.HPA)
        pause = period_s / max(len(found), 1)
        for number in range(int(for_s / pause)):
            hpa = found[number % len(found)]
            status = {
                "currentReplicas": 2,
                "desiredReplicas": 2,
                "observedGeneration": round_ + number,
            }
            metadata = hpa["metadata"]
            await self._kube.merge(
                kinds.HPA, metadata["namespace"], metadata["name"], {"status": status}, "status"
            )
            await asyncio.sleep(pause)


async def run_pods(kube: Kube) -> int:
    """Stand in for Deployment controller, scheduler and kubelets: what is asked for, runs.

    Each replica becomes a pod object, so that caches hold what they would hold; pods carry no
    status, and nothing runs. Returns how many Deployments were behind.
    """
    deployments = await kube.list(kinds.DEPLOYMENT)
    behind = [deployment for deployment in deployments if _behind(deployment)]
    await each(behind, partial(_run, kube))
    return len(behind)


async def _run(kube: Kube, deployment: Manifest) -> None:
    metadata, replicas = deployment["metadata"], deployment["spec"]["replicas"]
    had = deployment.get("status", {}).get("replicas", 0)
    for number in range(had, replicas):
        await kube.create(_pod(deployment, number))
    for number in range(replicas, had):
        name = f"{metadata['name']}-{number}"
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
        path = kinds.POD.path(metadata["namespace"], name)
        await kube.client.send(Request("DELETE", path, body=body))
    counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    status = dict.fromkeys(counts, replicas) | {"observedGeneration": metadata["generation"]}
    address = {name: metadata[name] for name in ("name", "namespace", "uid")}
    patch = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": address}
    await kube.client.send(
        apply(patch | {"status": status}, "kcm", force=True, subresource="status")
    )


def ready(address: str, pod: Manifest) -> Manifest:
    """Return what a kubelet tells of a pod that runs at `address`, and is ready."""
    conditions = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    running = {
        "ready": True,
        "started": True,
        "restartCount": 0,
        "state": {"running": {"startedAt": pod["metadata"]["creationTimestamp"]}},
    }
    return {
        "phase": "Running",
        "podIP": address,
        "conditions": [{"type": name, "status": "True"} for name in conditions],
        "containerStatuses": [
            {"name": one["name"], "image": one["image"], "imageID": one["image"]} | running
            for one in pod["spec"]["containers"]
        ],
    }


def _detector_of(pod: Manifest) -> tuple[str, str]:
    metadata = pod["metadata"]
    return metadata["namespace"], (metadata.get("labels") or {}).get(names.DETECTOR_LABEL, "")


def _behind(deployment: Manifest) -> bool:
    status = deployment.get("status", {})
    wanted = deployment["spec"]["replicas"], deployment["metadata"]["generation"]
    return (status.get("availableReplicas", 0), status.get("observedGeneration", 0)) != wanted


def _pod(deployment: Manifest, number: int) -> Manifest:
    template, metadata = deployment["spec"]["template"], deployment["metadata"]
    told = template["metadata"] | {
        "name": f"{metadata['name']}-{number}",
        "namespace": metadata["namespace"],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": told, "spec": template["spec"]}


def _as_asked(raw: Manifest) -> bool:
    status, canary = raw.get("status", {}), raw["spec"].get("canary")
    ready = any(
        c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ())
    )
    routed = (status.get("canary") or {}).get("weight", 0) == (canary or {}).get("weight", 0)
    return ready and routed


def copies(children: Sequence[Manifest], count: int) -> list[tuple[Kind, Manifest]]:
    """Return `count` objects like `children`, under other names, that no operator looks after."""
    made = []
    for number in range(count):
        child = children[number % len(children)]
        metadata = {
            "name": f"{child['metadata']['name']}-{number}",
            "namespace": CEILING,
            "labels": {**child["metadata"]["labels"], names.MANAGED_BY_LABEL: "bench"},
            "annotations": child["metadata"].get("annotations", {}),
        }
        own = {k: v for k, v in child.items() if k not in ("metadata", "status")}
        if "spec" in own:
            assigned = ("clusterIP", "clusterIPs")
            own["spec"] = {k: v for k, v in own["spec"].items() if k not in assigned}
        made.append((kind_of(child), own | {"metadata": metadata}))
    return made


CEILING: Final = "bench-ceiling"


async def make_ceiling_namespace(kube: Kube) -> None:
    """Make the namespace in which the API server is measured alone."""
    if not await kube.find(NAMESPACE, "", CEILING):
        metadata = {"name": CEILING}
        await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
