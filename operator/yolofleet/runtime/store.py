"""The objects that are watched, held small: by kind and uid, by name, and by who owns them.

Written by watch events, lists and the answers to our own writes, in any order: an object never
goes back to an older version, and what was deleted does not come back by older news of it. A watch
by label also tells of a deletion when an object lost the label; newer news brings it back.
Everything here is memory; nothing waits.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import orjson

from yolofleet.runtime.compact import compact
from yolofleet.runtime.controller import Controller
from yolofleet.runtime.kind import Kind
from yolofleet.runtime.nesting import bounded
from yolofleet.runtime.objects import Manifest, controller_uid
from yolofleet.runtime.ownership import Ownership, ownership_of

_REMEMBERED_DELETIONS: Final = 4096  # more than are ever on their way at once


@dataclass(frozen=True, slots=True)
class Entry:
    """One object, shrunk. `body` is its JSON without managedFields, which `ownership` replaces."""

    kind: Kind
    namespace: str
    name: str
    uid: str
    version: int
    owner: str  # uid of its controller
    key: str  # "namespace/name" of the parent it belongs to, or is
    body: bytes
    content: int  # hash of all but status and bookkeeping
    ownership: Ownership

    def manifest(self) -> Manifest:
        """Return the object, without managedFields; the caller may keep and change it."""
        manifest: Manifest = orjson.loads(self.body)
        return manifest


E = TypeVar("E", bound=Entry)


def entry_for(controller: Controller) -> Callable[[Kind, Manifest], Entry]:
    """Return what shrinks any object of `controller` to an entry: all of it is kept."""

    @bounded
    def entry(kind: Kind, manifest: Manifest) -> Entry:
        metadata = {k: v for k, v in manifest["metadata"].items() if k != "managedFields"}
        identity = {"apiVersion": kind.api_version, "kind": kind.name}
        body: Manifest = manifest | {"metadata": metadata} | identity
        namespace = metadata.get("namespace", "")
        is_parent = kind is controller.parent
        return Entry(
            kind=kind,
            namespace=namespace,
            name=metadata["name"],
            uid=metadata["uid"],
            version=int(metadata["resourceVersion"]),
            owner=controller_uid(manifest),
            key=f"{namespace}/{metadata['name']}" if is_parent else controller.owner_key(manifest),
            body=compact(body),
            content=content_of(body, None),
            ownership=ownership_of(manifest, controller),
        )

    return entry


def content_of(body: Manifest, status: Any) -> int:
    """Hash what of an object can matter: all but bookkeeping, and of its status what is given."""
    bookkeeping = ("resourceVersion", "generation")
    metadata = {k: v for k, v in body["metadata"].items() if k not in bookkeeping}
    return hash(orjson.dumps(body | {"metadata": metadata, "status": status}))


class Store(Generic[E]):
    """Objects by kind and uid, by name, and by owner.

    shrink: makes an entry of an object, which is left as it is.
    """

    def __init__(
        self, controller: Controller, kinds: Iterable[Kind], shrink: Callable[[Kind, Manifest], E]
    ) -> None:
        self._parent = controller.parent
        self.entry_of = shrink
        self._entries: dict[Kind, dict[str, E]] = {kind: {} for kind in kinds}
        self._uids: dict[tuple[Kind, str, str], str] = {}
        self._owned: dict[str, dict[str, E]] = {}
        self._deleted: OrderedDict[str, int] = OrderedDict()
        self._newest: dict[Kind, int] = dict.fromkeys(self._entries, 0)
        self._absent: set[Kind] = {kind for kind in self._entries if kind.optional}

    # reading

    def children(self, uid: str) -> list[Manifest]:
        """Return every object that the parent with `uid` controls, as it is.

        In place of a uid the key of a parent: what is labelled as its own and has no controller.
        """
        return [entry.manifest() for entry in self.owned_by(uid)]

    def owned_by(self, uid: str) -> list[E]:
        """Return the entries of what the parent with `uid` controls."""
        return list(self._owned.get(uid, {}).values())

    def named(self, kind: Kind, namespace: str, name: str) -> E | None:
        """Return one object by its name."""
        uid = self._uids.get((kind, namespace, name))
        return self._entries[kind].get(uid) if uid else None

    def parent(self, uid: str) -> E | None:
        """Return the parent with `uid`."""
        return self._entries[self._parent].get(uid)

    def serves(self, kind: Kind) -> bool:
        """Return whether the API of `kind` is in the cluster now."""
        return kind not in self._absent

    def select(self, kind: Kind, choose: Callable[[Manifest], Any]) -> list[Any]:
        """Return what `choose` makes of each object of `kind`; reads them all."""
        return [choose(entry.manifest()) for entry in self._entries[kind].values()]

    def has(self, uid: str) -> bool:
        """Return whether an object with `uid` is held."""
        return any(uid in entries for entries in self._entries.values())

    def uids(self, kind: Kind) -> Collection[str]:
        """Return the uids of all objects of `kind` that are held."""
        return self._entries[kind].keys()

    def unknown(self, kind: Kind, entries: Iterable[E]) -> dict[str, int]:
        """Return of `entries` what is newer than anything held: uid and version."""
        held = self._entries[kind]
        return {
            entry.uid: entry.version
            for entry in entries
            if entry.version > self._deleted.get(entry.uid, 0)
            and (entry.uid not in held or held[entry.uid].version < entry.version)
        }

    def newest(self, kind: Kind) -> int:
        """Return the newest version of anything that was ever told of `kind`."""
        return self._newest[kind]

    def outlives(self, kind: Kind, entries: Iterable[E], version: int) -> bool:
        """Return whether a list of `version` has an object older than it was at that version."""
        held = self._entries[kind]
        return any(e.version < held[e.uid].version <= version for e in entries if e.uid in held)

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
        """Take in an object; return the key of the parent that should look again, if one."""
        metadata = manifest["metadata"]
        if self._knows(kind, metadata["uid"], int(metadata["resourceVersion"])):
            return None  # before the work of shrinking it
        return self.put_entry(self.entry_of(kind, manifest))

    def put_entry(self, entry: E) -> str | None:
        """Take in an object that was shrunk before, as `put` does."""
        if self._knows(entry.kind, entry.uid, entry.version):
            return None
        self._newest[entry.kind] = max(entry.version, self._newest[entry.kind])
        known = self._entries[entry.kind].get(entry.uid)
        if known:
            self._unlink(known)
        self._link(entry)
        return entry.key or None if is_news(known, entry) else None

    def remove(self, kind: Kind, uid: str, version: int) -> str | None:
        """Forget an object that was gone at `version`, unless a newer one of it is known.

        Returns the key of the parent that should look again, if one.
        """
        self._newest[kind] = max(version, self._newest[kind])
        self._deleted[uid] = max(version, self._deleted.pop(uid, 0))
        if len(self._deleted) > _REMEMBERED_DELETIONS:
            self._deleted.popitem(last=False)
        known = self._entries[kind].get(uid)
        if known is None or known.version > version:
            return None
        self._unlink(known)
        return known.key or None

    def replace_all(
        self, kind: Kind, entries: Iterable[E], version: int, namespace: str = ""
    ) -> Counter[str]:
        """Take in a whole list, made at `version`; forget what is not in it and not younger.

        Returns the keys of the parents that should look again, and how many objects told so.
        """
        self._newest[kind] = max(version, self._newest[kind])
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
                self._forget(entry)
        return True

    def forget(self, namespace: str) -> set[str]:
        """Forget what is held of a namespace; return the keys of the parents that had it."""
        held = [each for of_kind in self._entries.values() for each in of_kind.values()]
        gone = [each for each in held if each.namespace == namespace]
        return {key for each in gone if (key := self._forget(each))}

    def _forget(self, entry: E) -> str | None:
        key = self.remove(entry.kind, entry.uid, entry.version)
        del self._deleted[entry.uid]  # it may be there still, and as it was
        return key

    def _knows(self, kind: Kind, uid: str, version: int) -> bool:
        """Return whether this is an echo of what is known, or late news."""
        known = self._entries[kind].get(uid)
        newest = known.version if known else self._deleted.get(uid, 0)
        return version <= newest

    def _link(self, entry: E) -> None:
        self._entries[entry.kind][entry.uid] = entry
        self._uids[entry.kind, entry.namespace, entry.name] = entry.uid
        if owner := self._owner(entry):
            self._owned.setdefault(owner, {})[entry.uid] = entry

    def _unlink(self, entry: E) -> None:
        self._entries[entry.kind].pop(entry.uid, None)
        address = (entry.kind, entry.namespace, entry.name)
        if self._uids.get(address) == entry.uid:  # a successor may have the name by now
            del self._uids[address]
        if (owner := self._owner(entry)) in self._owned:
            self._owned[owner].pop(entry.uid, None)
            if not self._owned[owner]:
                del self._owned[owner]

    def _owner(self, entry: E) -> str:
        """Return the uid of who controls it; without one, the key of whose it is by label."""
        return entry.owner or (entry.key if entry.kind is not self._parent else "")


def is_news(known: Entry | None, entry: Entry) -> bool:
    """Return whether the change from `known` to `entry` can matter to its parent."""
    if known is None:
        return True
    same = known.content == entry.content and known.ownership == entry.ownership
    return entry.kind.wakes_on_status or not same
