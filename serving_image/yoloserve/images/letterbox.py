"""From a picture to the tensor of a network, and the way back for its boxes."""

import math
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # (H, W, 3), BGR
Boxes = NDArray[np.float32]  # (N, 4), x1 y1 x2 y2 in pixels

GREY = 114  # what the public YOLO package pads with, and networks were trained on


@dataclass(frozen=True, slots=True)
class InputSize:
    """What a network takes: exactly this size, or anything on its stride that fits inside."""

    height: int
    width: int
    stride: int = 32
    dynamic: bool = False

    def gain(self, width: int, height: int) -> float:
        """Scale at which an image of `width` x `height` just fits."""
        return min(self.height / height, self.width / width)


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How an image lies in its tensor; maps boxes back."""

    gain_x: float  # of each axis: an image's sides are rounded to whole pixels of the tensor
    gain_y: float
    left: int
    top: int
    width: int  # of the image, in its own pixels
    height: int

    @classmethod
    def within(cls, shape: tuple[int, ...], width: int, height: int) -> Self:
        """Tell how an image of `width` x `height` lies in a tensor of `shape` (height, width, …).

        From the tensor alone, as the reference does (`scale_boxes` of the public YOLO package).
        Where a side was rounded down to just a multiple of the stride, that is up to a pixel of the
        tensor from where `letterbox` put it; the boxes are those of the reference there as well.
        """
        tensor_h, tensor_w = shape[:2]
        gain = min(tensor_h / height, tensor_w / width)
        inner_w, inner_h = _inner(width, height, gain)
        left, top = (_before(pad) for pad in (tensor_w - inner_w, tensor_h - inner_h))
        return cls(inner_w / width, inner_h / height, left, top, width, height)

    def to_image(self, boxes: Boxes) -> Boxes:
        """Map boxes (N, 4) from the tensor's pixels to the image's, clipped to it."""
        offset = np.array((self.left, self.top, self.left, self.top), np.float32)
        limit = np.array((self.width, self.height, self.width, self.height), np.float32)
        gains = np.array((self.gain_x, self.gain_y, self.gain_x, self.gain_y), np.float32)
        mapped: Boxes = np.clip((boxes - offset) / gains, 0, limit)
        return mapped


def blank(size: InputSize) -> Image:
    """Make the tensor of a grey picture of 16:9, which is what most cameras send."""
    return letterbox(np.full((9, 16, 3), GREY, np.uint8), size)[0]


@dataclass(frozen=True, slots=True)
class Frame:
    """The tensor of a picture that is still to come: grey around its place, which is not filled."""

    tensor: Image  # (height, width, 3)
    place: Image  # a view of it
    fit: Letterbox
    begins: tuple[int, int]  # the place, at this row and column

    @classmethod
    def of(cls, width: int, height: int, size: InputSize, memory: Image | None = None) -> Self:
        """Make it for a picture of `width` x `height` in a network's input.

        memory: where, as a row of bytes that holds the largest; None: in some of its own.
        """
        frame = cls.over(width, height, size, memory)
        tensor, (top, left), (inner_h, inner_w) = frame.tensor, frame.begins, frame.place.shape[:2]
        bottom, right = top + inner_h, left + inner_w
        for around in (tensor[:top], tensor[bottom:], tensor[:, :left], tensor[:, right:]):
            around[:] = GREY
        return frame

    @classmethod
    def over(cls, width: int, height: int, size: InputSize, memory: Image | None = None) -> Self:
        """Lay it over what is there: a picture's tensor, if one was made in this memory.

        A dynamic network gets the smallest multiple of its stride that holds the picture: for 16:9
        that is 0.6 of the square's work.
        """
        inner_w, inner_h = _inner(width, height, size.gain(width, height))
        pad_w, pad_h = size.width - inner_w, size.height - inner_h
        if size.dynamic:
            pad_w, pad_h = pad_w % size.stride, pad_h % size.stride
        left, top = _before(pad_w), _before(pad_h)
        shape = inner_h + pad_h, inner_w + pad_w, 3
        if memory is None:
            tensor = np.empty(shape, np.uint8)
        else:
            tensor = memory[: math.prod(shape)].reshape(shape)
        fit = Letterbox.within(shape, width, height)
        return cls(tensor, tensor[top : top + inner_h, left : left + inner_w], fit, (top, left))

    def is_for(self, width: int, height: int) -> bool:
        """Say whether it was made for a picture of this size."""
        return (self.fit.width, self.fit.height) == (width, height)


def letterbox(
    image: Image,
    size: InputSize,
    reduced: int = 1,
    frame: Frame | None = None,
    memory: Image | None = None,
) -> tuple[Image, Letterbox]:
    """Fit `image` into a network's input without bending it.

    image: (H, W, 3) uint8, not empty (`decode` refuses those); `reduced`: by how much it was when
    it was decoded, in which case it needs no further scaling. frame: one to use if it is for this
    size; the image may be in its place already. memory: where to make another. Returns a
    (height, width, 3) uint8 tensor, the image centred on grey 114, and what maps boxes back.
    Source, to the pixel: `LetterBox` of the public YOLO package.
    """
    height, width = (side * reduced for side in image.shape[:2])
    if frame is None or not frame.is_for(width, height):
        frame = Frame.of(width, height, size, memory)
    if image is frame.place:
        pass
    elif image.shape == frame.place.shape:
        frame.place[:] = image
    else:
        inner_h, inner_w = frame.place.shape[:2]
        cv2.resize(image, (inner_w, inner_h), dst=frame.place, interpolation=cv2.INTER_LINEAR)
    return frame.tensor, frame.fit


def _inner(width: int, height: int, gain: float) -> tuple[int, int]:
    return max(1, round(width * gain)), max(1, round(height * gain))


def _before(padding: int) -> int:
    """Say how much of the padding comes first; an odd pixel goes right and below."""
    return round(padding / 2 - 0.1)
