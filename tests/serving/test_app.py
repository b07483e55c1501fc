"""The HTTP interface over a fake engine: what callers send, and what they get."""

import asyncio
import json
import math
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from yoloserve.access.clients import Client
from yoloserve.core import WARM_UP_RUNS
from yoloserve.detections.postprocess import Head
from yoloserve.errors import Refusal
from yoloserve.http.callers import Caller
from yoloserve.http.replies import STATUS_OF
from yoloserve.scheduling.admission import Flow
from yoloserve.telemetry.traffic import Traffic


def error_of(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/json"
    (error,) = response.json().values()
    assert error["message"]
    return response.status_code, error["code"]


async def until(condition: Callable[[], bool], *requests: asyncio.Task[httpx.Response]) -> None:
    """Let the other tasks run until it is true; none of the requests may end before."""
    while not condition():
        for request in requests:
            assert not request.done(), request.result().text
        await asyncio.sleep(0)


async def metric(served, name: str, /, **labels: str) -> float:
    text = (await served.client.get("/metrics")).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def test_an_answer_names_model_image_objects_and_times(serve, jpeg: bytes) -> None:
    async with serve() as served:
        response = await served.detect(jpeg)
    assert response.status_code == 200
    answer = response.json()
    assert answer["model"] == {
        "name": "gate",
        "version": "1",
        "sha256": "0" * 64,
        "revision": "gate-1234",
    }
    assert answer["image"] == {"width": 160, "height": 90}
    # 160 pixels are 64: 2.5 to 1; and 14 rows of grey are above the picture.
    assert answer["detections"] == [
        {
            "name": "circle",
            "class": 0,
            "confidence": pytest.approx(0.9, abs=1e-5),
            "box": {"x1": 55.0, "y1": 32.5, "x2": 105.0, "y2": 57.5},
        },
        {
            "name": "star",
            "class": 2,
            "confidence": pytest.approx(0.6, abs=1e-5),
            "box": {"x1": 20.0, "y1": 55.0, "x2": 40.0, "y2": 75.0},
        },
    ]
    stages = ["decode", "preprocess", "queue", "inference", "postprocess", "total"]
    assert list(answer["timing_ms"]) == stages
    assert answer["timing_ms"]["total"] >= sum(answer["timing_ms"][s] for s in stages[:-1]) > 0
    assert response.headers["x-yolofleet-revision"] == "gate-1234"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff"])
@pytest.mark.parametrize(
    "media_type", ["image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded"]
)
async def test_what_a_body_is_its_bytes_decide(serve, picture, suffix, media_type) -> None:
    body = cv2.imencode(suffix, picture)[1].tobytes()
    async with serve() as served:
        response = await served.detect(body, **{"Content-Type": media_type})
    assert len(response.json()["detections"]) == 2


@pytest.mark.parametrize("field", ["file", "image"])
async def test_a_form_with_a_file_is_an_image(serve, jpeg: bytes, field: str) -> None:
    async with serve() as served:
        form = {field: ("street.jpg", jpeg, "image/jpeg")}
        response = await served.client.post("/v1/detect", files=form)
    assert len(response.json()["detections"]) == 2


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["circle", "star"]),
        ("?confidence=0.1", ["circle", "star", "square"]),
        ("?confidence=0.7", ["circle"]),
        ("?classes=star", ["star"]),
        ("?classes=star,0", ["circle", "star"]),
        ("?classes=1", []),
        ("?max_detections=1", ["circle"]),
        ("?confidence=0.1&iou=0", ["circle", "star", "square"]),
        ("?confidence=0.1&agnostic_nms=true", ["circle", "star", "square"]),
    ],
)
async def test_a_caller_says_what_to_see(serve, jpeg: bytes, query: str, names: list) -> None:
    async with serve() as served:
        answer = (await served.detect(jpeg, query)).json()
    assert [found["name"] for found in answer["detections"]] == names


async def test_the_settings_are_the_defaults(serve, jpeg: bytes) -> None:
    async with serve(confidence=0.7) as served:
        assert len((await served.detect(jpeg)).json()["detections"]) == 1
        assert len((await served.detect(jpeg, "?confidence=0.3")).json()["detections"]) == 2


@pytest.mark.parametrize(("width", "status"), [(65_500, 200), (65_501, 413)])
async def test_a_picture_that_no_jpeg_holds_is_not_drawn(serve, width: int, status: int) -> None:
    body = cv2.imencode(".png", np.zeros((2, width, 3), np.uint8))[1].tobytes()
    async with serve() as served:
        assert (await served.detect(body)).status_code == 200
        response = await served.detect(body, Accept="image/jpeg")
    assert response.status_code == status
    assert status == 200 or "ask for application/json" in response.json()["error"]["message"]


async def test_who_accepts_a_jpeg_gets_the_picture_with_boxes(serve, picture) -> None:
    body = cv2.imencode(".png", picture)[1].tobytes()
    async with serve() as served:
        response = await served.detect(body, Accept="image/jpeg")
    assert response.headers["content-type"] == "image/jpeg"
    assert response.headers["x-yolofleet-revision"] == "gate-1234"
    drawn = cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape == picture.shape
    changed = np.abs(drawn.astype(int) - picture).max(axis=2) > 60
    assert changed[40:57, 54:57].any()  # the left edge of the circle's box
    assert not changed[80:, 110:].any()  # and nothing where nothing is


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("?confidence=2", "confidence: Input should be less than or equal to 1, not '2'"),
        ("?confidence=high", "confidence"),
        ("?iou=-1", "iou"),
        ("?max_detections=0", "max_detections"),
        ("?classes=hexagon", "no class 'hexagon'; there are circle, square, star"),
        ("?classes=3", "no class '3'"),
        ("?classes=", "no class ''"),
    ],
)
async def test_a_wrong_option_names_itself(serve, jpeg: bytes, query: str, told: str) -> None:
    async with serve() as served:
        response = await served.detect(jpeg, query)
    assert error_of(response) == (400, "invalid_parameter")
    assert told in response.json()["error"]["message"]
    assert response.headers["x-yolofleet-revision"] == "gate-1234"


@pytest.mark.parametrize(
    ("body", "media_type", "error"),
    [
        (b"hello", "image/jpeg", (415, "unsupported_media_type")),
        (b"hello", "text/plain", (415, "unsupported_media_type")),
        (b'{"url": "https://x/y.jpg"}', "application/json", (403, "url_refused")),
        (b"{", "application/json", (400, "invalid_parameter")),
        (b'{"uri": "x"}', "application/json", (400, "invalid_parameter")),
        (b'{"url": 3}', "application/json", (400, "invalid_parameter")),
        (b"[]", "application/json", (400, "invalid_parameter")),
        (b"[" * 20_000, "application/json", (413, "too_large")),
        (b"GIF89a", "image/gif", (415, "unsupported_media_type")),
        (b"", "image/jpeg", (400, "invalid_image")),
        (b"\xff\xd8\xff\xe0", "image/jpeg", (400, "invalid_image")),
        (b"\x89PNG\r\n\x1a\nand then nothing", "image/png", (400, "invalid_image")),
        (b"--x\r\n\r\n", "multipart/form-data; boundary=x", (400, "invalid_parameter")),
        (b"--x--\r\n", "multipart/form-data; boundary=x", (400, "invalid_parameter")),
        (b"", "multipart/form-data", (400, "invalid_parameter")),
    ],
)
async def test_a_body_that_is_no_image_is_told_so(serve, body, media_type, error) -> None:
    async with serve() as served:
        response = await served.detect(body, **{"Content-Type": media_type})
        assert error_of(response) == error
        assert served.backend.calls == WARM_UP_RUNS  # nothing reached the engine
        assert await metric(served, "yoloserve_requests_total", outcome=error[1]) == 1


async def test_half_a_jpeg_is_told_so(serve, jpeg: bytes) -> None:
    async with serve() as served:
        assert error_of(await served.detect(jpeg[: len(jpeg) // 2])) == (400, "invalid_image")


async def test_too_many_pixels_are_refused_by_the_header(serve) -> None:
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr))
    async with serve() as served:
        assert error_of(await served.detect(bomb)) == (413, "too_many_pixels")


async def test_a_declared_size_beyond_the_limit_is_refused_unread(serve) -> None:
    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("it was read")
        yield b""

    async with serve(max_body_bytes=2000) as served:
        response = await served.client.post(
            "/v1/detect", content=body(), headers={"Content-Length": "2001"}
        )
        assert error_of(response) == (413, "too_large")


@pytest.mark.parametrize("media_type", ["image/jpeg", "multipart/form-data; boundary=x"])
async def test_a_stream_is_read_no_further_than_the_limit(serve, media_type: str) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        while True:
            sent += 1000
            yield bytes(1000)

    async with serve(max_body_bytes=10_000) as served:
        response = await served.client.post(
            "/v1/detect", content=endless(), headers={"Content-Type": media_type}
        )
        assert error_of(response) == (413, "too_large")
        assert sent <= 11_000
        assert served.asked.bodies.held == 0


async def test_a_body_that_takes_for_ever_is_given_up(serve) -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield b"\xff\xd8\xff"
        await asyncio.Event().wait()

    async with serve(body_timeout_seconds=0.05) as served:
        response = await served.client.post("/v1/detect", content=stalled())
        assert error_of(response) == (408, "slow_body")
        assert response.headers["connection"] == "close"


async def test_all_bodies_together_are_bounded(serve, jpeg: bytes) -> None:
    waits = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield bytes(1900)
        await waits.wait()

    async with serve(max_body_bytes=2000) as served:
        limit = 8 * 2000
        posts = [
            asyncio.create_task(served.client.post("/v1/detect", content=slow()))
            for _ in range(limit // 1900)
        ]
        await until(lambda: served.asked.bodies.held == 1900 * len(posts), *posts)
        assert error_of(await served.detect(jpeg)) == (503, "overloaded")
        waits.set()
        assert {r.status_code for r in await asyncio.gather(*posts)} == {415}
        assert served.asked.bodies.held == 0
        assert (await served.detect(jpeg)).status_code == 200


async def test_a_full_server_says_when_to_come_back(serve, jpeg: bytes) -> None:
    async with serve() as served:
        served.backend.may_run.clear()
        served.core.admission._limit = lambda: 2
        inside = [asyncio.create_task(served.detect(jpeg)) for _ in range(2)]
        await until(lambda: served.core.admission.inside == 2, *inside)
        refused = await served.detect(jpeg)
        served.backend.may_run.set()
        answers = await asyncio.gather(*inside)
    assert error_of(refused) == (503, "overloaded")
    assert refused.headers["retry-after"] == "1"
    assert {answer.status_code for answer in answers} == {200}


async def test_an_answer_past_its_deadline_is_not_sent(serve, jpeg: bytes) -> None:
    async with serve(deadline_ms=0.001) as served:
        assert error_of(await served.detect(jpeg)) == (504, "deadline_exceeded")
        name = "yoloserve_requests_total"
        assert await metric(served, name, outcome="deadline_exceeded") == 1


@pytest.mark.parametrize(
    ("asked_s", "images", "body_s", "hurried"),
    [
        (None, 1, 60, False),
        (2.0, 1, 0, True),
        (5.0, 1, 0, False),
        (6.0, 1, 0, False),
        (6.0, 2, 0, True),  # the server's own is that of two images
        (6.0, 1, 7, True),  # its body was long on the way, which the server's own leaves out
    ],
)
def test_whoever_wants_it_sooner_than_the_server_promises_is_hurried(
    asked_s: float | None, images: int, body_s: float, hurried: bool
) -> None:
    detector: Any = SimpleNamespace(clock=lambda: 100.0 + body_s, deadline_s=5.0)
    caller = Caller(Client("x"), Flow("x"), arrived=100.0, asked_s=asked_s)
    deadline = caller.deadline(detector, images)
    assert deadline.hurried is hurried
    assert deadline.at == (105.0 + body_s if asked_s is None else 100.0 + asked_s)
    assert replace(caller, asked_s=None).deadline(detector, images, asked_s=asked_s) == deadline


async def test_a_batch_has_the_deadline_of_all_its_images_and_who_wants_it_sooner_is_hurried(
    serve, jpeg: bytes
) -> None:
    async with serve(deadline_ms=0.002) as served:
        form = [("image", (f"{n}.jpg", jpeg)) for n in range(8)]
        asked = {"X-Deadline-Ms": "0.01"}
        late = await served.client.post("/v1/detect/batch", files=form, headers=asked)
        assert error_of(late) == (504, "deadline_exceeded")
        name = "yoloserve_requests_total"
        assert await metric(served, name, outcome="deadline_exceeded") == 0
        assert await metric(served, name, outcome="hurried") == 8


async def test_a_caller_says_until_when_an_answer_is_of_use(serve, jpeg: bytes) -> None:
    async with serve() as served:
        late = await served.detect(jpeg, **{"X-Deadline-Ms": "0.001"})
        assert error_of(late) == (504, "deadline_exceeded")
        name = "yoloserve_requests_total"
        assert await metric(served, name, outcome="hurried") == 1, "no fault of the revision"
        assert await metric(served, name, outcome="deadline_exceeded") == 0
        assert (await served.detect(jpeg, **{"X-Deadline-Ms": "60000"})).status_code == 200
        for wrong in ("0", "-5", "soon", "nan", "inf", "1e9"):
            refused = await served.detect(jpeg, **{"X-Deadline-Ms": wrong})
            assert error_of(refused) == (400, "invalid_parameter"), wrong


async def test_what_a_caller_asks_for_counts_from_the_head_of_its_request(
    serve, clock, jpeg: bytes
) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield jpeg[:100]
        clock.now += 0.06
        yield jpeg[100:]

    async with serve(clock=clock, deadline_ms=50) as served:
        post = served.client.post
        assert (await post("/v1/detect", content=slow())).status_code == 200
        asked = await post("/v1/detect", content=slow(), headers={"X-Deadline-Ms": "50"})
        assert error_of(asked) == (504, "deadline_exceeded")
        assert await metric(served, "yoloserve_deadline_misses_total", at="arrival") == 1


async def test_an_answer_that_got_late_in_the_engine_is_counted_apart(
    serve, clock, backend, jpeg: bytes
) -> None:
    async with serve(clock=clock) as served:
        backend.may_run.clear()
        backend.started.clear()
        request = asyncio.create_task(served.detect(jpeg, **{"X-Deadline-Ms": "200"}))
        await until(backend.started.is_set, request)
        clock.now += 0.3
        backend.may_run.set()
        assert error_of(await request) == (504, "deadline_exceeded")
        assert await metric(served, "yoloserve_deadline_misses_total", at="answer") == 1
        assert await metric(served, "yoloserve_deadline_misses_total", at="queue") == 0


async def test_a_client_over_its_quota_is_told_when_to_come_back(serve, clock, jpeg: bytes) -> None:
    async with serve(clock=clock, quota_per_second=2) as served:
        answers = [await served.detect(jpeg) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert error_of(answers[2]) == (429, "over_quota")
        assert answers[2].headers["retry-after"] == "1"
        assert await metric(served, "yoloserve_requests_total", outcome="over_quota") == 1
        clock.now += 1
        assert (await served.detect(jpeg)).status_code == 200


@pytest.mark.parametrize("settings", [{"quota_per_second": 0.001}, {}])
async def test_who_may_not_come_in_is_refused_unread(serve, jpeg: bytes, settings) -> None:
    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("it was read")
        yield b""

    async with serve(**settings) as served:
        if settings:
            await served.detect(jpeg)
        else:
            served.core.admission._limit = lambda: 0
        assert (await served.client.post("/v1/detect", content=body())).status_code in (429, 503)


async def test_a_camera_that_sends_too_much_leaves_room_for_the_others(
    serve, backend, jpeg: bytes
) -> None:
    async with serve() as served:
        served.core.admission._limit = lambda: 4
        await served.detect(jpeg, **{"X-Camera-Id": "quiet"})
        backend.may_run.clear()
        flood = [
            asyncio.create_task(served.detect(jpeg, **{"X-Camera-Id": "loud"})) for _ in range(6)
        ]
        await until(lambda: served.core.admission.inside == 2)
        await until(lambda: sum(request.done() for request in flood) == 4)
        quiet = asyncio.create_task(served.detect(jpeg, **{"X-Camera-Id": "quiet"}))
        await until(lambda: served.core.admission.inside == 3, quiet)
        backend.may_run.set()
        assert (await quiet).status_code == 200
        codes = sorted(answer.status_code for answer in await asyncio.gather(*flood))
        assert codes == [200, 200, 503, 503, 503, 503]


async def test_a_failing_engine_is_an_error_of_one_request_and_not_the_end(
    serve, jpeg: bytes
) -> None:
    async with serve() as served:
        served.backend.fails = RuntimeError("the device is gone")
        failed = await served.detect(jpeg)
        served.backend.fails = None
        assert error_of(failed) == (500, "internal")
        assert "the device" not in failed.text  # details are for the log
        assert failed.headers["x-yolofleet-revision"] == "gate-1234"
        assert (await served.detect(jpeg)).status_code == 200
        await until(lambda: served.core.admission.inside == 0)


@pytest.mark.parametrize("number", [3, -1])
async def test_an_object_of_a_class_without_a_name_fails_the_request_that_wants_it(
    serve, jpeg: bytes, number: int
) -> None:
    """Only a graph with the suppression inside can say such a number."""
    rows = [[10, 10, 20, 20, 0.9, 0], [30, 30, 40, 40, 0.2, number]]
    async with serve() as served:
        served.core.head = Head.END_TO_END
        served.backend.output = np.float32(rows)
        assert error_of(await served.detect(jpeg, "?confidence=0.1")) == (500, "internal")
        for query in ("", "?confidence=0.1&classes=circle"):
            found = (await served.detect(jpeg, query)).json()["detections"]
            assert [each["name"] for each in found] == ["circle"]
        detector = served.detector
        shown = await detector.detect(jpeg, detector.defaults, deadline=math.inf, below=0.1)
        assert (len(shown.detections), shown.nearly) == (1, None)


async def test_a_caller_who_hangs_up_frees_its_place(serve, jpeg: bytes) -> None:
    async with serve() as served:
        served.backend.may_run.clear()
        served.backend.started.clear()
        messages = iter([{"type": "http.request", "body": jpeg, "more_body": False}])
        hung_up = asyncio.Event()

        async def receive() -> dict:
            for message in messages:
                return message
            await hung_up.wait()
            return {"type": "http.disconnect"}

        async def send(_: dict) -> None:
            pass

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/detect",
            "query_string": b"",
            "headers": [],
        }
        request = asyncio.create_task(served.app(scope, receive, send))
        await until(served.backend.started.is_set, request)
        assert served.core.admission.inside == 1
        hung_up.set()
        await request
        assert served.core.admission.inside == 0
        served.backend.may_run.set()
        assert await metric(served, "yoloserve_requests_total", outcome="canceled") == 1


async def test_concurrent_requests_get_their_own_answers(serve, backend) -> None:
    async with serve() as served:
        sizes = [(50 + 10 * n, 40) for n in range(20)]
        bodies = [cv2.imencode(".png", np.zeros((h, w, 3)))[1].tobytes() for w, h in sizes]
        answers = await asyncio.gather(*(served.detect(body) for body in bodies))
    told = [(a.json()["image"]["width"], a.json()["image"]["height"]) for a in answers]
    assert told == sizes


async def test_a_batched_answer_is_the_answer_given_alone(serve, backend, jpeg: bytes) -> None:
    backend.max_batch = 4
    async with serve() as served:
        alone = (await served.detect(jpeg)).json()["detections"]
        together = await asyncio.gather(*(served.detect(jpeg) for _ in range(12)))
    assert all(answer.json()["detections"] == alone for answer in together)


@pytest.mark.parametrize(
    ("method", "path", "error"),
    [
        ("GET", "/v1/detect", (405, "method_not_allowed")),
        ("GET", "/nowhere", (404, "not_found")),
        ("POST", "/health/ready", (405, "method_not_allowed")),
    ],
)
async def test_what_is_not_there_is_told_in_the_same_form(serve, method, path, error) -> None:
    async with serve() as served:
        assert error_of(await served.client.request(method, path)) == error


async def test_readiness_ends_with_draining_and_answers_go_on(serve, jpeg: bytes) -> None:
    async with serve() as served:
        ready = await served.client.get("/health/ready")
        served.serving.drain()
        draining = await served.client.get("/health/ready")
        live = await served.client.get("/health/live")
        answer = await served.detect(jpeg)
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
    assert (draining.status_code, draining.json()) == (503, {"status": "draining"})
    assert live.status_code == 200
    assert answer.status_code == 200
    assert answer.headers["connection"] == "close"  # the next one goes to a pod that stays
    assert "connection" not in ready.headers


async def test_metrics_count_what_happened(serve, jpeg: bytes) -> None:
    async with serve() as served:
        for _ in range(3):
            await served.detect(jpeg)
        assert await metric(served, "yoloserve_requests_total", outcome="ok", source="request") == 3
        assert await metric(served, "yoloserve_requests_total", outcome="overloaded") == 0
        assert await metric(served, "yoloserve_request_duration_seconds_count") == 3
        for stage in ("decode", "preprocess", "queue", "inference", "postprocess"):
            name = "yoloserve_stage_duration_seconds_count"
            assert await metric(served, name, stage=stage) == 3
        assert await metric(served, "yoloserve_detections_total", **{"class": "circle"}) == 3
        assert await metric(served, "yoloserve_detection_confidence_count") == 6
        assert await metric(served, "yoloserve_image_detections_sum") == 6
        assert await metric(served, "yoloserve_batch_size_count") == 3
        assert await metric(served, "yoloserve_inflight_requests") == 0
        assert await metric(served, "yoloserve_queue_requests") == 0
        assert await metric(served, "yoloserve_capacity_requests_per_second") > 0
        assert await metric(served, "yoloserve_load_ratio") >= 0
        assert await metric(served, "yoloserve_model_info", name="gate", precision="fp32") == 1


def test_every_refusal_has_a_status() -> None:
    def leaves(kind: type) -> set[type]:
        return set().union(*map(leaves, kind.__subclasses__())) or {kind}

    assert leaves(Refusal) == set(STATUS_OF)


async def test_the_docs_need_nothing_from_elsewhere(serve) -> None:
    async with serve() as served:
        page = (await served.client.get("/docs")).text
        links = [part.split('"')[0] for part in page.split('src="')[1:] + page.split('href="')[1:]]
        assert links
        for link in links:
            assert "//" not in link
            assert (await served.client.get(f"/{link}")).status_code == 200
        assert "https://" not in page


async def test_one_place_has_one_class_where_that_is_wanted(serve, backend, jpeg: bytes) -> None:
    there = [[32, 32, 20, 10, 0.9, 0.1, 0], [33, 32, 20, 10, 0, 0, 0.6]]
    backend.output = np.array(there, np.float32).T
    async with serve() as served:
        for query, count in (("", 2), ("?agnostic_nms=true", 1), ("?agnostic_nms=true&iou=1", 2)):
            found = (await served.detect(jpeg, query)).json()["detections"]
            assert [each["name"] for each in found] == ["circle", "star"][:count]
        form = [("file", ("a.jpg", jpeg))] * 2
        answer = await served.client.post("/v1/detect/batch?agnostic_nms=1", files=form)
        assert [len(each["detections"]) for each in answer.json()["results"]] == [1, 1]
        assert (await served.detect(jpeg, "?agnostic_nms=perhaps")).status_code == 400
    async with serve(agnostic_nms=True) as served:
        for query, count in (("", 1), ("?agnostic_nms=false", 2)):
            assert len((await served.detect(jpeg, query)).json()["detections"]) == count


async def test_the_openapi_document_tells_bodies_answers_and_errors(serve, jpeg: bytes) -> None:
    async with serve() as served:
        document = (await served.client.get("/openapi.json")).json()
    operation = document["paths"]["/v1/detect"]["post"]
    assert set(operation["requestBody"]["content"]) == {
        "image/jpeg",
        "image/png",
        "image/webp",
        "image/bmp",
        "image/tiff",
        "multipart/form-data",
        "application/json",
    }
    statuses = {str(status) for status in STATUS_OF.values()} - {"404"} | {"200"}
    assert set(operation["responses"]) == statuses
    assert "ValidationError" not in json.dumps(document)
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "image/jpeg"}
    told = {parameter["name"]: parameter for parameter in operation["parameters"]}
    options = {"confidence", "iou", "classes", "max_detections", "agnostic_nms"}
    assert set(told) == options | {"x-deadline-ms", "x-camera-id"}
    assert all(parameter["description"] for parameter in told.values())
    assert document["components"]["schemas"]["DetectResponse"]["example"]


async def test_an_answer_is_as_the_openapi_document_says(serve, jpeg: bytes) -> None:
    from jsonschema import Draft202012Validator

    async with serve() as served:
        document = (await served.client.get("/openapi.json")).json()
        answer = (await served.detect(jpeg)).json()
        error = (await served.detect(b"hello")).json()
    for name, value in (("DetectResponse", answer), ("ErrorResponse", error)):
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        Draft202012Validator(schema).validate(value)
    example = document["components"]["schemas"]["DetectResponse"]["example"]
    assert json.dumps(answer.keys() ^ example.keys(), default=list) == "[]"


async def test_the_page_loads_only_what_is_here(serve) -> None:
    async with serve() as served:
        page = await served.client.get("/")
        assert "default-src 'self'" in page.headers["content-security-policy"]
        for name in ("page.css", "page.js", "icon.svg"):
            assert f"page/{name}" in page.text
            assert (await served.client.get(f"/page/{name}")).status_code == 200
        script = (await served.client.get("/page/page.js")).text
    assert "//" not in page.text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "http:" not in script
    assert "https:" not in script


async def test_what_is_no_callers_is_counted_apart(serve, jpeg: bytes) -> None:
    async with serve() as served:
        await served.detect(jpeg)
        answer = await served.detector.detect(jpeg, served.detector.defaults, deadline=math.inf)
        metrics, classes = served.serving.metrics, served.detector.info.classes
        metrics.answered(answer, classes, Traffic.SHADOW, 0.01)
        metrics.refused("internal", Traffic.SHADOW)
        metrics.looked(sees=True)
        metrics.looked(sees=False)
        served.serving.watch.failed = 1
        for source in ("request", "shadow"):
            told = await metric(served, "yoloserve_latency_seconds_count", source=source)
            assert told == await metric(
                served, "yoloserve_requests_total", outcome="ok", source=source
            )
        assert await metric(served, "yoloserve_requests_total", source="request") == 1
        assert await metric(served, "yoloserve_image_detections_count") == 1
        assert await metric(served, "nv_inference_request_failure_total") == 0
        assert await metric(served, "yoloserve_probe_looks_total", outcome="sees") == 1
        assert await metric(served, "yoloserve_probe_looks_total", outcome="blind") == 1
        assert await metric(served, "yoloserve_probe_blind_in_a_row") == 1
        assert await metric(served, "yoloserve_blind") == 1
        assert await metric(served, "yoloserve_requests_total", source="probe") == 2
