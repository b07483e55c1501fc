"""Write what differs and say which field; remove what is no longer wanted; publish status."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

from yolofleet.api.names import (
    DETECTOR_LABEL,
    HANDOVER_MANAGER,
    MANAGER,
    STATUS_MANAGER,
    Manifest,
)
from yolofleet.cluster import client as requests
from yolofleet.cluster import kinds
from yolofleet.cluster.cache import Cache, Entry, entry_of
from yolofleet.cluster.client import Client
from yolofleet.cluster.compare import Difference, How, Path, additions, differences
from yolofleet.cluster.errors import Conflict, NotFound, ResourceConflict

logger = logging.getLogger(__name__)

_REPLICAS: Final = ("spec", "replicas")


class Action(StrEnum):
    """What was done to an object."""

    CREATED = "created"
    APPLIED = "applied"
    REVERTED = "reverted"  # what others had added was removed
    HANDED_OVER = "handed over"  # its replicas, to an autoscaler
    DELETED = "deleted"
    STATUS = "status published"


@dataclass(frozen=True, slots=True)
class Change:
    """One write, and the fields that made it necessary."""

    action: Action
    kind: str
    namespace: str
    name: str
    fields: tuple[str, ...] = ()


RepairObserver = Callable[[str, str], None]
"""Told of each field that was put right after others changed it: kind, class of the field."""


class Writer:
    """Brings the cluster to what is desired, with as few writes as that takes."""

    def __init__(
        self,
        client: Client,
        cache: Cache,
        *,
        repaired: RepairObserver = lambda _kind, _field: None,
    ) -> None:
        self._client = client
        self._cache = cache
        self._repaired = repaired
        self._proven: dict[str, tuple[int, bytes]] = {}
        self._unkept: dict[str, AbstractSet[Path]] = {}

    async def apply(self, desired: Sequence[Manifest], over: Sequence[Manifest]) -> list[Change]:
        """Write in this order what differs from `desired`; return what was written.

        over: the children as observed. Raises `ResourceConflict` before it touches an object that
        the detector does not control; what comes later in `desired` is then left as it is.
        """
        uids = {kinds.identity(child): child["metadata"]["uid"] for child in over}
        changes: list[Change] = []
        for manifest in desired:
            changes += await self._apply(manifest, uids.get(kinds.identity(manifest)))
        return changes

    async def prune(self, uid: str, keep: Collection[tuple[str, str]]) -> list[Change]:
        """Delete the children of the detector `uid` whose (kind, name) is not in `keep`.

        The cache only says where to look: what is deleted was listed a moment ago, and is still
        the same object (uid) in the same state (resourceVersion) when the API server deletes it.
        """
        doubtful = [
            entry for entry in self._cache.owned_by(uid) if not _kept(entry.manifest(), keep)
        ]
        changes: list[Change] = []
        places = {(entry.kind, entry.namespace, _detector_of(entry)) for entry in doubtful}
        for kind, namespace, detector in sorted(places, key=lambda place: place[0].name):
            listing = await self._client.list(
                kind,
                lambda item: item,
                namespace=namespace,
                selector=f"{kinds.selector_of(kind)},{DETECTOR_LABEL}={detector}",
            )
            for item in listing.items:
                if kinds.controller_uid(item) == uid and not _kept(item, keep):
                    changes += await self._delete(item)
        return changes

    async def publish_status(self, raw: Manifest, status: Manifest) -> list[Change]:
        """Write `status` if it says something new, and only over the very `raw` it is about.

        Raises `Conflict` when the detector has changed since `raw` was read: an old leader cannot
        overwrite newer status.
        """
        if raw.get("status", {}) == status:
            return []
        patch = _address(raw) | {"status": status}
        patch["metadata"]["resourceVersion"] = raw["metadata"]["resourceVersion"]
        answer = await self._client.send(
            requests.apply(patch, STATUS_MANAGER, force=True, subresource="status")
        )
        if answer.get("status", {}) != status:  # somebody else wrote there; it is ours as a whole
            answer = await self._client.send(_replace_status(answer, status))
        self._cache.put(kinds.DETECTOR, answer)
        fields = sorted(_top_differences(raw.get("status", {}), status))
        return [_told(raw, Change(Action.STATUS, *_names(raw), tuple(fields)))]

    # one object

    async def _apply(self, desired: Manifest, uid: str | None) -> list[Change]:
        live = await self._live(desired, uid)
        if live is None:
            return [await self._create(desired)]
        if b'"deletionTimestamp"' in live.body and _terminating(live):
            return []  # its end is on the way, and wakes us
        digest = hashlib.blake2b(orjson.dumps(desired), digest_size=16).digest()
        if self._proven.get(live.uid) == (live.version, digest):
            return []
        changes: list[Change] = []
        found = self._unlike(desired, live)
        if any(each.path == _REPLICAS and each.how is How.DROPPED for each in found):
            changes += await self._hand_over(desired, live)
        if found:
            live, change = await self._change(desired, live, found)
            changes.append(change)
        extra = self._extra(desired, live)
        if extra:
            live, change = await self._revert(desired, live, extra)
            changes.append(change)
        if found or extra:
            self._learn_unkept(desired, live)
        self._proven[live.uid] = (live.version, digest)
        self._forget_the_gone()
        return changes

    async def _live(self, desired: Manifest, uid: str | None) -> Entry | None:
        """Return the object to compare with; raises `ResourceConflict` if it is not ours."""
        kind, metadata = kinds.kind_of(desired), desired["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        entry = self._cache.named(kind, namespace, name)
        if entry is not None and entry.uid == uid:
            return entry
        found = await self._client.find(kind, namespace, name)  # not ours, or not labelled so
        if found is None:
            return None
        if kinds.controller_uid(found) != kinds.controller_uid(desired):
            if _is_namesake(kinds.controller_of(found), kinds.controller_of(desired)):
                raise Conflict(f"{kind.name} {name} is still its namesake's, which was deleted")
            raise ResourceConflict(kind.name, namespace, name, _controller_name(found))
        return entry_of(kind, found)

    async def _create(self, desired: Manifest) -> Change:
        """Create by an apply that gives way: somebody faster is a `Conflict`, and we look again."""
        await self._send(requests.apply(desired, MANAGER, force=False))
        return _told(desired, Change(Action.CREATED, *_names(desired)))

    async def _change(
        self, desired: Manifest, live: Entry, found: Iterable[Difference]
    ) -> tuple[Entry, Change]:
        same_object = desired | {"metadata": desired["metadata"] | {"uid": live.uid}}
        entry = await self._send(requests.apply(same_object, MANAGER, force=True))
        change = Change(Action.APPLIED, *_names(desired), self._note(live, found))
        return entry, _told(desired, change)

    async def _hand_over(self, desired: Manifest, live: Entry) -> list[Change]:
        """Keep the live replicas when we stop to set them: a field without owner falls to 1."""
        patch = _address(live.manifest())
        patch["spec"] = {"replicas": live.manifest()["spec"]["replicas"]}
        try:
            await self._send(requests.apply(patch, HANDOVER_MANAGER, force=False))
        except Conflict:  # the autoscaler has it already, with another value
            return []
        return [_told(desired, Change(Action.HANDED_OVER, *_names(desired), ("spec.replicas",)))]

    async def _revert(
        self, desired: Manifest, live: Entry, extra: Sequence[Difference]
    ) -> tuple[Entry, Change]:
        """Remove what others added, from the end so that places in lists stay right."""
        operations = [_unchanged_since(str(live.version))]
        last_first = sorted((each.path for each in extra), key=_place, reverse=True)
        operations += [{"op": "remove", "path": _pointer(path)} for path in last_first]
        entry = await self._send(requests.json_patch(live.manifest(), operations, MANAGER))
        change = Change(Action.REVERTED, *_names(desired), self._note(live, extra))
        return entry, _told(desired, change)

    async def _delete(self, live: Manifest) -> list[Change]:
        if "deletionTimestamp" in live["metadata"]:
            return []
        try:
            await self._client.send(requests.delete(live))
        except NotFound:
            return []
        return [_told(live, Change(Action.DELETED, *_names(live)))]

    async def _send(self, request: requests.Request) -> Entry:
        """Send a write of a child and read our own write: the cache has the answer at once."""
        answer = await self._client.send(request)
        entry = entry_of(kinds.kind_of(answer), answer)
        self._cache.put_entry(entry)
        return entry

    # what differs

    def _unlike(self, desired: Manifest, live: Entry) -> list[Difference]:
        found = differences(desired, live.manifest(), live.ownership.applied_fields())
        return self._without_unkept(live, found)

    def _extra(self, desired: Manifest, live: Entry) -> list[Difference]:
        if not live.ownership.foreign_managers:
            return []
        found = additions(desired, live.manifest(), live.ownership.foreign_fields())
        return self._without_unkept(live, found)

    def _without_unkept(self, live: Entry, found: list[Difference]) -> list[Difference]:
        unkept = self._unkept.get(live.uid, frozenset())
        return [each for each in found if each.path not in unkept]

    def _learn_unkept(self, desired: Manifest, live: Entry) -> None:
        """Remember what the API server did not keep as we wrote it, lest we write it for ever."""
        left = [*self._unlike(desired, live), *self._extra(desired, live)]
        if not left:
            return
        known = self._unkept.get(live.uid, frozenset())
        self._unkept[live.uid] = known | {each.path for each in left}
        logger.warning(
            "the API server does not keep these fields as they were written; leaving them",
            extra={"fields": _log_fields(desired) | {"fields": [str(each) for each in left]}},
        )

    def _forget_the_gone(self) -> None:
        if len(self._proven) > 2 * self._cache.size() + 1000:
            self._proven = {uid: p for uid, p in self._proven.items() if self._cache.has(uid)}
            self._unkept = {uid: u for uid, u in self._unkept.items() if self._cache.has(uid)}

    def _note(self, live: Entry, found: Iterable[Difference]) -> tuple[str, ...]:
        for each in found:
            if each.drift:
                self._repaired(live.kind.name, each.field_class)
        return tuple(str(each) for each in found)


def _is_namesake(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Say whether both refer to a detector of one name: deleted and made anew, it waits."""
    return bool(one) and all(one.get(field) == other.get(field) for field in ("kind", "name"))


def _kept(manifest: Manifest, keep: Collection[tuple[str, str]]) -> bool:
    return kinds.identity(manifest) in keep


def _detector_of(entry: Entry) -> str:
    labels = entry.manifest()["metadata"].get("labels") or {}
    return str(labels.get(DETECTOR_LABEL, ""))


def _terminating(live: Entry) -> bool:
    return "deletionTimestamp" in live.manifest()["metadata"]


def _address(manifest: Manifest) -> Manifest:
    """Return the least that names exactly this object: a patch of it never creates one."""
    metadata = manifest["metadata"]
    return {
        "apiVersion": manifest["apiVersion"],
        "kind": manifest["kind"],
        "metadata": {name: metadata[name] for name in ("name", "namespace", "uid")},
    }


def _replace_status(live: Manifest, status: Manifest) -> requests.Request:
    operations = [
        _unchanged_since(live["metadata"]["resourceVersion"]),
        {"op": "replace", "path": "/status", "value": status},
    ]
    return requests.json_patch(live, operations, STATUS_MANAGER, subresource="status")


def _unchanged_since(version: str) -> Manifest:
    """Make a JSON patch a `Conflict` on any other version; a failed `test` would be a plain 422."""
    return {"op": "replace", "path": "/metadata/resourceVersion", "value": version}


def _place(path: Path) -> tuple[tuple[bool, Any], ...]:
    """Order paths so that later items of a list come later; a list has only numbers."""
    return tuple((isinstance(step, str), step) for step in path)


def _pointer(path: Path) -> str:
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def _controller_name(manifest: Manifest) -> str:
    controller = kinds.controller_of(manifest)
    return f"{controller['kind']} {controller['name']}" if controller else "somebody else"


def _top_differences(one: Manifest, other: Manifest) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def _names(manifest: Manifest) -> tuple[str, str, str]:
    metadata = manifest["metadata"]
    return manifest["kind"], metadata.get("namespace", ""), metadata["name"]


def _told(manifest: Manifest, change: Change) -> Change:
    """Log `change`, each once, where it happened."""
    fields = _log_fields(manifest) | ({"fields": list(change.fields)} if change.fields else {})
    logger.info(str(change.action), extra={"fields": fields})
    return change


def _log_fields(manifest: Manifest) -> dict[str, Any]:
    key = kinds.owner_key(manifest) or f"{manifest['metadata'].get('namespace')}/" + str(
        manifest["metadata"]["name"]
    )
    kind, _, name = _names(manifest)
    return {"detector": key, "kind": kind, "name": name}
