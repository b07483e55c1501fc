"""What the operator believes is for whoever forwards to its pod, and for no page of others."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from yolofleet.probes import Beliefs, serve_beliefs


@pytest.fixture
async def debug() -> AsyncIterator[str]:
    async def one(key: str) -> object:
        return {"detector": key}

    runner = await serve_beliefs(Beliefs(lambda: [{"detector": "shop/gate"}], one), 0)
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/debug/detectors"
    await runner.cleanup()


@pytest.mark.parametrize("path", ["", "/shop/gate"])
@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:8082", 200), ("localhost:9", 200), ("evil.example:8082", 403), ("10.0.0.7", 403)],
)
async def test_a_name_that_was_bent_to_loopback_is_told_nothing(
    debug: str, path: str, host: str, status: int
) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(debug + path, headers={"Host": host}) as answer,
    ):
        assert answer.status == status
        assert ("shop/gate" in await answer.text()) == (status == 200)
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
