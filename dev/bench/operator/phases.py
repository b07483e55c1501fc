"""The measurements, in the order in which they are made; each returns its numbers by name."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

from bench.operator.audit import Audit, Write, last_effects, repairs
from bench.operator.fleet import (
    AT_ONCE,
    CEILING,
    REPLICAS,
    Fleet,
    copies,
    each,
    make_ceiling_namespace,
)
from bench.operator.gauges import Scrape, mean, quantile, usage
from bench.pods import played
from controlplane.kube import Kube, eventually
from controlplane.plane import OPERATOR, ControlPlane
from controlplane.process import OperatorProcess
from yolofleet.api.names import PLURAL, Manifest
from yolofleet.cluster import kinds
from yolofleet.plan.floor import EVERY
from yolofleet.runtime.kind import LEASE, Kind

Numbers = dict[str, float]

DRAIN_S: Final = 3  # so that what is drained goes within the run, and not within a measurement
EDITS: Final = 120
EDITS_PER_S: Final = 2.0  # what one edit causes, the next does not wait for
LAG: Final = "yolofleet_event_loop_lag_seconds"
RECONCILE: Final = "controller_runtime_reconcile_time_seconds"


@dataclass
class Bench:
    """One control plane with one fleet and the operator that looks after it."""

    plane: ControlPlane
    audit: Audit
    kube: Kube
    fleet: Fleet
    logs: Path
    idle_s: float
    replicas: list[OperatorProcess] = field(default_factory=list)
    operator: OperatorProcess | None = None

    @property
    def size(self) -> int:
        """Return how many detectors there are."""
        return len(self.fleet.all)

    async def start(self, **more: str) -> OperatorProcess:
        """Start another replica and wait until it is ready; `more` is of its environment."""
        environment = {
            "YOLOFLEET_LEASE_NAMESPACE": "default",
            "YOLOFLEET_DRAIN_SECONDS": str(DRAIN_S),
            "YOLOFLEET_LOG_LEVEL": "WARNING",
        } | more
        log = self.logs / f"operator-{len(self.replicas)}.log"
        replica = OperatorProcess(self.plane.kubeconfig(OPERATOR), log, environment, fresh=True)
        self.replicas.append(replica)
        replica.start()
        await replica.ready(300)
        return replica

    async def leader(self) -> OperatorProcess:
        """Return the replica that leads; start one if there is none."""
        if self.operator is None:
            self.operator = await self.start()
            await eventually(self.operator.leads, 60)
        return self.operator

    def end(self) -> None:
        """End all replicas, and show what they complained of."""
        for replica in self.replicas:
            replica.kill()
            for line in replica.log(level="error"):
                print(f"operator: {line}")

    async def settle(self) -> None:
        """Let pods run and the operator write until neither has anything left to do."""
        last = await self.audit.quiet(1.0)
        while True:
            ran = await self.fleet.run_pods()
            before, last = last, await self.audit.quiet(DRAIN_S + 1.0)
            if not ran and last == before:
                return

    async def stable(self, namespace: str, name: str) -> str:
        """Return the stable revision of a detector."""
        raw = await self.kube.get(kinds.DETECTOR, namespace, name)
        return str(raw["status"]["stable"]["revision"])

    async def lease(self) -> str:
        """Return who holds the Lease."""
        found = await self.kube.find(LEASE, "default", "yolofleet")
        return str((found or {"spec": {}})["spec"].get("holderIdentity") or "")

    async def taken_over(self, before: str) -> float:
        """Wait until another than `before` holds the Lease; return when."""

        async def another() -> bool:
            return await self.lease() not in ("", before)

        await eventually(another, 60)
        return time.time()

    async def repaired(self, one: tuple[str, str], since: float) -> float:
        """Wait until the operator has written a detector's Service after `since`; return when."""

        def mended() -> list[float]:
            writes = (w for w in self.audit.since(since) if w.of_child)
            return [w.at for w in writes if (w.resource, w.name) == ("services", one[1])]

        found: list[float] = await eventually(mended, 60)
        return min(found)

    async def spread(
        self, causes: Callable[[int], Coroutine[Any, Any, None]], is_cause: Callable[[Write], bool]
    ) -> tuple[list[Write], list[Write]]:
        """Cause something `EDITS` times, `EDITS_PER_S` a second; return causes and all writes."""
        started = time.time()
        async with asyncio.TaskGroup() as group:
            for number in range(EDITS):
                group.create_task(causes(number))
                await asyncio.sleep(1 / EDITS_PER_S)
        await self.audit.quiet(1.5)
        writes = self.audit.since(started)
        return [w for w in writes if w.user == "admin" and w.code < 400 and is_cause(w)], writes


async def burst(bench: Bench) -> Numbers:
    """All detectors at once: from the first request to the last child."""
    leader = await bench.leader()
    began, before, cpu = time.time(), Scrape(leader.port), usage(leader.pid)
    await bench.fleet.create()
    created = time.time()
    ended = await bench.audit.quiet()
    writes, after = bench.audit.since(began), Scrape(leader.port)
    spent = usage(leader.pid).cpu_s - cpu.cpu_s
    children = [w for w in writes if w.of_child]
    status = [w for w in writes if w.of_operator and w.resource == PLURAL]
    seconds = max(w.at for w in children) - began
    found = await bench.fleet.children()
    assert sum(found.values()) % bench.size == 0, f"some detectors lack children: {found}"
    return {
        "burst_s": seconds,
        "burst_crs_created_s": created - began,
        "burst_all_quiet_s": ended - began,
        "burst_child_writes_per_s": len(children) / seconds,
        "burst_children_per_cr": sum(found.values()) / bench.size,
        "burst_child_writes_per_cr": len(children) / bench.size,
        "burst_status_writes_per_cr": len(status) / bench.size,
        "burst_events_per_cr": sum(w.resource == "events" for w in writes) / bench.size,
        "burst_refused_writes": sum(w.of_operator and w.code >= 400 for w in writes),
        "burst_cpu_ms_per_cr": 1000 * spent / bench.size,
        "burst_lag_p99_s": quantile(before, after, LAG, 0.99),
    }


async def serving(bench: Bench) -> Numbers:
    """All pods run: the operator moves the canaries' weights and says that all are ready."""
    began = time.time()
    await bench.settle()
    writes = [w for w in bench.audit.since(began) if w.of_operator]
    assert not (left := await bench.fleet.unready()), f"{left} detectors are not as asked"
    return {"ready_writes_per_cr": len(writes) / bench.size}


async def ceiling(bench: Bench) -> Numbers:
    """The API server alone, with the same kinds of objects: what no operator can exceed."""
    await make_ceiling_namespace(bench.kube)
    children = [
        {**child, "kind": kind.name, "apiVersion": kind.api_version}
        for kind in kinds.CHILDREN
        if await bench.kube.client.serves(kind)
        for child in await bench.kube.list(kind, bench.fleet.all[0][0])
        if child["metadata"]["name"].startswith(bench.fleet.all[0][1])
    ]
    numbers: Numbers = {}
    for at_once in (1, 10, 30):
        made = copies(children, 100 if at_once == 1 else 300)
        for what in ("create", "noop", "change"):
            if what == "change":
                for _, manifest in made:
                    manifest["metadata"]["annotations"] = {"bench": "changed"}
            times: list[float] = []
            began = time.perf_counter()
            await each(made, partial(_timed, bench.kube, times), at_once)
            rate = len(made) / (time.perf_counter() - began)
            numbers[f"ceiling_{what}_per_s_c{at_once}"] = rate
            numbers[f"ceiling_{what}_p50_s_c{at_once}"] = _quantile(times, 50)
            numbers[f"ceiling_{what}_p99_s_c{at_once}"] = _quantile(times, 99)
        await each(
            made,
            lambda one: bench.kube.delete(one[0], CEILING, one[1]["metadata"]["name"]),
            AT_ONCE,
        )
    return numbers


async def _timed(kube: Kube, times: list[float], one: tuple[Kind, Manifest]) -> None:
    kind, manifest = one
    began = time.perf_counter()
    await kube.apply({"apiVersion": kind.api_version, "kind": kind.name, **manifest})
    times.append(time.perf_counter() - began)


async def edits(bench: Bench) -> Numbers:
    """One user edits one detector at a time, all others are idle: until the last child."""

    def of_spec(write: Write) -> bool:
        return write.resource == PLURAL and not write.subresource

    async def weight(number: int) -> None:
        one = bench.fleet.all[number % bench.size]
        share = 20 if (number // bench.size) % 2 == 0 else 10
        await bench.fleet.edit(one, canary={"weight": share})

    async def model(number: int) -> None:
        one = bench.fleet.all[number % bench.size]
        uri = f"https://models.example.com/v{number // bench.size}.onnx"
        await bench.fleet.edit(one, canary={"model": {"uri": uri}})

    numbers: Numbers = {}
    for name, work in (("weight", weight), ("revision", model)):
        causes, writes = await bench.spread(work, of_spec)
        found = list(last_effects(causes, writes))
        numbers |= _spread(f"edit_{name}", found, len(causes))
        await bench.settle()
    return numbers


async def drift(bench: Bench) -> Numbers:
    """Somebody changes or deletes a child: until the operator has put it right."""
    kube = bench.kube

    async def harm(number: int) -> None:
        namespace, name = bench.fleet.all[number % bench.size]
        match (number // bench.size + number) % 4:
            case 0:
                selector = {"spec": {"selector": {"app": "mine"}}}
                await kube.merge(kinds.SERVICE, namespace, name, selector)
            case 1:
                route = {"spec": {"hosts": ["evil.example.com"]}}
                await kube.merge(kinds.VIRTUAL_SERVICE, namespace, name, route)
            case 2:
                await kube.delete(kinds.PDB, namespace, name)
            case _:
                stable = await bench.stable(namespace, name)
                more = {"spec": {"replicas": REPLICAS + 3}}
                await kube.merge(kinds.DEPLOYMENT, namespace, stable, more)

    def of_child(write: Write) -> bool:
        return write.resource != PLURAL

    causes, writes = await bench.spread(harm, of_child)
    numbers = _spread("drift", list(repairs(causes, writes)), len(causes))
    await bench.settle()
    return numbers


async def nothing_new(bench: Bench) -> Numbers:
    """Events that change nothing: what a reconcile costs that finds all in order."""
    leader = await bench.leader()
    chosen = random.sample(bench.fleet.all, min(500, bench.size))
    before, cpu, began = Scrape(leader.port), usage(leader.pid), time.time()
    rounds = max(1, 100 // len(chosen))
    for round_ in range(rounds):
        await each(chosen, partial(bench.fleet.label, str(round_)), 2)
        await asyncio.sleep(0.5)
    await asyncio.sleep(1.0)
    spent, after = usage(leader.pid).cpu_s - cpu.cpu_s, Scrape(leader.port)
    writes = [w for w in bench.audit.since(began) if w.of_operator]
    return {
        "noop_reconcile_ms": 1000 * mean(before, after, RECONCILE),
        "noop_cpu_ms_with_its_event": 1000 * spent / (rounds * len(chosen)),
        "noop_writes": len(writes),
    }


async def autoscalers(bench: Bench) -> Numbers:
    """An autoscaler a detector, and its status written every 15 s: noise to be ignored."""
    began = time.time()
    scaled = {"minReplicas": REPLICAS, "maxReplicas": 2 * REPLICAS}
    await each(
        bench.fleet.all, lambda one: bench.fleet.edit(one, replicas=None, autoscaling=scaled)
    )
    ended = await bench.audit.quiet()
    writes = [w for w in bench.audit.since(began) if w.of_operator]
    await bench.settle()
    leader, noisy = await bench.leader(), time.time()
    cpu = usage(leader.pid)
    await bench.fleet.report_autoscalers(int(noisy), 15.0, 30.0)
    spent, passed = usage(leader.pid).cpu_s - cpu.cpu_s, time.time() - noisy
    caused = [w for w in bench.audit.since(noisy) if w.of_operator]
    return {
        "fleet_edit_s": ended - began,
        "fleet_edit_writes_per_cr": len(writes) / bench.size,
        "hpa_events_per_s": min(bench.size / 15.0, 1e9),
        "hpa_cpu_percent": 100 * spent / passed,
        "hpa_writes": len(caused),
    }


async def restart(bench: Bench) -> Numbers:
    """Stop the operator and start it again over a fleet that is as it should be."""
    old = await bench.leader()
    old.terminate()
    began = time.time()
    bench.operator = replica = await bench.start()
    ready = time.time() - began
    await eventually(replica.leads, 60)

    async def all_looked_at() -> bool:
        await asyncio.sleep(0.5)
        seen = Scrape(replica.port)
        looked = seen.value("controller_runtime_reconcile_total")
        return looked >= bench.size and not seen.value("workqueue_depth")

    await eventually(all_looked_at, 600)
    looked, cpu = time.time() - began, usage(replica.pid).cpu_s
    await bench.audit.quiet()
    first = Scrape(replica.port)
    writes = [w for w in bench.audit.since(began) if w.of_operator]
    return {
        "restart_ready_s": ready,
        "restart_all_reconciled_s": looked,
        "restart_writes": len(writes),
        "restart_cpu_s": cpu,
        "restart_reconcile_ms": 1000
        * first.value(f"{RECONCILE}_sum")
        / max(first.value(f"{RECONCILE}_count"), 1),
    }


async def idle(bench: Bench) -> Numbers:
    """Nobody does anything. What a resync costs is measured at a standby that does it often."""
    leader = await bench.leader()
    began, before, cpu = time.time(), Scrape(leader.port), usage(leader.pid).cpu_s
    await asyncio.sleep(bench.idle_s)
    now = usage(leader.pid)
    percent = 100 * (now.cpu_s - cpu) / (time.time() - began)
    after = Scrape(leader.port)
    told = bench.audit.since(began)
    objects, seconds = after.value("yolofleet_children"), time.time() - began
    resync_s = await _resync_cpu_s(bench, percent)
    return {
        "idle_writes": sum(w.of_operator for w in told),
        "idle_events": sum(w.resource == "events" for w in told),
        "idle_lease_writes_per_s": sum(w.resource == "leases" for w in told) / seconds,
        "idle_cpu_percent": percent,
        "resync_cpu_s": resync_s,
        "idle_cpu_percent_with_resyncs": percent + 100 * resync_s / 600,
        "idle_lag_p99_s": quantile(before, after, LAG, 0.99),
        "rss_mib": now.rss_mib,
        "rss_peak_mib": now.peak_mib,
        "objects": objects,
        "rss_bound_mib": 60 + 35 * objects / 1024,
    }


async def _resync_cpu_s(bench: Bench, idle_percent: float) -> float:
    every_s, times = 15, 3
    standby = await bench.start(YOLOFLEET_RESYNC_SECONDS=str(every_s))
    await asyncio.sleep(every_s / 2)  # between two of them, whatever the jitter
    cpu = usage(standby.pid).cpu_s
    await asyncio.sleep(every_s * times)
    spent = usage(standby.pid).cpu_s - cpu
    standby.kill()
    return max(0.0, spent - every_s * times * idle_percent / 100) / times


async def fail_over(bench: Bench, rounds: int = 3) -> Numbers:
    """End the leader; until another leads, and has repaired what was harmed meanwhile."""
    numbers: Numbers = {}
    for name, number in (("sigterm", signal.SIGTERM), ("sigkill", signal.SIGKILL)):
        taken, repaired = [], []
        for _ in range(rounds):
            old, standby = await bench.leader(), await bench.start()
            lease = await bench.lease()
            one = random.choice(bench.fleet.all)
            began = time.time()
            old.signal(number)
            await bench.kube.merge(
                kinds.SERVICE, *one, {"spec": {"selector": {"app": f"mine{time.time()}"}}}
            )
            taken.append(await bench.taken_over(lease) - began)
            bench.operator = standby
            repaired.append(await bench.repaired(one, began) - began)
            old.kill()
        numbers[f"failover_{name}_s"] = max(taken)
        numbers[f"failover_{name}_repaired_s"] = max(repaired)
    return numbers


FOLLOWED: Final = 100
FEW: Final = 410  # requests a look of 15 s, 20 ms each: 0.55 in flight
MANY: Final = 1390  # the same: 1.85
LOOKED: Final = 2 * EVERY.total_seconds() + 2  # until each has been looked at again


async def floors(bench: Bench) -> Numbers:
    """A hundred are scaled by their load: pods are played that tell it, and have more at once."""
    leader, chosen = await bench.leader(), bench.fleet.all[:FOLLOWED]
    await bench.settle()
    before = await _cpu_percent(leader, bench.idle_s)
    scaled = {"minReplicas": 1, "maxReplicas": 10, "inFlight": 1, "provider": "builtin"}
    await each(chosen, lambda one: bench.fleet.edit(one, replicas=None, autoscaling=scaled))
    await bench.settle()
    addresses = await bench.fleet.give_addresses(chosen)
    with played(addresses) as requests:
        requests.value = FEW
        await asyncio.sleep(LOOKED)
        await bench.audit.quiet(5.0)
        began, told = time.time(), await bench.fleet.floors(chosen)
        percent = await _cpu_percent(leader, bench.idle_s)
        unmoved = [w for w in bench.audit.since(began) if w.of_operator]
        moved_at, requests.value = time.time(), MANY
        await asyncio.sleep(LOOKED)
        await bench.audit.quiet(5.0)
    writes = [w for w in bench.audit.since(moved_at) if w.of_operator]
    now = await bench.fleet.floors(chosen)
    moved = [one for one in chosen if now[one] > told[one]]
    assert moved, f"no floor of {len(chosen)} was moved: {sorted(told.values())}"
    return {
        "floors_followed": len(chosen),
        "floors_pods": len(addresses),
        "floors_cpu_percent_above_idle": percent - before,
        "floors_idle_writes": len(unmoved),
        "floors_moved": len(moved),
        "floors_writes_a_move": sum(w.of_child for w in writes) / len(moved),
        "floors_status_writes_a_move": sum(w.resource == PLURAL for w in writes) / len(moved),
    }


async def _cpu_percent(replica: OperatorProcess, for_s: float) -> float:
    cpu, began = usage(replica.pid).cpu_s, time.time()
    await asyncio.sleep(for_s)
    return 100 * (usage(replica.pid).cpu_s - cpu) / (time.time() - began)


def _quantile(values: Sequence[float], percent: int) -> float:
    if len(values) < 2:
        return float("nan")
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def _spread(name: str, found: Sequence[float], causes: int) -> Numbers:
    return {
        f"{name}_p50_s": _quantile(found, 50),
        f"{name}_p99_s": _quantile(found, 99),
        f"{name}_max_s": max(found, default=float("nan")),
        f"{name}_seen": len(found),
        f"{name}_caused": causes,
    }


PHASES: Final = (
    burst,
    serving,
    ceiling,
    edits,
    drift,
    nothing_new,
    autoscalers,
    restart,
    idle,
    floors,
    fail_over,
)
