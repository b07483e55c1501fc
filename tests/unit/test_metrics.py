"""The operator's metrics: what is exported is what is documented, and tells the truth."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.metrics import MetricWrapperBase

from controlplane.kube import eventually
from yolofleet import metrics as operator_metrics
from yolofleet.cluster import kinds
from yolofleet.metrics import Metrics, WorldCollector
from yolofleet.runtime.client import get

LIST = Path(__file__).resolve().parents[2] / "docs" / "reference" / "operator-metrics.md"
SCALED = {"provider": "builtin", "floor": 5, "demand": 4.3, "held": False}
GATE = {
    "metadata": {"namespace": "shop", "name": "gate"},
    "spec": {"autoscaling": {"maxReplicas": 8}},
    "status": {
        "conditions": [{"type": "Ready", "status": "True"}],
        "canary": {"weight": 10},
        "autoscaling": SCALED,
    },
}


def everything() -> Metrics:
    metrics = Metrics()
    metrics.registry.register(WorldCollector(lambda: {"Deployment": 3}, lambda: [GATE]))
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


@pytest.mark.parametrize(
    ("reason", "scaling", "held", "at_max"),
    [
        (None, SCALED, 0, 0),
        (None, None, 0, 0),
        ("MetricLost", SCALED | {"held": True}, 1, 0),
        ("FailedGetExternalMetric", {"provider": "keda"}, 1, 0),
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
