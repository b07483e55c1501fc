"""What the operator knows of the cluster, held small: every object it watches, found by owner.

Written by watch events, lists and the answers to our own writes, in any order: an object never
goes back to an older version, and what was deleted does not come back by older news of it. A watch
by label also tells of a deletion when an object lost the label; newer news brings it back.
Everything here is memory; nothing waits.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from yolofleet.api.detector import Provider
from yolofleet.api.hosts import MESH
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.cluster.namesakes import Namesakes
from yolofleet.cluster.routes import Routes, Standing
from yolofleet.plan.defaults import Defaults
from yolofleet.plan.snapshot import Elsewhere
from yolofleet.routers.claims import NOTHING, Claim, moves, routed, wanted
from yolofleet.routers.following import Mesh
from yolofleet.routers.istio import delegates_of
from yolofleet.runtime import objects
from yolofleet.runtime.compact import compact
from yolofleet.runtime.kind import Kind
from yolofleet.runtime.ownership import Ownership, ownership_of
from yolofleet.workloads.asks import holds, place

_REMEMBERED_DELETIONS: Final = 4096  # more than are ever on their way at once


Holding = tuple[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One object, shrunk. `body` is its JSON without managedFields, which `ownership` replaces."""

    kind: Kind
    namespace: str
    name: str
    uid: str
    version: int
    owner: str  # uid of its controller
    key: str  # "namespace/name" of the detector it belongs to, or is
    body: bytes
    content: int  # hash of all but status and bookkeeping
    ownership: Ownership
    holds: Holding | None = None  # of a pod: the accelerators it holds, and on which node
    standing: Standing | None = None  # of a route: what it means to other detectors; of a detector,
    # which depends on what there is to route by, the cache says so

    def manifest(self) -> Manifest:
        """Return the object, without managedFields; the caller may keep and change it."""
        manifest: Manifest = orjson.loads(self.body)
        return manifest


def entry_of(kind: Kind, manifest: Manifest) -> Entry:
    """Shrink `manifest`, which is left as it is; kind and version are taken from `kind`."""
    metadata = manifest["metadata"]
    slim = {name: value for name, value in metadata.items() if name != "managedFields"}
    identity = {"apiVersion": kind.api_version, "kind": kind.name}
    body: Manifest = manifest | {"metadata": slim} | identity
    if kind is kinds.NODE:
        body = _slim_node(manifest) | identity
    standing = _standing(kind, body) if kind in kinds.ROUTERS.values() else None
    others = kind in kinds.ROUTERS.values() and not _key(kind, manifest)
    if others or kind in kinds.GATEWAYS.values():
        body = identity | {"metadata": _named(slim), "spec": {}}  # others' specs are no concern
    namespace, name = metadata.get("namespace", ""), metadata["name"]
    return Entry(
        kind=kind,
        namespace=namespace,
        name=name,
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        owner=objects.controller_uid(manifest),
        key=_key(kind, manifest),
        body=compact(body),
        content=_content(body, _heard(kind, body)),
        ownership=ownership_of(manifest, kinds.CONTROLLER),
        holds=_holding(manifest) if kind is kinds.POD else None,
        standing=standing,
    )


def _standing(
    kind: Kind, manifest: Manifest, routers: Collection[Provider] = ()
) -> Standing | None:
    asks = kind is kinds.DETECTOR
    key = _key(kind, manifest)
    claims = NOTHING
    if key:
        claims = wanted(manifest, routers) if asks else routed(manifest)
    delegates = delegates_of(manifest) if kind is kinds.VIRTUAL_SERVICE else frozenset[str]()
    if not claims and not delegates:
        return None
    since = str(manifest["metadata"].get("creationTimestamp", ""))
    return Standing(key, since, claims, not asks, delegates, not asks or moves(manifest))


def _named(metadata: Manifest) -> Manifest:
    kept = ("name", "namespace", "uid", "resourceVersion", "labels", "ownerReferences")
    return {name: metadata[name] for name in kept if name in metadata}


def _holding(pod: Manifest) -> Holding | None:
    node, amounts = place(pod), holds(pod)
    return (node, amounts) if node and amounts else None


def _key(kind: Kind, manifest: Manifest) -> str:
    if kind is kinds.DETECTOR:
        return f"{manifest['metadata']['namespace']}/{manifest['metadata']['name']}"
    return kinds.CONTROLLER.owner_key(manifest) if kind.namespaced else ""


def _content(body: Manifest, status: Any) -> int:
    bookkeeping = ("resourceVersion", "generation")
    metadata = {k: v for k, v in body["metadata"].items() if k not in bookkeeping}
    return hash(orjson.dumps(body | {"metadata": metadata, "status": status}))


def _heard(kind: Kind, body: Manifest) -> Any:
    """Return what of the status matters to a detector where not all of it does.

    An autoscaler writes every few seconds what it measures; whether it can is seldom news.
    """
    status = body.get("status") or {}
    if kind is kinds.NODE:
        return status
    if kind is not kinds.HPA:
        return None
    return [[c["type"], c["status"], c.get("reason")] for c in status.get("conditions") or ()]


def _slim_node(node: Manifest) -> Manifest:
    """Keep of a node what tells whether a pod may run there."""
    metadata, spec, status = node["metadata"], node.get("spec", {}), node.get("status", {})
    conditions = [
        {"type": "Ready", "status": c["status"]}  # without the time of its last heartbeat
        for c in status.get("conditions", ())
        if c.get("type") == "Ready"
    ]
    kept = ("name", "uid", "resourceVersion", "labels")
    return {
        "metadata": {name: metadata[name] for name in kept if name in metadata},
        "spec": {name: spec[name] for name in ("taints", "unschedulable") if name in spec},
        "status": {"allocatable": status.get("allocatable", {}), "conditions": conditions},
    }


class Cache:
    """Objects by kind and uid, by name, by owner, and pods by detector."""

    def __init__(self) -> None:
        self._entries: dict[Kind, dict[str, Entry]] = {kind: {} for kind in kinds.CACHED}
        self._uids: dict[tuple[Kind, str, str], str] = {}
        self._owned: dict[str, dict[str, Entry]] = {}
        self._pods: dict[str, dict[str, Entry]] = {}
        self._deleted: OrderedDict[str, int] = OrderedDict()
        self._absent: set[Kind] = set(kinds.OPTIONAL)
        self._held: dict[str, Counter[str]] = {}
        self._namesakes = Namesakes()
        self.routes = Routes()
        """Which detector has which host."""
        self.nodes_version = 0
        """Rises when a node came, went or changed in what it offers to whom."""

    # reading

    def detector(self, key: str) -> Manifest | None:
        """Return the detector "namespace/name" with its status, or None."""
        namespace, _, name = key.partition("/")
        entry = self.named(kinds.DETECTOR, namespace, name)
        return entry.manifest() if entry else None

    def detectors(self) -> list[str]:
        """Return the keys of all detectors."""
        return [entry.key for entry in self._entries[kinds.DETECTOR].values()]

    def children(self, uid: str) -> list[Manifest]:
        """Return every object that the detector with `uid` controls, as it is.

        In place of a uid the key of a detector: what is labelled as its own and has no controller.
        """
        return [entry.manifest() for entry in self.owned_by(uid)]

    def owned_by(self, uid: str) -> list[Entry]:
        """Return the entries of what the detector with `uid` controls."""
        return list(self._owned.get(uid, {}).values())

    def pods(self, key: str) -> list[Manifest]:
        """Return the pods of the detector "namespace/name"."""
        return [entry.manifest() for entry in self._pods.get(key, {}).values()]

    def nodes(self) -> list[Manifest]:
        """Return the nodes: name, labels, taints, unschedulable, allocatable, Ready."""
        return [entry.manifest() for entry in self._entries[kinds.NODE].values()]

    def held(self) -> Mapping[str, Counter[str]]:
        """Return per node how much of each accelerator the pods of all detectors hold."""
        return self._held

    def named(self, kind: Kind, namespace: str, name: str) -> Entry | None:
        """Return one object by its name."""
        uid = self._uids.get((kind, namespace, name))
        return self._entries[kind].get(uid) if uid else None

    def serves(self, kind: Kind) -> bool:
        """Return whether the API of `kind` is in the cluster now."""
        return kind not in self._absent

    def routers(self) -> frozenset[Provider]:
        """Return what of Istio and the Gateway API is in the cluster now."""
        return frozenset(each for each, kind in kinds.ROUTERS.items() if self.serves(kind))

    def elsewhere(self, key: str, raw: Manifest, defaults: Defaults) -> Elsewhere:
        """Return what of the rest of the cluster concerns the route of the detector `raw`."""
        claims = wanted(raw, self.routers())
        return Elsewhere(
            taken=self.routes.taken(key, claims),
            allowed=defaults.allowed,
            namesake=self._namesakes.older(key),
            mesh=Mesh(self.routes.delegated(key), everywhere=not defaults.namespaces),
            absent={
                provider: frozenset(self._absent_gateways(kind, claims, defaults.namespaces))
                for provider, kind in kinds.GATEWAYS.items()
                if self.serves(kind)
            },
        )

    def _absent_gateways(
        self, kind: Kind, claims: Iterable[Claim], namespaces: Collection[str]
    ) -> Iterator[str]:
        """Return which gateways of `claims` are not there, as far as the operator may look."""
        for gateway in {gateway for gateway, _ in claims if gateway != MESH}:
            namespace, _, name = gateway.partition("/")
            looked = not namespaces or namespace in namespaces
            if looked and self.named(kind, namespace, name) is None:
                yield gateway

    def select(self, kind: Kind, choose: Callable[[Manifest], Any]) -> list[Any]:
        """Return what `choose` makes of each object of `kind`; reads them all."""
        return [choose(entry.manifest()) for entry in self._entries[kind].values()]

    def has(self, uid: str) -> bool:
        """Return whether an object with `uid` is held."""
        return any(uid in entries for entries in self._entries.values())

    def unknown(self, kind: Kind, entries: Iterable[Entry]) -> dict[str, int]:
        """Return of `entries` what is newer than anything held: uid and version."""
        held = self._entries[kind]
        return {
            entry.uid: entry.version
            for entry in entries
            if entry.version > self._deleted.get(entry.uid, 0)
            and (entry.uid not in held or held[entry.uid].version < entry.version)
        }

    def size(self) -> int:
        """Return how many objects are held."""
        return sum(len(entries) for entries in self._entries.values())

    def counts(self) -> Mapping[str, int]:
        """Return how many objects of each kind are held."""
        counted: Counter[str] = Counter()
        for kind, entries in self._entries.items():
            counted[kind.name] += len(entries)  # two APIs have a Gateway
        return counted

    # writing

    def put(self, kind: Kind, manifest: Manifest) -> str | None:
        """Take in an object; return the key of the detector that should look again, if one."""
        metadata = manifest["metadata"]
        if self._knows(kind, metadata["uid"], int(metadata["resourceVersion"])):
            return None  # before the work of shrinking it
        return self.put_entry(entry_of(kind, manifest))

    def put_entry(self, entry: Entry) -> str | None:
        """Take in an object that was shrunk before, as `put` does."""
        if self._knows(entry.kind, entry.uid, entry.version):
            return None
        known = self._entries[entry.kind].get(entry.uid)
        if entry.kind is kinds.DETECTOR:
            entry = self._asking(entry)
        if known:
            self._unlink(known)
        self._link(entry)
        self.routes.change(entry.uid, known.standing if known else None, entry.standing)
        if entry.kind is kinds.DETECTOR and not known:
            created = str(entry.manifest()["metadata"].get("creationTimestamp", ""))
            self.routes.wake(self._namesakes.add(entry.key, created))
        if entry.kind in kinds.GATEWAYS.values() and not known:
            self.routes.gateway_changed(f"{entry.namespace}/{entry.name}")
        if known and not _news(known, entry):
            return None
        if entry.kind is kinds.NODE:
            self.nodes_version += 1
        return entry.key or None

    def remove(self, kind: Kind, uid: str, version: int) -> str | None:
        """Forget an object that was gone at `version`, unless a newer one of it is known.

        Returns the key of the detector that should look again, if one.
        """
        self._deleted[uid] = max(version, self._deleted.pop(uid, 0))
        if len(self._deleted) > _REMEMBERED_DELETIONS:
            self._deleted.popitem(last=False)
        known = self._entries[kind].get(uid)
        if known is None or known.version > version:
            return None
        self._unlink(known)
        self.routes.change(uid, known.standing, None)
        if kind is kinds.DETECTOR and self.detector(known.key) is None:
            self.routes.wake(self._namesakes.remove(known.key))
        if kind in kinds.GATEWAYS.values():
            self.routes.gateway_changed(f"{known.namespace}/{known.name}")
        if kind is kinds.NODE:
            self.nodes_version += 1
        return known.key or None

    def replace_all(
        self, kind: Kind, entries: Iterable[Entry], version: int, namespace: str = ""
    ) -> Counter[str]:
        """Take in a whole list, made at `version`; forget what is not in it and not younger.

        Returns the keys of the detectors that should look again, and how many objects told so.
        """
        keys: Counter[str] = Counter()
        listed = set()
        for entry in entries:
            listed.add(entry.uid)
            if key := self.put_entry(entry):
                keys[key] += 1
        for known in list(self._entries[kind].values()):
            elsewhere = namespace and known.namespace != namespace
            if known.uid not in listed and known.version <= version and not elsewhere:
                keys[self.remove(kind, known.uid, version) or ""] += 1
        del keys[""]
        return keys

    def set_served(self, kind: Kind, served: bool) -> bool:
        """Record whether the API of an optional kind exists; return whether that is news."""
        if served is (kind not in self._absent):
            return False
        if served:
            self._absent.discard(kind)
        else:
            self._absent.add(kind)
            for entry in list(self._entries[kind].values()):
                self.remove(kind, entry.uid, entry.version)
                del self._deleted[entry.uid]  # it may be there still, and as it was
        if kind in kinds.ROUTERS.values():
            for uid, known in list(self._entries[kinds.DETECTOR].items()):
                self._entries[kinds.DETECTOR][uid] = entry = self._asking(known)
                self.routes.change(uid, known.standing, entry.standing)
        return True

    def _asking(self, detector: Entry) -> Entry:
        """Return the entry of a detector with what it asks for by the routers that there are."""
        standing = _standing(detector.kind, detector.manifest(), self.routers())
        return replace(detector, standing=standing)

    def _knows(self, kind: Kind, uid: str, version: int) -> bool:
        """Return whether this is an echo of what is known, or late news."""
        known = self._entries[kind].get(uid)
        newest = known.version if known else self._deleted.get(uid, 0)
        return version <= newest

    def _link(self, entry: Entry) -> None:
        self._entries[entry.kind][entry.uid] = entry
        self._uids[entry.kind, entry.namespace, entry.name] = entry.uid
        if entry.kind is kinds.POD:
            self._pods.setdefault(entry.key, {})[entry.uid] = entry
            if entry.holds:
                self._held.setdefault(entry.holds[0], Counter()).update(entry.holds[1])
        elif owner := _owner(entry):
            self._owned.setdefault(owner, {})[entry.uid] = entry

    def _unlink(self, entry: Entry) -> None:
        self._entries[entry.kind].pop(entry.uid, None)
        address = (entry.kind, entry.namespace, entry.name)
        if self._uids.get(address) == entry.uid:  # a successor may have the name by now
            del self._uids[address]
        if entry.holds:
            node, amounts = entry.holds
            self._held[node] = self._held[node] - Counter(amounts)
            if not self._held[node]:
                del self._held[node]
        index, of = (
            (self._pods, entry.key) if entry.kind is kinds.POD else (self._owned, _owner(entry))
        )
        if of in index:
            index[of].pop(entry.uid, None)
            if not index[of]:
                del index[of]


def _owner(entry: Entry) -> str:
    """Return the uid of who controls the object; without one, the key of whose it is by label."""
    return entry.owner or (entry.key if entry.kind is not kinds.DETECTOR else "")


def _news(known: Entry, entry: Entry) -> bool:
    """Return whether the change from `known` to `entry` can matter to the detector."""
    same = known.content == entry.content and known.ownership == entry.ownership
    return entry.kind.wakes_on_status or not same
