"""What is counted is pictures: n of them are n, whatever becomes of them and whoever counts."""

import asyncio
import base64
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from yoloserve import detector
from yoloserve.errors import Blind
from yoloserve.telemetry.metrics import FROM_THE_START

LATE = {"X-Deadline-Ms": "0.001"}
Request = Callable[..., dict[str, Any]]


def form(*pictures: bytes) -> dict[str, Any]:
    files = [("file", (f"{n}.jpg", picture, "image/jpeg")) for n, picture in enumerate(pictures)]
    return {"url": "/v1/detect/batch", "files": files}


def tensor(*pictures: bytes, **parameters: Any) -> dict[str, Any]:
    data = [base64.b64encode(picture).decode() for picture in pictures]
    image = {"name": "image", "shape": [len(data)], "datatype": "BYTES", "data": data}
    told = {"inputs": [image], "parameters": parameters}
    return {"url": "/v2/models/gate/infer", "json": told}


several = pytest.mark.parametrize("request_of", [form, tensor])


async def text(served) -> str:
    return (await served.client.get("/metrics")).text


async def counts(served) -> dict[str, float]:
    """Say what became of callers' pictures, where there are any."""
    line = r'yoloserve_requests_total\{outcome="(\w+)",source="request"\} (\S+)'
    told = {outcome: float(n) for outcome, n in re.findall(line, await text(served))}
    return {outcome: n for outcome, n in told.items() if n}


async def together(served) -> dict[str, float]:
    """Say how many the requests of pictures have, on average over pictures, by outcome."""
    line = r'yoloserve_request_images_squared_total\{outcome="(\w+)"\} (\S+)'
    told = {outcome: float(n) for outcome, n in re.findall(line, await text(served))}
    assert served.serving.evidence()["images_squared"] == told
    return {outcome: told[outcome] / n for outcome, n in (await counts(served)).items()}


async def value(served, name: str) -> float:
    """Sum up a metric, whatever its labels."""
    line = rf"^{name}(?:\{{.*\}})? (\S+)$"
    return sum(map(float, re.findall(line, await text(served), re.MULTILINE)))


# how many


@several
async def test_pictures_that_are_answered_are_counted_each(serve, jpeg, request_of) -> None:
    async with serve() as served:
        assert (await served.client.post(**request_of(jpeg, jpeg, jpeg))).status_code == 200
        assert await counts(served) == {"ok": 3}


@several
async def test_pictures_of_a_request_that_fails_are_counted_each(serve, jpeg, request_of) -> None:
    async with serve() as served:
        served.backend.fails = RuntimeError("the device is gone")
        assert (await served.client.post(**request_of(jpeg, jpeg, jpeg))).status_code == 500
        assert await counts(served) == {"internal": 3}
        assert await value(served, "nv_inference_request_failure_total") == 3
        load = served.serving.evidence()["load"]
        assert (load["offered"], load["refused"]) == (3, 0)


@several
async def test_pictures_that_are_too_late_are_counted_each(serve, jpeg, request_of) -> None:
    async with serve() as served:
        late = await served.client.post(**request_of(jpeg, jpeg, jpeg), headers=LATE)
        assert late.status_code == 504
        assert await counts(served) == {"hurried": 3}
        assert await value(served, "yoloserve_deadline_misses_total") == 3
        load = served.serving.evidence()["load"]
        assert (load["offered"], load["refused"]) == (3, 3)


@several
async def test_pictures_beyond_a_quota_are_counted_each(serve, clock, jpeg, request_of) -> None:
    async with serve(clock=clock, quota_per_second=4) as served:
        for status in (200, 429):
            answer = await served.client.post(**request_of(jpeg, jpeg, jpeg))
            assert answer.status_code == status
        assert await counts(served) == {"ok": 3, "over_quota": 3}


@several
@pytest.mark.parametrize(("many", "refusals"), [(4, 0), (5, 2), (16, 1)])
async def test_more_pictures_than_a_quota_lets_come_at_once_are_answered_once_it_is_full(
    serve, clock, jpeg, request_of, many: int, refusals: int
) -> None:
    """Whoever comes back when told is answered; the first refusal may be of one picture alone."""
    async with serve(clock=clock, quota_per_second=4) as served:
        assert (await served.client.post(**request_of(*[jpeg] * many))).status_code == 200
        clock.now += many == 4
        for _ in range(refusals):
            answer = await served.client.post(**request_of(*[jpeg] * many))
            assert answer.status_code == 429
            clock.now += float(answer.headers["retry-after"])
        assert (await served.client.post(**request_of(*[jpeg] * many))).status_code == 200


@several
async def test_pictures_whose_caller_hangs_up_are_counted_each(serve, jpeg, request_of) -> None:
    asked = request_of(jpeg, jpeg, jpeg)
    sent = httpx.Request("POST", "http://test" + asked.pop("url"), **asked)
    hung_up = asyncio.Event()
    messages = iter([{"type": "http.request", "body": sent.read(), "more_body": False}])

    async def receive() -> dict[str, Any]:
        for message in messages:
            return message
        await hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(_: dict[str, Any]) -> None:
        pass

    scope = {
        "type": "http",
        "method": "POST",
        "path": sent.url.path,
        "query_string": b"",
        "headers": [(name.lower(), told) for name, told in sent.headers.raw],
    }
    async with serve() as served:
        served.backend.may_run.clear()
        served.backend.started.clear()
        request = asyncio.create_task(served.app(scope, receive, send))
        await asyncio.to_thread(served.backend.started.wait)
        hung_up.set()
        await request
        served.backend.may_run.set()
        assert await counts(served) == {"canceled": 3}


async def test_pictures_of_a_form_are_refused_each_for_its_own_fault(serve, jpeg: bytes) -> None:
    async with serve() as served:
        assert (await served.client.post(**form(b"a", jpeg[:99], b"b"))).status_code == 415
        assert await counts(served) == {"unsupported_media_type": 2, "invalid_image": 1}


async def test_by_the_inference_protocol_all_are_refused_for_the_first_fault(serve, jpeg) -> None:
    async with serve() as served:
        assert (await served.client.post(**tensor(jpeg, b"a", jpeg[:99]))).status_code == 415
        assert await counts(served) == {"unsupported_media_type": 3}
        assert (await served.client.post(**tensor(jpeg, jpeg, iou=7))).status_code == 400
        assert (await counts(served))["invalid_parameter"] == 2


@several
async def test_what_cannot_be_written_was_not_answered(
    serve, monkeypatch, jpeg, request_of
) -> None:
    async def fails(*_: Any) -> None:
        raise RuntimeError("no memory")

    async with serve() as served:
        monkeypatch.setattr(detector.Detector, "write", fails)
        pictures = (jpeg, b"a", jpeg) if request_of is form else (jpeg, jpeg, jpeg)
        assert (await served.client.post(**request_of(*pictures))).status_code == 500
        assert await counts(served) == {"internal": 3}


async def test_what_cannot_be_compressed_was_not_answered(serve, monkeypatch, jpeg) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr("yoloserve.http.compression.LEAST_BYTES", 0)
    monkeypatch.setattr("yoloserve.http.compression.compressed", fails)
    async with serve() as served:
        accepts = {"Accept-Encoding": "gzip"}
        answer = await served.client.post(**tensor(jpeg, jpeg), headers=accepts)
        assert answer.status_code == 500
        assert await counts(served) == {"internal": 2}


async def test_the_first_request_whose_pictures_nobody_counted_is_one(serve, jpeg) -> None:
    async with serve(max_images=2) as served:
        raw = await served.client.post("/v1/detect/batch", content=jpeg)
        assert raw.status_code == 415
        assert (await served.client.post(**form(jpeg, jpeg, jpeg))).status_code == 400
        served.core.admission._limit = lambda: 0
        assert (await served.client.post(**form(jpeg, jpeg))).status_code == 503
        once = {"unsupported_media_type": 1, "invalid_parameter": 1, "overloaded": 1}
        assert await counts(served) == once


@several
async def test_one_that_is_refused_before_it_is_read_is_as_many_as_those_before_it(
    serve, monkeypatch, jpeg, request_of
) -> None:
    def blind(_: Any) -> None:
        raise Blind("sees nothing")

    async with serve() as served:
        limit = served.core.admission._limit
        for full in (False, True) * 10:
            served.core.admission._limit = (lambda: 0) if full else limit
            answer = await served.client.post(**request_of(*[jpeg] * 4))
            assert answer.status_code == (503 if full else 200)
        assert await counts(served) == {"ok": 40, "overloaded": 40}
        load = served.serving.evidence()["load"]
        assert (load["offered"], load["refused"]) == (80, 40)
        served.core.admission._limit = limit
        assert (await served.detect(jpeg)).status_code == 200
        monkeypatch.setattr(type(served.serving), "refuse_if_blind", blind)
        assert (await served.client.post(**request_of(*[jpeg] * 4))).status_code == 503
        assert (await served.detect(jpeg)).status_code == 503
        assert (await counts(served))["blind"] == 4 + 1, "each as those that came its way"


async def test_as_many_as_those_before_it_are_their_mean(serve, jpeg: bytes) -> None:
    async with serve(max_images=8) as served:
        for _ in range(40):
            for images in (1, 8):
                assert (await served.client.post(**form(*[jpeg] * images))).status_code == 200
        served.core.admission._limit = lambda: 0
        assert (await served.client.post(**form(jpeg))).status_code == 503
        assert (await counts(served))["overloaded"] in (4, 5)


@several
async def test_how_many_came_together_is_told_of_what_is_answered_and_of_what_fails(
    serve, jpeg, request_of
) -> None:
    async with serve() as served:
        await served.detect(jpeg)
        assert await together(served) == {"ok": 1}
        await served.client.post(**request_of(jpeg, jpeg, jpeg))
        assert await together(served) == {"ok": (1 + 3 * 3) / (1 + 3)}
        await served.client.post(**request_of(jpeg, jpeg), headers=LATE)
        served.backend.fails = RuntimeError("the device is gone")
        await served.client.post(**request_of(*[jpeg] * 5))
        assert await together(served) == {"ok": 2.5, "hurried": 2, "internal": 5}


async def test_those_of_a_form_came_together_whatever_became_of_each(serve, jpeg: bytes) -> None:
    async with serve() as served:
        assert (await served.client.post(**form(jpeg, b"a", jpeg[:99]))).status_code == 200
        assert await together(served) == {"ok": 3, "unsupported_media_type": 3, "invalid_image": 3}
        assert (await served.client.post(**form(b"a"))).status_code == 415
        assert (await together(served))["unsupported_media_type"] == 2


async def test_a_frame_that_fails_is_counted(serve, stream_to, jpeg: bytes) -> None:
    async with serve() as served:
        camera = stream_to(served)
        camera.send(jpeg)
        await camera.receive()
        served.backend.fails = RuntimeError("the device is gone")
        camera.send(jpeg)
        with pytest.raises(Exception, match="the device is gone"):
            await camera.task
        assert await counts(served) == {"ok": 1, "internal": 1}


async def test_a_frame_whose_camera_leaves_is_counted(serve, stream_to, jpeg: bytes) -> None:
    async with serve() as served:
        served.backend.may_run.clear()
        served.backend.started.clear()
        camera = stream_to(served)
        camera.send(jpeg)
        await asyncio.to_thread(served.backend.started.wait)
        await camera.leave()
        served.backend.may_run.set()
        assert await counts(served) == {"canceled": 1}


async def test_every_outcome_that_is_watched_is_there_before_the_first_request(serve) -> None:
    """A series that is born with its first number has no rate, and no alert sees it."""
    async with serve() as served:
        told = await text(served)
        for outcome in FROM_THE_START:
            assert f'yoloserve_requests_total{{outcome="{outcome}",source="request"}} 0.0' in told


# how long


@several
async def test_each_picture_waits_from_the_bodys_last_byte_to_the_answer(
    serve, clock, backend, monkeypatch, jpeg, request_of
) -> None:
    """Pictures of one request are looked at by turns, and their caller has none before all."""
    look = backend.infer

    def slow(*asked: Any) -> Any:
        clock.now += 0.25
        return look(*asked)

    monkeypatch.setattr(backend, "infer", slow)
    async with serve(clock=clock) as served:
        answer = await served.client.post(**request_of(*[jpeg] * 8))
        assert answer.status_code == 200
        for name in ("yoloserve_latency_seconds", "yoloserve_request_duration_seconds"):
            assert await value(served, f"{name}_count") == 8
            assert await value(served, f"{name}_sum") == 8 * 2
        assert await value(served, "nv_inference_request_duration_us_total") == 8 * 2e6
        (bucket,) = served.serving.evidence()["latency"]["request"]["counts"]
        assert bucket == 8
        if request_of is form:
            totals = [each["timing_ms"]["total"] for each in answer.json()["results"]]
            assert totals[-1] <= 500, "what it took by itself, with that of the one before it"


async def test_what_a_body_takes_on_its_way_is_nobodys_wait(serve, clock, jpeg: bytes) -> None:
    async def slow() -> Any:
        yield jpeg[:100]
        clock.now += 60
        yield jpeg[100:]

    async with serve(clock=clock) as served:
        assert (await served.client.post("/v1/detect", content=slow())).status_code == 200
        assert await value(served, "yoloserve_latency_seconds_sum") == 0


async def test_who_asks_for_a_drawing_waits_for_it(serve, clock, monkeypatch, jpeg) -> None:
    draw = detector.annotate

    def slow(*asked: Any) -> bytes:
        clock.now += 1
        return draw(*asked)

    monkeypatch.setattr(detector, "annotate", slow)
    async with serve(clock=clock) as served:
        assert (await served.detect(jpeg, accept="image/jpeg")).status_code == 200
        assert await value(served, "yoloserve_latency_seconds_sum") == 1


async def test_a_frame_waits_from_its_arrival(serve, stream_to, clock, jpeg: bytes) -> None:
    async with serve(clock=clock) as served:
        served.backend.may_run.clear()
        served.backend.started.clear()
        camera = stream_to(served)
        camera.send(jpeg)
        await asyncio.to_thread(served.backend.started.wait)
        camera.send(jpeg)
        while not camera._in.empty():  # noqa: ASYNC110 (a queue of the fake, read without a wait)
            await asyncio.sleep(0)
        clock.now += 1
        served.backend.may_run.set()
        for _ in range(2):
            await camera.receive()
        assert await value(served, "yoloserve_latency_seconds_sum") == 2
        await camera.leave()
