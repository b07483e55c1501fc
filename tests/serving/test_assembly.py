"""The server in another host: below a prefix of an application that knows nothing of it."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from yoloserve.assembly import assemble
from yoloserve.errors import ModelNotFound
from yoloserve.http.middleware import AsAtTheRoot
from yoloserve.http.serving import serving_of
from yoloserve.settings import Settings

KEY = "correct-horse-battery"
ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/guides/serving.md"
PICTURE = ROOT / "examples/images/shapes-1.jpg"
CODE = re.compile(r"```python\n(.*?)```", re.S)


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
        assert 'yoloserve_requests_total{outcome="ok",source="request"} 1.0' in text
        assert 'yoloserve_requests_total{outcome="unauthorized",source="request"} 1.0' in text
        assert 'http_route="/v1/detect"' in text


@pytest.mark.parametrize(
    ("prefix", "path", "inside"),
    [
        ("", "/v1/detect", "/v1/detect"),
        ("/gate", "/gate/v1/detect", "/v1/detect"),
        ("/gate/", "/gate/v1/detect", "/v1/detect"),
        ("/gate", "/gate", "/"),
        ("/gate", "/v1/detect", "/v1/detect"),  # the host has taken it off
        ("/gate", "/gatekeeper", "/gatekeeper"),
        ("/", "/v1/detect", "/v1/detect"),
    ],
)
async def test_whatever_hosts_say_of_their_prefix_routes_see_their_own_paths(
    prefix: str, path: str, inside: str
) -> None:
    seen: list[Scope] = []

    async def routes(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope)

    scope = {"type": "websocket", "path": path, "root_path": prefix}
    await AsAtTheRoot(routes)(dict(scope), None, None)  # type: ignore[arg-type]
    assert [(each["path"], each["root_path"]) for each in seen] == [(inside, "")]


async def test_its_host_can_drain_it_and_ask_how_it_is(settings, jpeg) -> None:
    async with hosted(settings) as (client, app):
        serving = serving_of(app)
        assert serving.status() == "ready"
        serving.drain()
        assert serving.status() == "draining"
        assert (await client.get("/health/ready")).status_code == 503
        answer = await client.post("/v1/detect", content=jpeg, headers={"X-Api-Key": KEY})
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert (
            b'yoloserve_requests_total{outcome="ok",source="request"} 1.0' in serving.metrics.text()
        )
        serving.watch.failed = 1
        assert serving.status() == "blind"


async def test_by_its_own_lifespan_any_host_warms_it_up_and_ends_it(settings) -> None:
    app = assemble(settings)
    serving, detector = serving_of(app), serving_of(app).detector
    assert (serving.status(), serving.core.capacity_per_s) == ("starting", float("inf"))
    async with app.router.lifespan_context(app):
        assert serving.status() == "ready"
        assert serving.core.capacity_per_s < float("inf")
        assert await detector.off_loop(len, "four") == 4
    assert serving.status() == "draining"
    with pytest.raises(RuntimeError, match="shutdown"):  # its threads have ended
        await detector.off_loop(len, "four")


async def test_a_camera_streams_below_a_prefix(settings, stream_to, jpeg: bytes) -> None:
    host = host_of(assemble(settings))

    async def below(scope: Scope, receive: Receive, send: Send) -> None:
        await host({**scope, "path": f"/cams/gate{scope['path']}"}, receive, send)

    async with host.router.lifespan_context(host):
        camera = stream_to(SimpleNamespace(app=below), **{"x-api-key": KEY})
        camera.send(jpeg)
        assert len((await camera.receive())["detections"]) == 2
        await camera.leave()


def test_what_cannot_be_served_is_said_before_there_is_an_application(settings, tmp_path) -> None:
    absent = settings.model_copy(update={"model": (tmp_path / "none.onnx").as_uri()})
    with pytest.raises(ModelNotFound):
        assemble(absent)


async def test_the_guide_shows_how_to_mount_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("YOLOSERVE_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("YOLOSERVE_DEADLINE_MS", "60000")
    (code,) = (each for each in CODE.findall(GUIDE.read_text()) if "assemble" in each)
    shown: dict[str, Any] = {}
    exec(code, shown)
    host = shown["host"]
    transport = httpx.ASGITransport(host)
    async with (
        host.router.lifespan_context(host),
        httpx.AsyncClient(transport=transport, base_url="http://host") as client,
    ):
        answer = await client.post("/cams/gate/v1/detect", content=PICTURE.read_bytes())
    assert answer.json()["detections"]
