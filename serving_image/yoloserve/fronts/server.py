"""The engine's process when fronts speak HTTP for it: it accepts connections for them."""

import asyncio
import logging
import signal
import socket
import sys
from contextlib import suppress

import uvicorn
from fastapi import FastAPI

from yoloserve.fronts.engine_side import routes_of
from yoloserve.fronts.processes import Fronts
from yoloserve.http.server import Server
from yoloserve.http.serving import engine_serving_of
from yoloserve.scheduling.concurrency import available_cpus
from yoloserve.settings import Settings

log = logging.getLogger(__name__)

CANNOT_LISTEN = 3  # uvicorn's exit code for it
NO_FILES_S = 0.1
ENDS_S = 3.0  # that fronts have after their last answer


def begun(settings: Settings) -> Fronts:
    """Start the fronts' processes, which share the cores there are."""
    count = settings.front_processes
    threads = settings.threads or available_cpus()
    fronts = Fronts(count, threads=-(-threads // count))
    fronts.begin()
    return fronts


class FrontedServer(Server):
    """Serves by its fronts; signals, draining and the ports beside are a `Server`'s."""

    def __init__(self, app: FastAPI, settings: Settings, fronts: Fronts) -> None:
        super().__init__(app, settings)
        self._app = app
        self._fronts = fronts
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        serving = engine_serving_of(app)
        serving.fronts = fronts
        serving.core.preparers = fronts.count * fronts.threads
        serving.metrics.watch_fronts(fronts)

    async def _listen(self, _: list[socket.socket] | None) -> tuple[str, int]:
        """Warm up, have all fronts ready, and only then take connections."""
        try:
            self._sockets = await _bound(self.config.host, self.config.port)
        except OSError as error:
            log.error("no port", extra={"reason": str(error), "port": self.config.port})
            sys.exit(CANNOT_LISTEN)
        host, port = self._sockets[0].getsockname()[:2]
        await uvicorn.Server.startup(self, [])
        if self.should_exit:
            return host, port
        serving, routes = engine_serving_of(self._app), routes_of(self._app)
        await self._fronts.serve(serving, self._app, routes, lambda: self.should_exit)
        try:
            for each in self._sockets:
                each.listen(self.config.backlog)
        except OSError as error:  # another has bound it, too, and was quicker
            log.error("no port", extra={"reason": str(error), "port": port})
            await self._fronts.finish(ENDS_S)
            await self.lifespan.shutdown()
            sys.exit(CANNOT_LISTEN)
        self._accepting += [asyncio.create_task(self._accept(each)) for each in self._sockets]
        return host, port

    def _leave(self, why: signal.Signals) -> None:
        super()._leave(why)
        self._fronts.tell()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, let the fronts finish, then end as any server."""
        for task in self._accepting:
            task.cancel()
        for each in self._sockets:
            each.close()
        await self._fronts.finish((self.config.timeout_graceful_shutdown or 0) + ENDS_S)
        await super().shutdown(sockets)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as error:  # it has gone already, or there is no file left for it
                log.warning("a connection could not be accepted", extra={"reason": str(error)})
                await asyncio.sleep(NO_FILES_S)
                continue
            await self._fronts.give(connection)


async def _bound(host: str, port: int) -> list[socket.socket]:
    """Take the port on every address of the host, as asyncio does."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                each = socket.socket(family, kind, protocol)
            except OSError:  # a family that is not spoken here
                continue
            sockets.append(each)
            each.setblocking(False)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                with suppress(OSError):
                    each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            each.bind(address)
    except OSError:
        for each in sockets:
            each.close()
        raise
    if not sockets:
        raise OSError(f"no address of {host!r} can be had")
    return sockets
