"""The pods of many detectors in one process, on loopback addresses: counters that go on."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ctypes import c_int
from multiprocessing.sharedctypes import Synchronized
from typing import Any, Final, Protocol

from aiohttp import web

from played_pods import Server
from yolofleet.cluster.sampler import PORT

CLASSES: Final = [f"class-{number}" for number in range(12)]
FRAMES_A_LOOK: Final = 200  # twenty a second


class _Event(Protocol):
    def set(self) -> None:
        """Say that it has happened."""


@contextmanager
def played(revisions: Mapping[str, str]) -> Iterator[Synchronized[int]]:
    """Answer as the pods at these addresses, each of its revision, until the block is left.

    Yields the requests that each has had more, whenever it is asked again; it may be set.
    """
    spawn = multiprocessing.get_context("spawn")
    listening, requests = spawn.Event(), spawn.Value(c_int, FRAMES_A_LOOK)
    pods = spawn.Process(target=_serve, args=(dict(revisions), requests, listening), daemon=True)
    pods.start()
    try:
        if not listening.wait(60):
            raise SystemExit(f"port {PORT} of this machine is taken")
        yield requests
    finally:
        pods.terminate()
        pods.join()


def _serve(revisions: dict[str, str], requests: Synchronized[int], listening: _Event) -> None:
    pods = {
        address: Server(address, revision, capacity=25.0, tells_load=True)
        for address, revision in revisions.items()
    }
    asyncio.run(_answer(pods, requests, listening.set))


async def _answer(
    pods: dict[str, Server], requests: Synchronized[int], ready: Callable[[], None]
) -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.transport
        pod = pods[request.transport.get_extra_info("sockname")[0]]
        _go_on(pod, requests.value)
        return web.Response(body=pod.evidence(), content_type="application/json")

    app = web.Application()
    app.router.add_get("/evidence", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", PORT).start()
    ready()
    await asyncio.Event().wait()


def _go_on(pod: Server, requests: int) -> None:
    for name in CLASSES:
        pod.pair(name, 50, 49, size=1)
        pod.pair(name, 10, 9, size=0)
    pod.frame(FRAMES_A_LOOK, blind=1)
    for bucket, count in ((20, 20), (24, 120), (28, 50), (33, 10)):
        pod.times[bucket] += count
        for arm in pod.compute.values():
            arm[bucket] += count
    pod.requests["ok"] += requests


def status(address: str, container: str, **more: Any) -> dict[str, Any]:
    """Return what a kubelet tells of a pod that is ready and has this address."""
    return {
        "podIP": address,
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": container, "restartCount": 0} | more],
    }
