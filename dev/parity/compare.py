"""Compares answers on one exported file and runtime, and tells why where they differ.

Three things are compared apart from the boxes: the tensor that the network is given, pixel for
pixel; the boxes that both packages make of one and the same raw output; and the raw outputs. Where
the first two are equal, what differs comes from the runtimes' rounding, and must be a tie: a box
that overlaps a surer one by just the threshold.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from yoloserve.detections.postprocess import (
    Detections,
    Head,
    Options,
    Output,
    candidates,
    iou,
    postprocess,
    suppress,
)
from yoloserve.engine.starting import Engine, start
from yoloserve.images.decoding import decode
from yoloserve.images.letterbox import letterbox
from yoloserve.quality.agreement import Agreement, agreement, comparable, paired
from yoloserve.settings import BackendName, PrecisionName, Settings

if TYPE_CHECKING:
    from parity.reference import Answer

CONFIDENCE = 0.25
OPTIONS = comparable(Options(CONFIDENCE, iou=0.7, max_detections=300))
LEAST_IOU, MOST_SCORE = 0.99, 0.01
TIE = 1e-3  # of an overlap or a score: what the runtimes' rounding can move
SAME_PLACE = 1e-3  # pixels: both divide in fp32


@dataclass(frozen=True, slots=True)
class Compared:
    """What came out on all pictures."""

    boxes: Agreement = field(default_factory=Agreement)
    other_pixels: int = 0  # values of a tensor that differ
    other_boxes: int = 0  # pictures in which one raw output gave different boxes
    output_apart: float = 0.0  # largest difference of the raw scores
    ties: tuple[str, ...] = ()
    unexplained: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Tell whether all is as it should be, ties set aside."""
        return (
            not (self.unexplained or self.other_pixels or self.other_boxes)
            and self.boxes.worst_iou >= LEAST_IOU
            and self.boxes.worst_score <= MOST_SCORE
        )

    def __add__(self, other: "Compared") -> "Compared":
        """Sum up two pictures."""
        return Compared(
            self.boxes + other.boxes,
            self.other_pixels + other.other_pixels,
            self.other_boxes + other.other_boxes,
            max(self.output_apart, other.output_apart),
            self.ties + other.ties,
            self.unexplained + other.unexplained,
        )


def running(path: Path, backend: BackendName, cache: Path) -> Engine:
    """Load the file as the server does."""
    return start(
        Settings.read(
            model=path.as_uri(),
            backend=backend,
            precision=PrecisionName.FP32,
            cache_dir=cache,
            allow_torchscript=True,  # exported here
        )
    )


def compared(engine: Engine, expected: Mapping[Path, "Answer"]) -> Compared:
    """Ask this server's engine, by the path that requests take, for every picture."""
    total = Compared()
    for picture, answer in expected.items():
        total += _picture(engine, picture, answer)
    return total


def _picture(engine: Engine, picture: Path, answer: "Answer") -> Compared:
    image = decode(picture.read_bytes(), max_pixels=10**9)
    tensor, fit = letterbox(image, engine.input_size)
    (output,) = engine.infer(0, [tensor])
    found = postprocess(output, engine.head, fit, OPTIONS)
    of_theirs = postprocess(answer.output, engine.head, fit, OPTIONS)
    same_shape = tensor.shape == answer.tensor.shape
    ties, unexplained = _explained(
        _unclipped(output, engine.head), _unclipped(answer.output, engine.head)
    )
    return Compared(
        agreement(found, answer.detections, confidence=CONFIDENCE),
        int((tensor != answer.tensor).sum()) if same_shape else tensor.size,
        int(not same(of_theirs, answer.detections)),
        _apart(output, answer.output, engine.head) if same_shape else 1.0,
        tuple(f"{picture.name}: {each}" for each in ties),
        tuple(f"{picture.name}: {each}" for each in unexplained),
    )


def same(one: Detections, other: Detections) -> bool:
    """Tell whether two lists are the same, in the same order."""
    return (
        len(one) == len(other)
        and np.array_equal(one.classes, other.classes)
        and np.array_equal(one.scores, other.scores)
        and np.allclose(one.boxes, other.boxes, rtol=0, atol=SAME_PLACE)
    )


def _apart(output: Output, other: Output, head: Head) -> float:
    """Return how far the scores are apart."""
    if head is Head.ANCHOR_FREE:
        return float(np.abs(output[4:] - other[4:]).max())
    return float(np.abs(np.sort(output[:, 4]) - np.sort(other[:, 4])).max())


def _unclipped(output: Output, head: Head) -> Detections:
    """Return what is kept, in the tensor's pixels."""
    found = candidates(output, head, OPTIONS.confidence)
    if head is Head.END_TO_END:
        return found
    return suppress(found, iou=OPTIONS.iou, limit=OPTIONS.max_detections)


def _explained(ours: Detections, theirs: Detections) -> tuple[list[str], list[str]]:
    """Tell for each box that only one answer has whether it is a tie, and with what."""
    pairs = paired(ours, theirs)
    ties: list[str] = []
    unexplained: list[str] = []
    for name, here, there, known in (
        ("extra", ours, theirs, {row for row, _ in pairs}),
        ("missing", theirs, ours, {column for _, column in pairs}),
    ):
        for number in sorted(set(range(len(here))) - known):
            if here.scores[number] <= CONFIDENCE:
                continue
            told = f"{name}: class {here.classes[number]}, score {here.scores[number]:.4f}"
            tie = _tie(here, number, there)
            (ties if tie else unexplained).append(f"{told}; {tie or 'no tie'}")
    return ties, unexplained


def _tie(here: Detections, number: int, there: Detections) -> str:
    """Find the surer box of its class that the box overlaps by just the threshold."""
    box, kind, score = here.boxes[[number]], here.classes[number], here.scores[number]
    for others in (here, there):
        rivals = others[(others.classes == kind) & (others.scores >= score - TIE)]
        overlaps = iou(box, rivals.boxes)[0]
        near = np.abs(overlaps - OPTIONS.iou) <= TIE
        if near.any():
            index = int(near.argmax())
            return (
                f"overlaps one of score {rivals.scores[index]:.4f} by {overlaps[index]:.6f}, "
                f"and {OPTIONS.iou} is the threshold"
            )
        swapped = (overlaps > OPTIONS.iou) & (np.abs(rivals.scores - score) <= TIE)
        if others is there and swapped.any():
            index = int(swapped.argmax())
            return f"the other answer keeps a neighbour of score {rivals.scores[index]:.6f}"
    same_box = there[(iou(box, there.boxes)[0] >= LEAST_IOU) & (there.classes != kind)]
    if len(same_box) and abs(same_box.scores[0] - score) <= TIE:
        return f"the other answer calls it class {same_box.classes[0]}, by {same_box.scores[0]:.4f}"
    return ""


HEADING = (
    "| family | weights | exported as | runtime | objects | missing | extra | IoU ≥ | score ± "
    "| other pixels | other boxes of one output | raw scores ± | |\n"
    "|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|"
)


def line(case: tuple[str, ...], each: Compared) -> str:
    """Lay out one comparison."""
    boxes = each.boxes
    verdict = "same" if each.good else "**differs**"
    if each.good and each.ties:
        verdict = f"same, {len(each.ties)} ties"
    return (
        f"| {' | '.join(case)} | {boxes.both} | {boxes.missing} | {boxes.extra} "
        f"| {boxes.worst_iou:.4f} | {boxes.worst_score:.5f} | {each.other_pixels} "
        f"| {each.other_boxes} | {each.output_apart:.1e} | {verdict} |"
    )
