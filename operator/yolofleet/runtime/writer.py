"""Server-side apply: write what differs and say which field; prune; publish status."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import timedelta
from math import inf
from typing import Any, Final, Generic

import orjson

from yolofleet.runtime import client as requests
from yolofleet.runtime import objects, patches
from yolofleet.runtime.changes import Action, Applied, Change
from yolofleet.runtime.client import Client
from yolofleet.runtime.compare import (
    Difference,
    How,
    Path,
    additions,
    differences,
    place_of,
    without,
)
from yolofleet.runtime.contests import Contests, names_of
from yolofleet.runtime.controller import Controller
from yolofleet.runtime.deletions import Deletions, address_of
from yolofleet.runtime.drift import OVER_ONCE_REPORTED, Drift, Handling
from yolofleet.runtime.errors import (
    ClusterError,
    Conflict,
    NotFound,
    NotLeading,
    ResourceConflict,
    Stale,
    Unavailable,
)
from yolofleet.runtime.failures import Failed, Failures, is_away
from yolofleet.runtime.found import Found, attributed
from yolofleet.runtime.kind import HPA, Kind, kind_of
from yolofleet.runtime.last_applied import Hashes, hashes_of, still_applied, with_hashes
from yolofleet.runtime.objects import Manifest
from yolofleet.runtime.ownership import setters
from yolofleet.runtime.queue import RECONCILE_TIMEOUT_S
from yolofleet.runtime.store import E, Entry, Store

logger = logging.getLogger(__name__)

_REPLICAS: Final = ("spec", "replicas")

LOOK_FOR_AUTOSCALER_S: Final = 60.0
"""How often to look whether the autoscaler that a Deployment is left to is still there."""

WRITING_S: Final = RECONCILE_TIMEOUT_S / 2
"""So long writes are begun. Each may hang for half a minute, at a webhook; status comes after."""

Waits = Callable[[Manifest, Failed, Collection[tuple[str, str]]], bool]
"""Says whether an object waits for what could not be made, given (kind, name) of what is there."""

LeantOn = Callable[[AbstractSet[str]], Collection[str]]
"""Returns the kinds on which objects of the given kinds may still lean, as they are."""

Shown = Callable[[str], str]
"""Returns what of the API server's words may stand in a log: they quote what it refuses."""

RepairObserver = Callable[[str, str], None]
"""Told of each field that was put right after others changed it: kind, class of the field."""


@dataclass(frozen=True, slots=True)
class _Proof:
    """That an object was as desired, in this version, but for what is not enforced."""

    version: int
    digest: bytes
    enforced: bool
    hashes: Hashes
    left: Drift | None

    def holds(self, live: Entry, digest: bytes, enforced: bool) -> bool:
        """Say whether it is of this very object, and of what is desired of it now."""
        return (self.version, self.digest, self.enforced) == (live.version, digest, enforced)


@dataclass(slots=True)
class _Writing:
    """One pass of writes. unmade: what is not there after it; slow: what failed after long."""

    uids: Mapping[tuple[str, str], str]
    enforce: bool
    done: Applied
    unmade: dict[tuple[str, str], Failed] = field(default_factory=dict)
    slow: set[tuple[str, str]] = field(default_factory=set)


class Writer(Generic[E]):
    """Brings the cluster to what is desired, with as few writes as that takes."""

    def __init__(
        self,
        client: Client,
        cache: Store[E],
        controller: Controller,
        *,
        waits: Waits = lambda _manifest, _unmade, _there: False,
        repaired: RepairObserver = lambda _kind, _field: None,
        shown: Shown = str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._cache = cache
        self._ours = controller
        self._waits = waits
        self._repaired = repaired
        self._shown = shown
        self._clock = clock
        self._proven: dict[str, _Proof] = {}
        self._unkept: dict[str, dict[Path, bytes]] = {}
        self._contests = Contests(clock)
        self._deletions = Deletions(clock)
        self._failures = Failures(clock)
        self._unreported: dict[str, list[Drift]] = {}
        self._unmade: dict[str, list[Failed]] = {}
        self._slow: dict[str, frozenset[tuple[str, str]]] = {}

    def unread(self, raw: Manifest, error: ClusterError) -> Failed:
        """Count that what is to be known of the parent `raw` could not be read."""
        return self._failures.failed(raw, error)

    def unmade(self, uid: str) -> Sequence[Failed]:
        """Return what of the parent `uid` is not there, as the last pass found it."""
        return self._unmade.get(uid, ())

    def was_read(self, raw: Manifest) -> None:
        """End that count."""
        self._failures.forget(raw)

    async def apply(
        self,
        desired: Sequence[Manifest],
        over: Sequence[Manifest],
        *,
        enforce: bool = True,
    ) -> Applied:
        """Write in this order what differs from `desired`; return what was written and found.

        over: the children as observed. An object that cannot be written holds up nobody but those
        who wait for it (`waits`). One that another controls is not touched.
        One that failed slowly the last time comes after all others, and after `WRITING_S` nothing
        more is begun: there has to be time to tell.
        enforce: put right what others changed; else it is only reported.
        Raises nothing of the cluster's but `NotLeading`, and `Conflict` once the parent is gone.
        """
        if not desired:
            return Applied()
        uid, done = objects.controller_uid(desired[0]), Applied(until=self._clock() + WRITING_S)
        uids = {objects.identity(child): child["metadata"]["uid"] for child in over}
        slow, turn = self._slow.get(uid, frozenset()), _Writing(uids, enforce, done)
        last = [each for each in desired if objects.identity(each) in slow]
        for manifest in last:
            if objects.identity(manifest) not in uids:
                turn.unmade[objects.identity(manifest)] = _absent(manifest, "takes too long")
        for manifest in [*(each for each in desired if each not in last), *last]:
            done.given_up |= self._clock() >= done.until
            if done.given_up:
                break
            self._parent(uid)
            unmade = turn.unmade.values()
            if any(self._waits(manifest, each, uids.keys()) for each in unmade):
                done.waiting.append(objects.identity(manifest))
            else:
                await self._try(manifest, turn)
        self._slow[uid] = frozenset(turn.slow)
        self._keep_unreported(uid, done)
        self._unmade[uid] = list(turn.unmade.values())
        return done

    async def _try(self, manifest: Manifest, turn: _Writing) -> None:
        """Write one object if it differs, and note in `turn` what came of it."""
        identity, began = objects.identity(manifest), self._clock()
        turn.unmade.pop(identity, None)
        try:
            if not await self._bring(manifest, turn.uids.get(identity), turn.enforce, turn.done):
                turn.unmade[identity] = _absent(manifest, "is left deleted for a moment")
        except NotLeading:
            raise
        except ClusterError as error:
            failed = self._failed(manifest, error, took=self._clock() - began)
            turn.done.failed.append(failed)
            if isinstance(error, ResourceConflict) or identity not in turn.uids:
                turn.unmade[identity] = failed
            if failed.slow:
                turn.slow.add(identity)
            turn.done.given_up = is_away(turn.done.failed)
        else:
            self._went_well(manifest)

    async def prune(
        self,
        uid: str,
        keep: Collection[tuple[str, str]],
        leant_on: LeantOn = lambda _kinds: (),
        until: float = inf,
    ) -> Applied:
        """Delete the children of the parent `uid` whose (kind, name) is not in `keep`.

        Also those that were left behind by a former one, or restored, and are wanted no more.
        leant_on: nothing is deleted of these kinds while anything stays that is to go. until: no
        deletion is begun later. The cache only says where to look: what is deleted was listed a
        moment ago, and is still the same object (uid) in the same state (resourceVersion) when the
        API server deletes it. Raises nothing but `NotLeading`, and `Conflict` once the parent is
        gone.
        """
        key = self._parent(uid).key
        doubtful: defaultdict[tuple[Kind, str, str], list[Entry]] = defaultdict(list)
        free = (each for each in self._cache.owned_by(key) if self._is_left(each.manifest(), key))
        for entry in (*self._cache.owned_by(uid), *free):
            if (entry.kind.name, entry.name) not in keep:
                doubtful[entry.kind, entry.namespace, self._parent_of(entry)].append(entry)
        done, stays = Applied(), set[str]()
        for place, entries in sorted(doubtful.items(), key=lambda each: _going(each[0][0])):
            kind = place[0].name
            if kind in leant_on(stays):
                continue
            self._parent(uid)
            try:
                there = await self._still_there(*place, entries)
                unwanted = [item for item in there if objects.identity(item) not in keep]
                left = [item for item in unwanted if self._is_left(item, key)]
                if left:
                    await self._confirm(uid)  # else they were left behind just now, to be kept
            except NotLeading:
                raise
            except ClusterError as error:
                done.failed.append(self._failed(entries[0].manifest(), error))
                stays.add(kind)
                continue
            for item in unwanted:
                if objects.controller_uid(item) == uid or item in left:
                    if self._clock() >= until:
                        done.given_up = True
                        return done
                    if not await self._delete(item, done):
                        stays.add(kind)
        return done

    def _is_left(self, manifest: Manifest, key: str) -> bool:
        """Say whether `manifest` is of the parent `key` alone, and nobody controls it."""
        return not objects.controller_of(manifest) and self._ours.is_free(manifest, key)

    async def _still_there(
        self, kind: Kind, namespace: str, parent: str, entries: Sequence[Entry]
    ) -> list[Manifest]:
        """List what of `kind` is labelled as the parent's; forget what of `entries` is gone."""
        listing = await self._client.list(
            kind,
            lambda item: item,
            namespace=namespace,
            selector=self._ours.selector(parent),
        )
        there = {item["metadata"]["uid"] for item in listing.items}
        for entry in entries:
            if entry.uid not in there:  # its deletion was not heard of
                self._cache.remove(kind, entry.uid, listing.version)
        return listing.items

    async def publish_status(self, raw: Manifest, status: Manifest) -> list[Change]:
        """Write `status` if it says something new, and only over the very `raw` it is about.

        Raises `Conflict` when the parent has changed since `raw` was read: an old leader cannot
        overwrite newer status. Where the cache has not heard of that it is told.
        """
        if raw.get("status", {}) == status:
            self._unreported.pop(raw["metadata"]["uid"], None)
            return []
        patch = patches.address(raw) | {"status": status}
        patch["metadata"]["resourceVersion"] = raw["metadata"]["resourceVersion"]
        write = requests.apply(patch, self._ours.status_manager, force=True, subresource="status")
        try:
            answer = await self._client.send(write)
            if answer.get("status", {}) != status:  # others wrote there; it is ours as a whole
                whole = patches.replace_status(answer, status, self._ours.status_manager)
                answer = await self._client.send(whole)
        except Stale:
            known = self._cache.parent(raw["metadata"]["uid"])
            if known and known.version == int(raw["metadata"]["resourceVersion"]):
                await self._look_at(known)
            raise
        self._cache.put(kind_of(answer), answer)
        self._unreported.pop(raw["metadata"]["uid"], None)
        fields = sorted(_top_differences(raw.get("status", {}), status))
        return [self._logged(raw, Change(Action.STATUS, *_names(raw), tuple(fields)))]

    def differing(self, desired: Manifest, live: Entry) -> list[Difference]:
        """Return what of `live` is not as desired."""
        hashes = hashes_of(desired)
        found = self._compare(self._noted(desired, hashes), hashes, live)
        return [*found.ours, *found.drift]

    # one object

    async def _bring(
        self, manifest: Manifest, uid: str | None, enforce: bool, done: Applied
    ) -> bool:
        """Make one object as desired, and note what was done; say whether it is there now."""
        live, again, address = await self._live(manifest, uid), None, address_of(manifest)
        if live is None:
            there = not self._deletions.lost(address)
            if there:
                done.changes.append(await self._create(manifest))
        else:
            self._deletions.found(address)
            there, again = True, await self._put_right(manifest, live, enforce, done)
        if drift := self._deletions.repeated(address):
            done.drifts.append(drift)
        for look in (again, self._deletions.again(address)):
            if look is not None:
                done.again = min(look, done.again or look)
        return there

    async def _put_right(
        self, manifest: Manifest, live: Entry, enforce: bool, done: Applied
    ) -> timedelta | None:
        """Make an object that is there as desired; return when to look at a fight once more."""
        if _terminating(live):
            return None
        digest = hashlib.blake2b(orjson.dumps(manifest), digest_size=16).digest()
        proof = self._proven.get(live.uid)
        if proof and proof.holds(live, digest, enforce):
            if drift := self._contests.reported(live.uid) or proof.left:
                done.drifts.append(drift)
            return self._contests.again(live.uid)
        if live.owner != (owner := objects.controller_uid(manifest)):
            await self._confirm(owner)
        if (fixed := live.kind.fixed) and live.manifest().get(fixed) != manifest[fixed]:
            done.changes += await self._replace(manifest, live)
            return None
        try:
            live = await self._adopted(live, owner)
            await self._apply(manifest, digest, live, enforce, done)
        except Stale:
            await self._look_at(live)
            raise
        return self._contests.again(live.uid)

    def _keep_unreported(self, uid: str, done: Applied) -> None:
        """Tell of repairs until a status that tells of them is published: a write may fail."""
        done.drifts[:0] = self._unreported.pop(uid, ())
        if once := [each for each in done.drifts if each.handling in OVER_ONCE_REPORTED]:
            self._unreported[uid] = once

    async def _apply(
        self, desired: Manifest, digest: bytes, live: Entry, enforce: bool, done: Applied
    ) -> None:
        proof = self._proven.get(live.uid)
        hashes = proof.hashes if proof and proof.digest == digest else hashes_of(desired)
        whole = wanted = self._noted(desired, hashes)
        found = self._compare(wanted, hashes, live)
        by_others = found.by_others
        if enforce and found.can_wait and self._contests.calm(live.uid):
            self._contests.see(live.uid, by_others)
            done.drifts += self._contested(live, by_others)
            return
        contested = self._contests.see(live.uid, by_others) if enforce else set()
        left = await self._left(live, by_others, contested) if enforce else found.drift
        drifts = self._drifts(live, found.drift, contested, enforce)
        if left:
            wanted = without(wanted, [each.path for each in found.changed if each in left])
            found = found.without(left)
        begun, before, named = len(done.changes), live, names_of(left)
        put_right = [each for each in by_others if each.field not in named] if enforce else []
        if any(each.path == _REPLICAS and each.how is How.DROPPED for each in found.ours):
            live = await self._hand_over(desired, live, done)
        if found.ours or found.changed:
            live = await self._change(wanted, live, found, done)
        extra = self._extra(whole, live) if enforce else []
        if extra := [each for each in extra if each.field not in named]:
            try:
                live = await self._revert(whole, live, extra, done)
            except ClusterError:
                if len(done.changes) > begun:  # nobody sees again what that has put right
                    done.drifts += self._drifts(before, found.changed, contested, enforce)
                    there = [each for each in put_right if each not in found.added]
                    self._contests.repaired(live.uid, there, writes=0)
                raise
        if changes := len(done.changes) - begun:
            base = whole if enforce else wanted
            drifts += self._learn_unkept(base, hashes, live, enforce, named)
            if put_right:
                self._contests.repaired(live.uid, put_right, changes)
        if enforce and left:
            self._proven.pop(live.uid, None)  # so that it is compared again
        else:
            kept = next(iter(drifts), None) if not enforce else None
            self._proven[live.uid] = _Proof(live.version, digest, enforce, hashes, kept)
        self._forget_the_gone()
        contest = self._contests.reported(live.uid)
        done.drifts += drifts if contest is None or contest in drifts else [*drifts, contest]

    def _drifts(
        self,
        live: Entry,
        drift: Sequence[Difference],
        contested: AbstractSet[str],
        enforce: bool,
    ) -> list[Drift]:
        """Say what others did: what comes back again and again apart from all else."""
        handling = Handling.REPAIRED if enforce else Handling.LEFT
        rest = self._drift_in(
            live, [each for each in drift if each.field not in contested], handling
        )
        fought = [each for each in drift if each.field in contested]
        return [*self._contested(live, fought), *([rest] if rest else [])]

    def _contested(self, live: Entry, found: Sequence[Difference]) -> list[Drift]:
        """Say what is fought over, in the words in which it was reported before."""
        if drift := self._drift_in(live, found, Handling.CONTESTED):
            self._contests.tell(live.uid, drift)
        contest = self._contests.reported(live.uid) if drift else None
        return [contest] if contest else []

    async def _left(
        self, live: Entry, drift: Sequence[Difference], contested: Collection[str]
    ) -> list[Difference]:
        """Return what is left to others for now; to an autoscaler for as long as it is there."""
        left = self._contests.left(live.kind, live.uid, drift)
        for each in drift:
            if each.path != _REPLICAS or each.how is not How.TAKEN or each in left:
                continue
            if each.field in contested and await self._is_autoscaled(live):
                self._contests.leave(live.uid, each.field, LOOK_FOR_AUTOSCALER_S)
                left.append(each)
        return left

    async def _is_autoscaled(self, live: Entry) -> bool:
        """Say whether an autoscaler that is not ours targets the Deployment."""
        listing = await self._client.list(HPA, lambda item: item, namespace=live.namespace)
        target = {"kind": live.kind.name, "name": live.name}
        return any(
            target.items() <= item["spec"]["scaleTargetRef"].items()
            and objects.controller_uid(item) != live.owner
            for item in listing.items
        )

    async def _live(self, desired: Manifest, uid: str | None) -> Entry | None:
        """Return the object to compare with; raises `ResourceConflict` if it is not ours."""
        kind, metadata = kind_of(desired), desired["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        entry = self._cache.named(kind, namespace, name)
        if entry is not None and entry.uid == uid:
            return entry
        found = await self._client.find(kind, namespace, name)  # not ours, or not labelled so
        if found is None:
            return None
        if objects.controller_uid(found) == objects.controller_uid(desired):
            return self._cache.entry_of(kind, found)
        if not self._ours.is_free(found, self._ours.owner_key(desired)):
            raise ResourceConflict(kind.name, namespace, name, _controller_name(found))
        return self._cache.entry_of(kind, found)

    def _parent(self, uid: str) -> E:
        """Return the parent `uid`; raises `Conflict` if it is gone, or going.

        What names it as its owner is collected as garbage then.
        """
        parent = self._cache.parent(uid)
        if parent is None or _terminating(parent):
            raise Conflict(f"the {self._ours.word} {uid} is gone, or going")
        return parent

    async def _confirm(self, uid: str) -> None:
        """Ask the API server for the parent `uid`; raises `Conflict` if it is not as we know it.

        To be asked before anything gets it as a new owner: memory may be late, and what is taken
        for the children of one that is gone may be those of its successor, who serves by them.
        """
        known = self._parent(uid)
        await self._look_at(known)
        if self._cache.parent(uid) is not known:
            raise Conflict(f"the {self._ours.word} {known.key} has changed")

    async def _adopted(self, live: Entry, owner: str) -> Entry:
        """Take over an object of ours whose owner is gone, before it is collected as garbage.

        Whoever restored it may have set that owner: an apply of ours would only add another. So it
        is removed, which nothing collects, and ours is set by the apply alone: a field set by a
        patch too would have a second manager of ours for ever.
        """
        if live.owner in ("", owner):
            return live
        operations = [
            patches.unchanged_since(str(live.version)),
            {"op": "remove", "path": "/metadata/ownerReferences"},
        ]
        return await self._send(
            requests.json_patch(live.manifest(), operations, self._ours.manager)
        )

    async def _look_at(self, cached: Entry) -> None:
        """Bring the cache up to date with an object that may not be what the cache says it is.

        Its watch may never tell: a deletion that was lost is noticed by the next resync only.
        """
        found = await self._client.find(cached.kind, cached.namespace, cached.name)
        if found is None or found["metadata"]["uid"] != cached.uid:
            self._cache.remove(cached.kind, cached.uid, cached.version)
        if found is not None:
            self._cache.put(cached.kind, found)

    async def _create(self, desired: Manifest) -> Change:
        """Create by an apply that gives way: somebody faster is a `Conflict`, and we look again."""
        await self._send(
            requests.apply(
                self._noted(desired, hashes_of(desired)), self._ours.manager, force=False
            )
        )
        self._deletions.made(desired)
        return self._logged(desired, Change(Action.CREATED, *_names(desired)))

    async def _replace(self, desired: Manifest, live: Entry) -> list[Change]:
        """Make another object in the place of one that cannot be changed into what is desired."""
        gone = live.manifest()
        await self._client.send(requests.delete(gone))
        self._deletions.forget(gone)
        self._cache.remove(live.kind, live.uid, live.version)
        deleted = self._logged(gone, Change(Action.DELETED, *_names(gone), (live.kind.fixed,)))
        return [deleted, await self._create(desired)]

    async def _change(self, desired: Manifest, live: Entry, found: Found, done: Applied) -> Entry:
        """Apply what is desired to the very state that was compared.

        It names the owner again, who may have left the object behind a moment ago.
        """
        this = {"uid": live.uid, "resourceVersion": str(live.version)}
        as_seen = desired | {"metadata": desired["metadata"] | this}
        entry = await self._send(requests.apply(as_seen, self._ours.manager, force=True))
        fields = self._note(live, found.ours, found.changed)
        change = Change(Action.APPLIED, *_names(desired), fields)
        done.changes.append(self._logged(desired, change))
        return entry

    async def _hand_over(self, desired: Manifest, live: Entry, done: Applied) -> Entry:
        """Keep the live replicas when we stop to set them: a field without owner falls to 1."""
        patch = patches.address(live.manifest())
        patch["spec"] = {"replicas": live.manifest()["spec"]["replicas"]}
        try:
            live = await self._send(requests.apply(patch, self._ours.handover_manager, force=False))
        except Conflict:  # the autoscaler has it already, with another value
            return live
        change = Change(Action.HANDED_OVER, *_names(desired), ("spec.replicas",))
        done.changes.append(self._logged(desired, change))
        return live

    async def _revert(
        self, desired: Manifest, live: Entry, extra: Sequence[Difference], done: Applied
    ) -> Entry:
        """Remove what others added, from the end so that places in lists stay right."""
        operations = [patches.unchanged_since(str(live.version))]
        last_first = sorted({each.path for each in extra}, key=place_of, reverse=True)
        operations += [{"op": "remove", "path": patches.pointer(path)} for path in last_first]
        entry = await self._send(
            requests.json_patch(live.manifest(), operations, self._ours.manager)
        )
        change = Change(Action.REVERTED, *_names(desired), self._note(live, (), extra))
        done.changes.append(self._logged(desired, change))
        return entry

    async def _delete(self, live: Manifest, done: Applied) -> bool:
        """Delete an object; return whether it is gone, and not only on its way out."""
        if "deletionTimestamp" in live["metadata"]:
            return False
        try:
            answer = await self._client.send(requests.delete(live))
        except NotFound:
            self._gone(live)
            return True
        except NotLeading:
            raise
        except ClusterError as error:
            done.failed.append(self._failed(live, error))
            if isinstance(error, Unavailable):
                await self._perhaps_gone(live)
            return False
        lingers = bool(answer.get("metadata", {}).get("finalizers"))
        if not lingers:
            self._gone(live)
        self._went_well(live)
        self._deletions.forget(live)
        done.changes.append(self._logged(live, Change(Action.DELETED, *_names(live))))
        return not lingers

    async def _perhaps_gone(self, live: Manifest) -> None:
        """Look whether a deletion that nobody answered was done: no route is to lead there then."""
        metadata, kind = live["metadata"], kind_of(live)
        try:
            found = await self._client.find(kind, metadata.get("namespace", ""), metadata["name"])
        except NotLeading:
            raise
        except ClusterError:
            return  # its watch tells, or the next pass lists it
        if found is None or found["metadata"]["uid"] != metadata["uid"]:
            self._gone(live)

    def _gone(self, live: Manifest) -> None:
        """Forget what we know is not there: its watch may tell late, or never, and routes lead."""
        metadata = live["metadata"]
        kind = kind_of(live)
        self._cache.remove(kind, metadata["uid"], int(metadata["resourceVersion"]))

    async def _send(self, request: requests.Request) -> Entry:
        """Send a write of a child and read our own write: the cache has the answer at once."""
        answer = await self._client.send(request)
        entry = self._cache.entry_of(kind_of(answer), answer)
        self._cache.put_entry(entry)
        return entry

    # what differs

    def _compare(self, wanted: Manifest, hashes: Hashes, live: Entry) -> Found:
        applied, manifest = live.ownership.applied_fields(), live.manifest()
        settled = still_applied(hashes, manifest, applied, self._ours.applied_annotation)
        foreign = live.ownership.foreign_fields()
        found = [
            attributed(each, settled, foreign)
            for each in self._without_unkept(live, differences(wanted, manifest, applied))
        ]
        changed = [
            each
            for each in found
            if each.drift and not self._is_note(each) and (settled is None or each.unit in settled)
        ]
        ours = [each for each in found if each not in changed]
        return Found(ours, changed, self._extra(wanted, live))

    def _extra(self, desired: Manifest, live: Entry) -> list[Difference]:
        manifest = live.manifest() if live.ownership.foreign else {}
        found = [
            each
            for _, fields in live.ownership.foreign_fields()
            for each in additions(desired, manifest, fields)
        ]
        return self._without_unkept(live, list(dict.fromkeys(found)))

    def _drift_in(
        self, live: Entry, found: Sequence[Difference], handling: Handling
    ) -> Drift | None:
        if not found:
            return None
        foreign = live.ownership.foreign_fields()
        fields = {
            f"{each.field} ({_VERBS[each.how]}{self._by(setters(foreign, each.path))})": None
            for each in found
        }
        return Drift(live.kind.name, live.name, tuple(fields), handling)

    def _without_unkept(self, live: Entry, found: list[Difference]) -> list[Difference]:
        """Leave out what the API server made of what we wrote, as long as it is that very value."""
        unkept = self._unkept.get(live.uid)
        return [e for e in found if unkept.get(e.path) != e.values] if unkept else found

    def _learn_unkept(
        self, wanted: Manifest, hashes: Hashes, live: Entry, enforce: bool, left: Collection[str]
    ) -> list[Drift]:
        """Remember what the API server did not keep as we wrote it, lest we write it for ever.

        left: fields that were not written.
        """
        found = self._compare(wanted, hashes, live)
        unlike = [*found.ours, *found.changed]
        unlike += found.added if enforce else []
        unlike = [each for each in unlike if each.field not in left]
        if not unlike:
            return []
        self._unkept.setdefault(live.uid, {}).update({each.path: each.values for each in unlike})
        logger.warning(
            "the API server does not keep these fields as they were written; leaving them",
            extra={"fields": self._log_fields(wanted) | {"fields": [str(each) for each in unlike]}},
        )
        fields = tuple(dict.fromkeys(each.field for each in unlike if not self._is_note(each)))
        return [Drift(live.kind.name, live.name, fields, Handling.NOT_KEPT)] if fields else []

    def _forget_the_gone(self) -> None:
        if len(self._proven) > 2 * self._cache.size() + 1000:
            self._contests.forget(self._cache.has)
            for known in (self._proven, self._unkept, self._unmade, self._slow):
                for uid in [uid for uid in known if not self._cache.has(uid)]:
                    del known[uid]

    def _note(
        self, live: Entry, ours: Sequence[Difference], drift: Sequence[Difference]
    ) -> tuple[str, ...]:
        for each in drift:
            self._repaired(live.kind.name, each.field_class)
        return tuple(str(each) for each in (*ours, *drift) if not self._is_note(each))

    def _noted(self, desired: Manifest, hashes: Hashes) -> Manifest:
        return with_hashes(desired, hashes, self._ours.applied_annotation)

    def _is_note(self, difference: Difference) -> bool:
        """Say whether it is about our own note, or annotations that hold nothing else of ours."""
        path = difference.path
        return self._ours.applied_path[: len(path)] == path

    def _by(self, managers: Sequence[str]) -> str:
        names = [self._ours.called.get(each, each) for each in managers]
        return f" by {' and '.join(names)}" if names else ""

    def _parent_of(self, entry: Entry) -> str:
        labels = entry.manifest()["metadata"].get("labels") or {}
        return str(labels.get(self._ours.parent_label, ""))

    def _failed(self, manifest: Manifest, error: ClusterError, took: float = 0.0) -> Failed:
        """Count a failure. A refusal is logged here, once: it is the same at each further try."""
        failed = self._failures.failed(manifest, error, took)
        if failed.news:
            why = {"reason": type(error).__name__, "error": self._shown(str(error))}
            logger.warning("refused", extra={"fields": self._log_fields(manifest) | why})
        return failed

    def _went_well(self, manifest: Manifest) -> None:
        """End the count of its failures."""
        if self._failures.forget(manifest):
            fields = self._log_fields(manifest)
            logger.info("not refused any more", extra={"fields": fields})

    def _logged(self, manifest: Manifest, change: Change) -> Change:
        """Log `change`, each once, where it happened."""
        fields = self._log_fields(manifest)
        fields |= {"fields": list(change.fields)} if change.fields else {}
        logger.info(str(change.action), extra={"fields": fields})
        return change

    def _log_fields(self, manifest: Manifest) -> dict[str, Any]:
        kind, namespace, name = _names(manifest)
        key = self._ours.owner_key(manifest) or f"{namespace}/{name}"
        return {self._ours.word: key, "kind": kind, "name": name}


_VERBS = {How.TAKEN: "set", How.UNOWNED: "set", How.ADDED: "added", How.REMOVED: "removed"}


def _going(kind: Kind) -> tuple[bool, str]:
    """Sort kinds by what goes first: what leads requests, before what they are led to."""
    return not kind.leads, kind.name


def _absent(manifest: Manifest, why: str) -> Failed:
    return Failed(manifest, NotFound(f"{manifest['metadata']['name']} {why}"), 0, 0.0)


def _terminating(live: Entry) -> bool:
    mentioned = b'"deletionTimestamp"' in live.body  # many times faster than to read it all
    return mentioned and "deletionTimestamp" in live.manifest()["metadata"]


def _controller_name(manifest: Manifest) -> str:
    controller = objects.controller_of(manifest)
    return f"{controller['kind']} {controller['name']}" if controller else ""


def _top_differences(one: Manifest, other: Manifest) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def _names(manifest: Manifest) -> tuple[str, str, str]:
    metadata = manifest["metadata"]
    return manifest["kind"], metadata.get("namespace", ""), metadata["name"]
