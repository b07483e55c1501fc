"""Writes drawn pictures and their known objects as files: examples, and the server's probe."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from demo.evaluate import Runner
from demo.geometry import pairwise_iou
from demo.pictures import CLEAR, HARD, Image, Picture, draw
from demo.shapes import NAMES

EXAMPLES, PROBES = 3, 4  # splits of their own, beside those of the dataset
EXAMPLE_SIZES = ((640, 480), (1280, 720), (480, 640), (800, 600), (1024, 768), (960, 540))
PROBE_SIZE = (640, 480)
QUALITY = 88  # of JPEG
PROBE_BYTES = 60_000  # it is part of every image and wheel
SURE, TIGHT = 0.6, 0.8  # asked of a probe picture, above what the server asks of it at start


def write_examples(folder: Path, count: int, first: int) -> None:
    """Write pictures, clear and hard ones in turn, and `labels.json` with their objects."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = {}
    for number in range(count):
        recipe = HARD if number % 2 else CLEAR
        size = EXAMPLE_SIZES[number % len(EXAMPLE_SIZES)]
        picture = draw(EXAMPLES, first + number, recipe, size)
        name = f"shapes-{number + 1}.jpg"
        (folder / name).write_bytes(encoded(picture.image))
        labels[name] = {"width": size[0], "height": size[1], "objects": known_objects(picture)}
    (folder / "labels.json").write_text(json.dumps(labels, indent=1) + "\n")


def write_probe(models: Sequence[Path], folder: Path) -> int:
    """Write `probe.jpg` and `probe.json`: the first picture in which every model is sure.

    Returns the index of that picture. At start the server looks for these objects, and refuses
    to serve a model that does not see them.
    """
    runners = [Runner(path) for path in models]
    for index in range(1000):
        picture = draw(PROBES, index, CLEAR, PROBE_SIZE)
        data = encoded(picture.image)
        image = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), np.uint8)
        varied = len(set(picture.classes.tolist())) == len(picture.classes) >= 5
        small = len(data) < PROBE_BYTES
        if varied and small and all(sees_all(runner, image, picture) for runner in runners):
            (folder / "probe.jpg").write_bytes(data)
            known = known_objects(picture)
            (folder / "probe.json").write_text(json.dumps(known, indent=1) + "\n")
            return index
    raise LookupError("no picture in 1000 in which every model finds every object")


def sees_all(runner: Runner, image: Image, picture: Picture) -> bool:
    """Tell whether the model finds each object, and nothing else, with confidence to spare."""
    found = runner.find(image, confidence=0.25)
    if len(found.scores) != len(picture.classes) or found.scores.min() < SURE:
        return False
    fits = pairwise_iou(picture.boxes, found.boxes) >= TIGHT
    same = picture.classes[:, None] == found.classes
    return bool((fits & same).any(1).all())


def known_objects(picture: Picture) -> list[dict[str, object]]:
    """Return the objects of a picture as the server's answers name them."""
    return [
        {"name": NAMES[kind], "box": dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))}
        for kind, box in zip(picture.classes.tolist(), picture.boxes.tolist(), strict=True)
    ]


def encoded(image: Image) -> bytes:
    """Return the image as JPEG."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return data.tobytes()
