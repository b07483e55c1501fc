"""Pictures with known objects, in the layouts people have: YOLO's folders and COCO's JSON."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from errno import ENOENT
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yoloserve.errors import InvalidSettings
from yoloserve.quality.scores import Truth

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
SPLITS = "val", "test", "train"
BEYOND = 0.01  # of a side, that rounding may take labels outside
MOST_BEYOND = 0.1  # of all boxes
Corners = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Labelled:
    """One picture, and what is in it; without labels, `classes` is none."""

    path: Path
    boxes: NDArray[np.float32]  # (N, 4), x1 y1 x2 y2 in shares of the picture's sides
    classes: NDArray[np.int64] | None
    crowds: tuple[int, ...] = ()  # rows that are regions of many objects: COCO's `iscrowd`

    def encoded(self) -> bytes:
        """Read it; raise `InvalidSettings` if that cannot be."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise InvalidSettings(f"cannot read {self.path}: {error.strerror}") from error

    def truth(self, width: int, height: int) -> Truth:
        """Return the objects in pixels."""
        known = np.empty(0, np.int64) if self.classes is None else self.classes
        boxes = self.boxes * np.array([width, height, width, height], np.float32)
        return Truth(boxes, known, self.crowds)


def read(path: Path, names: Sequence[str]) -> list[Labelled]:
    """Read a set: COCO's JSON, YOLO's `data.yaml`, or a folder of pictures with or without labels.

    names: the model's classes; categories of the set are found among them by name. Raises
    `InvalidSettings` for what cannot be read or names other classes.
    """
    try:
        if path.suffix == ".json":
            found = list(_coco(path, names))
        elif path.suffix in (".yaml", ".yml"):
            found = list(_described(path, names))
        else:
            found = list(_yolo(path, _listed(path, names)))
        _require_sizes(found)
    except OSError as error:
        raise InvalidSettings(f"cannot read {error.filename}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        why = str(error) if isinstance(error, ValueError) else repr(error)
        raise InvalidSettings(f"{path} cannot be read as a data set: {why}") from error
    if not found:
        raise InvalidSettings(f"there are no pictures in {path}")
    return found


def _require_sizes(pictures: Sequence[Labelled]) -> None:
    """Raise ValueError where corners were read as sizes.

    Then half of the boxes or more end outside of their pictures. Else few do: objects go on there.
    """
    beyond = [(np.abs(each.boxes - 0.5) > 0.5 + BEYOND).any(axis=1) for each in pictures]
    count = sum(map(np.count_nonzero, beyond))
    if count > MOST_BEYOND * sum(map(len, beyond)):
        first = next(each.path for each, out in zip(pictures, beyond, strict=True) if out.any())
        raise ValueError(
            f"{count} boxes end outside of their pictures, in {first} first: a box is its centre, "
            "or with COCO its first corner, and its width and height, and not two corners"
        )


def require_objects(pictures: Sequence[Labelled]) -> None:
    """Raise `InvalidSettings` where nothing can be measured: without labels, or any object."""
    if unknown := [each.path for each in pictures if each.classes is None]:
        more = f", and {len(unknown) - 1} more" if unknown[1:] else ""
        label = unknown[0].with_suffix(".txt").name
        raise InvalidSettings(f"{unknown[0]} has no labels{more}: add {label}, empty for no object")
    if not any(len(each.boxes) > len(each.crowds) for each in pictures):
        raise InvalidSettings("no picture of the set has an object in it: nothing is measured")


def _yolo(path: Path, numbers: Mapping[int, int]) -> Iterator[Labelled]:
    for picture in _pictures(path):
        yield _labelled(picture, numbers)


def _pictures(path: Path) -> Iterator[Path]:
    """List the pictures of a folder, or those that a text file lists, by their paths from it."""
    if path.suffix == ".txt":
        for line in filter(None, map(str.strip, path.read_text().splitlines())):
            (picture := path.parent / line).stat()  # raises where there is none
            yield picture
        return
    if (path / "images").is_dir():
        path /= "images"
    os.listdir(path)  # raises where there is no folder, in which `rglob` finds nothing
    for picture in sorted(path.rglob("*")):
        hidden = any(part.startswith("..") for part in picture.relative_to(path).parts)
        if not hidden and picture.suffix.lower() in SUFFIXES:  # a mounted ConfigMap has it twice
            yield picture


def _labelled(picture: Path, numbers: Mapping[int, int]) -> Labelled:
    """Read labels: where the last `images` of the path says `labels`, else beside the picture.

    Only in a folder of labels does none mean that there is no object.
    """
    beside = picture.with_suffix(".txt")
    parts = list(beside.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    labels = apart if (apart := Path(*parts)).parent.is_dir() else beside
    known = labels.is_file()
    objects = list(_objects(labels, numbers)) if known else []
    return Labelled(
        picture,
        np.array([box for _, box in objects], np.float32).reshape(-1, 4),
        np.array([kind for kind, _ in objects], np.int64) if known or labels != beside else None,
    )


def _objects(labels: Path, numbers: Mapping[int, int]) -> Iterator[tuple[int, Corners]]:
    for number, line in enumerate(labels.read_text(errors="replace").splitlines(), 1):
        try:
            if values := [float(value) for value in line.split()]:
                yield _object(values, numbers)
        except ValueError as error:
            raise ValueError(f"{labels}, line {number}: {error}") from error


def _object(values: Sequence[float], numbers: Mapping[int, int]) -> tuple[int, Corners]:
    """Read class, centre, width and height; a polygon becomes the box around it."""
    if not all(map(isfinite, values)):
        raise ValueError("not all of its numbers are finite")
    if len(values) < 5 or len(values) % 2 == 0:
        raise ValueError(
            f"it has {len(values)} values, but a box has five (class, x, y, width, height), and a "
            "polygon seven, nine and so on. A column with the confidence (`save_conf`) or a "
            "track's number is no part of labels: remove it"
        )
    if min(values[1:]) < -BEYOND or max(values[1:]) > 1 + BEYOND:
        raise ValueError(
            "it has a box beyond its picture: YOLO's are shares of the picture's sides, from 0 to "
            "1, and no pixels"
        )
    kind = numbers.get(int(values[0]))
    if kind is None or values[0] % 1:
        raise ValueError(f"it has an object of class {values[0]:g} of {len(numbers)}")
    xs, ys = values[1::2], values[2::2]
    if len(values) == 5:
        (x, y), (width, height) = values[1:3], values[3:5]
        xs, ys = [x - width / 2, x + width / 2], [y - height / 2, y + height / 2]
    return kind, (min(xs), min(ys), max(xs), max(ys))


def _listed(path: Path, names: Sequence[str]) -> dict[int, int]:
    """Find the model's classes for the numbers of a folder that says what they stand for.

    That are the `names` of data.yaml, or the lines of classes.txt; without, they are the model's.
    """
    if (path / "data.yaml").is_file():
        return _named(_yaml(path / "data.yaml"), names)
    if (path / "classes.txt").is_file():
        lines = (path / "classes.txt").read_text().splitlines()
        return _numbers(dict(enumerate(line for line in lines if line.strip())), names)
    return {number: number for number in range(len(names))}


def _described(path: Path, names: Sequence[str]) -> Iterator[Labelled]:
    """Read what a `data.yaml` describes: the first of its splits val, test and train."""
    content = _yaml(path)
    numbers = _named(content, names)
    split = next((content[split] for split in SPLITS if content.get(split)), None)
    if split is None:
        raise ValueError(f"it has no {', '.join(SPLITS[:-1])} or {SPLITS[-1]}")
    root = path.parent / str(content.get("path") or ".")
    for place in [split] if isinstance(split, str) else split:
        # Roboflow writes `../valid/images` beside `valid`; the public package reads that, too.
        there, beside = root / place, root / place.removeprefix("../")
        yield from _yolo(there if there.exists() or not beside.exists() else beside, numbers)


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is no YAML: {' '.join(str(error).split())}") from error
    return content if isinstance(content, dict) else {}


def _named(described: Mapping[str, Any], names: Sequence[str]) -> dict[int, int]:
    """Find the model's classes for the `names` of a data.yaml."""
    listed = described.get("names")
    if isinstance(listed, list):
        listed = dict(enumerate(listed))
    if not listed or not isinstance(listed, dict):
        raise ValueError("data.yaml has no names: a list, or a number and a name on each line")
    return _numbers({int(number): str(name) for number, name in listed.items()}, names)


def _coco(path: Path, names: Sequence[str]) -> Iterator[Labelled]:
    """Read `instances_*.json`; the pictures are beside it or in `images`."""
    content = json.loads(path.read_text())
    numbers = _numbers({each["id"]: str(each["name"]) for each in content["categories"]}, names)
    objects: dict[int, list[dict[str, Any]]] = {}
    for each in content["annotations"]:
        objects.setdefault(each["image_id"], []).append(each)
    for picture in content["images"]:
        known = objects.get(picture["id"], [])
        boxes = np.array([each["bbox"] for each in known], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        with np.errstate(all="ignore"):
            boxes /= np.array([picture["width"], picture["height"]] * 2, np.float32)
        if not np.isfinite(boxes).all():
            raise ValueError(f"{picture['file_name']} has a box, or a size, that is none")
        classes = np.array([numbers[each["category_id"]] for each in known], np.int64)
        crowds = tuple(row for row, each in enumerate(known) if each.get("iscrowd"))
        yield Labelled(_picture(path, picture["file_name"]), boxes, classes, crowds)


def _picture(path: Path, name: str) -> Path:
    folders = [path.parent, path.parent / "images", path.parent.parent / "images"]
    folders.append(path.parent.parent / path.stem.removeprefix("instances_"))
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    looked = ", ".join(sorted({str(folder) for folder in folders}))
    raise FileNotFoundError(ENOENT, f"it is in none of {looked}", name)


def _numbers(listed: dict[int, str], names: Sequence[str]) -> dict[int, int]:
    """Find the model's class for each of a data set's: by name, of one name in their order."""
    stripped = [name.strip() for name in names]
    numbers: dict[int, int] = {}
    for number, name in sorted(listed.items()):
        if not (here := [index for index, each in enumerate(stripped) if each == name.strip()]):
            raise ValueError(f"the model has no class {name!r}; it has: {', '.join(names)}")
        left = [index for index in here if index not in numbers.values()]
        numbers[number] = (left or here)[0]
    return numbers
