"""The operator as a process: start, probes, metrics, log, end."""

import asyncio
import contextlib
import json
import signal
import urllib.request
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
import yaml

from controlplane import ports
from controlplane.kube import Kube
from controlplane.kubelet import FakeKubelet
from controlplane.plane import OPERATOR, ControlPlane
from controlplane.process import OperatorProcess
from yolofleet.api.names import DETECTOR_LABEL
from yolofleet.cluster import kinds

MakeDetector = Callable[..., Any]
Eventually = Callable[..., Any]


async def test_a_detector_gets_its_children_and_a_status(
    operator: OperatorProcess,
    kube: Kube,
    namespace: str,
    make_detector: MakeDetector,
    fake_kubelet: FakeKubelet,
    eventually: Eventually,
) -> None:
    await make_detector()

    async def ready() -> bool:
        detector = await kube.get(kinds.DETECTOR, namespace, "gate")
        conditions = {c["type"]: c["status"] for c in detector["status"]["conditions"]}
        return conditions["Ready"] == "True"

    await eventually(ready)
    for kind in (kinds.DEPLOYMENT, kinds.SERVICE):
        assert await kube.list(kind, namespace, f"{DETECTOR_LABEL}=gate")


async def test_a_detector_that_is_nested_too_deep_holds_up_no_other(
    operator: OperatorProcess,
    kube: Kube,
    namespace: str,
    make_detector: MakeDetector,
    fake_kubelet: FakeKubelet,
    eventually: Eventually,
) -> None:
    """An API server stores what orjson neither writes (254 levels) nor reads (1,024)."""

    async def conditions(name: str) -> list[dict[str, str]]:
        detector = await kube.get(kinds.DETECTOR, namespace, name)
        return list(detector.get("status", {}).get("conditions", ()))

    async def all_told(*good: str) -> bool:
        for name in good:
            if ("Ready", "True") not in [(c["type"], c["status"]) for c in await conditions(name)]:
                return False
        words = "spec.podTemplate: is nested in more than 50 levels"
        told = [[c["message"] for c in await conditions(f"deep-{n}")] for n in (300, 1500)]
        return all(any(words in message for message in messages) for messages in told)

    for levels in (300, 1500):
        affinity = orjson.Fragment(b'{"a":' * levels + b"1" + b"}" * levels)
        await make_detector(f"deep-{levels}", podTemplate={"spec": {"affinity": affinity}})
    await make_detector()
    await eventually(lambda: all_told("gate"))
    assert operator.terminate() == 0
    operator.start()  # which lists them
    await make_detector("door")
    await eventually(lambda: all_told("gate", "door"))


async def test_probes_answer_and_sigterm_ends_it_with_0(operator: OperatorProcess) -> None:
    assert operator.probe("healthz") == 200
    assert operator.probe("readyz") == 200
    assert operator.metric("leader_election_master_status") == 1
    operator.signal(signal.SIGINT)  # who is told twice ends no other way
    assert operator.terminate() == 0
    assert operator.log(message="Lease released")
    assert operator.log(level="error") == []


async def test_it_waits_for_an_api_server_and_begins_when_one_answers(
    new_operator: Callable[..., OperatorProcess],
    plane: ControlPlane,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    """Whoever ends instead is started ever more seldom: five minutes later in the end."""
    config = yaml.safe_load(plane.kubeconfig(OPERATOR).read_text())
    there = urlsplit(config["clusters"][0]["cluster"]["server"])
    (port,) = ports.reserve(1)
    config["clusters"][0]["cluster"]["server"] = f"https://{there.hostname}:{port}"
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    operator = new_operator(KUBECONFIG=str(tmp_path / "config"))
    operator.start()
    await eventually(lambda: len(operator.log(message="Lease not renewed")) >= 3)
    assert operator.probe("healthz") == 200
    assert operator.probe("readyz") == 503
    assert operator.log(level="error") == []

    async def relay(reader: StreamReader, writer: StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(there.hostname, there.port)
        with contextlib.suppress(OSError):
            await asyncio.gather(copied(reader, far_writer), copied(far_reader, writer))

    async def copied(reader: StreamReader, writer: StreamWriter) -> None:
        with contextlib.closing(writer):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    server = await asyncio.start_server(relay, "127.0.0.1", port)
    async with server:
        await operator.ready()
        assert operator.log(level="error") == []
        assert await asyncio.to_thread(operator.terminate) == 0


async def test_it_tells_what_it_believes_of_a_detector(
    operator: OperatorProcess,
    kube: Kube,
    namespace: str,
    make_detector: MakeDetector,
    fake_kubelet: FakeKubelet,
    eventually: Eventually,
) -> None:
    await make_detector()

    async def settled() -> dict[str, Any]:
        told = operator.debug(f"detectors/{namespace}/gate")
        assert told["says"]["Progressing"].startswith("False (Settled)")
        assert told["queue"]["lastReconcile"]["result"] in ("success", "requeue_after")
        return told

    told = await eventually(settled)
    assert told["leads"] is True
    assert told["differences"] == []
    assert told["wouldSay"]["Ready"] == told["says"]["Ready"]
    assert told["resource"]["generation"] == told["resource"]["observedGeneration"] == 1
    assert {"Deployment", "Service", "Pod"} <= {each["kind"] for each in told["cached"]}
    assert told["queue"]["lastReconcile"]["generation"] == 1
    lines = operator.log(detector=f"{namespace}/gate", message="created")
    assert lines
    assert all(line["reconcile"] and line["generation"] == 1 for line in lines)
    [line] = operator.debug("detectors")
    assert line["detector"] == f"{namespace}/gate"
    assert line["conditions"]["Ready"] == "True (Serving)"
    with pytest.raises(KeyError):
        operator.debug(f"detectors/{namespace}/nobody")
    assert operator.probe(f"debug/detectors/{namespace}/gate") == 404, "on loopback only"


async def test_wrong_settings_are_named(new_operator: Callable[..., OperatorProcess]) -> None:
    operator = new_operator(YOLOFLEET_WORKERS="many")
    operator.start()
    assert operator.wait() == 2
    (line,) = operator.log(level="error")
    assert "YOLOFLEET_WORKERS" in line["message"]
    assert "many" in line["message"]


async def test_either_replica_serves_it_from_its_cache(
    new_operator: Callable[..., Any], make_detector: Any, namespace: str, eventually: Any
) -> None:
    await make_detector()
    reserved = ports.reserve(2)
    replicas = [new_operator(YOLOFLEET_FLEET_PORT=str(port)) for port in reserved]
    for replica in replicas:
        replica.start()
    for replica, port in zip(replicas, reserved, strict=True):
        await replica.ready()
        url = f"http://127.0.0.1:{port}/fleet.json"

        def asked(url: str = url) -> Any:
            with urllib.request.urlopen(url) as answer:
                return json.loads(answer.read())

        async def told(asked: Callable[[], Any] = asked) -> bool:
            answer = await asyncio.to_thread(asked)
            assert answer["doubt"] == ""
            known = {each["detector"]: each for each in answer["detectors"]}
            return bool(known[f"{namespace}/gate"]["revisions"])

        await eventually(told)
