"""`/v1/detect/batch`: several images, an answer for each."""

import asyncio
from typing import Any

import pytest


def form(*images: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("file", (f"{n}.jpg", image, "image/jpeg")) for n, image in enumerate(images)]


async def post(served, files: Any, query: str = "", **headers: str):
    return await served.client.post(f"/v1/detect/batch{query}", files=files, headers=headers)


def told(answer) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@pytest.mark.parametrize(("lanes", "max_batch"), [(1, 1), (2, 1), (1, 4)])
async def test_each_image_has_its_answer_in_its_place(
    serve, backend, jpeg: bytes, lanes: int, max_batch: int
) -> None:
    backend.lanes, backend.max_batch = lanes, max_batch
    async with serve() as served:
        answer = await post(served, form(jpeg, b"no image", jpeg, jpeg[:200], jpeg))
        alone = (await served.detect(jpeg)).json()
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [result["file"] for result in results] == [f"{n}.jpg" for n in range(5)]
    codes = [result.get("error", {}).get("code") for result in results]
    assert codes == [None, "unsupported_media_type", None, "invalid_image", None]
    for result in results[::2]:
        assert result["detections"] == alone["detections"]
        assert result["image"] == alone["image"]
    assert answer.json()["model"] == alone["model"]


async def test_options_count_for_all(serve, jpeg: bytes) -> None:
    async with serve() as served:
        answer = await post(served, form(jpeg, jpeg), "?classes=star")
    assert [len(result["detections"]) for result in answer.json()["results"]] == [1, 1]


async def test_when_none_is_answered_the_error_is_the_first_ones(serve, jpeg: bytes) -> None:
    async with serve() as served:
        assert told(await post(served, form(b"a", jpeg[:99]))) == (415, "unsupported_media_type")
        late = await post(served, form(jpeg, jpeg), **{"X-Deadline-Ms": "0.001"})
        assert told(late) == (504, "deadline_exceeded")


async def test_more_images_than_allowed_are_refused(serve, jpeg: bytes) -> None:
    async with serve(max_images=2) as served:
        assert (await post(served, form(jpeg, jpeg))).status_code == 200
        assert told(await post(served, form(jpeg, jpeg, jpeg))) == (400, "invalid_parameter")


async def test_what_is_no_form_of_files_is_refused(serve, jpeg: bytes) -> None:
    async with serve() as served:
        raw = await served.client.post("/v1/detect/batch", content=jpeg)
        assert told(raw) == (415, "unsupported_media_type")
        assert told(await post(served, [("words", (None, b"text"))])) == (400, "invalid_parameter")


async def test_each_image_counts_against_the_quota(serve, clock, jpeg: bytes) -> None:
    async with serve(clock=clock, quota_per_second=4) as served:
        assert (await post(served, form(jpeg, jpeg, jpeg))).status_code == 200
        assert told(await post(served, form(jpeg, jpeg, jpeg))) == (429, "over_quota")
        clock.now += 1
        assert (await post(served, form(jpeg, jpeg, jpeg))).status_code == 200


async def test_images_of_one_request_wait_for_each_other_and_leave_room(serve, jpeg) -> None:
    async with serve() as served:
        admission = served.core.admission
        admission._limit = lambda: 1
        answer = await post(served, form(*[jpeg] * 8))
        assert [len(result["detections"]) for result in answer.json()["results"]] == [2] * 8
        admission._limit = lambda: 10
        served.backend.may_run.clear()
        served.backend.started.clear()
        several = asyncio.create_task(post(served, form(*[jpeg] * 8)))
        await asyncio.to_thread(served.backend.started.wait)
        assert admission.inside == 2  # what the engine takes, and one more
        served.backend.may_run.set()
        assert (await several).status_code == 200


async def test_a_failing_engine_is_one_error_for_all(serve, jpeg: bytes) -> None:
    async with serve() as served:
        served.backend.fails = RuntimeError("the device is gone")
        assert told(await post(served, form(jpeg, jpeg))) == (500, "internal")
        while served.core.admission.inside:  # noqa: ASYNC110 (of this loop alone)
            await asyncio.sleep(0)  # a front keeps a place until no thread of its writes there
