"""What is true of a detector, from what was observed; and what of it is news."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from yolofleet.api.detector import Detector, Provider
from yolofleet.api.names import DETECTOR_LABEL, REVISION_LABEL
from yolofleet.api.rollout import APPROVAL
from yolofleet.api.status import (
    Condition,
    ConditionType,
    Draining,
    Reason,
    RevisionStatus,
    RolloutStatus,
    Status,
)
from yolofleet.plan.accelerators import asked, unseen
from yolofleet.plan.decide import Plan
from yolofleet.plan.observed import Observed
from yolofleet.plan.rollout import Progress


@dataclass(frozen=True, slots=True)
class Statement:
    """A condition before it knows since when."""

    type: ConditionType
    holds: bool | None  # None: not known yet
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class News:
    """Something that changed and that a person may want to read: an Event."""

    warning: bool
    reason: str
    message: str


def report(detector: Detector, observed: Observed, plan: Plan, *, now: datetime) -> Status:
    """Return the status: what is, not what was wished."""
    beside = plan.target if plan.target != plan.stable else plan.canary
    return Status(
        observed_generation=detector.generation,
        url=_url(detector, plan),
        stable=_revision(plan.stable, observed, plan),
        canary=_revision(beside, observed, plan) if beside else None,
        rollout=_rollout(plan),
        draining=[Draining(revision=n, since=t) for n, t in sorted(plan.draining.items())],
        replicas=observed.ready(plan.stable),
        selector=f"{DETECTOR_LABEL}={detector.name},{REVISION_LABEL}={plan.stable}",
        conditions=_dated(
            [
                _ready(observed, plan),
                _progressing(detector, observed, plan),
                _routed(detector, observed, plan),
                *_canary_healthy(detector, observed, plan),
                *_gpu_available(observed, plan),
            ],
            observed.status,
            detector.generation,
            now,
        ),
    )


def _rollout(plan: Plan) -> RolloutStatus | None:
    way = plan.progress
    if way is None:
        return None
    return RolloutStatus(
        revision=way.revision,
        strategy=way.strategy,
        step=way.step,
        weight=way.goal,
        since=way.since,
    )


def refused(before: Status, reason: str, message: str, generation: int, now: datetime) -> Status:
    """Return `before` with the refusal told in Progressing: what serves keeps serving."""
    if (stable := before.stable) and stable.ready and stable.weight:
        message += f"; {stable.revision} keeps serving"
    told = Statement(ConditionType.PROGRESSING, False, reason, message)
    kept = [
        Statement(ConditionType(c.type), _HOLDS[c.status], c.reason, c.message)
        for c in before.conditions
        if c.type in set(ConditionType) - {ConditionType.PROGRESSING}
    ]
    return before.model_copy(
        update={
            "observed_generation": generation,
            "conditions": _dated([*kept[:1], told, *kept[1:]], before, generation, now),
        }
    )


_HOLDS = {"True": True, "False": False, "Unknown": None}
_STATUS = {True: "True", False: "False", None: "Unknown"}


def with_statement(status: Status, told: Statement, before: Status, now: datetime) -> Status:
    """Return `status` with one statement more."""
    dated = _dated([told], before, status.observed_generation, now)
    return status.model_copy(update={"conditions": [*status.conditions, *dated]})


def _dated(
    statements: Sequence[Statement], before: Status, generation: int, now: datetime
) -> list[Condition]:
    """Give each statement the time at which its status last changed."""
    conditions = []
    for told in statements:
        was, status = before.condition(told.type), _STATUS[told.holds]
        conditions.append(
            Condition.model_validate(
                {
                    "type": told.type,
                    "status": status,
                    "reason": told.reason,
                    "message": told.message[:4096],
                    "lastTransitionTime": (
                        was.last_transition_time if was and was.status == status else now
                    ),
                    "observedGeneration": generation,
                }
            )
        )
    return conditions


def _revision(name: str, observed: Observed, plan: Plan) -> RevisionStatus:
    seen = observed.revisions.get(name)
    planned = plan.replicas(name)
    model = next((p.revision.model.uri for p in plan.revisions if p.revision.name == name), "")
    if plan.provider is not Provider.SERVICE:
        weight = observed.weights.get(name, 0)
    else:
        weight = _share_of_service(name, observed, plan)
    return RevisionStatus(
        revision=name,
        model=model,
        ready=observed.ready(name),
        desired=(seen.replicas if seen else 0) if planned is None else planned,
        weight=weight,
    )


def _share_of_service(name: str, observed: Observed, plan: Plan) -> int:
    """Return the percent that a Service gives: to all ready pods that it selects alike."""
    if not observed.spans:
        return 100 if observed.selected == name else 0
    ready = observed.ready(plan.stable) + observed.ready(plan.target)
    part = 100 * observed.ready(plan.target) // ready if ready else 0
    return {plan.target: part, plan.stable: 100 - part}.get(name, 0)


def _url(detector: Detector, plan: Plan) -> str:
    if plan.provider is not Provider.SERVICE and detector.spec.traffic.hosts:
        return f"http://{detector.spec.traffic.hosts[0]}"
    return f"http://{detector.name}.{detector.namespace}.svc.cluster.local"


def _count(name: str, observed: Observed, plan: Plan) -> str:
    status = _revision(name, observed, plan)
    return f"{name}: {status.ready} of {status.desired} replicas are ready"


def _failure(name: str, observed: Observed) -> tuple[str, str] | None:
    seen = observed.revisions.get(name)
    if seen is None or seen.failure is None:
        return None
    return seen.failure.reason, f"{name}: {seen.failure.message}"


def _ready(observed: Observed, plan: Plan) -> Statement:
    told = _count(plan.stable, observed, plan)
    if observed.ready(plan.stable):
        return Statement(ConditionType.READY, True, Reason.SERVING, told)
    if plan.full == 0:
        return Statement(
            ConditionType.READY,
            False,
            Reason.SCALED_TO_ZERO,
            "spec.replicas is 0: nothing serves; raise it to serve again",
        )
    if plan.missing:
        return Statement(ConditionType.READY, False, Reason.MISSING, plan.missing)
    if failure := _failure(plan.stable, observed):
        return Statement(ConditionType.READY, False, *failure)
    return Statement(ConditionType.READY, False, Reason.NOTHING_READY, told)


def _progressing(detector: Detector, observed: Observed, plan: Plan) -> Statement:
    kind = ConditionType.PROGRESSING
    if detector.spec.suspend:
        return Statement(
            kind, False, Reason.SUSPENDED, "spec.suspend is true: nothing is changed or repaired"
        )
    releasing = plan.progress is not None
    meanwhile = f"; {plan.stable} keeps serving" if observed.ready(plan.stable) else ""
    meanwhile = meanwhile if releasing else ""
    done = _revision(plan.target, observed, plan)
    whole = done.ready >= max(done.desired, plan.full if releasing else 0)
    roomless = bool(plan.missing) and f"{plan.missing}".startswith(f"{plan.target}:")
    if plan.missing and (not whole or (roomless and done.ready < plan.full)):
        return Statement(kind, False, Reason.MISSING, plan.missing + meanwhile)
    if not whole and (failure := _failure(plan.target, observed)):
        return Statement(kind, False, failure[0], failure[1] + meanwhile)
    if plan.progress:
        return _under_way(detector, observed, plan, plan.progress, meanwhile)
    if not whole:
        return Statement(kind, True, Reason.STARTING, _count(plan.target, observed, plan))
    if leaving := plan.leaving:
        told = f"{', '.join(leaving)}: finishing the last requests"
        return Statement(kind, True, Reason.DRAINING, told)
    return Statement(kind, False, Reason.SETTLED, f"{plan.target} is released")


def _under_way(
    detector: Detector, observed: Observed, plan: Plan, way: Progress, meanwhile: str
) -> Statement:
    """Say where a release is, and what it waits for."""
    kind, rollout = ConditionType.PROGRESSING, detector.spec.rollout
    count = _count(plan.target, observed, plan)
    if way.held:
        told = "spec.rollout.paused is true: weights and replicas stay; set it to false to go on"
        return Statement(kind, False, Reason.PAUSED, f"{told}. {count}{meanwhile}")
    if not way.step:
        return Statement(kind, True, Reason.ROLLING_OUT, count + meanwhile)
    step = rollout.steps[way.step - 1]
    where = f"step {way.step} of {len(rollout.steps)}, {way.goal} % to {way.revision}"
    if plan.provider is Provider.SERVICE:
        told = f"{where}: {_lacking(detector)}; or set spec.rollout.strategy to BlueGreen"
        return Statement(kind, False, Reason.MESH_ABSENT, told + meanwhile)
    if way.since is None:
        ready = count.removeprefix(f"{way.revision}: ")
        return Statement(kind, True, Reason.ROLLING_OUT, f"{where}: {ready}{meanwhile}")
    if step.hold == APPROVAL:
        patch = {"revision": way.revision, "step": way.step}
        edit = json.dumps({"spec": {"rollout": {"approved": patch}}}, separators=(",", ":"))
        told = f"{where}: waits for approval. To go on: kubectl patch yd {detector.name} -n"
        return Statement(
            kind,
            True,
            Reason.AWAITING_APPROVAL,
            f"{told} {detector.namespace} --type merge -p '{edit}'",
        )
    return Statement(kind, True, Reason.HOLDING, f"{where}: holds for {step.hold}")


def _routed(detector: Detector, observed: Observed, plan: Plan) -> Statement:
    kind = ConditionType.TRAFFIC_ROUTED
    traffic, canary = detector.spec.traffic, detector.spec.canary
    needs_mesh = (
        traffic.provider in (Provider.ISTIO, Provider.GATEWAY)
        or bool(traffic.hosts)
        or (plan.canary is not None and canary is not None and (canary.weight or canary.match))
    )
    if plan.provider is Provider.SERVICE:
        if needs_mesh:
            return Statement(
                kind,
                False,
                Reason.MESH_ABSENT,
                f"hosts, canary weights and matches {_lacking(detector)}, or clear them. Meanwhile"
                f" the Service {detector.name} sends everything to {plan.stable}",
            )
        if observed.spans and plan.spans:
            told = f"the Service {detector.name} sends to all of {plan.stable} and {plan.target}"
            return Statement(kind, True, Reason.ROUTED, told)
        if observed.selected == plan.stable and not observed.spans:
            told = f"the Service {detector.name} sends everything to {plan.stable}"
            return Statement(kind, True, Reason.ROUTED, told)
        return Statement(
            kind,
            None,
            Reason.ROUTE_PENDING,
            f"the Service {detector.name} does not send to {plan.stable} yet",
        )
    split = ", ".join(f"{share} % {name}" for name, share in plan.weights.items())
    if plan.provider is Provider.GATEWAY and observed.refused:
        return Statement(kind, False, Reason.ROUTE_REFUSED, f"the gateway {observed.refused}")
    if {k: v for k, v in observed.weights.items() if v} != {
        k: v for k, v in plan.weights.items() if v
    }:
        return Statement(kind, None, Reason.ROUTE_PENDING, f"waiting for the router: {split}")
    if plan.canary and canary and plan.target == plan.stable:
        gets = plan.weights.get(plan.canary, 0)
        if gets < canary.weight:
            return Statement(
                kind,
                False,
                Reason.SHORT_OF_CAPACITY,
                f"spec.canary.weight is {canary.weight} and the canary gets {gets}:"
                f" {observed.ready(plan.canary)} of its replicas are ready, and the whole traffic"
                f" needs {plan.full}. Wait for them, or raise spec.canary.replicas",
            )
    if plan.provider is Provider.ISTIO and not traffic.hosts and len(plan.weights) > 1:
        split += (
            f" of what a VirtualService of yours delegates to {detector.namespace}/{detector.name};"
            f" the Service sends everything to {plan.stable}. Set spec.traffic.hosts to route here"
        )
    return Statement(kind, True, Reason.ROUTED, split)


def _lacking(detector: Detector) -> str:
    """Say what is missing to split traffic, and what to do."""
    traffic = detector.spec.traffic
    if traffic.provider is Provider.GATEWAY:
        return (
            "need the Gateway API (gateway.networking.k8s.io/v1), which is not in the cluster;"
            " install it"
        )
    other = (
        ""
        if traffic.provider is Provider.ISTIO or traffic.gateways
        else (", or the Gateway API and spec.traffic.gateways")
    )
    return (
        "need Istio, whose API (networking.istio.io/v1) is not in the cluster; install it" + other
    )


def _canary_healthy(detector: Detector, observed: Observed, plan: Plan) -> Iterator[Statement]:
    if plan.canary is None or detector.spec.canary is None:
        return
    kind, told = ConditionType.CANARY_HEALTHY, _count(plan.canary, observed, plan)
    now = _revision(plan.canary, observed, plan)
    if now.desired and now.ready >= now.desired:
        yield Statement(kind, True, Reason.CANARY_READY, told)
    elif plan.missing and plan.missing.startswith(f"{plan.canary}:"):
        yield Statement(kind, False, Reason.MISSING, plan.missing)
    elif failure := _failure(plan.canary, observed):
        yield Statement(
            kind, False, failure[0], f"{failure[1]}; it gets no traffic until it is ready"
        )
    else:
        yield Statement(kind, None, Reason.CANARY_STARTING, told)


def _gpu_available(observed: Observed, plan: Plan) -> Iterator[Statement]:
    kind = ConditionType.GPU_AVAILABLE
    if plan.missing:
        yield Statement(kind, False, Reason.MISSING, plan.missing)
        return
    wanted = {plan.stable, plan.target, plan.canary}
    running = [p.revision for p in plan.revisions if p.revision.name in wanted]
    needed = sorted({resource for revision in running for resource in asked(revision)})
    if not needed:
        return
    for revision in running:
        seen = observed.revisions.get(revision.name)
        failure = seen.failure if seen and asked(revision) else None
        if failure and failure.reason == Reason.UNSCHEDULABLE:
            told = f"{revision.name}: {failure.message}{unseen(observed.nodes)}"
            yield Statement(kind, False, Reason.UNSCHEDULABLE, told)
            return
    offers = (f"{sum(n.offered.get(r, 0) for n in observed.nodes)} {r}" for r in needed)
    told = f"the nodes offer {', '.join(offers)}{unseen(observed.nodes)}"
    yield Statement(kind, True, Reason.ENOUGH, told)


def news(before: Status, after: Status) -> Iterator[News]:
    """Tell what changed from one status to the next; each change once."""
    was, now = before.stable, after.stable
    if was and now and was.revision != now.revision:
        yield News(
            False, "Promoted", f"{now.revision} is the stable revision now, {was.revision} was"
        )
    for condition in after.conditions:
        if condition.type == ConditionType.DRIFTED:
            continue  # `drift_news` tells it, each time
        old = before.condition(ConditionType(condition.type))
        if old and (old.status, old.reason) == (condition.status, condition.reason):
            continue
        if condition.status == "Unknown" or (old is None and condition.reason in _EXPECTED):
            continue
        if condition.reason == Reason.ROUTED and not (old and old.status == "False"):
            continue  # the shares say it
        yield News(_bad(condition), condition.reason, condition.message)
    shares = _shares(before), _shares(after)
    if shares[0] and shares[0] != shares[1] and sum(shares[1].values()) == 100:  # not halfway
        told = ", ".join(f"{share} % {name}" for name, share in shares[1].items())
        yield News(False, "TrafficShifted", told)


_EXPECTED = (Reason.NOTHING_READY,)
"""Of a detector that was just made, these are no news."""


def _bad(condition: Condition) -> bool:
    usual = {
        Reason.SETTLED,
        Reason.SUSPENDED,
        Reason.PAUSED,
        Reason.NOTHING_READY,
        Reason.SCALED_TO_ZERO,
        Reason.SHORT_OF_CAPACITY,  # mostly a canary that starts; one that fails says so itself
    }
    return condition.status == "False" and condition.reason not in usual


def _shares(status: Status) -> dict[str, int]:
    return {r.revision: r.weight for r in (status.stable, status.canary) if r and r.weight}
