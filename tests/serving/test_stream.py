"""`/v1/stream` on a real socket, and the newest frame that wins on one that is not."""

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync import client

from yoloserve.access import credentials, keys
from yoloserve.access.clients import Client
from yoloserve.errors import KeysUnavailable, Unauthorized
from yoloserve.http.routes import stream
from yoloserve.http.schemas import StreamResponse

KEY = "correct-horse-battery"
connect = partial(client.connect, open_timeout=60, ping_interval=None)  # a busy server is late


@pytest.fixture(scope="module")
def url(run_server, make_model) -> str:
    server = run_server(model=make_model(), name="gate", max_body_bytes=100_000, max_streams=2)
    return server.logged("ready")["url"].replace("http:", "ws:") + "v1/stream"


def test_each_frame_is_answered_in_order(url: str, jpeg: bytes) -> None:
    with connect(url) as socket:
        for number in range(5):
            socket.send(jpeg)
            told = json.loads(socket.recv())
            assert (told["frame"], told["skipped"]) == (number, 0)
            assert [found["name"] for found in told["detections"]] == ["circle", "star"]
            Draft202012Validator(StreamResponse.model_json_schema()).validate(told)


def test_a_frame_that_is_refused_does_not_end_the_stream(url: str, jpeg: bytes) -> None:
    with connect(url + "?classes=star&camera_id=gate&agnostic_nms=true") as socket:
        for frame, code in ((b"", "unsupported_media_type"), (jpeg[:99], "invalid_image")):
            socket.send(frame)
            assert json.loads(socket.recv())["error"]["code"] == code
        socket.send(jpeg)
        assert len(json.loads(socket.recv())["detections"]) == 1


def test_a_deadline_counts_for_each_frame(url: str, jpeg: bytes) -> None:
    for given in (
        {"uri": url + "?deadline_ms=0.001"},
        {"additional_headers": {"X-Deadline-Ms": ".001"}},
    ):
        with connect(**({"uri": url} | given)) as socket:
            socket.send(jpeg)
            assert json.loads(socket.recv())["error"]["code"] == "deadline_exceeded"


@pytest.mark.parametrize(("message", "code"), [("text", 1003), (bytes(200_000), 1009)])
def test_what_is_no_frame_ends_it(url: str, message: str | bytes, code: int) -> None:
    with connect(url) as socket:
        socket.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=60)
    assert closed.value.rcvd.code == code


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("?confidence=7", "confidence: Input should be less than or equal to 1, not '7'"),
        ("?deadline_ms=0", "deadline_ms: Input should be greater than 0, not '0'"),
        ("?deadline_ms=soon", "deadline_ms: "),
        (f"?camera_id={'a' * 129}", "camera_id: "),
        ("?classes=none", "none"),
        ("?foo=1", "foo"),
    ],
)
def test_a_wrong_option_is_refused_at_once(url: str, query: str, told: str) -> None:
    with pytest.raises(InvalidStatus) as refused, connect(url + query):
        pass
    error = json.loads(refused.value.response.body)["error"]
    assert (refused.value.response.status_code, error["code"]) == (400, "invalid_parameter")
    assert told in error["message"]


def test_a_stream_that_is_refused_is_no_fault_of_the_servers(run_server, make_model) -> None:
    server = run_server(model=make_model(), max_streams=1)
    url = server.logged("ready")["url"].replace("http:", "ws:") + "v1/stream"
    with connect(url):
        for query, origin in (
            ("", None),
            ("?classes=none", None),
            ("", "https://evil.example.com"),
        ):
            with pytest.raises(InvalidStatus), connect(url + query, origin=origin):
                pass
    server.terminate()
    assert [line for line in server.process.stderr if '"level":"error"' in line] == []


def test_other_sites_may_not_use_a_visitors_network(url: str) -> None:
    host = url.split("/")[2]
    with connect(url, origin=f"http://{host}"):
        pass
    with pytest.raises(InvalidStatus) as refused, connect(url, origin="https://evil.example.com"):
        pass
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body)["error"]["code"] == "foreign_origin"


def test_streams_are_bounded(url: str, jpeg: bytes) -> None:
    metrics = url.replace("ws:", "http:").replace("v1/stream", "metrics")
    while "yoloserve_streams 0.0" not in httpx.get(metrics, timeout=60).text:
        pass  # until the server has heard that those of other tests left
    with connect(url) as one, connect(url):
        with pytest.raises(InvalidStatus) as refused, connect(url):
            pass
        assert refused.value.response.status_code == 503
        one.send(jpeg)
        assert "detections" in json.loads(one.recv())


def test_a_stream_needs_a_key_where_one_is_asked_for(
    run_server, make_model, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"gate {KEY}\n")
    server = run_server(model=make_model(), api_keys_file=keys)
    url = server.logged("ready")["url"].replace("http:", "ws:") + "v1/stream"
    with pytest.raises(InvalidStatus) as refused, connect(url):
        pass
    assert refused.value.response.status_code == 401
    assert "Bearer" in refused.value.response.headers["www-authenticate"]
    with connect(url, additional_headers={"Authorization": f"Bearer {KEY}"}):
        pass


def test_a_leaving_server_asks_streams_to_come_again(run_server, make_model, jpeg) -> None:
    server = run_server(model=make_model(), drain_seconds=3600)
    url = server.logged("ready")["url"].replace("http:", "ws:") + "v1/stream"
    with connect(url) as busy, connect(url) as idle:
        server.terminate()
        server.logged("draining")
        busy.send(jpeg)
        assert "detections" in json.loads(busy.recv())
        with pytest.raises(ConnectionClosed) as closed:
            busy.recv(timeout=60)
        assert closed.value.rcvd.code == 1012
        server.terminate()  # asked again, it does not wait for the end of the hour
        with pytest.raises(ConnectionClosed) as closed:
            idle.recv(timeout=60)
        assert closed.value.rcvd.code == 1012
    assert server.process.wait(60) == 0


async def test_the_newest_frame_wins(serve, stream_to, backend, jpeg: bytes) -> None:
    async with serve() as served:
        backend.may_run.clear()
        backend.started.clear()
        camera = stream_to(served)
        camera.send(jpeg)
        await asyncio.to_thread(backend.started.wait)
        for _ in range(6):
            camera.send(jpeg)
        while not camera._in.empty():  # noqa: ASYNC110 (a queue of the fake, read without a wait)
            await asyncio.sleep(0)
        assert served.asked.bodies.held == 2 * len(jpeg)
        backend.may_run.set()
        first, second = await camera.receive(), await camera.receive()
        assert (first["frame"], first["skipped"]) == (0, 0)
        assert (second["frame"], second["skipped"]) == (6, 5)
        await camera.leave()
        assert served.asked.bodies.held == 0
        while served.serving.streams.taken:  # noqa: ASYNC110 (of this loop alone)
            await asyncio.sleep(0)


async def test_a_camera_that_leaves_frees_its_place(serve, stream_to, backend, jpeg: bytes) -> None:
    async with serve() as served:
        backend.may_run.clear()
        backend.started.clear()
        camera = stream_to(served)
        camera.send(jpeg)
        await asyncio.to_thread(backend.started.wait)
        assert served.core.admission.inside == 1
        await camera.leave()
        assert served.asked.bodies.held == 0
        while served.core.admission.inside:  # noqa: ASYNC110 (of this loop alone)
            await asyncio.sleep(0)
        backend.may_run.set()


async def test_frames_count_against_the_quota(serve, stream_to, clock, jpeg: bytes) -> None:
    async with serve(clock=clock, quota_per_second=2) as served:
        camera = stream_to(served)
        codes = []
        for seconds in (0, 0, 0, 1):
            clock.now += seconds
            camera.send(jpeg)
            codes.append((await camera.receive()).get("error", {}).get("code"))
        assert codes == [None, None, "over_quota", None]
        await camera.leave()


def cut(served: Any, reason: str) -> float:
    told = {"reason": reason}
    return served.serving.metrics.registry.get_sample_value("yoloserve_connections_cut_total", told)


async def test_a_stream_that_sends_no_frame_is_closed(serve, stream_to, jpeg: bytes) -> None:
    async with serve(stream_idle_seconds=0.01) as served:
        silent = stream_to(served)
        assert await silent.end() == (3008, "no frame came for 0.01 s")
        sent_one = stream_to(served)
        sent_one.send(jpeg)
        assert (await sent_one.end())[0] == 3008
        while served.serving.streams.taken:  # noqa: ASYNC110 (of this loop alone)
            await asyncio.sleep(0)
        assert cut(served, "stream_idle") == 2


async def test_nothing_is_sent_after_the_close(
    serve, stream_to, backend, monkeypatch: pytest.MonkeyPatch, jpeg: bytes
) -> None:
    """An answer that becomes ready while the close is on its way has nowhere to go."""
    async with serve() as served:
        backend.may_run.clear()
        backend.started.clear()
        camera = stream_to(served)
        camera.send(jpeg)
        await asyncio.to_thread(backend.started.wait)

        async def until_the_answer_is_there() -> None:
            backend.may_run.set()
            while served.core.admission.inside:  # noqa: ASYNC110 (nothing tells of it)
                await asyncio.sleep(0)
            for _ in range(20):
                await asyncio.sleep(0)

        monkeypatch.setattr(camera, "closing", until_the_answer_is_there)
        camera.push(type="websocket.receive", text="no frame")
        assert (await camera.end())[0] == 1003
        assert served.asked.bodies.held == 0
        backend.may_run.set()


@pytest.fixture
def asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "ASK_AGAIN_S", 0)
    monkeypatch.setattr(keys, "LOOK_AGAIN_S", 0)


@pytest.mark.usefixtures("asked_at_once")
async def test_a_stream_ends_when_its_key_is_revoked_whether_frames_come_or_not(
    serve, stream_to, tmp_path: Path, jpeg: bytes
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"gate {KEY}\nyard {KEY[::-1]}\n")
    async with serve(api_keys_file=keys) as served:
        gate = stream_to(served, authorization=f"Bearer {KEY}")
        yard = stream_to(served, authorization=f"Bearer {KEY[::-1]}")
        for camera in (gate, yard):
            camera.send(jpeg)
            assert "detections" in await camera.receive()
        keys.write_text(f"yard {KEY[::-1]}\n")
        assert await gate.end() == (1008, "the API key is not known here")
        yard.send(jpeg)
        assert "detections" in await yard.receive()
        await yard.leave()
        assert cut(served, "stream_unauthorized") == 1


@pytest.mark.usefixtures("asked_at_once")
async def test_a_stream_outlives_an_issuer_that_does_not_answer_but_not_its_token(
    serve, stream_to, tmp_path: Path, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Exception | Client] = [
        Client("gate"),
        KeysUnavailable("the keys cannot be read now"),
        Client("gate", per_second=1e-3),
        Unauthorized("the token is not valid: " + "é" * 200),
    ]

    async def client(*_: Any) -> Client:
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    keys = tmp_path / "keys"
    keys.write_text(f"gate {KEY}\n")
    monkeypatch.setattr(credentials.Access, "client", client)
    async with serve(api_keys_file=keys) as served:
        code, reason = await stream_to(served).end()
        assert code == 1008
        assert reason.startswith("the token is not valid: éé")
        assert len(reason.encode()) <= 123
        assert answers == []


async def test_streams_are_counted(serve, stream_to, jpeg: bytes) -> None:
    async with serve() as served:
        camera = stream_to(served)
        camera.send(jpeg)
        await camera.receive()
        text = (await served.client.get("/metrics")).text
        assert "yoloserve_streams 1.0" in text
        assert 'yoloserve_connections_cut_total{reason="stream_idle"} 0.0' in text
        await camera.leave()
