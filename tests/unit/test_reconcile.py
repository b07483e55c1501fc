"""The page itself, over an API server of some forty lines that refuses, fails and forgets."""

import asyncio
import copy
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from yolofleet.api import names
from yolofleet.api.crd import schema
from yolofleet.api.detector import Autoscaling
from yolofleet.api.status import Serving, read_status
from yolofleet.cluster import kinds
from yolofleet.cluster.apply import ACCOUNT_S, Writer
from yolofleet.cluster.cache import Cache
from yolofleet.cluster.complaints import Complaints
from yolofleet.plan.defaults import Defaults
from yolofleet.plan.nodes import NodeRoom
from yolofleet.reconcile import Deps, reconcile
from yolofleet.runtime import errors, objects
from yolofleet.runtime.client import Listing
from yolofleet.think import think

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
    """Rooms for accelerators, trials, of which there are none, and Events, which are kept."""

    def __init__(self):
        self.told = []

    def waits(self, key, waits):
        pass

    def follow(self, _key, subject):
        assert subject is None

    def found(self, key):
        pass

    async def found_by(self, _detector, _children):
        return (), None

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
        complaints = Complaints(self.api, clock=lambda: self.seconds)
        nothing = self.nothing
        self.deps = Deps(
            self.cache,
            self.writer,
            accelerators=nothing,
            sampler=nothing,
            floors=nothing,
            complaints=complaints,
            events=nothing,
            defaults=defaults,
            now=self.now,
        )

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

    def edit(self, kind, name, change, manager="kubectl-edit", subresource="", owned=None):
        """Change an object as a person does, who owns the fields from then on."""
        path = kind.path("shop", name)
        live = self.api.objects[path]
        owned = owned or fields(change)
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
def test_an_object_that_cannot_be_made_stops_only_who_waits_for_it(kind, error):
    spec = {"autoscaling": {"minReplicas": 2, "maxReplicas": 3}}
    whole, world = World(**spec), World(**spec)
    whole.settle()
    world.api.refuse = of_kind(kind, error=error)
    for _ in range(4):
        world.look()
        world.ready()
    missing = {(k.name, n) for k in kinds.CHILDREN for n in whole.names(k) - world.names(k)}
    waits = {
        kinds.SERVICE: "VirtualService",  # requests would go nowhere by it
        kinds.DESTINATION_RULE: "VirtualService",
        kinds.NETWORK_POLICY: "Deployment",  # its pods would be open to everybody
    }
    assert {kind for kind, _ in missing} <= {kind.name, waits.get(kind)}
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


def test_the_same_trouble_at_each_try_is_told_once(world):
    """A webhook that does not answer is told of with the port that the API server had for it."""
    world.settle()
    world.spec(replicas=3)
    for port in range(40_000, 40_012):
        told = f"failed calling webhook: read tcp 10.0.0.1:{port}->10.96.0.9:443: reset by peer"
        world.api.refuse = of_kind(kinds.DEPLOYMENT, error=errors.Unavailable(told))
        world.look()
        world.seconds += 15
        if port == 40_006:  # it has lasted
            world.api.writes.clear()
    assert "read tcp 10.96.0.9:443: reset by peer" in world.said("Written").message
    assert not [w for w in world.api.writes if "/status" in str(w)]


def test_a_moment_of_trouble_is_not_told(world):
    world.settle()
    world.edit(kinds.SERVICE, "gate", {"spec": {"selector": {"a": "b"}}})
    world.api.refuse = of_kind(kinds.SERVICE, error=errors.Unavailable("busy"))
    world.look()
    world.api.refuse = lambda _request: None
    world.look()
    assert world.said("Written") is None


def weights_of(world):
    route = world.of(kinds.VIRTUAL_SERVICE)[0]["spec"]["http"][-1]["route"]
    return {r["destination"]["host"].split(".")[0]: r["weight"] for r in route}


@pytest.mark.parametrize("error", [errors.Invalid("quota"), errors.Unavailable(DOWN)])
@pytest.mark.parametrize("kind", [kinds.DEPLOYMENT, kinds.SERVICE, kinds.DESTINATION_RULE], ids=str)
def test_a_refused_new_revision_does_not_keep_traffic_on_a_dying_canary(world, kind, error):
    world.spec(canary={"weight": 50, "model": {"uri": "demo://other"}})
    world.settle()
    stable, dying = world.stable, world.status().canary.revision
    path = kinds.DEPLOYMENT.path("shop", dying)
    world.spec(model={"uri": "demo://third"})

    def refuse(request):
        name = request.path.rsplit("/", 1)[1]
        return error if f"/{kind.plural}/" in request.path and name not in (dying, stable) else None

    world.api.refuse = refuse
    world.api.put(path, world.api.objects[path] | {"status": {"availableReplicas": 0}})
    for _ in range(4):
        world.look()
        for live in world.of(kinds.DEPLOYMENT):
            if live["metadata"]["name"] != dying:  # the new pods may be ready: nothing leads there
                path = kinds.DEPLOYMENT.path("shop", live["metadata"]["name"])
                ready = {"status": {"availableReplicas": live["spec"]["replicas"]}}
                world.api.put(path, live | ready)
    assert weights_of(world).get(dying, 0) == 0
    assert world.stable == stable
    names = {service["metadata"]["name"] for service in world.of(kinds.SERVICE)}
    assert weights_of(world).keys() <= names
    world.api.refuse = lambda _request: None
    world.api.put(path, world.api.objects[path] | {"status": {"availableReplicas": 2}})
    world.settle().settle()
    assert world.stable not in (stable, dying)
    assert weights_of(world)[world.stable] >= 50


def test_a_refused_service_of_a_revision_without_replicas_moves_nothing_to_and_fro(world):
    world.settle()
    stable = world.stable
    steps = [{"weight": 10, "hold": "Approval"}]
    world.spec(replicas=0, rollout={"strategy": "Canary", "steps": steps})
    world.settle()
    world.spec(model={"uri": "demo://other"})
    world.api.refuse = lambda r: (
        errors.Invalid("no") if "/services/" in r.path and r.path[-13:] != stable[-13:] else None
    )
    world.look_often()
    written = len(world.api.writes)
    world.look_often()
    assert len(world.api.writes) == written
    assert weights_of(world) == {stable: 100}
    assert "Service gate-" in world.said("Written").message


def test_what_is_no_longer_wanted_goes_although_something_is_refused(world):
    world.spec(autoscaling={"minReplicas": 2, "maxReplicas": 3})
    world.settle()
    assert world.names(kinds.HPA)
    world.api.refuse = of_kind(kinds.NETWORK_POLICY, kinds.POD_MONITOR)
    world.edit(kinds.NETWORK_POLICY, "gate", {"spec": {"policyTypes": []}})
    world.spec(autoscaling=None)
    world.look_often()
    assert world.names(kinds.HPA) == set()


@pytest.mark.parametrize("runtime", [{}, {"engine": "ray"}])
def test_no_pod_is_made_before_its_network_policy(world, runtime):
    """Whom `access.allowFrom` keeps out would get in, for as long as nobody reads the status."""
    world.cache.set_served(kinds.RAY_SERVICE, True)
    world.spec(runtime=runtime)
    world.api.refuse = of_kind(kinds.NETWORK_POLICY)
    world.look_often()
    assert not world.of(kinds.DEPLOYMENT) + world.of(kinds.RAY_SERVICE)
    assert world.of(kinds.SERVICE), "it holds up nothing else"
    told = world.said("Written")
    assert told.reason == "WriteRefused"
    assert "NetworkPolicy gate" in told.message
    assert told.message.endswith("no pod is made before its NetworkPolicy is written")
    world.api.refuse = lambda _request: None
    world.look_often()
    assert world.of(kinds.RAY_SERVICE if runtime else kinds.DEPLOYMENT)
    assert world.said("Written") is None


def test_a_revision_on_ray_waits_for_policies_of_its_own(world):
    """The policy of its head alone keeps others from Ray's ports, which ask for nothing."""
    world.cache.set_served(kinds.RAY_SERVICE, True)
    world.spec(runtime={"engine": "ray"}, access={"networkPolicy": "None"})
    world.look_often()
    stable = world.names(kinds.RAY_SERVICE)
    refused = errors.Invalid("no")
    world.api.refuse = lambda request: refused if request.path.endswith("-head") else None
    world.spec(model={"uri": "demo://other"})
    world.look_often()
    assert world.names(kinds.RAY_SERVICE) == stable
    assert world.said("Written").message.endswith(
        "no pod is made before its NetworkPolicy is written"
    )
    world.api.refuse = lambda _request: None
    world.look_often()
    assert len(world.names(kinds.RAY_SERVICE)) == 2


def test_a_network_policy_that_is_refused_takes_nothing_from_what_serves(world):
    world.settle()
    world.api.refuse = of_kind(kinds.NETWORK_POLICY)
    world.spec(access={"networkPolicy": "IngressOnly"}, model={"uri": "demo://other"})
    world.look_often()
    assert len(world.of(kinds.DEPLOYMENT)) == 2
    assert "NetworkPolicy gate" in world.said("Written").message
    assert "NetworkPolicy is written" not in world.said("Written").message, "the older one holds"
    gone(world, kinds.NETWORK_POLICY, "gate")
    world.spec(model={"uri": "demo://third"})
    world.look_often()
    assert len(world.of(kinds.DEPLOYMENT)) > 2
    assert world.said("Written").message.endswith("spec.access restricts nothing")


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
        assert {objects.controller_uid(m) for m in world.of(kind)} <= {"uid-2"}, kind
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


def test_a_typo_in_behavior_is_refused_when_it_is_applied():
    """The API server knows each field, so it names the one that it does not know."""
    spec = schema(Autoscaling)["properties"]["behavior"]
    inside = [spec, *spec["properties"].values()]
    assert not [part for part in inside if "x-kubernetes-preserve-unknown-fields" in part]
    rules = {"stabilizationWindowSeconds", "selectPolicy", "tolerance", "policies"}
    for direction in ("scaleUp", "scaleDown"):
        assert set(spec["properties"][direction]["properties"]) == rules


def test_a_typo_in_behavior_is_told_where_the_user_wrote_it(world):
    told = ".spec.behavior.scaleDown.stabilizationWindowSecond: field not declared in schema"
    world.spec(autoscaling={"minReplicas": 2, "maxReplicas": 3})
    world.api.refuse = of_kind(kinds.HPA, error=errors.Invalid(told))
    world.look()
    assert "HorizontalPodAutoscaler" in world.said("Written").message
    assert ": spec.autoscaling.behavior.scaleDown.stab" in world.said("Written").message
    assert world.names(kinds.NETWORK_POLICY)
    assert orjson.dumps(world.of(kinds.NETWORK_POLICY))


def replicas_of(world, name):
    return world.api.objects[kinds.DEPLOYMENT.path("shop", name)]["spec"]["replicas"]


def image_of(world, name):
    [container] = world.api.objects[kinds.DEPLOYMENT.path("shop", name)]["spec"]["template"][
        "spec"
    ]["containers"]
    return container["image"]


def set_image(world, name, image):
    """`kubectl set image`: the container is found by its name."""
    path = kinds.DEPLOYMENT.path("shop", name)
    [container] = copy.deepcopy(world.api.objects[path]["spec"]["template"]["spec"]["containers"])
    owned = fields({"spec": {"template": {"spec": {"containers": [{"name": container["name"]}]}}}})
    item = owned["f:spec"]["f:template"]["f:spec"]["f:containers"]
    for key in item:
        item[key] = {"f:image": {}}
    pods = {"spec": {"template": {"spec": {"containers": [{**container, "image": image}]}}}}
    world.edit(kinds.DEPLOYMENT, name, pods, "kubectl-set", owned=owned)


def autoscaler(name):
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "ext", "namespace": "shop"},
        "spec": {"scaleTargetRef": target, "minReplicas": 3, "maxReplicas": 3},
    }


def scale(world, name, replicas, manager="kube-controller-manager"):
    if replicas_of(world, name) != replicas:
        change = {"spec": {"replicas": replicas}}
        world.edit(kinds.DEPLOYMENT, name, change, manager, subresource="scale")


def test_an_autoscaler_on_a_child_is_told_within_a_minute_and_kills_no_pod_any_more(world):
    world.settle()
    name, began, told_at, killed = world.stable, world.seconds, None, 0
    theirs = kinds.HPA.path("shop", "ext")
    world.api.put(theirs, autoscaler(name))
    for _ in range(400):
        world.seconds += 15
        scale(world, name, 3)
        world.look_often(2)
        killed += replicas_of(world, name) < 3
        if told_at is None and world.said("Drifted").reason == "DriftContested":
            told_at = world.seconds
    assert told_at - began <= 60
    assert killed == 1, "in an hour and a half"
    told = world.said("Drifted")
    assert told.reason == "DriftContested"
    assert (
        "spec.replicas (set by an autoscaler (kube-controller-manager): use spec.autoscaling, or"
        " point it at the YoloDetector)" in told.message
    )
    contested = [r for _, r, _ in world.nothing.told if r == "DriftContested"]
    assert len(contested) == 1
    writes = len(world.api.writes)
    for _ in range(20):
        world.seconds += 15
        world.look()
    assert len(world.api.writes) == writes, "left alone, and told before"
    del world.api.objects[theirs]
    for _ in range(8):
        world.seconds += 15
        world.look()
    assert replicas_of(world, name) == 2
    assert world.said("Drifted").status == "False"


@pytest.mark.parametrize("every_s", [1, 15, 50, 180, 600, 3600])
def test_a_fight_is_told_however_slow_it_is_and_pods_survive_most_of_it(world, every_s):
    world.settle()
    name, rounds, killed, told_after = world.stable, 60, 0, None
    ours = image_of(world, name)
    for turn in range(rounds):
        world.seconds += every_s
        if image_of(world, name) != "theirs:1":
            set_image(world, name, "theirs:1")
        world.look()
        world.look()
        killed += image_of(world, name) == ours
        if told_after is None and world.said("Drifted").reason == "DriftContested":
            told_after = turn + 1
    assert told_after <= (2 if every_s <= 60 else 3)
    assert killed <= 12
    assert "(set by kubectl-set)" in world.said("Drifted").message
    for _ in range(4):  # the other has given up
        world.seconds += 6 * 3601
        world.look()
        world.look()
    assert image_of(world, name) == ours
    assert world.said("Drifted").status == "False"


def test_a_fight_that_the_other_side_ends_is_over_and_nobody_looks_on_for_ever(world):
    world.settle()
    path = kinds.SERVICE.path("shop", "gate")
    theirs = {"spec": {"externalIPs": ["192.0.2.1"]}}
    world.edit(kinds.SERVICE, "gate", theirs)
    world.look()
    repaired = copy.deepcopy(world.api.objects[path])
    assert "externalIPs" not in repaired["spec"]
    world.seconds += 0.4
    world.edit(kinds.SERVICE, "gate", theirs)  # back within the moment of calm
    world.look()
    assert world.said("Drifted").reason == "DriftContested"
    world.seconds += 0.2
    world.api.put(path, repaired)
    world.look()
    world.seconds += 7200
    world.look()
    assert world.said("Drifted").status == "False"
    assert asyncio.run(reconcile(KEY, world.deps)) is None


def test_while_one_field_is_left_to_another_all_others_are_put_right(world):
    world.settle()
    name = world.stable
    world.api.put(kinds.HPA.path("shop", "ext"), autoscaler(name))
    for _ in range(6):
        world.seconds += 15
        scale(world, name, 3)
        world.look()
    ours = image_of(world, name)
    set_image(world, name, "evil:1")
    world.look()
    assert image_of(world, name) == ours
    assert replicas_of(world, name) == 3
    world.spec(replicas=4)
    world.look()
    assert replicas_of(world, name) == 4, "a wish of the user's is never held up"


def mirror(manifest):
    """A policy that rewrites images, as those that pin digests or name a mirror do."""
    if manifest["kind"] == "Deployment":
        for container in manifest["spec"]["template"]["spec"]["containers"]:
            if not container["image"].startswith("mirror/"):
                container["image"] = f"mirror/{container['image']}"
    return manifest


def test_only_the_very_value_that_a_webhook_made_of_ours_is_left(world):
    world.api.mutate = mirror
    world.settle()
    name = world.stable
    kept = image_of(world, name)
    assert kept == "mirror/s:cpu"
    told = [m for _, r, m in world.nothing.told if r == "NotKept" and "image" in m]
    assert len(told) == 1
    assert f"Deployment {name}: spec.template.spec.containers.yoloserve.image" in told[0]
    assert world.look() is None
    assert world.api.writes == []
    for image in ("mirror/evil:1", "mirror/nope:1"):
        set_image(world, name, image)
        world.seconds += 3
        world.look()
        assert image_of(world, name) == kept
        assert world.said("Drifted").reason in ("DriftRepaired", "DriftContested")
        assert "image (set by kubectl-set)" in world.said("Drifted").message
    world.api.mutate = lambda manifest: manifest  # the webhook is gone
    world.seconds += 7300
    set_image(world, name, "mirror/evil:2")
    world.look()
    assert image_of(world, name) == "s:cpu"
    assert len([m for _, r, m in world.nothing.told if r == "NotKept" and "image" in m]) == 1


def test_what_we_want_anew_is_written_where_a_webhook_rewrote_what_we_wanted(world):
    def upper(manifest):
        if manifest["kind"] == "VirtualService":
            manifest["spec"]["hosts"] = [host.upper() for host in manifest["spec"]["hosts"]]
        return manifest

    world.spec(traffic={"hosts": ["a.example.com"], "gateways": ["x/y"]})
    world.api.mutate = upper
    world.settle()
    world.spec(traffic={"hosts": ["b.example.com"], "gateways": ["x/y"]})
    world.look_often()
    assert world.of(kinds.VIRTUAL_SERVICE)[0]["spec"]["hosts"] == ["B.EXAMPLE.COM"]


def count(world, ready):
    """Let so many replicas of the stable revision be ready."""
    path = kinds.DEPLOYMENT.path("shop", world.stable)
    world.api.put(path, world.api.objects[path] | {"status": {"availableReplicas": ready}})


def test_replicas_are_counted_although_the_spec_is_invalid(world):
    """They stayed as last seen, and a detector without a pod was told as Ready."""
    world.settle().spec(inference={"deadline": "soon"})
    for ready, holds in ((2, "True"), (1, "True"), (0, "False"), (2, "True")):
        count(world, ready)
        world.look()
        status, told = world.status(), world.said("Ready")
        assert (status.ready, status.replicas, status.stable.ready) == (f"{ready}/2", ready, ready)
        assert [each.ready for each in status.revisions] == [ready]
        assert told.status == holds
        assert told.observed_generation == 2
        assert world.said("Progressing").reason == "InvalidSpec"
    assert "2 of 2 replicas are ready" in told.message


@pytest.mark.parametrize("recorded", [True, False])
def test_a_deployment_that_is_deleted_under_an_invalid_spec_is_told(world, recorded):
    world.settle().spec(inference={"deadline": "soon"})
    name = world.stable
    if not recorded:
        del world.api.objects[kinds.RECORD.path("shop", name)]
        world.cache.remove(kinds.RECORD, world.cache.named(kinds.RECORD, "shop", name).uid, 10**6)
    del world.api.objects[kinds.DEPLOYMENT.path("shop", name)]
    uid = world.cache.named(kinds.DEPLOYMENT, "shop", name).uid
    world.cache.remove(kinds.DEPLOYMENT, uid, 10**6)
    advice = "once the spec is valid" if recorded else "put the spec back"
    for _ in range(2):
        world.look()
        assert world.status().ready == "0/2"
        assert world.said("Ready").reason == "DeploymentDeleted"
        assert f"{name} was deleted" in world.said("Ready").message
        assert advice in world.said("Ready").message


@pytest.mark.parametrize("read", ["children", "rooms"])
def test_replicas_are_counted_although_a_read_fails(read):
    """It left before the status was told, which went on saying Ready."""
    gpu = {"limits": {"nvidia.com/gpu": 1}}
    world = World(resources=gpu) if read == "rooms" else World()
    rooms = {"down": False}

    async def ask_rooms(_detector, _children):
        if rooms["down"]:
            raise errors.Unavailable("etcd is away")
        some = {"nvidia.com/gpu": 9}
        return (NodeRoom("node", {}, (), some, some),), None

    world.nothing.found_by = ask_rooms
    world.settle()
    find = world.api.find

    async def failing(kind, namespace, name):
        raise errors.Unavailable("etcd is away")

    if read == "children":
        status = world.status()
        lost = Serving(name="gate-gone", role="Former")
        raw = world.api.objects[world.path]
        raw["status"] = status.model_copy(update={"revisions": [*status.revisions, lost]}).dump()
        world.api.put(world.path, raw)
        world.api.find = failing
    rooms["down"] = True
    count(world, 0)
    for times in range(1, 4):
        with pytest.raises(errors.Unavailable):
            world.look()
        assert (world.status().ready, world.said("Ready").status) == ("0/2", "False")
        lasting = times == 3  # a blip is no news
        assert (world.said("Progressing").reason == "ReadFailed") is lasting
    assert "etcd is away" in world.said("Progressing").message
    assert world.said("Stalled").status == "False"
    world.seconds += 61
    with pytest.raises(errors.Unavailable):
        world.look()
    assert world.said("Stalled").reason == "ReadFailed"
    world.api.find, rooms["down"] = find, False
    count(world, 2)
    world.look_often()
    assert world.status().ready == "2/2"
    assert world.said("Progressing").reason == "Settled"


def give_pull_secrets(world, *secrets, account="default"):
    path = kinds.SERVICE_ACCOUNT.path("shop", account)
    live = world.api.objects.get(path) or {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": account, "namespace": "shop"},
    }
    world.api.put(path, live | {"imagePullSecrets": [{"name": name} for name in secrets]})


def pull_secrets(world):
    [account] = [m for m in world.of(kinds.SERVICE_ACCOUNT) if m["metadata"]["name"] == "gate"]
    return [each["name"] for each in account.get("imagePullSecrets", ())]


def test_pods_pull_images_with_the_secrets_of_the_default_account(world):
    """They run as an account of their own, which had none: ImagePullBackOff with a new operator."""
    give_pull_secrets(world, "registry")
    world.settle()
    assert pull_secrets(world) == ["registry"]
    assert world.look() is None
    assert world.api.writes == []


def test_a_pull_secret_that_comes_later_is_there_for_the_pods_of_the_next_revision(world):
    world.settle()
    assert pull_secrets(world) == []
    give_pull_secrets(world, "registry")
    world.spec(model={"uri": "demo://shapes-v2"})
    world.look()
    assert pull_secrets(world) == ["registry"]
    kinds_written = [request.path.split("/")[-2] for request in world.api.writes]
    assert kinds_written.index("serviceaccounts") < kinds_written.index("deployments")


def test_a_pull_secret_is_looked_for_when_an_image_cannot_be_pulled(world):
    world.settle()
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "unauthorized"}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "gate-1-x",
            "namespace": "shop",
            "uid": "pod",
            "resourceVersion": "1",
            "labels": names.child_labels("gate") | {names.REVISION_LABEL: world.stable},
        },
        "spec": {},
        "status": {
            "containerStatuses": [{"name": "yoloserve", "image": "s:cpu", "state": waiting}]
        },
    }
    world.cache.put(kinds.POD, pod)
    give_pull_secrets(world, "registry")
    world.look()
    assert pull_secrets(world) == ["registry"]
    count(world, 0)
    world.look()
    assert "ServiceAccount default" in world.said("Progressing").message


def test_pull_secrets_that_others_take_from_the_account_are_put_back_and_told(world):
    give_pull_secrets(world, "registry")
    world.settle()
    world.edit(kinds.SERVICE_ACCOUNT, "gate", {"imagePullSecrets": None}, manager="kubectl-edit")
    world.look_often()
    assert pull_secrets(world) == ["registry"]
    assert "imagePullSecrets" in world.said("Drifted").message


def test_a_default_account_whose_secrets_change_is_read_again_in_time(world):
    give_pull_secrets(world, "old")
    world.settle()
    give_pull_secrets(world, "new")
    world.look_often()
    assert pull_secrets(world) == ["old"], "not at every look"
    world.seconds += ACCOUNT_S + 1
    world.look_often()
    assert pull_secrets(world) == ["old", "new"]


def test_pull_secrets_that_could_not_be_written_are_written_later(world):
    world.settle()
    give_pull_secrets(world, "registry")
    world.api.refuse = of_kind(kinds.SERVICE_ACCOUNT, error=errors.Unavailable("busy"))
    world.spec(model={"uri": "demo://shapes-v2"})
    world.look_often()
    world.api.refuse = lambda _request: None
    world.look_often()
    assert pull_secrets(world) == ["registry"]


def test_pull_secrets_that_a_cloud_gives_the_account_stay_beside_those_of_the_default_one(world):
    give_pull_secrets(world, "registry")
    world.settle()
    world.edit(
        kinds.SERVICE_ACCOUNT,
        "gate",
        {"imagePullSecrets": [{"name": "registry"}, {"name": "dockercfg"}]},
        manager="openshift",
    )
    world.look_often()
    assert pull_secrets(world) == ["registry", "dockercfg"]
    world.api.writes.clear()
    assert world.look() is None
    assert world.api.writes == []


def gone(world, kind, name):
    """Somebody deletes an object of ours, and the operator hears of it."""
    live = world.api.objects.pop(kind.path("shop", name), None)
    if live is None:
        return False
    world.api.version += 1
    world.cache.remove(kind, live["metadata"]["uid"], world.api.version)
    return True


def test_pods_are_never_left_open_for_long(world):
    """Who deletes the NetworkPolicy in a loop opens the pods for a second at a time at most."""
    world.settle()
    for _ in range(100):
        gone(world, kinds.NETWORK_POLICY, "gate")
        world.look()
        world.seconds += kinds.NETWORK_POLICY.gone_s
        world.look()
        assert "gate" in world.names(kinds.NETWORK_POLICY)


@pytest.mark.parametrize("kind", [kinds.SERVICE, kinds.DEPLOYMENT], ids=str)
def test_what_is_deleted_again_and_again_is_told_and_made_again_ever_more_seldom(world, kind):
    world.settle()
    name = sorted(world.names(kind))[0]
    made = 0
    for _ in range(300):
        made += gone(world, kind, name)
        world.look()
        world.seconds += 0.5
    assert 8 <= made <= 12
    told = world.said("Drifted")
    assert (told.status, told.reason) == ("True", "DriftContested")
    assert f"{kind} {name}: deleted again and again" in told.message
    assert "does not say" in told.message
    world.seconds += 60
    world.look()
    assert name in world.names(kind), "never left away for longer than a minute"
    world.seconds += 120
    world.look_often()
    assert world.said("Drifted").status == "False"


def test_one_deletion_or_one_now_and_then_is_made_good_at_once(world):
    world.settle()
    for _ in range(10):
        assert gone(world, kinds.SERVICE, "gate")
        world.look()
        assert "gate" in world.names(kinds.SERVICE)
        assert world.said("Drifted") is None
        world.seconds += 3 * 3600


def test_a_slow_hand_that_deletes_is_told_and_never_waited_for(world):
    world.settle()
    for _ in range(4):
        assert gone(world, kinds.NETWORK_POLICY, "gate")
        world.look()
        assert "gate" in world.names(kinds.NETWORK_POLICY)
        world.seconds += 600
        world.look()
    assert world.said("Drifted").reason == "DriftContested"


def test_a_route_does_not_lead_to_a_service_that_is_left_deleted(world):
    world.spec(canary={"weight": 50, "model": {"uri": "demo://other"}})
    world.settle()
    canary = world.status().canary.revision
    for _ in range(40):
        gone(world, kinds.SERVICE, canary)
        world.look()
        world.seconds += 0.2
    gone(world, kinds.SERVICE, canary)
    world.look()
    world.look()
    assert canary not in world.names(kinds.SERVICE)
    assert weights_of(world) == {world.stable: 100}


def test_what_nobody_wants_any_more_and_wants_again_is_no_contest(world):
    world.settle()
    for _ in range(6):
        for scaling in ({"minReplicas": 2, "maxReplicas": 3}, None):
            world.spec(autoscaling=scaling)
            world.look_often(2)
            assert bool(world.names(kinds.HPA)) is bool(scaling)
    assert world.said("Drifted") is None


def test_what_others_delete_and_make_again_themselves_is_over_with_that(world):
    world.settle()
    path = kinds.SERVICE.path("shop", "gate")
    theirs = copy.deepcopy(world.api.objects[path])
    for _ in range(20):
        gone(world, kinds.SERVICE, "gate")
        world.look()
        world.seconds += 0.2
    gone(world, kinds.SERVICE, "gate")
    world.look()
    assert "gate" not in world.names(kinds.SERVICE)
    del theirs["metadata"]["uid"]
    world.api.put(path, theirs)
    world.look()
    world.seconds += 300
    world.look_often()
    assert world.said("Drifted").status == "False"


def test_a_fault_of_the_operator_is_told_and_leaves_what_serves(world, monkeypatch):
    world.settle()
    stable, children = world.stable, set(world.api.objects)

    def fails(*_args, **_kwargs):
        raise KeyError("odd")

    monkeypatch.setattr("yolofleet.reconcile.think", fails)
    world.spec(model={"uri": "demo://shapes-v2"})
    with pytest.raises(KeyError):  # to the log and the back-off
        world.look()
    assert world.status().observed_generation == 2
    assert world.said("Progressing").reason == "OperatorFailed"
    assert "KeyError: 'odd'" in world.said("Progressing").message
    assert f"{stable} keeps serving" in world.said("Progressing").message
    assert world.said("Ready").status == world.said("Stalled").status == "True"
    assert world.said("Released").status == "False"
    assert ("Warning", "OperatorFailed") in {told[:2] for told in world.nothing.told}
    assert set(world.api.objects) == children
    monkeypatch.undo()
    world.settle()
    assert world.said("Stalled").status == "False"


def test_a_fault_in_counting_what_runs_is_told_as_well(world, monkeypatch):
    world.settle()

    def fails(*_args, **_kwargs):
        raise TypeError("odd")

    for name in ("think", "recounted"):
        monkeypatch.setattr(f"yolofleet.reconcile.{name}", fails)
    with pytest.raises(TypeError):
        world.look()
    assert world.said("Progressing").reason == "OperatorFailed"
    assert world.said("Stalled").status == "True"


class Odd(Exception):
    """What no code of ours ever raises."""


@pytest.fixture(params=["a fault of ours", "an invalid spec"])
def unfollowed(request, world, monkeypatch):
    """Give a detector a spec that nobody can follow; return how it is looked at from then on."""
    canary = {"model": {"uri": "demo://shapes-v2"}, "weight": 50}
    for _ in range(2):
        world.settle().spec(canary=canary)
    world.settle()
    world.settle()
    if request.param == "an invalid spec":
        world.spec(inference={"deadline": "soon"})
        return world.look

    def fails(detector, *args, **kwargs):
        if detector.spec.inference.confidence == 0.9:
            raise Odd
        return think(detector, *args, **kwargs)

    monkeypatch.setattr("yolofleet.reconcile.think", fails)
    world.spec(inference={"confidence": 0.9})

    def look():
        with pytest.raises(Odd):
            world.look()

    return look


def test_what_keeps_others_out_comes_back_although_the_spec_cannot_be_followed(world, unfollowed):
    unfollowed()
    [policy] = world.of(kinds.NETWORK_POLICY)
    del world.api.objects[kinds.NETWORK_POLICY.path("shop", policy["metadata"]["name"])]
    world.cache.remove(kinds.NETWORK_POLICY, policy["metadata"]["uid"], 10**6)
    unfollowed()
    assert world.names(kinds.NETWORK_POLICY) == {"gate"}


@pytest.mark.parametrize("error", [errors.Invalid("no"), errors.Unavailable("not now")], ids=repr)
def test_what_cannot_be_kept_safe_is_tried_again(world, error):
    """Nobody looked again, nor was it counted: the pods were open to all until something moved."""
    world.settle().spec(inference={"deadline": "soon"})
    assert world.look() is None
    [policy] = world.of(kinds.NETWORK_POLICY)
    del world.api.objects[kinds.NETWORK_POLICY.path("shop", policy["metadata"]["name"])]
    world.cache.remove(kinds.NETWORK_POLICY, policy["metadata"]["uid"], 10**6)
    world.api.refuse = of_kind(kinds.NETWORK_POLICY, error=error)
    assert world.look() is error
    assert world.said("Progressing").reason == "InvalidSpec"


def test_a_route_leaves_dead_pods_although_the_spec_cannot_be_followed(world, unfollowed):
    def weights():
        [route] = world.of(kinds.VIRTUAL_SERVICE)
        [rule] = route["spec"]["http"]
        return sorted(each["weight"] for each in rule["route"])

    assert weights() == [50, 50]
    canary = world.status().canary.revision
    path = kinds.DEPLOYMENT.path("shop", canary)
    world.api.put(path, world.api.objects[path] | {"status": {"availableReplicas": 0}})
    unfollowed()
    assert weights() == [0, 100]
    assert world.said("Progressing").reason in ("InvalidSpec", "OperatorFailed")
    assert len(world.of(kinds.DEPLOYMENT)) == 2


def test_nothing_is_kept_safe_for_who_asks_to_be_left_alone(world, unfollowed):
    world.spec(suspend=True)
    [policy] = world.of(kinds.NETWORK_POLICY)
    del world.api.objects[kinds.NETWORK_POLICY.path("shop", policy["metadata"]["name"])]
    world.cache.remove(kinds.NETWORK_POLICY, policy["metadata"]["uid"], 10**6)
    unfollowed()
    assert world.of(kinds.NETWORK_POLICY) == []
