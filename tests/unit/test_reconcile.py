"""The page itself, over an API server of some forty lines that refuses, fails and forgets."""

import asyncio
import copy
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from yolofleet.api import names
from yolofleet.api.status import read_status
from yolofleet.cluster import errors, kinds
from yolofleet.cluster.apply import Writer
from yolofleet.cluster.cache import Cache
from yolofleet.cluster.client import Listing
from yolofleet.plan.defaults import Defaults
from yolofleet.reconcile import Deps, reconcile

KEY = "shop/gate"
DOWN = 'Internal error occurred: failed calling webhook "validation.istio.io"'


def fields(value):
    """Return the FieldsV1 of what is applied; items of lists have their names as keys."""
    if isinstance(value, dict):
        return {f"f:{name}": fields(inner) for name, inner in value.items()}
    named = isinstance(value, list) and value and all("name" in each for each in value)
    return {f'k:{{"name":"{v["name"]}"}}': {".": {}, **fields(v)} for v in value} if named else {}


def merged(live, wanted):
    if isinstance(live, dict) and isinstance(wanted, dict):
        return live | {k: merged(live.get(k), v) for k, v in wanted.items()}
    return wanted


class Api:
    """Objects by path. refuse: asked of each write; what it returns is raised."""

    def __init__(self):
        self.objects, self.version, self.writes, self.refuse = {}, 100, [], lambda _request: None
        self.mutate = lambda manifest: manifest

    async def send(self, request):
        path = request.path.removesuffix("/status")
        if request.method == "GET":
            if path not in self.objects:
                raise errors.NotFound(path)
            return copy.deepcopy(self.objects[path])
        if error := self.refuse(request):
            raise error
        self.writes.append(request)
        live = self.objects.get(path)
        if request.method == "DELETE":
            return self.objects.pop(path)
        if isinstance(request.body, list):
            return self.put(path, self._patched(live, request.body))
        wanted = {k: v for k, v in request.body["metadata"].items() if k == "uid"}
        if live and wanted.get("uid", live["metadata"]["uid"]) != live["metadata"]["uid"]:
            raise errors.Conflict("another uid")
        new = merged(live or {}, copy.deepcopy(request.body))
        if request.path == path:
            manager = request.query["fieldManager"]
            entry = {"manager": manager, "operation": "Apply", "fieldsV1": fields(request.body)}
            others = [e for e in (live or new)["metadata"].get("managedFields", ()) if live]
            kept = [e for e in others if e["manager"] != manager]
            new["metadata"]["managedFields"] = [*kept, entry]
            new = self.mutate(new)
        return self.put(path, new)

    def _patched(self, live, operations):
        new = copy.deepcopy(live)
        for operation in operations:
            *way, last = operation["path"].split("/")[1:]
            at = new
            for step in way:
                at = at[int(step)] if isinstance(at, list) else at[step]
            if operation["op"] == "remove":
                del at[int(last) if isinstance(at, list) else last]
            else:
                at[last] = operation["value"]
        return new

    def put(self, path, manifest):
        self.version += 1
        manifest["metadata"].setdefault("uid", f"uid-{self.version}")
        manifest["metadata"]["resourceVersion"] = str(self.version)
        self.objects[path] = manifest
        return copy.deepcopy(manifest)

    async def find(self, kind, namespace, name):
        return copy.deepcopy(self.objects.get(kind.path(namespace, name)))

    async def list(self, kind, keep, **_selected):
        found = [m for m in self.objects.values() if m["kind"] == kind.name]
        return Listing([keep(copy.deepcopy(m)) for m in found], self.version)


class Nothing:
    """Rooms for accelerators, of which nobody asks, and Events, which are kept."""

    def __init__(self):
        self.told = []

    def waits(self, key, waits):
        pass

    async def emit(self, _raw, kind, reason, message):
        self.told.append((kind, reason, message))


class World:
    def __init__(self, **spec):
        self.api, self.cache, self.seconds, self.nothing = Api(), Cache(), 0.0, Nothing()
        self.cache.set_served(kinds.VIRTUAL_SERVICE, True)
        self.cache.set_served(kinds.DESTINATION_RULE, True)
        self.path = kinds.DETECTOR.path("shop", "gate")
        self.restart()
        spec = {"model": {"uri": "demo://shapes"}, "replicas": 2, **spec}
        self.make("uid-1", spec)

    def make(self, uid, spec):
        metadata = {"name": "gate", "namespace": "shop", "uid": uid, "generation": 1}
        identity = {"apiVersion": names.API_VERSION, "kind": names.KIND}
        self.api.put(self.path, identity | {"metadata": metadata, "spec": spec})

    def restart(self):
        self.writer = Writer(self.api, self.cache, clock=lambda: self.seconds)
        defaults = Defaults(image_cpu="s:cpu", image_torch="s:torch", image_gpu="s:gpu")
        self.deps = Deps(self.cache, self.writer, self.nothing, self.nothing, defaults, self.now)

    def now(self):
        return datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def hear(self):
        """Take in what is; the watches of the operator."""
        for kind in (kinds.DETECTOR, *kinds.CHILDREN):
            for manifest in self.of(kind):
                self.cache.put(kind, copy.deepcopy(manifest))

    def of(self, kind):
        return [m for m in self.api.objects.values() if m["kind"] == kind.name]

    def names(self, kind):
        return {m["metadata"]["name"] for m in self.of(kind)}

    def look(self):
        """Reconcile once; return what it failed of, if it did."""
        self.hear()
        try:
            asyncio.run(reconcile(KEY, self.deps))
        except errors.Unfinished as error:
            return error.error
        return None

    def look_often(self, times=4):
        return [self.look() for _ in range(times)][-1]

    def ready(self):
        for deployment in self.of(kinds.DEPLOYMENT):
            replicas = deployment["spec"]["replicas"]
            path = kinds.DEPLOYMENT.path("shop", deployment["metadata"]["name"])
            self.api.put(path, deployment | {"status": {"availableReplicas": replicas}})

    def settle(self):
        for _ in range(3):
            self.look()
            self.ready()
        self.look()
        self.api.writes.clear()
        return self

    def edit(self, kind, name, change, manager="kubectl-edit", subresource=""):
        """Change an object as a person does, who owns the fields from then on."""
        path = kind.path("shop", name)
        live = self.api.objects[path]
        owned = fields(change)
        for entry in live["metadata"].get("managedFields", ()):
            entry["fieldsV1"] = _without(entry["fieldsV1"], owned)
        entry = {"manager": manager, "operation": "Update", "fieldsV1": owned}
        if subresource:
            entry["subresource"] = subresource
        new = merged(live, copy.deepcopy(change))
        new["metadata"]["managedFields"] = [*live["metadata"].get("managedFields", ()), entry]
        self.api.put(path, self.api.mutate(new))

    def spec(self, **changes):
        raw = self.api.objects[self.path]
        raw["spec"] |= changes
        raw["metadata"]["generation"] += 1
        self.api.put(self.path, raw)

    def status(self):
        return read_status(self.api.objects[self.path])

    def said(self, kind):
        return next((c for c in self.status().conditions if c.type == kind), None)

    @property
    def stable(self):
        return self.status().stable.revision


def _without(tree, taken):
    return {
        name: _without(inner, taken[name]) if taken.get(name) else inner
        for name, inner in tree.items()
        if name not in taken or taken[name]
    }


def of_kind(*refused, error=None, methods=("PATCH",)):
    """Refuse the writes of some kinds."""

    def refuse(request):
        concerned = any(f"/{kind.plural}" in request.path for kind in refused)
        if concerned and request.method in methods:
            return error or errors.Invalid("no")
        return None

    return refuse


@pytest.fixture
def world():
    return World()


def test_a_settled_detector_costs_no_write(world):
    world.settle()
    assert world.look() is None
    assert world.api.writes == []


@pytest.mark.parametrize(
    "kind", [k for k in kinds.CHILDREN if k.name not in ("HTTPRoute",)], ids=str
)
@pytest.mark.parametrize(
    "error", [errors.Invalid("no"), errors.Unavailable(DOWN)], ids=["refused", "failing"]
)
def test_an_object_that_cannot_be_made_stops_only_what_leads_to_it(kind, error):
    spec = {"autoscaling": {"minReplicas": 2, "maxReplicas": 3}}
    whole, world = World(**spec), World(**spec)
    whole.settle()
    world.api.refuse = of_kind(kind, error=error)
    for _ in range(4):
        world.look()
        world.ready()
    missing = {(k.name, n) for k in kinds.CHILDREN for n in whole.names(k) - world.names(k)}
    leads_there = kind in (kinds.SERVICE, kinds.DESTINATION_RULE)
    allowed = {kind.name} | ({"VirtualService"} if leads_there else set())
    assert {kind for kind, _ in missing} <= allowed
    if whole.names(kind):
        told = world.said("Written")
        assert told.reason == (
            "WriteRefused" if isinstance(error, errors.Refused) else "WriteFailed"
        )
        assert kind.name in told.message
        assert str(error) in told.message


def test_what_keeps_failing_is_told_with_kind_error_and_since_when(world):
    world.settle()
    stable = world.stable
    world.api.refuse = of_kind(kinds.VIRTUAL_SERVICE, error=errors.Unavailable(DOWN))
    world.edit(kinds.VIRTUAL_SERVICE, "gate", {"spec": {"gateways": ["x"]}})
    world.seconds = 60
    world.look_often()
    since = world.said("Written").last_transition_time
    world.seconds = 600
    assert isinstance(world.look(), errors.Unavailable), "and the queue tries again"
    told = world.said("Written")
    assert (told.status, told.reason) == ("False", "WriteFailed")
    assert told.message == f"VirtualService gate: {DOWN}"
    assert told.last_transition_time == since == world.now() - timedelta(seconds=540)
    progress = world.said("Progressing")
    assert progress.reason == "WriteFailed"
    assert progress.message == f"{told.message}; {stable} keeps serving"
    world.restart()
    world.look()
    assert world.said("Written").last_transition_time == since, "a restart forgets nothing"
    world.api.refuse = lambda _request: None
    world.look_often()
    assert world.said("Written") is None
    assert world.said("Progressing").reason == "Settled"


def test_status_is_told_while_a_write_fails(world):
    """Half of the traffic on dead pods, and istiod is down."""
    world.spec(canary={"weight": 50, "model": {"uri": "demo://other"}})
    world.settle()
    canary = world.status().canary
    assert canary.weight == 50
    world.api.refuse = of_kind(kinds.VIRTUAL_SERVICE, error=errors.Unavailable(DOWN))
    path = kinds.DEPLOYMENT.path("shop", canary.revision)
    world.api.put(path, world.api.objects[path] | {"status": {"availableReplicas": 0}})
    world.look()
    assert world.status().canary.ready == 0
    assert world.said("CanaryHealthy").reason == "CanaryStarting"
    assert world.said("TrafficRouted").status != "True"


def test_a_moment_of_trouble_is_not_told(world):
    world.settle()
    world.edit(kinds.SERVICE, "gate", {"spec": {"selector": {"a": "b"}}})
    world.api.refuse = of_kind(kinds.SERVICE, error=errors.Unavailable("busy"))
    world.look()
    world.api.refuse = lambda _request: None
    world.look()
    assert world.said("Written") is None


def test_a_refused_new_revision_does_not_keep_traffic_on_a_dying_canary(world):
    world.spec(canary={"weight": 50, "model": {"uri": "demo://other"}})
    world.settle()
    dying = world.status().canary.revision
    path = kinds.DEPLOYMENT.path("shop", dying)
    world.spec(model={"uri": "demo://third"})
    world.api.refuse = lambda r: (
        errors.Invalid("quota")
        if "/deployments/" in r.path and r.path.rsplit("/", 1)[1] not in (dying, world.stable)
        else None
    )
    world.api.put(path, world.api.objects[path] | {"status": {"availableReplicas": 0}})
    world.look_often()
    route = world.of(kinds.VIRTUAL_SERVICE)[0]["spec"]["http"][-1]["route"]
    weights = {r["destination"]["host"].split(".")[0]: r["weight"] for r in route}
    assert weights.get(dying, 0) == 0


def test_what_is_no_longer_wanted_goes_although_something_is_refused(world):
    world.spec(autoscaling={"minReplicas": 2, "maxReplicas": 3})
    world.settle()
    assert world.names(kinds.HPA)
    world.api.refuse = of_kind(kinds.NETWORK_POLICY, kinds.POD_MONITOR)
    world.edit(kinds.NETWORK_POLICY, "gate", {"spec": {"policyTypes": []}})
    world.spec(autoscaling=None)
    world.look_often()
    assert world.names(kinds.HPA) == set()


def test_nothing_that_an_old_route_leads_to_goes_while_the_new_one_is_refused(world):
    world.spec(canary={"weight": 50, "model": {"uri": "demo://other"}})
    world.settle()
    canary = world.status().canary.revision
    world.api.refuse = of_kind(kinds.VIRTUAL_SERVICE)
    world.spec(canary=None, rollout={"revisionHistory": 0})
    for _ in range(5):
        world.look()
        world.seconds += 600
    for kind in (kinds.DEPLOYMENT, kinds.SERVICE, kinds.DESTINATION_RULE):
        assert canary in world.names(kind)


def test_an_api_server_that_is_away_is_not_asked_for_each_object(world):
    asked = []
    world.api.refuse = lambda r: asked.append(r) or errors.Unanswered("no route to host")
    with pytest.raises(errors.Unanswered):
        world.look()
    assert len(asked) == 3  # two objects and the status


def test_a_name_that_is_taken_by_others_is_told_once_for_all(world):
    for kind in (kinds.SERVICE, kinds.SERVICE_ACCOUNT):
        metadata = {"name": "gate", "namespace": "shop"}
        theirs = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}
        world.api.put(kind.path("shop", "gate"), theirs)
    world.look()
    told = world.said("Progressing")
    assert told.reason == "ResourceConflict"
    assert "ServiceAccount gate, Service gate already exist in namespace shop" in told.message
    assert "kubectl -n shop label --overwrite serviceaccount/gate service/gate" in told.message
    assert "delete" not in told.message
    assert "labels" not in world.of(kinds.SERVICE)[0]["metadata"]


@pytest.mark.parametrize("owner", [None, "gone"])
def test_children_that_lost_their_owner_are_adopted_at_once_and_serve_on(world, owner):
    world.spec(canary={"weight": 50, "model": {"uri": "demo://other"}})
    world.settle()
    before, status = world.stable, world.status()
    spec = world.api.objects[world.path]["spec"]
    for kind in kinds.CHILDREN:
        for child in world.of(kind):
            if owner is None:
                del child["metadata"]["ownerReferences"]
            world.api.put(kind.path("shop", child["metadata"]["name"]), child)
    world.cache = Cache()
    world.cache.set_served(kinds.VIRTUAL_SERVICE, True)
    world.cache.set_served(kinds.DESTINATION_RULE, True)
    world.restart()
    world.make("uid-2", spec)
    world.look()
    for kind in kinds.CHILDREN:
        assert {kinds.controller_uid(m) for m in world.of(kind)} <= {"uid-2"}, kind
    assert world.stable == before
    world.look()
    assert world.status().canary == status.canary
    assert not {r.method for r in world.api.writes} & {"DELETE"}
    world.api.writes.clear()
    world.look()
    assert world.api.writes == []


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": {names.DETECTOR_LABEL: "gate"}},
        {"labels": {names.DETECTOR_LABEL: "other", names.MANAGED_BY_LABEL: names.MANAGED_BY}},
        {
            "labels": names.child_labels("gate"),
            "ownerReferences": [{"kind": "App", "name": "gate", "uid": "u", "controller": True}],
        },
    ],
)
def test_what_may_be_anothers_is_not_adopted(world, metadata):
    metadata = {"name": "gate", "namespace": "shop", **metadata}
    theirs = {"apiVersion": "v1", "kind": "Service", "metadata": metadata}
    world.api.put(kinds.SERVICE.path("shop", "gate"), copy.deepcopy(theirs))
    world.look()
    live = next(m for m in world.of(kinds.SERVICE) if m["metadata"]["name"] == "gate")
    assert "spec" not in live
    assert world.said("Progressing").reason == "ResourceConflict"


def test_a_repair_is_told_although_the_status_write_met_a_conflict(world):
    world.settle()
    world.edit(kinds.SERVICE, "gate", {"spec": {"selector": {"a": "b"}}})
    world.api.refuse = lambda r: errors.Conflict("") if r.path.endswith("/status") else None
    with pytest.raises(errors.Conflict):
        world.look()
    world.api.refuse = lambda _request: None
    world.look()
    assert world.said("Drifted").reason == "DriftRepaired"
    told = [reason for _, reason, _ in world.nothing.told]
    world.look_often()
    assert told.count("DriftRepaired") == 1
    assert [r for _, r, _ in world.nothing.told].count("DriftRepaired") == 1


def test_a_typo_in_behavior_is_told_where_the_user_wrote_it(world):
    told = ".spec.behavior.scaleDown.stabilizationWindowSecond: field not declared in schema"
    world.spec(autoscaling={"minReplicas": 2, "maxReplicas": 3})
    world.api.refuse = of_kind(kinds.HPA, error=errors.Invalid(told))
    world.look()
    assert "HorizontalPodAutoscaler" in world.said("Written").message
    assert ": spec.autoscaling.behavior.scaleDown.stab" in world.said("Written").message
    assert world.names(kinds.NETWORK_POLICY)
    assert orjson.dumps(world.of(kinds.NETWORK_POLICY))
