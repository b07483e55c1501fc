"""The example pictures, what is in them, and what a detector finds in them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson

from cluster.paths import REPOSITORY
from demo_cluster.errors import NotYet
from demo_cluster.load import PATH, Target

FOLDER: Final = REPOSITORY / "examples" / "images"
OVERLAP: Final = 0.5  # intersection over union from which a box counts as that object's
TIMEOUT_S: Final = 60  # as far above any deadline of the server as that of `load`

Box = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Picture:
    """A JPEG and the objects that are known to be in it, each with `name` and `box`."""

    name: str
    data: bytes
    objects: Sequence[Mapping[str, Any]]


def examples(folder: Path = FOLDER) -> list[Picture]:
    """Return the example pictures, in order."""
    labels: dict[str, Any] = json.loads((folder / "labels.json").read_text())
    return [
        Picture(name, (folder / name).read_bytes(), entry["objects"])
        for name, entry in labels.items()
    ]


def iou(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes."""
    width = min(one["x2"], other["x2"]) - max(one["x1"], other["x1"])
    height = min(one["y2"], other["y2"]) - max(one["y1"], other["y1"])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (area(one) + area(other) - both)


def area(box: Box) -> float:
    """Return the area of a box."""
    return (box["x2"] - box["x1"]) * (box["y2"] - box["y1"])


def found(objects: Iterable[Mapping[str, Any]], detections: Sequence[Mapping[str, Any]]) -> int:
    """Count the objects of which a detection has the name and the place; each detection once."""
    left = list(detections)
    count = 0
    for known in objects:
        for detection in left:
            if detection["name"] == known["name"] and iou(known["box"], detection["box"]) > OVERLAP:
                left.remove(detection)
                count += 1
                break
    return count


async def detect(
    target: Target, picture: Picture, headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return a detector's answer. Raises NotYet when it does not give one."""
    answer: dict[str, Any] = orjson.loads(await ask(target, PATH, picture, headers))
    return answer


async def annotated(target: Target, picture: Picture) -> bytes:
    """Return the picture with the boxes drawn, as JPEG."""
    return await ask(target, PATH, picture, {"Accept": "image/jpeg"})


async def page(target: Target, path: str) -> bytes:
    """GET a page. Raises NotYet when it is not there."""
    return await ask(target, path)


async def ask(
    target: Target,
    path: str,
    picture: Picture | None = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """POST a picture, or GET without one. Raises NotYet unless the answer is 200."""
    kind = {"Content-Type": "image/jpeg"} if picture else {}
    async with aiohttp.ClientSession(
        headers={"Host": target.host, **kind, **(headers or {})},
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
    ) as session:
        method = "POST" if picture else "GET"
        data = BytesIO(picture.data) if picture else None
        try:
            async with session.request(method, target.url + path, data=data) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NotYet(f"{target.url}{path}: {type(error).__name__} {error}") from None
        if response.status != 200:
            raise NotYet(f"{target.url}{path}: HTTP {response.status} {body[:300]!r}")
        return body
