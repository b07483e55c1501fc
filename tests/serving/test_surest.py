"""What is picked on a GPU gives the answers of the whole output, to the last bit.

Torch computes the same on a CPU, so that the module which a GPU captures is tried here.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from yoloserve.detections.postprocess import Detections, Head, Options, begin, postprocess
from yoloserve.detections.surest import COLUMNS, MOST, Surest
from yoloserve.engine.backends import cuda
from yoloserve.engine.backends.picking import pick
from yoloserve.engine.starting import Engine
from yoloserve.images.letterbox import Letterbox
from yoloserve.settings import BackendName

PICKED = Head.ANCHOR_FREE, Head.ANCHOR_FREE_ROWS, Head.OBJECTNESS
FIT = Letterbox.within((64, 64), 160, 90)
OPTIONS = Options(confidence=0.25, iou=0.5, max_detections=300)
FEW = 16
CLASSES = 5


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Let Torch share out nothing: on a busy machine its threads wait for each other's turns."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def output_of(head: Head, seed: int, places: int = 60) -> NDArray[np.float32]:
    """Make a picture's output in which many scores are just the same, and boxes overlap."""
    rng = np.random.default_rng(seed)
    boxes = np.concatenate((rng.uniform(8, 56, (places, 2)), rng.uniform(4, 30, (places, 2))), 1)
    levels = 2 ** int(rng.integers(1, 5))  # of scores: the fewer, the more ties
    scores = rng.integers(0, levels + 1, (places, CLASSES)) / levels
    scores *= rng.random((places, 1)) < rng.uniform(0.05, 1)  # most places see nothing
    if head is Head.OBJECTNESS:
        boxes = np.concatenate((boxes, rng.integers(0, levels + 1, (places, 1)) / levels), 1)
    rows = np.concatenate((boxes, scores), 1).astype(np.float32)
    return np.ascontiguousarray(rows.T) if head is Head.ANCHOR_FREE else rows


@dataclass
class Kept:
    """An output that stayed where it is; counts how often it was fetched."""

    output: NDArray[np.float32]
    fetched: int = 0

    def __call__(self) -> NDArray[np.float32]:
        self.fetched += 1
        return self.output


def picked(output: NDArray[np.float32], head: Head, most: int = FEW) -> tuple[Surest, Kept]:
    kept = Kept(output)
    (rows,) = pick(torch.from_numpy(output[None]), head, most).numpy()
    assert rows.shape == (min(most, 60), COLUMNS)
    return Surest(rows, kept), kept


def require_same(found: Detections, expected: Detections) -> None:
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.classes, expected.classes)
    assert found.boxes.dtype == expected.boxes.dtype


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"confidence": 0.0},
        {"confidence": 0.5},
        {"confidence": 1.0},
        {"classes": frozenset({1, 3})},
        {"agnostic_nms": True},
        {"confidence": 0.1, "classes": frozenset({0}), "agnostic_nms": True, "max_detections": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("head", PICKED)
def test_five_hundred_pictures_have_the_same_boxes(head: Head, asked: dict[str, Any]) -> None:
    options = replace(OPTIONS, **asked)
    fetched = 0
    for seed in range(500):
        output = output_of(head, seed)
        surest, kept = picked(output, head)
        require_same(
            postprocess(surest, head, FIT, options), postprocess(output, head, FIT, options)
        )
        fetched += kept.fetched
    if options.confidence == 1:
        assert fetched == 0
    elif options.confidence < 0.5:
        assert 0 < fetched < 500  # some have more than are picked, and some have not


@pytest.mark.parametrize("head", PICKED)
def test_the_whole_is_fetched_only_where_more_may_pass(head: Head) -> None:
    output = np.zeros_like(output_of(head, 0))
    rows = output.T if head is Head.ANCHOR_FREE else output
    rows[:, :4] = 32
    for passing, fetched in ((FEW - 1, 0), (FEW, 1), (FEW + 1, 1)):
        rows[:, 4:] = 0
        rows[:passing, 4:] = 0.5**0.5 if head is Head.OBJECTNESS else 0.5
        surest, kept = picked(output, head)
        begin(surest, head, FIT, OPTIONS)
        assert kept.fetched == fetched


@pytest.mark.parametrize("head", PICKED)
def test_what_is_no_number_takes_nobodys_place(head: Head) -> None:
    output = output_of(head, 7)
    (output.T if head is Head.ANCHOR_FREE else output)[::2, 5:] = np.nan
    surest, _ = picked(output, head)
    require_same(postprocess(surest, head, FIT, OPTIONS), postprocess(output, head, FIT, OPTIONS))


@pytest.mark.parametrize("head", PICKED)
def test_many_pictures_are_picked_from_as_each_alone(head: Head) -> None:
    outputs = np.stack([output_of(head, seed, places=2000) for seed in range(4)])
    together = pick(torch.from_numpy(outputs), head)
    assert together.shape == (4, MOST, COLUMNS)
    for rows, output in zip(together, outputs, strict=True):
        assert torch.equal(rows, pick(torch.from_numpy(output[None]), head)[0])


class PickingBackend:
    """A fake backend that picks; an output can be had until the next call, as on a GPU."""

    def __init__(self, plain: Any, most: int) -> None:
        self._plain, self._most = plain, most
        self.head: Head | None = None
        self.calls = self.fetched = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def suit(self, head: Head) -> None:
        self.head = head

    def surest(self, lane: int, tensors: list[Any]) -> list[Surest] | None:
        if self.head is Head.END_TO_END:
            return None
        self.calls += 1
        outputs, call = self._plain.infer(lane, np.stack(tensors)), self.calls

        def whole(number: int) -> NDArray[np.float32]:
            assert self.calls == call
            self.fetched += 1
            return outputs[number]

        rows = pick(torch.from_numpy(outputs), self.head, self._most).numpy()
        return [Surest(each, lambda n=n: whole(n)) for n, each in enumerate(rows)]


@pytest.mark.parametrize("most", [4, 1], ids=["all that pass are picked", "more pass"])
async def test_requests_are_answered_as_by_the_whole_output(serve, backend, jpeg, most) -> None:
    async with serve() as served:
        engine = served.core._engine
        queries = [
            "",
            "?confidence=0.65",
            "?confidence=0.1",
            "?classes=star",
            "?confidence=0&iou=1",
        ]
        plain = [(await served.detect(jpeg, query)).json()["detections"] for query in queries]
    backend.output = np.pad(backend.output, ((0, 0), (0, 1)))  # one place that sees nothing
    picking = PickingBackend(backend, most)
    async with serve(engine=Engine(picking, engine.info, engine.head)) as served:
        same = [(await served.detect(jpeg, query)).json()["detections"] for query in queries]
        assert same == plain
        fetched = picking.fetched
        assert bool(fetched) == (most == 1)
        probe = await served.core.look_at_probe()
        np.testing.assert_array_equal(probe, backend.output)  # the watch compares all of it
        assert picking.fetched == fetched + 1


async def test_a_graph_that_suppresses_has_nothing_to_pick_from(serve, backend, jpeg) -> None:
    backend.output = np.array([[10, 10, 30, 30, 0.9, 1]], np.float32)
    async with serve() as served:
        info = served.detector.info
    picking = PickingBackend(backend, FEW)
    async with serve(engine=Engine(picking, info, Head.END_TO_END)) as served:
        (seen,) = (await served.detect(jpeg)).json()["detections"]
    assert (seen["name"], picking.calls) == ("square", 0)
    assert info.backend is BackendName.ONNXRUNTIME


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is written for a GPU run on a CPU: no streams, no pinned memory, no graphs."""

    class Torch:
        cuda = SimpleNamespace(
            Stream=lambda: None,
            Event=lambda **_: SimpleNamespace(record=lambda: None, synchronize=lambda: None),
            graph_pool_handle=lambda: None,
            stream=lambda _: nullcontext(),
        )

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

        def empty(self, *shape: Any, pin_memory: bool = False, **told: Any) -> torch.Tensor:
            assert pin_memory
            return torch.full(*shape, 7, **{"dtype": torch.float32} | told)

    monkeypatch.setattr(cuda, "torch", Torch())
    monkeypatch.setattr(cuda, "DEVICE", "cpu")


@pytest.mark.parametrize("fixed", [None, 4], ids=["any batch", "batches of four"])
def test_a_lane_fills_batches_and_gives_each_picture_its_own(no_gpu: None, fixed) -> None:
    """Only a GPU captures: here each batch runs by itself, and is picked from all the same."""
    shapes = []

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(pixels.shape))
        number = pixels[:, 0, 0, 0].float()  # what each picture is
        output = torch.zeros(len(pixels), 4 + CLASSES, 8)
        output[:, :4] = number[:, None, None]
        output[:, 4 + 2, :3] = 0.5
        return output.half()

    lanes = cuda.Lanes(lambda: forward, 4, graphs=1, usual=(64, 64), fixed=fixed)
    lanes.suit(Head.ANCHOR_FREE)
    pictures = [np.full((32, 64, 3), number, np.uint8)[:, ::-1] for number in (10, 20, 30)]
    surest = lanes.surest(1, pictures)
    assert surest is not None
    assert shapes == [(4, 32, 64, 3)]  # the next power of two
    for each, output, number in zip(surest, lanes.infer(1, pictures), (10, 20, 30), strict=True):
        np.testing.assert_array_equal(each.whole(), output)
        assert output[0, 0] == number
        found, of_whole = (
            postprocess(given, Head.ANCHOR_FREE, FIT, OPTIONS) for given in (each, output)
        )
        require_same(found, of_whole)
        assert list(found.classes) == [2]
    lanes.suit(Head.END_TO_END)
    assert lanes.surest(0, pictures) is None
