"""The pods of many releases in one process, on loopback addresses: counters that go on."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from played_pods import CANARY, STABLE, Server
from yolofleet.cluster.sampler import PORT

CLASSES: Final = [f"class-{number}" for number in range(12)]
FRAMES_A_LOOK: Final = 200  # twenty a second


def addresses(number: int) -> list[tuple[str, str]]:
    """Return address and revision of each pod of a release."""
    return [
        (f"127.{arm}.{number // 250}.{number % 250 + 1}", revision)
        for arm, revision in ((1, STABLE), (2, CANARY))
    ]


def serve(releases: int, listening: Any) -> None:
    """Answer until the process is ended; set `listening` first."""
    pods = {
        address: Server(address, revision, capacity=25.0, tells_load=True)
        for number in range(releases)
        for address, revision in addresses(number)
    }
    asyncio.run(_answer(pods, listening.set))


async def _answer(pods: dict[str, Server], ready: Callable[[], None]) -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.transport
        pod = pods[request.transport.get_extra_info("sockname")[0]]
        _go_on(pod)
        return web.Response(body=pod.evidence(), content_type="application/json")

    app = web.Application()
    app.router.add_get("/evidence", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", PORT).start()
    ready()
    await asyncio.Event().wait()


def _go_on(pod: Server) -> None:
    for name in CLASSES:
        pod.pair(name, 50, 49, size=1)
        pod.pair(name, 10, 9, size=0)
    pod.frame(FRAMES_A_LOOK, blind=1)
    for bucket, count in ((20, 20), (24, 120), (28, 50), (33, 10)):
        pod.times[bucket] += count
        for arm in pod.compute.values():
            arm[bucket] += count
    pod.requests["ok"] += FRAMES_A_LOOK
