"""Ids of requests: continued, made up, logged, and sent out again."""

import itertools
import json
import logging
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from yoloserve.telemetry import tracing
from yoloserve.telemetry.logs import JsonFormatter
from yoloserve.telemetry.tracing import parse

STATUS = "http_response_status_code"
STAGES = ["decode", "preprocess", "queue", "inference", "postprocess"]
TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("header", "parsed"),
    [
        (f"00-{TRACE_ID}-{SPAN_ID}-01", (TRACE_ID, "01")),
        (f"00-{TRACE_ID}-{SPAN_ID}-fe", (TRACE_ID, "00")),
        (f"cc-{TRACE_ID}-{SPAN_ID}-01-what-comes-next", (TRACE_ID, "01")),
        (f"00-{TRACE_ID}-{SPAN_ID}-01-more", None),
        (f"ff-{TRACE_ID}-{SPAN_ID}-01", None),
        (f"00-{'0' * 32}-{SPAN_ID}-01", None),
        (f"00-{TRACE_ID}-{'0' * 16}-01", None),
        (f"00-{TRACE_ID.upper()}-{SPAN_ID}-01", None),
        (f"00-{TRACE_ID}-{SPAN_ID}", None),
        ("", None),
    ],
)
def test_a_traceparent_is_read_as_w3c_says(header: str, parsed) -> None:
    assert parse(header) == parsed


async def test_a_trace_goes_on_in_the_answer_with_a_span_of_our_own(serve, jpeg: bytes) -> None:
    async with serve() as served:
        given = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01", "X-Request-Id": "frame-17"}
        answer = await served.detect(jpeg, **given)
    version, trace_id, span_id, flags = answer.headers["traceparent"].split("-")
    assert (version, trace_id, flags) == ("00", TRACE_ID, "01")
    assert span_id != SPAN_ID
    assert answer.headers["x-request-id"] == "frame-17"


@pytest.mark.parametrize("wrong", ["", "a b", "x" * 129])
async def test_ids_are_made_up_where_none_came(serve, wrong: str) -> None:
    async with serve() as served:
        answers = [
            await served.client.get("/health/live", headers={"X-Request-Id": wrong})
            for _ in range(2)
        ]
    ids = [(a.headers["x-request-id"], parse(a.headers["traceparent"])) for a in answers]
    assert ids[0] != ids[1]
    assert all(len(request_id) == 16 and trace for request_id, trace in ids)


async def test_each_line_of_a_request_has_its_ids(serve, jpeg, caplog, backend) -> None:
    caplog.handler.setFormatter(JsonFormatter())
    async with serve(access_log=True) as served:
        with caplog.at_level(logging.INFO, "yoloserve"):
            await served.detect(jpeg, **{"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"})
    told = [json.loads(line) for line in caplog.text.splitlines()][-1]
    assert told["message"] == "request"
    assert told["trace_id"] == TRACE_ID
    assert told["http.response.status_code"] == 200
    assert told["http.route"] == told["url.path"] == "/v1/detect"
    assert told["seconds"] >= told["yoloserve.total_s"] > 0


async def test_http_is_counted_by_route_and_never_by_path(serve) -> None:
    async with serve() as served:
        for path in ("/health/live", "/nowhere", "/nowhere/else"):
            await served.client.get(path)
        await served.client.request("BREW", "/health/live")
        text = (await served.client.get("/metrics")).text
    counted = {
        (s.labels["http_request_method"], s.labels["http_route"], s.labels[STATUS]): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
        if s.name == "http_server_request_duration_seconds_count"
    }
    assert counted == {
        ("GET", "/health/live", "200"): 1,
        ("GET", "", "404"): 2,
        ("_OTHER", "/health/live", "405"): 1,
    }
    assert "http_server_active_requests 1.0" in text  # this one


async def test_without_an_address_to_send_to_nothing_is_traced(monkeypatch) -> None:
    for name in tracing.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    assert isinstance(tracing.spans(), tracing.NoSpans)


def require_within(span, stages) -> None:
    for stage in stages:
        assert span.start_time <= stage.start_time <= stage.end_time <= span.end_time


async def test_a_request_is_a_span_below_the_callers(serve, jpeg, monkeypatch) -> None:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    async with serve() as served:
        spans = served.serving.spans = tracing.OpenTelemetrySpans(exporter)
        answer = await served.detect(jpeg, **{"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"})
        spans._provider.force_flush()
    *stages, span = exporter.get_finished_spans()
    assert span.name == "POST /v1/detect"
    assert f"{span.context.trace_id:032x}" == TRACE_ID
    assert f"{span.parent.span_id:016x}" == SPAN_ID
    assert f"{span.context.span_id:016x}" == answer.headers["traceparent"].split("-")[2]
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["yoloserve.inference_s"] > 0
    assert [stage.name for stage in stages] == STAGES
    for stage in stages:
        assert stage.parent.span_id == span.context.span_id
    require_within(span, stages)
    for earlier, later in itertools.pairwise(stages):
        assert earlier.end_time <= later.start_time
    (inference,) = (stage for stage in stages if stage.name == "inference")
    took_s = (inference.end_time - inference.start_time) / 1e9
    assert took_s == pytest.approx(span.attributes["yoloserve.inference_s"], abs=1e-6)


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_that_is_set_meanwhile_moves_no_stage_out_of_its_span(
    serve, jpeg, monkeypatch, hours: int
) -> None:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    times = itertools.count(time.time_ns(), hours * 3600 * 10**9)
    async with serve() as served:
        spans = served.serving.spans = tracing.OpenTelemetrySpans(exporter)
        monkeypatch.setattr(tracing.time, "time_ns", lambda: next(times))
        await served.detect(jpeg)
        spans._provider.force_flush()
    *stages, span = exporter.get_finished_spans()
    assert [stage.name for stage in stages] == STAGES
    require_within(span, stages)


async def test_each_image_of_several_has_its_stages(serve, jpeg) -> None:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    async with serve() as served:
        spans = served.serving.spans = tracing.OpenTelemetrySpans(exporter)
        form = [("file", ("a.jpg", jpeg)), ("file", ("b.jpg", b"none")), ("file", ("c.jpg", jpeg))]
        await served.client.post("/v1/detect/batch", files=form)
        alone = {"Inference-Header-Content-Length": "0"}
        await served.client.post("/v2/models/gate/infer", content=jpeg, headers=alone)
        await served.detect(b"none")
        spans._provider.force_flush()
    names = [span.name for span in exporter.get_finished_spans()]
    assert names == [
        *(STAGES * 2),
        "POST /v1/detect/batch",
        *STAGES,
        "POST /v2/models/{model}/infer",
        "POST /v1/detect",
    ]
    images = [span.attributes.get("yoloserve.image") for span in exporter.get_finished_spans()]
    assert images[:10] == [0] * 5 + [1] * 5


def test_with_an_address_requests_are_sent_there(monkeypatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    spans = tracing.spans()
    assert isinstance(spans, tracing.OpenTelemetrySpans)
    spans.close()
