"""What runs, counted anew where nothing can be decided: an invalid spec, a read that failed.

What was decided before stays as it was said, and so do weights: only who is ready is looked at.
"""

from collections.abc import Collection, Iterable
from datetime import datetime
from functools import partial
from typing import TypeVar

from yolofleet.api.names import Manifest
from yolofleet.api.status import ConditionType, Reason, RevisionStatus, Serving, Status
from yolofleet.plan.conditions.ready import was_there
from yolofleet.plan.conditions.statement import Statement, dated
from yolofleet.plan.observed import child_named, engine_absent
from yolofleet.workloads import record
from yolofleet.workloads.choice import among, workload_for
from yolofleet.workloads.failures import Failure, failures_by_revision
from yolofleet.workloads.pods import is_ready, revision_of
from yolofleet.workloads.record import record_in
from yolofleet.workloads.revision import read_back

_Counted = TypeVar("_Counted", RevisionStatus, Serving)
_ready = partial(Statement, ConditionType.READY)


def recounted(
    status: Status,
    children: Iterable[Manifest],
    pods: Iterable[Manifest],
    *,
    complete: bool,
    lacking: frozenset[str],
    until: str,
    now: datetime,
) -> Status:
    """Return `status` with the replicas of `children` as they are now.

    complete: a workload that is not among `children` is gone. Else its revision stays as published.
    lacking: the kinds of workloads whose API is not there: their pods go on without being seen so.
    until: what has to be before anything is decided again.
    """
    children, pods = list(children), list(pods)
    running = {
        each["metadata"]["name"]: by.read(each, _pods_of(each, pods), now)
        for by, each in among(children)
    }
    unseen = _unseen(children, lacking, but=running)
    scaled = {c["metadata"]["name"] for c in children if c["kind"] == "HorizontalPodAutoscaler"}

    def anew(counted: _Counted, name: str) -> _Counted:
        seen = running.get(name)
        ready = seen.ready if seen else 0 if complete else counted.ready
        if name in unseen:
            ready = sum(is_ready(pod) for pod in pods if revision_of(pod) == name)
        desired = seen.replicas if seen and name in scaled else counted.desired
        return counted.model_copy(update={"ready": ready, "desired": desired})

    canary, stable = status.canary, status.stable
    update: dict[str, object] = {
        "canary": anew(canary, canary.revision) if canary else None,
        "revisions": [_loaded(anew(each, each.name)) for each in status.revisions],
    }
    if stable:
        name, stable = stable.revision, anew(stable, stable.revision)
        failure = failures_by_revision(pods, {}, now).get(name)
        if failure is None:
            failure = running[name].failure if name in running else unseen.get(name)
        statement = _how(stable, failure)
        known = name in running or name in unseen
        if complete and not known and not statement.status and was_there(status):
            statement = _deleted(name, children, until)
        ready = dated([statement], status, status.observed_generation, now)
        others = [each for each in status.conditions if each.type != ConditionType.READY]
        update |= {
            "stable": stable,
            "ready": f"{stable.ready}/{stable.desired}",
            "replicas": stable.ready,
            "conditions": [*ready, *others],
        }
    return status.model_copy(update=update)


def _unseen(
    children: Iterable[Manifest], lacking: frozenset[str], *, but: Collection[str]
) -> dict[str, Failure]:
    """Return the revisions that may run where the operator cannot look any more, and why."""
    kept = {c["metadata"]["name"]: c for c in children if c["kind"] == record.KIND}
    revisions = {n: read_back(n, record_in(c).text) for n, c in kept.items() if n not in but}
    absent = {name: engine_absent(revision, lacking) for name, revision in revisions.items()}
    return {name: failure for name, failure in absent.items() if failure}


def _pods_of(workload: Manifest, pods: Iterable[Manifest]) -> list[Manifest]:
    return [pod for pod in pods if revision_of(pod) == workload["metadata"]["name"]]


def _loaded(serving: Serving) -> Serving:
    """Tell no digest of what no pod has loaded."""
    return serving if serving.ready else serving.model_copy(update={"digest": None})


def _deleted(name: str, children: Iterable[Manifest], until: str) -> Statement:
    kept = child_named(children, record.KIND, name)
    revision = read_back(name, record_in(kept).text) if kept else None
    if revision:
        again = f"it is made again from its record once {until}"
    else:
        again = "there is no record of it that can be read. To have it back, put the spec back"
        again += " that it was released with"
    kind = workload_for(revision).KIND
    message = f"the {kind} {name} was deleted, which the detector is released on; {again}"
    return _ready(False, Reason.DEPLOYMENT_DELETED, message)


def _how(stable: RevisionStatus, failure: Failure | None) -> Statement:
    if not stable.desired and not stable.ready:
        return _ready(True, Reason.SCALED_TO_ZERO, "nothing serves, as was asked for")
    count = f"{stable.revision}: {stable.ready} of {stable.desired} replicas are ready"
    if stable.ready:
        return _ready(True, Reason.SERVING, count)
    if failure:
        return _ready(False, failure.reason, f"{stable.revision}: {failure.message}")
    return _ready(False, Reason.NOTHING_READY, count)
