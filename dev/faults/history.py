"""All that happened to the objects of a cluster, in the order in which the API server did it.

Watched directly, past every fault. A resourceVersion is a number of the one store behind all kinds,
so that the order is exact across kinds too.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp

from controlplane.kube import REPLICA_SET
from faults.proxy import CONNECTED_S
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime.credentials import Credentials
from yolofleet.runtime.kind import Kind

RECORDED: Final = (kinds.DETECTOR, *kinds.CHILDREN, REPLICA_SET, kinds.POD)
_LONGEST_LINE: Final = 1 << 24
_PATIENCE_S: Final = 0.3


@dataclass(frozen=True)
class Seen:
    """One change: ADDED, MODIFIED or DELETED at `version`, heard of at `at` (seconds)."""

    version: int
    at: float
    type: str
    kind: Kind
    manifest: Manifest

    @property
    def name(self) -> str:
        """The object's name."""
        return str(self.manifest["metadata"]["name"])

    @property
    def uid(self) -> str:
        """The object's uid."""
        return str(self.manifest["metadata"]["uid"])


class History:
    """Watches every kind of interest until cancelled."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._seen: defaultdict[str, list[Seen]] = defaultdict(list)
        self._known: dict[str, int] = {}

    def of(self, namespace: str, since: int = 0) -> list[Seen]:
        """Return what happened in `namespace` after version `since`, in order."""
        seen = [one for one in self._seen[namespace] if one.version > since]
        return sorted(seen, key=lambda one: one.version)

    def forget(self, namespace: str) -> None:
        """Forget a namespace that nobody asks about any more."""
        self._seen.pop(namespace, None)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with self._credentials.session() as session, asyncio.TaskGroup() as group:
            for kind in RECORDED:
                group.create_task(self._follow(session, kind))

    async def _follow(self, session: aiohttp.ClientSession, kind: Kind) -> None:
        """Follow one kind from the first thing that happens to it; go on after a lost connection.

        The API server begins with what exists already when it is given no version.
        """
        version = ""
        while True:
            query = {"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version}
            try:
                async with session.get(
                    self._credentials.server + kind.path(),
                    params=query,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECTED_S),
                    read_bufsize=_LONGEST_LINE,
                ) as answer:
                    if answer.status == 200:
                        async for line in answer.content:
                            version = self._take(kind, line)
                    elif answer.status == 410:
                        version = ""
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
                pass
            await asyncio.sleep(_PATIENCE_S)

    def _take(self, kind: Kind, line: bytes) -> str:
        event = json.loads(line)
        manifest, type_ = event["object"], event["type"]
        if type_ == "ERROR":
            return ""
        now = str(manifest["metadata"]["resourceVersion"])
        if type_ != "BOOKMARK":
            namespace = manifest["metadata"].get("namespace", "")
            at, uid = asyncio.get_running_loop().time(), manifest["metadata"]["uid"]
            known = self._known.get(uid, 0)
            self._known[uid] = int(now)
            if type_ == "ADDED" and known:  # listed anew after a gap
                type_ = "MODIFIED"
            if known != int(now):
                self._seen[namespace].append(Seen(int(now), at, type_, kind, manifest))
        return now


def objects(seen: Sequence[Seen]) -> dict[tuple[str, str], Manifest]:
    """Return what exists after `seen`, by kind and name."""
    state: dict[tuple[str, str], Manifest] = {}
    for one in seen:
        key = (one.kind.name, one.name)
        if one.type == "DELETED":
            state.pop(key, None)
        else:
            state[key] = one.manifest
    return state
