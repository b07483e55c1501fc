"""Our operator beside its peers: the same measurements of each, one after the other, in turns.

Each gets a control plane of its own, of the same programs. What it wrote is read from the API
server's audit log, what it costs from the kernel.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from bench.operator.audit import OWNERS, Audit, Write, audited_plane, by_namespace, last_effects
from bench.operator.contenders import Contender, Manager
from bench.operator.fleet import SHARDS, each, ready, run_pods
from bench.operator.gauges import Scrape, usage
from bench.operator.phases import Numbers
from bench.rounds import medians
from controlplane.kube import Kube, connect, eventually
from controlplane.plane import ControlPlane
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime.client import Request

EDITS = 40
EDITS_PER_S = 2.0  # each in another namespace than the nine before it
LOOKED_AT = "controller_runtime_reconcile_total"  # controller-runtime's names, which ours are too
WAITING = "workqueue_depth"


def measured(
    contenders: Sequence[Contender], size: int, idle_s: float, rounds: int
) -> dict[str, Numbers]:
    """Measure each in turn, `rounds` times; return the median of each number, by name."""
    taken: dict[str, list[Numbers]] = {each.name: [] for each in contenders}
    for _ in range(rounds):
        for contender in contenders:
            began = time.time()
            found = asyncio.run(_measure(contender, size, idle_s))
            taken[contender.name].append(found)
            rounded = json.dumps({name: round(value, 4) for name, value in found.items()})
            print(
                f"{size:>5} {contender.name} ({time.time() - began:.0f} s): {rounded}", flush=True
            )
    return {name: medians(found) for name, found in taken.items()}


@dataclass
class Side:
    """One contender on its control plane, with its objects."""

    contender: Contender
    plane: ControlPlane
    audit: Audit
    kube: Kube
    objects: list[tuple[str, str]]
    manager: Manager

    async def create(self) -> None:
        """Make all objects, twenty at a time."""
        await each(self.objects, self._create)

    async def _create(self, one: tuple[str, str]) -> None:
        path = self.contender.kind.path(one[0])
        await self.kube.client.send(Request("POST", path, {}, self.contender.manifest(*one)))

    async def edit(self, number: int) -> None:
        """Change an object so that one child changes; the second time around, back again."""
        namespace, name = self.objects[number % len(self.objects)]
        turn = (number // len(self.objects) + 1) % 2
        spec = {"spec": self.contender.spec(name, turn)}
        await self.kube.merge(self.contender.kind, namespace, name, spec)

    async def settle(self) -> None:
        """Let all pods run, until neither they nor the manager have anything left to do."""
        while True:
            last = await self.audit.quiet(4.0)
            ran = await run_pods(self.kube) + await ready_pods(self.kube)
            if not ran and await self.audit.quiet(4.0) == last:
                return

    async def ready(self, timeout_s: float = 120.0) -> float:
        """Start the manager; return the seconds until its probe answers."""
        began = time.monotonic()
        self.manager.start()
        while await asyncio.to_thread(self.manager.probe, "readyz") != 200:
            if time.monotonic() - began > timeout_s:
                raise TimeoutError(f"not ready:\n{self.manager.text()[-4000:]}")
            await asyncio.sleep(0.01)
        return time.monotonic() - began

    def api_server_cpu_s(self) -> float:
        """Return what the API server has spent."""
        assert self.plane.apiserver.process is not None
        return usage(self.plane.apiserver.process.pid).cpu_s

    def writes(self, since: float) -> list[Write]:
        """Return what the manager wrote, but its Lease and Events."""
        return [write for write in self.audit.since(since) if write.of_operator]


async def _measure(contender: Contender, size: int, idle_s: float) -> Numbers:
    with (
        tempfile.TemporaryDirectory(prefix="yolofleet-bench-") as logs,
        audited_plane() as (plane, audit),
    ):
        async with connect(plane.kubeconfig()) as client:
            kube = Kube(client)
            await contender.install(plane, kube)
            objects = [(f"bench-{n % SHARDS}", f"d{n:05}") for n in range(size)]
            for namespace in sorted({namespace for namespace, _ in objects}):
                metadata = {"name": namespace}
                await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
            manager = contender.manager(plane, Path(logs) / "manager.log")
            try:
                side = Side(contender, plane, audit, kube, objects, manager)
                numbers = {"ready_s": await side.ready()}
                for part in PARTS:
                    numbers |= await part(side)
                return numbers | await _idle(side, idle_s)
            finally:
                manager.kill()


async def _burst(side: Side) -> Numbers:
    """All objects at once: from the first request to the last write."""
    pid = side.manager.pid
    began, cpu, of_server = time.time(), usage(pid).cpu_s, side.api_server_cpu_s()
    await side.create()
    ended = await side.audit.quiet(5.0)
    spent, served = usage(pid).cpu_s - cpu, side.api_server_cpu_s() - of_server
    writes = side.writes(began)
    children = [write for write in writes if write.of_child]
    events = [write for write in side.audit.since(began) if write.resource == "events"]
    size = len(side.objects)
    assert len(children) >= size, f"{len(children)} children:\n{side.manager.text()[-4000:]}"
    return {
        "burst_s": ended - began,
        "burst_writes_per_s": len(writes) / (ended - began),
        "burst_children": len(children) / size,
        "burst_own_writes": sum(write.resource in OWNERS for write in writes) / size,
        "burst_refused": sum(write.code >= 400 for write in writes) / size,
        "burst_events": len(events) / size,
        "burst_cpu_ms_per_child": 1000 * spent / len(children),
        "burst_server_cpu_ms_per_child": 1000 * served / len(children),
    }


async def _edits(side: Side) -> Numbers:
    """One user edits one object at a time: until its child is written."""
    await side.settle()
    began = time.time()
    async with asyncio.TaskGroup() as group:
        for number in range(EDITS):
            group.create_task(side.edit(number))
            await asyncio.sleep(1 / EDITS_PER_S)
    await side.audit.quiet(3.0)
    writes = side.audit.since(began)
    causes = [w for w in writes if w.user == "admin" and w.resource in OWNERS and not w.subresource]
    found = sorted(last_effects(causes, writes, by_namespace))
    assert found, f"no edit had an effect:\n{side.manager.text()[-4000:]}"
    return {
        "edit_child_p50_s": median(found),
        "edit_child_max_s": found[-1],
        "edit_answer_p50_s": median(w.took for w in writes if w.of_child),
        "edit_seen": len(found),
        "edit_children": sum(w.of_child for w in writes) / len(causes),
    }


async def _restart(side: Side) -> Numbers:
    """Stop it and start it again over objects that are as they should be."""
    await side.settle()
    side.manager.terminate()
    began = time.time()
    ready = await side.ready()

    async def all_looked_at() -> bool:
        await asyncio.sleep(0.2)
        seen = await asyncio.to_thread(Scrape, side.manager.port)
        return seen.value(LOOKED_AT) >= len(side.objects) and not seen.value(WAITING)

    await eventually(all_looked_at, 300)
    looked, cpu = time.time() - began, usage(side.manager.pid).cpu_s
    await side.audit.quiet(5.0)
    return {
        "restart_ready_s": ready,
        "restart_all_looked_at_s": looked,
        "restart_cpu_s": cpu,
        "restart_writes": len(side.writes(began)),
    }


async def _idle(side: Side, idle_s: float) -> Numbers:
    """Nobody does anything."""
    began, before = time.time(), usage(side.manager.pid)
    await asyncio.sleep(idle_s)
    now, passed = usage(side.manager.pid), time.time() - began
    return {
        "idle_cpu_percent": 100 * (now.cpu_s - before.cpu_s) / passed,
        "idle_writes": len(side.writes(began)),
        "memory_idle_mib": now.rss_mib,
        "memory_peak_mib": now.peak_mib,
    }


PARTS: Sequence[Callable[[Side], Awaitable[Numbers]]] = (_burst, _edits, _restart)


async def ready_pods(kube: Kube) -> int:
    """Stand in for kubelets: all pods run and are ready. Returns how many were not yet."""
    pods = [pod for pod in await kube.list(kinds.POD) if not pod.get("status", {}).get("podIP")]
    await each(list(enumerate(pods)), partial(_make_ready, kube))
    return len(pods)


async def _make_ready(kube: Kube, numbered: tuple[int, Manifest]) -> None:
    number, pod = numbered
    metadata = pod["metadata"]
    address = f"10.{number // 65536}.{number // 256 % 256}.{number % 256}"
    told = {"status": ready(address, pod)}
    await kube.merge(kinds.POD, metadata["namespace"], metadata["name"], told, "status")
