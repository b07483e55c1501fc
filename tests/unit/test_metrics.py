"""The operator's metrics: what is exported is what is documented, and tells the truth."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.metrics import MetricWrapperBase

from controlplane.kube import eventually
from yolofleet import metrics as operator_metrics
from yolofleet.cluster import kinds
from yolofleet.cluster.cache import Cache
from yolofleet.metrics import Metrics, WorldCollector
from yolofleet.runtime.client import get

LIST = Path(__file__).resolve().parents[2] / "docs" / "reference" / "operator-metrics.md"
SCALED = {"provider": "builtin", "floor": 5, "demand": 4.3, "held": False}
WALKING = {"revision": "gate-2", "step": 1, "weight": 10, "hold": "2m"}
GATE: dict[str, Any] = {
    "metadata": {"namespace": "shop", "name": "gate"},
    "spec": {"autoscaling": {"maxReplicas": 8}},
    "status": {
        "conditions": [
            {"type": "Ready", "status": "True"},
            {"type": "Stalled", "status": "False"},
            {
                "type": "Progressing",
                "status": "True",
                "lastTransitionTime": "2030-01-01T00:00:00Z",
            },
        ],
        "canary": {"weight": 10},
        "revisions": [
            {"ready": 2, "desired": 2, "weight": 90},
            {"ready": 1, "desired": 3, "weight": 10},
        ],
        "rollout": WALKING | {"since": "2030-01-01T00:10:00Z"},
        "autoscaling": SCALED,
    },
}


def everything() -> Metrics:
    metrics = Metrics()
    pods = [a_pod("gate-2-x", lastState=ended(79))]
    metrics.registry.register(
        WorldCollector(lambda: {"Deployment": 3}, lambda: [GATE], lambda: pods)
    )
    return metrics


def documented() -> dict[str, set[str]]:
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|", LIST.read_text(), re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def test_every_metric_is_documented_and_every_documented_one_exported() -> None:
    text = generate_latest(everything().registry).decode()
    told = re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)
    ours = {n for n in told if not n.startswith(("process_", "python_"))}
    assert {name for name in ours if not name.endswith("_created")} == set(documented())
    assert "process_resident_memory_bytes" in told


@pytest.mark.parametrize(("name", "labels"), documented().items(), ids=documented())
def test_labels_are_as_documented(name: str, labels: set[str]) -> None:
    registry = everything().registry
    collector = registry._names_to_collectors.get(name)
    if isinstance(collector, MetricWrapperBase):
        assert set(collector._labelnames) == labels
    else:  # made anew for each scrape
        [samples] = [family.samples for family in registry.collect() if family.name == name]
        assert {label for sample in samples for label in sample.labels} == labels


def test_the_world_is_told_as_it_is() -> None:
    text = generate_latest(everything().registry).decode()
    assert 'yolofleet_children{kind="Deployment"} 3.0' in text
    assert 'yolofleet_detector_condition{status="True",type="Ready"} 1.0' in text
    assert 'yolofleet_canary_weight{detector="gate",namespace="shop"} 10.0' in text


AT = datetime(2030, 1, 1, 0, 15, tzinfo=UTC).timestamp()


def of_gate(**status: Any) -> dict[str, list[float]]:
    """Return the samples of a detector whose spec, or status, is other than that of GATE."""
    spec = {"spec": status.pop("spec", {})}
    changed = GATE | {"status": GATE["status"] | status} | spec
    world = WorldCollector(dict, lambda: [changed], now=lambda: AT)
    return {family.name: [s.value for s in family.samples] for family in world.collect()}


def test_what_serves_is_told_of_each_detector() -> None:
    told = of_gate()
    assert told["yolofleet_detector_ready"] == [1]
    assert told["yolofleet_detector_replicas"] == [3, 5]
    bare = of_gate(conditions=[{"type": "Ready", "status": "Unknown"}], revisions=[], rollout=None)
    assert bare["yolofleet_detector_ready"] == [0]
    assert bare["yolofleet_detector_replicas"] == [0, 0]
    assert of_gate(conditions=[])["yolofleet_detector_ready"] == [], "nothing is said of it yet"


def of_world(world) -> dict[str, list[float]]:
    told = WorldCollector(dict, lambda: [world.raw], now=world.now.timestamp).collect()
    return {family.name: [sample.value for sample in family.samples] for family in told}


def serves(world) -> list[list[float]]:
    """Return what the alerts YoloDetectorNotReady and YoloDetectorStalled go by."""
    told = of_world(world)
    desired = told["yolofleet_detector_replicas"][1:]
    names = ("ready", "answered_ratio", "stalled")
    ready, answered, stalled = (told[f"yolofleet_detector_{name}"] for name in names)
    return [ready, desired, answered, stalled]


CANARY: dict[str, Any] = {"model": {"uri": "demo://shapes-v2"}, "replicas": 1}


def kill_stable(world, rounds: int = 12) -> None:
    stable = world.raw["status"]["stable"]["revision"]
    for _ in range(rounds):
        world.children["Deployment", stable]["status"]["availableReplicas"] = 0
        world.reconcile()
        world.now += timedelta(seconds=20)


@pytest.mark.parametrize("mesh", [True, False])
def test_who_answers_is_told_of_each_detector(new_world, mesh: bool) -> None:
    world = new_world(mesh=mesh)
    assert of_world(world)["yolofleet_detector_answered_ratio"] == [], "no status yet"
    world.settle()
    assert serves(world) == [[1], [2], [1], [0]]
    kill_stable(world)
    assert serves(world) == [[0], [2], [0], [0]]
    world.edit(replicas=0)
    world.settle()
    assert serves(world) == [[1], [0], [0], [0]]


@pytest.mark.parametrize("mesh", [True, False])
def test_nobody_answers_where_no_accelerator_is_free(new_world, mesh: bool) -> None:
    world = new_world(mesh=mesh)
    world.edit(resources={"limits": {"nvidia.com/gpu": "1"}})
    world.settle()
    assert serves(world) == [[0], [0], [0], [1]]


@pytest.mark.parametrize("mesh", [True, False])
def test_of_one_suspended_from_its_start_no_requests_are_led_anywhere(
    new_world, mesh: bool
) -> None:
    world = new_world(mesh=mesh)
    world.edit(suspend=True)
    world.settle()
    assert serves(world) == [[0], [2], [], [0]]


def test_a_canary_answers_in_the_place_of_a_dead_revision(world) -> None:
    world.edit(canary=CANARY | {"weight": 10})
    world.settle()
    assert serves(world) == [[1], [3], [1], [0]]
    kill_stable(world)
    assert serves(world)[::2] == [[0], [1]]


def test_one_that_is_suspended_leaves_its_canary_the_part_that_it_had(world) -> None:
    world.edit(canary=CANARY | {"weight": 10})
    world.settle()
    world.edit(suspend=True)
    kill_stable(world)
    assert serves(world) == [[0], [3], [0.1], [0]]


def test_a_canary_for_those_that_match_answers_nobody_else(world) -> None:
    world.edit(canary=CANARY | {"match": [{"headers": {"x-canary": {"exact": "1"}}}]})
    world.settle()
    kill_stable(world)
    assert serves(world) == [[0], [3], [0], [0]]


def test_a_release_without_steps_that_never_gets_ready_is_told(world) -> None:
    world.settle()
    world.broken = {"shapes-v2"}
    world.edit(model=CANARY["model"])
    world.reconcile()
    begun = world.now
    world.settle()
    told = of_world(world)
    age = (world.now - begun).total_seconds()
    assert told["yolofleet_rollout_step_age_seconds"] == [age]
    assert told["yolofleet_rollout_step_hold_seconds"] == [0]
    assert told["yolofleet_canary_weight"] == [0]
    assert told["yolofleet_detector_stalled"] == [0], "nothing else would raise an alert"


@pytest.mark.parametrize("mesh", [True, False])
def test_each_replica_that_is_swapped_changes_the_weight(new_world, mesh: bool) -> None:
    world = new_world(mesh=mesh)
    world.edit(replicas=5, rollout={"strategy": "InPlace"})
    world.settle()
    world.edit(model=CANARY["model"])
    weights, ready = list[float](), set[int]()
    for _ in range(12):
        world.reconcile()
        if not (released := world.raw["status"].get("rollout")):
            break
        assert released["strategy"] == "InPlace"
        weights += of_world(world)["yolofleet_canary_weight"]
        ready.add(world.raw["status"]["canary"]["ready"])
        world.run_pods(1)
        world.now += timedelta(minutes=10)
    assert len(set(weights)) >= len(ready) > 2


@pytest.mark.parametrize(
    ("rollout", "spec", "age", "hold"),
    [
        (WALKING | {"since": "2030-01-01T00:10:00Z"}, {}, [300], [120]),
        (WALKING, {}, [900], [120]),  # the router has not been seen with its weight yet
        (WALKING | {"since": "2030-01-01T01:00:00Z"}, {}, [0], [120]),  # clocks are set back
        (WALKING | {"hold": "Approval"}, {}, [900], []),
        (WALKING, {"rollout": {"paused": True}}, [900], []),
        (WALKING, {"suspend": True}, [900], []),
        ({"revision": "gate-2", "strategy": "BlueGreen"}, {}, [900], [0]),
        ({"revision": "gate-2"}, {"rollout": {"paused": True}}, [900], []),
        ({"revision": "gate-2"}, {"suspend": True}, [900], []),
        (None, {}, [], []),
    ],
)
def test_the_age_of_a_step_is_told_and_what_it_may_be(
    rollout: Any, spec: Any, age: list[float], hold: list[float]
) -> None:
    told = of_gate(rollout=rollout, spec=spec)
    assert told["yolofleet_rollout_step_age_seconds"] == age
    assert told["yolofleet_rollout_step_hold_seconds"] == hold


@pytest.mark.parametrize("reason", ["AwaitingApproval", "NotJudged"])
def test_a_trial_that_only_a_person_can_end_has_no_time(reason: str) -> None:
    waits = {"type": "Progressing", "status": "True", "reason": reason}
    assert of_gate(conditions=[waits])["yolofleet_rollout_step_hold_seconds"] == []


def age_and_hold(world) -> tuple[list[float], list[float]]:
    told = of_world(world)
    return (
        told["yolofleet_rollout_step_age_seconds"],
        told["yolofleet_rollout_step_hold_seconds"],
    )


STEPS = [{"weight": 10, "hold": "2m"}]
SETTLED_FOR = timedelta(days=30)


def pass_time(world, time: timedelta) -> None:
    """Let the operator look, and again after `time`; no pod of what is new starts."""
    world.reconcile()
    world.now += time
    world.reconcile()


@pytest.mark.parametrize(
    "change",
    [
        {"model": CANARY["model"], "rollout": {"strategy": "BlueGreen", "paused": True}},
        {
            "model": CANARY["model"],
            "rollout": {"strategy": "Canary", "steps": STEPS, "paused": True},
        },
        {"resources": {"limits": {"nvidia.com/gpu": "1"}}},  # there are none
    ],
    ids=["paused", "paused before its first step", "no accelerator"],
)
def test_a_release_is_as_old_as_its_edit_whatever_else_was_so_before(world, change) -> None:
    """The time of a condition is that of its status: it had been False for a month."""
    world.settle()
    pass_time(world, SETTLED_FOR)
    world.edit(**change)
    pass_time(world, timedelta(seconds=30))
    assert age_and_hold(world)[0] == [30]


def test_a_release_in_the_place_of_one_that_hung_is_no_older_than_its_own_edit(world) -> None:
    world.settle()
    for hours, model in ((5, CANARY["model"]), (1, {"uri": "demo://other"})):
        world.edit(model=model, rollout={"strategy": "BlueGreen"})
        pass_time(world, timedelta(hours=hours))
        assert age_and_hold(world) == ([hours * 3600], [0])


def test_what_was_paused_for_days_has_its_time_again_once_it_goes_on(world) -> None:
    world.settle()
    world.edit(model=CANARY["model"], rollout={"strategy": "BlueGreen", "paused": True})
    pass_time(world, timedelta(days=2))
    assert age_and_hold(world) == ([2 * 86400], [])
    world.edit(rollout={"strategy": "BlueGreen"})
    pass_time(world, timedelta(minutes=1))
    assert age_and_hold(world) == ([60], [0])


def test_a_release_that_an_operator_before_this_one_began_is_as_old_as_was_told_then(world) -> None:
    world.settle()
    world.edit(model=CANARY["model"], rollout={"strategy": "BlueGreen"})
    world.reconcile()
    for _ in range(2):
        world.raw["status"]["rollout"].pop("begun", None)
        pass_time(world, timedelta(minutes=5))
        assert "begun" not in world.raw["status"]["rollout"], "nobody knows it"
    assert age_and_hold(world) == ([600], [0])


def test_one_to_be_judged_at_zero_replicas_waits_for_a_person_to_raise_them(world) -> None:
    world.edit(replicas=0, rollout={"strategy": "BlueGreen", "analysis": {}})
    world.settle()
    world.edit(model=CANARY["model"])
    pass_time(world, timedelta(hours=1))
    assert age_and_hold(world) == ([3600], [])
    world.edit(replicas=2)
    pass_time(world, timedelta(minutes=1))
    assert age_and_hold(world)[1] == [120]


@pytest.mark.parametrize(
    ("reason", "scaling", "held", "at_max"),
    [
        (None, SCALED, 0, 0),
        (None, None, 0, 0),
        ("MetricLost", SCALED | {"held": True}, 1, 0),
        ("MetricLost", {"provider": "keda"}, 1, 0),  # its fallback holds
        ("FailedGetExternalMetric", {"provider": "keda"}, 1, 0),
        ("FailedGetResourceMetric", None, 1, 0),
        ("FailedComputeMetricsReplicas", None, 1, 0),
        ("ProviderMissing", SCALED | {"held": True}, 1, 0),
        ("ProviderMissing", SCALED, 0, 0),  # another metric goes on
        ("SharedGPU", SCALED, 0, 0),
        ("KedaTooOld", {"provider": "keda"}, 0, 0),
        ("ScaledObjectStays", {"provider": "builtin"}, 0, 0),
        ("FailedGetScale", None, 0, 0),
        ("TooManyReplicas", SCALED, 0, 1),
    ],
)
def test_it_is_told_whose_replicas_do_not_follow_the_load(
    reason: str | None, scaling: Any, held: int, at_max: int
) -> None:
    limited = [{"type": "AutoscalingLimited", "status": "True", "reason": reason}]
    status = {"conditions": limited if reason else [], "autoscaling": scaling}
    told = WorldCollector(dict, lambda: [GATE | {"status": status}]).collect()
    values = {family.name: [sample.value for sample in family.samples] for family in told}
    assert values["yolofleet_autoscaling_held"] == [held]
    assert values["yolofleet_autoscaling_at_max"] == [at_max]
    assert values["yolofleet_autoscaling_max_replicas"] == [8]


def a_pod(uid: str, **status: Any) -> dict[str, Any]:
    container = {"name": "yoloserve", "restartCount": 1, "ready": True, "state": {}} | status
    labels = {"yolofleet.io/detector": "gate", "yolofleet.io/revision": "gate-2"}
    metadata = {"namespace": "shop", "name": uid, "uid": uid, "resourceVersion": "1"}
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "controller": True}
    return {
        "metadata": metadata | {"labels": labels, "ownerReferences": [owner | {"uid": "r"}]},
        "status": {"containerStatuses": [container, {"name": "other"}]},
    }


def ended(code: int) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "finishedAt": "2030-01-01T00:10:00Z"}}


def test_a_server_that_went_blind_is_told_of_by_the_pod_that_it_left() -> None:
    cache = Cache()
    for pod in (
        a_pod("again", lastState=ended(79), state={"running": {}}),
        a_pod("now", state=ended(79), lastState=ended(1)),
        a_pod("then", lastState=ended(79), state=ended(0)),
        a_pod("crashed", lastState=ended(1)),
        a_pod("beside", name="other", lastState=ended(79)),
        a_pod("young"),
    ):
        cache.put(kinds.POD, pod)
    told = WorldCollector(dict, list, cache.gone_blind).collect()
    [family] = [each for each in told if each.name == "yolofleet_pod_blind_end_timestamp_seconds"]
    assert {s.labels["pod"]: AT - s.value for s in family.samples} == {"again": 300, "now": 300}
    assert family.samples[0].labels == {
        "namespace": "shop",
        "detector": "gate",
        "revision": "gate-2",
        "pod": "again",
    }


@pytest.mark.parametrize(
    ("codes", "retries"),
    [
        (["200", "200"], 0),
        (["503", "200", "200"], 1),
        (["<error>", "429", "200"], 2),
        (["404", "200"], 0),
        (["409", "200"], 0),
    ],
)
def test_a_retry_is_a_request_sent_again_after_no_good_answer(
    codes: list[str], retries: int
) -> None:
    metrics = Metrics()
    observe = metrics.requests.observer("server")
    for code in codes:
        observe(get(kinds.SERVICE, "shop", "gate"), code, 0.01)
        observe(get(kinds.SERVICE, "shop", "other"), "200", 0.01)
    text = generate_latest(metrics.registry).decode()
    values = re.findall(r"^rest_client_request_retries_total{.*} (.*)$", text, re.MULTILINE)
    assert sum(map(float, values)) == retries


async def test_an_event_loop_that_is_late_all_the_time_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operator_metrics, "LATE_S", -1.0)  # nothing is in time
    monkeypatch.setattr(operator_metrics, "LATE_FOR_S", 0.25)
    measured = Metrics()
    assert not measured.late()
    task = asyncio.create_task(measured.measure_lag())
    told = await eventually(measured.late)
    assert "the event loop has been more than" in told
    monkeypatch.setattr(operator_metrics, "LATE_S", 60.0)
    await eventually(lambda: not measured.late())
    task.cancel()
