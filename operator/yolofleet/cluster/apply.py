"""The writer of detectors: what is theirs, and which of it could not be made."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from math import inf
from typing import Final

from yolofleet.api.addresses import without_credentials
from yolofleet.api.names import RENDER_ANNOTATION, Manifest
from yolofleet.cluster import kinds
from yolofleet.cluster.cache import Cache, Entry, entry_of
from yolofleet.cluster.kinds import CONTROLLER
from yolofleet.cluster.unmade import backends, waits
from yolofleet.runtime import objects, writer
from yolofleet.runtime.client import Client
from yolofleet.runtime.errors import Forbidden
from yolofleet.runtime.kind import Kind
from yolofleet.runtime.writer import RepairObserver
from yolofleet.workloads.choice import workload_for
from yolofleet.workloads.record import record_in
from yolofleet.workloads.revision import read_back

ACCOUNT_S: Final = 60.0
"""So long the default account of a namespace counts as it was read."""


class Writer(writer.Writer[Entry]):
    """Brings what detectors have to what is desired, and knows what is theirs."""

    def __init__(
        self,
        client: Client,
        cache: Cache,
        *,
        repaired: RepairObserver = lambda _kind, _field: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            client,
            cache,
            CONTROLLER,
            waits=waits,
            repaired=repaired,
            shown=without_credentials,
            clock=clock,
        )
        self._accounts: dict[str, tuple[float, Manifest | None]] = {}

    async def children(self, uid: str, key: str, serving: Iterable[str]) -> list[Manifest]:
        """Return what is the detector's, from memory but for what should be there.

        That is what `uid` controls, and what is its own by name and labels and has no owner, or
        that of its stable Service, who is gone: it serves, and is adopted by the first write.

        serving: workloads that its status speaks of. One that the cache lacks is looked at
        itself: without the label by which it is watched it serves as before, and to take it for
        gone would move its traffic. Where it is gone, so is its record, to make it from again.
        """
        found = self.known_children(uid, key)
        namespace = key.partition("/")[0]
        known = {objects.identity(child) for child in found}
        for revision in serving:
            if any((kind.name, revision) in known for kind in kinds.WORKLOADS):
                continue
            for kind in (_workload_of(revision, found), kinds.RECORD):
                if (kind.name, revision) in known:
                    break
                live = await self._find(kind, namespace, revision)
                if live and (objects.controller_uid(live) == uid or CONTROLLER.is_free(live, key)):
                    found.append(entry_of(kind, live).manifest())
                    break
        return found

    async def _find(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """Read an object; a record that may not be read is taken for none."""
        try:
            return await self._client.find(kind, namespace, name)
        except Forbidden:
            if kind is kinds.RECORD:
                return None
            raise

    def known_children(self, uid: str, key: str) -> list[Manifest]:
        """Return what is the detector's as far as memory tells; never fails."""
        namespace, _, name = key.partition("/")
        service = self._cache.named(kinds.SERVICE, namespace, name)
        former = self._cache.children(service.owner) if service and service.owner != uid else ()
        free = [*self._cache.children(key), *former]
        return [*self._cache.children(uid), *(one for one in free if CONTROLLER.is_free(one, key))]

    async def default_account(self, namespace: str, *, anew: bool = False) -> Manifest | None:
        """Return the account that pods of `namespace` run as by default; None if nobody may see it.

        It need not be watched: pods get what their account has when they are made. One read serves
        for `ACCOUNT_S`. anew: what was read before does not do.
        """
        now = self._clock()
        at, account = self._accounts.get(namespace, (-inf, None))
        if anew or now - at > ACCOUNT_S:
            try:
                account = await self._client.find(kinds.SERVICE_ACCOUNT, namespace, "default")
            except Forbidden:
                account = None
            fresh = {n: one for n, one in self._accounts.items() if now - one[0] <= ACCOUNT_S}
            self._accounts = fresh | {namespace: (now, account)}
        return account

    def unreached(self, uid: str) -> frozenset[str]:
        """Return the names of Services that the detector `uid` lacks, or lacks the rule for.

        As the last pass found it: no route may name them, so none should be asked for. A route
        that waits for one of them leaves requests with those that it has.
        """
        return backends(self.unmade(uid))

    def edited(self, children: Iterable[Manifest]) -> frozenset[str]:
        """Return the workloads whose note of what they were rendered with may be others'.

        So it is with one that the cache lacks: somebody took its labels away.
        """
        found = set()
        for child in children:
            kind = next((each for each in kinds.WORKLOADS if each.name == child["kind"]), None)
            if kind is not None:
                meta = child["metadata"]
                entry = self._cache.named(kind, meta["namespace"], meta["name"])
                if entry is None or not entry.ownership.is_applied(
                    "metadata", "annotations", RENDER_ANNOTATION
                ):
                    found.add(meta["name"])
        return frozenset(found)


def _workload_of(revision: str, children: Iterable[Manifest]) -> Kind:
    """Return the kind of what ran `revision`, as its record tells."""
    records = (c for c in children if c["kind"] == kinds.RECORD.name)
    kept = next((c for c in records if c["metadata"]["name"] == revision), None)
    known = read_back(revision, record_in(kept).text) if kept else None
    name = workload_for(known).KIND
    return next(kind for kind in kinds.WORKLOADS if kind.name == name)
