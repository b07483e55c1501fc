"""Every object that a detector has, in the order in which they are written.

The order is that of safety, because any of these writes can be the last one for a while. What keeps
others out comes before the pods; Services and rules before the routes that lead to them; the routes
before the pods of new revisions, which nobody waits for while old ones die; and what a revision is
made again from before its workload.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import orjson

from yolofleet.api.access import Isolation
from yolofleet.api.base import REMEMBERED
from yolofleet.api.detector import Detector, Provider
from yolofleet.api.names import Manifest
from yolofleet.plan.decide import Plan
from yolofleet.plan.defaults import Defaults, OperatorPods
from yolofleet.plan.live import file
from yolofleet.plan.snapshot import Keda, Snapshot
from yolofleet.resources.hpa import hpa
from yolofleet.resources.live import live
from yolofleet.resources.network_policy import network_policy
from yolofleet.resources.pdb import pdb
from yolofleet.resources.pod_monitor import pod_monitor
from yolofleet.resources.scaled_object import scaled_object
from yolofleet.resources.service_account import service_account
from yolofleet.routers.choice import ROUTERS, proxies
from yolofleet.routers.service import revision_service, stable_service
from yolofleet.workloads import claims, record
from yolofleet.workloads.account import needs_account
from yolofleet.workloads.choice import WORKLOADS, among, workload_for
from yolofleet.workloads.claims import claim_template
from yolofleet.workloads.record import controller_revision
from yolofleet.workloads.workload import PlannedRevision


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What of the cluster decides which objects there are.

    routers: whose APIs are there. monitor_labels: those of PodMonitors; None: make none.
    pull_secrets: that the account of the pods names. operator: who reads the evidence of pods.
    claimable: whether pods can claim devices. claimed: the names of templates that are there.
    lacking: the kinds of workloads whose API is not there.
    """

    routers: Collection[Provider]
    monitor_labels: Mapping[str, str] | None
    pull_secrets: tuple[str, ...] = ()
    operator: OperatorPods | None = None
    keda: Keda = field(default_factory=Keda)
    claimable: bool = False
    claimed: frozenset[str] = frozenset()
    lacking: frozenset[str] = frozenset()


def surroundings(seen: Snapshot, defaults: Defaults) -> Surroundings:
    """Return what `build` has to know."""
    labels = defaults.monitor_labels if seen.monitors else None
    return Surroundings(
        seen.routers,
        labels,
        tuple(seen.pull_secrets),
        defaults.operator,
        seen.keda,
        seen.device_classes is not None,
        frozenset(c["metadata"]["name"] for c in seen.children if c["kind"] == claims.KIND),
        seen.lacking,
    )


def build(detector: Detector, plan: Plan, around: Surroundings) -> list[Manifest]:
    """Return all children of `detector`. Cannot fail on what a parsed detector holds."""
    routed = plan.weights.keys() | plan.unreached
    names = [
        p.revision.name for p in plan.revisions if p.replicas != 0 or p.revision.name in routed
    ]
    if plan.stable not in {p.revision.name for p in plan.revisions}:
        names.append(plan.stable)  # its workload was deleted or is unreadable; routes name it
    router, courted = ROUTERS[plan.provider], plan.courted
    stable = plan.planned(plan.stable)
    target = workload_for(stable.revision if stable else None).scaled(plan.stable)
    made = [orjson.loads(_workload(detector, planned)) for planned in plan.revisions]
    pods = [workload.pod(each)["spec"] for workload, each in among(made)]
    standing = [
        (planned, each)
        for planned, each in zip(plan.revisions, made, strict=True)
        if workload_for(planned.revision).stands(planned)
    ]
    told_at = {p.revision.name: workload_for(p.revision).SCRAPED for p in plan.revisions}
    account = any(needs_account(detector, planned.revision) for planned in plan.revisions)
    isolated = detector.spec.access.network_policy is not Isolation.NONE
    content = file(plan.shadow, detector.spec.log_level)
    monitored = around.monitor_labels if detector.spec.access.metrics_open else None
    return [
        *(
            [network_policy(detector, pods, proxies(around.routers), around.operator)]
            if isolated
            else []
        ),
        *([service_account(detector, around.pull_secrets)] if account else []),
        *(revision_service(detector, name) for name in names),
        *(rule for name in names for rule in router.destination_rules(detector, name)),
        stable_service(detector, plan.stable, answering=plan.answering),
        *router.routes(detector, plan.route(detector)),
        *(ROUTERS[courted.router].routes(detector, courted.waiting(detector)) if courted else ()),
        *([live(detector, content)] if content else []),
        *(controller_revision(detector, planned) for planned in plan.revisions),
        *_claim_templates(detector, plan, around),
        *(
            beside
            for planned, _ in standing
            for beside in workload_for(planned.revision).beside(detector, planned)
        ),
        *(each for _, each in standing if each["kind"] not in around.lacking),
        *_autoscaler(detector, plan, target, around.keda),
        *([_pdb(detector, plan, detector.name, plan.stable)] if plan.full >= 2 else []),
        *(
            _pdb(detector, plan, name, name)
            for name in plan.lasting
            if (plan.replicas(name) or 0) >= 2
        ),
        *([pod_monitor(detector, monitored, told_at)] if monitored is not None else []),
    ]


def _claim_templates(detector: Detector, plan: Plan, around: Surroundings) -> list[Manifest]:
    """Return what the pods of each revision claim devices by, those at rest too: they come back.

    What is there stays where devices cannot be read for a while: a pod that dies then finds it.
    """
    return [
        claim_template(detector, r, r.accelerator)
        for r in (planned.revision for planned in plan.revisions)
        if r.accelerator and (around.claimable or r.name in around.claimed)
    ]


def _pdb(detector: Detector, plan: Plan, name: str, revision: str) -> Manifest:
    """Return the budget of `revision`; where it scales itself, of those that run."""
    planned = plan.planned(revision)
    number = plan.full if planned is None or planned.replicas is None else planned.replicas
    if planned and planned.scaled:
        number = planned.scaled.runs
    workload = workload_for(planned.revision if planned else None)
    return pdb(detector, name, revision, workload.budget(number))


def _autoscaler(
    detector: Detector, plan: Plan, target: Mapping[str, str], keda: Keda
) -> list[Manifest]:
    """Return what scales the stable revision: an autoscaler, or what KEDA makes one of.

    Of one name there is one: ours waits until KEDA has let go of its own.
    """
    scaling = plan.scaling
    if scaling is None or scaling.keda_has_it:
        return []
    if scaling.by_keda:
        return [scaled_object(detector, plan.stable, target, scaling, keda)]
    return [hpa(detector, plan.stable, target, scaling)]


@lru_cache(maxsize=2 * REMEMBERED)
def _workload(detector: Detector, planned: PlannedRevision) -> bytes:
    """Return what runs a revision, as JSON: small, and read again by whoever may change it."""
    return orjson.dumps(workload_for(planned.revision).build(detector, planned))


_ROUTING = {kind for each in ROUTERS.values() for kind in (each.KIND, *each.POINTS) if kind}


SAFETY = _ROUTING | {"NetworkPolicy", "Service"}
"""The kinds that keep others out, and requests away from what is dead."""


def leant_on(unwritten: Collection[str]) -> frozenset[str]:
    """Return the kinds of which nothing may go while objects of the kinds `unwritten` are old.

    An old route leads where it led, and old pods run as the account they had.
    """
    spared = set[str]()
    if not _ROUTING.isdisjoint(unwritten):
        spared |= {*_ROUTING, *WORKLOADS, record.KIND}
    if not WORKLOADS.keys().isdisjoint(unwritten):
        spared.add("ServiceAccount")
    return frozenset(spared)
