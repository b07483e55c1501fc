"""Pictures that are sent as numbers: not encoded, and made of them on a thread."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2

from yoloserve.images.letterbox import Image

BMP_HEAD_BYTES = 54
LONGEST_SIDE = 2**20  # that OpenCV reads


@dataclass(frozen=True, slots=True)
class Pixels:
    """A picture of this size, and what makes it."""

    width: int
    height: int
    make: Callable[[], Image]

    @property
    def bmp_bytes(self) -> int:
        """Say how long it is as `bmp` writes it."""
        return BMP_HEAD_BYTES + (3 * self.width + 3) // 4 * 4 * self.height


def bmp(image: Image) -> bytes:
    """Encode a picture as what every revision reads, and none sees otherwise: its very pixels."""
    return cv2.imencode(".bmp", image)[1].tobytes()
