"""The operator itself, on a cluster in memory: its cache, queue, writer and reconcile are real.

What its process adds is not here: kopf's watches (their lines are handed to the same `Watch`), the
Lease, time. One of it lives until it crashes; the next one starts with an empty memory.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from math import inf
from typing import Any, Final

from faults.history import Seen
from memory_cluster.faults import Call, Crashed, Fault, Lost
from memory_cluster.server import EPOCH, KINDS, Answer, Server, selected
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.cluster.accelerators import Accelerators
from yolofleet.cluster.apply import Writer
from yolofleet.cluster.cache import Cache
from yolofleet.cluster.complaints import Complaints
from yolofleet.cluster.floors import Floors
from yolofleet.cluster.informer import Informer
from yolofleet.cluster.prometheus import Query, not_configured
from yolofleet.cluster.sampler import Sampler
from yolofleet.plan.defaults import Defaults
from yolofleet.reconcile import Deps, reconcile
from yolofleet.runtime.client import Client, Request
from yolofleet.runtime.errors import ClusterError, Unavailable, from_status
from yolofleet.runtime.events import Events
from yolofleet.runtime.kind import Kind
from yolofleet.runtime.queue import RECONCILE_TIMEOUT_S, Priority, Workers, WorkQueue

DEFAULTS: Final = Defaults(
    image_cpu="serve:cpu", image_torch="serve:torch", image_gpu="serve:gpu", image_ray="serve:ray"
)


class MemoryClient(Client):
    """Sends requests to a server in memory, through whatever goes wrong on the way."""

    def __init__(self, server: Server) -> None:
        self._memory = server
        self.faults: list[Fault] = []
        self.calls: list[tuple[Call, int]] = []
        """Writes, and the code of what was answered; 0: nobody answered."""
        self.crashed = False
        self.until = inf
        """Whoever asks is cancelled then."""

    async def send(self, request: Request) -> Manifest:
        """Send `request` and return what the API server answers."""
        if self.crashed:
            raise Crashed
        call = self._call(request)
        code = 0
        try:
            answer = await self._through(call)
            if self._memory.clock() > self.until:
                raise TimeoutError
            code = answer.code
        except Crashed:
            self.crashed = True
            raise
        except Lost as lost:
            raise Unavailable(f"{request.method} {request.path}: {lost}") from lost
        finally:
            if request.writes:
                self.calls[call.number - 1] = (call, code)
        if code < 400:
            return answer.body
        error = from_status(code, answer.body, {})
        error.add_note(f"{request.method} {request.path}")
        raise error

    async def _through(self, call: Call) -> Answer:
        answer = None
        for fault in self.faults:
            answer = answer or await fault.before(call)
        if answer is None:
            answer = self._memory.answer(call.request)
        for fault in self.faults:
            answer = await fault.after(call, answer)
        return answer

    def _call(self, request: Request) -> Call:
        parts = request.path.split("/")
        plural = next(k.plural for k in KINDS if k.plural in parts or k.api_path == request.path)
        at = parts.index(plural) + 1 if plural in parts else len(parts)
        name = parts[at] if at < len(parts) else ""
        if not name and request.method == "POST":
            name = request.body["metadata"]["name"]
        call = Call(len(self.calls) + 1 if request.writes else 0, request, plural, name)
        if request.writes:
            self.calls.append((call, 0))
        return call


class Operator:
    """One life of the operator's process."""

    def __init__(self, server: Server, client: MemoryClient, defaults: Defaults = DEFAULTS) -> None:
        self._server = server
        self.client = client
        self.tells: Callable[[str], bytes] = nobody_answers
        """What the pods answer to whom reads their counters."""
        self.prometheus: Query = not_configured
        """What Prometheus answers."""
        self.cache = Cache(defaults.allowed)
        self.queue = WorkQueue[str](clock=server.clock, word=kinds.CONTROLLER.word)
        self.events = Events(
            client,
            instance="memory",
            manager=kinds.CONTROLLER.manager,
            clock=server.clock,
            now=self._now,
        )
        self._informer = Informer(client, self.cache, self.queue)
        self.sampler = Sampler(
            self.cache,
            self._ask_pod,
            wake=self.queue.add,
            now=self._now,
            prometheus=self._ask_prometheus,
            clock=server.clock,
        )
        self.floors = Floors(
            self.cache, self._ask_pod, wake=self.queue.add, now=self._now, clock=server.clock
        )
        self.deps = Deps(
            token=lambda: "0123456789abcdef",
            cache=self.cache,
            cluster=Writer(client, self.cache, clock=server.clock),
            accelerators=Accelerators(client, self.cache, clock=server.clock),
            sampler=self.sampler,
            floors=self.floors,
            complaints=Complaints(client, clock=server.clock),
            events=self.events,
            defaults=defaults,
            now=self._now,
        )
        self.counts = Counts()
        self._workers = Workers(self.queue, self._reconcile, self.counts)
        self.failures: list[str] = []
        """Exceptions that nobody had thought of."""
        self.deaf = 0
        """So many of the next lines of watches are lost."""
        self.missed = 0
        """So many were, since it was last resynced."""
        self._heard = len(server.history)
        self._known: dict[str, bool] = {}
        self._loop = asyncio.get_running_loop()

    def __deepcopy__(self, memo: dict[int, Any]) -> Operator:
        """Return a copy that lives in the loop that runs now."""
        other = Operator.__new__(Operator)
        memo |= {id(self): other, id(self._loop): asyncio.get_running_loop()}
        vars(other).update(copy.deepcopy(vars(self), memo))
        return other

    async def start(self) -> None:
        """List all there is, as the process does before it works."""
        self._heard = len(self._server.history)
        await self._informer.first()
        self._work_on_all()

    async def lead(self) -> None:
        """Begin to work after others did, as the process does once it is elected."""
        await self._informer.catch_up(time.monotonic())
        self._work_on_all()

    def _work_on_all(self) -> None:
        for key in self.cache.detectors():
            self.queue.add(key, Priority.RESYNC)

    async def resync(self) -> None:
        """List all kinds: what watches lost is found."""
        await self._informer.discover()
        for kind in kinds.CACHED:
            if self.cache.serves(kind):
                await self._informer.list(kind)

    def hear(self) -> int:
        """Take in what happened since, as watches tell it; return how many lines that were."""
        news = self._server.history[self._heard :]
        self._heard += len(news)
        for seen in news:
            for type, kind, manifest in self._lines(seen):
                if self.deaf:
                    self.deaf -= 1
                    self.missed += 1
                else:
                    self._informer.take(kind, type, manifest)
        return len(news)

    def _lines(self, seen: Seen) -> Iterable[tuple[str, Kind, Manifest]]:
        """Return what a watch by label tells of it: an object that lost its label is deleted."""
        if seen.kind not in kinds.CACHED or not self.cache.serves(seen.kind):
            return
        chosen = selected(seen.manifest, kinds.selector_of(seen.kind))
        known = self._known.get(seen.uid, seen.type != "ADDED" and chosen)
        self._known[seen.uid] = chosen and seen.type != "DELETED"
        if chosen and seen.type != "DELETED":
            yield ("MODIFIED" if known else "ADDED"), seen.kind, seen.manifest
        elif known or self.cache.has(seen.uid):
            yield "DELETED", seen.kind, seen.manifest

    async def work(self, limit: int = 200) -> int:
        """Reconcile what is due, hearing all news in between; return how often."""
        times = 0
        self.hear()
        await self.sampler.rounds.look_at_due()
        await self.floors.rounds.look_at_due()
        while (key := self.queue.take()) is not None:
            times += 1
            if times > limit:
                raise AssertionError(f"{key} is reconciled {limit} times and time stands still")
            await self._workers.work_on(key)
            self.queue.done(key)
            await self._post()
            self.hear()
        return times

    async def _post(self) -> None:
        """Have the Events posted that were emitted, as a task of its own does."""
        posting = asyncio.create_task(self.events.run())
        posted = asyncio.create_task(self.events.posted())
        await asyncio.wait({posting, posted}, return_when=asyncio.FIRST_COMPLETED)
        crashed = posting.done() and isinstance(posting.exception(), Crashed)
        for task in (posting, posted):
            task.cancel()
        await asyncio.gather(posting, posted, return_exceptions=True)
        if crashed:
            raise Crashed

    async def _reconcile(self, key: str) -> timedelta | None:
        self.client.until = self._server.clock() + RECONCILE_TIMEOUT_S
        try:
            return await reconcile(key, self.deps)
        except ClusterError:
            raise
        except Exception as error:
            self.failures.append(f"{type(error).__name__}: {error}")
            raise
        finally:
            self.client.until = inf

    async def _ask_pod(self, url: str) -> bytes:
        return self.tells(url)

    async def _ask_prometheus(self, query: str) -> tuple[int, bytes]:
        return await self.prometheus(query)

    def next_look_s(self) -> float | None:
        """Return in how many seconds the next key is due; None: nothing waits for time."""
        looks = [
            told["nextLookInSeconds"]
            for key in self.cache.detectors()
            if "nextLookInSeconds" in (told := self.queue.describe(key))
        ]
        beside = (self.sampler.rounds.next_look_s(), self.floors.rounds.next_look_s())
        looks.extend(look for look in beside if look is not None)
        return min(looks, default=None)

    def _now(self) -> datetime:
        return EPOCH + timedelta(seconds=self._server.clock())


def nobody_answers(url: str) -> bytes:
    """Fail as a pod does that has no such port."""
    raise ConnectionRefusedError(url)


class Counts:
    """What workers tell of the looks that fail: an error, and whether only a person can end it."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, bool]] = []

    def started(self) -> None:
        """Pass it over."""

    def ended(self, outcome: str, seconds: float) -> None:
        """Pass it over."""

    def failed(self, error: BaseException, *, terminal: bool, expected: bool) -> None:
        """Remember it. One that nobody expected is among the failures of its `Operator` too."""
        self.failures.append((type(error).__name__ if expected else "a bug", terminal))
