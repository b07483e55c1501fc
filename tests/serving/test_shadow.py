"""Pictures that one revision answered are shown to another, when nobody waits; and never again."""

import asyncio
import base64
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from weakref import WeakSet

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yoloserve.core import Wanted, _begin
from yoloserve.detections.postprocess import Detections, Head, Options
from yoloserve.detector import Answer, Timing
from yoloserve.images.decoding import decode
from yoloserve.images.letterbox import Letterbox
from yoloserve.images.pixels import Pixels, bmp
from yoloserve.shadow import replay
from yoloserve.shadow.answers import read
from yoloserve.shadow.asking import MOST_BYTES, Caller, Late, Reply, Unreachable
from yoloserve.shadow.copies import LARGEST
from yoloserve.shadow.pairs import NEARLY, Found, difference
from yoloserve.shadow.repeats import LASTS_S, MOST, Repeats
from yoloserve.shadow.replay import MOST_WAITING
from yoloserve.shadow.tally import MOST_CONFUSED, Outcome, Tallies, Tally
from yoloserve.telemetry.names import LONGEST_NAME, MOST_NAMES, OTHER

STABLE, CANARY = "gate-1111aaaa", "gate-2222bbbb"
KEY = "only-revisions-know-this"
SHADOW = {"X-Yoloserve-Source": "shadow", "X-Yoloserve-Shadow-Key": KEY}
# Surely a circle, perhaps a star, nearly a square; and what is not even that.
SEEN = np.array(
    [
        [32.0, 32.0, 20.0, 10.0, 0.9, 0.1, 0.0],
        [12.0, 40.0, 8.0, 8.0, 0.0, 0.0, 0.3],
        [50.0, 50.0, 6.0, 6.0, 0.0, 0.22, 0.0],
        [50.0, 10.0, 6.0, 6.0, 0.0, 0.1, 0.0],
    ],
    np.float32,
).T


async def until(happens: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not happens():  # noqa: ASYNC110 (of this loop alone)
            await asyncio.sleep(0)


def told(revision: str = CANARY, **changes: Any) -> str:
    order = {
        "revision": revision,
        "percent": 100,
        "max_per_second": 1000,
        "until": (datetime.now(UTC) + timedelta(minutes=10)).isoformat(),
    }
    return json.dumps({"shadow": order | changes})


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Settings of one revision: `own(STABLE, told(CANARY))`."""

    def settings(revision: str, live: str = "{}", key: str = KEY) -> dict[str, Any]:
        folder = tmp_path / revision
        folder.mkdir(exist_ok=True)
        (folder / "live.json").write_text(live)
        (folder / "key").write_text(key)
        return {
            "name": "gate",
            "namespace": "yards",
            "revision": revision,
            "live_dir": folder,
            "shadow_key_file": folder / "key",
        }

    return settings


@pytest.fixture
def revisions(serve, own, backend):
    """Serve two revisions, the first of which is to show the second what it is asked."""

    @asynccontextmanager
    async def revisions(
        back: bool = False,
        live: str | None = None,
        canary: dict[str, Any] | None = None,
        **changes: Any,
    ) -> AsyncIterator[tuple[Any, Any]]:
        backend.output = SEEN
        there = own(CANARY, told(STABLE) if back else "{}") | (canary or {})
        async with AsyncExitStack() as stack:
            second = await stack.enter_async_context(serve(**there))
            first = await stack.enter_async_context(
                serve(**(own(STABLE, live or told()) | changes))
            )
            asked(first, second.app)
            if back:
                asked(second, first.app)
            await until(lambda: first.serving.shadow._target)
            yield first, second

    return revisions


def asked(served: Any, app: Any) -> list[httpx.Request]:
    """Have a revision ask this application; returns what it sends."""
    sent: list[httpx.Request] = []

    class Noted(httpx.ASGITransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            sent.append(request)
            return await super().handle_async_request(request)

    served.serving.shadow.connect = lambda: Caller(Noted(app=app))
    served.serving.shadow.lag_s = float("inf")  # this machine may be busy
    return sent


def frames(served: Any, canary: str = CANARY) -> dict[str, int]:
    tallies = served.serving.shadow.tallies.as_dict()
    return {k: v for k, v in tallies.get(canary, {"frames": {}})["frames"].items() if v}


async def metric(served: Any, name: str, **labels: str) -> float:
    text = (await served.client.get("/metrics")).text
    wanted = "".join(f'(?=.*{key}="{value}")' for key, value in labels.items())
    found = re.findall(rf"^{name}{{{wanted}.*}} (.+)$", text, re.MULTILINE)
    return sum(map(float, found))


async def test_what_was_answered_is_shown_to_the_canary_and_compared(revisions, jpeg) -> None:
    async with revisions() as (stable, canary):
        sent = asked(stable, canary.app)
        answer = await stable.detect(jpeg, **{"X-Request-Id": "one", "Authorization": "mine"})
        assert answer.status_code == 200
        await until(lambda: frames(stable))
        assert frames(stable) == {"compared": 1}
        tally = stable.serving.shadow.tallies.as_dict()[CANARY]
        assert tally["expected"] == tally["kept"] == {"circle": [0, 1, 0]}
        assert (tally["sure"], tally["seen"], tally["blind"]) == ({"circle": 1}, 1, 0)
        assert all(sum(arm["counts"]) == 1 for arm in tally["compute"].values())
        assert await metric(canary, "yoloserve_requests_total", source="shadow", outcome="ok") == 1
        assert await metric(canary, "yoloserve_requests_total", source="request") == 0
        assert (
            await metric(
                stable, "yoloserve_shadow_kept_total", **{"canary": CANARY, "class": "circle"}
            )
            == 1
        )
        [request] = sent
        assert str(request.url) == f"http://{CANARY}.yards.svc/v1/detect"
        assert "authorization" not in request.headers
        assert "x-request-id" not in request.headers
        assert request.headers["traceparent"].split("-")[1] not in answer.headers["traceparent"]


@pytest.mark.parametrize("accept", ["application/json", "image/jpeg"])
async def test_a_client_gets_the_same_bytes_whether_it_is_shadowed_or_not(
    revisions, jpeg, accept: str
) -> None:
    def without_times(answer: httpx.Response) -> bytes:
        return re.sub(rb'"timing_ms":{[^}]*}', b"", answer.content)

    async with revisions() as (stable, _):
        shadowed = await stable.detect(jpeg, Accept=accept)
        await until(lambda: frames(stable) == {"compared": 1})
        stable.serving.shadow.end()
        alone = await stable.detect(jpeg, Accept=accept)
    assert without_times(shadowed) == without_times(alone)
    assert shadowed.headers["content-type"] == accept


ROWS = st.lists(
    st.tuples(
        st.integers(0, 63),
        st.integers(0, 63),
        st.integers(1, 30),
        st.integers(1, 30),
        *[st.sampled_from([0, 0.1, 0.19, 0.2, 0.21, 0.25, 0.26, 0.3, 0.9])] * 2,
    ),
    max_size=30,
)


@given(ROWS, st.integers(1, 5), st.booleans())
def test_to_look_below_the_threshold_changes_nothing_above_it(rows, most, agnostic) -> None:
    output = np.array(rows, np.float32).reshape(-1, 6).T
    options, fit = Options(0.25, 0.5, most, agnostic_nms=agnostic), Letterbox(1, 1, 0, 0, 64, 64)
    seen = [
        _begin(output, Head.ANCHOR_FREE, fit, Wanted(options, deadline=0, below=below))
        for below in (0, NEARLY)
    ]
    (alone, none), (above, nearly) = seen
    assert none is None
    assert isinstance(nearly, Detections)
    for one, other in (
        (alone.boxes, above.boxes),
        (alone.scores, above.scores),
        (alone.classes, above.classes),
    ):
        assert one.tobytes() == other.tobytes()


async def test_two_revisions_that_shadow_each_other_make_no_loop(revisions, jpeg) -> None:
    async with revisions(back=True) as (one, other):
        await until(lambda: other.serving.shadow._target)
        await one.detect(jpeg)
        await until(lambda: frames(one) == {"compared": 1})
        await other.detect(jpeg)
        await until(lambda: frames(other, STABLE) == {"compared": 1})
        assert one.backend.calls - 2 * 2 == 4  # two lanes of two servers warmed up; two each
        assert frames(one) == {"compared": 1}


@pytest.mark.parametrize(
    "liar",
    [
        {"X-Yoloserve-Source": "shadow"},
        {"X-Yoloserve-Shadow-Key": KEY},
        SHADOW | {"X-Yoloserve-Shadow-Key": KEY + "?"},
        SHADOW | {"X-Yoloserve-Shadow-Key": ""},
        SHADOW | {"X-Yoloserve-Source": "request"},
    ],
)
async def test_who_shows_no_key_is_a_caller_like_any_other(serve, own, jpeg, liar) -> None:
    async with serve(**own(CANARY)) as served:
        answer = await served.detect(jpeg, **liar)
        assert "shadow" not in answer.json()
        assert await metric(served, "yoloserve_requests_total", source="request", outcome="ok") == 1
        assert await metric(served, "yoloserve_requests_total", source="shadow") == 0


async def test_where_there_is_no_key_nobody_is_a_shadow(serve, own, jpeg) -> None:
    async with serve(**own(CANARY, key="")) as served:
        for shown in ("", KEY):
            answer = await served.detect(jpeg, **SHADOW | {"X-Yoloserve-Shadow-Key": shown})
            assert "shadow" not in answer.json()


async def test_a_shadow_needs_no_client_s_key_and_has_no_quota(
    serve, own, jpeg, tmp_path: Path, clock
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("yard some-clients-key-of-theirs")
    changes = own(CANARY) | {"api_keys_file": keys, "quota_per_second": 1}
    async with serve(clock=clock, **changes) as served:
        for _ in range(3):
            assert (await served.detect(jpeg, **SHADOW)).status_code == 200
        assert (await served.detect(jpeg)).status_code == 401
        lies = SHADOW | {"X-Yoloserve-Shadow-Key": KEY[:-1]}
        assert (await served.detect(jpeg, **lies)).status_code == 401
        for path in ("/v1/detect/batch", "/v2/models/gate/infer"):
            answer = await served.client.post(path, headers=SHADOW)
            assert answer.status_code == 401  # only what is shown one by one


async def test_a_shadow_is_told_what_is_a_little_below_the_threshold(
    serve, own, jpeg, backend
) -> None:
    backend.output = SEEN
    async with serve(**own(CANARY)) as served:
        answer = (await served.detect(jpeg, **SHADOW)).json()
        ordinary = (await served.detect(jpeg)).json()
    assert answer["shadow"] == {"confidence": 0.25, "classes": ["circle", "square", "star"]}
    assert [each["name"] for each in answer["detections"]] == ["circle", "star", "square"]
    assert [each["name"] for each in ordinary["detections"]] == ["circle", "star"]


@pytest.mark.parametrize("query", ["?confidence=0.4", "?classes=star", "?max_detections=1"])
async def test_pictures_with_options_of_their_own_are_not_shown(revisions, jpeg, query) -> None:
    async with revisions() as (stable, _):
        await stable.detect(jpeg, query)
        await stable.detect(jpeg)
        await until(lambda: frames(stable) == {"compared": 1, "skipped_options": 1})


RAW = np.random.default_rng(3).integers(0, 256, (3, 45, 62, 3), np.uint8)  # rows to be filled up


def tensor(datatype: str, data: Any, shape: list[int], **parameters: Any) -> dict[str, Any]:
    image = {"name": "image", "shape": shape, "datatype": datatype}
    if isinstance(data, bytes):
        size = {"binary_data_size": len(data)}
        header = orjson.dumps({"inputs": [image | {"parameters": size}], "parameters": parameters})
        length = {"Inference-Header-Content-Length": str(len(header))}
        return {"content": header + data, "headers": length}
    return {"json": {"inputs": [image | {"data": data}], "parameters": parameters}}


def encoded(*pictures: bytes, **parameters: Any) -> dict[str, Any]:
    data = b"".join(len(each).to_bytes(4, "little") + each for each in pictures)
    return tensor("BYTES", data, [len(pictures)], **parameters)


def in_json(*pictures: bytes, **parameters: Any) -> dict[str, Any]:
    data = [base64.b64encode(each).decode() for each in pictures]
    return tensor("BYTES", data, [len(pictures)], **parameters)


def raw(rgb: Any, datatype: str = "UINT8", **parameters: Any) -> dict[str, Any]:
    sent = rgb if datatype == "UINT8" else (rgb.transpose(0, 3, 1, 2) / 255).astype(np.float32)
    return tensor(datatype, sent.tobytes(), list(sent.shape), **parameters)


def files(*pictures: bytes) -> dict[str, Any]:
    return {"files": [("file", ("a.jpg", each)) for each in pictures]}


INFER = "/v2/models/gate/infer"


@pytest.mark.parametrize(
    ("path", "asked_as", "pictures"),
    [
        (INFER, in_json, 1),
        (INFER, encoded, 3),
        (f"{INFER}?", lambda one: {"content": one, "headers": ALONE}, 1),
        ("/v1/detect/batch", files, 3),
    ],
)
async def test_each_picture_of_a_request_is_shown_as_it_was_sent_whatever_is_spoken(
    revisions, jpeg, path: str, asked_as, pictures: int
) -> None:
    """The other revision may have another name for its model, and an image that knows no /v2."""
    async with revisions(canary={"name": "another"}) as (stable, canary):
        sent = asked(stable, canary.app)
        each = [jpeg + bytes(at) for at in range(pictures)]
        answer = await stable.client.post(path, **asked_as(*each))
        assert answer.status_code == 200, answer.text
        await until(lambda: frames(stable) == {"compared": pictures})
        assert [request.url.path for request in sent] == ["/v1/detect"] * pictures
        assert sorted([request.content for request in sent], key=len) == each
        tally = stable.serving.shadow.tallies.as_dict()[CANARY]
        assert tally["expected"] == tally["kept"] == {"circle": [0, pictures, 0]}
        shown = await metric(canary, "yoloserve_requests_total", source="shadow", outcome="ok")
        assert shown == pictures
        assert await metric(canary, "yoloserve_requests_total", source="request") == 0


ALONE = {"Inference-Header-Content-Length": "0"}


@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
async def test_pixels_are_shown_as_a_picture_of_just_these(revisions, datatype: str) -> None:
    async with revisions() as (stable, canary):
        sent = asked(stable, canary.app)
        answer = await stable.client.post(INFER, **raw(RAW, datatype))
        assert answer.status_code == 200, answer.text
        await until(lambda: frames(stable) == {"compared": 3})
        shown = [decode(request.content, max_pixels=10**4)[:, :, ::-1] for request in sent]
        for picture in RAW:
            assert any(np.array_equal(picture, each) for each in shown)
        await until(lambda: not stable.asked.shadow._held)


async def test_what_a_picture_was_decoded_from_is_no_difference_between_two_revisions(
    stable_of, jpeg
) -> None:
    """Pixels are not decoded here, and are there: else a canary would seem slower, or faster."""
    canary = Canary(Reply(200, OURS, said()))
    async with stable_of(canary) as stable:
        shadow = stable.serving.shadow
        for source, seconds in ((jpeg, 0.006), (Pixels(62, 45, lambda: RAW[0]), 0.0045)):
            with shadow.drawn([source], stable.detector.defaults) as drawn:
                for each in drawn.sources:
                    _ = each if isinstance(each, bytes) else each.make()
                drawn.answered([nothing()])
            [copy] = drawn.shown
            assert copy.found((), 0.25).compute_s == (1 if source is jpeg else 0)
            result = await shadow._result(shadow._target, copy)
            assert result.canary.compute_s == pytest.approx(seconds)


@given(st.integers(1, 40), st.integers(1, 40))
def test_a_picture_of_pixels_is_as_long_as_was_said_and_nothing_of_it_is_lost(
    width: int, height: int
) -> None:
    picture = np.arange(width * height * 3, dtype=np.uint8).reshape(height, width, 3)
    written = bmp(picture)
    assert len(written) == Pixels(width, height, lambda: picture).bmp_bytes
    np.testing.assert_array_equal(decode(written, max_pixels=1600), picture)


@pytest.mark.parametrize(
    "source",
    [
        bytes(LARGEST + 1),
        Pixels(2000, 1400, lambda: RAW[0]),
        Pixels(2**20 + 1, 1, lambda: RAW[0]),  # nobody would read it, and the canary be blamed
        Pixels(1, 2**20 + 1, lambda: RAW[0]),
    ],
)
async def test_of_several_pictures_those_too_large_are_left_out(stable_of, jpeg, source) -> None:
    async with stable_of(Canary()) as stable:
        with stable.asked.shadow.drawn([jpeg, source, jpeg], stable.detector.defaults) as drawn:
            assert drawn.below == [NEARLY, 0, NEARLY]
            assert [each is source for each in drawn.sources] == [False, True, False]
        await until(lambda: frames(stable) == {"skipped_size": 1})


@pytest.mark.parametrize(
    "parameters", [{"confidence": 0.4}, {"classes": "star"}, {"max_detections": 1}, {"iou": 0.9}]
)
async def test_a_request_of_v2_with_options_of_its_own_is_not_shown(
    revisions, jpeg, parameters
) -> None:
    async with revisions() as (stable, _):
        for number, asked_for in enumerate((parameters, {}, {"confidence": 0.25}, {"priority": 1})):
            picture = jpeg + bytes(number)
            answer = await stable.client.post(INFER, **encoded(picture, **asked_for))
            assert answer.status_code == 200
        await until(lambda: frames(stable) == {"compared": 3, "skipped_options": 1})


@pytest.mark.parametrize("accept", [{}, {"Accept-Encoding": "gzip"}])
async def test_v2_answers_the_same_whether_it_is_shadowed_or_not(revisions, jpeg, accept) -> None:
    outputs = [{"name": name} for name in ("num_dets", "det_boxes", "det_scores", "det_classes")]
    told = in_json(jpeg, jpeg + b"\0")["json"] | {"outputs": outputs}
    async with revisions() as (stable, _):
        shadowed = await stable.client.post(INFER, json=told, headers=accept)
        await until(lambda: sum(frames(stable).values()) == 2)
        stable.serving.shadow.end()
        alone = await stable.client.post(INFER, json=told, headers=accept)
    assert shadowed.content == alone.content
    assert shadowed.status_code == 200


async def test_one_picture_that_is_none_leaves_nothing_to_show_of_a_request_of_v2(
    revisions, jpeg
) -> None:
    """All of it is refused, so that nobody was answered; of a form the others are."""
    async with revisions() as (stable, _):
        answer = await stable.client.post(INFER, **encoded(jpeg, b"no picture", jpeg))
        assert answer.status_code == 415
        assert not stable.asked.shadow._held
        answer = await stable.client.post(
            "/v1/detect/batch", **files(jpeg, b"no picture", jpeg + b"\0")
        )
        assert answer.status_code == 200
        await until(lambda: frames(stable) == {"compared": 2})
        await until(lambda: not stable.asked.shadow._held)


async def test_no_request_is_shown_twice_whatever_is_spoken(revisions, jpeg) -> None:
    async with revisions(back=True) as (one, other):
        await until(lambda: other.serving.shadow._target)
        await one.client.post(INFER, **encoded(jpeg, jpeg + b"\0"), params={})
        await until(lambda: frames(one) == {"compared": 2})
        assert frames(other, STABLE) == {}
        # Who says it is a shadow and speaks /v2 is a caller like any other: no revision does.
        claims = encoded(jpeg)
        claims["headers"] |= SHADOW
        assert (await other.client.post(INFER, **claims)).status_code == 200
        assert await metric(other, "yoloserve_requests_total", source="request", outcome="ok") == 1


async def test_pictures_of_requests_that_wait_are_bounded_together(
    stable_of, jpeg, monkeypatch
) -> None:
    monkeypatch.setattr(replay, "MOST_BYTES", 2 * len(jpeg))
    async with stable_of(Canary()) as stable:
        shadow, options = stable.serving.shadow, stable.detector.defaults
        with shadow.drawn([jpeg] * 3, options) as drawn:
            assert sorted(drawn.below) == [0, NEARLY, NEARLY]
            with shadow.drawn([jpeg], options) as other:
                assert other.below == [0]
        assert frames(stable) == {"skipped_busy": 2}
        with shadow.drawn([jpeg] * 2, options) as drawn:  # nobody was answered: there is room again
            drawn.answered([nothing(), nothing()])
        del drawn, other  # the answer could not be sent, and nobody offered them
        with shadow.drawn([jpeg] * 2, options) as drawn:
            assert drawn.below == [NEARLY, NEARLY]


class Counted(WeakSet[Any]):
    """How often all of its members are gone through."""

    times = 0

    def __iter__(self) -> Iterator[Any]:
        self.times += 1
        return super().__iter__()


async def test_what_a_request_costs_grows_with_its_pictures_alone(stable_of, jpeg) -> None:
    """A thousand small ones of each of many requests held the loop up for seconds."""
    async with stable_of(Canary()) as stable:
        shadow, options = stable.serving.shadow, stable.detector.defaults
        shadow._held = Counted()
        with shadow.drawn([jpeg] * 64, options) as drawn:
            assert sum(copy is not None for copy in drawn.copies) == 64
        assert shadow._held.times == 1


async def test_no_place_in_a_request_is_shown_more_often_than_another(
    revisions, jpeg, monkeypatch, clock
) -> None:
    """A client that sends its cameras in one order would have the last ones judged by nothing."""
    monkeypatch.setattr(replay.random, "sample", lambda each, _: [*reversed(each)])
    each = [jpeg + bytes(at) for at in range(3)]
    async with revisions(clock=clock, live=told(max_per_second=1)) as (stable, canary):
        sent = asked(stable, canary.app)
        await stable.client.post(INFER, **encoded(*each))
        await until(lambda: frames(stable) == {"compared": 1, "skipped_rate": 2})
        assert [request.content for request in sent] == each[-1:]
        stable.asked.shadow._most_bytes = 2 * len(each[-1])
        with stable.asked.shadow.drawn(each, stable.detector.defaults) as drawn:
            assert drawn.below == [0, NEARLY, NEARLY]


async def test_a_caller_that_leaves_takes_its_pictures_along(stable_of, jpeg, backend) -> None:
    async with stable_of(Canary()) as stable:
        backend.may_run.clear()
        backend.started.clear()
        leaving = asyncio.create_task(stable.client.post(INFER, **encoded(jpeg, jpeg)))
        await asyncio.to_thread(backend.started.wait)
        assert len(stable.asked.shadow._held) == 2
        leaving.cancel()
        await asyncio.wait((leaving,))
        assert not stable.asked.shadow._held
        assert frames(stable) == {}
        backend.may_run.set()


async def test_a_frame_of_a_stream_is_shown_once_it_is_answered(revisions, stream_to, jpeg) -> None:
    async with revisions() as (stable, _):
        camera = stream_to(stable)
        another = jpeg + b"\0"
        for frame, told in (
            (jpeg, "detections"),
            (b"no picture", "error"),
            (another, "detections"),
        ):
            camera.send(frame)
            assert told in await camera.receive()
        await camera.leave()
        await until(lambda: frames(stable) == {"compared": 2})


async def test_a_share_is_drawn(revisions, jpeg) -> None:
    async with revisions(live=told(percent=50)) as (stable, _):
        draws = iter([0.4999, 0.5, 0.9, 0.0])
        stable.asked.shadow._draw = lambda: next(draws)
        for number in range(4):
            await stable.detect(jpeg + bytes(number))
        await until(lambda: frames(stable) == {"compared": 2})


async def test_no_more_are_shown_in_a_second_than_the_canary_is_to_get(
    revisions, jpeg, clock
) -> None:
    async with revisions(clock=clock, live=told(max_per_second=2)) as (stable, _):
        for number in range(5):
            await stable.detect(jpeg + bytes(number))
        await until(lambda: sum(frames(stable).values()) == 5)
        assert frames(stable) == {"compared": 2, "skipped_rate": 3}
        clock.now += 1
        await stable.detect(jpeg + bytes(5))
        await until(lambda: frames(stable)["compared"] == 3)


async def test_a_picture_that_repeats_is_shown_once_and_takes_nobody_s_place(
    revisions, jpeg, clock
) -> None:
    """A camera that hangs, beside one that does not."""
    async with revisions(clock=clock, live=told(max_per_second=3)) as (stable, _):
        for number in range(3):
            for picture in (jpeg, jpeg, jpeg + bytes(1 + number)):
                await stable.detect(picture)
        await until(lambda: sum(frames(stable).values()) == 9)
        assert frames(stable) == {"compared": 3, "skipped_repeated": 5, "skipped_rate": 1}
        for number in range(6, 10):
            clock.now += LASTS_S * 0.9
            await stable.detect(jpeg)
            await until(lambda number=number: frames(stable)["skipped_repeated"] == number)
        clock.now += LASTS_S * 1.1
        await stable.detect(jpeg)
        await until(lambda: frames(stable)["compared"] == 4)
        stable.serving.shadow._repeats.clear()
        await stable.detect(jpeg)
        await until(lambda: frames(stable)["compared"] == 5)


async def test_pixels_that_repeat_are_shown_once(revisions, jpeg) -> None:
    async with revisions() as (stable, _):
        for _ in range(2):
            await stable.client.post(INFER, **raw(np.zeros((1, 64, 64, 3), np.uint8)))
        await until(lambda: sum(frames(stable).values()) == 2)
        assert frames(stable) == {"compared": 1, "skipped_repeated": 1}


def test_of_pictures_that_were_shown_few_are_remembered(clock) -> None:
    repeats = Repeats(clock)
    for number in range(MOST + 9):
        repeats.add(b"%d" % number)
        assert repeats.has(b"0")  # it goes on coming
    assert len(repeats._came) == MOST
    assert not repeats.has(b"1")
    assert repeats.has(b"%d" % MOST)


async def test_a_picture_of_many_bytes_is_shown_and_one_of_too_many_is_not(revisions, jpeg) -> None:
    async with revisions(max_body_bytes=80 * 2**20, canary={"max_body_bytes": LARGEST}) as (
        stable,
        _,
    ):
        for size in (2 * 2**20, LARGEST, LARGEST + 1, 64 * 2**20):
            answer = await stable.detect(jpeg + bytes(size - len(jpeg)))
            assert answer.status_code == 200
        await until(lambda: sum(frames(stable).values()) == 4)
        assert frames(stable) == {"compared": 2, "skipped_size": 2}


@dataclass
class Canary:
    """What answers in a canary's place: with this, once it may."""

    says: Reply | Exception = field(default_factory=lambda: Reply(200, {}, b""))
    asked: int = 0
    inside: int = 0
    most: int = 0
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_answer.set()

    async def post(self, *_: Any) -> Reply:
        self.asked += 1
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.may_answer.wait()
        finally:
            self.inside -= 1
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    async def close(self) -> None:
        pass


@pytest.fixture
def stable_of(serve, own):
    """Serve a revision that shows what it is asked to `canary`."""

    @asynccontextmanager
    async def stable_of(canary: Canary, live: str = told(), **changes: Any) -> AsyncIterator[Any]:
        async with serve(**(own(STABLE, live) | changes)) as served:
            served.serving.shadow.connect = lambda: canary
            served.serving.shadow.lag_s = float("inf")  # this machine may be busy
            await until(lambda: served.serving.shadow._target)
            yield served

    return stable_of


async def test_nothing_is_shown_while_somebody_waits(stable_of, jpeg, backend) -> None:
    canary = Canary()
    async with stable_of(canary) as stable:
        backend.may_run.clear()
        backend.started.clear()
        waiting = [asyncio.create_task(stable.detect(jpeg)) for _ in range(4)]
        await until(lambda: stable.core.batcher.waiting >= 1)
        shadow = stable.serving.shadow
        with shadow.drawn([jpeg], stable.detector.defaults) as drawn:
            drawn.answered([nothing()])
        await shadow.offer(drawn)
        await until(lambda: frames(stable))
        assert frames(stable) == {"skipped_busy": 1}
        assert canary.asked == 0
        backend.may_run.set()
        await asyncio.gather(*waiting)


def nothing() -> Answer:
    none = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int))
    return Answer(none, 160, 90, Timing(1, 0, 0, 0, 0, 0), 0, 0, 0, nearly=none)


async def test_nothing_is_shown_while_the_event_loop_is_late(stable_of, jpeg) -> None:
    canary = Canary()
    async with stable_of(canary) as stable:
        stable.serving.shadow.lag_s = -1
        await stable.detect(jpeg)
        await until(lambda: frames(stable) == {"skipped_busy": 1})
        assert canary.asked == 0


async def test_a_slow_canary_holds_few_pictures_and_two_connections(stable_of, jpeg) -> None:
    canary = Canary()
    canary.may_answer.clear()
    async with stable_of(canary) as stable:
        for number in range(MOST_WAITING + 10):
            assert (await stable.detect(jpeg + bytes(number))).status_code == 200
        await until(lambda: canary.inside == 2)
        await stable.detect(jpeg)
        assert (canary.asked, canary.most) == (2, 2)
        assert frames(stable)["skipped_busy"] >= 8
        assert stable.serving.shadow._queue.qsize() <= MOST_WAITING


@pytest.mark.parametrize("why", [Unreachable("nobody"), Late()])
async def test_who_is_not_there_is_left_alone_for_longer_each_time_and_who_is_late_is_not(
    stable_of, jpeg, clock, why: Exception
) -> None:
    canary = Canary(says=why)
    async with stable_of(canary, clock=clock) as stable:
        asked = []
        for number, wait in enumerate((0.0, 0.5, 0.6, 1.0, 1.1, 4.1, 60), 1):
            clock.now += wait
            await stable.detect(jpeg + bytes(number))
            await until(lambda number=number: sum(frames(stable).values()) == number)
            asked.append(canary.asked)
    late = isinstance(why, Late)
    assert frames(stable) == {"late" if late else "unreachable": 7}
    assert asked == ([1, 2, 3, 4, 5, 6, 7] if late else [1, 1, 2, 2, 3, 4, 5])


async def test_the_end_comes_at_once_and_drops_what_waits(stable_of, jpeg) -> None:
    canary = Canary()
    canary.may_answer.clear()
    async with stable_of(canary) as stable:
        for number in range(6):
            await stable.detect(jpeg + bytes(number))
        await until(lambda: canary.inside == 2)
        stable.serving.drain()
        assert stable.serving.shadow._queue.empty()
        await until(lambda: canary.inside == 0)
        assert (await stable.detect(jpeg)).status_code == 200
        assert (canary.asked, frames(stable)) == (2, {})


async def test_what_waits_for_one_canary_is_not_shown_to_the_next(stable_of, jpeg, own) -> None:
    canary = Canary()
    canary.may_answer.clear()
    async with stable_of(canary) as stable:
        for number in range(6):
            await stable.detect(jpeg + bytes(number))
        await until(lambda: canary.inside == 2)
        live = stable.serving.live
        live.settings = live.settings.model_copy(
            update={"shadow": live.settings.shadow.model_copy(update={"revision": "gate-3333cccc"})}
        )
        stable.serving.shadow.follow()
        canary.may_answer.set()
        await until(lambda: sum(frames(stable).values()) == 2)
        assert canary.asked == 2
        assert frames(stable, "gate-3333cccc") == {}


@pytest.mark.parametrize(
    ("revision", "changes"),
    [
        (STABLE, {}),  # itself
        ("yard-2222bbbb", {}),
        ("gate-2222bbbb.evil.example", {}),
        ("gate-2222bbb", {}),
        ("gate-2222bbbg", {}),
        ("gate-2222bbbb\n", {}),
        ("evil/gate-2222bbbb", {}),
        (CANARY, {"namespace": ""}),
        (CANARY, {"revision": ""}),
        (CANARY, {"shadow_key_file": None}),
    ],
)
async def test_only_another_revision_of_the_same_detector_is_asked(
    serve, own, jpeg, revision: str, changes
) -> None:
    canary = Canary()
    async with serve(**(own(STABLE, told(revision)) | changes)) as stable:
        stable.serving.shadow.connect = lambda: canary
        stable.serving.shadow.follow()
        await stable.detect(jpeg)
        assert stable.serving.shadow._target is None
        assert not stable.serving.shadow.tallies.as_dict()


async def test_a_fault_of_ours_ends_nothing_and_is_no_evidence(stable_of, jpeg, caplog) -> None:
    canary = Canary(says=ZeroDivisionError())
    async with stable_of(canary) as stable:
        await stable.detect(jpeg)
        await until(lambda: frames(stable) == {"unreachable": 1})
        await stable.detect(jpeg)
        await until(lambda: frames(stable) == {"unreachable": 2})
    assert "shadow failed" in caplog.text


OURS = {"x-yolofleet-revision": CANARY}
TIMES = dict.fromkeys(("decode", "preprocess", "queue", "inference", "postprocess", "total"), 1.5)


def said(**changes: Any) -> bytes:
    box = {"x1": 0, "y1": 0, "x2": 50, "y2": 50}
    one = {"name": "circle", "class": 0, "confidence": 0.9, "box": box}
    usual = {
        "shadow": {"confidence": 0.25, "classes": ["circle"]},
        "detections": [one | changes.pop("one", {})],
        "timing_ms": TIMES,
    }
    return orjson.dumps({k: v for k, v in (usual | changes).items() if v is not None})


@pytest.mark.parametrize("keeps", [True, False])
async def test_a_picture_on_which_the_two_differ_is_kept_while_that_is_asked_for(
    stable_of, own, jpeg, tmp_path, keeps
) -> None:
    (tmp_path / "frames").write_text("who-may-look-has-it")
    canary = Canary(Reply(200, OURS, said()))
    settings = {"frames_key_file": tmp_path / "frames"}
    async with stable_of(canary, told(keep_frames=keeps), **settings) as stable:
        shadow = stable.serving.shadow
        await stable.detect(jpeg)
        await until(lambda: frames(stable) == {"compared": 1})
        kept = shadow.album.frames()
        # One of the three has a class that only stable knows.
        assert [(each.encoded, len(each.apart)) for each in kept] == [(jpeg, 3)] * keeps
        live = stable.serving.live
        over = live.settings.shadow.model_copy(update={"percent": 0})  # it was called off
        live.settings = live.settings.model_copy(update={"shadow": over})
        shadow.follow()
        await stable.detect(jpeg)
        assert shadow.album.frames() == kept
        live.settings = live.settings.model_copy(update={"shadow": None})
        shadow.follow()
        assert shadow.album.frames() == []


async def test_no_picture_is_kept_that_nobody_may_see_nor_when_the_server_ends(
    stable_of, jpeg, tmp_path
) -> None:
    canary = Canary(Reply(200, OURS, said()))
    async with stable_of(canary, told(keep_frames=True)) as stable:
        await stable.detect(jpeg)
        await until(lambda: frames(stable) == {"compared": 1})
        assert stable.serving.shadow.album.frames() == []
    (tmp_path / "frames").write_text("who-may-look-has-it")
    settings = {"frames_key_file": tmp_path / "frames"}
    async with stable_of(canary, told(keep_frames=True), **settings) as stable:
        await stable.detect(jpeg)
        await until(lambda: stable.serving.shadow.album.frames())
        stable.serving.drain()
        assert stable.serving.shadow.album.frames() == []


def coded(code: str) -> bytes:
    return orjson.dumps({"error": {"code": code, "message": ""}})


@pytest.mark.parametrize(
    ("status", "headers", "body", "outcome"),
    [
        (200, OURS, b"", "failed"),
        (200, OURS, b"<html>", "failed"),
        (200, OURS, b"[]", "failed"),
        (200, OURS, b"7", "failed"),
        (200, OURS, b"{}", "failed"),
        (200, OURS, said(detections=[1]), "failed"),
        (200, OURS, said(detections={"a": 1}), "failed"),
        (200, OURS, said(one={"class": 1}), "failed"),
        (200, OURS, said(one={"class": -1}), "failed"),
        (200, OURS, said(one={"confidence": 7}), "failed"),
        (200, OURS, said(one={"confidence": "much"}), "failed"),
        (200, OURS, said(one={"box": {"x1": 0}}), "failed"),
        (200, OURS, said(one={"box": {"x1": 1e300, "y1": 0, "x2": 5, "y2": 5}}), "failed"),
        (200, OURS, said(one={"class": [0, 0]}), "failed"),
        (200, OURS, said(timing_ms={}), "failed"),
        (200, OURS, said(shadow={"confidence": 0.25, "classes": []}), "failed"),
        (200, OURS, said(shadow={"confidence": 0.25, "classes": [1]}), "failed"),
        (200, OURS, said(shadow=None), "unreachable"),  # it does not take our key
        (200, {}, said(), "unreachable"),  # somebody else
        (200, {"x-yolofleet-revision": STABLE}, said(), "unreachable"),
        (301, {}, b"", "unreachable"),
        (400, OURS, coded("invalid_image"), "failed"),
        (413, OURS, coded("too_large"), "failed"),
        (401, OURS, coded("unauthorized"), "unreachable"),
        (403, {}, b"RBAC: access denied", "unreachable"),
        (429, OURS, coded("over_quota"), "unreachable"),
        (500, OURS, coded("internal"), "failed"),
        (500, {}, b"", "failed"),
        (503, OURS, coded("overloaded"), "skipped_busy"),
        (503, OURS, coded("blind"), "failed"),
        (503, OURS, b"", "failed"),
        (503, {}, b"no healthy upstream", "unreachable"),
        (504, {}, b"", "unreachable"),
        (504, OURS, coded("deadline_exceeded"), "late"),
    ],
)
def test_of_what_comes_back_only_the_canary_s_own_faults_are_held_against_it(
    status: int, headers, body: bytes, outcome: str
) -> None:
    assert read(status, headers, body, CANARY) == Outcome(outcome)


def test_an_answer_is_read_as_it_was_meant() -> None:
    found = read(200, OURS, said(), CANARY)
    assert isinstance(found, Found)
    assert found.classes == ("circle",)
    assert found.compute_s == pytest.approx(0.006)  # what it waited for is no work
    assert found.detections.boxes.tolist() == [[0, 0, 50, 50]]


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none()
        | st.booleans()
        | st.floats()
        | st.integers(-(2**63), 2**63 - 1)
        | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["shadow", "detections", "timing_ms", "classes", "box", "x1"]),
                inner,
            )
        ),
        max_leaves=8,
    ).map(orjson.dumps)
)
def test_no_answer_is_more_than_an_answer(body: bytes) -> None:
    assert isinstance(read(200, OURS, body, CANARY), Outcome | Found)


async def test_what_takes_long_of_an_answer_is_done_beside_the_loop(
    stable_of, jpeg, monkeypatch
) -> None:
    """A canary that tells of ten thousand classes would hold up all that its stable one answers."""
    many = said(shadow={"confidence": 0.25, "classes": [f"class {n}" for n in range(10_000)]})
    threads = []

    def noted(work: Callable[..., Any]) -> Callable[..., Any]:
        def does(*args: Any) -> Any:
            threads.append(threading.current_thread())
            return work(*args)

        return does

    for name in ("read", "difference"):
        monkeypatch.setattr(replay, name, noted(getattr(replay, name)))
    async with stable_of(Canary(Reply(200, OURS, many))) as stable:
        await stable.detect(jpeg)
        await until(lambda: frames(stable))
        assert frames(stable) == {"compared": 1}
    assert len(threads) == 2
    assert threading.main_thread() not in threads


async def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    given_out = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given_out
        while True:
            given_out += 2**20
            yield bytes(2**20)

    transport = httpx.MockTransport(lambda _: httpx.Response(200, headers=OURS, content=endless()))
    reply = await Caller(transport).post("http://gate.yards.svc/v1/detect", {}, b"", 60)
    assert read(reply.status, reply.headers, reply.body, CANARY) is Outcome.FAILED
    assert given_out <= MOST_BYTES + 2 * 2**20


async def test_who_does_not_listen_is_unreachable_and_who_does_not_answer_is_late(
    nobodys_port: int,
) -> None:
    caller = Caller()
    with pytest.raises(Unreachable):
        await caller.post(f"http://127.0.0.1:{nobodys_port}/v1/detect", {}, b"", 60)

    async def answers_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await gone.wait()
        writer.close()

    gone = asyncio.Event()
    server = await asyncio.start_server(answers_once, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/detect"
        assert (await caller.post(url, {}, b"", 60)).status == 200
        with pytest.raises(Late):  # over the same connection: to make one might take longer
            await caller.post(url, {}, b"", 0.05)
        gone.set()
        await caller.close()


async def test_over_a_real_connection_a_large_picture_is_compared(
    run_server, make_model, own, jpeg
) -> None:
    settings = own(CANARY)
    server = run_server(model=make_model(), **settings)
    url = server.logged("ready")["url"]
    caller = Caller()
    headers = {"host": f"{CANARY}.yards.svc", **SHADOW}
    body = jpeg + bytes(6 * 2**20)
    for _ in range(2):
        reply = await caller.post(f"{url}v1/detect", headers, body, 60)
        found = read(reply.status, reply.headers, reply.body, CANARY)
        assert isinstance(found, Found)
    await caller.close()


def found_one(name: str, other: str | None = None) -> tuple[Found, Found]:
    box, score = np.array([[0, 0, 50, 50]], np.float32), np.array([0.9], np.float32)
    names = tuple(dict.fromkeys([name, other or name]))
    first = Detections(box, score, np.array([0]))
    second = Detections(box, score, np.array([len(names) - 1]))
    return Found(first, names, 0.25, 0.004), Found(second, names, 0.25, 0.004)


def test_counts_stay_few_whatever_classes_are_called_and_never_go_back() -> None:
    tally = Tally()
    for number in range(300):
        pair = found_one(f"class {number}" + "x" * 500, f"another {number}")
        tally.compared(*pair, difference(*pair))
    known = found_one("class 0" + "x" * 500)
    tally.compared(*known, difference(*known))
    told = tally.as_dict()
    for table in ("expected", "sure"):
        assert len(told[table]) == MOST_NAMES
    assert sum(sum(row) for row in told["expected"].values()) == 301
    assert sum(map(sum, (r for n, r in told["expected"].items() if n == OTHER))) == 300 - 79
    assert sum(map(len, told["confused"].values())) == MOST_CONFUSED
    assert all(len(name) <= LONGEST_NAME for name in told["expected"])
    assert len(json.dumps(told)) < 200_000


def test_what_is_kept_has_the_row_of_what_was_expected_however_late_it_was_first_found() -> None:
    """Else a class that was missed at first has none of its own there, and seems lost for ever."""
    tally = Tally()
    blind = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))
    for sees in (False, True):
        for number in range(300) if not sees else reversed(range(300)):
            stable, canary = found_one(f"class {number}")
            canary = canary if sees else replace(canary, detections=blind)
            tally.compared(stable, canary, difference(stable, canary))
    told = tally.as_dict()
    assert {name: sum(row) for name, row in told["expected"].items()} == {
        name: 2 * sum(row) for name, row in told["kept"].items()
    }


def test_two_canaries_are_remembered() -> None:
    tallies = Tallies()
    for name in ("one", "two", "one", "three"):
        tallies.of(name).seen += 1
    assert {name: tally.seen for name, tally in tallies.items()} == {"one": 2, "three": 1}
