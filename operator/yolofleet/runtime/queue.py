"""The work queue: each key once, the urgent first, one worker a key, back-off for what failed.

A key is what a controller knows its objects by: a name, or where it has several kinds, a kind and a
name. It is told as `str` has it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any, Final, Generic, Protocol, TypeVar

from yolofleet.runtime import logs
from yolofleet.runtime.errors import (
    Busy,
    ClusterError,
    NotLeading,
    Refused,
    Stale,
    Throttled,
    Unauthenticated,
    Unfinished,
)

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)

FIRST_BACKOFF_S: Final = 0.005  # controller-runtime's; a stale cache is often fresh by then
LONGEST_BACKOFF_S: Final = 300.0
RECONCILE_TIMEOUT_S: Final = 120.0
_REMEMBERED_LOOKS: Final = 10_000  # more than one process carries
STUCK_S: Final = RECONCILE_TIMEOUT_S + 30.0  # each worker is free again within the time-out


AHEAD_S: Final = 30.0
"""So long the more urgent comes first, though it came later; nothing waits for good."""


class Priority(IntEnum):
    """Why a key is looked at; the smaller comes first."""

    USER = 0  # somebody waits for it
    CHANGE = 1  # the world moved
    RESYNC = 2  # just to be sure

    def due(self, since: float) -> float:
        """Return by what keys come in order, the smaller first. since: when it was added."""
        return since + (self - Priority.CHANGE) * AHEAD_S


class QueueMetrics(Protocol):
    """What the queue tells about itself (client-go's workqueue metrics)."""

    def added(self, depth: int) -> None: ...  # noqa: D102 (names say it)
    def taken(self, depth: int, waited_s: float) -> None: ...  # noqa: D102
    def finished(self, worked_s: float) -> None: ...  # noqa: D102
    def retried(self) -> None: ...  # noqa: D102


@dataclass(slots=True)
class LastLook:
    """What came of one reconcile. began: on the monotonic clock."""

    at: datetime
    began: float
    id: str = ""
    seconds: float = 0.0
    generation: int | None = None
    result: str = ""
    error: str = ""

    def described(self) -> dict[str, Any]:
        """Return it for a person; `id` finds its lines in the log."""
        return {
            "id": self.id,
            "at": self.at.isoformat(timespec="milliseconds"),
            "seconds": round(self.seconds, 4),
            "generation": self.generation,
            "result": self.result,
            "error": self.error,
        }


class WorkQueue(Generic[Key]):
    """Keys to be looked at. A key that is added while it is worked on comes back after `done`.

    word: what people call one, in log lines and where many wait.
    """

    def __init__(
        self,
        metrics: QueueMetrics | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        word: str = "key",
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self.word = word
        self._order = itertools.count()
        # heaps, of which entries can be outdated: due, order
        self._ready: list[tuple[float, int, Priority, Key]] = []
        self._dirty: dict[Key, tuple[Priority, float]] = {}  # key: most urgent reason, since when
        self._processing: dict[Key, float] = {}
        self._due: dict[Key, float] = {}
        self._later: list[tuple[float, int, Key]] = []
        self._failures: dict[Key, int] = {}
        self._taken_at: float | None = None  # None: nobody works yet
        self._looks: OrderedDict[Key, LastLook] = OrderedDict()
        self._changed = asyncio.Event()
        self._first = asyncio.Lock()  # who holds it waits for a key, others for their turn to

    def __len__(self) -> int:
        return len(self._dirty)

    def add(self, key: Key, priority: Priority = Priority.CHANGE) -> None:
        """Have `key` looked at as soon as a worker is free."""
        known = self._dirty.get(key)
        if known and known[0] <= priority:
            return
        self._dirty[key] = (priority, known[1] if known else self._clock())
        if self._metrics and not known:
            self._metrics.added(len(self._dirty))
        if key not in self._processing:
            self._line_up(key)

    def add_after(self, key: Key, delay_s: float) -> None:
        """Have `key` looked at in `delay_s` seconds; of several such wishes the earliest holds."""
        due = self._clock() + delay_s
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._later, (due, next(self._order), key))
            self._changed.set()

    def retry(self, key: Key) -> float:
        """Have `key` looked at after its back-off, which doubles each time; return seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(FIRST_BACKOFF_S * float(1 << min(failures, 30)), LONGEST_BACKOFF_S)
        if self._metrics:
            self._metrics.retried()
        self.add_after(key, delay)
        return delay

    def forget(self, key: Key) -> None:
        """End the back-off of `key`: it went well."""
        self._failures.pop(key, None)

    def take(self) -> Key | None:
        """Return the most urgent key that nobody works on, now being worked on; None if none."""
        self._ripen()
        while self._ready:
            _, _, priority, key = heapq.heappop(self._ready)
            known = self._dirty.get(key)
            if known is None or known[0] != priority or key in self._processing:
                continue  # taken before, or added again as more urgent
            del self._dirty[key]
            self._processing[key] = self._taken_at = now = self._clock()
            if self._metrics:
                self._metrics.taken(len(self._dirty), now - known[1])
            return key
        return None

    def done(self, key: Key) -> None:
        """Say that the work on `key` has ended, well or not."""
        started = self._processing.pop(key)
        if self._metrics:
            self._metrics.finished(self._clock() - started)
        if key in self._dirty:
            self._line_up(key)

    def _line_up(self, key: Key) -> None:
        priority, since = self._dirty[key]
        heapq.heappush(self._ready, (priority.due(since), next(self._order), priority, key))
        self._changed.set()

    async def get(self) -> Key:
        """Wait for a key, as `take` returns it. Of many who wait one is woken, not all."""
        async with self._first:
            while (key := self.take()) is None:
                self._changed.clear()
                wait = self._later[0][0] - self._clock() if self._later else None
                try:
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                except TimeoutError:
                    continue
            return key

    def begin(self) -> None:
        """Say that from now on there are workers."""
        self._taken_at = self._clock()

    def stuck(self) -> str:
        """Say that keys wait and no worker takes them; nothing when all is well."""
        if self._taken_at is None:
            return ""
        now = self._clock()
        since = [*(since for _, since in self._dirty.values()), *self._due.values()]
        waits, idle = now - min(since, default=now), now - self._taken_at
        if min(waits, idle) <= STUCK_S:
            return ""
        waiting = sum(one < now for one in since)
        return (
            f"the workers are stuck: {waiting} {self.word}s wait, none was taken for {idle:.0f} s"
        )

    def looked(self, key: Key, look: LastLook) -> None:
        """Remember what came of the last work on `key`."""
        self._looks[key] = look
        self._looks.move_to_end(key)
        if len(self._looks) > _REMEMBERED_LOOKS:
            self._looks.popitem(last=False)

    def describe(self, key: Key) -> dict[str, Any]:
        """Tell what is known of `key`: whether it waits, for how long, and what came of it last."""
        now, described = self._clock(), dict[str, Any]()
        if known := self._dirty.get(key):
            described |= {
                "waitsForSeconds": round(now - known[1], 3),
                "because": known[0].name.lower(),
            }
        if (started := self._processing.get(key)) is not None:
            described["workedOnForSeconds"] = round(now - started, 3)
        if (due := self._due.get(key)) is not None:
            described["nextLookInSeconds"] = round(due - now, 3)
        if failures := self._failures.get(key):
            described["failuresInARow"] = failures
        look = self._looks.get(key)
        return described | {"lastReconcile": look.described() if look else None}

    def working_since(self) -> list[float]:
        """Return for how many seconds each key that is worked on has been."""
        now = self._clock()
        return [now - since for since in self._processing.values()]

    def _ripen(self) -> None:
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            due, _, key = heapq.heappop(self._later)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)


class Outcome:
    """Results of one reconcile, under controller-runtime's names."""

    SUCCESS: Final = "success"
    ERROR: Final = "error"
    REQUEUE: Final = "requeue"
    REQUEUE_AFTER: Final = "requeue_after"


class ReconcileMetrics(Protocol):
    """What the workers tell about themselves (controller-runtime's controller metrics)."""

    def started(self) -> None: ...  # noqa: D102
    def ended(self, outcome: str, seconds: float) -> None: ...  # noqa: D102
    def failed(self, error: BaseException, *, terminal: bool, expected: bool) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Workers(Generic[Key]):
    """Take keys from the queue and reconcile them; the one place where work is tried again."""

    queue: WorkQueue[Key]
    reconcile: Callable[[Key], Awaitable[timedelta | None]]
    metrics: ReconcileMetrics

    async def run(self, count: int) -> None:
        """Work with `count` workers until cancelled. Raises `NotLeading` when writing must end."""
        self.queue.begin()
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(self._work(), name=f"worker {number}")

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            started = time.monotonic()
            self.metrics.started()
            outcome = Outcome.ERROR
            try:
                outcome = await self.work_on(key)
            finally:
                self.metrics.ended(outcome, time.monotonic() - started)
                self.queue.done(key)
            # A reconcile that finds all in order waits for nothing: a thousand of them in a row
            # would keep the Lease from being renewed.
            await asyncio.sleep(0)

    async def work_on(self, key: Key) -> str:
        """Reconcile `key` once and say when it is looked at again; return the outcome."""
        look = LastLook(datetime.now(UTC), time.monotonic())
        with logs.about(reconcile=uuid.uuid4().hex[:8], **{self.queue.word: str(key)}) as fields:
            look.result = await self._work_on(key, look)
        look.id, look.generation = fields["reconcile"], fields.get("generation")
        look.seconds = time.monotonic() - look.began
        self.queue.looked(key, look)
        return look.result

    async def _work_on(self, key: Key, look: LastLook) -> str:
        try:
            async with asyncio.timeout(RECONCILE_TIMEOUT_S):
                again = await self.reconcile(key)
        except NotLeading:
            raise
        except Unfinished as unfinished:
            if unfinished.again is not None:
                self.queue.add_after(key, unfinished.again.total_seconds())
            look.error = f"{type(unfinished.error).__name__}: {unfinished}"
            if isinstance(unfinished.error, Refused):
                return self._refused(key, unfinished)
            return self._failed(key, unfinished.error)
        except Exception as error:  # handed on: to the back-off, a metric and the log
            look.error = f"{type(error).__name__}: {error}"
            return self._failed(key, error)
        self.queue.forget(key)
        if again is None:
            return Outcome.SUCCESS
        self.queue.add_after(key, again.total_seconds())
        return Outcome.REQUEUE_AFTER

    def _refused(self, key: Key, unfinished: Unfinished) -> str:
        """Count what waits for a person; who wrote has logged it, and there is no back-off."""
        self.metrics.failed(unfinished.error, terminal=True, expected=True)
        self.queue.forget(key)
        if unfinished.again is None:
            self.queue.add_after(key, LONGEST_BACKOFF_S)
        return Outcome.ERROR

    def _failed(self, key: Key, error: Exception) -> str:
        fields = {self.queue.word: str(key), "reason": type(error).__name__}
        if isinstance(error, Stale):  # ordinary: look again at what is
            self.queue.retry(key)
            return Outcome.REQUEUE
        terminal, expected = isinstance(error, Refused), isinstance(error, ClusterError)
        self.metrics.failed(error, terminal=terminal, expected=expected)
        if isinstance(error, Throttled):
            delay = error.retry_after
            self.queue.add_after(key, delay)
        elif terminal:  # nothing changes until a person acts
            delay = LONGEST_BACKOFF_S
            self.queue.add_after(key, delay)
        else:
            delay = self.queue.retry(key)
        fields["retry_in_s"] = f"{delay:.3f}"
        if isinstance(error, Busy) and not isinstance(error, Unauthenticated):
            logger.info(str(error), extra={"fields": fields})
        elif expected:
            logger.warning(str(error), extra={"fields": fields})
        else:
            logger.error("reconcile failed", exc_info=error, extra={"fields": fields})
        return Outcome.ERROR
