"""Shows another revision what this one has answered, when nobody waits for anything else."""

import asyncio
import logging
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

from yoloserve.detections.postprocess import Options
from yoloserve.detector import Detector, Source
from yoloserve.errors import OverQuota
from yoloserve.live import Live, ShadowOrder
from yoloserve.scheduling.admission import Quotas
from yoloserve.settings import Settings
from yoloserve.shadow.album import Album
from yoloserve.shadow.answers import COMPUTED, LOOKED, read
from yoloserve.shadow.copies import Copy, Drawn, is_too_large, size_of
from yoloserve.shadow.keys import KeyFile, Keys
from yoloserve.shadow.pairs import Difference, Found, difference
from yoloserve.shadow.repeats import Repeats
from yoloserve.shadow.tally import Outcome, Tallies
from yoloserve.telemetry.tracing import begin

if TYPE_CHECKING:
    from yoloserve.shadow.asking import Caller

R = TypeVar("R")
log = logging.getLogger(__name__)

SOURCE, SOURCE_KEY = "x-yoloserve-source", "x-yoloserve-shadow-key"
MOST_WAITING = 16
MOST_BYTES = 32 * 2**20  # of all that wait: for their answer, for that to be sent, to be shown
AT_ONCE = 2
LAG_S = 0.05  # by which the event loop may be late
BACK_OFF_S = 1.0, 30.0
BREATH_S = 1.0  # that a canary gets which has too much to do
LONG_ANSWER = 2**16  # bytes: to read more takes longer than a millisecond, as does what follows
MANY_CLASSES = 1000
MANY_PAIRS = 2500  # of boxes


@dataclass(frozen=True, slots=True)
class Target:
    """Who is asked."""

    order: ShadowOrder
    url: str

    @property
    def revision(self) -> str:
        """Name it."""
        return self.order.revision


@dataclass(frozen=True, slots=True)
class _Pair:
    encoded: bytes
    stable: Found
    canary: Found
    difference: Difference


class Shadow:
    """A short queue before a canary, and what came of it. Of one event loop.

    `drawn` and `offer` are all that a request meets of it: neither waits.
    """

    def __init__(
        self,
        is_busy: Callable[[], bool],
        detector: Detector,
        settings: Settings,
        live: Live,
        keys: Keys,
        *,
        frames_key: KeyFile | None = None,
        draw: Callable[[], float] = random.random,
        connect: "Callable[[], Caller] | None" = None,
        share: int = 1,
    ) -> None:
        """Begin. share: how many processes of this server draw, which share the memory."""
        self._most_bytes = MOST_BYTES // share
        self.tallies = Tallies()
        self.album = Album(detector.clock)
        self.keys = keys
        self._is_busy = is_busy
        self._detector = detector
        self._settings = settings
        self._live = live
        self._frames_key = frames_key or KeyFile(None, "")
        self._draw = draw
        self.connect = connect
        self.lag_s = LAG_S
        self._target: Target | None = None
        self._refused: object = None  # the order that was last told to be none
        self._queue: asyncio.Queue[Copy] = asyncio.Queue(MOST_WAITING)
        # Whatever becomes of a request, its pictures are counted for as long as they are here.
        self._held: WeakSet[Copy] = WeakSet()
        self._repeats = Repeats(detector.clock)
        self._rate = Quotas(detector.clock)
        self._pause = -float("inf"), Outcome.UNREACHABLE  # until when, and why
        self._back_off_s = BACK_OFF_S[0]
        self._caller: Caller | None = None
        self._task: asyncio.Task[None] | None = None

    def follow(self) -> None:
        """Do from now on what `live.json` says."""
        target = self._allowed(self._live.shadow())
        before, self._target = self._target, target
        keeps = target and target.order.keep_frames and self._frames_key.content()
        self.album.follow(target.revision if target and keeps else "")
        if (target and target.revision) != (before and before.revision):
            self._drop()
            self._repeats.clear()
            self._pause, self._back_off_s = (-float("inf"), Outcome.UNREACHABLE), BACK_OFF_S[0]
            log.info("shadow", extra={"revision": target.revision if target else ""})

    def asks(self, revision: str) -> bool:
        """Say whether it is this revision that pictures are shown to."""
        return self._target is not None and self._target.revision == revision

    def begin(self) -> None:
        """Begin to ask."""
        self._task = asyncio.create_task(self._run())

    def end(self) -> None:
        """Stop at once, and forget what waits."""
        self._target = None
        self._drop()
        self.album.follow("")
        if self._task:
            self._task.cancel()

    async def close(self) -> None:
        """Return when it has stopped."""
        self.end()
        if self._task:
            await asyncio.wait((self._task,))
        if self._caller:
            await self._caller.close()

    @contextmanager
    def drawn(self, sources: Sequence[Source], options: Options) -> Iterator[Drawn]:
        """Draw which pictures of a request are to be shown; those not answered are forgotten.

        Of these the objects are wanted down to `NEARLY` below the threshold.
        """
        target = self._target
        if target is None or self._live.shadow() is None:
            yield Drawn(sources)
            return
        if options != self._detector.defaults:
            times = sum(self._is_drawn(target) for _ in sources)
            self.skipped(target.revision, Outcome.SKIPPED_OPTIONS, times)
            yield Drawn(sources)
            return
        # Where there is no room for all: the pictures of a request may be those of its cameras, in
        # their order, and the last one be never shown.
        copies: list[Copy | None] = [None] * len(sources)
        room = self._room()  # once: they may be thousands
        for at in shuffled(range(len(sources))):
            copies[at] = copy = self._copy(target, sources[at], room)
            room -= copy.size if copy else 0
        drawn = Drawn(sources, copies)
        try:
            yield drawn
        finally:
            for copy in drawn.copies:
                if copy and not copy.answer:
                    self._held.discard(copy)

    def _is_drawn(self, target: Target) -> bool:
        return self._draw() * 100 < target.order.percent

    def _copy(self, target: Target, source: Source, room: int) -> Copy | None:
        if not self._is_drawn(target):
            return None
        if is_too_large(source):
            self.skipped(target.revision, Outcome.SKIPPED_SIZE)
            return None
        size = size_of(source)
        if size > room:
            self.skipped(target.revision, Outcome.SKIPPED_BUSY)
            return None
        copy = Copy(source, size, target.revision, isinstance(source, bytes))
        self._held.add(copy)
        return copy

    async def offer(self, drawn: Drawn) -> None:
        """Take pictures that were answered, if there is room for them; to be called after that.

        It awaits nothing: on a thread, where what is not `async` is run after an answer, it would
        meet the loop's own.
        """
        for copy in shuffled(drawn.shown):
            self._take(copy)

    def take(self, copy: Copy) -> None:
        """Take one that another process of this server has answered."""
        if is_too_large(copy.source()) or copy.size > self._room():
            self._skip(copy, Outcome.SKIPPED_BUSY)
        else:
            self._held.add(copy)
            self._take(copy)

    def _take(self, copy: Copy) -> None:
        if not self.asks(copy.revision):
            self._held.discard(copy)
        elif copy.answer is None or copy.answer.nearly is None:  # finding so many took turns
            self._skip(copy, Outcome.SKIPPED_SIZE)
        elif self._queue.full():
            self._skip(copy, Outcome.SKIPPED_BUSY)
        else:
            self._queue.put_nowait(copy)

    def _room(self) -> int:
        return self._most_bytes - sum(copy.size for copy in self._held)

    def _skip(self, copy: Copy, why: Outcome) -> None:
        self._held.discard(copy)
        self.skipped(copy.revision, why)

    def skipped(self, revision: str, why: Outcome, times: int = 1) -> None:
        """Count pictures that are not shown to a revision."""
        self.tallies.of(revision).frames[why] += times

    def _drop(self) -> None:
        while not self._queue.empty():
            self._held.discard(self._queue.get_nowait())

    def _allowed(self, order: ShadowOrder | None) -> Target | None:
        """Make an address of an order, only ever that of a revision's Service of this detector."""
        if order is None or order.revision == self._settings.revision:
            return None
        if reason := self._against(order):
            if (order, reason) != self._refused:
                self._refused = order, reason
                fields = {"revision": order.revision, "reason": reason}
                log.warning("no shadow for this revision", extra=fields)
            return None
        host = f"{order.revision}.{self._settings.namespace}.svc"
        return Target(order, f"http://{host}/v1/detect")

    def _against(self, order: ShadowOrder) -> str:
        """Say why an order is not followed; nothing, if it is."""
        prefix, _, _ = self._settings.revision.rpartition("-")  # a long name is shortened in it
        if not (prefix and re.fullmatch(f"{re.escape(prefix)}-[0-9a-f]{{8}}", order.revision)):
            return "not a revision of this detector"
        if not self._settings.namespace:
            return "YOLOSERVE_NAMESPACE is not set"
        if not self.keys.shown():
            return "no key to show: YOLOSERVE_SHADOW_KEY_FILE names none"
        return ""

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(self._work())

    async def _work(self) -> None:
        while True:
            copy = await self._queue.get()
            target = self._target
            if target and target.revision == copy.revision:
                try:
                    self._count(copy, await self._result(target, copy))
                except Exception:  # a fault of ours is no evidence, and no reason to stop comparing
                    log.exception("shadow failed")
                    self._count(copy, Outcome.UNREACHABLE)
            self._held.discard(copy)

    def _count(self, copy: Copy, result: "Outcome | _Pair") -> None:
        tally = self.tallies.of(copy.revision)
        if isinstance(result, Outcome):
            tally.frames[result] += 1
        else:
            stable, canary, apart = result.stable, result.canary, result.difference
            tally.compared(stable, canary, apart)
            self.album.offer(copy.revision, result.encoded, stable, canary, apart.apart)

    async def _result(self, target: Target, copy: Copy) -> "Outcome | _Pair":
        clock = self._detector.clock
        until, why = self._pause
        if (began := clock()) < until:
            return why
        await asyncio.sleep(0)  # the loop's other work comes first: how long does it take?
        if self._is_busy() or clock() - began > self.lag_s:
            return Outcome.SKIPPED_BUSY
        encode, detector = copy.encoded, self._detector
        whole = isinstance(copy.picture, bytes)
        encoded = encode() if whole else await asyncio.to_thread(encode)
        if self._repeats.has(encoded):  # before the rate, of which it would take all others' part
            return Outcome.SKIPPED_REPEATED
        try:
            if not target.order.max_per_second:
                return Outcome.SKIPPED_RATE
            self._rate.take("", target.order.max_per_second)
        except OverQuota:
            return Outcome.SKIPPED_RATE
        stable = copy.found(detector.info.classes, detector.defaults.confidence)
        self._repeats.add(encoded)
        canary: Found | Outcome = Outcome.UNREACHABLE
        try:
            canary = await self._ask(target, encoded, COMPUTED if copy.as_file else LOOKED)
        finally:
            if canary in (Outcome.UNREACHABLE, Outcome.SKIPPED_BUSY):
                self._repeats.remove(encoded)
        if isinstance(canary, Outcome):
            return canary
        boxes = len(stable.detections) * len(canary.detections)
        if boxes > MANY_PAIRS or len(canary.classes) > MANY_CLASSES:
            apart = await asyncio.to_thread(difference, stable, canary)
        else:
            apart = difference(stable, canary)
        return _Pair(encoded, stable, canary, apart)

    async def _ask(self, target: Target, encoded: bytes, stages: Sequence[str]) -> Found | Outcome:
        caller = await self._connected()
        from yoloserve.shadow.asking import Late, Unreachable

        headers = {
            "host": target.url.split("/")[2],
            "content-type": "application/octet-stream",
            "accept": "application/json",
            "user-agent": "yoloserve",
            "traceparent": begin({}).traceparent,
            SOURCE: "shadow",
            SOURCE_KEY: self.keys.shown(),
        }
        try:
            reply = await caller.post(target.url, headers, encoded, self._detector.deadline_s)
            answer = reply.status, reply.headers, reply.body, target.revision, stages
            short = len(reply.body) <= LONG_ANSWER
            found = read(*answer) if short else await asyncio.to_thread(read, *answer)
        except Late:
            found = Outcome.LATE
        except Unreachable:
            found = Outcome.UNREACHABLE
        self._learn(found)
        return found

    def _learn(self, found: Found | Outcome) -> None:
        """Ask later whom nobody can reach, or who has too much to do."""
        now = self._detector.clock()
        if found is Outcome.UNREACHABLE:
            if now >= self._pause[0]:  # of two that were under way, one counts
                self._pause = now + self._back_off_s, Outcome.UNREACHABLE
                self._back_off_s = min(2 * self._back_off_s, BACK_OFF_S[1])
        elif found is Outcome.SKIPPED_BUSY:
            self._pause = now + BREATH_S, Outcome.SKIPPED_BUSY
        else:
            self._back_off_s = BACK_OFF_S[0]

    async def _connected(self) -> "Caller":
        if self._caller is None:
            if self.connect is None:  # on a thread: the import takes a tenth of a second
                self.connect = await asyncio.to_thread(_usual)
            self._caller = self._caller or self.connect()
        return self._caller


def shuffled(each: Sequence[R]) -> list[R]:
    """Give them in no order, so that none is shown more often than another."""
    return random.sample(each, len(each))


def _usual() -> "Callable[[], Caller]":
    from yoloserve.shadow.asking import Caller

    return Caller
