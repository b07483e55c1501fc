"""Pairing the objects of two answers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yoloserve.detections.postprocess import Detections, Head, Options, postprocess
from yoloserve.images.letterbox import Letterbox
from yoloserve.quality.agreement import MARGIN, Agreement, agreement, comparable

BOX, NEAR, FAR = (0, 0, 100, 100), (0, 0, 100, 96), (500, 500, 600, 600)


def seen(*rows: tuple[tuple[int, ...], float, int]) -> Detections:
    boxes = np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score, _ in rows], np.float32)
    return Detections(boxes, scores, np.array([kind for _, _, kind in rows], np.int64))


def judged(found: Detections, expected: Detections) -> Agreement:
    return agreement(found, expected, confidence=0.25)


def test_the_same_answer_agrees_wholly() -> None:
    same = seen((BOX, 0.9, 0), (FAR, 0.5, 1))
    assert judged(same, same) == Agreement(both=2, worst_iou=1.0)
    assert judged(same, same).f1 == 1


def test_nothing_agrees_with_nothing() -> None:
    assert judged(seen(), seen()).f1 == 1


def test_how_far_pairs_are_apart_is_told() -> None:
    told = judged(seen((NEAR, 0.8, 0)), seen((BOX, 0.9, 0)))
    assert told.both == 1
    assert told.worst_iou == pytest.approx(0.96)
    assert told.worst_score == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("found", "expected", "missing", "extra"),
    [
        (seen(), seen((BOX, 0.9, 0)), 1, 0),
        (seen((BOX, 0.9, 0)), seen(), 0, 1),
        (seen((BOX, 0.9, 1)), seen((BOX, 0.9, 0)), 1, 1),
        (seen((FAR, 0.9, 0)), seen((BOX, 0.9, 0)), 1, 1),
        (seen((BOX, 0.9, 0), (NEAR, 0.8, 0)), seen((BOX, 0.9, 0)), 0, 1),
    ],
)
def test_what_only_one_of_them_saw_is_counted(found, expected, missing: int, extra: int) -> None:
    told = judged(found, expected)
    assert (told.missing, told.extra) == (missing, extra)


def test_a_score_on_either_side_of_the_threshold_is_no_difference() -> None:
    told = judged(seen((BOX, 0.249, 0)), seen((BOX, 0.251, 0)))
    assert (told.both, told.missing, told.extra) == (1, 0, 0)
    assert judged(seen((BOX, 0.249, 0)), seen()) == Agreement()


def test_an_object_of_no_area_is_paired_with_its_like() -> None:
    line, other = (10, 0, 90, 0), (10, 0, 80, 0)
    assert judged(seen((line, 0.9, 0)), seen((line, 0.9, 0))) == Agreement(both=1)
    assert judged(seen((line, 0.9, 0)), seen((other, 0.9, 0))).missing == 1
    assert judged(seen((line, 0.9, 1)), seen((line, 0.9, 0))).extra == 1


def test_each_object_is_paired_with_the_closest() -> None:
    told = judged(seen((NEAR, 0.9, 0), (BOX, 0.8, 0)), seen((BOX, 0.8, 0), (NEAR, 0.9, 0)))
    assert (told.both, told.worst_iou, told.worst_score) == (2, 1.0, 0.0)


def test_of_boxes_that_are_all_but_the_same_those_of_like_scores_are_paired() -> None:
    near = (0, 0, 100, 99.99)
    told = judged(seen((BOX, 0.9, 0), (near, 0.5, 0)), seen((BOX, 0.5, 0), (near, 0.9, 0)))
    assert (told.both, told.worst_score) == (2, 0.0)


def test_pictures_add_up() -> None:
    total = Agreement(1, 2, 3, 0.9, 0.1) + Agreement(4, 0, 0, 0.8, 0.2)
    assert total == Agreement(5, 2, 3, 0.8, 0.2)
    assert total.f1 == pytest.approx(10 / 15)


@given(
    st.integers(0, 2**32),
    st.sampled_from([Head.ANCHOR_FREE_ROWS, Head.END_TO_END]),
    st.integers(1, 12),
    st.booleans(),
)
def test_a_comparable_answer_holds_the_answer_itself_and_what_is_just_below(
    seed: int, head: Head, most: int, agnostic: bool
) -> None:
    """So a server that compares looks once: the caller gets the sure ones, the judge all."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.2, 0.3, (40, 3))
    output = np.concatenate((rng.uniform(1, 60, (40, 4)), scores), axis=1).astype(np.float32)
    if head is Head.END_TO_END:
        output[:, :4] = np.sort(output[:, :4])
        output[:, 5] = rng.integers(0, 3, 40)
    asked = Options(0.25, 0.5, most, agnostic_nms=agnostic)
    fit = Letterbox(gain_x=1, gain_y=1, left=0, top=0, width=100, height=100)
    answer = postprocess(output, head, fit, asked)
    wide = postprocess(output, head, fit, comparable(asked))
    sure = wide[wide.scores > asked.confidence]
    assert sure.boxes.tolist() == answer.boxes.tolist()
    assert sure.scores.tolist() == answer.scores.tolist()
    assert sure.classes.tolist() == answer.classes.tolist()
    assert (wide.scores > asked.confidence - MARGIN).all()
