import numpy as np
import pytest

from demo.pictures import CLEAR, HARD, MIN_VISIBLE, NOBODY, Picture, draw, stamp_of
from demo.shapes import NAMES, SHAPES

SEEDS = range(30)


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    return [draw(77, index) for index in SEEDS]


def test_the_same_seed_draws_the_same_picture():
    first, second = draw(77, 5), draw(77, 5)
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.boxes, second.boxes)
    np.testing.assert_array_equal(first.classes, second.classes)


@pytest.mark.parametrize(("split", "index"), [(77, 6), (78, 5)])
def test_another_seed_draws_another_picture(split: int, index: int):
    one, other = draw(77, 5, size=(320, 240)), draw(split, index, size=(320, 240))
    assert (one.image != other.image).mean() > 0.5


def test_boxes_lie_inside_the_picture(pictures: list[Picture]):
    for picture in pictures:
        height, width = picture.image.shape[:2]
        assert (picture.boxes >= 0).all()
        assert (picture.boxes[:, 2:] <= (width, height)).all()
        assert (picture.boxes[:, 2:] > picture.boxes[:, :2]).all()


def test_boxes_are_tight_around_the_pixels_an_object_owns(pictures: list[Picture]):
    for picture in pictures:
        for number, box in enumerate(picture.boxes.astype(int)):
            rows, columns = np.nonzero(picture.owner == number)
            measured = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert tuple(box) == measured


def test_every_object_keeps_most_of_its_pixels_when_others_cover_it(pictures: list[Picture]):
    owners = [owner for picture in pictures for owner in np.unique(picture.owner) if owner >= 0]
    assert len(owners) == sum(len(picture.classes) for picture in pictures)
    assert MIN_VISIBLE > 0.5


def test_object_pixels_are_where_the_picture_changes_colour():
    picture = draw(77, 3, CLEAR)
    plain = picture.image.astype(float)
    for number in range(len(picture.classes)):
        x1, y1, x2, y2 = picture.boxes[number].astype(int)
        around = np.zeros(picture.owner.shape, bool)
        around[max(y1 - 4, 0) : y2 + 4, max(x1 - 4, 0) : x2 + 4] = True
        inside = plain[picture.owner == number].mean(0)
        outside = plain[around & (picture.owner == NOBODY)].mean(0)
        assert np.abs(inside - outside).max() > 15


def test_sizes_classes_and_pictures_without_objects_all_occur():
    many = [draw(79, index) for index in range(80)]
    shapes = {picture.image.shape[:2] for picture in many}
    assert any(height > width for height, width in shapes)
    assert any(height < width for height, width in shapes)
    assert {kind for picture in many for kind in picture.classes.tolist()} == set(range(len(NAMES)))
    assert any(len(picture.classes) == 0 for picture in many)


def test_clear_pictures_have_objects_that_do_not_touch():
    for index in SEEDS:
        picture = draw(77, index, CLEAR, (640, 480))
        low, high = CLEAR.objects
        assert low - 2 <= len(picture.classes) <= high
        assert HARD.overlap
        for number, kind in enumerate(picture.classes):
            x1, y1, x2, y2 = picture.boxes[number]
            assert 0 < x1 < x2 < 640, NAMES[kind]
            assert 0 < y1 < y2 < 480, NAMES[kind]


@pytest.mark.parametrize("name", NAMES)
def test_a_shape_is_closed_and_fills_a_fair_part_of_its_box(name: str):
    contours = [40 * contour + 50 for contour in SHAPES[name](np.random.default_rng(0))]
    stamp = stamp_of(contours, 100, 100)
    assert stamp is not None
    rows, columns = np.nonzero(stamp.solid)
    box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert 0.2 < stamp.full_area / box <= 1
    assert stamp.full_area == stamp.solid.sum()


def test_a_ring_has_a_hole():
    contours = [40 * contour + 50 for contour in SHAPES["ring"](np.random.default_rng(0))]
    stamp = stamp_of(contours, 100, 100)
    assert stamp is not None
    middle = (50 - stamp.rows.start, 50 - stamp.columns.start)
    assert stamp.alpha[middle] == 0


def test_a_shape_outside_the_picture_leaves_no_stamp():
    contours = [40 * contour + 500 for contour in SHAPES["star"](np.random.default_rng(0))]
    assert stamp_of(contours, 100, 100) is None
