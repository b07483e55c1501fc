"""The operator's process: reads the settings, makes what lives long, and runs it until told to end.

Exits 0 after SIGTERM, 1 when leadership was lost or a part failed that the others need, and 2
when the settings are wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from datetime import UTC, datetime
from typing import Any, NoReturn

import aiohttp
import uvloop
from aiohttp.web import AppRunner

from yolofleet import explain, shell, webhook
from yolofleet.cluster import kinds, prometheus
from yolofleet.cluster.accelerators import Accelerators
from yolofleet.cluster.apply import Writer
from yolofleet.cluster.cache import Cache
from yolofleet.cluster.complaints import Complaints
from yolofleet.cluster.floors import Floors
from yolofleet.cluster.informer import Informer
from yolofleet.cluster.kinds import CONTROLLER
from yolofleet.cluster.sampler import Sampler, fetch_with, to_pods
from yolofleet.fleet.serving import serve_page
from yolofleet.fleet.view import fleet
from yolofleet.health import Health
from yolofleet.metrics import Metrics, WorldCollector
from yolofleet.probes import Beliefs, Probes, serve, serve_beliefs
from yolofleet.reconcile import Deps, reconcile
from yolofleet.runtime import logs
from yolofleet.runtime.client import Client
from yolofleet.runtime.credentials import Credentials, find_credentials
from yolofleet.runtime.errors import ClusterError
from yolofleet.runtime.events import Events
from yolofleet.runtime.leader import REQUEST_TIMEOUT_S, Leader
from yolofleet.runtime.parts import Parts
from yolofleet.runtime.queue import Priority, Workers, WorkQueue
from yolofleet.runtime.watch_health import WatchHealth
from yolofleet.settings import InvalidSettings, Settings, from_environment
from yolofleet.tuning import give_back_memory, spare_the_old

logger = logging.getLogger("yolofleet")

OK, FAILED, BAD_SETTINGS = 0, 1, 2
LAST_EVENTS_S = 1.0  # for those that are on their way: the next leader waits for us


def main() -> int:
    """Run the operator; return its exit status."""
    logs.configure("INFO")
    try:
        settings = from_environment()
        logs.configure(settings.log_level)
        if settings.defaults.operator is None:
            logger.info("YOLOFLEET_POD_LABELS is not set: no NetworkPolicy lets us read evidence")
        spare_the_old()
        status: int = uvloop.run(run(settings, find_credentials()))
        return status
    except (InvalidSettings, ClusterError, webhook.BadCertificate) as error:
        logger.error(str(error))
        return BAD_SETTINGS


async def run(settings: Settings, credentials: Credentials) -> int:
    """Make everything, run it until a signal or a failure, and take it down in order."""
    async with credentials.session() as session, to_pods() as pods:
        operator = Operator(settings, credentials, session, pods)
        return await operator.run()


def _now() -> datetime:
    return datetime.now(UTC)


class Operator:
    """All that lives as long as the process."""

    def __init__(
        self,
        settings: Settings,
        credentials: Credentials,
        session: aiohttp.ClientSession,
        pods: aiohttp.ClientSession,
    ) -> None:
        self._settings = settings
        self._metrics = metrics = Metrics()
        observe = metrics.requests.observer(credentials.server.split("://")[-1])
        self._leader = Leader(
            Client(credentials, session, observe=observe, timeout_s=REQUEST_TIMEOUT_S),
            namespace=settings.lease_namespace,
            name=settings.lease_name,
            identity=settings.identity,
            manager=CONTROLLER.manager,
            changed=lambda leads: metrics.leading(settings.lease_name, leads),
        )
        client = Client(credentials, session, observe=observe, may_write=self._leader.may_write)
        self._cache = cache = Cache(settings.defaults.allowed)
        self._queue = WorkQueue[str](metrics.queue, word=CONTROLLER.word)
        self._events = Events(client, instance=settings.identity, manager=CONTROLLER.manager)
        self._accelerators = Accelerators(client, cache, namespaces=settings.namespaces)
        self._informer = Informer(
            client,
            cache,
            self._queue,
            namespaces=settings.namespaces,
            period_s=settings.resync_s,
            watches=WatchHealth(silence_s=settings.watch_silence_s),
            counted=metrics.watched,
            relisted=metrics.relisted,
            resynced=give_back_memory,
            waiting=self._accelerators.waiting,
        )
        self._sampler = Sampler(
            cache,
            fetch_with(pods),
            prometheus=prometheus.http_query(
                pods,
                settings.prometheus_url,
                token=settings.prometheus_token_file,
                ca=settings.prometheus_ca_file,
            ),
            wake=self._queue.add,
            now=_now,
        )
        self._floors = Floors(cache, fetch_with(pods), wake=self._queue.add, now=_now)
        self._deps = Deps(
            cache=cache,
            cluster=Writer(client, cache, repaired=metrics.repaired),
            accelerators=self._accelerators,
            sampler=self._sampler,
            floors=self._floors,
            complaints=Complaints(client),
            events=self._events,
            defaults=settings.defaults,
            now=_now,
        )
        self._parts = Parts()
        self._health = Health(self._parts, metrics, self._queue, self._informer.watches)
        self._servers: list[AppRunner] = []
        metrics.leading(settings.lease_name, False)
        metrics.workers.limited_to(settings.workers)
        metrics.queue.watch_work(self._queue.working_since)
        metrics.watch_deafness(self._informer.failing)
        metrics.registry.register(
            WorldCollector(
                cache.counts,
                lambda: cache.select(kinds.DETECTOR, lambda raw: raw),
                cache.gone_blind,
            )
        )

    async def run(self) -> int:
        """Run until a signal (0), or until a part ends by itself (1)."""
        try:
            await shell.run(self._begin, self._end)
        except (ClusterError, webhook.BadCertificate):
            raise
        except Exception as error:  # a port is taken, for one
            logger.critical("the process cannot go on; exiting", exc_info=error)
            return FAILED
        return OK

    async def _begin(self) -> None:
        probes = Probes(alive=self._health.ails, ready=self._health.unready)
        registry, port = self._metrics.registry, self._settings.metrics_port
        self._servers.append(await serve(registry, probes, port))
        extra = (await self._explain(), await self._show_fleet(), await self._admit())
        self._servers += filter(None, extra)
        self._parts.start("event loop lag", self._metrics.measure_lag())
        self._parts.start("leader", self._leader.run())
        self._parts.start("events", self._events.run())
        self._parts.start("informer", self._inform())
        self._parts.start("workers", self._work())
        self._parts.start("sampler", self._sampler.rounds.run())
        self._parts.start("floors", self._floors.rounds.run())
        self._guarding = asyncio.create_task(self._guard(), name="guard")

    async def _guard(self) -> None:
        """End the process when a part of it ends."""
        await self._parts.one_ends()
        await self._failed()

    async def _end(self) -> None:
        """Take all down in order, the Lease before what may take its time."""
        self._health.ending = True
        self._guarding.cancel()
        await self._stop_writing()
        await self._leader.release()
        for server in self._servers:
            await server.cleanup()
        await self._parts.stop_all()

    async def _explain(self) -> AppRunner | None:
        """Serve what is believed of detectors, where it is asked for."""
        port = self._settings.debug_port
        return await serve_beliefs(self._beliefs(), port) if port else None

    async def _show_fleet(self) -> AppRunner | None:
        """Serve the page of the fleet, where one is asked for: on standbys too."""
        port = self._settings.fleet_port
        return await serve_page(self._fleet, port) if port else None

    def _fleet(self) -> dict[str, Any] | None:
        """Return what the page tells of all detectors; None before they are known."""
        if not self._health.warm.is_set():
            return None
        known = (self._cache.detector(key) for key in self._cache.detectors())
        doubt = "; ".join(filter(None, (self._leader.unheard(), self._informer.failing())))
        return {"detectors": fleet(filter(None, known)), "doubt": doubt}

    async def _admit(self) -> AppRunner | None:
        """Serve the webhook, where one is asked for: from the start, and on standbys too."""
        port, folder = self._settings.webhook_port, self._settings.webhook_certificates
        if not port:
            return None
        certificate = webhook.Certificate(folder, self._metrics.certificate_read)
        self._parts.start("certificate", certificate.keep_fresh())
        defaults = self._deps.defaults
        return await webhook.serve(
            self._cache, self._health.warm.is_set, certificate, port, defaults
        )

    async def _inform(self) -> None:
        await self._informer.first()
        give_back_memory()
        self._health.warm.set()
        logger.info("cache is warm", extra={"fields": {"objects": self._cache.size()}})
        await self._informer.run()

    async def _work(self) -> None:
        """Reconcile once this replica leads and its cache is warm: all detectors, then news."""
        await self._leader.elected.wait()
        elected_at = time.monotonic()
        await self._health.warm.wait()
        await self._informer.catch_up(elected_at)
        for key in self._cache.detectors():
            self._queue.add(key, Priority.RESYNC)
        workers = Workers(
            self._queue, lambda key: reconcile(key, self._deps), self._metrics.workers
        )
        await workers.run(self._settings.workers)

    async def _stop_writing(self) -> None:
        await self._parts.stop("workers", "sampler", "floors", "informer")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._events.posted(), LAST_EVENTS_S)
        await self._parts.stop("events", "leader")

    async def _failed(self) -> int:
        """End with 1: a restart repairs the rest. After a lost Lease nothing may be written."""
        if not self._health.leadership_lost():
            await self._stop_writing()
            await self._leader.release()  # the next one need not wait for its end
        _exit_now(FAILED)

    def _beliefs(self) -> Beliefs:
        deps = self._deps
        sources = explain.Sources(
            cache=deps.cache,
            writer=deps.cluster,
            accelerators=deps.accelerators,
            floors=deps.floors,
            queue=self._queue,
            defaults=deps.defaults,
            leads=self._leader.may_write,
        )
        return Beliefs(
            all=lambda: explain.overview(sources),
            one=lambda key: explain.look(key, sources, now=deps.now()),
        )


def _exit_now(status: int) -> NoReturn:
    """Leave without another await, so that no task can write on its way out."""
    logging.shutdown()
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
