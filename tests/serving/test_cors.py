"""Pages of other sites: off by default; those that are named read every answer, errors included."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from yoloserve.errors import InvalidSettings
from yoloserve.origins import may_stream
from yoloserve.settings import Settings

KEY = "correct-horse-battery"
APP, EVIL = "https://app.example.com", "https://evil.example.com"
ALLOWED, CREDENTIALS = "access-control-allow-origin", "access-control-allow-credentials"
PRIVATE = "access-control-allow-private-network"
NAMED = {"cors_origins": (APP, "http://localhost:3000")}


async def preflight(served: Any, origin: str = APP, **asked: str) -> Any:
    return await served.client.options(
        "/v1/detect",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,x-camera-id,x-anything",
            **asked,
        },
    )


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(f"gate {KEY}\n")
    return file


async def test_other_sites_are_told_nothing_by_default(serve, jpeg: bytes) -> None:
    async with serve() as served:
        answer = await served.detect(jpeg, origin=APP)
        assert answer.status_code == 200
        assert not [name for name in answer.headers if "access-control" in name or name == "vary"]
        assert (await preflight(served)).status_code == 405


async def test_a_browser_may_ask_whether_it_may_without_credentials(serve, keys: Path) -> None:
    async with serve(api_keys_file=keys, **NAMED) as served:
        answer = await preflight(served, **{"Access-Control-Request-Private-Network": "true"})
        assert answer.status_code == 200
        assert answer.headers[ALLOWED] == APP
        assert answer.headers[CREDENTIALS] == answer.headers[PRIVATE] == "true"
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert "x-anything" in answer.headers["access-control-allow-headers"]
        assert "Origin" in answer.headers["vary"]
        assert "x-request-id" in answer.headers
        foreign = await preflight(served, EVIL)
        assert foreign.status_code == 400
        assert ALLOWED not in foreign.headers


async def test_a_named_page_reads_answers_and_who_gave_them(serve, jpeg: bytes) -> None:
    async with serve(**NAMED) as served:
        answer = await served.detect(jpeg, origin=APP)
        assert answer.headers[ALLOWED] == APP
        readable = answer.headers["access-control-expose-headers"].lower()
        for header in ("x-request-id", "traceparent", "x-yolofleet-revision", "retry-after"):
            assert header in readable
        foreign = await served.detect(jpeg, origin=EVIL)
        assert ALLOWED not in foreign.headers
        assert foreign.headers["vary"] == "Origin"  # or a cache hands one site's to the other


async def unauthorized(served: Any, _: bytes) -> Any:
    return await served.client.post("/v1/detect", headers={"Origin": APP})


async def too_large(served: Any, jpeg: bytes) -> Any:
    served.asked.bodies._max_bytes = 10
    return await served.detect(jpeg, origin=APP, authorization=f"Bearer {KEY}")


async def over_quota(served: Any, jpeg: bytes) -> Any:
    served.asked.settings = served.asked.settings.model_copy(update={"quota_per_second": 1e-3})
    await served.detect(jpeg, authorization=f"Bearer {KEY}")
    return await served.detect(jpeg, origin=APP, authorization=f"Bearer {KEY}")


async def overloaded(served: Any, jpeg: bytes) -> Any:
    served.core.admission._limit = lambda: 0
    return await served.detect(jpeg, origin=APP, authorization=f"Bearer {KEY}")


async def broken(served: Any, jpeg: bytes) -> Any:
    served.backend.fails = RuntimeError("broken")
    return await served.detect(jpeg, origin=APP, authorization=f"Bearer {KEY}")


async def not_there(served: Any, _: bytes) -> Any:
    headers = {"Origin": APP, "Authorization": f"Bearer {KEY}"}
    return await served.client.get("/nowhere", headers=headers)


@pytest.mark.parametrize(
    ("ask", "status"),
    [
        (unauthorized, 401),
        (not_there, 404),
        (too_large, 413),
        (over_quota, 429),
        (broken, 500),
        (overloaded, 503),
    ],
)
async def test_a_named_page_reads_errors(
    serve, jpeg: bytes, keys: Path, ask: Callable[..., Any], status: int
) -> None:
    async with serve(api_keys_file=keys, **NAMED) as served:
        answer = await ask(served, jpeg)
        assert answer.status_code == status
        assert answer.headers[ALLOWED] == APP
        assert answer.headers[CREDENTIALS] == "true"
        assert "x-request-id" in answer.headers["access-control-expose-headers"].lower()
        assert "x-request-id" in answer.headers
        assert answer.json()["error"]["code"]


async def test_where_all_pages_may_ask_none_has_the_browsers_credentials(serve, jpeg) -> None:
    async with serve(cors_origins=("*",)) as served:
        for answer in (await served.detect(jpeg, origin=EVIL), await preflight(served, EVIL)):
            assert answer.status_code == 200
            assert answer.headers[ALLOWED] == "*"
            assert CREDENTIALS not in answer.headers
        private = await preflight(served, **{"Access-Control-Request-Private-Network": "true"})
        assert private.status_code == 400
        assert PRIVATE not in private.headers


@pytest.mark.parametrize(
    ("origin", "origins", "open_", "may"),
    [
        (None, (), True, True),  # no browser
        ("https://gate.example.com", (), False, True),  # the server's own page
        (APP, (), True, False),
        (APP, (APP,), False, True),
        (EVIL, (APP,), True, False),
        (EVIL, ("*",), True, True),
        (EVIL, ("*",), False, False),  # the browser would send a password that was typed in
        ("null", (APP,), True, False),
        ("http://[", (APP,), True, False),
    ],
)
def test_streams_are_for_pages_that_may_ask(origin, origins, open_, may) -> None:
    assert may_stream(origin, "gate.example.com", frozenset(origins), open_) is may


async def test_a_named_page_opens_a_stream(serve, stream_to, jpeg: bytes) -> None:
    async with serve(**NAMED) as served:
        camera = stream_to(served, origin=APP, host="gate.example.com")
        camera.send(jpeg)
        assert "detections" in await camera.receive()
        await camera.leave()


@pytest.mark.parametrize(
    "origins",
    [
        '["app.example.com"]',
        '["https://app.example.com/"]',
        '["https://App.example.com"]',
        '["https://app.example.com:443"]',
        '["https://*.example.com"]',
        '["null"]',
        '["*", "https://app.example.com"]',
        "https://app.example.com",
    ],
)
def test_what_no_browser_would_send_is_no_origin(origins: str) -> None:
    with pytest.raises(InvalidSettings, match="YOLOSERVE_CORS_ORIGINS"):
        Settings.read(cors_origins=origins)


@pytest.mark.parametrize("origin", [APP, "http://[::1]:3000", "capacitor://localhost", "*"])
def test_origins_are_taken_as_browsers_write_them(origin: str) -> None:
    assert Settings.read(cors_origins=f'["{origin}"]').cors_origins == (origin,)
