"""Two answers for one picture, side by side, for people to look at; pure.

What only one of the two has is drawn on its side, and dashed on the other: there it is missing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from yoloserve.detections.annotate import FONT, JPEG_QUALITY, MOST_DRAWN
from yoloserve.detections.postprocess import Detections
from yoloserve.images.decoding import decode
from yoloserve.images.letterbox import Image
from yoloserve.shadow.pairs import Disagreement, Found

Colour = tuple[int, int, int]  # blue, green, red

SIDE = 900  # of a picture's longer side, in pixels: two of them fill a screen
GAP, STRIP = 12, 48
MARGIN, TEXT = 14, 30  # of the words in a strip: from its left, and down to their base
LETTERS, STROKE = 0.62, 1
DASH = 9
EDGE = 3
DARK = 20  # grey: to fill a picture with a colour takes ten times as long
GROUND: Colour = (DARK, DARK, DARK)
INK: Colour = (242, 239, 232)
QUIET: Colour = (185, 176, 157)
AGREED: Colour = (150, 160, 60)
LOST: Colour = (68, 56, 214)
ADDED: Colour = (214, 120, 24)
CONFUSED: Colour = (16, 130, 226)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A box as it is drawn; without a label it is one that is missing here."""

    box: tuple[float, float, float, float]
    colour: Colour
    label: str = ""


def side_by_side(
    encoded: bytes,
    max_pixels: int,
    stable: tuple[str, Found],
    canary: tuple[str, Found],
    apart: Disagreement,
) -> bytes:
    """Decode a picture, draw what each revision, by its name, found in it; encode it as a JPEG."""
    image = decode(encoded, max_pixels=max_pixels)
    scale = SIDE / max(image.shape)
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    small: Image = cv2.resize(image, size, interpolation=way)  # type: ignore[assignment]
    taken, mistaken = apart.confused
    names = apart.classes
    ours = [
        *_agreed(stable, (apart.lost, taken)),
        *_missing(apart.added, ADDED),
        *_drawn(apart.lost, names, LOST, "lost: "),
        *_drawn(taken, names, CONFUSED),
    ]
    theirs = [
        *_agreed(canary, (apart.added, mistaken)),
        *_missing(apart.lost, LOST),
        *_drawn(apart.added, names, ADDED, "added: "),
        *_drawn(mistaken, names, CONFUSED, "called "),
    ]
    height, width = small.shape[:2]
    whole = np.full((height + 2 * STRIP, 2 * width + GAP, 3), DARK, np.uint8)
    for panel, title, boxes in (
        (whole[:, :width], f"stable  {stable[0]}", ours),
        (whole[:, -width:], f"canary  {canary[0]}", theirs),
    ):
        _write(panel, title, MARGIN, TEXT, INK)
        panel[STRIP:-STRIP] = small
        _draw(panel[STRIP:-STRIP], scale, boxes)
    _legend(whole, apart)
    drawn: bytes = simplejpeg.encode_jpeg(whole, JPEG_QUALITY, "BGR")
    return drawn


def _agreed(answer: tuple[str, Found], apart: tuple[Detections, ...]) -> Iterator[Drawn]:
    """Give what an answer has besides, as callers get it: what is surer than the threshold."""
    _, found = answer
    boxes = found.detections
    others = {tuple(box) for each in apart for box in each.boxes.tolist()}
    sure = boxes[boxes.scores >= found.confidence]
    for drawn in _drawn(sure, found.classes, AGREED):
        if drawn.box not in others:
            yield drawn


def _drawn(
    found: Detections, names: tuple[str, ...], colour: Colour, word: str = ""
) -> Iterator[Drawn]:
    found = found[:MOST_DRAWN]
    for box, score, index in zip(
        found.boxes.tolist(), found.scores.tolist(), found.classes.tolist(), strict=True
    ):
        yield Drawn(tuple(box), colour, f"{word}{names[index]} {score:.2f}")


def _missing(found: Detections, colour: Colour) -> Iterator[Drawn]:
    for box in found[:MOST_DRAWN].boxes.tolist():
        yield Drawn(tuple(box), colour)


def _draw(picture: Image, scale: float, boxes: list[Drawn]) -> None:
    for each in boxes:
        left, top, right, bottom = (
            round(min(max(edge * scale, -SIDE), 2 * SIDE)) for edge in each.box
        )
        corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.int32)
        lines = [corners] if each.label else [*_dashes(corners)]
        for colour, thickness in ((GROUND, EDGE + 2), (each.colour, EDGE)):  # seen on any ground
            cv2.polylines(picture, lines, bool(each.label), colour, thickness, cv2.LINE_AA)
    for each in boxes:  # after all boxes: no line goes through a label
        if each.label:
            _label(picture, round(each.box[0] * scale), round(each.box[1] * scale), each)


def _label(picture: Image, left: int, top: int, drawn: Drawn) -> None:
    text = drawn.label
    (width, height), below = cv2.getTextSize(text, FONT, LETTERS, STROKE)
    left = max(0, min(left - 1, picture.shape[1] - width - 8))
    base = min(max(top, height + below + 4), picture.shape[0])  # one above it would not be seen
    corner = left, base - height - below - 4
    cv2.rectangle(picture, corner, (left + width + 8, base), drawn.colour, cv2.FILLED)
    cv2.putText(
        picture, text, (left + 4, base - below - 1), FONT, LETTERS, (255, 255, 255), STROKE,
        cv2.LINE_AA,
    )  # fmt: skip


def _dashes(corners: NDArray[np.int32]) -> Iterator[NDArray[np.int32]]:
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        dashes = int(np.abs(end - start).max()) // (2 * DASH) + 1
        for at in range(dashes):
            both = np.array([at, at + 0.5])[:, None] / dashes
            yield np.round(start + (end - start) * both).astype(np.int32)


def _legend(whole: Image, apart: Disagreement) -> None:
    top = whole.shape[0] - STRIP
    left = MARGIN
    for colour, text in (
        (LOST, f"{len(apart.lost)} lost by the canary"),
        (ADDED, f"{len(apart.added)} added by it"),
        (CONFUSED, f"{len(apart.confused[0])} called another class"),
        (AGREED, "the same, or not compared"),
    ):
        cv2.rectangle(whole, (left, top + 16), (left + 15, top + 31), colour, cv2.FILLED)
        ink = INK if colour != AGREED else QUIET
        left = _write(whole, text, left + 24, top + TEXT, ink) + 28


def _write(whole: Image, text: str, left: int, base: int, colour: Colour) -> int:
    """Write a line; returns where it ends."""
    cv2.putText(whole, text, (left, base), FONT, LETTERS, colour, STROKE, cv2.LINE_AA)
    return left + cv2.getTextSize(text, FONT, LETTERS, STROKE)[0][0]
