"""What is decided about TensorRT engines, without TensorRT; pure."""

import re
from collections.abc import Mapping, Sequence

from yoloserve.engine.backends.base import Entry
from yoloserve.errors import ModelUnsupported
from yoloserve.images.letterbox import InputSize, blank
from yoloserve.settings import PrecisionName

FREE = -1  # of a dimension
Shape = tuple[int, ...]


def profile(shape: Sequence[int], size: InputSize, batch: int) -> tuple[Shape, Shape, Shape]:
    """Return the smallest input to take, the one to be fast with, and the largest.

    shape: (N, H, W, 3) of the network. One profile for all, which is fast with what most cameras
    send: a full batch of 16:9.
    """

    def filled(*wanted: int) -> Shape:
        return tuple(w if has == FREE else has for has, w in zip(shape, wanted, strict=True))

    usual = filled(batch, *blank(size).shape)
    most = filled(batch, size.height, size.width, 3)
    return filled(1, size.stride, size.stride, 3), usual, most


def sides(shape: Shape) -> list[int | None]:
    """Write free dimensions as others do."""
    return [None if side == FREE else side for side in shape]


def require_room(size: InputSize, most: Entry) -> None:
    """Raise `ModelUnsupported` unless an engine for up to `most` takes `size`."""
    if size.height > (most.height or 0) or size.width > (most.width or 0):
        raise ModelUnsupported(
            f"the engine was made for pictures of up to {most.width} x {most.height} pixels, not "
            f"{size.width} x {size.height}: convert the model again for this image size"
        )


def precision_in(metadata: Mapping[str, object]) -> PrecisionName:
    """Read what an engine computes in: our own entry, or the arguments of the public exporter."""
    if metadata.get("precision") in list(PrecisionName):
        return PrecisionName(str(metadata["precision"]))
    arguments = metadata.get("args")
    arguments = arguments if isinstance(arguments, Mapping) else {}
    if arguments.get("int8") is True or arguments.get("quantize") == 8:
        return PrecisionName.INT8
    if arguments.get("half") is True or arguments.get("quantize") == 16:
        return PrecisionName.FP16
    return PrecisionName.FP32


def file_name(*words: object) -> str:
    """Join what a file depends on to a name for it."""
    return "-".join(re.sub(r"[^a-z0-9.]+", "_", str(word).lower()) for word in words)
