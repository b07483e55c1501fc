"""Pictures with known objects, in the layouts people have: YOLO's folders and COCO's JSON."""

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from errno import ENOENT
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yoloserve.errors import InvalidSettings
from yoloserve.quality.scores import Truth

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
SPLITS = "val", "test", "train"
SPLIT_FOLDERS = {*SPLITS, "valid"}  # the latter is Roboflow's
DESCRIPTIONS = "data.yaml", "data.yml"
LISTS = "classes.txt", "obj.names", "_darknet.labels"  # LabelImg's, CVAT's, Roboflow's
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
            root = path.parent if path.suffix == ".txt" else path
            pairs = [(picture, _labels_of(picture, root)) for picture in _pictures(path)]
            found = list(_yolo(pairs, _listed(_lists(root, pairs), names)))
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


@dataclass(frozen=True, slots=True)
class _Labels:
    """Where those of a picture are, if there are any.

    apart: in a folder of labels, where only none of them means that there is no object. root: the
    folder of the set, as far as it is known.
    """

    path: Path
    root: Path
    apart: bool


def _yolo(pairs: Iterable[tuple[Path, _Labels]], numbers: Mapping[int, int]) -> Iterator[Labelled]:
    pairs = list(pairs)
    own = {labels.path for _, labels in pairs}
    beside = cache(lambda folder: _by_any_case(folder, own))
    for picture, labels in pairs:
        known = labels.path.is_file()
        objects = list(_objects(labels.path, numbers)) if known else []
        if not known:
            _require_no_other(labels.path, beside(labels.path.parent))
        yield Labelled(
            picture,
            np.array([box for _, box in objects], np.float32).reshape(-1, 4),
            np.array([kind for kind, _ in objects], np.int64) if known or labels.apart else None,
        )


def _by_any_case(folder: Path, own: Collection[Path]) -> dict[str, str]:
    """Map what is in `folder`, but for labels that some picture has as they are written."""
    names = (name for name in os.listdir(folder) if folder / name not in own)
    return {name.casefold(): name for name in names}


def _require_no_other(labels: Path, names: Mapping[str, str]) -> None:
    """Raise ValueError where absent labels are there but for the case of their name.

    They would be no labels here, and be read by whoever has a disk that knows no case.
    """
    if name := names.get(labels.name.casefold()):
        raise ValueError(f"{labels.with_name(name)} is not read: call it {labels.name}")


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


def _labels_of(picture: Path, root: Path) -> _Labels:
    """Find labels: where the last `images` of the path says `labels`, else beside the picture.

    root: what was asked for.
    """
    beside = picture.with_suffix(".txt")
    parts = list(beside.parts)
    if "images" in parts:
        at = len(parts) - 1 - parts[::-1].index("images")
        apart = Path(*parts[:at], "labels", *parts[at + 1 :])
        if apart.parent.is_dir():
            return _Labels(apart, Path(*parts[:at]), apart=True)
    return _Labels(beside, root, apart=False)


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


def _listed(files: Iterable[Path], names: Sequence[str]) -> dict[int, int]:
    """Find the model's classes for the numbers of a set whose files say what they stand for.

    That are the `names` of data.yaml, and the lines of classes.txt or the like; without, they are
    the model's.
    """
    told: dict[int, tuple[str, Path]] = {}
    for file in files:
        listed = _names_in(file)
        try:
            _numbers(listed, names)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        for number, name in listed.items():
            before, where = told.setdefault(number, (name, file))
            if before != name:
                raise ValueError(
                    f"class {number} is {before!r} in {where}, and {name!r} in {file}: remove the "
                    "one that is wrong"
                )
    if not told:
        return {number: number for number in range(len(names))}
    return _numbers({number: name for number, (name, _) in told.items()}, names)


def _lists(asked: Path, pairs: Sequence[tuple[Path, _Labels]]) -> Iterator[Path]:
    """Find the files that say what numbers stand for, those furthest above first.

    They are in the folder that was asked for or that of the set, those of its pictures and labels,
    or between; and where that is one split of a set, also above it.
    """
    folders = {
        (labels.root, file.parent) for picture, labels in pairs for file in (picture, labels.path)
    }
    places = {asked}
    for root, folder in folders:
        between = [each for each in folder.parents if each == root or root in each.parents]
        places.update((folder, *between))
        if root.name in SPLIT_FOLDERS:  # train/images, train/labels: data.yaml is beside them
            places.add(root.parent)
    own = {labels.path for _, labels in pairs}  # a picture may be called classes.jpg
    for place in sorted(places, key=lambda place: (len(place.parts), place)):
        for name in DESCRIPTIONS + LISTS:
            if (file := place / name).is_file() and file not in own:
                yield file


def _names_in(file: Path) -> dict[int, str]:
    if file.name in DESCRIPTIONS:
        return _named(_yaml(file))
    lines = [line.strip() for line in file.read_text("utf-8-sig").rstrip().splitlines()]
    if "" in lines:
        raise ValueError(
            f"{file}: line {lines.index('') + 1} is empty, and its number would be that of the "
            "next class"
        )
    return dict(enumerate(lines))


def _described(path: Path, names: Sequence[str]) -> Iterator[Labelled]:
    """Read what a `data.yaml` describes: the first of its splits val, test and train."""
    content = _yaml(path)
    numbers = _numbers(_named(content), names)
    split = next((content[split] for split in SPLITS if content.get(split)), None)
    if split is None:
        raise ValueError(f"it has no {', '.join(SPLITS[:-1])} or {SPLITS[-1]}")
    root = path.parent / str(content.get("path") or ".")
    for place in [split] if isinstance(split, str) else split:
        # Roboflow writes `../valid/images` beside `valid`; the public package reads that, too.
        there, beside = root / place, root / place.removeprefix("../")
        found = there if there.exists() or not beside.exists() else beside
        yield from _yolo(((each, _labels_of(each, found)) for each in _pictures(found)), numbers)


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is no YAML: {' '.join(str(error).split())}") from error
    return content if isinstance(content, dict) else {}


def _named(described: Mapping[str, Any]) -> dict[int, str]:
    """Read the `names` of a data.yaml."""
    listed = described.get("names")
    if isinstance(listed, list):
        listed = dict(enumerate(listed))
    if not listed or not isinstance(listed, dict):
        raise ValueError("data.yaml has no names: a list, or a number and a name on each line")
    return {int(number): str(name).strip() for number, name in listed.items()}


def _coco(path: Path, names: Sequence[str]) -> Iterator[Labelled]:
    """Read `instances_*.json`; the pictures are beside it or in `images`."""
    content = json.loads(path.read_text())
    kinds = _by_id(content["categories"], "categories")
    numbers = _numbers({number: str(each["name"]) for number, each in kinds.items()}, names)
    pictures = _by_id(content["images"], "images")
    objects: dict[Any, list[dict[str, Any]]] = {}
    for each in content["annotations"]:
        objects.setdefault(each["image_id"], []).append(each)
    if unknown := [number for number in objects if number not in pictures]:
        raise ValueError(
            f"{sum(len(objects[number]) for number in unknown)} of its "
            f"{len(content['annotations'])} annotations are of no picture that it lists, image_id "
            f"{unknown[0]!r} first: the `id` of one of its `images` is meant, and 1 is not '1'"
        )
    for number, picture in pictures.items():
        known = objects.get(number, [])
        boxes = np.array([each["bbox"] for each in known], np.float32).reshape(-1, 4)
        sizes = boxes[:, 2:].copy()
        boxes[:, 2:] += boxes[:, :2]
        with np.errstate(all="ignore"):
            boxes /= np.array([picture["width"], picture["height"]] * 2, np.float32)
        if len(boxes) != len(known) or (sizes < 0).any() or not np.isfinite(boxes).all():
            raise ValueError(f"{picture['file_name']} has a box, or a size, that is none")
        classes = np.array([numbers[each["category_id"]] for each in known], np.int64)
        crowds = tuple(row for row, each in enumerate(known) if each.get("iscrowd"))
        yield Labelled(_picture(path, picture["file_name"]), boxes, classes, crowds)


def _by_id(entries: Sequence[dict[str, Any]], what: str) -> dict[Any, dict[str, Any]]:
    found: dict[Any, dict[str, Any]] = {}
    for each in entries:
        if found.setdefault(each["id"], each) is not each:
            raise ValueError(f"two of its {what} have id {each['id']!r}")
    return found


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
