"""Requests that keep coming: a load generator whose every answer is looked at.

A closed loop of a few callers with connections kept alive, in a thread of its own, so that a script
can edit resources meanwhile. Of each answer it keeps how long it took, which revision gave it (as
the answer itself says), or what was wrong with it.
"""

import asyncio
import itertools
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import aiohttp
import orjson

from demo_cluster.errors import NotYet, TookTooLong
from demo_cluster.waiting import eventually

TIMEOUT_S: Final = 60.0  # far above any deadline of the server: what takes longer has failed
CALLERS: Final = 4
AGREE: Final = 50  # answers in a row: more than are on their way at any moment
AFTER_FAILURE_S: Final = 0.1  # a dead server must not be asked thousands of times a second
PATH: Final = "/v1/detect"
SHOWN: Final = 80  # bytes of an answer that is none of the server: a proxy says why


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go: an address, and the host that the router knows the detector by."""

    url: str
    host: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's end. `failure` is empty when it was answered as it should be."""

    took_ms: float
    revision: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of some requests."""

    requests: int
    failures: Mapping[str, int]  # by kind
    revisions: Mapping[str, int]  # requests that each revision answered
    p50_ms: float
    p99_ms: float

    @property
    def failed(self) -> int:
        """How many were not answered as they should be."""
        return sum(self.failures.values())

    def share(self, revision: str) -> float:
        """Return the part of the answered requests that `revision` answered."""
        answered = sum(self.revisions.values())
        return self.revisions.get(revision, 0) / answered if answered else 0.0


def summarised(answers: Sequence[Answer]) -> Summary:
    """Count `answers` up."""
    good = sorted(answer.took_ms for answer in answers if not answer.failure)
    return Summary(
        requests=len(answers),
        failures=Counter(answer.failure for answer in answers if answer.failure),
        revisions=Counter(answer.revision for answer in answers if not answer.failure),
        p50_ms=percentile(good, 50),
        p99_ms=percentile(good, 99),
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the smallest value that `percent` of the `ordered` values do not exceed; 0 of none."""
    if not ordered:
        return 0.0
    rank = -(-len(ordered) * percent // 100)  # ceil
    return ordered[max(0, int(rank) - 1)]


def unlike(pictures: Sequence[bytes]) -> Iterator[bytes]:
    """Yield them for ever, no two alike, as no two of a camera are.

    A release is judged by none that comes again byte for byte. No decoder reads what follows the
    end of a JPEG.
    """
    ours = secrets.token_bytes(4)
    for number, picture in enumerate(itertools.cycle(pictures)):
        yield picture + ours + number.to_bytes(4, "big")


class Load:
    """Callers that post pictures, one after the other, from entering to leaving the context.

    per_second: of all callers together, at most; None: as many as are answered.
    """

    def __init__(
        self,
        target: Target,
        pictures: Sequence[bytes],
        *,
        callers: int = CALLERS,
        per_second: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._target = target
        self._pictures = unlike(pictures)
        self._callers = callers
        self._turns = _Turns(per_second)
        self._headers = {"Host": target.host, "Content-Type": "image/jpeg", **(headers or {})}
        self._answers: list[Answer] = []
        self._arrived = threading.Condition()
        self._stop = threading.Event()
        self._crash: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(TIMEOUT_S + 5)
        if self._crash and error is None:
            raise self._crash

    @property
    def answered(self) -> int:
        """How many requests have ended so far: a mark for `summary`."""
        return len(self._answers)

    def wait_for(self, more: int, *, within_s: float) -> None:
        """Return when `more` requests have ended, counted from now. Raises TookTooLong."""
        goal = self.answered + more
        with self._arrived:
            there = self._arrived.wait_for(
                lambda: self.answered >= goal or self._crash is not None, within_s
            )
        if self._crash:
            raise self._crash
        if not there:
            missing = goal - self.answered
            raise TookTooLong(f"{missing} of {more} requests have no answer after {within_s:.0f} s")

    def wait_answered_by(self, revision: str, *, within_s: float) -> None:
        """Return when the last answers were all of one revision. Raises TookTooLong.

        The proxies have the last weights a moment after the API server.
        """

        def look() -> None:
            found = self.summary(since=max(0, self.answered - AGREE)).revisions
            if set(found) != {revision}:
                raise NotYet(f"of the last {AGREE} answers: {dict(found)}")

        eventually(f"{revision} to answer everything", look, within_s=within_s)

    def summary(self, since: int = 0, until: int | None = None) -> Summary:
        """Count up the requests that ended between two marks."""
        return summarised(self._answers[since:until])

    def _run(self) -> None:
        try:
            asyncio.run(self._all_callers())
        except BaseException as error:  # handed to whoever waits, or leaves the context
            self._crash = error
        with self._arrived:
            self._arrived.notify_all()

    async def _all_callers(self) -> None:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._callers),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            headers=self._headers,
        ) as session:
            await asyncio.gather(*(self._caller(session) for _ in range(self._callers)))

    async def _caller(self, session: aiohttp.ClientSession) -> None:
        while not self._stop.is_set():
            await self._turns.next()
            answer = await self._ask(session, next(self._pictures))
            with self._arrived:
                self._answers.append(answer)
                self._arrived.notify_all()
            if answer.failure:
                await asyncio.sleep(AFTER_FAILURE_S)

    async def _ask(self, session: aiohttp.ClientSession, picture: bytes) -> Answer:
        started = time.perf_counter()
        try:
            async with session.post(self._target.url + PATH, data=picture) as response:
                body = await response.read()
        except TimeoutError:
            return Answer(_since(started), failure="timeout")
        except aiohttp.ClientError as error:
            return Answer(_since(started), failure=type(error).__name__)
        return judged(response.status, body, _since(started))


class _Turns:
    """The times at which requests may begin, evenly apart; what was missed is not made up for."""

    def __init__(self, per_second: float | None) -> None:
        self._apart = 1 / per_second if per_second else 0.0
        self._at = 0.0

    async def next(self) -> None:
        """Return when it is somebody's turn."""
        now = time.perf_counter()
        self._at = max(self._at + self._apart, now)
        await asyncio.sleep(self._at - now)


def wait_until_served(
    target: Target, pictures: Sequence[bytes], *, within_s: float, hint: str = ""
) -> None:
    """Return when the ingress answers every caller: it hears of a route after the API server does.

    It works on several threads, and each hears for itself. Raises TookTooLong.
    """

    def look() -> None:
        with Load(target, pictures) as load:
            try:
                load.wait_for(5 * CALLERS, within_s=within_s)
            except TookTooLong as instead:
                raise NotYet(str(instead)) from None
        if (found := load.summary()).failed:
            raise NotYet(str(dict(found.failures)))

    what = f"answers from {target.url} for host {target.host}"
    eventually(what, look, within_s=within_s, hint=hint)


def judged(status: int, body: bytes, took_ms: float) -> Answer:
    """Return what an answer is worth: its revision, or the kind of its failure."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        told = body[:SHOWN].decode(errors="replace")
        return Answer(took_ms, failure=f"HTTP {status}, not JSON: {told}")
    if status != 200:
        code = answer.get("error", {}).get("code", "") if isinstance(answer, dict) else ""
        return Answer(took_ms, failure=f"HTTP {status} {code}".rstrip())
    try:
        return Answer(took_ms, revision=answer["model"]["revision"])
    except (KeyError, TypeError):
        return Answer(took_ms, failure="no revision in the answer")


def _since(started: float) -> float:
    return 1000 * (time.perf_counter() - started)
