"""What the engine asks of a runtime. A new runtime is one more file that keeps this promise."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from yoloserve.detections.postprocess import Head
from yoloserve.detections.surest import Surest
from yoloserve.errors import ModelUnsupported
from yoloserve.images.letterbox import Image, InputSize
from yoloserve.model.metadata import Metadata
from yoloserve.model.weights import ModelFile
from yoloserve.settings import PrecisionName, Profile

Tensors = NDArray[np.uint8]  # (N, H, W, 3), BGR: a quarter of the bytes of what networks take
Outputs = NDArray[np.float32]  # (N, …), as the head writes it

RANK = 4  # of an input
MOST_RANK = 3  # of an output with objects: batch, places, numbers
STREAMS = 2  # of `realtime`: 1.2x the throughput of one stream with all threads


@dataclass(frozen=True, slots=True)
class Tuning:
    """How to run a network here."""

    precision: PrecisionName  # one of the backend's own, never AUTO
    profile: Profile
    threads: int
    max_batch: int
    image_size: int  # 0: the model's own
    stride: int  # the same
    cache_dir: str  # for compiled models; empty: none


class Backend(Protocol):
    """One network, loaded into one runtime on one device."""

    device: str
    precision: PrecisionName
    metadata: Metadata
    input_size: InputSize
    lanes: int  # calls of `infer` that may run at the same time, each with its own lane
    max_batch: int

    def infer(self, lane: int, tensors: Tensors) -> Outputs:
        """Run the network; the answer is the caller's own and is not written to again."""


@runtime_checkable
class Picks(Protocol):
    """What a backend may do besides: leave outputs where they are, and give the surest of them."""

    def suit(self, head: Head) -> None:
        """Learn how outputs are read, before the first call; what is known to come is prepared."""

    def surest(self, lane: int, tensors: Sequence[Image]) -> list[Surest] | None:
        """Run the network; the outputs themselves can be had until the lane's next call.

        None, and nothing has run: there is nothing to pick from.
        """


class BackendType(Protocol):
    """How the engine makes one."""

    @staticmethod
    def precisions() -> tuple[PrecisionName, ...]:
        """Say what can be computed here without emulation, the preferred one first."""

    def __call__(self, model: ModelFile, tuning: Tuning) -> Backend:
        """Load a model; raise whatever the runtime raises for one it cannot run."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The input of a graph, taken apart; None is free."""

    batch: int | None
    height: int | None
    width: int | None


def entry_of(
    inputs: Sequence[Sequence[int | None]], described: str = "", *, in_rows: bool = False
) -> Entry:
    """Take apart the shape of a graph's one input; raise `ModelUnsupported` if it is no image.

    in_rows: (N, H, W, 3), bytes as they are decoded; else planes, (N, 3, H, W). told: the input as
    its runtime writes it.
    """
    if len(inputs) != 1:
        raise ModelUnsupported(f"the model has {len(inputs)} inputs: give one image")
    shape = list(inputs[0])
    if len(shape) != RANK or shape.pop(-1 if in_rows else 1) not in (3, None):
        raise ModelUnsupported(f"the model's input is {described or inputs[0]}, no image")
    return Entry(*shape)


def lanes_and_batch(entry: Entry, metadata: Metadata, tuning: Tuning) -> tuple[int, int]:
    """Split the device: a few lanes of single images, or one lane of batches.

    A graph that takes any number may look at some of them only (`metadata.unrolled`). One for
    several is run full whatever the profile, so as many are put into it.
    """
    if entry.batch is not None and entry.batch > 1:
        return 1, entry.batch
    batch = min(tuning.max_batch, metadata.unrolled or tuning.max_batch)
    if tuning.profile is Profile.THROUGHPUT and entry.batch is None and batch > 1:
        return 1, batch
    return min(STREAMS, tuning.threads), 1


def require_one_output(ranks: Sequence[int]) -> None:
    """Raise `ModelUnsupported` for a graph that gives boxes and scores apart, as SSD or DETR do.

    ranks: of all outputs. What YOLOv5 adds to its first, raw maps, has more dimensions.
    """
    if any(rank <= MOST_RANK for rank in ranks[1:]):
        raise ModelUnsupported(
            f"the model has {len(ranks)} outputs, as one that gives boxes and scores apart: export "
            "them joined into one, (batch, 4 + classes, places) say"
        )


def require_numbers(kind: str, known: Collection[str]) -> None:
    """Raise `ModelUnsupported` for a network whose input is not in floating point."""
    if kind not in known:
        raise ModelUnsupported(
            f"the model's input is of type {kind}: networks here get RGB from 0 to 1 in floating "
            "point, and one for bytes would see black; export it without its own conversion"
        )


def filled(tensors: Tensors, fixed: int | None) -> Tensors:
    """Fill a batch up to the one that the graph takes; what it says of the rest is cut off."""
    if fixed is None or len(tensors) == fixed:
        return tensors
    return np.concatenate((tensors, np.zeros((fixed - len(tensors), *tensors.shape[1:]), np.uint8)))


def input_size(entry: Entry, metadata: Metadata, tuning: Tuning) -> InputSize:
    """Combine what the graph fixes, says and was asked for."""
    fixed = entry.height, entry.width
    wanted = (tuning.image_size, tuning.image_size) if tuning.image_size else metadata.image_size
    height, width = (
        size if size is not None else want for size, want in zip(fixed, wanted, strict=True)
    )
    if tuning.image_size and (height, width) != wanted:
        raise ModelUnsupported(
            f"the model's input is fixed at {width} x {height} pixels, not {tuning.image_size}: "
            "leave the image size out, or export the model with a dynamic input"
        )
    stride = tuning.stride or metadata.stride
    if fixed == (None, None) and (height % stride or width % stride):
        raise ModelUnsupported(
            f"the model's stride is {stride} pixels, and {width} x {height} is no multiple of it: "
            f"give {-(-max(width, height) // stride) * stride} as the image size"
        )
    return InputSize(height, width, stride, dynamic=fixed == (None, None))
