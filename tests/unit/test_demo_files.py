import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from demo.labels import EXAMPLE_SIZES, EXAMPLES, PROBE_SIZE
from demo.pictures import CLEAR, HARD, draw
from demo.shapes import NAMES

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "serving_image" / "yoloserve" / "bundled"
IMAGES = ROOT / "examples" / "images"


@pytest.mark.parametrize(("name", "version"), [("shapes", "1.0.0"), ("shapes-v2", "2.0.0")])
def test_a_bundled_model_says_what_it_is(name: str, version: str):
    model = onnx.load(MODELS / f"{name}.onnx")
    facts = {prop.key: prop.value for prop in model.metadata_props}
    assert facts["names"] == str(dict(enumerate(NAMES)))
    assert facts["version"] == version
    assert facts["imgsz"] == "[320, 320]"
    assert (facts["stride"], facts["task"]) == ("32", "detect")
    assert facts["license"] == "Apache-2.0"


@pytest.mark.parametrize("name", ["shapes", "shapes-v2"])
def test_a_bundled_model_is_small_enough_for_a_repository(name: str):
    for ending in ("onnx", "torchscript"):
        assert (MODELS / f"{name}.{ending}").stat().st_size < 6_000_000


def test_the_probe_shows_several_kinds_of_objects_inside_it():
    image = cv2.imread(str(MODELS / "probe.jpg"))
    assert image is not None
    width, height = PROBE_SIZE
    assert image.shape == (height, width, 3)
    known = json.loads((MODELS / "probe.json").read_text())
    assert len({entry["name"] for entry in known}) >= 4
    assert {entry["name"] for entry in known} <= set(NAMES)
    for entry in known:
        box = entry["box"]
        assert 0 <= box["x1"] < box["x2"] <= width
        assert 0 <= box["y1"] < box["y2"] <= height


def test_the_examples_are_the_pictures_the_generator_draws():
    labels = json.loads((IMAGES / "labels.json").read_text())
    assert set(labels) == {path.name for path in IMAGES.glob("*.jpg")}
    for number, (name, label) in enumerate(labels.items()):
        size = EXAMPLE_SIZES[number]
        drawn = draw(EXAMPLES, number, HARD if number % 2 else CLEAR, size)
        boxes = [
            [entry["box"][side] for side in ("x1", "y1", "x2", "y2")] for entry in label["objects"]
        ]
        np.testing.assert_array_equal(np.array(boxes).reshape(-1, 4), drawn.boxes)
        assert [entry["name"] for entry in label["objects"]] == [NAMES[k] for k in drawn.classes]
        # JPEG changes pixels a little, and its decoders differ by a rounding.
        stored = cv2.imread(str(IMAGES / name))
        assert stored is not None
        assert np.abs(stored.astype(int) - drawn.image).mean() < 12
