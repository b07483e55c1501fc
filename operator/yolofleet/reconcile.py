"""The operator on one page: read, observe, decide, build, apply, report.

It knows nothing of canaries, GPUs or meshes: that is `plan`. It decides nothing and fails on
nothing but the API server. What that refuses of one object holds up no other, and is told.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from yolofleet.api.base import InvalidSpec
from yolofleet.api.detector import Detector
from yolofleet.api.names import Manifest
from yolofleet.api.status import ConditionType, Reason, Status, read_status
from yolofleet.cluster.accelerators import Accelerators
from yolofleet.cluster.apply import Applied, Writer
from yolofleet.cluster.cache import Cache
from yolofleet.cluster.complaints import Complaints
from yolofleet.cluster.errors import ClusterError, NotLeading, Unfinished
from yolofleet.cluster.events import Events
from yolofleet.cluster.failures import Failed, to_retry
from yolofleet.cluster.kinds import POD_MONITOR, identity
from yolofleet.logs import note
from yolofleet.plan import powers
from yolofleet.plan.accelerators import asks
from yolofleet.plan.decide import Plan, decide
from yolofleet.plan.defaults import Defaults
from yolofleet.plan.drift import Drift, drift_news, drifted
from yolofleet.plan.failures import PATIENCE, next_look_at, waits_for_image
from yolofleet.plan.fields import as_the_user_wrote, origin, steady
from yolofleet.plan.news import news
from yolofleet.plan.observed import child_named, observe
from yolofleet.plan.recount import recounted
from yolofleet.plan.status import next_look, refused, report, with_statement
from yolofleet.plan.unwritten import Unwritten, with_unwritten
from yolofleet.resources.build import build, leant_on, surroundings
from yolofleet.resources.service_account import pull_secrets_of

ASK_AGAIN = timedelta(seconds=30)
"""When to retry what the API server refused: a person has to act, and may do so elsewhere."""

READ_BACK = timedelta(milliseconds=100)
"""When to look at what was just written: the echo of our own write wakes nobody."""

READABLE = "all that it depends on can be read"
"""What has to be before anything is decided where a read failed."""


@dataclass(frozen=True, slots=True)
class Deps:
    """What a reconcile needs from the world."""

    cache: Cache
    cluster: Writer
    accelerators: Accelerators
    complaints: Complaints
    events: Events
    defaults: Defaults
    now: Callable[[], datetime]


async def reconcile(key: str, deps: Deps) -> timedelta | None:
    """Bring the detector `key` one step closer to its spec; return when to look again, if at all.

    Looks at what is, never at what happened: safe at any time, any number of times.
    Raises what the cluster raises, and `Unfinished` once all is told; the queue tries again.
    """
    raw, now = deps.cache.detector(key), deps.now()  # read: memory
    if raw is None or "deletionTimestamp" in raw["metadata"]:
        return None  # garbage collection takes the children
    note(generation=raw["metadata"]["generation"])
    before = read_status(raw)
    try:
        detector = Detector.parse(raw)
        powers.check(detector.spec, deps.defaults.forbidden)
    except InvalidSpec as error:  # told in status; what serves keeps serving
        told = await _undecided(raw, key, before, Reason.INVALID_SPEC, str(error), deps, now)
        await _tell(raw, before, told, deps)
        return None

    try:
        children = await deps.cluster.children(detector.uid, key, before.serving)
        nodes = await deps.accelerators.rooms(key) if asks(detector, children) else ()
        secrets = await _pull_secrets(raw, key, children, before, deps)
    except NotLeading:
        raise
    except ClusterError as error:  # nothing is decided on half a picture; what runs is told
        await _tell(raw, before, await _unread(raw, key, before, error, deps, now), deps)
        raise
    deps.cluster.was_read(raw)
    routers = deps.cache.routers()
    elsewhere = deps.cache.elsewhere(key, raw, deps.defaults)
    pods = deps.cache.pods(key)
    complaints = await deps.complaints.about(pods, now)  # nothing, unless a pod cannot start
    unreached = deps.cluster.unreached(detector.uid)
    observed = observe(  # observe: memory, one snapshot
        detector,
        children,
        pods,
        nodes,
        routers=routers,
        status=before,
        now=now,
        elsewhere=elsewhere,
        complaints=complaints,
        unreached=unreached,
        edited=deps.cluster.edited(children),
    )
    plan = decide(detector, observed, deps.defaults, now=now)  # decide: pure
    deps.accelerators.waits(key, plan.missing is not None)
    status = report(detector, observed, plan, now=now)  # report: what is, not what was wished
    look = _soonest(next_look(detector, observed, plan, status, now=now), next_look_at(pods, now))
    if detector.spec.suspend:
        await _tell(raw, before, _with_drift(status, before, None, now), deps)
        return look
    monitors = deps.cache.serves(POD_MONITOR)
    around = surroundings(deps.defaults, routers, monitors=monitors, pull_secrets=secrets)
    desired = build(detector, plan, around)  # build: pure, cannot fail
    applied = await deps.cluster.apply(  # apply: in order of safety, what differs
        desired, over=children, policy=detector.spec.drift_policy
    )
    pruned = Applied()
    if not applied.given_up:
        pruned = await deps.cluster.prune(  # prune: by uid, after a live list
            detector.uid,
            keep=_kept(desired, plan, children),
            spared=leant_on({failed.kind for failed in applied.failed}),
        )
    failed = [*applied.failed, *pruned.failed]  # what failed held up nothing else, and is told
    status = with_unwritten(
        status, _unwritten(failed, before, detector, plan), key, before=before, now=now
    )
    status = _with_drift(status, before, applied.drifts, now)
    moved = applied.changes or pruned.changes or deps.cluster.unreached(detector.uid) != unreached
    again = _soonest(
        READ_BACK if moved else look,
        ASK_AGAIN if failed else None,
        applied.again,
    )
    await _tell(raw, before, status, deps, drifts=applied.drifts)
    if (cause := to_retry(failed)) is not None:
        raise Unfinished(cause, again)  # the queue backs off
    return again


async def _pull_secrets(
    raw: Manifest, key: str, children: Sequence[Manifest], before: Status, deps: Deps
) -> list[str]:
    """Return what the account of the pods names: what it does, and what the default one does.

    That is read anew when pods are about to be made, and when an image cannot be pulled.
    """
    metadata = raw["metadata"]
    account = child_named(children, "ServiceAccount", metadata["name"])
    changed = before.observed_generation != metadata["generation"]
    anew = not account or changed or any(map(waits_for_image, deps.cache.pods(key)))
    default = await deps.cluster.default_account(metadata["namespace"], anew=anew)
    return pull_secrets_of(account, default)


async def _undecided(
    raw: Manifest,
    key: str,
    before: Status,
    reason: Reason,
    message: str,
    deps: Deps,
    now: datetime,
    *,
    stuck: bool = True,
) -> Status:
    """Return the status where nothing can be decided: why, and what runs meanwhile."""
    generation = raw["metadata"]["generation"]
    until = "the spec is valid" if reason == Reason.INVALID_SPEC else READABLE
    counted = await _counted(raw, key, before, deps, now, until)
    return refused(
        counted, reason, message, generation=generation, before=before, now=now, stuck=stuck
    )


async def _counted(
    raw: Manifest, key: str, before: Status, deps: Deps, now: datetime, until: str
) -> Status:
    uid, complete = raw["metadata"]["uid"], True
    try:
        children = await deps.cluster.children(uid, key, before.serving)
    except NotLeading:
        raise
    except ClusterError:
        children, complete = deps.cluster.known_children(uid, key), False
    pods = deps.cache.pods(key)
    return recounted(before, children, pods, complete=complete, until=until, now=now)


async def _unread(
    raw: Manifest, key: str, before: Status, error: ClusterError, deps: Deps, now: datetime
) -> Status:
    """Return the status when a read failed; that is told once it lasts, and until it is over."""
    failed = deps.cluster.unread(raw, error)
    progressing = before.condition(ConditionType.PROGRESSING)
    told = progressing is not None and progressing.reason == Reason.READ_FAILED
    if not (failed.lasts or told):
        return await _counted(raw, key, before, deps, now, READABLE)
    stuck = failed.seconds >= PATIENCE.total_seconds()
    message = f"nothing is changed while this cannot be read: {steady(str(error))}"
    return await _undecided(raw, key, before, Reason.READ_FAILED, message, deps, now, stuck=stuck)


def _with_drift(
    status: Status, before: Status, drifts: Sequence[Drift] | None, now: datetime
) -> Status:
    told = drifted(before, drifts)
    return with_statement(status, told, before, now) if told else status


def _soonest(*looks: timedelta | None) -> timedelta | None:
    return min((look for look in looks if look is not None), default=None)


def _unwritten(
    failed: Iterable[Failed], before: Status, detector: Detector, plan: Plan
) -> list[Unwritten]:
    """Return what is worth telling; once something is told, that is all."""
    told = before.condition(ConditionType.WRITTEN) is not None
    revisions = {planned.revision.name: planned.revision for planned in plan.revisions}

    def said(one: Failed) -> str:
        of = origin(detector.spec, revisions.get(one.name))
        return as_the_user_wrote(one.manifest, str(one.error), of)

    return [
        Unwritten(f.kind, f.name, f.reason, said(f), f.controller)
        for f in failed
        if told or f.lasts
    ]


async def _tell(
    raw: Manifest,
    before: Status,
    after: Status,
    deps: Deps,
    drifts: Sequence[Drift] = (),
) -> None:
    """Publish the status, and what of it is news as Events."""
    await deps.cluster.publish_status(raw, after.dump())
    for told in (*news(before, after), *drift_news(before, after, drifts)):
        kind = "Warning" if told.warning else "Normal"
        await deps.events.emit(raw, kind, told.reason, told.message)


def _kept(desired: list[Manifest], plan: Plan, children: list[Manifest]) -> set[tuple[str, str]]:
    """Return what pruning leaves alone: all that is desired, and revisions nobody can read."""
    untouched = {identity(c) for c in children if c["metadata"]["name"] in plan.untouched}
    return {identity(manifest) for manifest in desired} | untouched
