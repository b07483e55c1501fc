"""The server as a deployment of Ray Serve: `serve run yoloserve.rayserve:app`.

Queue, batches, deadlines and the checks of the model are the server's own, inside the replica; Ray
routes, counts replicas and replaces them. A replica reads `YOLOSERVE_*` of its pod, as the server
does. What only a process of our own has is not here: signals, limits of connections, its log file.
"""

import gc
import logging
import os
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from ray import serve
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from yoloserve.assembly import assemble
from yoloserve.engine import memory
from yoloserve.engine.starting import Engine
from yoloserve.engine.starting import start as usual
from yoloserve.http.serving import EngineServing, engine_serving_of
from yoloserve.http.side_port import side_ports
from yoloserve.settings import Settings, passed_over
from yoloserve.telemetry import logs

log = logging.getLogger(__name__)

REQUEST_ID = b"x-request-id"


class NotSeeing(Exception):
    """The network stopped seeing for good: Serve is to replace this replica."""


class WithoutRequestId:
    """Takes our `x-request-id` out of answers: Ray's HTTP server adds the same, a second time."""

    def __init__(self, app: ASGIApp) -> None:
        self._inner = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def send_once(message: Message) -> None:
            if message["type"].endswith(("response.start", "websocket.accept")):
                headers = message.get("headers", [])
                message["headers"] = [each for each in headers if each[0] != REQUEST_ID]
            await send(message)

        await self._inner(scope, receive, send_once)


class Replica:
    """An engine, which `start` makes, and the application before it."""

    def __init__(self, start: Callable[[Settings], Engine] = usual) -> None:
        self._start = start
        self._given_up = False

    async def __serve_build_asgi_app__(self) -> FastAPI:
        """Start the engine; Ray runs the lifespan, the warm-up, before it sends requests.

        Raises a `StartupFailure`, whose message ends that of the deployment in Ray's status.
        """
        logs.beside_the_host("yoloserve")
        for variable, nearest in passed_over(os.environ).items():
            log.warning("no such setting", extra={"variable": variable, "nearest": nearest})
        settings = Settings.read()
        if settings.front_processes:  # Ray's proxies speak HTTP, and its replicas are the processes
            log.warning("no front processes on Ray", extra={"asked": settings.front_processes})
        app = assemble(settings, self._start(settings))
        serving = engine_serving_of(app)
        serving.watch.give_up = self._give_up
        await _tell_beside(serving)
        app.add_middleware(WithoutRequestId)
        gc.freeze()  # as `http/server.py` does, and for the same reason
        memory.give_back()
        return app

    def _give_up(self) -> None:
        log.critical("blind for good: to be replaced")
        self._given_up = True

    async def check_health(self) -> None:
        """Say that all is well, or raise; after three in a row Ray replaces the replica."""
        if self._given_up:
            raise NotSeeing("the network's answer to a known picture is not what it was, for good")


async def _tell_beside(serving: EngineServing) -> None:
    """Open the replica's own ports: whoever asks through Ray's meets any replica.

    They are shared, for the next replica in a pod may start before the last one has ended, and
    closed by the end of the process: evidence is told until then.
    """
    for port, number in side_ports(serving):
        await port.open(serving.settings.host, number, shared=True)


def deployment(start: Callable[[Settings], Engine] = usual) -> Any:
    """Return what Ray deploys; where its configuration says nothing, by bounds that suit us.

    Ray's own fill no batch, queue without an end, and write a line for each request.
    """
    # Without an application: one that is made here would be pickled to the replicas.
    replica = serve.ingress()(Replica)
    return serve.deployment(
        name="yoloserve",
        max_ongoing_requests=64,
        max_queued_requests=8,
        logging_config={"enable_access_log": False},
    )(replica).bind(start)


app = deployment()
