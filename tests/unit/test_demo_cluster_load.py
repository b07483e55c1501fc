import asyncio
import json

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from demo_cluster.errors import TookTooLong
from demo_cluster.load import Answer, Load, Target, judged, percentile, summarised


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 50, 0.0),
        ([7.0], 50, 7.0),
        ([7.0], 99, 7.0),
        ([1.0, 2.0, 3.0, 4.0], 50, 2.0),
        ([1.0, 2.0, 3.0, 4.0], 75, 3.0),
        ([1.0, 2.0, 3.0, 4.0], 76, 4.0),
        (list(map(float, range(1, 101))), 99, 99.0),
        (list(map(float, range(1, 101))), 100, 100.0),
    ],
)
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(values, percent, expected):
    assert percentile(values, percent) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(1, 100))
def test_at_least_that_part_of_the_values_is_not_above_the_percentile(values, percent):
    found = percentile(sorted(values), percent)
    assert sum(value <= found for value in values) * 100 >= percent * len(values)


def test_an_answer_is_worth_its_revision():
    body = json.dumps({"model": {"revision": "gate-1"}}).encode()
    assert judged(200, body, 5.0) == Answer(5.0, revision="gate-1")


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (503, b'{"error": {"code": "overloaded"}}', "HTTP 503 overloaded"),
        (503, b'"upstream"', "HTTP 503"),
        (503, b"upstream connect error", "HTTP 503, not JSON: upstream connect error"),
        (200, b"", "HTTP 200, not JSON: "),
        (200, b"{}", "no revision in the answer"),
        (200, b"[]", "no revision in the answer"),
    ],
)
def test_any_other_answer_is_a_failure_of_its_kind(status, body, failure):
    assert judged(status, body, 5.0) == Answer(5.0, failure=failure)


def test_failures_are_counted_by_kind_and_are_not_in_shares_and_latencies():
    answers = [
        Answer(10, revision="a"),
        Answer(20, revision="a"),
        Answer(30, revision="b"),
        Answer(9999, failure="timeout"),
    ]
    summary = summarised(answers)
    assert (summary.requests, summary.failed) == (4, 1)
    assert summary.failures == {"timeout": 1}
    assert summary.share("a") == pytest.approx(2 / 3)
    assert summary.share("nobody") == 0
    assert summary.p99_ms == 30


def test_nothing_answered_is_no_share():
    assert summarised([Answer(1, failure="timeout")]).share("a") == 0


async def a_server(answer):
    app = web.Application()
    app.router.add_post("/v1/detect", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    [(_, port)] = [address[:2] for address in runner.addresses]
    return runner, f"http://127.0.0.1:{port}"


async def test_callers_keep_asking_until_they_are_told_to_stop():
    hosts, bodies = set(), set()

    async def answer(request):
        hosts.add(request.host)
        bodies.add(await request.read())
        return web.json_response({"model": {"revision": "gate-1"}})

    runner, url = await a_server(answer)
    try:
        load = Load(Target(url, "gate.localhost"), [b"one", b"two"], callers=2)
        await asyncio.to_thread(ask_some, load, 50)
    finally:
        await runner.cleanup()
    summary = load.summary()
    assert summary.requests >= 50
    assert summary.failed == 0
    assert summary.revisions == {"gate-1": summary.requests}
    assert hosts == {"gate.localhost"}
    assert {body[:3] for body in bodies} == {b"one", b"two"}
    assert len(bodies) >= summary.requests, "no two alike"


def ask_some(load: Load, count: int) -> None:
    with load:
        load.wait_for(count, within_s=60)


async def test_a_connection_that_breaks_is_a_failed_request():
    async def answer(request):
        request.transport.close()
        return web.Response()

    runner, url = await a_server(answer)
    try:
        load = Load(Target(url, "gate"), [b"one"], callers=1)
        await asyncio.to_thread(ask_some, load, 3)
    finally:
        await runner.cleanup()
    assert load.summary().failed >= 3


async def test_waiting_for_answers_that_do_not_come_says_how_many_are_missing():
    never = asyncio.Event()

    async def answer(_request):
        await never.wait()
        return web.Response()

    runner, url = await a_server(answer)
    loop = asyncio.get_running_loop()
    load = Load(Target(url, "gate"), [b"one"], callers=1)

    def ask() -> None:
        with load:
            with pytest.raises(TookTooLong, match="1 of 1 requests have no answer"):
                load.wait_for(1, within_s=0.1)
            loop.call_soon_threadsafe(never.set)

    await asyncio.to_thread(ask)
    await runner.cleanup()
