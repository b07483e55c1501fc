"""The operator on one page: look, think, write, tell.

It knows nothing of canaries, GPUs or meshes: that is `plan`. It decides nothing and fails on
nothing but the API server. What that refuses of one object holds up no other, and is reported.
"""

import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

import orjson

from yolofleet.api.base import InvalidSpec
from yolofleet.api.detector import Detector, DriftPolicy
from yolofleet.api.names import Manifest
from yolofleet.api.status import ConditionType, Reason, Status, read_status
from yolofleet.cluster.accelerators import Accelerators
from yolofleet.cluster.apply import Writer
from yolofleet.cluster.cache import Cache
from yolofleet.cluster.complaints import Complaints
from yolofleet.cluster.floors import Floors
from yolofleet.cluster.kinds import POD_MONITOR
from yolofleet.cluster.sampler import Sampler
from yolofleet.cluster.unmade import reason_of
from yolofleet.plan import powers
from yolofleet.plan.autoscaler import AUTOSCALER
from yolofleet.plan.decide import Plan
from yolofleet.plan.defaults import Defaults
from yolofleet.plan.drift import drift_news, drifted
from yolofleet.plan.fields import as_the_user_wrote, origin, steady
from yolofleet.plan.news import news
from yolofleet.plan.observed import child_named
from yolofleet.plan.recount import recounted
from yolofleet.plan.snapshot import Snapshot
from yolofleet.plan.status import next_look, redated, refused, with_statement
from yolofleet.plan.unwritten import Unwritten, with_unwritten
from yolofleet.resources.build import SAFETY, leant_on
from yolofleet.resources.service_account import pull_secrets_of
from yolofleet.runtime.changes import Action, Applied
from yolofleet.runtime.drift import Drift
from yolofleet.runtime.errors import ClusterError, NotLeading, Unfinished
from yolofleet.runtime.events import Events
from yolofleet.runtime.failures import Failed, cause_of
from yolofleet.runtime.logs import note
from yolofleet.runtime.objects import identity
from yolofleet.think import Thought, think
from yolofleet.workloads.failures import PATIENCE, next_look_at, waits_for_image

logger = logging.getLogger(__name__)

ASK_AGAIN = timedelta(seconds=30)
"""When to retry what the API server refused: a person has to act, and may do so elsewhere."""

READ_BACK = timedelta(milliseconds=100)
"""When to go on after a write that leads to another: the echo of our own write wakes nobody."""

READABLE = "all that it depends on can be read"
"""What has to be before anything is decided where a read failed."""

_UNTIL: Final = {
    Reason.INVALID_SPEC: "the spec is valid",
    Reason.OPERATOR_FAILED: "the operator no longer fails",
}
"""The same for what else keeps it from deciding."""


@dataclass(frozen=True, slots=True)
class Deps:
    """What a reconcile needs from the world."""

    cache: Cache
    cluster: Writer
    accelerators: Accelerators
    sampler: Sampler
    floors: Floors
    complaints: Complaints
    events: Events
    defaults: Defaults
    now: Callable[[], datetime]
    token: Callable[[], str] = secrets.token_hex
    followed: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """By key: uid of a detector, and the last spec of it that could be followed."""


async def reconcile(key: str, deps: Deps) -> timedelta | None:
    """Bring the detector `key` one step closer to its spec; return when to look again, if at all.

    Looks at what is, never at what happened: safe at any time, any number of times.
    Raises what the cluster raises, and `Unfinished` once all is published; the queue tries again.
    What else is raised is published first: a fault of ours stops one detector, never in silence.
    """
    raw, now = deps.cache.detector(key), deps.now()
    if raw is None or "deletionTimestamp" in raw["metadata"]:
        deps.followed.pop(key, None)
        deps.sampler.follow(key, None)
        deps.floors.follow(key, None)
        return None  # garbage collection takes the children
    note(generation=raw["metadata"]["generation"])
    turn = _Turn(key, raw, read_status(raw), now, deps)
    try:
        return await _bring(turn)
    except (ClusterError, Unfinished):
        raise
    except Exception as error:  # a fault of ours: for the status too, then to log and back-off
        await turn.guard()
        await turn.tell(await turn.failed(error))
        raise


async def _bring(turn: "_Turn") -> timedelta | None:
    key, raw, now, deps = turn.key, turn.raw, turn.now, turn.deps
    try:
        detector = Detector.parse(raw)
        powers.check(detector.spec, deps.defaults.forbidden)
    except InvalidSpec as error:  # the status says so; what serves keeps serving
        unkept = await turn.guard()
        await turn.tell(await turn.undecided(Reason.INVALID_SPEC, str(error)))
        return _ended(unkept)
    try:
        seen = await turn.look(detector)
    except NotLeading:
        raise
    except ClusterError as error:  # nothing is decided on half a picture; what runs is published
        await turn.tell(await turn.unread(error))
        raise
    thought = think(detector, seen, deps.defaults, now=now)
    deps.followed[key] = detector.uid, orjson.dumps(raw["spec"])
    turn.heed(thought)
    if detector.spec.suspend:
        await turn.tell(turn.with_drift(thought.status, None))
        return turn.next_look(thought, seen)
    written = await turn.write(detector, thought, seen)
    moved = bool(written.changes) or deps.cluster.unreached(detector.uid) != seen.unreached
    if moved and (after := await turn.look_back(detector, thought, seen, written)):
        (thought, seen), moved = after, False
        turn.heed(thought)
    again = _soonest(
        READ_BACK if moved else turn.next_look(thought, seen),
        written.again,
    )
    status = turn.with_unwritten(thought, seen, written)
    await turn.tell(turn.with_drift(status, written.drifts), drifts=written.drifts)
    return _ended(written.failed, again)


@dataclass(frozen=True, slots=True)
class _Turn:
    """One look at one detector. before: what was said last."""

    key: str
    raw: Manifest
    before: Status
    now: datetime
    deps: Deps

    async def look(self, detector: Detector) -> Snapshot:
        """Read what is: memory, and the API server where a list may have more than we heard."""
        key, deps = self.key, self.deps
        children = await deps.cluster.children(detector.uid, key, self.before.serving)
        nodes, device_classes = await deps.accelerators.found_by(detector, children)
        pods = deps.cache.pods(key)
        secrets = await self._pull_secrets(children, pods)
        deps.cluster.was_read(self.raw)
        routers = deps.cache.routers()
        elsewhere = deps.cache.elsewhere(key, self.raw, deps.defaults)
        complaints = await deps.complaints.about(pods, self.now)  # only of pods that cannot start
        return Snapshot(
            status=self.before,
            children=children,
            pods=pods,
            nodes=nodes,
            device_classes=device_classes,
            routers=routers,
            elsewhere=elsewhere,
            monitors=deps.cache.serves(POD_MONITOR),
            pull_secrets=secrets,
            complaints=complaints,
            unreached=deps.cluster.unreached(detector.uid),
            edited=deps.cluster.edited(children),
            token=deps.token(),
            analysis=deps.sampler.found(key),
            keda=deps.cache.keda(children, deps.defaults),
            moved=deps.floors.found(key),
            lacking=deps.cache.lacking(),
        )

    async def _pull_secrets(
        self, children: Sequence[Manifest], pods: Iterable[Manifest]
    ) -> list[str]:
        """Return what the account of the pods names: what it does, and what the default one does.

        That is read anew when pods are about to be made, and when an image cannot be pulled.
        """
        metadata = self.raw["metadata"]
        account = child_named(children, "ServiceAccount", metadata["name"])
        changed = self.before.observed_generation != metadata["generation"]
        anew = not account or changed or any(map(waits_for_image, pods))
        default = await self.deps.cluster.default_account(metadata["namespace"], anew=anew)
        return pull_secrets_of(account, default)

    def heed(self, thought: Thought) -> None:
        """Have those know what was thought who look beside all reconciles."""
        self.deps.accelerators.waits(self.key, thought.plan.missing is not None)
        self.deps.sampler.follow(self.key, thought.subject)
        self.deps.floors.follow(self.key, thought.followed)

    async def write(self, detector: Detector, thought: Thought, seen: Snapshot) -> Applied:
        """Write in order of safety what differs; then delete what nobody wants, by uid."""
        cluster, desired = self.deps.cluster, thought.desired
        applied = await cluster.apply(
            desired, over=seen.children, enforce=detector.spec.drift_policy is DriftPolicy.ENFORCE
        )
        if applied.given_up:
            return applied
        old = {failed.kind for failed in applied.failed}
        pruned = await cluster.prune(
            detector.uid,
            keep=_kept(desired, thought.plan, seen.children),
            leant_on=lambda stays: leant_on(old | stays),
            until=applied.until,
        )
        return applied.then(pruned)

    async def guard(self) -> Sequence[Failed]:
        """Keep safe what serves, by the last spec that could be followed: this one cannot be.

        What keeps others out is made again, and routes lead to those that are ready. Nothing else
        is written, and no release goes on. After a restart that spec is not known any more.
        Returns what could not be written.
        """
        uid, kept = self.deps.followed.get(self.key, ("", b""))
        if uid != self.raw["metadata"]["uid"] or self.raw["spec"].get("suspend"):
            return ()
        try:
            spec = orjson.loads(kept)
            spec["rollout"] = (spec.get("rollout") or {}) | {"paused": True}
            detector = Detector.parse(self.raw | {"spec": spec})
            seen = await self.look(detector)
            desired = think(detector, seen, self.deps.defaults, now=self.now).desired
        except NotLeading:
            raise
        except Exception as error:  # what led here is reported by who came here
            logger.warning("cannot keep safe what serves", exc_info=error)
            return ()
        if detector.spec.suspend:
            return ()
        safety = [manifest for manifest in desired if manifest["kind"] in SAFETY]
        enforce = detector.spec.drift_policy is DriftPolicy.ENFORCE
        applied = await self.deps.cluster.apply(safety, over=seen.children, enforce=enforce)
        return applied.failed

    async def look_back(
        self, detector: Detector, thought: Thought, seen: Snapshot, written: Applied
    ) -> tuple[Thought, Snapshot] | None:
        """Think once more, on what the writes were answered: published is what came of them.

        None when that is for a pass of its own: it comes to other objects than those just written,
        or others had a hand in it, or not all could be done.
        """
        if written.failed or written.drifts or written.again or written.given_up:
            return None
        cluster = self.deps.cluster
        gone = {change.name for change in written.changes if change.action is Action.DELETED}
        serving = [name for name in self.before.serving if name not in gone]
        try:
            children = await cluster.children(detector.uid, self.key, serving)
        except NotLeading:
            raise
        except ClusterError:
            return None
        after = replace(
            seen,
            status=thought.status,
            children=children,
            unreached=cluster.unreached(detector.uid),
            edited=cluster.edited(children),
            analysis=self.deps.sampler.found(self.key),  # of a trial that begins: nothing
        )
        again = think(detector, after, self.deps.defaults, now=self.now)
        if (again.desired, again.plan.untouched) != (thought.desired, thought.plan.untouched):
            return None
        return replace(again, status=redated(again.status, self.before, self.now)), after

    def next_look(self, thought: Thought, seen: Snapshot) -> timedelta | None:
        """Return when time alone changes something; None when only an event can."""
        of, plan = thought.observed, thought.plan
        look = next_look(thought.detector, of, plan, thought.status, now=self.now)
        return _soonest(look, next_look_at(seen.pods, self.now))

    async def tell(self, status: Status, drifts: Sequence[Drift] = ()) -> None:
        """Publish the status, and what of it is news as Events."""
        await self.deps.cluster.publish_status(self.raw, status.dump())
        for each in (*news(self.before, status), *drift_news(self.before, status, drifts)):
            kind = "Warning" if each.warning else "Normal"
            await self.deps.events.emit(self.raw, kind, each.reason, each.message)

    def with_drift(self, status: Status, drifts: Sequence[Drift] | None) -> Status:
        """Return `status` with what of others was repaired or left; None: nobody looked."""
        statement = drifted(self.before, drifts)
        return with_statement(status, statement, self.before, self.now) if statement else status

    def with_unwritten(self, thought: Thought, seen: Snapshot, written: Applied) -> Status:
        """Return the status with what could not be written: what lasts; all, once one is told."""
        known = self.before.condition(ConditionType.WRITTEN) is not None
        lasting = [each for each in written.failed if known or each.lasts]
        return with_unwritten(
            thought.status,
            _in_the_users_words(lasting, thought.detector, thought.plan),
            self.key,
            there=frozenset(map(identity, seen.children)),
            waiting=written.waiting,
            before=self.before,
            now=self.now,
        )

    async def undecided(self, reason: Reason, message: str, *, stuck: bool = True) -> Status:
        """Return the status where nothing can be decided: why, and what runs meanwhile."""
        until = _UNTIL.get(reason, READABLE)
        return self._refused(await self._counted(until), reason, message, stuck=stuck)

    def _refused(
        self, status: Status, reason: Reason, message: str, *, stuck: bool = True
    ) -> Status:
        generation = self.raw["metadata"]["generation"]
        return refused(
            status,
            reason,
            message,
            generation=generation,
            before=self.before,
            now=self.now,
            stuck=stuck,
        )

    async def unread(self, error: ClusterError) -> Status:
        """Return the status when a read failed; it is said once that lasts, until it is over."""
        failed = self.deps.cluster.unread(self.raw, error)
        progressing = self.before.condition(ConditionType.PROGRESSING)
        known = progressing is not None and progressing.reason == Reason.READ_FAILED
        if not (failed.lasts or known):
            return await self._counted(READABLE)
        stuck = failed.seconds >= PATIENCE.total_seconds()
        message = f"nothing is changed while this cannot be read: {steady(str(error))}"
        return await self.undecided(Reason.READ_FAILED, message, stuck=stuck)

    async def failed(self, error: Exception) -> Status:
        """Return the status where the operator itself failed: nothing more was decided."""
        message = f"the operator failed: {type(error).__name__}: {steady(str(error))[:500]}"
        try:
            return await self.undecided(Reason.OPERATOR_FAILED, message)
        except ClusterError:
            raise
        except Exception:  # what it fails on is among what runs: that stays as it was said
            return self._refused(self.before, Reason.OPERATOR_FAILED, message)

    async def _counted(self, until: str) -> Status:
        """Return what was said last, with what runs counted anew."""
        cluster, uid, complete = self.deps.cluster, self.raw["metadata"]["uid"], True
        try:
            children = await cluster.children(uid, self.key, self.before.serving)
        except NotLeading:
            raise
        except ClusterError:
            children, complete = cluster.known_children(uid, self.key), False
        pods = self.deps.cache.pods(self.key)
        return recounted(
            self.before,
            children,
            pods,
            complete=complete,
            lacking=self.deps.cache.lacking(),
            until=until,
            now=self.now,
        )


def _soonest(*looks: timedelta | None) -> timedelta | None:
    return min((look for look in looks if look is not None), default=None)


def _ended(failed: Sequence[Failed], again: timedelta | None = None) -> timedelta | None:
    """Return when to look again; raises `Unfinished` where not all could be written."""
    if (cause := cause_of(failed)) is None:
        return again
    raise Unfinished(cause, _soonest(again, ASK_AGAIN))  # the queue counts it, and backs off


def _in_the_users_words(
    failed: Iterable[Failed], detector: Detector, plan: Plan
) -> list[Unwritten]:
    revisions = {planned.revision.name: planned.revision for planned in plan.revisions}

    def said(one: Failed) -> str:
        of = origin(detector.spec, revisions.get(one.name))
        return as_the_user_wrote(one.manifest, str(one.error), of)

    return [Unwritten(f.kind, f.name, reason_of(f), said(f), f.controller) for f in failed]


def _kept(
    desired: Iterable[Manifest], plan: Plan, children: Iterable[Manifest]
) -> set[tuple[str, str]]:
    """Return what pruning leaves alone: all that is desired, and revisions nobody can read."""
    untouched = {identity(c) for c in children if c["metadata"]["name"] in plan.untouched}
    if plan.scaling and plan.scaling.by_keda:
        untouched.add((AUTOSCALER, plan.stable))  # KEDA takes it over, with the number that it has
    return {identity(manifest) for manifest in desired} | untouched
