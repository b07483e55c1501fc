"""What may be asked of this process over HTTP: its metrics, its health, and what it believes."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from yolofleet.loopback import ADDRESS, only_local_names

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Probes:
    """What the probes ask. Each returns what is wrong, or nothing."""

    alive: Callable[[], str]
    ready: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Beliefs:
    """What a person may ask: a line for each detector, or all about "namespace/name"."""

    all: Callable[[], Any]
    one: Callable[[str], Awaitable[Any]]


async def serve(metrics: CollectorRegistry, probes: Probes, port: int) -> web.AppRunner:
    """Serve /metrics, /healthz and /readyz on `port`; the caller cleans the runner up."""

    async def scrape(_: web.Request) -> web.Response:
        body = generate_latest(metrics)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    def probe(question: Callable[[], str]) -> Callable[[web.Request], Any]:
        async def answer(_: web.Request) -> web.Response:
            wrong = question()
            return web.Response(text=wrong or "ok", status=503 if wrong else 200)

        return answer

    app = web.Application()
    app.router.add_get("/metrics", scrape)
    app.router.add_get("/healthz", probe(probes.alive))
    app.router.add_get("/readyz", probe(probes.ready))
    return await listen(app, "metrics and probes", port)


async def serve_beliefs(beliefs: Beliefs, port: int) -> web.AppRunner:
    """Serve /debug on `port` of loopback; the caller cleans the runner up."""

    async def every_detector(_: web.Request) -> web.Response:
        return _json(beliefs.all())

    async def one_detector(request: web.Request) -> web.Response:
        key = f"{request.match_info['namespace']}/{request.match_info['name']}"
        if (belief := await beliefs.one(key)) is None:
            return web.Response(text=f"no detector {key} is known here\n", status=404)
        return _json(belief)

    app = web.Application(middlewares=[only_local_names])
    app.router.add_get("/debug/detectors", every_detector)
    app.router.add_get("/debug/detectors/{namespace}/{name}", one_detector)
    return await listen(app, "beliefs", port, ADDRESS)


async def listen(
    app: web.Application, serves: str, port: int, host: str | None = None
) -> web.AppRunner:
    """Serve `app` on `port` of `host`; None: of all addresses. The caller cleans the runner up."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    logger.info(f"serving {serves}", extra={"fields": {"port": runner.addresses[0][1]}})
    return runner


def _json(value: Any) -> web.Response:
    body = orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n"
    return web.Response(body=body, content_type="application/json")
