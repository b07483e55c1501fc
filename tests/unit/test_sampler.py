"""Who is looked at when, and what a pod may answer: one that hangs or swells harms itself alone."""

import asyncio
import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from played_pods import CANARY, STABLE, Server
from yolofleet.analysis.evidence import MOST_BYTES
from yolofleet.api.analysis import Analysis, Stage
from yolofleet.cluster.cache import Cache
from yolofleet.cluster.sampler import Sampler, fetch_with, to_pods
from yolofleet.plan.judging import Subject, Trial
from yolofleet.workloads.pods import restarts

SUBJECT = Subject(Trial(CANARY, STABLE, Stage.DARK, 0, 1), Analysis(), None, "", "", False)
HANGING = 100


def a_pod(address: str, revision: str) -> dict[str, Any]:
    return {
        "metadata": {"uid": address, "labels": {"yolofleet.io/revision": revision}},
        "status": {"podIP": address, "conditions": [{"type": "Ready", "status": "True"}]},
    }


class Pods:
    """A cache of pods: `shop/hangs` has many that never answer, `shop/gate` two that do."""

    def pods(self, key: str) -> list[dict[str, Any]]:
        if key == "shop/hangs":
            return [a_pod(f"10.0.0.{n}", CANARY) for n in range(HANGING)]
        return [a_pod("10.1.0.1", STABLE), a_pod("10.1.0.2", CANARY)]


@contextmanager
def running(work: Any) -> Iterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()


async def test_pods_that_hang_delay_the_looks_at_no_other_detector() -> None:
    now, asked, looked = 0.0, 0, asyncio.Event()

    async def fetch(url: str) -> bytes:
        nonlocal now, asked
        if "//10.0." in url:
            await asyncio.Event().wait()
        now, asked = now + 10, asked + 1  # it is due again, so that it is looked at again
        if asked == 8:
            looked.set()
        return Server("", STABLE if "10.1.0.1" in url else CANARY).evidence()

    sampler = Sampler(
        cast(Cache, Pods()), fetch, wake=lambda _: None, now=lambda: datetime.now(UTC),
        clock=lambda: now,
    )  # fmt: skip
    sampler.follow("shop/hangs", SUBJECT)
    sampler.follow("shop/gate", SUBJECT)
    with running(sampler.run()):
        async with asyncio.timeout(60):
            await looked.wait()
    assert sampler.found("shop/hangs") is None


async def answered(handler: Any) -> Any:
    app = web.Application()
    app.router.add_get("/evidence", handler)
    async with TestServer(app) as server, to_pods() as session:
        return await fetch_with(session)(str(server.make_url("/evidence")))


async def test_what_a_pod_packs_is_not_unpacked() -> None:
    """A few bytes may be gigabytes: the operator has 256 MiB."""
    packed = gzip.compress(bytes(2**26))

    async def handler(request: web.Request) -> web.Response:
        assert request.headers["accept-encoding"] == "identity"
        return web.Response(body=packed, headers={"content-encoding": "gzip"})

    assert await answered(handler) == packed


async def test_of_what_is_too_long_no_more_is_read_than_shows_that() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(2**16))

    assert MOST_BYTES < len(await answered(handler)) <= MOST_BYTES + 2**17


@pytest.mark.parametrize("status", [301, 404, 500])
async def test_what_is_no_answer_is_none_wherever_it_leads(status: int) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"location": "/evidence", "set-cookie": "a=b"})

    with pytest.raises(aiohttp.ClientError, match=str(status)):
        await answered(handler)


def test_what_runs_beside_the_server_restarts_for_its_own_reasons() -> None:
    told = [{"name": "yoloserve", "restartCount": 1}, {"name": "istio-proxy", "restartCount": 7}]
    assert restarts({"metadata": {}, "status": {"containerStatuses": told}}) == 1
