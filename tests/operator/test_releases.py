"""A release on a real API server: what the operator writes, and what it leaves alone."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from controlplane.installation import ISTIO_CRDS
from controlplane.kube import Kube
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime.kind import EVENT

V2 = {"uri": "demo://shapes-v2"}
REPLICAS = {"replicas": 2}
HOSTS = {"hosts": ["gate.example.com"], "gateways": ["istio-system/public"]}


class User:
    """Edits one detector and reads what becomes of it."""

    def __init__(self, kube: Kube, namespace: str, eventually: Callable[..., Any]) -> None:
        self.kube = kube
        self.namespace = namespace
        self.eventually = eventually

    async def edit(self, **spec: Any) -> None:
        await self.kube.merge(kinds.DETECTOR, self.namespace, "gate", {"spec": spec})

    async def detector(self) -> Manifest:
        return await self.kube.get(kinds.DETECTOR, self.namespace, "gate")

    async def status(self) -> Manifest:
        raw = await self.detector()
        assert raw["status"]["observedGeneration"] == raw["metadata"]["generation"]
        status: Manifest = raw["status"]
        return status

    async def condition(self, kind: str) -> Manifest:
        return {c["type"]: c for c in (await self.status())["conditions"]}[kind]

    async def settled(self) -> Manifest:
        """Wait until the spec's own revision is stable and ready; return the status."""

        async def is_settled() -> Manifest:
            progressing = await self.condition("Progressing")
            assert progressing["reason"] in ("Settled", "Draining"), progressing
            return await self.status()

        return await self.eventually(is_settled)

    async def says(self, kind: str, reason: str) -> Manifest:
        """Wait until the condition `kind` gives `reason`; return it."""

        async def said() -> Manifest:
            condition = await self.condition(kind)
            assert condition["reason"] == reason, condition
            return condition

        return await self.eventually(said)

    async def weights(self) -> dict[str, int]:
        route = await self.kube.get(kinds.VIRTUAL_SERVICE, self.namespace, "gate")
        weighted = route["spec"]["http"][-1]["route"]
        return {r["destination"]["host"].split(".")[0]: r["weight"] for r in weighted}

    async def routes(self, expected: dict[str, int]) -> None:
        async def routed() -> bool:
            weights = {name: w for name, w in (await self.weights()).items() if w}
            assert weights == expected, weights
            return True

        await self.eventually(routed)

    async def children(self) -> dict[tuple[str, str], Manifest]:
        found: list[Manifest] = []
        for kind in kinds.CHILDREN:
            if await self.kube.client.serves(kind):
                found += [
                    {**child, "kind": kind.name}
                    for child in await self.kube.list(kind, self.namespace)
                ]
        return {(child["kind"], child["metadata"]["name"]): child for child in found}

    async def pods(self) -> dict[str, str]:
        """Return the pods by uid, with their revision."""
        return {
            pod["metadata"]["uid"]: pod["metadata"]["labels"]["yolofleet.io/revision"]
            for pod in await self.kube.list(kinds.POD, self.namespace)
            if "deletionTimestamp" not in pod["metadata"]
        }

    async def events(self) -> list[tuple[str, str, str]]:
        return [
            (event["type"], event["reason"], event["message"])
            for event in await self.kube.list(EVENT, self.namespace)
            if event["involvedObject"]["kind"] == "YoloDetector"
        ]


@pytest.fixture
def user(kube: Kube, namespace: str, eventually: Callable[..., Any]) -> User:
    return User(kube, namespace, eventually)


@pytest.fixture
async def released(
    istio: None, operator: Any, fake_kubelet: Any, make_detector: Callable[..., Any], user: User
) -> str:
    """A settled detector of two replicas behind Istio; the name of its stable revision."""
    return await first_release(make_detector, user)


@pytest.fixture
async def released_to_drain_for_long(
    istio: None, new_operator: Callable[..., Any], fake_kubelet: Any,
    make_detector: Callable[..., Any], user: User,
) -> str:  # fmt: skip
    """The same; whatever loses its traffic keeps its pods for as long as a test lasts."""
    one = new_operator(YOLOFLEET_DRAIN_SECONDS="600")
    one.start()
    await one.ready()
    return await first_release(make_detector, user)


async def first_release(make_detector: Callable[..., Any], user: User) -> str:
    await make_detector(**REPLICAS)
    status = await user.settled()
    stable: str = status["stable"]["revision"]
    return stable


async def test_a_detector_gets_its_children_and_is_ready(released: str, user: User) -> None:
    assert set(await user.children()) == {
        ("ServiceAccount", "gate"),
        ("ControllerRevision", released),
        ("Deployment", released),
        ("Service", released),
        ("DestinationRule", released),
        ("Service", "gate"),
        ("VirtualService", "gate"),
        ("PodDisruptionBudget", "gate"),
        ("NetworkPolicy", "gate"),
        ("PodMonitor", "gate"),
    }
    await user.routes({released: 100})
    status = await user.status()
    assert status["stable"] == {
        "revision": released,
        "model": "demo://shapes",
        "ready": 2,
        "desired": 2,
        "weight": 100,
    }
    assert (await user.condition("Ready"))["status"] == "True"


async def test_who_may_ask_changes_by_a_release_and_back_without_a_restart(
    released: str, user: User
) -> None:
    before = await user.pods()
    await user.edit(access={"allowFrom": [{"podSelector": {}}]})
    await user.settled()
    assert await user.pods() == before  # who reaches the pods is no part of them
    await user.edit(access={"apiKeys": {"secretName": "gate-keys"}})
    guarded = (await user.settled())["stable"]["revision"]
    assert guarded != released
    await user.routes({guarded: 100})
    deployment = (await user.children())["Deployment", guarded]
    pod = deployment["spec"]["template"]["spec"]
    assert [v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v] == ["gate-keys"]
    await user.edit(access={"apiKeys": None})
    assert (await user.settled())["stable"]["revision"] == released
    await user.routes({released: 100})


async def test_a_canary_is_promoted_and_rolled_back_without_a_restart(
    released_to_drain_for_long: str, user: User
) -> None:
    released = released_to_drain_for_long
    sticky = {"stickyHeader": "X-Camera-Id"}
    await user.edit(canary={"model": V2, "weight": 10}, traffic=sticky)
    await user.says("CanaryHealthy", "CanaryReady")
    canary = (await user.status())["canary"]["revision"]
    await user.routes({released: 90, canary: 10})
    *by_camera, _ = (await user.children())["VirtualService", "gate"]["spec"]["http"]
    assert [rule["match"][0]["headers"]["x-camera-id"] for rule in by_camera] == [
        {"regex": "^.*(?:[1-9][0-9])$"},
        {"regex": "^.*(?:0[0-9])$"},
    ]
    before = await user.pods()
    templates = {k: c["spec"] for k, c in (await user.children()).items() if k[0] == "Deployment"}

    await user.edit(model=V2, canary=None)
    await user.routes({canary: 100})
    after = await user.pods()
    assert before.items() <= after.items(), "a pod was restarted by the promotion"
    assert (await user.settled())["stable"]["revision"] == canary

    await user.edit(model={"uri": "demo://shapes"})
    await user.routes({released: 100})
    assert before.items() <= (await user.pods()).items(), "a pod was restarted by the roll-back"
    for key, child in (await user.children()).items():
        if key in templates:
            assert child["spec"]["template"] == templates[key]["template"]


async def test_a_deleted_deployment_of_stable_is_made_again_in_mid_release(
    released: str, user: User, kube: Kube, eventually: Callable[..., Any]
) -> None:
    steps = [{"weight": 50, "hold": "Approval"}]
    traffic = {"hosts": ["gate.example.com"], "gateways": ["mesh"]}
    await user.edit(model=V2, traffic=traffic, rollout={"strategy": "Canary", "steps": steps})
    await user.says("Progressing", "AwaitingApproval")
    target = (await user.status())["rollout"]["revision"]
    weights = await user.weights()
    before = (await user.children())["Deployment", released]
    record = (await user.children())["ControllerRevision", released]
    await kube.delete(kinds.DEPLOYMENT, user.namespace, released)

    async def back() -> bool:
        after = (await user.children())["Deployment", released]
        assert after["metadata"]["uid"] != before["metadata"]["uid"]
        assert after["spec"]["template"] == before["spec"]["template"]
        status = await user.status()
        assert status["stable"]["revision"] == released
        assert status["stable"]["ready"] == status["stable"]["desired"] > 0
        return True

    await eventually(back)
    await user.routes(weights)

    async def told() -> bool:
        events = [
            message for _, reason, message in await user.events() if reason == "DeploymentDeleted"
        ]
        return f"the Deployment {released} was deleted" in events[0]

    await eventually(told)
    after = (await user.children())["ControllerRevision", released]
    assert after["metadata"]["resourceVersion"] == record["metadata"]["resourceVersion"]
    assert (await user.status())["rollout"]["revision"] == target


async def test_drift_of_every_child_is_repaired(
    released: str, user: User, eventually: Callable[..., Any]
) -> None:
    before = await user.children()
    for kind, name in before:
        await user.kube.delete(
            next(k for k in kinds.CHILDREN if k.name == kind), user.namespace, name
        )

    async def all_back() -> bool:
        after = await user.children()
        assert set(after) == set(before)
        assert all(
            after[key]["metadata"]["uid"] != before[key]["metadata"]["uid"] for key in before
        )
        return True

    await eventually(all_back)
    stolen = {"spec": {"http": [{"route": [{"destination": {"host": "evil"}, "weight": 100}]}]}}
    await user.kube.merge(kinds.VIRTUAL_SERVICE, user.namespace, "gate", stolen)
    await user.routes({released: 100})
    await user.kube.merge(kinds.DEPLOYMENT, user.namespace, released, {"spec": {"replicas": 0}})

    async def scaled_back() -> bool:
        return (await user.children())["Deployment", released]["spec"]["replicas"] == 2

    await eventually(scaled_back)


async def test_deleting_leaves_nothing(
    released: str, user: User, eventually: Callable[..., Any]
) -> None:
    await user.edit(canary={"model": V2, "weight": 10})
    await user.says("CanaryHealthy", "CanaryReady")
    assert not (await user.detector())["metadata"].get("finalizers")
    await user.kube.delete(kinds.DETECTOR, user.namespace, "gate")

    async def nothing_left() -> bool:
        assert await user.children() == {}
        return True

    await eventually(nothing_left)


@pytest.mark.parametrize(
    ("fate", "reason", "words"),
    [
        (
            lambda fates: fates.crashing(
                78, json.dumps({"reason": "DigestMismatch", "message": "has aa, spec wants bb"})
            ),
            "DigestMismatch",
            "has aa, spec wants bb",
        ),
        (
            lambda fates: fates.waiting("ImagePullBackOff", 'image "nope" not found'),
            "ImagePullFailed",
            "not found",
        ),
        (
            lambda fates: fates.unschedulable("Insufficient cpu"),
            "Unschedulable",
            "Insufficient cpu",
        ),
    ],
)
async def test_a_spec_that_cannot_run_is_told_and_changes_no_traffic(
    released: str,
    user: User,
    fake_kubelet: Any,
    fates: Any,
    eventually: Callable[..., Any],
    fate: Any,
    reason: str,
    words: str,
) -> None:
    serving = await user.pods()
    fake_kubelet.decide(released, fates.ready)
    fake_kubelet.otherwise = fate(fates)
    await user.edit(model={"uri": "https://models.example.com/bad.onnx"})
    told = await user.says("Progressing", reason)
    assert words in told["message"]
    assert f"{released} keeps serving" in told["message"]
    assert (await user.condition("Ready"))["status"] == "True"
    await user.routes({released: 100})
    assert serving.items() <= (await user.pods()).items()

    async def evented() -> bool:
        return any(e[:2] == ("Warning", reason) and words in e[2] for e in await user.events())

    await eventually(evented)

    fake_kubelet.otherwise = fates.ready
    await user.edit(model={"uri": "demo://shapes"})
    assert (await user.settled())["stable"]["revision"] == released


async def test_a_broken_canary_gets_no_traffic(
    released: str, user: User, fake_kubelet: Any, fates: Any
) -> None:
    fake_kubelet.otherwise = fates.crashing(1, "boom")
    fake_kubelet.decide(released, fates.ready)
    await user.edit(canary={"model": V2, "weight": 50})
    told = await user.says("CanaryHealthy", "Crashed")
    assert "boom" in told["message"]
    await user.routes({released: 100})


async def test_an_autoscaler_owns_the_replicas_and_gives_them_back(
    released: str, user: User, eventually: Callable[..., Any]
) -> None:
    await user.edit(replicas=4)
    await user.settled()
    await user.edit(replicas=None, autoscaling={"minReplicas": 3, "maxReplicas": 8})

    async def handed_over() -> bool:
        deployment = (await user.children())["Deployment", released]
        owners = [
            entry["manager"]
            for entry in deployment["metadata"]["managedFields"]
            if "f:replicas" in json.dumps(entry.get("fieldsV1", {}).get("f:spec", {}))
        ]
        assert "yolofleet" not in owners, owners
        assert deployment["spec"]["replicas"] == 4, "the live value was lost in the hand-over"
        return True

    await eventually(handed_over)
    await user.kube.acting_as("kube-controller-manager").merge(
        kinds.DEPLOYMENT, user.namespace, released, {"spec": {"replicas": 6}}, "scale"
    )
    await user.edit(revisionHistory=3)  # makes the operator look again
    await user.settled()
    assert (await user.children())["Deployment", released]["spec"]["replicas"] == 6
    await user.edit(autoscaling=None, replicas=6)

    async def given_back() -> bool:
        children = await user.children()
        assert ("HorizontalPodAutoscaler", released) not in children
        return children["Deployment", released]["spec"]["replicas"] == 6

    await eventually(given_back)


async def test_no_gpu_in_the_cluster_is_told_with_numbers(
    operator: Any, make_detector: Callable[..., Any], user: User
) -> None:
    await make_detector(resources={"limits": {"nvidia.com/gpu": 1}})
    told = await user.says("GPUAvailable", "Missing")
    assert "a replica needs 1 nvidia.com/gpu; 0 nodes offer it" in told["message"]
    assert await user.pods() == {}


async def test_a_foreign_object_of_the_same_name_is_told_and_left_alone(
    operator: Any, make_detector: Callable[..., Any], user: User, eventually: Callable[..., Any]
) -> None:
    mine = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "gate", "namespace": user.namespace},
        "spec": {"selector": {"app": "mine"}, "ports": [{"port": 1, "protocol": "TCP"}]},
    }
    before = await user.kube.create(mine)
    await make_detector()
    told = await user.says("Progressing", "ResourceConflict")
    assert "Service gate already exists" in told["message"]
    after = await user.kube.get(kinds.SERVICE, user.namespace, "gate")
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


async def test_istio_that_appears_is_used(
    optional_kinds: Any,
    operator: Any,
    fake_kubelet: Any,
    make_detector: Callable[..., Any],
    user: User,
) -> None:
    await make_detector(canary={"model": V2, "weight": 10}, traffic=HOSTS, **REPLICAS)
    await user.says("TrafficRouted", "MeshAbsent")
    await user.says("CanaryHealthy", "CanaryReady")
    await optional_kinds.install(ISTIO_CRDS)
    try:
        await user.says("TrafficRouted", "Routed")
        status = await user.status()
        await user.routes({status["stable"]["revision"]: 90, status["canary"]["revision"]: 10})
    finally:
        await optional_kinds.remove()
    await user.says("TrafficRouted", "MeshAbsent")
    assert (await user.condition("Ready"))["status"] == "True"


async def test_a_restarted_operator_writes_nothing(
    released: str, operator: Any, user: User, eventually: Callable[..., Any],
    free_lease: Callable[[], Any],
) -> None:  # fmt: skip
    await user.edit(canary={"model": V2, "weight": 10}, traffic=HOSTS)
    await user.says("CanaryHealthy", "CanaryReady")
    await user.routes({released: 90, (await user.status())["canary"]["revision"]: 10})
    await user.settled()
    operator.kill()
    await free_lease()

    async def but_for_status() -> dict[tuple[str, str], Manifest]:
        """Return all that controllers do not write, at a time of their own."""
        return {key: _without_status(child) for key, child in (await user.children()).items()}

    before = await but_for_status()
    version = (await user.detector())["metadata"]["resourceVersion"]
    operator.start()
    await operator.ready()
    await eventually(operator.leads)
    await user.edit(revisionHistory=3)  # a write of ours: proves that it reconciles
    await user.settled()
    assert await but_for_status() == before
    assert (await user.detector())["metadata"]["resourceVersion"] != version


def _without_status(child: Manifest) -> Manifest:
    metadata = {k: v for k, v in child["metadata"].items() if k != "resourceVersion"}
    metadata["managedFields"] = [
        entry for entry in metadata["managedFields"] if entry.get("subresource") != "status"
    ]
    return {k: v for k, v in child.items() if k != "status"} | {"metadata": metadata}


async def test_an_operator_killed_in_mid_promotion_goes_on(
    released: str, operator: Any, user: User, fake_kubelet: Any, fates: Any,
    eventually: Callable[..., Any], free_lease: Callable[[], Any],
) -> None:  # fmt: skip
    fake_kubelet.decide(released, fates.ready)
    fake_kubelet.otherwise = fates.starting
    await user.edit(model=V2)
    await user.says("Progressing", "RollingOut")
    operator.kill()
    await free_lease()
    fake_kubelet.otherwise = fates.ready
    operator.start()
    await operator.ready()
    await eventually(operator.leads)
    status = await user.settled()
    assert status["stable"]["revision"] != released
    await user.routes({status["stable"]["revision"]: 100})


async def test_garbage_in_status_is_survived(
    released: str, user: User, eventually: Callable[..., Any]
) -> None:
    garbage = {"status": {"stable": {"revision": "nobody"}, "draining": [], "url": "lost"}}
    await user.kube.merge(kinds.DETECTOR, user.namespace, "gate", garbage, "status")

    async def told_again() -> bool:
        return (await user.status())["stable"]["revision"] == released

    await eventually(told_again)
    await user.routes({released: 100})


async def test_a_former_revision_rests_at_zero_after_it_has_drained(
    istio: None,
    new_operator: Callable[..., Any],
    fake_kubelet: Any,
    make_detector: Callable[..., Any],
    user: User,
    eventually: Callable[..., Any],
) -> None:
    quick = new_operator(YOLOFLEET_DRAIN_SECONDS="1")
    quick.start()
    await quick.ready()
    await make_detector(**REPLICAS)
    first = (await user.settled())["stable"]["revision"]
    await user.edit(model=V2)
    await user.says("Progressing", "Settled")
    children = await user.children()
    assert children["Deployment", first]["spec"]["replicas"] == 0
    assert ("Service", first) not in children


async def test_suspended_means_hands_off(
    released: str, user: User, eventually: Callable[..., Any]
) -> None:
    await user.edit(suspend=True)
    await user.says("Progressing", "Suspended")
    await user.kube.merge(kinds.DEPLOYMENT, user.namespace, released, {"spec": {"replicas": 1}})
    await user.edit(revisionHistory=4)
    await user.says("Progressing", "Suspended")
    assert (await user.children())["Deployment", released]["spec"]["replicas"] == 1
    await user.edit(suspend=False)

    async def repaired() -> bool:
        return (await user.children())["Deployment", released]["spec"]["replicas"] == 2

    await eventually(repaired)


SIDECAR = {"name": "spy", "image": "spy:1"}
STOLEN = {"name": "stolen", "route": [{"destination": {"host": "evil"}, "weight": 100}]}


async def meddle(user: User, revision: str) -> None:
    """Add what the operator does not know: a container, the host's network and a route."""
    children = await user.children()
    pod = children["Deployment", revision]["spec"]["template"]["spec"]
    pod |= {"containers": [*pod["containers"], SIDECAR], "hostNetwork": True}
    patch = {"spec": {"template": {"spec": pod}}}
    await user.kube.merge(kinds.DEPLOYMENT, user.namespace, revision, patch)
    http = [STOLEN, *children["VirtualService", "gate"]["spec"]["http"]]
    await user.kube.merge(kinds.VIRTUAL_SERVICE, user.namespace, "gate", {"spec": {"http": http}})


async def meddled(user: User, revision: str) -> set[str]:
    """Return what of the meddling is there."""
    children = await user.children()
    pod = children["Deployment", revision]["spec"]["template"]["spec"]
    found = {"sidecar" for container in pod["containers"] if container["name"] == "spy"}
    found |= {"network"} if pod.get("hostNetwork") else set()
    http = children["VirtualService", "gate"]["spec"]["http"]
    return found | {"route" for route in http if route.get("name") == "stolen"}


async def test_what_others_add_is_removed_told_and_counted(
    released: str, operator: Any, user: User, eventually: Callable[..., Any]
) -> None:
    await meddle(user, released)

    async def repaired() -> bool:
        assert await meddled(user, released) == set()
        return True

    await eventually(repaired)
    told = await user.says("Drifted", "DriftRepaired")
    assert told["status"] == "False"

    async def events() -> bool:
        found = " ".join(m for _, reason, m in await user.events() if reason == "DriftRepaired")
        assert f"Deployment {released}: " in found, found
        assert "hostNetwork (added by kubectl-edit)" in found
        assert "containers.spy (added by kubectl-edit)" in found
        assert "VirtualService gate: spec.http (set by kubectl-edit)" in found
        return True

    await eventually(events)
    pods = operator.metric("yolofleet_drift_repairs_total", field_class="spec.template")
    routes = operator.metric("yolofleet_drift_repairs_total", kind="VirtualService")
    assert (pods >= 2, routes) == (True, 1)


async def test_what_others_add_is_left_and_told_under_report_and_releases_go_on(
    released: str, operator: Any, user: User, always: Callable[..., Any]
) -> None:
    await user.edit(driftPolicy="Report", canary={"model": V2, "weight": 0})
    await user.says("CanaryHealthy", "CanaryReady")
    canary = (await user.status())["canary"]["revision"]
    await meddle(user, released)
    told = await user.says("Drifted", "DriftLeft")
    assert told["status"] == "True"

    async def all_told() -> bool:
        message = (await user.condition("Drifted"))["message"]
        assert "containers.spy (added by kubectl-edit)" in message, message
        assert "VirtualService gate: spec.http (set by kubectl-edit)" in message, message
        return True

    await user.eventually(all_told)

    async def left() -> bool:
        return await meddled(user, released) == {"sidecar", "network", "route"}

    await always(left, 3)
    assert operator.metric("yolofleet_drift_repairs_total") == 0

    await user.edit(canary={"model": V2, "weight": 40})  # the operator's own change of the route
    await user.routes({released: 60, canary: 40})
    await user.edit(model=V2, canary=None)
    await user.routes({canary: 100})
    status = await user.settled()
    assert status["stable"]["revision"] == canary
    assert (await user.children())["Service", "gate"]["spec"]["selector"][
        "yolofleet.io/revision"
    ] == canary
