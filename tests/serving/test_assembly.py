"""The server in another host: below a prefix of an application that knows nothing of it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from yoloserve.assembly import assemble
from yoloserve.errors import ModelNotFound
from yoloserve.http.serving import serving_of
from yoloserve.settings import Settings

KEY = "correct-horse-battery"


@pytest.fixture
def settings(make_model: Callable[..., str], tmp_path) -> Settings:
    keys = tmp_path / "keys"
    keys.write_text(f"gate {KEY}\n")
    return Settings(
        model=make_model(),
        name="gate",
        revision="gate-1234",
        deadline_ms=60_000,
        cache_dir=tmp_path / "cache",
        api_keys_file=keys,
        metrics_open=True,
    )


def host_of(app: FastAPI) -> Starlette:
    """Mount it at /cams/gate in a host that runs no lifespan but its own."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with serving_of(app).running():
            yield

    return Starlette(routes=[Mount("/cams/gate", app)], lifespan=lifespan)


@asynccontextmanager
async def hosted(settings: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, FastAPI]]:
    app = assemble(settings)
    host = host_of(app)
    transport = httpx.ASGITransport(host, raise_app_exceptions=False)
    async with (
        host.router.lifespan_context(host),
        httpx.AsyncClient(transport=transport, base_url="http://host/cams/gate") as client,
    ):
        yield client, app


async def test_below_a_prefix_it_answers_guards_and_counts_as_at_the_root(settings, jpeg) -> None:
    known = {"X-Api-Key": KEY}
    async with hosted(settings) as (client, _):
        answer = await client.post("/v1/detect", content=jpeg, headers=known)
        assert [found["name"] for found in answer.json()["detections"]] == ["circle", "star"]
        assert answer.headers["x-yolofleet-revision"] == "gate-1234"
        assert (await client.post("/v1/detect", content=jpeg)).status_code == 401
        assert (await client.get("/health/ready")).json() == {"status": "ready"}  # probes: never
        assert (await client.head("/health/live")).status_code == 200
        metadata = await client.get("/v2/models/gate", headers=known)
        assert metadata.json()["name"] == "gate"
        told = await client.post("/v2/models/gate/infer", content=b"", headers=known)
        assert isinstance(told.json()["error"], str)  # as its protocol has it
        assert (await client.get("/openapi.json", headers=known)).json()["servers"] == [
            {"url": "./"}
        ]
        assert "<" in (await client.get("/", headers=known)).text
        text = (await client.get("/metrics")).text
        assert 'yoloserve_requests_total{outcome="ok"} 1.0' in text
        assert 'yoloserve_requests_total{outcome="unauthorized"} 1.0' in text
        assert 'http_route="/v1/detect"' in text


async def test_its_host_can_drain_it_and_ask_how_it_is(settings, jpeg) -> None:
    async with hosted(settings) as (client, app):
        serving = serving_of(app)
        assert serving.status() == "ready"
        serving.drain()
        assert serving.status() == "draining"
        assert (await client.get("/health/ready")).status_code == 503
        answer = await client.post("/v1/detect", content=jpeg, headers={"X-Api-Key": KEY})
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert b'yoloserve_requests_total{outcome="ok"} 1.0' in serving.metrics.text()
        serving.watch.failed = 1
        assert serving.status() == "blind"


def test_by_its_own_lifespan_any_host_warms_it_up_and_ends_it(settings, jpeg) -> None:
    app = assemble(settings)
    serving = serving_of(app)
    assert serving.detector.batcher.capacity_per_s == float("inf")
    with TestClient(app) as client:
        assert serving.detector.batcher.capacity_per_s < float("inf")
        with client.websocket_connect("/v1/stream", headers={"X-Api-Key": KEY}) as camera:
            camera.send_bytes(jpeg)
            assert len(camera.receive_json()["detections"]) == 2
    with pytest.raises(RuntimeError, match="shutdown"):  # its threads have ended
        serving.detector._threads._pool.submit(len, ())


def test_a_camera_streams_below_a_prefix(settings, jpeg) -> None:
    with (
        TestClient(host_of(assemble(settings))) as client,
        client.websocket_connect("/cams/gate/v1/stream", headers={"X-Api-Key": KEY}) as camera,
    ):
        camera.send_bytes(jpeg)
        assert len(camera.receive_json()["detections"]) == 2


def test_what_cannot_be_served_is_said_before_there_is_an_application(settings, tmp_path) -> None:
    absent = settings.model_copy(update={"model": (tmp_path / "none.onnx").as_uri()})
    with pytest.raises(ModelNotFound):
        assemble(absent)
