"""What pods of all namespaces hold of the nodes' accelerators, without watching them all.

Our own pods are watched. The others are listed when a detector asks for an accelerator, at most
every few seconds for all detectors together, node by node of those that offer one, and reduced at
once to amounts per node: the rest of a large cluster is never asked about. A node that came since
is listed by itself; one that changed is not: who holds what there did not change by it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from yolofleet.api.detector import Detector
from yolofleet.api.names import MANAGED_BY, MANAGED_BY_LABEL, Manifest
from yolofleet.cluster import kinds
from yolofleet.cluster.cache import Cache
from yolofleet.cluster.devices import DeviceLists
from yolofleet.plan.devices import Devices, devices_for, needs_devices
from yolofleet.plan.inventory import Holder
from yolofleet.plan.nodes import NodeRoom, needs_accelerators, offered, rooms
from yolofleet.runtime.client import Client
from yolofleet.runtime.errors import Forbidden
from yolofleet.workloads.accelerators import place, pod_requests

FRESH_S: Final = 5.0
"""How long a list serves all detectors. What changes meanwhile the scheduler sees, and tells."""

REFUSED_S: Final = 120.0
"""How long it is not asked again whether the pods of all namespaces may be seen by now."""

AT_ONCE: Final = 4
"""Nodes whose pods are asked for at the same time."""

_RUNNING: Final = "spec.nodeName={},status.phase!=Succeeded,status.phase!=Failed"

Held = Mapping[str, Counter[str]]
"""Per node: how much of each accelerator pods hold."""


class Accelerators:
    """Tells each detector how much room there is, and remembers who waits for some."""

    def __init__(
        self,
        client: Client,
        cache: Cache,
        *,
        namespaces: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._cache = cache
        self._namespaces = frozenset(namespaces)
        self._clock = clock
        self._devices = DeviceLists(client, cache, namespaces=namespaces, clock=clock)
        self._lock = asyncio.Lock()
        self._listed = float("-inf")
        self._foreign: Held = {}  # of each node that was listed
        self._blind = False
        self._refused = float("-inf")
        self._nodes: tuple[int, list[Manifest]] = (-1, [])
        self._waiting: set[str] = set()
        self._claiming: set[str] = set()

    async def found_by(
        self, detector: Detector, children: Sequence[Manifest]
    ) -> tuple[tuple[NodeRoom, ...], frozenset[str] | None]:
        """Return the nodes as `detector` finds them now, and by which classes it can claim devices.

        Nothing is asked for who asks for no accelerator.
        """
        if not needs_accelerators(detector, children):
            return (), None
        if not needs_devices(detector, children):
            self._claiming.discard(detector.key)
            return await self.rooms(detector.key), None
        self._claiming.add(detector.key)
        inventory = await self._devices.inventory()
        devices = devices_for(detector, children, inventory, self._gone)
        nodes = await self.rooms(detector.key, devices)
        return nodes, None if inventory.classes is None else frozenset(inventory.classes)

    def _gone(self, holder: Holder) -> bool:
        """Say whether the pod is gone that claimed a device, if it was one that is watched."""
        namespace = holder.detector.partition("/")[0]
        watched = namespace and (not self._namespaces or namespace in self._namespaces)
        return bool(watched and holder.pod) and not self._cache.has(holder.pod)

    async def rooms(self, key: str, devices: Devices | None = None) -> tuple[NodeRoom, ...]:
        """Return the nodes with accelerators as the detector `key` finds them now."""
        async with self._lock:  # one list serves all who came meanwhile
            names = [node["metadata"]["name"] for node in self._known_nodes() if offered(node)]
            if self._clock() - self._listed > FRESH_S:
                self._foreign, self._blind = await self._list(names)
                self._listed = self._clock()
            elif new := [name for name in names if name not in self._foreign]:
                found, blind = await self._list(new)
                self._foreign, self._blind = {**self._foreign, **found}, self._blind or blind
        held, listed = _sum(self._foreign, self._cache.held()), self._foreign.keys()
        # What came meanwhile is left out: nobody knows yet what others hold there.
        nodes = [
            n for n in self._known_nodes() if n["metadata"]["name"] in listed or not offered(n)
        ]
        pods = self._cache.pods(key)
        return rooms(nodes, held, pods, blind=self._blind, devices=devices)

    def waits(self, key: str, waits: bool) -> None:
        """Remember whether the detector `key` waits for an accelerator."""
        if waits:
            self._waiting.add(key)
        else:
            self._waiting.discard(key)

    def waiting(self, claiming: bool) -> list[str]:
        """Return the detectors that wait: a node that changed may be what they need.

        claiming: only those that claim devices, which may be on any node.
        """
        for known in (self._waiting, self._claiming):
            known.intersection_update(self._cache.detectors())
        return list(self._waiting & self._claiming if claiming else self._waiting)

    async def _list(self, nodes: Sequence[str]) -> tuple[Held, bool]:
        """List the pods that hold something; without the right to see all, those we may see.

        Says as well whether it was without that right.
        """
        if self._clock() - self._refused > REFUSED_S:
            try:  # with one question first: of thousands each would be refused
                found = await self._pods(nodes[:1], [""]) + await self._pods(nodes[1:], [""])
            except Forbidden:
                if self._namespaces:  # without any it is a fault that may pass, and we see nothing
                    self._refused = self._clock()
            else:
                return _by_node(nodes, found), False
        found = await self._pods(nodes, sorted(self._namespaces))
        return _by_node(nodes, found), bool(nodes)

    async def _pods(
        self, nodes: Sequence[str], namespaces: Sequence[str]
    ) -> list[tuple[str, dict[str, int]]]:
        at_once = asyncio.Semaphore(AT_ONCE)

        async def on(node: str, namespace: str) -> list[tuple[str, dict[str, int]]]:
            try:
                async with at_once:
                    listing = await self._client.list(
                        kinds.POD, self._reduced, namespace=namespace, fields=_RUNNING.format(node)
                    )
            except Forbidden:
                if not namespace:
                    raise
                return []  # its rights went with it
            return [holding for holding in listing.items if holding[1]]

        questions = [
            asyncio.create_task(on(node, namespace)) for node in nodes for namespace in namespaces
        ]
        try:
            return [holding for found in await asyncio.gather(*questions) for holding in found]
        finally:
            for question in questions:  # after one that failed the others are asked for nobody
                question.cancel()

    def _reduced(self, pod: Manifest) -> tuple[str, dict[str, int]]:
        """Return what `pod` holds and where; nothing for a pod that is watched anyway."""
        metadata = pod["metadata"]
        ours = (metadata.get("labels") or {}).get(MANAGED_BY_LABEL) == MANAGED_BY
        watched = ours and (not self._namespaces or metadata["namespace"] in self._namespaces)
        return ("", {}) if watched else (place(pod), pod_requests(pod))

    def _known_nodes(self) -> list[Manifest]:
        version = self._cache.nodes_version
        if self._nodes[0] != version:
            self._nodes = (version, self._cache.nodes())
        return self._nodes[1]


def _by_node(nodes: Iterable[str], holdings: Iterable[tuple[str, Mapping[str, int]]]) -> Held:
    held: dict[str, Counter[str]] = {node: Counter() for node in nodes}
    for node, amounts in holdings:
        held.setdefault(node, Counter()).update(amounts)
    return held


def _sum(one: Held, other: Held) -> Held:
    return {node: one.get(node, Counter()) + other.get(node, Counter()) for node in {*one, *other}}
