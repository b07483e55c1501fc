"""The operator on one page: read, observe, decide, build, apply, report.

It knows nothing of canaries, GPUs or meshes: that is `plan`. It decides nothing and fails on
nothing but the API server, and what that refuses is told in the detector's status.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from yolofleet.api.base import InvalidSpec
from yolofleet.api.detector import Detector
from yolofleet.api.names import Manifest
from yolofleet.api.status import Reason, Status, read_status
from yolofleet.cluster.accelerators import Accelerators
from yolofleet.cluster.apply import Writer
from yolofleet.cluster.cache import Cache
from yolofleet.cluster.errors import Refused, ResourceConflict
from yolofleet.cluster.events import Events
from yolofleet.cluster.kinds import POD_MONITOR, identity
from yolofleet.logs import note
from yolofleet.plan.accelerators import asks
from yolofleet.plan.decide import Plan, decide
from yolofleet.plan.defaults import Defaults
from yolofleet.plan.drift import Drift, drift_news, drifted
from yolofleet.plan.news import news
from yolofleet.plan.observed import observe
from yolofleet.plan.status import next_look, refused, report, with_statement
from yolofleet.resources.build import build, surroundings

ASK_AGAIN = timedelta(seconds=30)
"""When to retry what the API server refused: a person has to act, and may do so elsewhere."""

READ_BACK = timedelta(milliseconds=100)
"""When to look at what was just written: the echo of our own write wakes nobody."""


@dataclass(frozen=True, slots=True)
class Deps:
    """What a reconcile needs from the world."""

    cache: Cache
    cluster: Writer
    accelerators: Accelerators
    events: Events
    defaults: Defaults
    now: Callable[[], datetime]


async def reconcile(key: str, deps: Deps) -> timedelta | None:
    """Bring the detector `key` one step closer to its spec; return when to look again, if at all.

    Looks at what is, never at what happened: safe at any time, any number of times.
    Raises `Stale` and `Busy` from the cluster; the queue tries again.
    """
    raw, now = deps.cache.detector(key), deps.now()  # read: memory
    if raw is None or "deletionTimestamp" in raw["metadata"]:
        return None  # garbage collection takes the children
    note(generation=raw["metadata"]["generation"])
    before = read_status(raw)
    try:
        detector = Detector.parse(raw)
    except InvalidSpec as error:  # told in status; what serves keeps serving
        generation = raw["metadata"]["generation"]
        told = refused(before, Reason.INVALID_SPEC, str(error), generation, now)
        return await _tell(raw, before, told, deps)

    children = await deps.cluster.children(detector.uid, detector.namespace, before.serving)
    routers = deps.cache.routers()
    nodes = await deps.accelerators.rooms(key) if asks(detector, children) else ()
    observed = observe(  # observe: memory, one snapshot
        detector, children, deps.cache.pods(key), nodes, routers=routers, status=before, now=now
    )
    plan = decide(detector, observed, deps.defaults, now=now)  # decide: pure
    deps.accelerators.waits(key, plan.missing is not None)
    status = report(detector, observed, plan, now=now)  # report: what is, not what was wished
    look = next_look(detector, observed, plan, status, now=now)
    if detector.spec.suspend:
        status = _with_drift(status, before, None, now)
        return await _tell(raw, before, status, deps, again=look)
    around = surroundings(deps.defaults, routers, monitors=deps.cache.serves(POD_MONITOR))
    desired = build(detector, plan, around)  # build: pure, cannot fail
    try:
        applied = await deps.cluster.apply(  # apply: in order, what differs
            desired, over=children, policy=detector.spec.drift_policy
        )
        pruned = await deps.cluster.prune(  # prune: by uid, after a live list
            detector.uid, keep=_kept(desired, plan, children)
        )
    except Refused as error:  # told in status; a person must act
        told = refused(status, _reason(error), _told(error), detector.generation, now)
        told = _with_drift(told, before, None, now)
        return await _tell(raw, before, told, deps, again=ASK_AGAIN)
    status = _with_drift(status, before, applied.drifts, now)
    again = READ_BACK if applied.changes or pruned else look
    if applied.again is not None:
        again = min(applied.again, again or applied.again)
    return await _tell(raw, before, status, deps, again=again, drifts=applied.drifts)


def _with_drift(
    status: Status, before: Status, drifts: Sequence[Drift] | None, now: datetime
) -> Status:
    told = drifted(before, drifts)
    return with_statement(status, told, before, now) if told else status


async def _tell(
    raw: Manifest,
    before: Status,
    after: Status,
    deps: Deps,
    *,
    again: timedelta | None = None,
    drifts: Sequence[Drift] = (),
) -> timedelta | None:
    """Publish the status, and what of it is news as Events."""
    await deps.cluster.publish_status(raw, after.dump())
    for told in (*news(before, after), *drift_news(before, after, drifts)):
        kind = "Warning" if told.warning else "Normal"
        await deps.events.emit(raw, kind, told.reason, told.message)
    return again


def _kept(desired: list[Manifest], plan: Plan, children: list[Manifest]) -> set[tuple[str, str]]:
    """Return what pruning leaves alone: all that is desired, and revisions nobody can read."""
    untouched = {identity(c) for c in children if c["metadata"]["name"] in plan.untouched}
    return {identity(manifest) for manifest in desired} | untouched


_POD_TEMPLATE = re.compile(r"(?<![\w.])\.?spec\.template\.")


def _told(error: Refused) -> str:
    """Return the API server's words, with the field of a pod as the detector has it."""
    return _POD_TEMPLATE.sub("spec.podTemplate.", str(error))


def _reason(error: Refused) -> Reason:
    conflict = isinstance(error, ResourceConflict)
    return Reason.RESOURCE_CONFLICT if conflict else Reason.WRITE_REFUSED
