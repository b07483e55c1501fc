"""Who is looked at when, and what a pod may answer: one that hangs or swells harms itself alone."""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.test_utils import TestServer

from played_pods import CANARY, STABLE, Server
from played_prometheus import Prometheus, metrics
from yolofleet.analysis.evidence import MOST_BYTES
from yolofleet.analysis.margins import margins_hash
from yolofleet.api.analysis import Analysis, AnalysisStatus, Source, Stage, Verdict
from yolofleet.cluster import prometheus as prometheus_io
from yolofleet.cluster import sampler as sampler_io
from yolofleet.cluster.cache import Cache
from yolofleet.cluster.prometheus import Query, http_query, not_configured
from yolofleet.cluster.sampler import Sampler, _why, fetch_with, to_pods
from yolofleet.plan.judging import Subject, Trial
from yolofleet.workloads.pods import restarts

SUBJECT = Subject(Trial(CANARY, STABLE, Stage.DARK, 0, 1), Analysis(), None, "", "", False)
HANGING = 100


def a_pod(address: str, revision: str) -> dict[str, Any]:
    return {
        "metadata": {"uid": address, "labels": {"yolofleet.io/revision": revision}},
        "status": {"podIP": address, "conditions": [{"type": "Ready", "status": "True"}]},
    }


class Pods:
    """A cache of pods: `shop/hangs` has many that never answer, `shop/gate` two that do."""

    def pods(self, key: str) -> list[dict[str, Any]]:
        if key == "shop/hangs":
            return [a_pod(f"10.0.0.{n}", CANARY) for n in range(HANGING)]
        return [a_pod("10.1.0.1", STABLE), a_pod("10.1.0.2", CANARY)]


@contextmanager
def running(work: Any) -> Iterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()


async def test_pods_that_hang_delay_the_looks_at_no_other_detector() -> None:
    now, asked, looked = 0.0, 0, asyncio.Event()

    async def fetch(url: str) -> bytes:
        nonlocal now, asked
        if "//10.0." in url:
            await asyncio.Event().wait()
        now, asked = now + 10, asked + 1  # it is due again, so that it is looked at again
        if asked == 8:
            looked.set()
        return Server("", STABLE if "10.1.0.1" in url else CANARY).evidence()

    sampler = Sampler(
        cast(Cache, Pods()), fetch, wake=lambda _: None, now=lambda: datetime.now(UTC),
        clock=lambda: now,
    )  # fmt: skip
    sampler.follow("shop/hangs", SUBJECT)
    sampler.follow("shop/gate", SUBJECT)
    with running(sampler.rounds.run()):
        async with asyncio.timeout(60):
            await looked.wait()
    assert sampler.found("shop/hangs") is None


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that gives this process no processor for two seconds is no pod that hangs."""
    monkeypatch.setattr(sampler_io, "TIMEOUT_S", 60.0)
    monkeypatch.setattr(prometheus_io, "TIMEOUT_S", 60.0)


async def answered(handler: Any) -> Any:
    app = web.Application()
    app.router.add_get("/evidence", handler)
    async with TestServer(app) as server, to_pods() as session:
        return await fetch_with(session)(str(server.make_url("/evidence")))


async def test_what_a_pod_packs_is_not_unpacked() -> None:
    """A few bytes may be gigabytes: the operator has 256 MiB."""
    packed = gzip.compress(bytes(2**26))

    async def handler(request: web.Request) -> web.Response:
        assert request.headers["accept-encoding"] == "identity"
        return web.Response(body=packed, headers={"content-encoding": "gzip"})

    assert await answered(handler) == packed


async def test_of_what_is_too_long_no_more_is_read_than_shows_that() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(2**16))

    assert MOST_BYTES < len(await answered(handler)) <= MOST_BYTES + 2**17


@pytest.mark.parametrize("status", [301, 404, 500])
async def test_what_is_no_answer_is_none_wherever_it_leads(status: int) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"location": "/evidence", "set-cookie": "a=b"})

    with pytest.raises(aiohttp.ClientError, match=str(status)):
        await answered(handler)


class Listed:
    """A cache of two pods that have names, and are asked for nothing themselves."""

    def pods(self, _key: str) -> list[dict[str, Any]]:
        pods = [a_pod("s", STABLE), a_pod("c", CANARY)]
        for pod in pods:
            pod["metadata"] |= {"name": pod["metadata"]["uid"], "namespace": "shop"}
        return pods


async def nobody(url: str) -> bytes:
    raise AssertionError(f"{url} was asked")


async def by_prometheus(
    query: Query, looks: int = 1, interval: str = "10s", cache: Any = None
) -> AnalysisStatus:
    """Return what is found by so many looks that ask Prometheus."""
    now = 0.0
    asked = Analysis(source=Source.PROMETHEUS, interval=interval)
    sampler = Sampler(
        cast(Cache, cache or Listed()), nobody, wake=lambda _: None, now=lambda: datetime.now(UTC),
        clock=lambda: now, prometheus=query,
    )  # fmt: skip
    sampler.follow("shop/gate", replace(SUBJECT, asked=asked))
    for _ in range(looks):
        await sampler.rounds.look_at_due()
        now += 10
    followed = sampler.rounds.get("shop/gate")
    assert followed
    found = followed.found
    assert found
    return found


async def test_prometheus_is_asked_in_place_of_the_pods_and_one_scrape_is_one_look() -> None:
    prometheus = Prometheus()
    for uid, revision in (("s", STABLE), ("c", CANARY)):
        prometheus.scrape(metrics(Server(uid, revision)), namespace="shop", pod=uid)
    found = await by_prometheus(prometheus.ask, looks=3)
    assert (found.looks, found.unreadable, found.verdict) == (1, 0, Verdict.INCONCLUSIVE)


class Many:
    """A cache of so many pods that one query is not for all of them."""

    def pods(self, _key: str) -> list[dict[str, Any]]:
        pods = [a_pod(f"p{n}", CANARY if n % 2 else STABLE) for n in range(60)]
        for pod in pods:
            pod["metadata"] |= {"name": pod["metadata"]["uid"], "namespace": "shop"}
        return pods


async def test_many_pods_are_asked_for_some_at_a_time() -> None:
    prometheus, lengths = Prometheus(), []
    for pod in Many().pods(""):
        name, labels = pod["metadata"]["name"], pod["metadata"]["labels"]
        told = metrics(Server(name, labels["yolofleet.io/revision"]))
        prometheus.scrape(told, namespace="shop", pod=name)

    async def ask(query: str) -> tuple[int, bytes]:
        status, body = await prometheus.ask(query)
        lengths.append(len(body))
        return status, body

    found = await by_prometheus(ask, cache=Many())
    assert (found.looks, found.unreadable) == (1, 0)
    assert len(lengths) == 3
    assert max(lengths) < prometheus_io.MOST_BYTES / 4


async def test_one_that_hangs_is_waited_for_once_however_many_pods_there_are() -> None:
    asked = 0

    async def hangs(_query: str) -> tuple[int, bytes]:
        nonlocal asked
        asked += 1
        raise TimeoutError

    found = await by_prometheus(hangs, cache=Many())
    assert (asked, found.verdict) == (1, Verdict.ERROR)
    assert any("nothing came in time" in check.message for check in found.checks)


async def test_an_answer_that_never_changes_is_told() -> None:
    """A cache before Prometheus answers so, or one whose clock stands still."""
    prometheus = Prometheus()
    for uid, revision in (("s", STABLE), ("c", CANARY)):
        prometheus.scrape(metrics(Server(uid, revision)), namespace="shop", pod=uid)
    found = await by_prometheus(prometheus.ask, looks=12)
    assert (found.looks, found.unreadable) == (1, 0)
    found = await by_prometheus(prometheus.ask, looks=15)
    assert (found.unreadable, found.verdict) == (3, Verdict.ERROR)
    assert any("one and the same scrape" in check.message for check in found.checks)


@pytest.mark.parametrize("content", [b"", b"two\nlines", b"\xff\xfe", b"caf\xc3\xa9"])
async def test_a_token_or_a_certificate_that_is_none_is_named(content: bytes, tmp_path) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    async with to_pods() as session:
        for setting in ("token", "ca"):
            ask = http_query(session, "https://127.0.0.1:9", **{setting: str(file)})
            found = await by_prometheus(ask)
            named = {"token": "prometheus.tokenSecret", "ca": "prometheus.caConfigMap"}[setting]
            assert any(named in check.message for check in found.checks)


async def test_without_a_prometheus_it_is_told_where_to_name_one() -> None:
    found = await by_prometheus(not_configured, looks=2)
    assert (found.unreadable, found.verdict) == (2, Verdict.ERROR)
    told = {check.message for check in found.checks if check.verdict is Verdict.ERROR}
    assert all("prometheus.url is not set in the operator's chart" in each for each in told)


@asynccontextmanager
async def a_server(handler: Any) -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    app = web.Application()
    app.router.add_route("*", "/base/api/v1/query", handler)
    async with TestServer(app) as server, to_pods() as session:
        yield str(server.make_url("/base/")), session


@pytest.mark.parametrize("status", [302, 401, 422, 503])
async def test_a_prometheus_that_refuses_is_an_error_and_no_failure(status: int) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"location": "/base/api/v1/query"}, text="<p>")

    async with a_server(handler) as (url, session):
        found = await by_prometheus(http_query(session, url))
    assert (found.verdict, found.failed) == (Verdict.ERROR, [])
    assert any(f"Prometheus answers {status}" in check.message for check in found.checks)


async def test_a_prometheus_that_is_away_or_hangs_is_an_error_and_no_failure(monkeypatch) -> None:
    monkeypatch.setattr(prometheus_io, "TIMEOUT_S", 0.05)

    async def handler(_request: web.Request) -> web.Response:
        await asyncio.sleep(3600)
        raise AssertionError

    async with a_server(handler) as (url, session):
        hangs = await by_prometheus(http_query(session, url))
    async with to_pods() as session:
        away = await by_prometheus(http_query(session, url))
    for found in (hangs, away):
        assert (found.verdict, found.failed) == (Verdict.ERROR, [])
        assert any("could not be looked up" in check.message for check in found.checks)


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('::1', 9, 0, 0)"), "Connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (OSError("no more ports"), "no more ports"),
    ],
)
def test_what_cannot_be_reached_is_told_in_plain_words(cause: OSError, words: str) -> None:
    key = ConnectionKey("prometheus.example.com", 9090, False, True, None, None, None)
    error = aiohttp.ClientConnectorError(key, cause)
    assert _why(error) == f"no connection to prometheus.example.com:9090: {words}"


async def test_it_is_shown_the_token_of_today_and_asked_by_a_form(tmp_path: Path) -> None:
    shown = []
    prometheus = Prometheus()

    async def handler(request: web.Request) -> web.Response:
        form = await request.post()
        shown.append((request.headers["authorization"], form["timeout"]))
        return web.Response(body=prometheus.answer(str(form["query"])))

    token = tmp_path / "token"
    async with a_server(handler) as (url, session):
        for content in ("one\n", "two\n"):
            token.write_text(content)
            found = await by_prometheus(http_query(session, url, token=str(token)))
        token.unlink()
        gone = await by_prometheus(http_query(session, url, token=str(token)))
    assert shown == [("Bearer one", "60s"), ("Bearer two", "60s")], "and how long is waited"
    assert any("not in Prometheus" in check.message for check in found.checks)
    assert gone.verdict is Verdict.ERROR


def test_another_source_is_another_trial_since_its_counters_are_of_another_kind() -> None:
    other = replace(SUBJECT, asked=Analysis(source=Source.PROMETHEUS))
    assert not SUBJECT.is_of(other)
    assert margins_hash(SUBJECT.asked) == margins_hash(other.asked), "what is known is kept"


def test_what_runs_beside_the_server_restarts_for_its_own_reasons() -> None:
    told = [{"name": "yoloserve", "restartCount": 1}, {"name": "istio-proxy", "restartCount": 7}]
    assert restarts({"metadata": {}, "status": {"containerStatuses": told}}) == 1
