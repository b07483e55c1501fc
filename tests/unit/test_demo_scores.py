import numpy as np
import pytest

from demo.geometry import Detections, letterbox, pairwise_iou, read_output
from yoloserve.quality.scores import AreaRange, Truth, area_under, score

BOX = (0.0, 0.0, 10.0, 10.0)
FAR = (50.0, 50.0, 60.0, 60.0)


def seen(*rows: tuple[tuple[float, ...], float, int]) -> Detections:
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    scores = np.array([row[1] for row in rows], np.float32)
    return Detections(boxes, scores, np.array([row[2] for row in rows], np.int64))


def known(*rows: tuple[tuple[float, ...], int]) -> Truth:
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    return Truth(boxes, np.array([row[1] for row in rows], np.int64))


def test_finding_everything_exactly_scores_one():
    scores = score([seen((BOX, 0.9, 0), (FAR, 0.3, 1))], [known((BOX, 0), (FAR, 1))], 2)
    assert scores.map50 == pytest.approx(1)
    assert scores.map50_95 == pytest.approx(1)


def test_finding_nothing_scores_zero():
    scores = score([seen()], [known((BOX, 0))], 1)
    assert scores.map50 == 0


def test_a_class_without_objects_does_not_count():
    scores = score([seen((BOX, 0.9, 0), (BOX, 0.9, 1))], [known((BOX, 0))], 2)
    assert np.isnan(scores.table[1]).all()
    assert scores.map50 == pytest.approx(1)


def test_a_box_of_iou_08_counts_at_seven_of_ten_thresholds():
    # 8 of 10 columns: IoU 0.8, a hit at 0.50 to 0.80.
    scores = score([seen(((0, 0, 8, 10), 0.9, 0))], [known((BOX, 0))], 1)
    assert scores.map50 == pytest.approx(1)
    assert scores.map50_95 == pytest.approx(0.7)


def test_a_second_box_on_the_same_object_is_wrong():
    # Ranked hit, double, hit of two objects: precision 1 up to recall 0.5, 2/3 beyond it.
    found = seen((BOX, 0.9, 0), (BOX, 0.8, 0), (FAR, 0.7, 0))
    scores = score([found], [known((BOX, 0), (FAR, 0))], 1)
    assert scores.map50 == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_box_in_another_picture_or_of_another_class_is_wrong():
    pictures = [known((BOX, 0)), known()]
    assert score([seen(), seen((BOX, 0.9, 0))], pictures, 1).map50 == 0
    assert score([seen((BOX, 0.9, 1)), seen()], pictures, 2).map50 == 0


def test_confidence_orders_across_pictures():
    # The wrong box comes first: precision 1/2 at every recall.
    found = [seen((FAR, 0.9, 0)), seen((BOX, 0.5, 0))]
    assert score(found, [known(), known((BOX, 0))], 1).map50 == pytest.approx(0.5)


def test_objects_out_of_the_area_range_are_neither_hit_nor_miss():
    small = (0.0, 0.0, 4.0, 4.0)
    found = seen((BOX, 0.9, 0), (small, 0.8, 0), (FAR, 0.7, 0))
    truth = known((BOX, 0), ((20.0, 20.0, 24.0, 24.0), 0), (FAR, 0))
    # `small` hits nothing but is itself out of range; the object of 4x4 is not asked for.
    assert score([found], [truth], 1, AreaRange(50, 200)).map50 == pytest.approx(1)
    assert score([found], [truth], 1, AreaRange(0, 50)).map50 == 0


def test_area_under_the_curve_takes_the_best_precision_at_or_beyond_a_recall():
    # Precision 0, 1/2, 2/3 at recall 0, 1/2, 1: the envelope is 2/3 everywhere.
    assert area_under(np.array([False, True, True]), 2) == pytest.approx(2 / 3)
    assert area_under(np.array([True]), 4) == pytest.approx(26 / 101)
    assert area_under(np.array([], bool), 4) == 0


def test_iou_of_known_boxes():
    first = np.array([BOX, (0, 0, 5, 10)], np.float32)
    second = np.array([BOX, FAR, (5, 0, 15, 10)], np.float32)
    expected = [[1, 0, 1 / 3], [0.5, 0, 0]]
    np.testing.assert_allclose(pairwise_iou(first, second), expected, atol=1e-6)


def test_letterbox_carries_boxes_there_and_back():
    square, fit = letterbox(np.zeros((360, 640, 3), np.uint8))
    assert square.shape == (320, 320, 3)
    boxes = np.array([(0, 0, 640, 360), (100, 50, 200, 150)], np.float32)
    np.testing.assert_allclose(fit.into(boxes)[0], (0, 70, 320, 250))
    np.testing.assert_allclose(fit.back(fit.into(boxes)), boxes, atol=1e-4)


def test_reading_output_drops_doubles_of_a_class_and_keeps_other_classes():
    output = np.zeros((4 + 2, 3), np.float32)
    output[:4] = np.array([(5, 5, 10, 10), (5, 5, 10, 9), (5, 5, 10, 10)]).T
    output[4:] = [(0.9, 0.8, 0.0), (0.0, 0.0, 0.7)]
    found = read_output(output)
    assert found.classes.tolist() == [0, 1]
    np.testing.assert_allclose(found.boxes[0], BOX)
    np.testing.assert_allclose(found.scores, (0.9, 0.7))
