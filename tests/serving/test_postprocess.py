"""Heads and suppression, against an implementation so simple that it can be read."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from yoloserve.detections.postprocess import (
    Detections,
    Head,
    Options,
    UnnamedClass,
    candidates,
    iou,
    postprocess,
    require_named,
    suppress,
    surest,
)
from yoloserve.images.letterbox import InputSize, Letterbox, letterbox

ALL = Options(confidence=0.25, iou=0.5, max_detections=300)
AS_IS = Letterbox(gain_x=1, gain_y=1, left=0, top=0, width=1000, height=1000)


def overlap(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    union = areas - width * height
    return width * height / union if union > 0 else 0.0


def slow_suppression(
    found: Detections, threshold: float, limit: int, agnostic: bool = False
) -> list[int]:
    """Greedy, one pair at a time; pairs of two classes count when agnostic."""
    order = sorted(range(len(found)), key=lambda i: -found.scores[i])
    kept: list[int] = []
    for i in order:
        rivals = (k for k in kept if agnostic or found.classes[k] == found.classes[i])
        if all(
            overlap(found.boxes[k].tolist(), found.boxes[i].tolist()) <= threshold for k in rivals
        ):
            kept.append(i)
    return kept[:limit]


@st.composite
def many_detections(draw: st.DrawFn) -> Detections:
    """Boxes on whole pixels, so that both implementations compute the same overlaps."""
    count = draw(st.integers(0, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    corners = rng.integers(0, 60, (count, 2))
    sizes = rng.integers(1, 40, (count, 2))
    scores = rng.permutation(np.linspace(0.1, 0.99, max(count, 1)))[:count]
    return Detections(
        np.concatenate((corners, corners + sizes), axis=1).astype(np.float32),
        scores.astype(np.float32),
        rng.integers(0, 3, count),
    )


@settings(max_examples=300, deadline=None)
@given(
    many_detections(),
    st.sampled_from([0.0, 0.301, 0.503, 0.707, 1.0]),
    st.integers(1, 80),
    st.booleans(),
)
def test_suppression_keeps_what_the_slow_one_keeps(
    found: Detections, threshold: float, limit: int, agnostic: bool
) -> None:
    rows = slow_suppression(found, threshold, limit, agnostic)
    expected = found[np.array(rows, np.int64)]
    kept = suppress(found, iou=threshold, limit=limit, agnostic=agnostic)
    np.testing.assert_array_equal(kept.boxes, expected.boxes)
    np.testing.assert_array_equal(kept.scores, expected.scores)
    np.testing.assert_array_equal(kept.classes, expected.classes)


@settings(max_examples=50, deadline=None)
@given(many_detections(), st.sampled_from([0.301, 0.707]), st.integers(1, 20))
def test_looking_at_the_surest_first_changes_nothing(
    found: Detections, threshold: float, limit: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yoloserve.detections.postprocess.FIRST_LOOK", 2)
        step_by_step = suppress(found, iou=threshold, limit=limit)
    at_once = suppress(found, iou=threshold, limit=limit)
    np.testing.assert_array_equal(step_by_step.scores, at_once.scores)


def test_boxes_of_two_classes_do_not_suppress_each_other() -> None:
    box = np.array([[0, 0, 10, 10]] * 2, np.float32)
    found = Detections(box, np.array([0.9, 0.8], np.float32), np.array([0, 1]))
    assert len(suppress(found, iou=0.5, limit=10)) == 2
    assert suppress(found, iou=0.5, limit=10, agnostic=True).classes.tolist() == [0]


@settings(max_examples=200, deadline=None)
@given(many_detections(), st.sampled_from([0.301, 0.503, 0.707]))
def test_agnostic_suppression_leaves_one_box_for_a_place(
    found: Detections, threshold: float
) -> None:
    kept = suppress(found, iou=threshold, limit=100, agnostic=True)
    overlaps = iou(kept.boxes, kept.boxes)
    np.fill_diagonal(overlaps, 0)
    assert (overlaps <= threshold).all()
    gone = found[~np.isin(found.scores, kept.scores)]
    surer = kept.scores[None, :] > gone.scores[:, None]
    assert ((iou(gone.boxes, kept.boxes) > threshold) & surer).any(axis=1).all()
    by_class = suppress(found, iou=threshold, limit=100)
    for each in set(found.classes.tolist()):  # of a single class, both are the same
        only = found[found.classes == each]
        alone = suppress(only, iou=threshold, limit=100, agnostic=True)
        expected = by_class.scores[by_class.classes == each]
        np.testing.assert_array_equal(alone.scores, expected)


@given(st.integers(0, 2**32), st.integers(0, 400))
def test_of_two_that_overlap_by_just_the_threshold_the_same_goes_as_in_the_reference(
    seed: int, kind: int
) -> None:
    """The reference compares in fp32, with the boxes of class n moved by 7680 n pixels."""
    rng = np.random.default_rng(seed)
    left, top = rng.uniform(0, 600, 2)
    width, height = rng.uniform(5, 40, 2)
    aside = width * 0.3 / 1.7 * rng.uniform(0.98, 1.02)  # an IoU of 0.7, more or less
    corners = [[left, top, left + width, top + height]]
    corners.append([left + aside, top, left + width + aside, top + height])
    boxes = np.array(corners, np.float32)
    moved = boxes + np.float32(kind) * np.float32(7680)
    shared = (moved[0, 2] - moved[1, 0]) * (moved[0, 3] - moved[0, 1])
    areas = (moved[:, 2] - moved[:, 0]) * (moved[:, 3] - moved[:, 1])
    overlaps = float(shared / (areas[0] + areas[1] - shared))
    found = Detections(boxes, np.array([0.9, 0.8], np.float32), np.array([kind, kind]))
    assert len(suppress(found, iou=0.7, limit=10)) == (1 if overlaps > 0.7 else 2)


def test_classes_are_kept_apart_however_large_the_boxes_are() -> None:
    boxes = np.array([[-9e3, -9e3, 9e3, 9e3]] * 3, np.float32)
    found = Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 1, 2]))
    assert len(suppress(found, iou=0.1, limit=10)) == 3


def test_the_surest_boxes_are_told_by_their_numbers() -> None:
    boxes = np.array([[0, 0, 10, 10], [50, 50, 60, 60], [1, 1, 10, 10]], np.float32)
    scores = np.array([0.5, 0.6, 0.9], np.float32)
    assert surest(boxes, scores, 0.5).tolist() == [2, 1]
    assert surest(boxes[:0], scores[:0], 0.5).tolist() == []


heads = st.tuples(st.integers(1, 8), st.integers(1, 40), st.integers(0, 2**32))


def random_output(classes: int, places: int, seed: int) -> tuple[NDArray[np.float32], ...]:
    rng = np.random.default_rng(seed)
    boxes = rng.uniform(1, 60, (places, 4)).astype(np.float32)
    return boxes, rng.uniform(0, 1, (places, classes)).astype(np.float32)


def slow_candidates(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], confidence: float
) -> list[tuple[float, ...]]:
    """One place at a time: x1, y1, x2, y2, score, class."""
    found = []
    for (cx, cy, w, h), row in zip(boxes, scores, strict=True):
        best = int(np.argmax(row))
        if row[best] > confidence:
            found.append((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, row[best], best))
    return found


def as_rows(found: Detections) -> NDArray[np.float64]:
    return np.column_stack((found.boxes, found.scores, found.classes)).astype(float)


@given(heads, st.sampled_from([0.0, 0.25, 0.9]))
def test_an_anchor_free_head_is_read_place_by_place(
    head: tuple[int, int, int], confidence: float
) -> None:
    boxes, scores = random_output(*head)
    output = np.concatenate((boxes, scores), axis=1).T
    expected = slow_candidates(boxes, scores, confidence)
    found = as_rows(candidates(output, Head.ANCHOR_FREE, confidence))
    np.testing.assert_allclose(found, np.reshape(expected, (-1, 6)), rtol=1e-5)


@given(heads, st.sampled_from([0.0, 0.25, 0.9]))
def test_an_objectness_head_multiplies_objectness_and_class(
    head: tuple[int, int, int], confidence: float
) -> None:
    boxes, scores = random_output(*head)
    objectness = np.random.default_rng(head[2]).uniform(0, 1, (len(boxes), 1)).astype(np.float32)
    output = np.concatenate((boxes, objectness, scores), axis=1)
    expected = slow_candidates(boxes, scores * objectness, confidence)
    found = as_rows(candidates(output, Head.OBJECTNESS, confidence))
    np.testing.assert_allclose(found, np.reshape(expected, (-1, 6)), rtol=1e-5)


def test_an_end_to_end_head_is_taken_at_its_word() -> None:
    output = np.array(
        [[0, 0, 10, 10, 0.5, 1], [0, 0, 10, 10, 0.9, 1], [0, 0, 5, 5, 0.1, 0]], np.float32
    )
    found = postprocess(output, Head.END_TO_END, AS_IS, ALL)
    assert found.scores.tolist() == pytest.approx([0.9, 0.5])  # both: no second suppression
    found = postprocess(output, Head.END_TO_END, AS_IS, replace(ALL, agnostic_nms=True))
    assert found.scores.tolist() == pytest.approx([0.9])  # unless it is asked for


def one_of_each() -> NDArray[np.float32]:
    """Three objects of three classes, apart from each other."""
    boxes = np.array([[10, 10, 8, 8], [30, 30, 8, 8], [50, 50, 8, 8]], np.float32)
    scores = np.diag([0.5, 0.9, 0.7]).astype(np.float32)
    return np.concatenate((boxes, scores), axis=1).T


def test_the_surest_is_first() -> None:
    found = postprocess(one_of_each(), Head.ANCHOR_FREE, AS_IS, ALL)
    assert found.classes.tolist() == [1, 2, 0]


def test_an_object_that_nobody_can_name_is_a_fault_that_says_so() -> None:
    found = postprocess(one_of_each(), Head.ANCHOR_FREE, AS_IS, ALL)
    require_named(found, ("circle", "square", "star"))
    with pytest.raises(UnnamedClass, match=r"of class 1, .* has 1, from 0: .*spec\.model\.classes"):
        require_named(found, ("circle",))


def test_no_more_than_asked_for() -> None:
    found = postprocess(one_of_each(), Head.ANCHOR_FREE, AS_IS, replace(ALL, max_detections=2))
    assert found.classes.tolist() == [1, 2]


def test_only_the_classes_asked_for() -> None:
    wanted = replace(ALL, classes=frozenset({0, 2}))
    found = postprocess(one_of_each(), Head.ANCHOR_FREE, AS_IS, wanted)
    assert found.classes.tolist() == [2, 0]


def test_a_score_of_exactly_the_threshold_is_not_above_it() -> None:
    found = postprocess(one_of_each(), Head.ANCHOR_FREE, AS_IS, replace(ALL, confidence=0.5))
    assert found.classes.tolist() == [1, 2]


def test_boxes_are_in_pixels_of_the_image_as_sent() -> None:
    _, fit = letterbox(np.zeros((720, 1280, 3), np.uint8), InputSize(64, 64))
    found = postprocess(one_of_each(), Head.ANCHOR_FREE, fit, ALL)
    # 1280 pixels are 64, and 14 rows of grey are above: (30 ± 4, 30 ± 4 - 14) * 20
    np.testing.assert_allclose(found.boxes[0], [520, 240, 680, 400])


@pytest.mark.parametrize("head", Head)
def test_an_image_with_nothing_in_it_has_no_detections(head: Head) -> None:
    empty = {
        Head.ANCHOR_FREE: np.zeros((7, 100), np.float32),
        Head.ANCHOR_FREE_ROWS: np.zeros((100, 7), np.float32),
        Head.OBJECTNESS: np.zeros((100, 8), np.float32),
        Head.END_TO_END: np.zeros((300, 6), np.float32),
    }[head]
    found = postprocess(empty, head, AS_IS, ALL)
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)


def test_scores_that_are_no_numbers_are_not_detections() -> None:
    output = np.full((7, 10), np.nan, np.float32)
    assert len(postprocess(output, Head.ANCHOR_FREE, AS_IS, ALL)) == 0


@pytest.mark.parametrize("column", [0, 2, 4])
@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan, 3e38, 1e9])
def test_a_box_that_is_nowhere_takes_no_part_in_what_becomes_of_the_others(
    column: int, number: float
) -> None:
    heaps = np.zeros((6, 10), np.float32)
    heaps[:4] = np.float32([40, 40, 8, 8])[:, None] + np.arange(10, dtype=np.float32) / 100
    heaps[4, :5] = heaps[5, 5:] = 0.9 - np.arange(5, dtype=np.float32) / 10
    odd = np.float32([[10, 10, 8, 8, 0.65, 0]]).T
    odd[column] = number
    rows = np.concatenate((heaps, odd), axis=1)
    found = postprocess(rows, Head.ANCHOR_FREE, AS_IS, ALL)
    assert np.isfinite(found.boxes).all()
    assert np.isfinite(found.scores).all()
    kept = as_rows(found[np.isin(found.scores, heaps[4:])])
    expected = as_rows(postprocess(heaps, Head.ANCHOR_FREE, AS_IS, ALL))
    np.testing.assert_allclose(kept, expected)


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("number", [1e4, 1e5, 1e9, 3e38])
@pytest.mark.parametrize("corners", [slice(2, 4), slice(0, 4)], ids=["reaching there", "there"])
def test_a_box_far_away_leaves_the_others_as_they_are_whatever_their_classes(
    number: float, corners: slice, agnostic: bool
) -> None:
    rng = np.random.default_rng(0)
    centres = np.repeat(rng.uniform(20, 600, (20, 2)), 10, 0) + rng.uniform(-0.4, 0.4, (200, 2))
    boxes = np.concatenate((centres - 3, centres + 3), axis=1).astype(np.float32)
    scores = rng.uniform(0.3, 0.9, 200).astype(np.float32)
    found = Detections(boxes, scores, rng.choice([3, 79, 364, 600], 200))
    far = np.float32([[5, 5, 15, 15]])
    far[:, corners] += np.float32(number)
    beside = Detections(
        np.concatenate((boxes, far)),
        np.append(scores, np.float32(0.95)),
        np.append(found.classes, 600),
    )
    kept = suppress(beside, iou=0.5, limit=300, agnostic=agnostic)
    expected = suppress(found, iou=0.5, limit=300, agnostic=agnostic)
    np.testing.assert_array_equal(as_rows(kept)[1:], as_rows(expected))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("column", [0, 4, 5])
@pytest.mark.parametrize("number", [np.inf, np.nan])
def test_what_is_not_finite_is_no_object_of_an_end_to_end_head(column: int, number: float) -> None:
    output = np.tile(np.float32([0, 0, 10, 10, 0.5, 1]), (2, 1))
    output[0, column] = number
    assert len(postprocess(output, Head.END_TO_END, AS_IS, ALL)) == 1


@given(many_detections())
def test_iou_is_that_of_the_slow_one(found: Detections) -> None:
    expected = [[overlap(a, b) for b in found.boxes.tolist()] for a in found.boxes.tolist()]
    got = iou(found.boxes, found.boxes)
    np.testing.assert_allclose(got, np.reshape(expected, got.shape), rtol=1e-5)


def test_boxes_without_an_inside_suppress_nothing_as_in_the_reference() -> None:
    boxes = np.array([[10, 10, 10, 20], [10, 10, 10, 20], [30, 30, 20, 20]], np.float32)
    found = Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.zeros(3, np.int64))
    assert len(suppress(found, iou=0.7, limit=10)) == 3
