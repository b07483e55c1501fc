"""How the answers of two revisions for one picture are compared."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yoloserve.detections.postprocess import Detections
from yoloserve.shadow.pairs import NEARLY, SURE, Difference, Found, difference

NAMES = ("circle", "square", "star")
CIRCLE, SQUARE, STAR = 0, 1, 2
BOX, NEAR, FAR = (0, 0, 100, 100), (0, 0, 100, 90), (500, 500, 560, 560)
SURELY, PERHAPS, HARDLY = 0.9, 0.3, 0.21  # under a threshold of 0.25


def found(
    *rows: tuple[tuple[int, ...], float, int],
    names: tuple[str, ...] = NAMES,
    confidence: float = 0.25,
) -> Found:
    boxes = np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score, _ in rows], np.float32)
    kinds = np.array([kind for _, _, kind in rows], np.int64)
    return Found(Detections(boxes, scores, kinds), names, confidence, 0.01)


def test_the_same_answer_keeps_all() -> None:
    same = found((BOX, SURELY, CIRCLE), (FAR, SURELY, STAR), (NEAR, PERHAPS, SQUARE))
    told = difference(same, same)
    assert told.expected == told.kept == {("circle", "large"): 1, ("star", "medium"): 1}
    assert told.sure == {"circle": 1, "star": 1}
    assert (told.confused, told.blind) == ({}, False)


def test_a_canary_that_finds_nothing_is_blind_where_stable_is_sure_of_something() -> None:
    told = difference(found((BOX, SURELY, CIRCLE)), found())
    assert (told.expected.total(), told.kept.total(), told.blind) == (1, 0, True)
    assert difference(found((BOX, PERHAPS, CIRCLE)), found()).blind is None
    assert difference(found((BOX, SURELY, CIRCLE)), found((FAR, HARDLY, STAR))).blind is False
    assert difference(found((BOX, SURELY, CIRCLE)), found((BOX, 0.19, CIRCLE))).blind is True


def test_what_is_there_as_another_class_is_lost_and_told() -> None:
    told = difference(
        found((BOX, SURELY, CIRCLE), (FAR, SURELY, SQUARE)),
        found((NEAR, SURELY, SQUARE), (FAR, SURELY, CIRCLE)),
    )
    assert told.kept.total() == 0
    assert told.confused == {("circle", "square"): 1, ("square", "circle"): 1}
    assert told.sure == {"circle": 1, "square": 1}  # of which none is kept: all are added


def test_one_object_that_has_two_classes_is_kept_not_confused() -> None:
    told = difference(
        found((BOX, SURELY, CIRCLE)), found((BOX, SURELY, SQUARE), (BOX, PERHAPS, CIRCLE))
    )
    assert told.kept.total() == 1
    assert told.confused == {}


def test_boxes_that_lie_elsewhere_are_lost_and_added() -> None:
    told = difference(found((BOX, SURELY, CIRCLE)), found((FAR, SURELY, CIRCLE)))
    assert (told.expected.total(), told.kept.total(), told.sure["circle"]) == (1, 0, 1)


@pytest.mark.parametrize(
    ("stable", "canary", "expected", "kept", "sure"),
    [
        (SURELY, HARDLY, 1, 1, 1),  # the canary need not be as sure
        (PERHAPS, SURELY, 0, 0, 0),  # nor does stable: what it nearly saw is not added
        (HARDLY, SURELY, 0, 0, 0),
        (0.19, SURELY, 0, 0, 1),
        (PERHAPS, 0.19, 0, 0, 0),
    ],
)
def test_what_moves_about_the_threshold_is_no_difference(
    stable: float, canary: float, expected: int, kept: int, sure: int
) -> None:
    told = difference(found((BOX, stable, CIRCLE)), found((BOX, canary, CIRCLE)))
    assert (told.expected.total(), told.kept.total(), told.sure.total()) == (expected, kept, sure)


def test_each_revision_is_read_by_its_own_threshold() -> None:
    stable = found((BOX, SURELY, CIRCLE), confidence=0.5)
    assert difference(stable, found((BOX, 0.3, CIRCLE), confidence=0.3)).kept.total() == 1
    assert difference(stable, found((BOX, 0.3, CIRCLE), confidence=0.5)).kept.total() == 0


@pytest.mark.parametrize(
    ("confidence", "sure", "hardly"),
    [
        (0.0, 0.16, 0.01),
        (0.02, 0.18, 0.011),
        (0.25, 0.41, 0.201),
        (0.7, 0.851, 0.651),
        (0.8, 0.901, 0.751),
        (0.85, 0.93, 0.801),
        (0.9, 0.96, 0.851),
        (0.99, 0.996, 0.941),
    ],
)
def test_at_any_threshold_there_are_scores_that_are_sure_and_some_that_are_nothing(
    confidence: float, sure: float, hardly: float
) -> None:
    def scored(score: float) -> Found:
        return found((BOX, score, CIRCLE), confidence=confidence)

    told = difference(scored(sure), scored(hardly))
    assert (told.expected.total(), told.kept.total(), told.sure.total()) == (1, 1, 1)
    told = difference(scored(sure - 0.02), scored(hardly))
    assert (told.expected.total(), told.blind) == (0, None)
    if confidence:
        lost = difference(scored(sure), scored(max(hardly - 0.002, 0.0001)))
        assert (lost.expected.total(), lost.kept.total(), lost.blind) == (1, 0, True)
    added = difference(found(confidence=confidence), scored(sure))
    assert added.sure.total() == 1


def test_a_box_that_stable_is_not_sure_of_takes_no_counterpart_from_one_that_it_is() -> None:
    stable = found((BOX, SURELY, CIRCLE), (NEAR, HARDLY, CIRCLE))
    told = difference(stable, found((NEAR, SURELY, CIRCLE)))
    assert (told.kept.total(), told.sure["circle"]) == (1, 1)


def test_classes_are_told_by_name_whatever_their_numbers_are() -> None:
    stable = found((BOX, SURELY, CIRCLE))
    turned = found((BOX, SURELY, 2), names=("star", "square", "circle"))
    assert difference(stable, turned).kept == {("circle", "large"): 1}


def test_a_class_that_only_one_model_knows_is_neither_kept_nor_lost() -> None:
    stable = found((BOX, SURELY, CIRCLE), (FAR, SURELY, STAR))
    canary = found((BOX, SURELY, 0), (FAR, SURELY, 1), names=("circle", "comet"))
    told = difference(stable, canary)
    assert told.expected == told.kept == {("circle", "large"): 1}
    assert told.sure == {"circle": 1}
    assert (told.only_stable, told.only_canary) == ({"star": 1}, {"comet": 1})
    assert told.confused == {}


def test_two_classes_of_one_name_are_one() -> None:
    twice = ("circle", "square", "circle")
    told = difference(found((BOX, SURELY, 2), names=twice), found((BOX, SURELY, CIRCLE)))
    assert told.kept == {("circle", "large"): 1}


def test_sizes_are_those_of_stable_s_boxes_in_pixels_of_the_picture() -> None:
    told = difference(
        found(
            ((0, 0, 31, 31), SURELY, CIRCLE),
            ((200, 0, 232, 32), SURELY, CIRCLE),
            ((400, 0, 496, 96), SURELY, CIRCLE),
        ),
        found(((0, 0, 33, 33), SURELY, CIRCLE)),
    )
    assert list(told.expected) == [("circle", size) for size in ("small", "medium", "large")]
    assert told.kept == {("circle", "small"): 1}


SCORES = st.sampled_from([0.1, HARDLY, PERHAPS, 0.5, SURELY])
CORNERS = st.sampled_from([(x, y, x + w, y + w) for x in (0, 40) for y in (0, 40) for w in (8, 60)])
ANSWERS = st.lists(st.tuples(CORNERS, SCORES, st.integers(0, 2)), max_size=8)


@given(ANSWERS)
def test_any_answer_keeps_all_of_itself(rows) -> None:
    same = found(*rows)
    told = difference(same, same)
    assert told.kept == told.expected
    assert told.confused == {}
    assert told.blind is (None if not told.expected else False)


@given(ANSWERS, ANSWERS, st.permutations(range(3)))
def test_counts_agree_with_each_other_and_know_no_numbers_of_classes(ours, theirs, order) -> None:
    stable, canary = found(*ours), found(*theirs)
    told = difference(stable, canary)
    sure = [score for _, score, _ in ours if score >= 0.25 + SURE]
    assert told.expected.total() == len(sure)
    assert told.kept <= told.expected
    by_name = Counter[str]()
    for (name, _), count in told.kept.items():
        by_name[name] += count
    assert by_name <= told.sure
    lost = told.expected.total() - told.kept.total()
    assert told.confused.total() <= lost
    if told.blind:
        assert told.kept.total() == 0
        assert not any(score >= 0.25 - NEARLY for _, score, _ in theirs)
    names = tuple(NAMES[at] for at in order)
    moved = found(*((box, score, order.index(at)) for box, score, at in theirs), names=names)
    assert _counts(difference(stable, moved)) == _counts(told)


def _counts(told: Difference) -> tuple[object, ...]:
    return told.expected, told.kept, told.confused, told.sure, told.blind
