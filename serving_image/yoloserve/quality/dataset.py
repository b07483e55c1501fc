"""Pictures with known objects, in the layouts people have: YOLO's folders and COCO's JSON."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yoloserve.errors import InvalidSettings
from yoloserve.quality.scores import Truth

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
SPLITS = "val", "test", "train"


@dataclass(frozen=True, slots=True)
class Labelled:
    """One picture, and what is in it; without labels, `classes` is none."""

    path: Path
    boxes: NDArray[np.float32]  # (N, 4), x1 y1 x2 y2 in shares of the picture's sides
    classes: NDArray[np.int64] | None

    def truth(self, width: int, height: int) -> Truth:
        """Return the objects in pixels."""
        known = np.empty(0, np.int64) if self.classes is None else self.classes
        return Truth(self.boxes * np.array([width, height, width, height], np.float32), known)


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
            found = list(_folder(path, len(names), _listed(path, names)))
    except OSError as error:
        raise InvalidSettings(f"cannot read {error.filename}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidSettings(f"{path} cannot be read as a data set: {error!r}") from error
    if not found:
        raise InvalidSettings(f"there are no pictures in {path}")
    return found


def _folder(
    path: Path, classes: int, numbers: Mapping[int, int] | None = None
) -> Iterator[Labelled]:
    """Read pictures; their labels are where the last `images` of the path says `labels`."""
    if (path / "images").is_dir():
        path /= "images"
    for picture in sorted(path.rglob("*")):
        hidden = any(part.startswith("..") for part in picture.relative_to(path).parts)
        if hidden or picture.suffix.lower() not in SUFFIXES:  # a mounted ConfigMap has it twice
            continue
        parts = list(picture.with_suffix(".txt").parts)
        if "images" in parts:
            parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
        labels = Path(*parts)
        labelled = labels.is_file() or (labels.parent.is_dir() and "images" in picture.parts)
        text = labels.read_text() if labels.is_file() else ""
        yield _yolo(picture, text if labelled else None, classes, numbers)


def _listed(path: Path, names: Sequence[str]) -> dict[int, int] | None:
    """Find the model's classes for the numbers of a folder that says what they stand for.

    That are the `names` of data.yaml, or the lines of classes.txt; without, they are the model's.
    """
    if (path / "data.yaml").is_file():
        import yaml

        try:
            content = yaml.safe_load((path / "data.yaml").read_text())
        except yaml.YAMLError as error:
            raise ValueError(f"data.yaml is no YAML: {error}") from error
        listed = content.get("names") if isinstance(content, dict) else None
        by_number = dict(enumerate(listed)) if isinstance(listed, list) else listed
    elif (path / "classes.txt").is_file():
        lines = (path / "classes.txt").read_text().splitlines()
        by_number = dict(enumerate(line for line in lines if line.strip()))
    else:
        return None
    if not by_number:
        raise ValueError("data.yaml has no names")
    return _numbers({int(number): str(name) for number, name in by_number.items()}, names)


def _yolo(
    picture: Path, text: str | None, classes: int, numbers: Mapping[int, int] | None
) -> Labelled:
    """Read lines of class, centre, width and height; polygons become the boxes around them."""
    boxes, kinds = [], []
    for line in (text or "").splitlines():
        if not (values := [float(value) for value in line.split()]):
            continue
        kind = int(values[0]) if numbers is None else numbers[int(values[0])]
        if not 0 <= kind < classes:
            raise ValueError(f"{picture.name} has an object of class {kind} of {classes}")
        xs, ys = values[1::2], values[2::2]
        if len(values) == 5:
            (x, y), (width, height) = values[1:3], values[3:5]
            xs, ys = [x - width / 2, x + width / 2], [y - height / 2, y + height / 2]
        boxes.append((min(xs), min(ys), max(xs), max(ys)))
        kinds.append(kind)
    known = None if text is None else np.array(kinds, np.int64)
    return Labelled(picture, np.array(boxes, np.float32).reshape(-1, 4), known)


def _described(path: Path, names: Sequence[str]) -> Iterator[Labelled]:
    """Read what a `data.yaml` describes: the first of its splits val, test and train."""
    import yaml

    content: dict[str, Any] = yaml.safe_load(path.read_text())
    listed = content["names"]
    by_number = dict(enumerate(listed)) if isinstance(listed, list) else listed
    numbers = _numbers({int(number): str(name) for number, name in by_number.items()}, names)
    split = next(content[split] for split in SPLITS if content.get(split))
    root = path.parent / str(content.get("path") or ".")
    for folder in [split] if isinstance(split, str) else split:
        yield from _folder(root / folder, len(names), numbers)


def _coco(path: Path, names: Sequence[str]) -> Iterator[Labelled]:
    """Read `instances_*.json`; crowds are left out. The pictures are beside it or in `images`."""
    content = json.loads(path.read_text())
    numbers = _numbers({each["id"]: str(each["name"]) for each in content["categories"]}, names)
    objects: dict[int, list[dict[str, Any]]] = {}
    for each in content["annotations"]:
        if not each.get("iscrowd"):
            objects.setdefault(each["image_id"], []).append(each)
    for picture in content["images"]:
        known = objects.get(picture["id"], [])
        boxes = np.array([each["bbox"] for each in known], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes /= np.array([picture["width"], picture["height"]] * 2, np.float32)
        classes = np.array([numbers[each["category_id"]] for each in known], np.int64)
        yield Labelled(_picture(path, picture["file_name"]), boxes, classes)


def _picture(path: Path, name: str) -> Path:
    folders = [path.parent, path.parent / "images", path.parent.parent / "images"]
    folders.append(path.parent.parent / path.stem.removeprefix("instances_"))
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(2, "it is in none of the usual folders", name)


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
