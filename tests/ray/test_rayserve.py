"""The server on Ray Serve answers as it does alone, and Ray does with it what it promises."""

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from websockets.sync import client as websocket

from yoloserve.assembly import assemble
from yoloserve.settings import Settings

# What is deprecated in Ray is Ray's to mend.
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]

OURS = "yoloserve.rayserve:app"
STUB = "stub_engine.rayserve:app"


def told(answer: httpx.Response) -> tuple[int, Any]:
    """Return what may not depend on who answers, nor when."""
    return answer.status_code, without_times(answer.json())


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k != "timing_ms"}
    if isinstance(value, str) and value.startswith("{"):  # the output `json` of /v2
        return without_times(json.loads(value))
    return [without_times(each) for each in value] if isinstance(value, list) else value


async def test_the_answers_are_those_of_the_server(deployed, picture: bytes, tmp_path) -> None:
    deployed.apply(OURS, {"YOLOSERVE_REVISION": "gate-1234", "YOLOSERVE_NAME": "gate"})
    deployed.ready()
    alone = assemble(
        Settings(name="gate", revision="gate-1234", deadline_ms=60_000, cache_dir=tmp_path)
    )
    tensor = {
        "inputs": [
            {
                "name": "image",
                "shape": [1],
                "datatype": "BYTES",
                "parameters": {"binary_data_size": len(picture) + 4},
            }
        ]
    }
    head = json.dumps(tensor).encode()
    binary = head + len(picture).to_bytes(4, "little") + picture
    length = {"inference-header-content-length": str(len(head))}
    async with (
        alone.router.lifespan_context(alone),
        httpx.AsyncClient(transport=httpx.ASGITransport(alone), base_url="http://a") as server,
        httpx.AsyncClient(base_url=deployed.url, timeout=60) as rays,
    ):
        for method, path, content, headers in (
            ("POST", "/v1/detect", picture, {}),
            ("POST", "/v1/detect?classes=circle&confidence=0.5", picture, {}),
            ("POST", "/v1/detect", b"no picture", {}),
            ("POST", "/v1/detect?confidence=2", picture, {}),
            ("POST", "/v2/models/gate/infer", binary, length),
            ("GET", "/v2/models/gate", b"", {}),
            ("GET", "/v2/health/ready", b"", {}),
            ("GET", "/health/live", b"", {}),
            ("GET", "/health/ready", b"", {}),
            ("GET", "/nowhere", b"", {}),
        ):
            ask = {"content": content, "headers": headers}
            here = await server.request(method, path, **ask)
            there = await rays.request(method, path, **ask)
            assert told(there) == told(here), path
            assert there.headers.get("x-yolofleet-revision") == here.headers.get(
                "x-yolofleet-revision"
            )
            assert len(there.headers.get_list("x-request-id")) == 1


@pytest.mark.parametrize("cluster", ["haproxy"], indirect=True)
def test_haproxy_asks_the_replica_itself(cluster: Any, deployed, picture: bytes) -> None:
    deployed.apply(STUB, {})
    deployed.ready()

    def asked() -> int:
        assert deployed.detect(picture).status_code == 200
        told = httpx.get(f"http://127.0.0.1:{cluster.stats_port}/stats;csv").text
        rows = csv.DictReader(told.removeprefix("# ").splitlines())
        return sum(
            int(row["stot"])
            for row in rows
            if row["pxname"] == "http-detector"
            and row["svname"] != "BACKEND"
            and "fallback" not in row["svname"]
        )

    deployed.until("no proxy of Ray's is in between", asked)


def test_a_camera_streams_through_it(deployed, picture: bytes) -> None:
    deployed.apply(STUB, {})
    deployed.ready()
    address = f"ws://127.0.0.1:{deployed.port}/v1/stream"
    with websocket.connect(address, open_timeout=60, ping_interval=None) as camera:
        for number in range(3):
            camera.send(picture)
            answer = json.loads(camera.recv(timeout=60))
            assert (answer["frame"], len(answer["detections"])) == (number, 1)


def test_a_replica_tells_its_own_counters_on_ports_of_its_own(deployed, picture: bytes) -> None:
    deployed.apply(STUB, {"YOLOSERVE_REVISION": "gate-1234"})
    deployed.ready()
    for _ in range(3):
        assert deployed.detect(picture).status_code == 200
    look = f"http://127.0.0.1:{deployed.evidence}/evidence"
    evidence = httpx.get(look, timeout=60).json()
    assert (evidence["status"], evidence["revision"]) == ("ready", "gate-1234")
    assert evidence["images"] == 3
    metrics = httpx.get(f"http://127.0.0.1:{deployed.metrics}/metrics", timeout=60).text
    assert 'yoloserve_requests_total{outcome="ok",source="request"} 3.0' in metrics


def test_bounds_of_ray_s_queue_change_in_the_running_replica(deployed, picture: bytes) -> None:
    deployed.apply(STUB, {}, max_ongoing_requests=64)
    before = deployed.ready()
    deployed.change(max_ongoing_requests=5, max_queued_requests=3)
    deployed.ready()
    config = deployed.deployment()["deployment_config"]
    assert (config["max_ongoing_requests"], config["max_queued_requests"]) == (5, 3)
    (after,) = deployed.replicas()
    assert (after["pid"], after["replica_id"]) == (before["pid"], before["replica_id"])
    assert deployed.detect(picture).status_code == 200


def test_a_start_that_fails_ends_ray_s_message_with_our_reason(deployed) -> None:
    deployed.apply(OURS, {"YOLOSERVE_MODEL": "file:///nowhere/none.onnx"})

    def failed() -> str:
        details = deployed.details()
        return details.get("status") == "DEPLOY_FAILED" and deployed.deployment()["message"]

    message = deployed.until("the deployment fails", failed)
    assert message.strip().splitlines()[-1].startswith("yoloserve.errors.ModelNotFound: ")
    assert "/nowhere/none.onnx" in message.strip().splitlines()[-1]


def test_a_replica_whose_network_is_lost_is_replaced(deployed, picture: bytes) -> None:
    deployed.apply(STUB, {"YOLOSERVE_PROBE_INTERVAL_SECONDS": "0.1"})
    before = deployed.ready()
    deployed.behave(failures=1)

    def another() -> bool:
        return [each for each in deployed.replicas() if each["pid"] != before["pid"]] != []

    deployed.until("another replica runs", another)
    deployed.behave(failures=0)
    deployed.until("it answers", lambda: deployed.detect(picture).status_code == 200)


def test_who_is_inside_has_an_answer_before_a_replica_ends(deployed, picture: bytes) -> None:
    deployed.apply(STUB, {}, graceful_shutdown_timeout_s=60, graceful_shutdown_wait_loop_s=0.2)
    deployed.ready()
    deployed.behave(service_ms=3000)
    with ThreadPoolExecutor(1) as beside:
        asked = beside.submit(deployed.detect, picture)
        look = f"http://127.0.0.1:{deployed.evidence}/evidence"
        deployed.until("it is inside", lambda: httpx.get(look).json()["load"]["inside"] == 1)
        deployed.client.delete_apps(["detector"])
        assert asked.result().status_code == 200
    assert deployed.details() == {}
