"""A head is told by its shape, its metadata and its numbers, or not at all."""

import numpy as np
import pytest
from numpy.typing import NDArray

from yoloserve.detections.heads import recognise
from yoloserve.detections.postprocess import Head
from yoloserve.errors import ModelUnsupported
from yoloserve.settings import HeadName

SIZE = (640, 640)
GENERATOR = np.random.default_rng(1)
Numbers = NDArray[np.float32]


def places(count: int, classes: int, *, objectness: bool = False) -> Numbers:
    """Rows of a dense head: centres all over the picture, boxes of moderate size."""
    centres, sizes = GENERATOR.uniform(4, 636, (count, 2)), GENERATOR.uniform(8, 120, (count, 2))
    scores = GENERATOR.uniform(0, 0.3, (count, classes + objectness))
    return np.hstack((centres, sizes, scores)).astype(np.float32)


def objects(count: int, classes: int) -> Numbers:
    """Rows of an end-to-end head."""
    low = GENERATOR.uniform(0, 500, (count, 2))
    scores = np.sort(GENERATOR.uniform(0, 0.9, (count, 1)), axis=0)[::-1]
    numbers = GENERATOR.integers(0, classes, (count, 1))
    return np.hstack((low, low + 60, scores, numbers)).astype(np.float32)


def rt_detr(classes: int) -> Numbers:
    return np.hstack((GENERATOR.uniform(0, 1, (300, 4 + classes)),)).astype(np.float32)


def yolox(count: int, classes: int) -> Numbers:
    """As it is exported by default: offsets from the grid, logarithms of sizes."""
    boxes = GENERATOR.normal(0.5, 0.7, (count, 4))
    return np.hstack((boxes, GENERATOR.uniform(0, 1, (count, 1 + classes)))).astype(np.float32)


@pytest.mark.parametrize(
    ("output", "classes", "head"),
    [
        (places(8400, 80).T, 80, Head.ANCHOR_FREE),
        (places(8400, 1).T, 1, Head.ANCHOR_FREE),
        (places(8400, 2).T, 2, Head.ANCHOR_FREE),
        (places(2100, 2), 2, Head.ANCHOR_FREE_ROWS),  # six columns, and no end-to-end head
        (places(8400, 80), 80, Head.ANCHOR_FREE_ROWS),
        (places(25200, 80, objectness=True), 80, Head.OBJECTNESS),
        (places(25200, 1, objectness=True), 1, Head.OBJECTNESS),
        (places(252, 1, objectness=True), 1, Head.OBJECTNESS),  # as few as an end-to-end head has
        (objects(300, 80), 80, Head.END_TO_END),
        (objects(300, 2), 2, Head.END_TO_END),
        (objects(300, 1), 1, Head.END_TO_END),
        (objects(2000, 1), 1, Head.END_TO_END),
        (np.zeros((300, 6), np.float32), 80, Head.END_TO_END),  # nothing passed its threshold
    ],
)
def test_a_head_is_known_by_what_its_numbers_can_mean(
    output: Numbers, classes: int, head: Head
) -> None:
    assert recognise([output, output], SIZE, classes) is head


@pytest.mark.parametrize(
    ("output", "classes", "told"),
    [
        (rt_detr(2), 2, "not in pixels.*RT-DETR"),
        (rt_detr(80), 80, "not in pixels.*RT-DETR"),
        (yolox(8400, 80), 80, "not decoded.*YOLOX"),
        (places(8400, 3).T * 10, 3, "scores are from .* not from 0 to 1"),
        (objects(300, 7), 3, "no class from 0 to 2"),
        (objects(300, 3)[:, [0, 1, 2, 3, 5, 4]], 3, "no class from 0 to 2"),  # class, then score
        (objects(300, 3) / np.float32([640, 640, 640, 640, 1, 1]), 3, "not in pixels"),
        (np.hstack((objects(8400, 1)[:, :4], places(8400, 3)[:, 4:])), 3, "corners x1 y1 x2 y2"),
        (places(8400, 80).T, 3, "of 3 classes.*looks like one for 80"),
        (np.zeros(1000, np.float32), 3, "fits no detection head"),
    ],
)
def test_numbers_that_no_head_writes_are_refused_with_the_reason(
    output: Numbers, classes: int, told: str
) -> None:
    with pytest.raises(ModelUnsupported, match=told):
        recognise([output, output], SIZE, classes)


def test_what_could_be_either_is_refused_with_the_choices_until_somebody_says_it() -> None:
    either = np.tile(np.float32([300, 300, 400, 400, 0.2, 0]), (50, 1))
    choices = r"could be anchor-free-rows .* or end-to-end .*YOLOSERVE_HEAD \(spec\.model\.head\)"
    with pytest.raises(ModelUnsupported, match=choices):
        recognise([either], SIZE, 2)
    for said in (HeadName.ANCHOR_FREE_ROWS, HeadName.END_TO_END):
        assert recognise([either], SIZE, 2, said=said) is Head[said.name]
    assert recognise([either], SIZE, 2, end_to_end=True) is Head.END_TO_END
    assert recognise([either], SIZE, 2, end_to_end=False) is Head.ANCHOR_FREE_ROWS


def test_what_is_said_must_fit_the_shape() -> None:
    with pytest.raises(ModelUnsupported, match="is not objectness"):
        recognise([places(8400, 3).T], SIZE, 3, said=HeadName.OBJECTNESS)


def test_every_head_can_be_said() -> None:
    assert [name.name for name in HeadName] == ["AUTO", *(head.name for head in Head)]
