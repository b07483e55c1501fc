"""Reading labelled pictures in the layouts people have."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from yoloserve.errors import InvalidSettings
from yoloserve.quality.dataset import read

NAMES = ("circle", "square", "star")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures of 100 x 50, the first of which has a star in its middle."""
    for kind in ("images", "labels"):
        (tmp_path / kind / "val").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        cv2.imwrite(str(tmp_path / "images" / "val" / name), np.zeros((50, 100, 3), np.uint8))
    (tmp_path / "labels" / "val" / "a.txt").write_text("2 0.5 0.5 0.2 0.4\n")
    return tmp_path


def requires_the_star(found) -> None:
    first, second = found
    truth = first.truth(100, 50)
    np.testing.assert_allclose(truth.boxes, [[40, 15, 60, 35]], atol=1e-4)
    assert truth.classes.tolist() == [2]
    assert second.path.name == "b.jpg"
    assert second.classes is not None
    assert len(second.classes) == 0


def test_a_folder_of_images_has_its_labels_beside_it(folder: Path) -> None:
    requires_the_star(read(folder, NAMES))


@pytest.mark.parametrize("names", [["star", "circle"], {0: "star"}])
def test_a_description_names_its_classes(folder: Path, names) -> None:
    (folder / "labels" / "val" / "a.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    told = {"train": "images/train", "val": "images/val", "names": names}
    (folder / "data.yaml").write_text(json.dumps(told) if isinstance(names, list) else str(told))
    requires_the_star(read(folder / "data.yaml", NAMES))


def test_a_polygon_is_the_box_around_it(folder: Path) -> None:
    polygon = "2 0.4 0.3 0.6 0.5 0.5 0.7\n"
    (folder / "labels" / "val" / "a.txt").write_text(polygon)
    requires_the_star(read(folder, NAMES))


def test_coco_names_its_categories_and_boxes_in_pixels(folder: Path) -> None:
    told = {
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 100, "height": 50},
            {"id": 8, "file_name": "b.jpg", "width": 100, "height": 50},
        ],
        "annotations": [
            {"image_id": 7, "category_id": 91, "bbox": [40, 15, 20, 20]},
            {"image_id": 8, "category_id": 91, "bbox": [0, 0, 99, 49], "iscrowd": 1},
        ],
        "categories": [{"id": 91, "name": "star"}],
    }
    (folder / "annotations").mkdir()
    path = folder / "annotations" / "instances_val.json"
    path.write_text(json.dumps(told))
    for picture in (folder / "images" / "val").iterdir():
        picture.rename(folder / "images" / picture.name)
    requires_the_star(read(path, NAMES))


def test_pictures_without_labels_are_no_pictures_without_objects(folder: Path) -> None:
    plain = folder / "plain"
    (folder / "images" / "val").rename(plain)
    assert [each.classes for each in read(plain, NAMES)] == [None, None]


@pytest.mark.parametrize(
    ("labels", "message"),
    [("3 0.5 0.5 0.1 0.1", "class 3 of 3"), ("a.jpg is a star", "cannot be read")],
)
def test_labels_nobody_can_read_are_told(folder: Path, labels: str, message: str) -> None:
    (folder / "labels" / "val" / "a.txt").write_text(labels)
    with pytest.raises(InvalidSettings, match=message):
        read(folder, NAMES)


def test_a_class_the_model_does_not_have_is_told(folder: Path) -> None:
    (folder / "data.yaml").write_text("val: images/val\nnames: [dog]")
    with pytest.raises(InvalidSettings, match="no class 'dog'; it has: circle, square, star"):
        read(folder / "data.yaml", NAMES)


def test_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="no pictures"):
        read(tmp_path, NAMES)
    with pytest.raises(InvalidSettings, match=r"cannot read .*data\.yaml"):
        read(tmp_path / "data.yaml", NAMES)
