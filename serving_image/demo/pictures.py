"""Draws one picture with known objects: background, clutter, shapes, then what a camera adds.

All chance comes from the generator passed in, so a picture is the same for the same seed. Boxes
are measured on the pixels that stay visible, not computed from the outline.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from demo import backgrounds, camera
from demo.shapes import NAMES, SHAPES, Contours

Image = npt.NDArray[np.uint8]
Owner = npt.NDArray[np.int16]

SIZES = ((320, 240), (320, 180), (320, 320), (426, 320), (512, 384), (640, 360), (640, 480))
NOBODY = -1
MIN_VISIBLE = 0.55  # of an object's outline: what is hidden further, nobody should have to find
SHIFT = 4  # OpenCV draws with 1/16 pixel


@dataclass(frozen=True, slots=True)
class Recipe:
    """How hard a picture is."""

    objects: tuple[int, int] = (1, 9)
    empty: float = 0.06  # share of pictures without objects
    diameter: tuple[float, float] = (0.06, 0.62)  # of the longer side of the picture
    clutter: int = 6  # at most so many things that are no objects
    overlap: bool = True
    camera: float = 1.0  # how much blur, noise and compression


HARD = Recipe()
DENSE = Recipe((8, 16), 0.02, (0.07, 0.9), clutter=3)
CLEAR = Recipe((5, 7), 0.0, (0.16, 0.3), clutter=2, overlap=False, camera=0.25)


@dataclass(frozen=True, slots=True)
class Picture:
    """An image (H, W, 3) BGR, its objects, and which object owns each pixel (or NOBODY)."""

    image: Image
    classes: npt.NDArray[np.int64]  # (N,)
    boxes: npt.NDArray[np.float32]  # (N, 4), x1 y1 x2 y2, right and lower edge exclusive
    owner: Owner  # (H, W)


@dataclass(frozen=True, slots=True)
class Stamp:
    """An antialiased mask, the place it covers in the picture, and its area if nothing hid it."""

    alpha: npt.NDArray[np.float32]
    rows: slice
    columns: slice
    full_area: int

    @property
    def solid(self) -> npt.NDArray[np.bool_]:
        """The pixels that belong to the shape, not only to its soft edge."""
        return self.alpha >= 0.5


def draw(
    split: int, index: int, recipe: Recipe = HARD, size: tuple[int, int] | None = None
) -> Picture:
    """Draw picture `index` of the endless series `split`; `size` is (width, height)."""
    rng = np.random.default_rng([split, index])
    width, height = size or SIZES[rng.integers(len(SIZES))]
    if size is None and rng.random() < 0.3:
        width, height = height, width
    return draw_scene(rng, recipe, width, height)


def draw_scene(rng: np.random.Generator, recipe: Recipe, width: int, height: int) -> Picture:
    """Draw one picture with chance from `rng` alone."""
    image = backgrounds.paint(rng, width, height)
    backgrounds.clutter(rng, image, int(rng.integers(recipe.clutter + 1)))
    owner: Owner = np.full((height, width), NOBODY, np.int16)
    classes: list[int] = []
    areas: list[int] = []
    wanted = 0 if rng.random() < recipe.empty else int(rng.integers(*recipe.objects, endpoint=True))
    for _ in range(4 * wanted):
        if len(classes) == wanted:
            break
        kind = int(rng.integers(len(NAMES)))
        stamp = random_stamp(rng, kind, recipe, width, height)
        if stamp is None or not fits(stamp, owner, areas, recipe):
            continue
        paint_shape(rng, image, stamp)
        owner[stamp.rows, stamp.columns][stamp.solid] = len(classes)
        classes.append(kind)
        areas.append(stamp.full_area)
    if recipe.overlap and rng.random() < 0.3:
        cover(rng, image, owner, areas)
    boxes = [visible_box(owner, number) for number in range(len(classes))]
    return Picture(
        camera.take(rng, image, recipe.camera),
        np.array(classes, np.int64),
        np.array(boxes, np.float32).reshape(-1, 4),
        owner,
    )


def random_stamp(
    rng: np.random.Generator, kind: int, recipe: Recipe, width: int, height: int
) -> Stamp | None:
    """Place a shape of class `kind` by chance; None where hardly any of it is in the picture."""
    low, high = recipe.diameter
    longer, shorter = max(width, height), min(width, height)
    radius = min(longer * float(np.exp(rng.uniform(np.log(low), np.log(high)))), shorter) / 2
    margin = -0.3 * radius if recipe.overlap else 1.05 * radius
    centre = (
        rng.uniform(margin, width - margin),
        rng.uniform(margin, height - margin),
    )
    return stamp_of(bend(rng, SHAPES[NAMES[kind]](rng), radius, centre), width, height)


def bend(
    rng: np.random.Generator, contours: Contours, radius: float, centre: tuple[float, float]
) -> Contours:
    """Stretch and turn a shape a little out of true, scale it, and put it in its place."""
    stretch = rng.uniform(0.85, 1.0)
    squeeze = np.diag([stretch, 1.0] if rng.random() < 0.5 else [1.0, stretch])
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return [radius * contour @ squeeze @ turn + centre for contour in contours]


def stamp_of(contours: Contours, width: int, height: int) -> Stamp | None:
    """Fill the contours, antialiased; None if nothing of them lies inside the picture."""
    points = np.concatenate(contours)
    left, top = np.floor(points.min(0)).astype(int) - 2
    right, bottom = np.ceil(points.max(0)).astype(int) + 3
    mask = np.zeros((bottom - top, right - left), np.uint8)
    fixed = [
        np.round((contour - (left, top)) * (1 << SHIFT)).astype(np.int32) for contour in contours
    ]
    cv2.fillPoly(mask, fixed, (255,), cv2.LINE_AA, SHIFT)
    rows = slice(max(top, 0), min(bottom, height))
    columns = slice(max(left, 0), min(right, width))
    inside = mask[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    if inside.size == 0 or inside.max() < 128:
        return None
    alpha = inside.astype(np.float32) / np.float32(255)
    return Stamp(alpha, rows, columns, int((mask >= 128).sum()))


def fits(stamp: Stamp, owner: Owner, areas: list[int], recipe: Recipe) -> bool:
    """Tell whether the shape, and all those below it, stay visible enough."""
    solid = stamp.solid
    if solid.sum() < max(MIN_VISIBLE * stamp.full_area, 60):
        return False
    below = owner[stamp.rows, stamp.columns]
    if not recipe.overlap:
        return bool((below == NOBODY).all())
    return leaves_visible(owner, below[solid], areas)


def leaves_visible(owner: Owner, hidden: Owner, areas: list[int]) -> bool:
    """Tell whether every object keeps enough pixels once those in `hidden` are painted over."""
    for number in np.unique(hidden[hidden != NOBODY]):
        left = int((owner == number).sum()) - int((hidden == number).sum())
        if left < MIN_VISIBLE * areas[number]:
            return False
    return True


def paint_shape(rng: np.random.Generator, image: Image, stamp: Stamp) -> None:
    """Fill the shape so that it differs from what lies below it, at times with a rim."""
    place = image[stamp.rows, stamp.columns]
    around = place[stamp.solid].mean(0)
    colour = backgrounds.colour_unlike(rng, around)
    fill: npt.NDArray[Any] = backgrounds.texture(rng, colour, *place.shape[:2])
    if rng.random() < 0.25:  # a rim of another colour, inside the outline
        thick = int(np.clip(np.sqrt(stamp.full_area) * rng.uniform(0.03, 0.08), 1, 9))
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * thick + 1, 2 * thick + 1))
        core = cv2.erode(stamp.alpha, disc)[..., None]
        fill = fill * core + backgrounds.colour_unlike(rng, colour) * (1 - core)
    alpha = stamp.alpha[..., None]
    place[:] = np.clip(place * (1 - alpha) + fill * alpha, 0, 255).astype(np.uint8)


def cover(rng: np.random.Generator, image: Image, owner: Owner, areas: list[int]) -> None:
    """Draw a bar over everything, unless it hides too much of an object."""
    height, width = owner.shape
    ends = rng.uniform((-0.1, -0.1), (1.1, 1.1), (2, 2)) * (width, height)
    bar: Image = np.zeros((height, width), np.uint8)
    first, second = (tuple(int(value) for value in end) for end in ends)
    cv2.line(bar, first, second, (255,), int(rng.integers(3, max(4, height // 14))))
    hit = bar > 0
    if leaves_visible(owner, owner[hit], areas):
        image[hit] = rng.uniform(0, 255, 3).astype(np.uint8)
        owner[hit] = NOBODY


def visible_box(owner: Owner, number: int) -> tuple[int, int, int, int]:
    """Return the tightest box around the pixels of one object."""
    mine = owner == number
    columns = np.flatnonzero(mine.any(0))
    rows = np.flatnonzero(mine.any(1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
