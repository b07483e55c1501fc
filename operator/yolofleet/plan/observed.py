"""What decisions look at: what a snapshot of a detector's world means for it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from yolofleet.api.analysis import AnalysisStatus, Failed
from yolofleet.api.detector import Detector, Provider
from yolofleet.api.names import Manifest, live_name
from yolofleet.api.status import Reason, Status
from yolofleet.plan import keda
from yolofleet.plan.autoscaler import AUTOSCALER, Limit, limit
from yolofleet.plan.fields import of_a_pod, origin
from yolofleet.plan.floor import Moved
from yolofleet.plan.live import Shadow, shadow_in
from yolofleet.plan.moving import RouterOption, choose_router
from yolofleet.plan.nodes import NodeRoom
from yolofleet.plan.snapshot import Keda, Snapshot
from yolofleet.routers.buckets import Buckets
from yolofleet.routers.choice import ROUTERS, SPLITTING, splits
from yolofleet.routers.claims import Crossing
from yolofleet.routers.exposure import Exposure
from yolofleet.routers.following import Followed, Following
from yolofleet.routers.router import Router
from yolofleet.routers.service import Selection, selection
from yolofleet.workloads import record
from yolofleet.workloads.accelerators import place
from yolofleet.workloads.choice import among, workload_for
from yolofleet.workloads.failures import Failure, failures_by_revision
from yolofleet.workloads.pods import is_ready, revision_of
from yolofleet.workloads.record import (
    failure_noted,
    record_in,
    times_remade,
    was_proved,
    was_released,
)
from yolofleet.workloads.revision import Revision, recorded
from yolofleet.workloads.workload import Record, Running, Workload


@dataclass(frozen=True, slots=True)
class ObservedRevision:
    """One revision as its workload and its record tell. `revision` is None when neither does.

    settled: whether its status speaks of its present spec, not of one before.
    leaving: whether some that go may still be among the ready, once more are asked for.
    placed: its pods that have a node, and so hold there what they ask for.
    released: whether it was the stable revision at some time; unproved: whether it was made for
    that as the first one, and is still to be judged. failed: what it was called off for.
    deployed: whether there is a workload; without it the record is all there is.
    record: what is kept apart from the workload; noted: what is kept on it. hopeless,
    served, look_at: as in `Running`. remade: how often it was made anew.
    """

    name: str
    created: str
    replicas: int
    ready: int
    revision: Revision | None
    failure: Failure | None = None
    settled: bool = True
    leaving: bool = False
    placed: int = 0
    released: bool = False
    unproved: bool = False
    failed: Failed | None = None
    deployed: bool = True
    record: Record | None = None
    noted: Record | None = None
    hopeless: datetime | None = None
    remade: int = 0
    served: bool = False
    look_at: datetime | None = None

    @property
    def unplaced(self) -> int:
        """Replicas that have no node yet: they still need room."""
        return max(0, self.replicas - max(self.placed, self.ready))


@dataclass(frozen=True, slots=True)
class Observed:
    """All that is known of one detector's world at one moment."""

    revisions: Mapping[str, ObservedRevision]
    weights: Mapping[str, int]  # what the router has; empty where there is no route
    matched: str  # the revision to which it leads those that match; empty: none
    buckets: Buckets  # the cameras that it keeps on a revision
    service: Selection  # what the detector's own Service says
    provider: Provider  # what routes in fact: what was asked for, as far as it is there
    router: Provider  # what it is on, also while that is away
    exposure: Exposure  # the hosts and gateways that the route may have
    followed: Followed  # whether somebody routes by the route as it is
    moving: RouterOption | None  # where it goes once that routes
    lingering: frozenset[str]  # revisions to which a route still leads that is not to be there
    ending: str  # such a route that was deleted, and is still there; empty: none
    refused: str  # why a gateway does not serve the route; empty when none says so
    namesake: str  # an older detector that its name may come to clash with
    autoscaler: Limit | None  # why the autoscaler cannot do what is asked of it
    nodes: tuple[NodeRoom, ...]  # those with accelerators; none for who asks for no accelerator
    unreached: frozenset[str]  # revisions to which no route can lead, as what it needs was refused
    backends: frozenset[str]  # whom a route can name: their Service, and its rule, are there
    crossed: tuple[Crossing, ...] = ()  # hosts below a wildcard of others, or the other way round
    shadow: Shadow | None = None  # the one that pods compare with now
    token: str = field(default="", repr=False)  # never used before
    analysis: AnalysisStatus | None = None  # how the revision on trial is judged, as of now
    looked: bool = False  # whether that is of a look of this process, and not only what is stored
    device_classes: frozenset[str] | None = (
        None  # by which devices can be claimed; None: not at all
    )
    keda: Keda = field(default_factory=Keda)
    moved: Moved | None = None  # the floor that the load asks for, as it was published last
    least: int | None = None  # the minReplicas of the autoscaler
    scaled: frozenset[str] = frozenset()  # revisions whose autoscaler is KEDA's, or still may be
    status: Status = field(default_factory=Status)

    @property
    def splits(self) -> bool:
        """Say whether what routes gives each revision its part, and not each ready pod alike."""
        return splits(self.provider)

    @property
    def pending(self) -> bool:
        """Say whether the router may still send as the route said before: nothing keeps how."""
        return self.followed.by is Following.PENDING

    def replicas(self, name: str) -> int:
        """Pods that the workload of `name` asks for."""
        found = self.revisions.get(name)
        return found.replicas if found else 0

    def deployed(self, name: str) -> bool:
        """Whether there is a workload of `name`."""
        found = self.revisions.get(name)
        return found is not None and found.deployed

    def leaving(self, name: str) -> bool:
        """Whether pods of `name` that go may still be counted as ready."""
        found = self.revisions.get(name)
        return bool(found and found.leaving)

    def unplaced(self, name: str) -> int:
        """Of those, the ones that have no node yet."""
        found = self.revisions.get(name)
        return found.unplaced if found else 0

    def weight(self, name: str) -> int:
        """Percent of requests that `name` gets: from the router, or as the Service spreads them."""
        if self.splits:
            return self.weights.get(name, 0)
        if not self.service.spans:
            return 100 if self.service.answering == name else 0
        ready = sum(seen.ready for seen in self.revisions.values())
        return 100 * self.ready(name) // ready if ready else 0

    def share(self, name: str) -> int:
        """Percent of requests that `name` has during a release, its pods lost or not.

        The router takes it from who has none ready, and gives all to who is alone; so status knows.
        """
        known = self.status.rollout.shares if self.status.rollout else ()
        kept = next((each.weight for each in known if each.revision == name), None)
        return self.weights.get(name, 0) if kept is None else kept

    def named(self, name: str) -> bool:
        """Say whether a router sends to `name`, and not to whoever is ready."""
        led = self.service.answering or self.service.stands_for
        return self.weights.get(name, 0) > 0 or name == led

    def routed(self, name: str) -> bool:
        """Say whether any router still sends requests to `name`."""
        led = self.named(name) or self.service.spans or self.matched == name
        return led or name in self.lingering

    def ready(self, name: str | None) -> int:
        """Replicas of `name` that can answer."""
        found = self.revisions.get(name or "")
        return found.ready if found else 0


def observe(detector: Detector, seen: Snapshot, *, now: datetime) -> Observed:
    """Say what a snapshot means for `detector`."""
    by_kind: dict[str, list[Manifest]] = {}
    for child in seen.children:
        by_kind.setdefault(child["kind"], []).append(child)
    option, router, moving = choose_router(
        detector, seen.routers, seen.status, by_kind, seen.elsewhere
    )
    routes = option.exposure.routes and option is not moving
    provider = option.router if routes else Provider.SERVICE
    scaled = by_kind.get(keda.KIND, [])
    return Observed(
        revisions=_revisions(detector, seen, by_kind.get(record.KIND, []), now),
        weights=_weights(detector, option) if routes else {},
        matched=option.matched if routes else "",
        buckets=option.buckets if routes else {},
        service=selection(detector, by_kind.get("Service", [])),
        provider=provider,
        router=router,
        exposure=option.exposure,
        followed=option.followed if routes else Followed(),
        moving=moving,
        lingering=_lingering(detector, provider, by_kind),
        ending=_ending(provider, by_kind),
        refused=option.refused,
        namesake=seen.elsewhere.namesake,
        autoscaler=(
            keda.complaint(scaled, seen.status.stable.revision if seen.status.stable else "")
            or limit([*by_kind.get(AUTOSCALER, []), *seen.keda.autoscalers])
        ),
        nodes=seen.nodes,
        device_classes=seen.device_classes,
        unreached=seen.unreached,
        backends=_backends(provider, by_kind),
        crossed=seen.elsewhere.crossed,
        shadow=shadow_in(child_named(seen.children, "ConfigMap", live_name(detector.name))),
        token=seen.token,
        analysis=seen.analysis or seen.status.analysis,
        looked=seen.analysis is not None,
        keda=seen.keda,
        moved=seen.moved,
        scaled=frozenset(each["metadata"]["name"] for each in scaled),
        least=max(
            (each["spec"].get("minReplicas", 1) for each in by_kind.get(AUTOSCALER, [])),
            default=None,
        ),
        status=seen.status,
    )


def _revisions(
    detector: Detector, seen: Snapshot, records: Sequence[Manifest], now: datetime
) -> dict[str, ObservedRevision]:
    """Return what there is of each revision: that has a workload, or only a record."""
    failures = failures_by_revision(seen.pods, seen.complaints, now)
    placed, pods = _placed(seen.pods), _by_revision(seen.pods)
    running = {
        each["metadata"]["name"]: (workload, each)
        for workload, each in among(seen.children)
        if "deletionTimestamp" not in each["metadata"]
    }
    by_name = {each["metadata"]["name"]: each for each in records}
    deployed = {
        name: _revision(
            detector,
            found[0],
            found[0].read(found[1], pods.get(name, ()), now),
            found[1],
            by_name.get(name),
            failures.get(name),
            placed=placed.get(name, 0),
            edited=name in seen.edited,
        )
        for name, found in running.items()
    }
    at_rest = {
        name: _undeployed(detector.name, kept, failures, seen.lacking, pods.get(name, ()))
        for name, kept in by_name.items()
        if name not in running
    }
    return deployed | at_rest


def _revision(
    detector: Detector,
    workload: Workload,
    seen: Running,
    manifest: Manifest,
    kept: Manifest | None,
    of_pods: Failure | None,
    *,
    placed: int,
    edited: bool,
) -> ObservedRevision:
    """Return a revision that has a workload. What we noted there last says what runs.

    An older operator, that knew of no records, may have rendered it anew after a downgrade. A note
    that others wrote is believed only where there is no record.
    """
    record = None
    name, created, failed = seen.name, seen.created, seen.failed
    released, proved = seen.released, seen.proved
    if kept is not None:
        record = record_in(kept)
        # a workload that was deleted and made again is no younger revision
        created = min(created, kept["metadata"].get("creationTimestamp", created))
        released, proved = released or was_released(kept), proved or was_proved(kept)
        failed = failed or failure_noted(kept)
    order = (record, seen.noted) if edited else (seen.noted, record)
    readable = (recorded(detector.name, name, each.text) for each in order if each)
    revision = next((each for each in readable if each), None)
    refusal = seen.failure
    if refusal:
        said = of_a_pod(workload.pod(manifest), refusal.message, origin(detector.spec, revision))
        refusal = replace(refusal, message=said)
    return ObservedRevision(
        name=name,
        created=created,
        replicas=seen.replicas,
        ready=seen.ready,
        revision=revision,
        failure=refusal if refusal and refusal.foremost else of_pods or refusal,
        settled=seen.settled,
        leaving=seen.leaving,
        placed=placed,
        released=released,
        unproved=released and not proved,
        failed=failed,
        record=record,
        noted=seen.noted,
        hopeless=seen.hopeless,
        remade=times_remade(kept) if kept else 0,
        served=seen.served,
        look_at=seen.look_at,
    )


def child_named(children: Iterable[Manifest], kind: str, name: str) -> Manifest | None:
    """Return the child of this kind and name, if there is one: a namespace has no two."""
    return next((c for c in children if (c["kind"], c["metadata"]["name"]) == (kind, name)), None)


def _undeployed(
    detector: str,
    kept: Manifest,
    failures: Mapping[str, Failure],
    lacking: frozenset[str],
    pods: Sequence[Manifest],
) -> ObservedRevision:
    """Return a revision whose workload is gone: what it was, to be made again.

    Or it is there, and not for us any more: then its pods go on, and so do their requests.
    """
    name, record = kept["metadata"]["name"], record_in(kept)
    revision = recorded(detector, name, record.text)
    absent = engine_absent(revision, lacking)
    ready = sum(map(is_ready, pods)) if absent else 0
    return ObservedRevision(
        name=name,
        created=kept["metadata"].get("creationTimestamp", ""),
        replicas=ready,
        ready=ready,
        settled=absent is None,
        revision=revision,
        failure=absent or failures.get(name),  # of pods that are not gone yet
        released=was_released(kept),
        unproved=was_released(kept) and not was_proved(kept),
        failed=failure_noted(kept),
        deployed=False,
        record=record,
        remade=times_remade(kept),
    )


def engine_absent(revision: Revision | None, lacking: frozenset[str]) -> Failure | None:
    """Say that nothing in the cluster can run `revision`."""
    workload = workload_for(revision)
    if workload.KIND not in lacking:
        return None
    return Failure(Reason.ENGINE_ABSENT, workload.LACKING)


def _lingering(
    detector: Detector, provider: Provider, by_kind: Mapping[str, Sequence[Manifest]]
) -> frozenset[str]:
    """Return to which revisions routes of other routers lead: they go, but may not let us."""
    led = [
        {*by.leads(route["spec"]), *by.buckets(route["spec"]), by.matched(route["spec"])}
        for by, route in _of_others(provider, by_kind)
    ]
    return frozenset[str]().union(*led) - {detector.name, ""}


def _ending(provider: Provider, by_kind: Mapping[str, Sequence[Manifest]]) -> str:
    """Return "KIND NAME" of a route of another router that a finalizer keeps."""
    routes = (route["metadata"] | {"kind": by.KIND} for by, route in _of_others(provider, by_kind))
    kept = (f"{r['kind']} {r['name']}" for r in routes if "deletionTimestamp" in r)
    return next(kept, "")


def _of_others(
    provider: Provider, by_kind: Mapping[str, Sequence[Manifest]]
) -> Iterator[tuple[Router, Manifest]]:
    for other in (ROUTERS[each] for each in SPLITTING if each is not provider):
        yield from ((other, route) for route in by_kind.get(other.KIND, ()))


def _weights(detector: Detector, option: RouterOption) -> dict[str, int]:
    """Return the weights of the route; one that leads to the detector's Service has none."""
    return {name: weight for name, weight in option.leads.items() if name != detector.name}


def _backends(provider: Provider, by_kind: Mapping[str, Sequence[Manifest]]) -> frozenset[str]:
    """Return the names of the Services that a route by `provider` can lead to."""
    needed = ROUTERS[provider].POINTS
    names = ({child["metadata"]["name"] for child in by_kind.get(kind, ())} for kind in needed)
    return frozenset(set.intersection(*names))


def _by_revision(pods: Iterable[Manifest]) -> dict[str, list[Manifest]]:
    found: dict[str, list[Manifest]] = {}
    for pod in pods:
        found.setdefault(revision_of(pod), []).append(pod)
    return found


def _placed(pods: Iterable[Manifest]) -> Counter[str]:
    """Return by revision how many pods have a node and are not on their way out."""
    return Counter(
        revision_of(pod)
        for pod in pods
        if place(pod) and "deletionTimestamp" not in pod["metadata"]
    )
