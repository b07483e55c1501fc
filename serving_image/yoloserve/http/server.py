"""The process: uvicorn, signals, and leaving without dropping anybody."""

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil

import uvicorn
from fastapi import FastAPI

from yoloserve.engine import memory
from yoloserve.http.bodies import Bodies
from yoloserve.http.protocol import HttpProtocol, StreamProtocol
from yoloserve.http.serving import engine_serving_of
from yoloserve.http.side_port import side_ports
from yoloserve.scheduling.connections import AT_THE_DOOR, Connections
from yoloserve.settings import Settings

log = logging.getLogger(__name__)

# Longer than proxies keep idle connections (Envoy: an hour): a server that closes one at the moment
# in which the proxy uses it makes a failed request.
KEEP_ALIVE_S = 3700
BLIND_EXIT = 79  # of nobody else: the operator tells by it, for what we count ends with us
OTHER_FILES = 256  # models, event loop, answers of others' servers
FINISH_S = 10  # for what is in flight at the end, or its deadline if that is longer


class Server(uvicorn.Server):
    """A uvicorn that drains: first not ready, still answering; then finishing; then gone."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        serving = engine_serving_of(app)
        connections = Connections(
            most_connections(settings.max_connections, settings.max_streams), serving.metrics.cut
        )
        serving.metrics.watch_connections(connections)
        super().__init__(configuration(app, settings, serving.bodies, connections))
        self._serving = serving
        serving.watch.give_up = self._give_up
        self.blind = False
        self._drain_s = settings.drain_seconds
        self._beside = list(side_ports(serving))

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Replace uvicorn's, which ends by raising the signal again: that is no exit code 0."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for each in signals:
            loop.add_signal_handler(each, self._leave, each)
        yield
        for each in signals:
            loop.remove_signal_handler(each)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Warm up, listen, and only then say so; the evidence is told from the first moment on."""
        for port, number in self._beside:
            await port.open(self.config.host, number)
        host, port_number = await self._listen(sockets)
        address = f"[{host}]" if ":" in host else host
        if self.started and not self.should_exit:
            # What was imported stays. Looking through it takes the collector, and all requests
            # meanwhile, 50 ms.
            gc.freeze()
            memory.give_back()
            info = self._serving.detector.info
            log.info(
                "ready",
                extra={
                    "url": f"http://{address}:{port_number}/",
                    "detector": info.name,
                    "revision": info.revision,
                    "version": info.version,
                    "sha256": info.sha256,
                    "backend": info.backend,
                    "precision": info.precision,
                    "device": info.device,
                },
            )

    async def _listen(self, sockets: list[socket.socket] | None) -> tuple[str, int]:
        """Warm up and listen; return where."""
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return host, port

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish; whoever judges this release may look until the end."""
        await super().shutdown(sockets)
        for port, _ in self._beside:
            port.close()

    def _leave(self, why: signal.Signals) -> None:
        """Drain, then stop; at once before anybody was served, by the keyboard, or asked again."""
        if self._serving.draining or not self.started or why is signal.SIGINT:
            self.should_exit = True
            return
        self._serving.drain()
        log.info("draining", extra={"reason": why.name, "seconds": self._drain_s})
        asyncio.get_running_loop().call_later(self._drain_s, self._stop)

    def _stop(self) -> None:
        self.should_exit = True

    @property
    def exit_status(self) -> int:
        """Return what the process is to end with, once it has run."""
        if self.blind:
            return BLIND_EXIT
        return 0 if self.started else 1

    def _give_up(self) -> None:
        """Leave, so that Kubernetes starts a process that sees; by force if the engine hangs."""
        log.critical("blind for good: leaving")
        self.blind = self.should_exit = True
        seconds = (self.config.timeout_graceful_shutdown or 0) + 1
        asyncio.get_running_loop().call_later(seconds, os._exit, BLIND_EXIT)


def configuration(
    app: FastAPI, settings: Settings, bodies: Bodies, connections: Connections
) -> uvicorn.Config:
    """Say how uvicorn is to speak with clients."""
    slow_s = settings.body_timeout_seconds
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=HttpProtocol.within(slow_s, connections),
        loop="uvloop",
        ws=StreamProtocol.within(slow_s, connections, memory=bodies),
        ws_max_size=settings.max_body_bytes,
        ws_per_message_deflate=False,  # images are compressed, and bombs are compact
        access_log=False,  # a tenth of the throughput; the metrics count requests
        log_config=None,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(FINISH_S, ceil(settings.deadline_ms / 1000)),
    )


def most_connections(wanted: int, streams: int) -> int:
    """Say how many connections there may be: each is an open file, and so much is not our own.

    Without a file left, nobody's connection is accepted, not a probe's either.
    """
    besides = streams + AT_THE_DOOR + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted + besides:
        soft = wanted + besides if hard == resource.RLIM_INFINITY else min(wanted + besides, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if (most := max(1, min(wanted, soft - besides))) < wanted:
        fields = {"max_connections": wanted, "allowed": most, "open_files": hard}
        log.warning("the process may not open files for all connections", extra=fields)
    return most
