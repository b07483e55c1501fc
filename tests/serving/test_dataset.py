"""Reading labelled pictures in the layouts people have."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from yoloserve.errors import InvalidSettings
from yoloserve.quality.dataset import read, require_objects

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
    assert truth.crowds == ()
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


@pytest.mark.parametrize("name", ["classes.txt", "obj.names", "_darknet.labels", "data.yml"])
@pytest.mark.parametrize("where", [".", "labels", "labels/val", "images", "images/val"])
@pytest.mark.parametrize("asked", [".", "images", "images/val"])
def test_what_classes_are_called_is_read_where_annotation_tools_put_it(
    folder: Path, name: str, where: str, asked: str
) -> None:
    listed = "names: [star, circle]" if name == "data.yml" else "\ufeffstar\r\ncircle\r\n\r\n"
    (folder / where / name).write_text(listed)
    (folder / "labels" / "val" / "a.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    requires_the_star(read(folder / asked, NAMES))


def test_a_list_above_the_sets_of_a_folder_is_read_for_all_of_them(folder: Path) -> None:
    (folder / "labels" / "val" / "a.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    (folder / "one").mkdir()
    for part in ("images", "labels"):
        (folder / part).rename(folder / "one" / part)
    (folder / "classes.txt").write_text("star\n")
    requires_the_star(read(folder, NAMES))


def test_a_flat_set_lists_its_classes_beside_its_pictures(folder: Path) -> None:
    (flat := folder / "images" / "val" / "a.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    flat.with_name("b.txt").touch()
    (folder / "labels" / "val").rename(folder / "elsewhere")
    flat.with_name("classes.txt").write_text("star\n")
    for asked in (folder, folder / "images", folder / "images" / "val"):
        requires_the_star(read(asked, NAMES))
    flat.with_name("classes.txt").rename(folder / "obj.names")
    (folder / "train.txt").write_text("images/val/a.jpg\nimages/val/b.jpg\n")
    requires_the_star(read(folder / "train.txt", NAMES))


@pytest.mark.parametrize("split", ["train", "valid"])
def test_what_describes_all_splits_is_read_for_one_of_them(folder: Path, split: str) -> None:
    """Roboflow has train/images and train/labels beside one data.yaml."""
    (folder / split).mkdir()
    for part in ("images", "labels"):
        (folder / part / "val").rename(folder / split / part)
    (folder / split / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    (folder / "data.yaml").write_text("names: [star]\n")
    for asked in (folder / split, folder / split / "images"):
        requires_the_star(read(asked, NAMES))


def test_lists_of_classes_may_be_longer_than_others_and_contradict_none(folder: Path) -> None:
    (folder / "classes.txt").write_text("circle\nsquare\n")
    (longer := folder / "labels" / "val" / "classes.txt").write_text("circle\nsquare\nstar\n")
    requires_the_star(read(folder, NAMES))
    (folder / "data.yaml").write_text("{names: [circle, square, star], val: images/val}")
    longer.write_text("star\ncircle\nsquare\n")
    says = f"class 0 is 'circle' in {folder}/data.yaml, and 'star' in {longer}: "
    with pytest.raises(InvalidSettings, match=says):
        read(folder, NAMES)
    requires_the_star(read(folder / "data.yaml", NAMES))  # who names it means it


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("dog\n", "the model has no class 'dog'; it has: circle, square, star"),
        ("circle\n\nstar\n", "line 2 is empty, and its number would be that of the next class"),
    ],
)
def test_a_list_of_classes_that_cannot_be_meant_is_told_by_its_file(
    folder: Path, listed: str, message: str
) -> None:
    (file := folder / "labels" / "classes.txt").write_text(listed)
    with pytest.raises(InvalidSettings, match=f"{file}: {message}"):
        read(folder, NAMES)


def test_labels_of_a_picture_that_is_called_classes_are_no_list(folder: Path) -> None:
    for kind, suffix in (("images", ".jpg"), ("labels", ".txt")):
        (folder / kind / "val" / f"a{suffix}").rename(folder / kind / "val" / f"classes{suffix}")
    assert [each.classes.tolist() for each in read(folder, NAMES)] == [[], [2]]  # type: ignore[union-attr]


@pytest.mark.parametrize("misnamed", ["a.TXT", "A.txt"])
def test_labels_that_another_case_hides_are_told(folder: Path, misnamed: str) -> None:
    (label := folder / "labels" / "val" / "a.txt").rename(label.with_name(misnamed))
    with pytest.raises(InvalidSettings, match=f"{misnamed} is not read: call it a.txt"):
        read(folder, NAMES)


def test_labels_of_a_picture_are_its_own_whatever_the_case_of_another(folder: Path) -> None:
    pictures = folder / "images" / "val"
    (pictures / "b.jpg").rename(pictures / "A.jpg")
    (folder / "labels" / "val" / "a.txt").rename(folder / "labels" / "val" / "A.txt")
    assert [each.classes.tolist() for each in read(folder, NAMES)] == [[2], []]  # type: ignore[union-attr]


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
        ],
        "categories": [{"id": 91, "name": "star"}],
    }
    (folder / "annotations").mkdir()
    path = folder / "annotations" / "instances_val.json"
    path.write_text(json.dumps(told))
    for picture in (folder / "images" / "val").iterdir():
        picture.rename(folder / "images" / picture.name)
    requires_the_star(read(path, NAMES))


def test_a_crowd_of_coco_is_known_and_is_no_object(folder: Path) -> None:
    region = {"image_id": 7, "category_id": 1, "bbox": [0, 0, 99, 49], "iscrowd": 1}
    told = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 100, "height": 50}],
        "annotations": [region],
        "categories": [{"id": 1, "name": "star"}],
    }
    (path := folder / "images" / "val" / "instances.json").write_text(json.dumps(told))
    (picture,) = read(path, NAMES)
    assert picture.truth(100, 50).crowds == (0,)
    with pytest.raises(InvalidSettings, match="no picture of the set has an object"):
        require_objects([picture])


def test_pictures_without_labels_are_no_pictures_without_objects(folder: Path) -> None:
    plain = folder / "plain"
    (folder / "images" / "val").rename(plain)
    assert [each.classes for each in read(plain, NAMES)] == [None, None]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("3 0.5 0.5 0.1 0.1", "class 3 of 3"),
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5 of 3"),
        ("a.jpg is a star", "could not convert"),
        ("0 0.5 0.5 0.1 0.1 0.87", r"6 values, .*save_conf"),  # as `yolo predict` writes them
        ("0 0.4 0.3 0.6 0.5 0.5 0.7 0.87", r"8 values, .*save_conf"),
        ("0 0.5 0.5 0.1", "4 values"),
        ("0 0.4 0.3", "3 values"),
        ("0 nan 0.5 0.1 0.1", "not all of its numbers are finite"),
        ("inf 0.5 0.5 0.1 0.1", "not all of its numbers are finite"),
        ("0 320 240 64 48", "a box beyond its picture: YOLO's are shares"),
        ("0 0.5 0.5 -0.2 0.2", "a box beyond its picture"),
    ],
)
def test_labels_nobody_can_read_are_told(folder: Path, labels: str, message: str) -> None:
    (path := folder / "labels" / "val" / "a.txt").write_text(f"2 0.5 0.5 0.2 0.4\n{labels}")
    with pytest.raises(InvalidSettings, match=f"{path}, line 2: .*{message}"):
        read(folder, NAMES)


@pytest.mark.parametrize("beyond", ["2 0.904 0.5 0.2 1.004", "2 0.95 0.5 0.4 0.2"])
def test_a_box_may_end_beyond_its_picture(folder: Path, beyond: str) -> None:
    (folder / "labels" / "val" / "a.txt").write_text(f"{beyond}\n" + "2 0.5 0.5 0.2 0.2\n" * 9)
    assert read(folder, NAMES)[0].boxes[0, 2] > 1


def test_labels_that_are_corners_are_told(folder: Path) -> None:
    corners = [f"0 {x} {y} {x + 0.2:.1f} {y + 0.2:.1f}" for x in (0.1, 0.7) for y in (0.4, 0.7)]
    (folder / "labels" / "val" / "a.txt").write_text("\n".join(corners))
    with pytest.raises(InvalidSettings, match=r"4 boxes end outside .*a.jpg first: .*two corners"):
        read(folder, NAMES)


def test_what_roboflow_describes_is_found_as_the_public_package_finds_it(folder: Path) -> None:
    (described := folder / "data.yaml").write_text(
        "names: [circle, square, star]\ntrain: ../train/images\nval: ../images/val"
    )
    requires_the_star(read(described, NAMES))


def test_a_split_may_be_a_list_of_pictures(folder: Path) -> None:
    (folder / "val.txt").write_text(f"./images/val/a.jpg\n{folder}/images/val/b.jpg\n")
    (described := folder / "data.yaml").write_text("names: [circle, square, star]\nval: val.txt")
    requires_the_star(read(described, NAMES))
    (folder / "val.txt").write_text("images/val/c.jpg")
    with pytest.raises(InvalidSettings, match=r"cannot read .*images/val/c.jpg: No such file"):
        read(described, NAMES)


def test_a_flat_set_may_be_below_a_folder_called_images(folder: Path) -> None:
    (folder / "labels" / "val").rename(folder / "elsewhere")
    (flat := folder / "images" / "val").joinpath("a.txt").write_text("2 0.5 0.5 0.2 0.4")
    (flat / "b.txt").touch()
    requires_the_star(read(flat, NAMES))


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("names: [circle]", "it has no val, test or train"),
        ("names: [circle\nval: images", "data.yaml is no YAML: while parsing"),
        ("names: circle\nval: images", "data.yaml has no names: a list"),
        ("names: {one: circle}\nval: images", "invalid literal"),
        ("names: [circle]\nval: images/test", r"cannot read .*images/test: No such file"),
        ("names: [circle]\nval: [1]", "cannot be read as a data set"),
    ],
)
def test_a_description_nobody_can_read_is_told(folder: Path, told: str, message: str) -> None:
    (described := folder / "data.yaml").write_text(told)
    with pytest.raises(InvalidSettings, match=message):
        read(described, NAMES)


def test_a_class_the_model_does_not_have_is_told(folder: Path) -> None:
    (folder / "data.yaml").write_text("val: images/val\nnames: [dog]")
    with pytest.raises(InvalidSettings, match="no class 'dog'; it has: circle, square, star"):
        read(folder / "data.yaml", NAMES)


def test_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="no pictures"):
        read(tmp_path, NAMES)
    for absent in ("data.yaml", "absent"):
        with pytest.raises(InvalidSettings, match=f"cannot read {tmp_path}/{absent}: No such"):
            read(tmp_path / absent, NAMES)


@pytest.mark.parametrize(
    ("picture", "annotation"),
    [
        ({"width": 0}, {}),
        ({}, {"bbox": [40, float("nan"), 20, 20]}),
        ({}, {"category_id": 7}),
        ({}, {"bbox": [60, 15, -20, 20]}),
        ({}, {"bbox": []}),
        ({}, {"bbox": [0, 0, 9, 9] * 2}),
        ({"width": None}, {}),
        ({}, {"bbox": [60, 15, 80, 35]}),  # corners
        ({}, {"bbox": [-9, 15, 20, 20]}),  # beyond as well, as the only one
    ],
)
def test_a_coco_file_nobody_can_read_is_told(folder: Path, picture, annotation) -> None:
    told = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 100, "height": 50} | picture],
        "annotations": [{"image_id": 7, "category_id": 1, "bbox": [40, 15, 20, 20]} | annotation],
        "categories": [{"id": 1, "name": "star"}],
    }
    (path := folder / "images" / "val" / "instances.json").write_text(json.dumps(told))
    with pytest.raises(InvalidSettings, match=f"{path} cannot be read as a data set"):
        read(path, NAMES)


def test_a_coco_file_without_its_pictures_says_where_they_were_looked_for(folder: Path) -> None:
    told = {"images": [{"id": 7, "file_name": "c.jpg", "width": 1, "height": 1}], "categories": []}
    (path := folder / "labels" / "instances_val.json").write_text(
        json.dumps(told | {"annotations": []})
    )
    says = f"cannot read c.jpg: it is in none of {folder}/images, {folder}/labels, .*, {folder}/val"
    with pytest.raises(InvalidSettings, match=says):
        read(path, NAMES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 9}, "1 of its 2 annotations are of no picture .* image_id 9 first"),
        ({"image_id": "7"}, "1 of its 2 annotations .* image_id '7' first"),
        ({"images": 7}, "two of its images have id 7"),
        ({"categories": 1}, "two of its categories have id 1"),
    ],
)
def test_a_coco_file_that_says_of_nothing_or_of_two_is_told(folder: Path, change, message) -> None:
    other = {"image_id": 8, "category_id": 1, "bbox": [40, 15, 20, 20]}
    told = {
        "images": [
            {"id": at, "file_name": name, "width": 100, "height": 50}
            for at, name in ((7, "a.jpg"), (change.get("images", 8), "b.jpg"))
        ],
        "annotations": [other | {"image_id": 7}, other | change],
        "categories": [
            {"id": 1, "name": "star"},
            {"id": change.get("categories", 2), "name": "circle"},
        ],
    }
    (path := folder / "images" / "val" / "instances.json").write_text(json.dumps(told))
    with pytest.raises(InvalidSettings, match=f"{path} cannot be read as a data set: {message}"):
        read(path, NAMES)
