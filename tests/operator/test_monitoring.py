"""Dashboards and rules on a real Prometheus, which scrapes a real operator and a real server."""

import json
import math
import os
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import cv2
import numpy as np
import pytest
import yaml
from onnx import helper

from controlplane.kube import Kube
from controlplane.kubelet import FakeKubelet, ready_again
from controlplane.process import OperatorProcess
from dashboards import queries
from real_prometheus import RealPrometheus, Target, pages, running
from yolofleet.cluster import kinds
from yolofleet.workloads.failures import EXIT_BLIND

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "charts" / "yolofleet" / "files" / "rules.yaml"
ROUTED = {"hosts": ["gate.example.com"], "gateways": ["istio-system/public"]}
WALKS = {"strategy": "Canary", "steps": [{"weight": 10, "hold": "10m"}]}

NEEDS_PODS = "yolofleet_autoscaling_demand"
"""What the operator tells once pods have told it what they are asked."""

EXPORTER = """# by NVIDIA's exporter, scraped without honor_labels
DCGM_FI_DEV_GPU_TEMP{{gpu="0",namespace="{namespace}",pod="{pod}"}} 61
DCGM_FI_DEV_THERMAL_VIOLATION{{gpu="0",namespace="{namespace}",pod="{pod}"}} 0
"""


@pytest.fixture
async def released(
    istio: None,
    new_operator: Callable[..., OperatorProcess],
    fake_kubelet: FakeKubelet,
    make_detector: Callable[..., Awaitable[Any]],
    kube: Kube,
    namespace: str,
    eventually: Callable[..., Any],
) -> OperatorProcess:
    """An operator with a detector that is scaled, was blind, and is at a step of a release."""
    fake_kubelet.otherwise = ready_again(EXIT_BLIND)
    operator = new_operator()
    operator.start()
    await operator.ready()
    scaled = {"minReplicas": 2, "maxReplicas": 4, "load": 70}
    await make_detector(traffic=ROUTED, rollout=WALKS, autoscaling=scaled)

    async def says(condition: str, reason: str) -> bool:
        status = (await kube.get(kinds.DETECTOR, namespace, "gate"))["status"]
        return {c["type"]: c["reason"] for c in status["conditions"]}[condition] == reason

    await eventually(lambda: says("Progressing", "Settled"))
    model = {"spec": {"model": {"uri": "demo://shapes-v2"}}}
    await kube.merge(kinds.DETECTOR, namespace, "gate", model)
    await eventually(lambda: says("Progressing", "Holding"))
    return operator


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A server of its own process with the stub engine; its address."""
    model = tmp_path / "gate.onnx"
    nothing = helper.make_model(helper.make_graph([], "nothing", [], []))
    model.write_bytes(nothing.SerializeToString())
    told = {"PORT": "0", "MODEL": model.as_uri(), "CACHE_DIR": str(tmp_path), "REVISION": "gate-1"}
    environment = os.environ | {f"YOLOSERVE_{name}": value for name, value in told.items()}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "YOLOSTUB_SERVICE_MS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "stub_engine", "serve"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        lines = (json.loads(line) for line in process.stderr if line.startswith("{"))
        ready = next((line for line in lines if line["message"] == "ready"), None)
        assert ready, f"it ended: {process.wait(60)}"
        yield ready["url"].removeprefix("http://").rstrip("/")
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def jpeg() -> bytes:
    return cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()


@pytest.fixture
def prometheus(
    released: OperatorProcess, server: str, namespace: str, tmp_path: Path
) -> Iterator[RealPrometheus]:
    """It scrapes both, and an exporter that is played, with labels as the chart's monitors do."""
    revision = "gate-05bb7f85"
    pod = {
        "namespace": namespace,
        "pod": f"{revision}-x",
        "detector": "gate",
        "revision": revision,
    }
    gpu = EXPORTER.format(namespace=namespace, pod=pod["pod"])
    with pages({"/metrics": lambda: gpu}) as exporter:
        targets = [
            Target(f"127.0.0.1:{released.port}", labels={"namespace": "platform"}, honest=True),
            Target(server, labels=pod),
            Target(exporter, labels={"namespace": "gpu-operator", "pod": "dcgm-exporter-x"}),
        ]
        with running(tmp_path, targets, rules=RULES) as prometheus:
            prometheus.await_scrapes()
            yield prometheus


async def test_each_panel_shows_something_and_each_rule_asks_for_what_there_is(
    prometheus: RealPrometheus,
    server: str,
    jpeg: bytes,
    kube: Kube,
    namespace: str,
    eventually: Callable[..., Any],
) -> None:
    variables = {"namespace": namespace, "detector": "gate", "__rate_interval": "10s"}
    asked = [query.filled(variables) for query in queries() if NEEDS_PODS not in query.text]

    async def nothing_is_empty() -> bool:
        note = {"metadata": {"annotations": {"note": uuid.uuid4().hex}}}  # there is work for it
        await kube.merge(kinds.DETECTOR, namespace, "gate", note)
        for _ in range(5):
            async with session.post(f"http://{server}/v1/detect", data=jpeg) as answer:
                assert answer.status == 200, await answer.text()
        empty = [text for text in asked if not shows(prometheus.query(text))]
        assert empty == []
        return True

    async with aiohttp.ClientSession() as session:
        await eventually(nothing_is_empty)
    rules = [r for group in yaml.safe_load(RULES.read_text())["groups"] for r in group["rules"]]
    recorded = {rule.get("record") for rule in rules}
    names = {name for rule in rules for name in selected(prometheus, rule["expr"])} - recorded
    names -= {"ALERTS"}  # Prometheus' own, while there are any
    assert len(names) > 15

    def all_are_known() -> bool:
        """Say whether each is there, once no target is late for its scrape."""
        series = prometheus.query('count by (__name__) ({__name__=~".+"})')
        assert names - {each["metric"]["__name__"] for each in series} == set()
        return True

    await eventually(all_are_known)


def shows(vector: list[dict[str, Any]]) -> bool:
    return any(math.isfinite(float(series["value"][1])) for series in vector)


def selected(prometheus: RealPrometheus, expression: str) -> Iterator[str]:
    """Return the names of all series that an expression asks for, as Prometheus reads it."""
    nodes = [prometheus.ask("parse_query", query=expression)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, list):
            nodes += node
        elif isinstance(node, dict):
            nodes += [each for each in node.values() if isinstance(each, dict | list)]
            if node.get("type") in ("vectorSelector", "matrixSelector"):
                yield node["name"]
