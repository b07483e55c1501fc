"""What decoding may cost: big pictures share the memory that one may take, and nobody's thread."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from yoloserve import core, detector
from yoloserve.detections import annotate
from yoloserve.detections.postprocess import Detections, Unfinished, begin
from yoloserve.http import inference_protocol
from yoloserve.http.routes import detect, stream
from yoloserve.scheduling.admission import ANYBODY
from yoloserve.scheduling.concurrency import Room, Threads

MP = 1000  # pixels that are a megapixel in these tests


def picture_of(megapixels: int) -> bytes:
    image = np.full((megapixels * MP // 100, 100, 3), 90, np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


SMALL, TEN, TWENTY = map(picture_of, (4, 10, 20))


@dataclass
class Decoding:
    """Decoding that goes on until it may end; tells the sizes of what is under way."""

    inside: list[int] = field(default_factory=list)
    may_end: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def __call__(self, encoded: bytes, *asked: Any, **options: Any) -> Any:
        with self.changed:
            self.inside.append(len(encoded))
            self.changed.notify_all()
        if encoded != SMALL:
            assert self.may_end.wait(60)
        try:
            return detector.decode_for(encoded, *asked, **options)
        finally:
            with self.changed:
                self.inside.remove(len(encoded))
                self.changed.notify_all()

    async def shows(self, *pictures: bytes) -> None:
        """Wait until just these are being decoded."""
        wanted = sorted(map(len, pictures))

        def wait() -> bool:
            with self.changed:
                return self.changed.wait_for(lambda: sorted(self.inside) == wanted, 60)

        assert await asyncio.to_thread(wait), self.inside


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoding]:
    decoding = Decoding()
    monkeypatch.setattr(detector, "BIG_PIXELS", 9 * MP)
    monkeypatch.setattr(detector, "decode_whole", decoding)
    yield decoding
    decoding.may_end.set()


async def settled(served: Any, waiting: int) -> None:
    """Go on until so many wait for room."""
    while len(served.core.room._waiting) != waiting:  # noqa: ASYNC110 (of this loop alone)
        await asyncio.sleep(0)


async def test_big_pictures_are_decoded_side_by_side_while_they_fit(
    serve: Callable[..., Any], decoding: Decoding
) -> None:
    async with serve(max_pixels=25 * MP) as served:
        asked = [asyncio.create_task(served.detect(TEN)) for _ in range(3)]
        await decoding.shows(TEN, TEN)
        await settled(served, waiting=1)
        decoding.may_end.set()
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}
        assert served.core.room.free == 25 * MP


async def test_small_pictures_neither_wait_for_big_ones_nor_count_their_time(
    serve: Callable[..., Any], decoding: Decoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    observed: list[float] = []
    async with serve(max_pixels=25 * MP) as served:
        observe = served.core.preparing.observe
        monkeypatch.setattr(
            served.core.preparing,
            "observe",
            lambda work, seconds: (observed.append(seconds), observe(work, seconds)),
        )
        big = [asyncio.create_task(served.detect(TEN)) for _ in range(4)]
        await decoding.shows(TEN, TEN)
        assert (await served.detect(SMALL)).status_code == 200
        assert len(observed) == 1
        decoding.may_end.set()
        await asyncio.gather(*big)
        assert len(observed) == 1  # what a second gives is told by small ones alone


async def test_a_caller_that_leaves_gives_back_no_memory_that_its_thread_still_holds(
    serve: Callable[..., Any], decoding: Decoding
) -> None:
    async with serve(max_pixels=25 * MP) as served:
        gone = asyncio.create_task(served.detect(TWENTY))
        await decoding.shows(TWENTY)
        gone.cancel()
        stays = asyncio.create_task(served.detect(TEN))
        await settled(served, waiting=1)
        await decoding.shows(TWENTY)
        assert served.core.room.free == 5 * MP
        decoding.may_end.set()
        assert (await stays).status_code == 200


async def test_a_picture_larger_than_allowed_waits_for_nobody(
    serve: Callable[..., Any], decoding: Decoding
) -> None:
    async with serve(max_pixels=15 * MP) as served:
        first = asyncio.create_task(served.detect(TEN))
        await decoding.shows(TEN)
        assert (await served.detect(TWENTY)).status_code == 413
        decoding.may_end.set()
        assert (await first).status_code == 200


async def test_room_is_lent_in_the_order_of_asking() -> None:
    room, order = Room(10), []

    async def take(name: str, amount: int) -> None:
        await room.take(amount)
        order.append(name)

    takers = [asyncio.create_task(take(*each)) for each in (("a", 6), ("b", 10), ("c", 4))]
    await asyncio.sleep(0)
    assert order == ["a"]  # c would fit, and would keep b waiting
    room.give(6)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == ["a", "b"]
    room.give(10)
    await asyncio.gather(*takers)
    assert room.free == 6


@pytest.mark.parametrize("served", [False, True], ids=["waiting", "served in this moment"])
async def test_who_gives_up_waiting_for_room_leaves_it_to_others(served: bool) -> None:
    room = Room(10)
    await room.take(6)
    large, small = asyncio.create_task(room.take(10)), asyncio.create_task(room.take(4))
    await asyncio.sleep(0)
    if served:
        room.give(6)
    large.cancel()
    await small
    assert room.free == (6 if served else 0)


async def test_work_that_fails_gives_its_room_back() -> None:
    threads, room = Threads(pool=1, lanes=0), Room(10)
    with pytest.raises(ZeroDivisionError):
        await threads.run_within(room, 7, lambda: 1 // 0)
    await room.take(10)
    threads.close()


async def test_what_is_made_for_nobody_who_waits_is_no_part_of_what_a_batch_takes(
    serve: Callable[..., Any], jpeg: bytes, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is ever so unsure is looked for in it: who asks has to wait for less."""

    def slow(*asked: Any) -> Any:
        clock.now += 7
        return begin(*asked)

    monkeypatch.setattr(core, "begin", slow)
    monkeypatch.setattr(core, "time", SimpleNamespace(perf_counter=clock))
    async with serve(clock=clock) as served:
        learned: list[float] = []
        monkeypatch.setattr(served.core.batcher, "learn", lambda _, took: learned.append(took))
        answer = await served.detector.aside(jpeg, served.detector.defaults, flow=ANYBODY)
        assert (answer.timing.inference, answer.timing.postprocess) == (0, 7)
        assert (await served.detect(jpeg)).status_code == 200
        assert learned == [0, 7]


async def test_what_fails_after_the_network_fails_for_one_of_a_batch(
    serve: Callable[..., Any], jpeg: bytes, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.max_batch = 3
    finished: list[str] = []

    def fails(*asked: Any) -> Any:
        finished.append(threading.current_thread().name)
        if len(finished) == 2:
            raise RuntimeError("this picture's alone")
        return begin(*asked)

    async with serve() as served:
        monkeypatch.setattr(core, "begin", fails)
        backend.may_run.clear()
        asked = [asyncio.create_task(served.detect(jpeg)) for _ in range(4)]
        while served.core.batcher.waiting < 3:  # noqa: ASYNC110 (of this loop alone)
            await asyncio.sleep(0)
        backend.may_run.set()
        statuses = [answer.status_code for answer in await asyncio.gather(*asked)]
    assert sorted(statuses) == [200, 200, 200, 500]
    assert {name.split("_")[0] for name in finished} == {"lane-0"}  # no hop between the two


# all boxes

ALL = "?confidence=0&iou=1&max_detections=10000"


@pytest.fixture
def places(backend: Any) -> int:
    """Let the network see something at each of many places, as every network does."""
    many = 2000
    rng = np.random.default_rng(0)
    sizes = rng.uniform(1, 9, (2, many))
    backend.output = np.concatenate(
        (rng.uniform(0, 64, (2, many)), sizes, rng.uniform(0.001, 0.2, (3, many)))
    ).astype(np.float32)
    return many


async def test_who_wants_all_boxes_is_nobody_elses_wait(
    serve: Callable[..., Any], jpeg: bytes, places: int, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request of 16 pictures held everybody else up for half a minute."""
    may_end, begun = threading.Event(), threading.Event()
    finished = Unfinished.finished

    def waits(rest: Unfinished) -> Any:
        begun.set()
        assert may_end.wait(60)
        clock.now += 10
        return finished(rest)

    monkeypatch.setattr(Unfinished, "finished", waits)
    for module in (core, detector):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=clock))
    async with serve(clock=clock) as served:
        monkeypatch.setattr(served.core, "_most_inside", lambda: 8)
        asked = [asyncio.create_task(served.detect(jpeg, ALL)) for _ in range(2)]
        assert await asyncio.to_thread(begun.wait, 60)
        while served.core.long_admission.inside < 2:  # noqa: ASYNC110 (of this loop alone)
            await asyncio.sleep(0)
        known = served.core.capacity_per_s
        assert (await served.detect(jpeg)).status_code == 200
        assert (await served.detect(jpeg, ALL)).status_code == 503  # of eight places they have two
        may_end.set()
        answers = await asyncio.gather(*asked)
        assert [len(answer.json()["detections"]) for answer in answers] == [places, places]
        assert served.core.capacity_per_s == known  # whatever those took


async def test_what_wants_all_boxes_is_dropped_when_it_would_be_late(
    serve: Callable[..., Any], jpeg: bytes, places: int, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_wait = threading.Event()

    def slow(_: Unfinished) -> Any:
        assert both_wait.wait(60)
        clock.now += 70
        raise RuntimeError("this takes long")

    async with serve(clock=clock, deadline_ms=60_000) as served:
        monkeypatch.setattr(Unfinished, "finished", slow)
        asked = [asyncio.create_task(served.detect(jpeg, ALL)) for _ in range(2)]
        # Both are through the network: it would seem to take those 70 s, and let nobody in.
        while served.core.long_admission.inside < 2:  # noqa: ASYNC110 (of this loop alone)
            await asyncio.sleep(0)
        both_wait.set()
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {500, 504}


@pytest.mark.parametrize("path", ["detect", "batch", "v2", "stream"])
async def test_long_answers_are_written_off_the_loop(
    serve: Callable[..., Any],
    jpeg: bytes,
    places: int,
    path: str,
    stream_to: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop, writers = threading.current_thread(), []

    def told(write: Callable[..., Any]) -> Callable[..., Any]:
        def writes(*args: Any) -> Any:
            writers.append(threading.current_thread())
            return write(*args)

        return writes

    for module, name in (
        (detect, "detect_json"),
        (detect, "batch_json"),
        (stream, "stream_json"),
        (inference_protocol, "write"),
    ):
        monkeypatch.setattr(module, name, told(getattr(module, name)))
    async with serve(confidence=0, iou=1, max_detections=10_000) as served:
        if path == "stream":
            camera = stream_to(served)
            camera.send(jpeg)
            assert len((await camera.receive())["detections"]) == places
            await camera.leave()
        elif path == "v2":
            image = {"Inference-Header-Content-Length": "0"}
            url = "/v2/models/gate/infer"
            assert (await served.client.post(url, content=jpeg, headers=image)).is_success
        elif path == "batch":
            files = [("file", ("a.jpg", jpeg, "image/jpeg"))]
            assert (await served.client.post("/v1/detect/batch", files=files)).is_success
        else:
            assert (await served.detect(jpeg)).is_success
    assert writers
    assert loop not in writers


def test_no_more_is_drawn_than_can_be_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 boxes in a picture of 40 megapixels took ten seconds of a thread for images."""
    monkeypatch.setattr(annotate, "MOST_DRAWN", 2)
    boxes = np.array([[1, 30, 9, 40], [20, 30, 30, 44], [60, 30, 80, 50]], np.float32)
    found = Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 1, 2]))
    all_three, two = (np.zeros((90, 160, 3), np.uint8) for _ in range(2))
    annotate.draw(all_three, found, ("a", "b", "c"))
    annotate.draw(two, found[:2], ("a", "b", "c"))
    np.testing.assert_array_equal(all_three, two)
    assert two.any()
