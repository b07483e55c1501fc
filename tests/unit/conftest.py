"""A small working world for the planner: children, replicas that become ready, a clock."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final

import pytest

from memory_cluster.server import a_copy
from yolofleet.api.analysis import AnalysisStatus
from yolofleet.api.detector import Detector, Provider
from yolofleet.api.names import RENDER_ANNOTATION, REVISION_LABEL, Manifest
from yolofleet.api.status import Status, read_status
from yolofleet.plan.decide import Plan
from yolofleet.plan.defaults import Defaults
from yolofleet.plan.devices import devices_for
from yolofleet.plan.inventory import Inventory
from yolofleet.plan.nodes import NodeRoom, rooms
from yolofleet.plan.observed import Observed
from yolofleet.plan.snapshot import Elsewhere, Keda, Snapshot
from yolofleet.routers.claims import Claim, Crossing
from yolofleet.routers.following import Mesh
from yolofleet.think import Thought, think
from yolofleet.workloads.accelerators import place, pod_requests

DEFAULTS = Defaults(
    image_cpu="serve:cpu", image_torch="serve:torch", image_gpu="serve:gpu", image_ray="serve:ray"
)
# Of nobody else, as an API server gives them: what is remembered by them is found at once.
UIDS: Final = count(1)


def a_detector(**spec: Any) -> Manifest:
    """Return a valid resource with the API server's defaults left to the types."""
    uid = f"u-{next(UIDS)}"
    return {
        "apiVersion": "yolofleet.io/v1alpha1",
        "kind": "YoloDetector",
        "metadata": {"name": "gate", "namespace": "shop", "uid": uid, "generation": 1},
        "spec": {"model": {"uri": "demo://shapes"}, "replicas": 2, **spec},
    }


@dataclass
class World:
    """What a cluster does with what is written to it, and nothing else."""

    raw: Manifest = field(default_factory=a_detector)
    children: dict[tuple[str, str], Manifest] = field(default_factory=dict)
    pods: list[Manifest] = field(default_factory=list)
    nodes: list[Manifest] = field(default_factory=list)
    others: list[Manifest] = field(default_factory=list)  # pods that are not this detector's
    mesh: bool = True
    gateway: bool = False
    monitors: bool = False  # the API of the Prometheus operator is there
    scheduler: bool = False  # whether pods are made, and hold accelerators of nodes
    broken: set[str] = field(default_factory=set)  # model URIs whose pods never get ready
    now: datetime = datetime(2030, 1, 1, tzinfo=UTC)
    defaults: Defaults = DEFAULTS
    delegated: bool = True  # whether a VirtualService delegates to ours
    absent: frozenset[str] = frozenset()  # gateways that do not exist
    absent_for: dict[Provider, frozenset[str]] = field(default_factory=dict)  # of one kind alone
    namesake: str = ""  # an older detector that it could be a revision of
    accepts: bool = True  # whether gateways answer to a route
    stays_behind: frozenset[str] = frozenset()  # gateways that answer to no later one
    taken: dict[Claim, str] = field(default_factory=dict)  # what other detectors have
    crossed: tuple[Crossing, ...] = ()  # what shares requests with others
    others_routes: dict[Provider, dict[Claim, str]] = field(default_factory=dict)
    analysis: AnalysisStatus | None = None  # what the pods of a trial showed
    keda: bool = False  # its API is there
    inventory: Inventory = field(default_factory=Inventory)  # of devices that can be claimed

    def edit(self, **spec: Any) -> None:
        """Change the spec as a user does; None removes a field."""
        after = {**self.raw["spec"], **spec}
        self.raw["spec"] = {k: v for k, v in after.items() if v is not None}
        self.raw["metadata"]["generation"] += 1

    def detector(self) -> Detector:
        return Detector.parse(self.raw)

    def seen(self) -> Snapshot:
        return Snapshot(
            status=self.status(),
            children=a_copy(list(self.children.values())),
            pods=self.pods,
            nodes=self.rooms(),
            device_classes=self.inventory.classes and frozenset(self.inventory.classes),
            routers=self.routers(),
            elsewhere=self.elsewhere(),
            monitors=self.monitors,
            token="0123456789abcdef",
            analysis=self.analysis,
            keda=Keda(self.keda, self.defaults.prometheus, gpu=self.defaults.gpu),
        )

    def observed(self) -> Observed:
        return self.think().observed

    def elsewhere(self) -> Elsewhere:
        mesh = Mesh(self.delegated, everywhere=not self.defaults.namespaces)
        absent = dict.fromkeys((Provider.ISTIO, Provider.GATEWAY), self.absent) | self.absent_for
        others = self.others_routes
        return Elsewhere(
            self.taken, self.defaults.allowed, mesh, absent, self.namesake, others, self.crossed
        )

    def routers(self) -> frozenset[Provider]:
        there = {Provider.ISTIO: self.mesh, Provider.GATEWAY: self.gateway}
        return frozenset(provider for provider, is_there in there.items() if is_there)

    def rooms(self) -> tuple[NodeRoom, ...]:
        held: dict[str, Counter[str]] = {}
        for pod in [*self.pods, *self.others]:
            held.setdefault(place(pod), Counter()).update(pod_requests(pod))
        if self.inventory.classes is None:
            return rooms(self.nodes, held, self.pods)
        devices = devices_for(self.detector(), self.children.values(), self.inventory)
        return rooms(self.nodes, held, self.pods, devices=devices)

    def status(self) -> Status:
        return read_status(self.raw)

    def decide(self) -> Plan:
        return self.think().plan

    def think(self) -> Thought:
        return think(self.detector(), self.seen(), self.defaults, now=self.now)

    def reconcile(self) -> Plan:
        """Run one whole reconcile: think, tell, write, prune."""
        thought = self.think()
        plan, desired = thought.plan, thought.desired
        self.raw["status"] = thought.status.dump()
        if self.raw["spec"].get("suspend"):
            return plan
        for manifest in desired:
            self._write(manifest)
        keep = {(m["kind"], m["metadata"]["name"]) for m in desired}
        for key in [k for k in self.children if k not in keep and k[1] not in plan.untouched]:
            del self.children[key]
        return plan

    def _write(self, manifest: Manifest) -> None:
        key = manifest["kind"], manifest["metadata"]["name"]
        live = self.children.get(key)
        new = a_copy(manifest)
        if manifest["kind"] == "Deployment":
            was = live["spec"]["replicas"] if live else 1
            new["spec"].setdefault("replicas", was)
            new["status"] = live.get("status", {}) if live else {}
            created = live["metadata"]["creationTimestamp"] if live else self.now.isoformat()
            new["metadata"]["creationTimestamp"] = created
        if manifest["kind"] == "HTTPRoute":
            changed = not live or live["spec"] != new["spec"]
            generation = live["metadata"]["generation"] if live else 0
            new["metadata"]["generation"] = generation + changed
            new["status"] = live.get("status", {}) if live else {}
        self.children[key] = new

    def run_pods(self, step: int = 1000) -> None:
        """Let at most `step` replicas of each revision become ready, or go; gateways follow."""
        if (route := self.children.get(("HTTPRoute", "gate"))) and self.accepts:
            generation = route["metadata"]["generation"]
            yes = {"type": "Accepted", "status": "True", "observedGeneration": generation}
            said = {t["parentRef"]["name"]: t for t in route.get("status", {}).get("parents", ())}
            route["status"] = {
                "parents": [
                    said[p["name"]]
                    if p["name"] in self.stays_behind
                    else {"parentRef": p, "conditions": [yes]}
                    for p in route["spec"]["parentRefs"]
                ]
            }
        by_need = sorted(self.deployments().items(), key=lambda d: d[1]["spec"]["replicas"])
        for name, deployment in by_need:  # those that shrink make room first
            ready = deployment.setdefault("status", {}).get("availableReplicas", 0)
            model = deployment["metadata"]["annotations"].get(RENDER_ANNOTATION, "")
            healthy = not any(uri in model for uri in self.broken)
            goal = deployment["spec"]["replicas"] if healthy else 0
            if self.scheduler:
                goal = min(goal, self._schedule(name, deployment))
            moved = min(goal, ready + step) if goal > ready else max(goal, ready - step)
            self.deployments()[name]["status"]["availableReplicas"] = moved

    def _schedule(self, name: str, deployment: Manifest) -> int:
        """Give the pods of a Deployment nodes as far as these have room; return how many have."""
        ours = [p for p in self.pods if p["metadata"]["labels"][REVISION_LABEL] == name]
        wanted = deployment["spec"]["replicas"]
        self.pods = [p for p in self.pods if p not in ours[wanted:]]
        ours = ours[:wanted]
        while len(ours) < wanted:
            spec = a_copy(deployment["spec"]["template"]["spec"])
            number = len(self.pods) + len(ours)
            pod = {
                "metadata": {"name": f"{name}-{number}", "labels": {REVISION_LABEL: name}},
                "spec": spec,
            }
            ours.append(pod)
            self.pods.append(pod)
        for pod in ours:
            asked = pod_requests(pod)
            if not place(pod):
                fit = (
                    node.name
                    for node in self.rooms()
                    if all(node.free.get(r, 0) >= n for r, n in asked.items())
                )
                pod["spec"]["nodeName"] = next(fit, "")
        return sum(bool(place(pod)) for pod in ours)

    def deployments(self) -> dict[str, Manifest]:
        return {name: m for (kind, name), m in self.children.items() if kind == "Deployment"}

    def replicas(self) -> dict[str, int]:
        return {name: d["spec"]["replicas"] for name, d in self.deployments().items()}

    def ready(self, name: str) -> int:
        deployment = self.deployments().get(name, {})
        ready: int = deployment.get("status", {}).get("availableReplicas", 0)
        return ready

    def weights(self) -> dict[str, int]:
        if route := self.children.get(("HTTPRoute", "gate")):
            return {to["name"]: to["weight"] for to in route["spec"]["rules"][-1]["backendRefs"]}
        route = self.children.get(("VirtualService", "gate"))
        if route is None:
            return {}
        weighted = route["spec"]["http"][-1]["route"]
        return {r["destination"]["host"].split(".")[0]: r["weight"] for r in weighted}

    def stands_for(self) -> str:
        """Return what the Service says that the detector is released on, whoever answers."""
        name: str = self.children["Service", "gate"]["metadata"]["labels"][REVISION_LABEL]
        return name

    def selected(self) -> str:
        """Return whom the Service stands for; so it selects that one, or spans two revisions."""
        name = self.stands_for()
        selector = self.children["Service", "gate"]["spec"]["selector"]
        assert selector.get(REVISION_LABEL, name) == name
        return name

    def settle(self, rounds: int = 12) -> None:
        """Reconcile, run pods and let time pass until nothing moves."""
        for _ in range(rounds):
            self.reconcile()
            self.run_pods()
            self.now += timedelta(seconds=20)
        self.reconcile()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def new_world() -> type[World]:
    """For properties, which need a world for each example."""
    return World


@pytest.fixture
def detector_with() -> Callable[..., Detector]:
    """Make a parsed detector from changes to a valid spec."""
    return lambda **spec: Detector.parse(a_detector(**spec))
