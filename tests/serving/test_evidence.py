"""`GET /evidence`: what a release is judged by, and the port that tells it."""

import asyncio
import json
import math
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ConfigDict, TypeAdapter, with_config

from controlplane import ports
from yoloserve.detections.postprocess import Detections
from yoloserve.detector import Answer, Timing
from yoloserve.errors import InvalidSettings
from yoloserve.http import side_port
from yoloserve.http.side_port import MOST_OPEN, SidePort, evidence
from yoloserve.settings import Settings
from yoloserve.telemetry.evidence import Evidence, Names, Witness
from yoloserve.telemetry.load import OFFERED, SPAN_S, Recent
from yoloserve.telemetry.metrics import Metrics
from yoloserve.telemetry.names import MOST_NAMES, called
from yoloserve.telemetry.traffic import Traffic

FORMAT = TypeAdapter(with_config(ConfigDict(extra="forbid", strict=True))(Evidence))
ASK = b"GET /evidence HTTP/1.1\r\nhost: x\r\n\r\n"


async def test_what_is_told_is_what_was_counted(serve, jpeg: bytes) -> None:
    async with serve() as served:
        for _ in range(3):
            await served.detect(jpeg)
        await served.detect(b"no picture")
        served.serving.metrics.looked(sees=True)
        served.serving.watch.failed = 2
        told = FORMAT.validate_json(orjson.dumps(served.serving.evidence()))
    assert told["requests"]["request"]["ok"] == told["images"] == 3
    assert told["requests"]["request"]["unsupported_media_type"] == 1
    assert told["images_squared"] == told["requests"]["request"], "each came alone"
    assert told["requests"]["shadow"] == told["requests"]["golden"] == {}
    assert sum(told["latency"]["request"]["counts"]) == 3
    assert told["detections"] == {"circle": 3, "star": 3}
    load = told["load"]
    assert (load["offered"], load["refused"], load["inside"], load["waiting"]) == (3, 0, 0, 0)
    assert load["inside_seconds"] > 0
    assert told["load"]["capacity_per_second"] > 0
    assert told["probe"] == {"sees": 1, "blind": 0, "blind_in_a_row": 2}
    assert (told["revision"], told["status"]) == ("gate-1234", "blind")
    assert (told["golden"], told["shadow"]) == (None, {})


def witness(classes: tuple[str, ...]) -> tuple[Witness, Metrics]:
    """A witness of a server that does nothing."""
    metrics = Metrics()
    detector: Any = SimpleNamespace(
        info=SimpleNamespace(classes=classes, revision="gate-1234"),
        capacity_per_s=math.inf,
        admission=SimpleNamespace(inside=0, inside_s=0.0),
        batcher=SimpleNamespace(waiting=0),
    )
    return Witness(detector, metrics), metrics


def found(classes: list[int]) -> Answer:
    scores = np.full(len(classes), 0.5, np.float32)
    boxes = np.zeros((len(classes), 4), np.float32)
    detections = Detections(boxes, scores, np.array(classes, np.int64))
    return Answer(detections, 9, 9, Timing(0, 0, 0, 0, 0, 0.01), 0, 0, 0)


def tell(of: Witness) -> Evidence:
    told = of.tell(status="ready", blind_in_a_row=0, golden=None, shadow={})
    return FORMAT.validate_json(orjson.dumps(told))


EVENTS = st.lists(
    st.tuples(
        st.sampled_from([Traffic.REQUEST, Traffic.SHADOW, Traffic.GOLDEN]),
        st.one_of(
            st.sampled_from(["overloaded", "internal", "deadline_exceeded", "over_quota"]),
            st.tuples(st.lists(st.integers(0, 199), max_size=9), st.floats(0, 30)),
        ),
    ),
    max_size=60,
)


@given(EVENTS)
@settings(deadline=None, max_examples=60)
def test_no_counter_ever_shrinks_and_sums_are_those_of_requests(events) -> None:
    classes = tuple(f"class {number % 150}" for number in range(200))
    of, metrics = witness(classes)
    before = tell(of)
    for traffic, what in events:
        if isinstance(what, str):
            metrics.refused(what, traffic)
        else:
            objects, waited_s = what
            metrics.answered(found(objects), classes, traffic, waited_s)
        now = tell(of)
        assert_grown(before, now)
        before = now
    for source in ("request", "shadow"):
        answered = before["requests"][source].get("ok", 0)
        assert sum(before["latency"][source]["counts"]) == answered
    assert before["images"] == before["requests"]["request"].get("ok", 0)
    mine = [what for traffic, what in events if traffic is Traffic.REQUEST]
    objects = sum(len(what[0]) for what in mine if not isinstance(what, str))
    assert sum(before["detections"].values()) == objects
    asked = Counter(what if isinstance(what, str) else "ok" for what in mine)
    assert before["load"]["offered"] == sum(asked[outcome] for outcome in OFFERED)
    assert before["load"]["refused"] == asked["overloaded"] + asked["deadline_exceeded"]
    assert before["load"]["capacity_per_second"] is None
    assert len(before["detections"]) <= MOST_NAMES


def test_load_is_that_of_the_last_whole_seconds() -> None:
    now = 100.0
    recent = Recent(lambda: now)
    for second in range(40):
        now = 100.0 + second
        recent.count(30 if second >= 35 else 3)
    assert recent.per_second() == (4 * 30 + 11 * 3) / SPAN_S, "the second that runs is not over"
    now += SPAN_S
    assert recent.per_second() == 30 / SPAN_S
    now += 1
    assert recent.per_second() == 0


def assert_grown(before: Any, now: Any) -> None:
    """Check every number, wherever it is; histograms by what their buckets hold."""
    if isinstance(before, dict) and before.keys() == {"first", "counts"}:
        before, now = (
            {n + h["first"]: c for n, c in enumerate(h["counts"])} for h in (before, now)
        )
    if isinstance(before, dict):
        for name in before:
            assert_grown(before[name], now[name])
    elif isinstance(before, int | float):
        assert now >= before


@given(st.lists(st.text(max_size=3), min_size=1, max_size=300), st.data())
@settings(deadline=None, max_examples=60)
def test_a_class_keeps_its_row_whatever_is_seen_later(classes: list[str], data) -> None:
    names = Names(tuple(classes))
    seen = data.draw(st.lists(st.integers(0, len(classes) - 1)))
    rows = {number: names[number] for number in seen}
    assert {number: names[number] for number in seen} == rows
    assert len(set(rows.values())) <= MOST_NAMES
    if len(set(classes)) <= MOST_NAMES:
        assert all(rows[number] == called(classes[number]) for number in rows)


def test_a_class_called_other_is_counted_with_the_others() -> None:
    names = Names(("other", *map(str, range(200))))
    told = [names[number] for number in range(201)]
    assert told[0] == "other" == told[-1]
    assert len(set(told)) == MOST_NAMES
    few = Names(("other", "cat", "cat"))
    assert [few[0], few[1], few[2]] == ["other", "cat", "cat"]


def test_a_model_of_a_thousand_classes_is_told_in_a_small_answer() -> None:
    classes = tuple(f"{number:04} {'x' * 300}" for number in range(3000))
    of, metrics = witness(classes)
    metrics.answered(found(list(range(3000))), classes, Traffic.REQUEST, 0.01)
    told = tell(of)
    assert sum(told["detections"].values()) == 3000
    assert len(orjson.dumps(told)) < 256 * 1024


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gets no processor for five seconds is not who says nothing."""
    monkeypatch.setattr(side_port, "LONGEST_S", 60.0)


@asynccontextmanager
async def opened(tell: Callable[[], bytes] = lambda: b"{}") -> AsyncIterator[SidePort]:
    port = evidence(tell)
    await port.open("127.0.0.1", 0)
    try:
        yield port
    finally:
        port.close()


async def ask(port: int, request: bytes = ASK, host: str = "127.0.0.1") -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request)
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_a_client_of_http_reads_it() -> None:
    async with opened(lambda: b'{"format":1}') as port, httpx.AsyncClient() as client:
        for _ in range(3):
            answer = await client.get(f"http://127.0.0.1:{port.port}/evidence")
            assert (answer.status_code, answer.json()) == (200, {"format": 1})
            assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\n\r\n", 404),
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /evidence/ HTTP/1.1\r\n\r\n", 404),
        (b"GET /evidence?a=b HTTP/1.1\r\n\r\n", 404),
        (b"GET http://x/evidence HTTP/1.1\r\n\r\n", 404),
        (b"POST /v1/detect HTTP/1.1\r\ncontent-length: 9\r\n\r\n123456789", 404),
        (b"POST /evidence HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}", 405),
        (b"OPTIONS /evidence HTTP/1.1\r\n\r\n", 405),
        (b"get /evidence HTTP/1.1\r\n\r\n", 405),
        (b"GET /evidence\r\n\r\n", 400),
        (b"GET /evidence HTTP/2\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET /evidence HTTP/1.1\r\nx: " + b"y" * 5000, 431),
        (b"y" * 5000, 431),
        (ASK * 2, 200),
    ],
)
async def test_nothing_else_is_there(request_: bytes, status: int) -> None:
    async with opened() as port:
        answer = await ask(port.port, request_)
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert answer.count(b"HTTP/1.1 ") == 1
        assert (await ask(port.port)).startswith(b"HTTP/1.1 200 ")


async def test_the_answer_to_head_has_no_body() -> None:
    async with opened() as port:
        head, _, body = (await ask(port.port, b"HEAD /evidence HTTP/1.1\r\n\r\n")).partition(
            b"\r\n\r\n"
        )
    assert head.startswith(b"HTTP/1.1 405 ")
    assert b"allow: GET" in head
    assert body == b""


async def test_a_request_may_come_in_pieces() -> None:
    async with opened() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port.port)
        for byte in ASK:
            writer.write(bytes([byte]))
            await writer.drain()
        assert (await reader.read()).endswith(b"\r\n\r\n{}")
        writer.close()


async def test_connections_that_are_held_open_keep_nobody_out() -> None:
    async with opened() as port:
        held = [await asyncio.open_connection("127.0.0.1", port.port) for _ in range(3 * MOST_OPEN)]
        assert (await ask(port.port)).startswith(b"HTTP/1.1 200 ")
        for reader, writer in held[:MOST_OPEN]:  # the oldest ones made room
            assert await reader.read() == b""
            writer.close()
        for _, writer in held[MOST_OPEN:]:
            writer.close()


async def test_who_says_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_port, "LONGEST_S", 0.01)
    async with opened() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port.port)
        assert await reader.read() == b""
        writer.close()


async def until_none_is_open(port: SidePort) -> None:
    """Wait until the server, too, knows that its clients have gone."""
    async with asyncio.timeout(60):
        while port._open:  # noqa: ASYNC110 (nobody is told of it)
            await asyncio.sleep(0)


async def test_a_thousand_looks_leave_nothing_behind() -> None:
    async with opened() as port:
        for _ in range(100):
            answers = await asyncio.gather(*(ask(port.port) for _ in range(10)))
            assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
        await until_none_is_open(port)


async def test_a_failure_is_told_and_the_next_look_answered(caplog) -> None:
    told = iter([ZeroDivisionError(), b"{}"])

    def tell() -> bytes:
        if isinstance(next_ := next(told), Exception):
            raise next_
        return next_

    async with opened(tell) as port:
        assert (await ask(port.port)).startswith(b"HTTP/1.1 500 ")
        assert (await ask(port.port)).startswith(b"HTTP/1.1 200 ")
    assert "/evidence failed" in caplog.text


async def test_a_port_that_another_container_has_is_named_and_keeps_nobody_from_serving(
    caplog,
) -> None:
    port = evidence(bytes)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        await port.open("127.0.0.1", taken.getsockname()[1])
    assert port.port == 0
    port.close()
    (record,) = caplog.records
    assert record.setting == "YOLOSERVE_EVIDENCE_PORT"
    assert "in use" in record.reason


async def test_it_listens_on_ipv6_too() -> None:
    port = evidence(lambda: b"{}")
    await port.open("::1", 0)
    assert (await ask(port.port, host="::1")).startswith(b"HTTP/1.1 200 ")
    port.close()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"evidence_port": 8080}, "EVIDENCE_PORT is 8080, the port of requests"),
        ({"metrics_port": 8080}, "METRICS_PORT is 8080, the port of requests"),
        ({"evidence_port": 9, "metrics_port": 9}, "METRICS_PORT is 9, the port of the evidence"),
    ],
)
def test_a_port_for_two_things_is_refused(asked: dict[str, int], told: str) -> None:
    with pytest.raises(InvalidSettings, match=told):
        Settings.read(**asked)


def test_the_server_tells_it_until_its_end(run_server, make_model, jpeg) -> None:
    number, counts = ports.reserve(2)
    server = run_server(
        model=make_model(), drain_seconds=3600, evidence_port=number, metrics_port=counts
    )
    url = server.logged("ready")["url"]
    assert httpx.post(url + "v1/detect", content=jpeg, timeout=60).status_code == 200
    look = f"http://127.0.0.1:{number}/evidence"
    told = httpx.get(look, timeout=60).json()
    assert (told["status"], told["images"]) == ("ready", 1)
    metrics = httpx.get(f"http://127.0.0.1:{counts}/metrics", timeout=60).text
    assert 'yoloserve_requests_total{outcome="ok",source="request"} 1.0' in metrics
    assert httpx.get(f"http://127.0.0.1:{counts}/evidence", timeout=60).status_code == 404
    assert httpx.get(url + "evidence", timeout=60).status_code == 404
    assert urlsplit(url).port != number
    server.terminate()
    server.logged("draining")
    told = httpx.get(look, timeout=60).json()
    assert (told["status"], told["images"]) == ("draining", 1)
    assert json.dumps(told).isascii()
    server.terminate()
    assert server.process.wait(60) == 0
