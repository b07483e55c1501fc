"""The pictures to compare on: what comes with the repository, and sizes that are hard to fit."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from demo.dataset import HELD_BACK, PLAIN
from demo.pictures import DENSE, HARD, Picture, Recipe, draw
from demo.shapes import NAMES

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples" / "images").glob("*.jpg"))
# Width and height: odd, square, as large as the network, thin, and three whose sides are rounded:
# at 320 the heights are 128.3 (down to a multiple of 32), 96.4 and 179.9 pixels of the tensor.
SIZES = (
    *((333, 517), (500, 500), (320, 320), (1279, 719), (900, 60), (60, 900)),
    *((1000, 401), (1003, 302), (1366, 768)),
)
QUALITY = 95


def hard_to_fit(folder: Path) -> list[Path]:
    """Draw a picture of each size; every other one is a PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, size in enumerate(SIZES):
        path = folder / f"{size[0]}x{size[1]}.{'png' if number % 2 else 'jpg'}"
        _write(path, draw(HELD_BACK, number, DENSE, size).image)
        paths.append(path)
    return paths


def labelled(
    folder: Path,
    count: int,
    *,
    split: int = HELD_BACK,
    recipe: Recipe = HARD,
    size: tuple[int, int] | None = None,
) -> Path:
    """Draw a data set in YOLO's layout, of one split, and return its folder."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture = draw(split, number, recipe, size)
        _write(folder / "images" / f"{number:05}.jpg", picture.image)
        (folder / "labels" / f"{number:05}.txt").write_text(_lines(picture))
    return folder


def training_set(folder: Path, count: int, side: int) -> Path:
    """Draw pictures full of shapes, some of them to validate by; return their `data.yaml`."""
    labelled(folder / "train", count, split=PLAIN, recipe=DENSE, size=(side, side))
    labelled(folder / "val", 16, recipe=DENSE, size=(side, side))
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(NAMES))
    told = folder / "data.yaml"
    told.write_text(f"path: {folder}\ntrain: train/images\nval: val/images\nnames:\n{names}")
    return told


def _lines(picture: Picture) -> str:
    height, width = picture.image.shape[:2]
    sides = np.array((width, height, width, height), np.float64)
    lines = []
    for kind, box in zip(picture.classes.tolist(), picture.boxes / sides, strict=True):
        x1, y1, x2, y2 = box.tolist()
        lines.append(f"{kind} {(x1 + x2) / 2:.6f} {(y1 + y2) / 2:.6f} {x2 - x1:.6f} {y2 - y1:.6f}")
    return "\n".join(lines)


def _write(path: Path, image: npt.NDArray[np.uint8]) -> None:
    options: Sequence[int] = [cv2.IMWRITE_JPEG_QUALITY, QUALITY] if path.suffix == ".jpg" else []
    cv2.imwrite(str(path), image, options)
