"""Fits pictures into the network's square and reads its output: the client's half, in numpy."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from yoloserve.detections.postprocess import Detections

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

GREY = 114
SIDE = 320  # the square the bundled networks are trained for


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Where the picture lies in the square: scale, then offset in pixels of the square."""

    scale: float
    left: int
    top: int

    def into(self, boxes: Floats) -> Floats:
        """Carry boxes (N, 4), x1 y1 x2 y2, from the picture into the square."""
        return boxes * np.float32(self.scale) + self._offset()

    def back(self, boxes: Floats) -> Floats:
        """Carry boxes (N, 4) from the square to the picture."""
        return (boxes - self._offset()) / np.float32(self.scale)

    def _offset(self) -> Floats:
        return np.array([self.left, self.top, self.left, self.top], np.float32)


def letterbox(image: Image, side: int = SIDE) -> tuple[Image, Letterbox]:
    """Fit an image (H, W, 3) into a grey square without bending it."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    new_height, new_width = round(height * scale), round(width * scale)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(image, (new_width, new_height), interpolation=method)
    top, left = (side - new_height) // 2, (side - new_width) // 2
    square = np.full((side, side, 3), GREY, np.uint8)
    square[top : top + new_height, left : left + new_width] = small
    return square, Letterbox(scale, left, top)


def tensor(square: Image) -> Floats:
    """Turn a BGR image into the network's input (1, 3, H, W), RGB, 0..1."""
    planes = square[:, :, ::-1].transpose(2, 0, 1)[None]
    return np.ascontiguousarray(planes, np.float32) / np.float32(255)


def read_output(
    output: Floats, confidence: float = 0.001, overlap: float = 0.7, limit: int = 100
) -> Detections:
    """Turn one picture's output (4 + classes, A) into at most `limit` detections in the square."""
    scores = output[4:]
    classes, cells = np.nonzero(scores >= confidence)
    found = scores[classes, cells]
    order = np.argsort(-found, kind="stable")[: 30 * limit]
    classes, cells, found = classes[order], cells[order], found[order]
    middle, half = output[:2, cells].T, output[2:4, cells].T / np.float32(2)
    boxes: Floats = np.concatenate((middle - half, middle + half), 1)
    keep = suppress(boxes, classes, overlap)[:limit]
    return Detections(boxes[keep], found[keep], classes[keep].astype(np.int64))


def suppress(boxes: Floats, classes: npt.NDArray[np.int64], overlap: float) -> list[int]:
    """Return the rows that no better row of the same class overlaps more; rows come best first."""
    keep: list[int] = []
    left = np.arange(len(boxes))
    while left.size:
        best, left = int(left[0]), left[1:]
        keep.append(best)
        same = classes[left] == classes[best]
        doubled = same & (pairwise_iou(boxes[best : best + 1], boxes[left])[0] > overlap)
        left = left[~doubled]
    return keep


def pairwise_iou(first: Floats, second: Floats) -> Floats:
    """Return the overlaps (N, M) of boxes (N, 4) and (M, 4)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    areas = [(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.asarray(shared / np.maximum(union, 1e-9), np.float32)
