"""Draw detections onto a picture, for people to look at; pure."""

import colorsys

import cv2
import simplejpeg

from yoloserve.detections.postprocess import Detections
from yoloserve.errors import TooManyPixels
from yoloserve.images.decoding import decode, require_size
from yoloserve.images.letterbox import Image

GOLDEN_ANGLE = 0.618034  # hues this far apart stay distinct however many classes there are
JPEG_QUALITY = 90
LONGEST_SIDE = 65_500  # that libjpeg writes
MOST_DRAWN = 1000  # nobody tells more apart, and in a large picture each takes a millisecond
FONT = cv2.FONT_HERSHEY_SIMPLEX


def annotate(encoded: bytes, max_pixels: int, found: Detections, classes: tuple[str, ...]) -> bytes:
    """Decode an image again, draw what was found in it, and encode it as a JPEG.

    Raises `TooManyPixels`, before it is decoded, if no JPEG has sides that long.
    """
    header = require_size(encoded, max_pixels)
    if max(header.width, header.height) > LONGEST_SIDE:
        raise TooManyPixels(
            f"the image has {header.width} x {header.height} pixels, and no JPEG to draw it in has "
            f"sides of more than {LONGEST_SIDE}: ask for application/json"
        )
    image = decode(encoded, max_pixels=max_pixels)
    draw(image, found, classes)
    encoded_again: bytes = simplejpeg.encode_jpeg(image, JPEG_QUALITY, "BGR")
    return encoded_again


def draw(image: Image, found: Detections, classes: tuple[str, ...]) -> None:
    """Draw the surest `MOST_DRAWN` onto `image` itself; the surest one of all ends on top."""
    found = found[:MOST_DRAWN]
    thickness = max(2, round(max(image.shape) / 500))
    scale = max(image.shape) / 1600 + 0.3
    for box, score, index in reversed(
        list(zip(found.boxes, found.scores, found.classes, strict=True))
    ):
        left, top, right, bottom = (round(float(edge)) for edge in box)
        colour = colour_of(int(index))
        cv2.rectangle(image, (left, top), (right, bottom), colour, thickness)
        label = f"{classes[index]} {score:.2f}"
        (width, height), below = cv2.getTextSize(label, FONT, scale, max(1, thickness // 2))
        base = max(top, height + 2 * below)  # a label above the picture would not be seen
        corner = (left, base - height - 2 * below)
        cv2.rectangle(image, corner, (left + width + below, base), colour, cv2.FILLED)
        cv2.putText(
            image,
            label,
            (left + below // 2, base - below),
            FONT,
            scale,
            (255, 255, 255),
            max(1, thickness // 2),
            cv2.LINE_AA,
        )


def colour_of(index: int) -> tuple[int, int, int]:
    """Pick a class's colour (blue, green, red), dark enough for white letters."""
    red, green, blue = colorsys.hsv_to_rgb(index * GOLDEN_ANGLE % 1, 0.85, 0.75)
    return round(blue * 255), round(green * 255), round(red * 255)
