"""Writes against a real API server: only what differs, only what is ours, and nobody loses pods."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from controlplane.kube import Kube
from played_pods import Played
from yolofleet.api import names
from yolofleet.api.analysis import Analysis
from yolofleet.api.detector import DriftPolicy
from yolofleet.api.names import Manifest
from yolofleet.api.status import Status
from yolofleet.cluster import kinds
from yolofleet.cluster.apply import Writer
from yolofleet.cluster.cache import Cache, entry_of
from yolofleet.runtime.changes import Action, Applied, Change
from yolofleet.runtime.client import Client
from yolofleet.runtime.drift import Drift, Handling
from yolofleet.runtime.errors import Conflict, Invalid, NotFound, ResourceConflict, Stale
from yolofleet.runtime.kind import EVENT, Kind

Eventually = Callable[..., Any]


class World:
    """A detector in a cluster, and what an operator without watches would do for it."""

    def __init__(self, client: Client, kube: Kube, detector: Manifest) -> None:
        self.client, self.kube, self.detector = client, kube, detector
        self.cache = Cache()
        self.repaired: list[tuple[str, str]] = []
        self.policy = DriftPolicy.ENFORCE
        self.drifts: list[Drift] = []
        self.written: list[Change] = []
        self.now = 0.0
        self.writer = self.new_writer()

    def new_writer(self) -> Writer:
        """Return a writer that remembers nothing, as after a restart."""
        return Writer(
            self.client,
            self.cache,
            repaired=lambda kind, field: self.repaired.append((kind, field)),
            clock=lambda: self.now,
        )

    @property
    def namespace(self) -> str:
        return str(self.detector["metadata"]["namespace"])

    @property
    def uid(self) -> str:
        return str(self.detector["metadata"]["uid"])

    def child(self, api_version: str, kind: str, spec: Manifest, name: str = "gate") -> Manifest:
        reference = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "name": self.detector["metadata"]["name"],
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }
        return {
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "labels": names.child_labels("gate"),
                "ownerReferences": [reference],
            },
            "spec": spec,
        }

    def deployment(self, name: str = "gate", replicas: int | None = 2, **pod: Any) -> Manifest:
        labels = names.selector_labels("gate", name)
        container = {
            "name": "server",
            "image": "yoloserve:cpu",
            "args": ["serve"],
            "env": [{"name": "MODE", "value": "fast"}],
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}},
        }
        spec = {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels | names.child_labels("gate")},
                "spec": {"containers": [container], **pod},
            },
        }
        manifest = self.child("apps/v1", "Deployment", spec, name)
        if replicas is not None:
            spec["replicas"] = replicas
        return manifest

    def service(self, name: str = "gate", port: int = 80) -> Manifest:
        ports = [{"name": "http", "port": port, "targetPort": "http", "protocol": "TCP"}]
        return self.child("v1", "Service", {"selector": {"app": "gate"}, "ports": ports}, name)

    def hpa(self, least: int, most: int) -> Manifest:
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "gate"}
        metric = {"type": "Resource"}
        metric["resource"] = {  # type: ignore[assignment]
            "name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 70},
        }
        spec = {
            "scaleTargetRef": target,
            "minReplicas": least,
            "maxReplicas": most,
            "metrics": [metric],
        }
        return self.child("autoscaling/v2", "HorizontalPodAutoscaler", spec)

    async def apply(self, *desired: Manifest) -> list[Change]:
        """Look at the cluster anew and apply; return what was written."""
        self.written = []

        async def look_and_write() -> None:
            await self.look()
            applied = await self.write(desired, self.cache.children(self.uid))
            self.drifts = applied.drifts

        await until_nobody_is_faster(look_and_write)
        return self.written

    async def write(self, desired: Sequence[Manifest], over: Sequence[Manifest]) -> Applied:
        """Apply once; raise what a write failed of."""
        applied = await self.writer.apply(desired, over, enforce=self.policy is DriftPolicy.ENFORCE)
        self.written += applied.changes
        for failed in applied.failed:
            raise failed.error
        said = self.detector.get("status", {})
        await self.writer.publish_status(self.detector, said)  # else repairs are told until it is
        return applied

    async def look(self) -> None:
        looked_at = (kind for kind in kinds.CACHED if kind.namespaced and not kind.optional)
        await asyncio.gather(*map(self._list, looked_at))

    async def _list(self, kind: Kind) -> None:
        listing = await self.client.list(
            kind,
            lambda item: entry_of(kind, item),
            namespace=self.namespace,
            selector=kinds.selector_of(kind),
        )
        self.cache.replace_all(kind, listing.items, listing.version)

    async def live(self, kind: Kind = kinds.DEPLOYMENT, name: str = "gate") -> Manifest:
        return await self.kube.get(kind, self.namespace, name)

    async def version(self, kind: Kind = kinds.DEPLOYMENT) -> str:
        return str((await self.live(kind))["metadata"]["resourceVersion"])

    async def edit(self, patch: Manifest, manager: str = "kubectl-edit") -> None:
        """Change the Deployment as a person does."""
        person = self.kube.acting_as(manager)
        await person.merge(kinds.DEPLOYMENT, self.namespace, "gate", patch)


async def until_nobody_is_faster(write: Callable[[], Awaitable[None]]) -> None:
    """Do `write` as the queue has it done: again where others wrote in between.

    Controllers of the cluster do, whenever a Deployment changes.
    """
    for _ in range(20):
        try:
            return await write()
        except (Conflict, NotFound):
            await asyncio.sleep(0.05)
    raise AssertionError("others were faster twenty times")


@pytest.fixture
async def world(client: Client, kube: Kube, make_detector: Callable[..., Any]) -> World:
    return World(client, kube, await make_detector())


def actions(changes: list[Change]) -> list[Action]:
    return [change.action for change in changes]


def container_of(deployment: Manifest) -> Manifest:
    container: Manifest = deployment["spec"]["template"]["spec"]["containers"][0]
    return container


async def test_children_are_created_in_order_and_then_left_alone(world: World) -> None:
    desired = [world.deployment(), world.service()]
    assert [(c.action, c.kind) for c in await world.apply(*desired)] == [
        (Action.CREATED, "Deployment"),
        (Action.CREATED, "Service"),
    ]
    assert await world.apply(*desired) == []


async def test_a_new_operator_writes_nothing_where_all_is_well(world: World) -> None:
    desired = [world.deployment(), world.service(), world.hpa(1, 3)]
    await world.apply(*desired)
    before = await world.version(kinds.SERVICE)
    world.cache, world.repaired = Cache(), []
    world.writer = world.new_writer()
    assert await world.apply(*desired) == []
    assert await world.version(kinds.SERVICE) == before


async def test_a_change_of_the_desired_object_is_no_drift(world: World) -> None:
    await world.apply(world.service())
    (change,) = await world.apply(world.service(port=81))
    assert change.action is Action.APPLIED
    assert any("ports" in field for field in change.fields), change
    live = await world.live(kinds.SERVICE)
    assert [port["port"] for port in live["spec"]["ports"]] == [81]


async def test_what_is_no_longer_desired_is_removed(world: World) -> None:
    await world.apply(world.deployment(nodeSelector={"gpu": "yes"}))
    (change,) = await world.apply(world.deployment())
    assert change.fields == ("spec.template.spec.nodeSelector (dropped)",)
    assert "nodeSelector" not in (await world.live())["spec"]["template"]["spec"]


IMAGE = {"spec": {"template": {"spec": {"containers": [{"name": "server", "image": "evil:1"}]}}}}


@pytest.mark.parametrize(
    "drift",
    [
        {"spec": {"replicas": 5}},
        {"spec": {"template": {"spec": {"hostNetwork": True}}}},
        {"spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}},
        {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}},
        {"spec": {"template": {"metadata": {"annotations": {"restarted": "now"}}}}},
        {"spec": {"paused": True}},
        {"spec": {"strategy": {"type": "Recreate", "rollingUpdate": None}}},
        {"metadata": {"labels": {"yolofleet.io/detector": "other"}}},
        {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}},
        IMAGE,
    ],
    ids=lambda drift: str(drift)[:60],
)
async def test_drift_is_repaired_once(world: World, drift: Manifest) -> None:
    desired = world.deployment()
    await world.apply(desired)
    before = await world.live()
    await world.edit(drift)
    assert await world.apply(desired), "the drift was not seen"
    after = await world.live()
    assert after["spec"] == before["spec"]
    assert after["metadata"]["labels"] == before["metadata"]["labels"]
    assert await world.apply(desired) == []


@pytest.mark.parametrize("strategic", ["sidecar", "env", "port", "volume"])
async def test_what_others_add_to_lists_is_removed(world: World, strategic: str) -> None:
    desired = world.deployment()
    await world.apply(desired)
    before = await world.live()
    live = await world.live()
    container = container_of(live)
    if strategic == "sidecar":
        live["spec"]["template"]["spec"]["containers"].insert(0, {"name": "spy", "image": "spy:1"})
    elif strategic == "env":
        container["env"] = [{"name": "A", "value": "1"}, *container["env"], {"name": "Z"}]
    elif strategic == "port":
        container["ports"].append({"containerPort": 9999, "protocol": "UDP"})
    else:
        live["spec"]["template"]["spec"]["volumes"] = [{"name": "scratch", "emptyDir": {}}]
    del live["metadata"]["managedFields"]
    await world.edit({"spec": live["spec"]})
    changes = await world.apply(desired)
    assert Action.REVERTED in actions(changes)
    assert (await world.live())["spec"] == before["spec"]
    assert world.repaired
    assert await world.apply(desired) == []


async def test_a_field_that_others_applied_is_taken_back(world: World) -> None:
    desired = world.deployment()
    await world.apply(desired)
    rival = world.deployment(serviceAccountName="robot")
    rival["spec"]["replicas"] = 7
    await world.kube.acting_as("rival").apply(rival)
    changes = await world.apply(desired)
    assert Action.REVERTED in actions(changes)
    spec = (await world.live())["spec"]
    assert spec["replicas"] == 2
    assert "serviceAccountName" not in spec["template"]["spec"]
    assert await world.apply(desired) == []


async def test_what_the_server_defaults_again_is_not_fought_over(world: World) -> None:
    """Another manager owns a default value: removing it brings it back, and it stays theirs."""
    desired = world.deployment()
    await world.apply(desired)
    rival = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "gate", "namespace": world.namespace},
        "spec": {"template": {"spec": {"terminationGracePeriodSeconds": 30}}},
    }
    await world.kube.acting_as("rival").apply(rival)
    await world.apply(desired)
    assert await world.apply(desired) == []
    before = await world.version()
    await world.edit({"metadata": {"annotations": {"note": "wakes the operator"}}})
    assert await world.apply(desired) == []
    assert before != await world.version()  # by the note only


DRIFTS: dict[str, tuple[Manifest, str]] = {
    "changed": (IMAGE, "spec.template.spec.containers (set by kubectl-edit)"),
    "added": (
        {"spec": {"template": {"spec": {"hostNetwork": True}}}},
        "spec.template.spec.hostNetwork (added by kubectl-edit)",
    ),
    "removed": (
        {"metadata": {"labels": {"app.kubernetes.io/name": None}}},
        "metadata.labels.app.kubernetes.io/name (removed)",
    ),
}


@pytest.mark.parametrize(("drift", "told"), DRIFTS.values(), ids=DRIFTS.keys())
async def test_the_field_and_who_changed_it_are_told_in_both_policies(
    world: World, drift: Manifest, told: str
) -> None:
    desired = world.deployment()
    await world.apply(desired)
    await world.edit(drift)
    world.policy = DriftPolicy.REPORT
    assert await world.apply(desired) == []
    (left,) = world.drifts
    assert (left.kind, left.name, left.handling) == ("Deployment", "gate", Handling.LEFT)
    assert told.split(" ")[0] in str(left)
    assert told.split("(")[1] in str(left)
    assert world.repaired == []

    world.policy = DriftPolicy.ENFORCE
    assert await world.apply(desired)
    (repaired,) = world.drifts
    assert (repaired.fields, repaired.handling) == (left.fields, Handling.REPAIRED)
    assert {field for _, field in world.repaired} == {
        ".".join(field.split(" ")[0].split(".")[:2]) for field in left.fields
    }
    world.now += 10
    assert await world.apply(desired) == []
    assert world.drifts == []


async def test_drift_that_is_left_is_told_until_it_is_gone_and_costs_no_write(
    world: World,
) -> None:
    world.policy = DriftPolicy.REPORT
    desired = world.deployment()
    await world.apply(desired)
    await world.edit({"spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}})
    before = (await world.live())["metadata"]["generation"]
    for _ in range(2):
        assert await world.apply(desired) == []
        assert len(world.drifts) == 1
        world.writer = world.new_writer()
    assert (await world.live())["metadata"]["generation"] == before
    await world.edit({"spec": {"template": {"spec": {"nodeSelector": None}}}})
    await world.apply(desired)
    assert world.drifts == []


async def test_what_the_operator_changes_itself_arrives_under_report(world: World) -> None:
    """A foreign image stays; the replicas, which are wanted otherwise now, follow, though taken."""
    world.policy = DriftPolicy.REPORT
    await world.apply(world.deployment())
    await world.edit(IMAGE)
    await world.edit({"spec": {"replicas": 9}})
    assert await world.apply(world.deployment()) == []
    assert any("spec.replicas (set by kubectl-edit)" in str(drift) for drift in world.drifts)

    world.writer = world.new_writer()  # what was wanted before is on the object
    assert await world.apply(world.deployment(replicas=4))
    live = await world.live()
    assert live["spec"]["replicas"] == 4
    assert container_of(live)["image"] == "evil:1"
    assert await world.apply(world.deployment(replicas=4)) == []

    moved = world.deployment(replicas=4, nodeSelector={"disk": "ssd"})
    await world.apply(moved)  # the template is wanted otherwise: it is written as a whole
    live = await world.live()
    assert live["spec"]["template"]["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert container_of(live)["image"] == "yoloserve:cpu"


async def test_a_new_wish_is_no_drift(world: World) -> None:
    await world.apply(world.deployment())
    wished = world.deployment(replicas=3, nodeSelector={"disk": "ssd"})
    wished["metadata"]["labels"]["extra"] = "1"
    world.policy = DriftPolicy.REPORT
    assert await world.apply(wished)
    assert (world.drifts, world.repaired) == ([], [])


async def test_objects_restored_from_a_backup_are_taken_over(world: World) -> None:
    """A restore writes everything as another manager, but nothing is otherwise than wanted."""
    desired = world.deployment()
    await world.apply(desired)
    backup = await world.live()
    for field in ("managedFields", "resourceVersion", "uid"):
        del backup["metadata"][field]
    await world.kube.delete(kinds.DEPLOYMENT, world.namespace, "gate")
    await world.kube.acting_as("velero").create(backup)
    await world.apply(desired)
    assert not any("set by" in field for drift in world.drifts for field in drift.fields)
    assert await world.apply(desired) == []
    assert (await world.live())["spec"] == backup["spec"]


@pytest.mark.parametrize("note", ["", "[]", '"', '{"spec.replicas": []}'])
async def test_garbage_in_the_note_of_the_wish_is_survived(world: World, note: str) -> None:
    desired = world.deployment()
    await world.apply(desired)
    await world.edit({"metadata": {"annotations": {names.LAST_APPLIED_ANNOTATION: note}}})
    await world.apply(desired)
    assert await world.apply(desired) == []
    assert world.repaired == []


async def test_two_writers_who_fight_write_once_a_second(world: World) -> None:
    desired = world.deployment()
    desired["spec"]["minReadySeconds"] = 1  # which makes no pods, as replicas would
    await world.apply(desired)
    writes, handled = 0, []
    for tenth in range(30):
        await world.edit({"spec": {"minReadySeconds": 5 + tenth}})
        writes += len(await world.apply(desired))
        handled += [drift.handling for drift in world.drifts]
        world.now += 0.1
    assert writes == 3
    assert handled == [Handling.REPAIRED] + [Handling.CONTESTED] * 29
    assert len(world.repaired) == 3

    world.now += 10  # the other one has given up
    await world.apply(desired)
    world.now += 1.1
    await world.apply(desired)
    assert [drift.handling for drift in world.drifts] == [Handling.REPAIRED]
    await world.apply(desired)
    assert world.drifts == []


async def test_a_fight_is_one_also_while_the_other_sets_what_we_want(world: World) -> None:
    desired = world.deployment()
    ours, writes = desired["spec"]["replicas"], 0
    await world.apply(desired)
    for tenth in range(30):
        await world.edit({"spec": {"replicas": ours + tenth % 2}})
        writes += len(await world.apply(desired))
        world.now += 0.1
    assert writes <= 4
    world.now += 10
    await world.apply(desired)
    assert (await world.live())["spec"]["replicas"] == ours


async def test_a_fight_does_not_hold_up_what_the_operator_wants_itself(world: World) -> None:
    await world.apply(world.deployment())
    for replicas in (5, 6):
        await world.edit({"spec": {"replicas": replicas}})
        await world.apply(world.deployment())
    assert [drift.handling for drift in world.drifts] == [Handling.CONTESTED]
    assert await world.apply(world.deployment(replicas=1))
    assert (await world.live())["spec"]["replicas"] == 1


async def test_labels_and_annotations_of_others_are_theirs(world: World) -> None:
    await world.apply(world.deployment())
    await world.edit({"metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}}})
    assert await world.apply(world.deployment()) == []


async def test_garbage_in_managed_fields_is_survived(world: World) -> None:
    desired = world.deployment()
    await world.apply(desired)
    await world.edit({"metadata": {"managedFields": [{}]}})
    await world.apply(desired)
    assert await world.apply(desired) == []
    assert (await world.live())["spec"]["replicas"] == 2


@pytest.mark.parametrize(
    "pod", [{"nodeSelectors": {"a": "b"}}, {"nodeSelector": {"a": True}}, {"volumes": [{}]}]
)
async def test_a_pod_that_no_deployment_can_have_is_refused_and_not_tried_again(
    world: World, pod: Manifest
) -> None:
    with pytest.raises(Invalid):
        await world.apply(world.deployment(**pod))


async def test_an_object_of_somebody_else_is_never_touched(world: World) -> None:
    foreign = world.service()
    del foreign["metadata"]["ownerReferences"], foreign["metadata"]["labels"]
    foreign["spec"]["ports"][0]["port"] = 5432
    await world.kube.create(foreign)
    before = await world.live(kinds.SERVICE)
    with pytest.raises(ResourceConflict, match="Service gate already exists in namespace"):
        await world.apply(world.service(), world.deployment())
    assert await world.live(kinds.SERVICE) == before
    assert await world.kube.find(kinds.DEPLOYMENT, world.namespace, "gate"), "nobody waits for it"


@pytest.mark.parametrize("restored", ["orphaned", "with its former owner", "by another tool"])
async def test_a_child_without_an_owner_is_adopted_as_it_serves(
    world: World, restored: str
) -> None:
    """`--cascade=orphan`, or a backup. Garbage collection may be faster where an owner is named;
    where it is not, an apply would add a second controller, and the API server takes none.
    """
    child = world.service()
    child["metadata"]["ownerReferences"][0]["uid"] = str(uuid.uuid4())
    if restored == "orphaned":
        del child["metadata"]["ownerReferences"]
    kube = world.kube if restored == "by another tool" else world.kube.acting_as(names.MANAGER)
    before = await kube.create(child)
    await world.apply(world.service())
    live = await world.live(kinds.SERVICE)
    assert [owner["uid"] for owner in live["metadata"]["ownerReferences"]] == [world.uid]
    if restored == "by another tool":
        entries = live["metadata"]["managedFields"]
        ours = [entry["operation"] for entry in entries if entry["manager"] == names.MANAGER]
        assert ours == ["Apply"], "no second manager of ours stays"
    if restored == "orphaned":
        assert live["metadata"]["uid"] == before["metadata"]["uid"]
    assert await world.apply(world.service()) == []


async def test_a_child_whose_deletion_was_not_heard_of_is_made_anew(world: World) -> None:
    await world.apply(world.service())
    await world.kube.delete(kinds.SERVICE, world.namespace, "gate")
    wanted = [world.service(port=81)]
    with pytest.raises(Stale):
        await world.write(wanted, over=world.cache.children(world.uid))
    again = await world.writer.apply(wanted, over=world.cache.children(world.uid))
    assert actions(again.changes) == [Action.CREATED]


async def test_a_child_that_changed_unheard_is_looked_at_again(world: World) -> None:
    await world.apply(world.deployment())
    stale = world.cache.named(kinds.DEPLOYMENT, world.namespace, "gate")
    await world.kube.merge(
        kinds.DEPLOYMENT, world.namespace, "gate", {"metadata": {"labels": {"a": "b"}}}
    )
    await world.writer._look_at(stale)
    known = world.cache.named(kinds.DEPLOYMENT, world.namespace, "gate")
    assert known.uid == stale.uid
    assert known.manifest()["metadata"]["labels"]["a"] == "b"


async def test_an_object_made_anew_meanwhile_is_not_overwritten(world: World) -> None:
    """The cache knows the old object; the new one of that name is somebody else's."""
    await world.apply(world.service())
    await world.kube.delete(kinds.SERVICE, world.namespace, "gate")
    foreign = world.service()
    del foreign["metadata"]["ownerReferences"]
    await world.kube.create(foreign)
    with pytest.raises(Conflict):
        await world.write([world.service(port=81)], over=world.cache.children(world.uid))
    assert (await world.live(kinds.SERVICE))["spec"]["ports"][0]["port"] == 80


async def test_replicas_are_handed_to_the_autoscaler_and_back_without_losing_a_pod(
    world: World, eventually: Eventually
) -> None:
    seen: set[int] = set()

    async def replicas() -> int:
        count = int((await world.live())["spec"]["replicas"])
        seen.add(count)
        return count

    await world.apply(world.deployment(replicas=5))
    changes = await world.apply(world.deployment(replicas=None), world.hpa(3, 10))
    assert Action.HANDED_OVER in actions(changes)
    assert await replicas() == 5
    assert names.MANAGER not in _managers_of_replicas(await world.live())

    await world.apply(world.deployment(replicas=None), world.hpa(7, 10))  # the HPA raises it
    await eventually(lambda: _is(replicas(), 7))
    assert await world.apply(world.deployment(replicas=None), world.hpa(7, 10)) == []

    await world.kube.delete(kinds.HPA, world.namespace, "gate")
    (change,) = await world.apply(world.deployment(replicas=7))  # the plan starts from what is
    assert change.fields == ("spec.replicas (unowned)",)
    assert await replicas() == 7
    assert names.MANAGER in _managers_of_replicas(await world.live())
    # Within its bounds: an autoscaler may act once more after it is deleted.
    await world.apply(world.deployment(replicas=8))
    assert await replicas() == 8
    assert seen == {5, 7, 8}


def _managers_of_replicas(deployment: Manifest) -> set[str]:
    return {
        entry["manager"]
        for entry in deployment["metadata"]["managedFields"]
        if "f:replicas" in entry["fieldsV1"].get("f:spec", {})
        and entry.get("subresource") != "status"
    }


async def _is(value: Any, expected: Any) -> bool:
    return bool(await value == expected)


async def test_handing_over_gives_way_to_an_autoscaler_that_was_faster(world: World) -> None:
    await world.apply(world.deployment(replicas=2))
    await world.look()
    children = world.cache.children(world.uid)
    scale = {"spec": {"replicas": 6}}
    scaler = world.kube.acting_as("kube-controller-manager")
    await scaler.merge(kinds.DEPLOYMENT, world.namespace, "gate", scale, "scale")
    applied = await world.writer.apply([world.deployment(replicas=None)], over=children)
    assert Action.HANDED_OVER not in actions(applied.changes)
    assert (await world.live())["spec"]["replicas"] == 6


async def test_pruning_deletes_what_is_not_kept_and_nothing_else(
    world: World, make_detector: Callable[..., Any]
) -> None:
    other = World(world.client, world.kube, await make_detector("door"))
    await other.apply(other.service("door"))
    await world.apply(world.deployment(), world.service(), world.service("old"))
    await world.look()
    keep = {("Deployment", "gate"), ("Service", "gate")}
    changes = (await world.writer.prune(world.uid, keep)).changes
    assert [(c.action, c.name) for c in changes] == [(Action.DELETED, "old")]
    left = await world.kube.list(kinds.SERVICE, world.namespace)
    assert sorted(item["metadata"]["name"] for item in left) == ["door", "gate"]
    assert (await world.writer.prune(world.uid, keep)).changes == []


async def test_pruning_looks_at_the_cluster_not_at_the_cache(world: World) -> None:
    """What the cache still has under our uid was made anew by somebody else."""
    await world.apply(world.service("old"))
    await world.kube.delete(kinds.SERVICE, world.namespace, "old")
    foreign = world.service("old")
    del foreign["metadata"]["ownerReferences"]
    await world.kube.create(foreign)
    assert (await world.writer.prune(world.uid, set())).changes == []
    assert await world.kube.find(kinds.SERVICE, world.namespace, "old")


async def test_pruning_forgets_what_is_gone_and_lists_no_more(world: World) -> None:
    """Its deletion was not heard of: without this each look would list again."""
    await world.apply(world.service("old"))
    await world.kube.delete(kinds.SERVICE, world.namespace, "old")
    assert (await world.writer.prune(world.uid, set())).changes == []
    assert world.cache.owned_by(world.uid) == []


async def test_a_child_is_known_again_once_its_label_is_back(world: World) -> None:
    """Without the label by which it is watched, it is gone as far as the watch can tell."""
    await world.apply(world.deployment())
    label = {"metadata": {"labels": {names.MANAGED_BY_LABEL: "somebody"}}}
    await world.edit(label)
    await world.look()
    assert world.cache.owned_by(world.uid) == []

    async def look_itself_and_write() -> None:
        seen = await world.writer.children(world.uid, f"{world.namespace}/gate", ["gate", "none"])
        assert [child["metadata"]["name"] for child in seen] == ["gate"], "it serves as before"
        await world.write([world.deployment()], over=seen)

    await until_nobody_is_faster(look_itself_and_write)
    assert (await world.live())["metadata"]["labels"][names.MANAGED_BY_LABEL] == names.MANAGED_BY
    assert [entry.name for entry in world.cache.owned_by(world.uid)] == ["gate"]


async def test_a_child_that_is_going_is_left_to_go(world: World) -> None:
    desired = world.service()
    await world.apply(desired)
    finalizers = {"metadata": {"finalizers": ["example.com/slow"]}}
    await world.kube.merge(kinds.SERVICE, world.namespace, "gate", finalizers)
    await world.kube.delete(kinds.SERVICE, world.namespace, "gate")
    assert await world.apply(world.service(port=81)) == []
    await world.kube.merge(
        kinds.SERVICE, world.namespace, "gate", {"metadata": {"finalizers": None}}
    )
    assert actions(await world.apply(desired)) == [Action.CREATED]


STATUS = Status().dump() | {"observedGeneration": 1}


async def test_status_is_published_when_it_says_something_new(world: World) -> None:
    (change,) = await world.writer.publish_status(world.detector, STATUS)
    assert change.action is Action.STATUS
    raw = world.cache.detector(f"{world.namespace}/gate")
    assert raw is not None
    assert raw["status"] == STATUS
    assert await world.writer.publish_status(raw, STATUS) == []
    assert await world.writer.publish_status(raw, STATUS | {"replicas": 2}) != []


async def test_all_that_judging_says_is_in_the_schema(world: World) -> None:
    played = Played(Analysis(min_kept=0.95))
    for _ in range(40):
        for name in ("circle", "square"):
            played.stable[0].pair(name, 50, 20, added=3)
        played.stable[0].confused = {"circle": {"square": 30 * played.now.minute + 1}}
        played.stable[0].frame(50, blind=2)
        for arm in played.stable[0].compute.values():
            arm[20] += 50
        played.look()
    assert played.status
    assert played.status.failed
    said = Status(analysis=played.status).dump() | {"observedGeneration": 1}
    await world.writer.publish_status(world.detector, said)
    assert (await world.live(kinds.DETECTOR))["status"] == said


async def test_status_of_an_old_detector_is_refused(world: World) -> None:
    await world.kube.merge(kinds.DETECTOR, world.namespace, "gate", {"spec": {"replicas": 3}})
    with pytest.raises(Conflict):
        await world.writer.publish_status(world.detector, STATUS)


async def test_what_others_wrote_into_status_is_replaced(world: World) -> None:
    garbage = {"status": {"url": "http://evil.example.com", "observedGeneration": 99}}
    raw = await world.kube.merge(kinds.DETECTOR, world.namespace, "gate", garbage, "status")
    await world.writer.publish_status(raw, STATUS)
    assert (await world.live(kinds.DETECTOR))["status"] == STATUS


async def test_events_can_be_seen_in_describe(
    world: World, client: Client, eventually: Eventually
) -> None:
    from yolofleet.runtime.events import Events

    events = Events(client, instance="test", manager="ours")
    posting = asyncio.create_task(events.run())
    for _ in range(3):
        await events.emit(world.detector, "Warning", "ModelNotFound", "there is no such model")

    async def seen() -> list[Manifest]:
        return await world.kube.list(EVENT, world.namespace)

    (event,) = await eventually(seen)
    posting.cancel()
    assert event["involvedObject"]["uid"] == world.uid
    assert (event["type"], event["reason"]) == ("Warning", "ModelNotFound")
    assert event["message"] == "there is no such model"
