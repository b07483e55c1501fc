"""Write what differs and say which field; remove what is no longer wanted; publish status."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from math import inf
from typing import Any, Final

import orjson

from yolofleet.api.detector import DriftPolicy
from yolofleet.api.names import (
    DETECTOR_LABEL,
    HANDOVER_MANAGER,
    MANAGER,
    RENDER_ANNOTATION,
    STATUS_MANAGER,
    WISH_ANNOTATION,
    Manifest,
)
from yolofleet.cluster import kinds
from yolofleet.cluster.cache import Cache, Entry, entry_of
from yolofleet.cluster.kinds import CONTROLLER
from yolofleet.cluster.unmade import leads_to_nothing, way_points
from yolofleet.runtime import client as requests
from yolofleet.runtime import objects
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
from yolofleet.runtime.deletions import Deletions
from yolofleet.runtime.drift import TOLD_ONCE, Drift, Handling
from yolofleet.runtime.errors import (
    ClusterError,
    Conflict,
    Forbidden,
    NotFound,
    NotLeading,
    ResourceConflict,
    Stale,
)
from yolofleet.runtime.failures import Failed, Failures, is_away
from yolofleet.runtime.kind import Kind, kind_of
from yolofleet.runtime.ownership import Fields, setters
from yolofleet.runtime.wish import Wish, still_wished, wish_of, with_wish

logger = logging.getLogger(__name__)

_REPLICAS: Final = ("spec", "replicas")

LOOK_FOR_AUTOSCALER_S: Final = 60.0
"""How often to look whether the autoscaler that a Deployment is left to is still there."""

ACCOUNT_S: Final = 600.0
"""So long the default account of a namespace counts as it was read."""


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


@dataclass(slots=True)
class Applied:
    """What was written, what could not be, and what others had changed.

    again: when to look at a fight once more. given_up: the API server is away or asks for a pause,
    so what came later was not tried.
    """

    changes: list[Change] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    drifts: list[Drift] = field(default_factory=list)
    again: timedelta | None = None
    given_up: bool = False

    def then(self, later: Applied) -> Applied:
        """Return both as one: what was written, and what was deleted after it."""
        changes, failed = [*self.changes, *later.changes], [*self.failed, *later.failed]
        return Applied(changes, failed, self.drifts, self.again, later.given_up)


RepairObserver = Callable[[str, str], None]
"""Told of each field that was put right after others changed it: kind, class of the field."""


@dataclass(frozen=True, slots=True)
class _Proof:
    """That an object was as desired, in this version, but for what the policy leaves."""

    version: int
    digest: bytes
    policy: DriftPolicy
    wish: Wish
    left: Drift | None


@dataclass(frozen=True, slots=True)
class _Found:
    """What of one object is not as desired: by our own wish, by others' changes and additions."""

    ours: list[Difference]
    changed: list[Difference]
    added: list[Difference]

    @property
    def drift(self) -> list[Difference]:
        return [*self.changed, *self.added]

    @property
    def by_others(self) -> list[Difference]:
        """Return what others did, and what they set to what we want where that is all there is."""
        taken = [each for each in self.ours if each.how is How.UNOWNED]
        return [*self.drift, *(taken if len(taken) == len(self.ours) else ())]

    def without(self, left: Collection[Difference]) -> _Found:
        """Return what is to be put right when `left` is not."""
        changed = [each for each in self.changed if each not in left]
        return _Found(self.ours, changed, [each for each in self.added if each not in left])

    @property
    def can_wait(self) -> bool:
        """Return whether others alone made it differ: a wish of ours is never held up by a fight.

        A value that others set to what we want is ours to take back, but no wish.
        """
        return all(each.how is How.UNOWNED for each in self.ours) and bool(self.drift or self.ours)


class Writer:
    """Brings the cluster to what is desired, with as few writes as that takes."""

    def __init__(
        self,
        client: Client,
        cache: Cache,
        *,
        repaired: RepairObserver = lambda _kind, _field: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._cache = cache
        self._repaired = repaired
        self._clock = clock
        self._proven: dict[str, _Proof] = {}
        self._unkept: dict[str, dict[Path, bytes]] = {}
        self._contests = Contests(clock)
        self._deletions = Deletions(clock)
        self._failures = Failures(clock)
        self._untold: dict[str, list[Drift]] = {}
        self._unreached: dict[str, frozenset[str]] = {}
        self._accounts: dict[str, tuple[float, Manifest | None]] = {}

    async def children(self, uid: str, key: str, serving: Iterable[str]) -> list[Manifest]:
        """Return what is the detector's, from memory but for what should be there.

        That is what `uid` controls, and what is its own by name and labels and has no owner, or
        that of its stable Service, who is gone: it serves, and is adopted by the first write.

        serving: Deployments that its status speaks of. One that the cache lacks is looked at
        itself: without the label by which it is watched it serves as before, and to take it for
        gone would move its traffic. Where it is gone, so is its record, to make it from again.
        """
        found = self.known_children(uid, key)
        namespace = key.partition("/")[0]
        known = {objects.identity(child) for child in found}
        for revision in serving:
            for kind in (kinds.DEPLOYMENT, kinds.RECORD):
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

    def unread(self, raw: Manifest, error: ClusterError) -> Failed:
        """Count that what is to be known of the detector `raw` could not be read."""
        return self._failures.failed(raw, error)

    def was_read(self, raw: Manifest) -> None:
        """End that count."""
        self._failures.forget(raw)

    async def apply(
        self,
        desired: Sequence[Manifest],
        over: Sequence[Manifest],
        policy: DriftPolicy = DriftPolicy.ENFORCE,
    ) -> Applied:
        """Write in this order what differs from `desired`; return what was written and found.

        over: the children as observed. An object that cannot be written holds up nobody but those
        who lead to it (`leads_to_nothing`). One that the detector does not control is not touched.
        Raises nothing of the cluster's but `NotLeading`.
        """
        uids = {objects.identity(child): child["metadata"]["uid"] for child in over}
        done, unmade = Applied(), list[Failed]()
        for manifest in desired:
            if done.given_up:
                break
            if any(leads_to_nothing(manifest, each) for each in unmade):
                continue
            identity = objects.identity(manifest)
            try:
                if not await self._bring(manifest, uids.get(identity), policy, done):
                    absent = NotFound(f"{identity[1]} is left deleted for a moment")
                    unmade.append(Failed(manifest, absent, 0, 0.0))
            except NotLeading:
                raise
            except ClusterError as error:
                failed = self._failures.failed(manifest, error)
                done.failed.append(failed)
                if isinstance(error, ResourceConflict) or identity not in uids:
                    unmade.append(failed)
                done.given_up = is_away(done.failed)
            else:
                self._failures.forget(manifest)
        if desired:
            uid = objects.controller_uid(desired[0])
            self._keep_untold(uid, done)
            self._unreached[uid] = way_points(unmade)
        return done

    def unreached(self, uid: str) -> frozenset[str]:
        """Return the names of Services that the detector `uid` lacks, or lacks the rule for.

        As the last pass found it: no route may name them, so none should be asked for. A route
        that waits for one of them leaves requests with those that it has.
        """
        return self._unreached.get(uid, frozenset())

    def edited(self, children: Iterable[Manifest]) -> frozenset[str]:
        """Return the Deployments whose note of what they were rendered with may be others'.

        So it is with one that the cache lacks: somebody took its labels away.
        """
        found = set()
        for child in children:
            if child["kind"] == kinds.DEPLOYMENT.name:
                meta = child["metadata"]
                entry = self._cache.named(kinds.DEPLOYMENT, meta["namespace"], meta["name"])
                if entry is None or not entry.ownership.is_applied(
                    "metadata", "annotations", RENDER_ANNOTATION
                ):
                    found.add(meta["name"])
        return frozenset(found)

    async def prune(
        self, uid: str, keep: Collection[tuple[str, str]], spared: Collection[str] = ()
    ) -> Applied:
        """Delete the children of the detector `uid` whose (kind, name) is not in `keep`.

        spared: kinds of which nothing is deleted. The cache only says where to look: what is
        deleted was listed a moment ago, and is still the same object (uid) in the same state
        (resourceVersion) when the API server deletes it. Raises nothing but `NotLeading`.
        """
        doubtful: defaultdict[tuple[Kind, str, str], list[Entry]] = defaultdict(list)
        for entry in self._cache.owned_by(uid):
            if (entry.kind.name, entry.name) not in keep and entry.kind.name not in spared:
                doubtful[entry.kind, entry.namespace, _detector_of(entry)].append(entry)
        done = Applied()
        for place, entries in sorted(doubtful.items(), key=lambda place: place[0][0].name):
            try:
                there = await self._still_there(*place, entries)
            except NotLeading:
                raise
            except ClusterError as error:
                done.failed.append(self._failures.failed(entries[0].manifest(), error))
                continue
            for item in there:
                if objects.controller_uid(item) == uid and objects.identity(item) not in keep:
                    await self._delete(item, done)
        return done

    async def _still_there(
        self, kind: Kind, namespace: str, detector: str, entries: Sequence[Entry]
    ) -> list[Manifest]:
        """List what of `kind` is labelled as the detector's; forget what of `entries` is gone."""
        listing = await self._client.list(
            kind,
            lambda item: item,
            namespace=namespace,
            selector=CONTROLLER.selector(detector),
        )
        there = {item["metadata"]["uid"] for item in listing.items}
        for entry in entries:
            if entry.uid not in there:  # its deletion was not heard of
                self._cache.remove(kind, entry.uid, listing.version)
        return listing.items

    async def publish_status(self, raw: Manifest, status: Manifest) -> list[Change]:
        """Write `status` if it says something new, and only over the very `raw` it is about.

        Raises `Conflict` when the detector has changed since `raw` was read: an old leader cannot
        overwrite newer status.
        """
        if raw.get("status", {}) == status:
            self._untold.pop(raw["metadata"]["uid"], None)
            return []
        patch = _address(raw) | {"status": status}
        patch["metadata"]["resourceVersion"] = raw["metadata"]["resourceVersion"]
        answer = await self._client.send(
            requests.apply(patch, STATUS_MANAGER, force=True, subresource="status")
        )
        if answer.get("status", {}) != status:  # somebody else wrote there; it is ours as a whole
            answer = await self._client.send(_replace_status(answer, status))
        self._cache.put(kinds.DETECTOR, answer)
        self._untold.pop(raw["metadata"]["uid"], None)
        fields = sorted(_top_differences(raw.get("status", {}), status))
        return [_told(raw, Change(Action.STATUS, *_names(raw), tuple(fields)))]

    def differing(self, desired: Manifest, live: Entry) -> list[Difference]:
        """Return what of `live` is not as desired."""
        wish = wish_of(desired)
        found = self._compare(with_wish(desired, wish, WISH_ANNOTATION), wish, live)
        return [*found.ours, *found.drift]

    # one object

    async def _bring(
        self, manifest: Manifest, uid: str | None, policy: DriftPolicy, done: Applied
    ) -> bool:
        """Make one object as desired, and note what was done; say whether it is there now."""
        live, again = await self._live(manifest, uid), None
        if live is None:
            there = not self._deletions.lost(manifest)
            if there:
                done.changes.append(await self._create(manifest))
        else:
            self._deletions.found(manifest)
            there, again = True, await self._put_right(manifest, live, policy, done)
        if told := self._deletions.told(manifest):
            done.drifts.append(told)
        for look in (again, self._deletions.again(manifest)):
            if look is not None:
                done.again = min(look, done.again or look)
        return there

    async def _put_right(
        self, manifest: Manifest, live: Entry, policy: DriftPolicy, done: Applied
    ) -> timedelta | None:
        """Make an object that is there as desired; return when to look at a fight once more."""
        if b'"deletionTimestamp"' in live.body and _terminating(live):
            return None
        if (fixed := live.kind.fixed) and live.manifest().get(fixed) != manifest[fixed]:
            done.changes += await self._replace(manifest, live)
            return None
        try:
            live = await self._adopted(manifest, live)
            changes, drifts = await self._apply(manifest, live, policy)
        except Stale:
            await self._look_at(live)
            raise
        done.changes.extend(changes)
        done.drifts.extend(drifts)
        return self._contests.again(live.uid)

    def _keep_untold(self, uid: str, done: Applied) -> None:
        """Tell of repairs until a status that tells of them is published: a write may fail."""
        done.drifts[:0] = self._untold.pop(uid, ())
        if once := [each for each in done.drifts if each.handling in TOLD_ONCE]:
            self._untold[uid] = once

    async def _apply(
        self, desired: Manifest, live: Entry, policy: DriftPolicy
    ) -> tuple[list[Change], list[Drift]]:
        digest = hashlib.blake2b(orjson.dumps(desired), digest_size=16).digest()
        proof = self._proven.get(live.uid)
        if proof and (proof.version, proof.digest, proof.policy) == (live.version, digest, policy):
            told = self._contests.told(live.uid) or proof.left
            return [], [told] if told else []
        wish = proof.wish if proof and proof.digest == digest else wish_of(desired)
        whole = wanted = with_wish(desired, wish, WISH_ANNOTATION)
        found = self._compare(wanted, wish, live)
        enforced, by_others = policy is DriftPolicy.ENFORCE, found.by_others
        if enforced and found.can_wait and self._contests.calm(live.uid):
            self._contests.see(live.uid, by_others)
            return [], self._contested(live, by_others)
        contested = self._contests.see(live.uid, by_others) if enforced else set()
        left = await self._left(live, by_others, contested) if enforced else found.drift
        drifts = self._drifts(live, found.drift, contested, policy)
        changes: list[Change] = []
        if any(each.path == _REPLICAS and each.how is How.DROPPED for each in found.ours):
            changes += await self._hand_over(desired, live)
        if left:
            wanted = without(wanted, [each.path for each in found.changed if each in left])
            found = found.without(left)
        if found.ours or found.changed:
            live, change = await self._change(wanted, live, found)
            changes.append(change)
        named = names_of(left)
        extra = self._extra(whole, live) if enforced else []
        if extra := [each for each in extra if each.field not in named]:
            live, change = await self._revert(whole, live, extra)
            changes.append(change)
        if changes:
            base = whole if enforced else wanted
            drifts += self._learn_unkept(base, wish, live, policy, named)
        if changes and enforced and by_others:
            put_right = [each for each in by_others if each.field not in named]
            self._contests.repaired(live.uid, put_right, len(changes))
        if enforced and left:
            self._proven.pop(live.uid, None)  # so that it is compared again
        else:
            kept = next(iter(drifts), None) if not enforced else None
            self._proven[live.uid] = _Proof(live.version, digest, policy, wish, kept)
        self._forget_the_gone()
        told = self._contests.told(live.uid)
        return changes, drifts if told is None or told in drifts else [*drifts, told]

    def _drifts(
        self,
        live: Entry,
        drift: Sequence[Difference],
        contested: AbstractSet[str],
        policy: DriftPolicy,
    ) -> list[Drift]:
        """Say what others did: what comes back again and again apart from all else."""
        handling = Handling.REPAIRED if policy is DriftPolicy.ENFORCE else Handling.LEFT
        rest = self._told(live, [each for each in drift if each.field not in contested], handling)
        fought = [each for each in drift if each.field in contested]
        return [*self._contested(live, fought), *([rest] if rest else [])]

    def _contested(self, live: Entry, found: Sequence[Difference]) -> list[Drift]:
        """Say what is fought over, in the words in which it was told before."""
        if drift := self._told(live, found, Handling.CONTESTED):
            self._contests.tell(live.uid, drift)
        told = self._contests.told(live.uid) if drift else None
        return [told] if told else []

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
        listing = await self._client.list(kinds.HPA, lambda item: item, namespace=live.namespace)
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
            return entry_of(kind, found)
        if not CONTROLLER.is_free(found, CONTROLLER.owner_key(desired)):
            raise ResourceConflict(kind.name, namespace, name, _controller_name(found))
        return entry_of(kind, found)

    async def _adopted(self, desired: Manifest, live: Entry) -> Entry:
        """Take over an object of ours whose owner is gone, before it is collected as garbage.

        Whoever restored it may have set that owner: an apply of ours would only add another. So it
        is removed, which nothing collects, and ours is set by the apply alone: a field set by a
        patch too would have a second manager of ours for ever.
        """
        if live.owner in ("", objects.controller_uid(desired)):
            return live
        operations = [
            _unchanged_since(str(live.version)),
            {"op": "remove", "path": "/metadata/ownerReferences"},
        ]
        return await self._send(requests.json_patch(live.manifest(), operations, MANAGER))

    async def _look_at(self, cached: Entry) -> None:
        """Bring the cache up to date with an object that is not what the cache says it is.

        Its watch may never tell: a deletion that was lost is noticed by the next sweep only.
        """
        found = await self._client.find(cached.kind, cached.namespace, cached.name)
        if found is None or found["metadata"]["uid"] != cached.uid:
            self._cache.remove(cached.kind, cached.uid, cached.version)
        else:
            self._cache.put(cached.kind, found)

    async def _create(self, desired: Manifest) -> Change:
        """Create by an apply that gives way: somebody faster is a `Conflict`, and we look again."""
        await self._send(
            requests.apply(
                with_wish(desired, wish_of(desired), WISH_ANNOTATION), MANAGER, force=False
            )
        )
        self._deletions.made(desired)
        return _told(desired, Change(Action.CREATED, *_names(desired)))

    async def _replace(self, desired: Manifest, live: Entry) -> list[Change]:
        """Make another object in the place of one that cannot be changed into what is desired."""
        gone = live.manifest()
        await self._client.send(requests.delete(gone))
        self._deletions.forget(gone)
        self._cache.remove(live.kind, live.uid, live.version)
        deleted = _told(gone, Change(Action.DELETED, *_names(gone), (live.kind.fixed,)))
        return [deleted, await self._create(desired)]

    async def _change(self, desired: Manifest, live: Entry, found: _Found) -> tuple[Entry, Change]:
        same_object = desired | {"metadata": desired["metadata"] | {"uid": live.uid}}
        entry = await self._send(requests.apply(same_object, MANAGER, force=True))
        fields = self._note(live, found.ours, found.changed)
        return entry, _told(desired, Change(Action.APPLIED, *_names(desired), fields))

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
        last_first = sorted({each.path for each in extra}, key=place_of, reverse=True)
        operations += [{"op": "remove", "path": _pointer(path)} for path in last_first]
        entry = await self._send(requests.json_patch(live.manifest(), operations, MANAGER))
        change = Change(Action.REVERTED, *_names(desired), self._note(live, (), extra))
        return entry, _told(desired, change)

    async def _delete(self, live: Manifest, done: Applied) -> None:
        if "deletionTimestamp" in live["metadata"]:
            return
        try:
            answer = await self._client.send(requests.delete(live))
        except NotFound:
            self._gone(live)
            return
        except NotLeading:
            raise
        except ClusterError as error:
            done.failed.append(self._failures.failed(live, error))
        else:
            if not answer.get("metadata", {}).get("finalizers"):  # else it goes later
                self._gone(live)
            self._failures.forget(live)
            self._deletions.forget(live)
            done.changes.append(_told(live, Change(Action.DELETED, *_names(live))))

    def _gone(self, live: Manifest) -> None:
        """Forget what we know is not there: its watch may tell late, or never, and routes lead."""
        metadata = live["metadata"]
        kind = kind_of(live)
        self._cache.remove(kind, metadata["uid"], int(metadata["resourceVersion"]))

    async def _send(self, request: requests.Request) -> Entry:
        """Send a write of a child and read our own write: the cache has the answer at once."""
        answer = await self._client.send(request)
        entry = entry_of(kind_of(answer), answer)
        self._cache.put_entry(entry)
        return entry

    # what differs

    def _compare(self, wanted: Manifest, wish: Wish, live: Entry) -> _Found:
        applied, manifest = live.ownership.applied_fields(), live.manifest()
        settled = still_wished(wish, manifest, applied, WISH_ANNOTATION)
        foreign = live.ownership.foreign_fields()
        found = [
            _attributed(each, settled, foreign)
            for each in self._without_unkept(live, differences(wanted, manifest, applied))
        ]
        changed = [
            each
            for each in found
            if each.drift and not _is_note(each) and (settled is None or each.unit in settled)
        ]
        ours = [each for each in found if each not in changed]
        return _Found(ours, changed, self._extra(wanted, live))

    def _extra(self, desired: Manifest, live: Entry) -> list[Difference]:
        manifest = live.manifest() if live.ownership.foreign else {}
        found = [
            each
            for _, fields in live.ownership.foreign_fields()
            for each in additions(desired, manifest, fields)
        ]
        return self._without_unkept(live, list(dict.fromkeys(found)))

    def _told(self, live: Entry, found: Sequence[Difference], handling: Handling) -> Drift | None:
        if not found:
            return None
        foreign = live.ownership.foreign_fields()
        fields = {
            f"{each.field} ({_VERBS[each.how]}{_by(setters(foreign, each.path))})": None
            for each in found
        }
        return Drift(live.kind.name, live.name, tuple(fields), handling)

    def _without_unkept(self, live: Entry, found: list[Difference]) -> list[Difference]:
        """Leave out what the API server made of what we wrote, as long as it is that very value."""
        unkept = self._unkept.get(live.uid)
        return [e for e in found if unkept.get(e.path) != e.values] if unkept else found

    def _learn_unkept(
        self, wanted: Manifest, wish: Wish, live: Entry, policy: DriftPolicy, left: Collection[str]
    ) -> list[Drift]:
        """Remember what the API server did not keep as we wrote it, lest we write it for ever.

        left: fields that were not written.
        """
        found = self._compare(wanted, wish, live)
        unlike = [*found.ours, *found.changed]
        unlike += found.added if policy is DriftPolicy.ENFORCE else []
        unlike = [each for each in unlike if each.field not in left]
        if not unlike:
            return []
        self._unkept.setdefault(live.uid, {}).update({each.path: each.values for each in unlike})
        logger.warning(
            "the API server does not keep these fields as they were written; leaving them",
            extra={"fields": _log_fields(wanted) | {"fields": [str(each) for each in unlike]}},
        )
        fields = tuple(dict.fromkeys(each.field for each in unlike if not _is_note(each)))
        return [Drift(live.kind.name, live.name, fields, Handling.NOT_KEPT)] if fields else []

    def _forget_the_gone(self) -> None:
        if len(self._proven) > 2 * self._cache.size() + 1000:
            self._contests.forget(self._cache.has)
            for known in (self._proven, self._unkept, self._unreached):
                for uid in [uid for uid in known if not self._cache.has(uid)]:
                    del known[uid]

    def _note(
        self, live: Entry, ours: Sequence[Difference], drift: Sequence[Difference]
    ) -> tuple[str, ...]:
        for each in drift:
            self._repaired(live.kind.name, each.field_class)
        return tuple(str(each) for each in (*ours, *drift) if not _is_note(each))


_VERBS = {How.TAKEN: "set", How.UNOWNED: "set", How.ADDED: "added", How.REMOVED: "removed"}


def _attributed(
    each: Difference, settled: AbstractSet[str] | None, foreign: Sequence[tuple[str, Fields]]
) -> Difference:
    """Say whose doing it is, where we want what we wanted when we last wrote."""
    if settled is None or each.unit not in settled:
        return each
    if each.how is How.MISSING:
        return replace(each, how=How.REMOVED)
    if each.how is How.CHANGED and setters(foreign, each.path):
        return replace(each, how=How.TAKEN)  # we are left as the owner of an empty field
    return each


def _is_note(difference: Difference) -> bool:
    """Say whether it is about our own note, or about annotations that hold nothing else of ours."""
    return CONTROLLER.applied_path[: len(difference.path)] == difference.path


def _by(managers: Sequence[str]) -> str:
    told = [CONTROLLER.called.get(each, each) for each in managers]
    return f" by {' and '.join(told)}" if told else ""


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


def _pointer(path: Path) -> str:
    steps = (step if isinstance(step, str) else str(int(step)) for step in path)
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)


def _controller_name(manifest: Manifest) -> str:
    controller = objects.controller_of(manifest)
    return f"{controller['kind']} {controller['name']}" if controller else ""


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
    key = CONTROLLER.owner_key(manifest) or f"{manifest['metadata'].get('namespace')}/" + str(
        manifest["metadata"]["name"]
    )
    kind, _, name = _names(manifest)
    return {"detector": key, "kind": kind, "name": name}
