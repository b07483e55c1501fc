"""Reads what the pods of a judged revision counted, beside all reconciles.

Each trial is looked at in its interval: the pods of both revisions are asked for their counters, or
Prometheus is; what these added goes to `judge`, and a verdict that is news has its detector looked
at. Nothing is written here. What must survive is in the status; where that is behind, evidence is
lost, and none counts twice.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from http import HTTPStatus
from typing import Final

import aiohttp

from yolofleet.analysis import prometheus
from yolofleet.analysis.evidence import MOST_BYTES, Evidence, parse
from yolofleet.analysis.increments import (
    OLDEST_S,
    Memory,
    Pod,
    is_repeated,
    look,
    without_repeated,
)
from yolofleet.analysis.judge import judge
from yolofleet.analysis.prometheus import Scraped
from yolofleet.analysis.statistics import PASS_LOOKS
from yolofleet.api.analysis import AnalysisStatus, Source
from yolofleet.api.base import seconds
from yolofleet.api.names import Manifest
from yolofleet.api.pod_template import EVIDENCE_PORT
from yolofleet.cluster.bounded import body_of
from yolofleet.cluster.cache import Cache
from yolofleet.cluster.prometheus import Query, not_configured
from yolofleet.cluster.rounds import Rounds
from yolofleet.plan.judging import Subject, is_behind, is_news
from yolofleet.workloads.pods import evidence_url, is_ready, restarts, revision_of, stays

_, PORT = EVIDENCE_PORT
TIMEOUT_S: Final = 2.0
AT_ONCE: Final = 64
AT_ONCE_OF_A_TRIAL: Final = 4
"""Pods that hang keep no more places than these from the pods of other trials."""

Fetch = Callable[[str], Awaitable[bytes]]
"""Returns the body that a URL answers; raises OSError, TimeoutError or aiohttp.ClientError."""


@dataclass(slots=True)
class _Trial:
    """One that is followed. found: by the last look; announced: by the last that was news.

    owed: looks that are to make up for a gap, before any verdict lets it go on.
    """

    subject: Subject
    found: AnalysisStatus | None
    announced: AnalysisStatus | None = None
    announced_at: datetime | None = None
    fresh_at: float = 0.0  # when somebody was last read who had not told the same before
    memory: Memory = field(default_factory=Memory)
    owed: int = 0

    def learned(self, found: AnalysisStatus, now: datetime, *, shown: bool) -> AnalysisStatus:
        """Return what a look found, with the step that it is for.

        The first look after a gap is only one to count from. As many as a pass takes are to follow.
        shown: whether there was something to see; else it makes up for nothing.
        """
        behind = not self.owed and is_behind(self.subject.asked, found, now)
        if shown:
            self.owed = PASS_LOOKS if behind else max(self.owed - 1, 0)
        owes = behind or self.owed > 0
        known: dict[str, object] = {"following": 0 if owes else self.subject.trial.following}
        if shown and not owes:
            known["looked_at"] = now
        self.found = found.model_copy(update=known)
        return self.found


class Sampler:
    """Follows the trials that reconciles name, and knows what each has shown."""

    def __init__(
        self,
        cache: Cache,
        fetch: Fetch,
        *,
        wake: Callable[[str], None],
        now: Callable[[], datetime],
        prometheus: Query = not_configured,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache = cache
        self._fetch = fetch
        self._prometheus = prometheus
        self._wake = wake
        self._now = now
        self._clock = clock
        self.rounds = Rounds(self._look, _interval_s, clock=clock)
        self._places = asyncio.Semaphore(AT_ONCE)

    def follow(self, key: str, subject: Subject | None) -> None:
        """Look at the pods of this trial of the detector `key` from now on; None: at none."""
        known = self.rounds.get(key)
        if subject is None:
            self.rounds.end(key)
        elif known and known.subject.is_of(subject):
            known.subject = subject
        else:
            self.rounds.begin(key, _Trial(subject, subject.known))

    def found(self, key: str) -> AnalysisStatus | None:
        """Return what is known of the trial of `key` since the last news, if there were any."""
        trial = self.rounds.get(key)
        return trial.announced if trial else None

    async def _look(self, key: str, trial: _Trial) -> None:
        subject = trial.subject
        names = (subject.trial.revision, subject.trial.against)
        pods = [pod for pod in self._cache.pods(key) if revision_of(pod) in names]
        if subject.asked.source is Source.PROMETHEUS:
            read = await self._look_up(pods, canary=names[0])
        else:
            places = asyncio.Semaphore(AT_ONCE_OF_A_TRIAL)
            mute = names[0] if subject.mute else ""
            read = await asyncio.gather(
                *(self._read(pod, places, asked=revision_of(pod) != mute) for pod in pods)
            )
        if self.rounds.get(key) is not trial:  # it ended meanwhile
            return
        if not is_repeated(trial.memory, read):
            trial.fresh_at = self._clock()
        elif self._clock() - trial.fresh_at < OLDEST_S:
            return
        else:
            read = without_repeated(trial.memory, read)
        stable = "" if subject.alone else names[1]
        trial.memory, seen = look(trial.memory, read, canary=names[0], stable=stable)
        now, subject = self._now(), trial.subject  # its step may be another by now
        found = judge(subject.asked, trial.found, seen, subject.standing, now=now)
        # Who answers all is compared with nobody any more.
        beside = stable if subject.trial.weight < 100 else ""
        shown = not found.unreadable and _are_there(pods, canary=names[0], stable=beside)
        found = trial.learned(found, now, shown=shown)
        age = now - (trial.announced_at or now)
        if is_news(subject.asked, trial.announced, found, age=age):
            trial.announced, trial.announced_at = found, now
            self._wake(key)

    async def _read(self, pod: Manifest, places: asyncio.Semaphore, *, asked: bool) -> Pod:
        url = evidence_url(pod)
        if not (is_ready(pod) and url):
            return _unasked(pod)
        evidence = await self._ask(url, revision_of(pod), places) if asked else None
        return replace(_unasked(pod), ready=True, evidence=evidence)

    async def _look_up(self, pods: list[Manifest], *, canary: str) -> list[Pod]:
        """Read what Prometheus has of all of them, some with each query, one after the other.

        That takes 4 ms for each pod, so others are not kept waiting by it. Where it does not answer
        it is asked no more: a look that waits in vain does it once.
        """
        ready = {pod["metadata"]["name"]: revision_of(pod) for pod in pods if is_ready(pod)}
        scraped: dict[str, Scraped | str] = {}
        try:
            for some in prometheus.in_parts(ready):
                namespace = pods[0]["metadata"]["namespace"]
                query = prometheus.query(some, namespace=namespace, canary=canary)
                status, body = await self._prometheus(query)
                scraped |= await asyncio.to_thread(prometheus.read, body, some, status=status)
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            why = prometheus.not_looked_up(_why(error))
            scraped |= dict.fromkeys(ready.keys() - scraped.keys(), why)
        return [_looked_up(pod, scraped.get(pod["metadata"]["name"])) for pod in pods]

    async def _ask(self, url: str, revision: str, places: asyncio.Semaphore) -> Evidence | str:
        try:
            async with places, self._places:
                body = await self._fetch(url)
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            return f"does not answer on port {PORT} ({_why(error)})"
        return parse(body, revision=revision)


def _are_there(pods: list[Manifest], *, canary: str, stable: str) -> bool:
    """Say whether each revision has a ready pod; a stable one that gave all of its up needs none.

    So it is while the last pod of a release in place starts.
    """
    needed = {canary} | {revision_of(pod) for pod in pods if stays(pod)} & {stable}
    return needed <= {revision_of(pod) for pod in pods if is_ready(pod)}


def _interval_s(trial: _Trial) -> float:
    return seconds(trial.subject.asked.interval)


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):  # most have no words
        return "nothing came in time"
    if isinstance(error, aiohttp.ClientConnectorError):  # which lists addresses and options
        cause = error.os_error
        number = cause.errno or 0  # below zero: of a name that is not found
        known = os.strerror(number) if number > 0 else cause.strerror
        return f"no connection to {error.host}:{error.port}: {known or cause}"[:100]
    return str(error)[:100] or type(error).__name__


def _unasked(pod: Manifest) -> Pod:
    return Pod(pod["metadata"]["uid"], revision_of(pod), ready=False, restarts=restarts(pod))


def _looked_up(pod: Manifest, scraped: Scraped | str | None) -> Pod:
    if scraped is None:
        return _unasked(pod)
    if isinstance(scraped, str):
        return replace(_unasked(pod), ready=True, evidence=scraped)
    return replace(_unasked(pod), ready=True, evidence=scraped.evidence, scrape=scraped.scrape)


def to_pods() -> aiohttp.ClientSession:
    """Return what asks pods. They run what users gave them: nothing they send grows here."""
    return aiohttp.ClientSession(
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"accept-encoding": "identity"},
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
    )


def fetch_with(session: aiohttp.ClientSession) -> Fetch:
    """Return what asks a pod over a session `to_pods`."""

    async def fetch(url: str) -> bytes:
        async with session.get(url, allow_redirects=False) as answer:
            if answer.status != HTTPStatus.OK:
                raise aiohttp.ClientError(f"answers {answer.status}")
            return await body_of(answer, most=MOST_BYTES)

    return fetch
