"""What there is of devices that pods claim: listed when a detector asks for some, for all at once.

They are not watched: most clusters have none, and large ones have thousands of claims that are no
detector's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.cluster.cache import Cache
from yolofleet.plan.inventory import Inventory, class_in, devices_in, held_by
from yolofleet.runtime.client import Client
from yolofleet.runtime.errors import Forbidden, NotFound
from yolofleet.runtime.kind import Kind

FRESH_S: Final = 5.0
"""How long a list serves all detectors, as that of pods does."""


class DeviceLists:
    """Knows the devices of the cluster as of a few seconds ago."""

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
        self._namespaces = sorted(namespaces)
        self._clock = clock
        self._lock = asyncio.Lock()
        self._listed = float("-inf")
        self._known = Inventory()

    async def inventory(self) -> Inventory:
        """Return them; where they may not be read it is as if there were no such API."""
        if not self._cache.serves(kinds.CLAIM_TEMPLATE):
            return Inventory()
        async with self._lock:  # one list serves all who came meanwhile
            if self._clock() - self._listed > FRESH_S:
                try:
                    self._known = await self._list()
                except (Forbidden, NotFound):
                    self._known = Inventory()
                self._listed = self._clock()
        return self._known

    async def _list(self) -> Inventory:
        classes = await self._all(kinds.DEVICE_CLASS)
        slices = await self._all(kinds.DEVICE_SLICE)
        blind, claims = await self._claims()
        return Inventory(
            {each["metadata"]["name"]: class_in(each) for each in classes},
            tuple(devices_in(slices)),
            dict(held for claim in claims for held in held_by(claim)),
            blind,
        )

    async def _claims(self) -> tuple[bool, list[Manifest]]:
        """Return all claims; without the right to see all, those that we may see."""
        try:
            return False, await self._all(kinds.CLAIM)
        except Forbidden:
            if not self._namespaces:
                raise
        claims, refused = list[Manifest](), list[Forbidden]()
        for name in self._namespaces:
            try:
                claims += await self._all(kinds.CLAIM, name)
            except Forbidden as error:
                refused.append(error)
        if len(refused) == len(self._namespaces):
            raise refused[0]
        return True, claims

    async def _all(self, kind: Kind, namespace: str = "") -> list[Manifest]:
        return (await self._client.list(kind, lambda item: item, namespace=namespace)).items
