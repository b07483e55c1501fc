"""From the raw output of a network to detections in the pixels of the image; pure.

The filter comes first: of the thousands of places a network looks at, a handful pass the
threshold, and everything after it touches only those.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from yoloserve.detections.surest import BOX, CLASS, SCORE, Surest
from yoloserve.images.letterbox import Boxes, Letterbox

Output = NDArray[np.float32]  # one image's share of what the network returned
FIRST_LOOK = 1000  # boxes the suppression looks at before it asks whether that was enough
CLASS_STEP = 7680.0  # pixels by which the reference moves the boxes of each class from the last's
FAR = 2.0**16  # pixels: there is no such picture, and of what reaches further fp32 may overflow


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller wants to see."""

    confidence: float
    iou: float
    max_detections: int
    classes: frozenset[int] | None = None  # all of them
    agnostic_nms: bool = False  # a box suppresses those of other classes, too

    def lower(self, by: float) -> Self:
        """Go so far below the threshold: what is above it in the answer stays as it is."""
        return replace(self, confidence=max(0.0, self.confidence - by))


@dataclass(frozen=True, slots=True)
class Detections:
    """What was found, surest first."""

    boxes: Boxes
    scores: NDArray[np.float32]  # (N,)
    classes: NDArray[np.int64]  # (N,)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, which: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Self:
        return type(self)(self.boxes[which], self.scores[which], self.classes[which])


class Head(enum.Enum):
    """The layouts of a detection head, as exporters write them; `heads` tells which one it is."""

    ANCHOR_FREE = "(4 + classes, places): YOLOv8, v9, 11, 12"
    ANCHOR_FREE_ROWS = "(places, 4 + classes): the same, transposed"
    OBJECTNESS = "(places, 5 + classes): YOLOv5, v6, v7"
    END_TO_END = "(detections, 6), suppression done in the graph: YOLOv10, 26"


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Boxes of which the surest thousand do not suffice: the others take up to seconds."""

    found: Detections  # surest first, in the tensor's pixels
    fit: Letterbox
    options: Options

    @property
    def work(self) -> float:
        """Tell how much it is at most: millions of pairs."""
        return (len(self.found) / 1000) ** 2

    def finished(self) -> Detections:
        """Look at them all, if need be."""
        wants = self.options
        kept = suppress(
            self.found, iou=wants.iou, limit=wants.max_detections, agnostic=wants.agnostic_nms
        )
        return _in_image(kept, self.fit)


def postprocess(output: Output, head: Head, fit: Letterbox, options: Options) -> Detections:
    """Turn one image's raw output into detections in its own pixels."""
    begun = begin(output, head, fit, options)
    return begun.finished() if isinstance(begun, Unfinished) else begun


def begin(
    output: Output | Surest, head: Head, fit: Letterbox, options: Options
) -> Detections | Unfinished:
    """Do of `postprocess` what takes ten milliseconds at most, which usually is all of it."""
    found = candidates(output, head, options.confidence)
    if options.classes is not None:
        found = found[np.isin(found.classes, list(options.classes))]
    found = _by_score(found)
    if head is Head.END_TO_END and not options.agnostic_nms:
        return _in_image(found[: options.max_detections], fit)
    kept = _greedy(found[:FIRST_LOOK], options.iou, options.agnostic_nms)[: options.max_detections]
    if len(kept) < options.max_detections and len(found) > FIRST_LOOK:
        return Unfinished(found, fit, options)
    return _in_image(found[kept], fit)


def _in_image(found: Detections, fit: Letterbox) -> Detections:
    return Detections(fit.to_image(found.boxes), found.scores, found.classes)


class UnnamedClass(Exception):
    """The network found an object of a class that its list has no name for."""


def require_named(found: Detections, names: Sequence[str]) -> None:
    """Raise `UnnamedClass` if there is an object that nobody can name: another name is a lie."""
    if numbers := unnamed(found, names):
        raise UnnamedClass(
            f"the network found an object of class {min(numbers)}, but the list of classes has "
            f"{len(names)}, from 0: give all that it was trained on (spec.model.classes)"
        )


def unnamed(found: Detections, names: Sequence[str]) -> set[int]:
    """Return the classes of what was found that have no name."""
    return set(found.classes.tolist()).difference(range(len(names)))


def candidates(output: Output | Surest, head: Head, confidence: float) -> Detections:
    """Gather what is surer than `confidence`; boxes in the tensor's pixels, by their places.

    Without what is not finite (a network in half precision overflows): one such box would be enough
    to switch suppression off.
    """
    found = _above(output, head, confidence)
    boxes, scores = np.isfinite(found.boxes), np.isfinite(found.scores)
    return found if boxes.all() and scores.all() else found[boxes.all(axis=1) & scores]


def _above(output: Output | Surest, head: Head, confidence: float) -> Detections:
    if isinstance(output, Surest):
        sure = output.above(confidence)
        if sure is None:
            return _above(output.whole(), head, confidence)
        return Detections(_corners(sure[:, BOX]), sure[:, SCORE], sure[:, CLASS].astype(np.int64))
    if head is Head.END_TO_END:
        sure = output[(output[:, 4] > confidence) & np.isfinite(output[:, 5])]
        return Detections(sure[:, :4], sure[:, 4], sure[:, 5].astype(np.int64))
    if head is Head.OBJECTNESS:
        # A class score is at most 1, so the objectness alone rules most places out.
        sure = output[output[:, 4] > confidence]
        columns = np.concatenate((sure[:, :4], sure[:, 5:] * sure[:, 4:5]), axis=1).T
    else:
        columns = output.T if head is Head.ANCHOR_FREE_ROWS else output
    best = columns[4:].max(axis=0, initial=-np.inf)  # the column maximum: 5x cheaper than argmax
    columns = columns[:, best > confidence]
    classes = columns[4:].argmax(axis=0)
    scores = columns[4:][classes, np.arange(len(classes))]
    return Detections(_corners(columns[:4].T), scores, classes)


def suppress(found: Detections, *, iou: float, limit: int, agnostic: bool = False) -> Detections:
    """Keep the surest box of each heap of boxes of one class: greedy NMS, at most `limit`.

    A box goes if its IoU with a surer, kept one of its class is above `iou`; when agnostic, of any
    class. Greedy suppression of a prefix is the prefix of the suppression, so the surest boxes are
    tried first and more only if they did not yield enough: however many boxes pass, the work is
    bounded.
    """
    found = _by_score(found)
    look_at = FIRST_LOOK
    while True:
        kept = _greedy(found[:look_at], iou, agnostic)[:limit]
        if len(kept) == limit or look_at >= len(found):
            return found[kept]
        look_at *= 4


def surest(boxes: Boxes, scores: NDArray[np.float32], iou: float) -> NDArray[np.int64]:
    """Number the boxes that suppress all others, surest first, whatever their classes."""
    order = np.argsort(-scores, kind="stable")
    found = Detections(boxes[order], scores[order], np.zeros(len(order), np.int64))
    return order[_greedy(found, iou, agnostic=True)]


def _greedy(found: Detections, iou: float, agnostic: bool) -> NDArray[np.int64]:
    if len(found) == 0:
        return np.empty(0, np.int64)
    apart = found.boxes.astype(np.float32).clip(-FAR, FAR)
    if agnostic:
        return _heaps(apart, found.scores, iou)
    # Classes are kept apart by moving each into a part of the plane of its own: in fp32 and as far
    # as the reference does, which rounds corners there to as much as a sixteenth of a pixel. Of two
    # boxes that overlap by just the threshold, the same one goes.
    fits = np.ptp(apart) < CLASS_STEP
    apart += found.classes.astype(np.float32)[:, None] * np.float32(CLASS_STEP)
    if fits:
        return _heaps(apart, found.scores, iou)
    # A larger step would round all corners by more: one class at a time, each where it always is.
    each = (np.flatnonzero(found.classes == number) for number in np.unique(found.classes))
    return np.sort(np.concatenate([a[_heaps(apart[a], found.scores[a], iou)] for a in each]))


def _heaps(boxes: Boxes, scores: NDArray[np.float32], iou: float) -> NDArray[np.int64]:
    """Number the surest box of each heap, in their order."""
    sized = np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1)
    # A box without an inside overlaps nothing; OpenCV would say it overlaps its like wholly.
    real = (sized[:, 2:] > 0).all(axis=1)
    # Lists, not arrays: OpenCV takes longer to convert an array than to suppress its boxes.
    kept = cv2.dnn.NMSBoxes(sized[real].tolist(), scores[real].tolist(), 0.0, iou)
    rows = np.flatnonzero(real)[np.asarray(kept, np.int64).reshape(-1)]
    return np.sort(np.concatenate((rows, np.flatnonzero(~real))))


def iou(boxes: Boxes, other: Boxes) -> NDArray[np.float32]:
    """Overlap of each box (N, 4) with each other (M, 4): (N, M), intersection over union."""
    shared = intersection(boxes, other)
    areas, others = (np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (boxes, other))
    union = areas[:, None] + others[None, :] - shared
    ratio: NDArray[np.float32] = np.zeros_like(shared)
    np.divide(shared, union, out=ratio, where=union > 0)
    return ratio


def intersection(boxes: Boxes, other: Boxes) -> NDArray[np.float32]:
    """Area that each box (N, 4) shares with each other (M, 4): (N, M)."""
    low = np.maximum(boxes[:, None, :2], other[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], other[None, :, 2:])
    return np.asarray(np.prod(np.clip(high - low, 0, None), axis=2))


def _by_score(found: Detections) -> Detections:
    return found[np.argsort(-found.scores, kind="stable")]


def _corners(boxes: Boxes) -> Boxes:
    """Turn centre, width and height into corners."""
    half = boxes[:, 2:] / 2
    return np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), axis=1)
