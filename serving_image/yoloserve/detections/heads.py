"""Which layout a network's output is in: by its shape, its metadata and what its numbers can mean.

A shape alone does not tell: (300, 6) is an end-to-end head, and two classes of RT-DETR; (8400, 85)
is a decoded head with objectness, and YOLOX's, which counts from its grid. So the numbers that the
network gives for several pictures are held against what each layout says they are. What remains
undecided is refused, with the choices: wrong boxes are worse than none. Pure.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from yoloserve.detections.postprocess import Head, Output
from yoloserve.errors import ModelUnsupported
from yoloserve.settings import HeadName

SLACK = 0.05  # by which rounding, to 8 bits even, moves a score past 0 or 1
NORMALISED = 2.0  # a coordinate in pixels is larger somewhere; one from 0 to 1 is not
PADDING = -1.0  # class and score of rows that some graphs fill up with
MOSTLY = 0.9  # of the rows: what a head says of background may be odd
FEW = 100  # places of a whole head are more, those of a sample may all be large
REACH = 1 / 8  # of the picture's side: some place of a decoded head is further from the corner
SAY = "say which it is: YOLOSERVE_HEAD (spec.model.head) is one of " + ", ".join(
    name for name in HeadName if name is not HeadName.AUTO
)


def recognise(
    outputs: Sequence[Output],
    size: tuple[int, int],
    classes: int,
    *,
    end_to_end: bool | None = None,
    said: HeadName = HeadName.AUTO,
) -> Head:
    """Tell the head of a model with so many classes.

    outputs: for several pictures, without the batch. size: of their tensors, height and width.
    end_to_end: what the metadata says; said: what the user does. Raises `ModelUnsupported`.
    """
    shape = outputs[0].shape
    if said is not HeadName.AUTO:
        if not fits(Head[said.name], shape, classes):
            raise ModelUnsupported(
                f"the output {shape} of a model of {classes} classes is not {said}, which is "
                f"{Head[said.name].value}: change YOLOSERVE_HEAD (spec.model.head), or the classes"
            )
        return _named(Head[said.name], outputs, classes)
    possible = [head for head in Head if fits(head, shape, classes)]
    if Head.END_TO_END in possible and end_to_end is not None:
        if end_to_end:
            return _named(Head.END_TO_END, outputs, classes)
        possible.remove(Head.END_TO_END)
    if not possible:
        raise ModelUnsupported(
            f"the output {shape} fits no detection head of {classes} classes: expected "
            f"({4 + classes}, N), (N, {4 + classes}), (N, {5 + classes}) or (N, 6)"
            f"{_looks_like(shape)}"
        )
    doubts = {head: _doubt(head, outputs, size, classes) for head in possible}
    left = [head for head, doubt in doubts.items() if doubt is None]
    if len(left) == 1:
        return left[0]
    if left:
        choices = " or ".join(f"{_name(head)} {head.value}" for head in left)
        raise ModelUnsupported(
            f"the output {shape} of a model of {classes} classes could be {choices}: {SAY}"
        )
    why = "; ".join(f"{_name(head)}: {doubt}" for head, doubt in doubts.items())
    raise ModelUnsupported(
        f"the output {shape} of a model of {classes} classes is no head that is served here ({why})"
        f": export boxes in pixels, with scores from 0 to 1, or {SAY}"
    )


def _named(head: Head, outputs: Sequence[Output], classes: int) -> Head:
    """Raise `ModelUnsupported` if the list of classes is too short for what the graph finds."""
    if head is Head.END_TO_END:
        most = max(output[output[:, 4] > 0, 5].max(initial=0) for output in outputs)
        if most >= classes:
            raise ModelUnsupported(
                f"the model finds objects of class {most:g}, but the list of classes has {classes},"
                " from 0: give all that it was trained on (spec.model.classes)"
            )
    return head


def fits(head: Head, shape: tuple[int, ...], classes: int) -> bool:
    """Say whether an output of this shape can be this head's."""
    if len(shape) != 2:
        return False
    rows, columns = shape
    return {
        Head.ANCHOR_FREE: rows == 4 + classes,
        Head.ANCHOR_FREE_ROWS: columns == 4 + classes,
        Head.OBJECTNESS: columns == 5 + classes,
        Head.END_TO_END: columns == 6,
    }[head]


def scores_of(output: Output, head: Head) -> NDArray[np.float32]:
    """Return all scores of an output, before any threshold; of any shape."""
    if head is Head.END_TO_END:
        return output[:, 4]
    return _rows(output, head)[:, 4:]


def _rows(output: Output, head: Head) -> NDArray[np.float32]:
    return output.T if head is Head.ANCHOR_FREE else output


def _doubt(
    head: Head, outputs: Sequence[Output], size: tuple[int, int], classes: int
) -> str | None:
    """Say what the numbers cannot be, if they were this head's; none where they fit."""
    rows = np.concatenate([_rows(output, head) for output in outputs])
    rows = rows[np.isfinite(rows).all(axis=1)]
    if head is Head.END_TO_END:
        return _doubt_of_objects(rows[(rows != 0).any(axis=1)], classes)
    return _doubt_of_places(rows, size)


def _doubt_of_objects(rows: NDArray[np.float32], classes: int) -> str | None:
    scores, numbers = rows[:, 4], rows[:, 5]
    wrong = (numbers != np.round(numbers)) | (numbers < PADDING) | (numbers >= classes)
    if wrong.any():
        return f"the last column has {numbers[wrong][0]:.3g}, no class from 0 to {classes - 1}"
    if (doubt := _no_scores(scores[scores != PADDING])) is not None:
        return doubt
    boxes = rows[scores > 0, :4]
    if len(boxes) == 0:
        return None
    if np.abs(boxes).max() <= NORMALISED:
        return "its boxes are not in pixels"
    if ((boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])).mean() > MOSTLY:
        return "its boxes are no corners x1 y1 x2 y2"
    return None


def _doubt_of_places(rows: NDArray[np.float32], size: tuple[int, int]) -> str | None:
    if (doubt := _no_scores(rows[:, 4:])) is not None:
        return doubt
    height, width = size
    x, y, third, fourth = rows[:, :4].T
    if x.max(initial=0) < REACH * width and y.max(initial=0) < REACH * height:
        return (
            "its boxes are not in pixels: they are from 0 to 1 (as RT-DETR's, which is not served) "
            "or not decoded (as YOLOX's without --decode_in_inference)"
        )
    # A place at the right edge, with a box smaller than the picture, is further right than wide.
    if len(rows) > FEW and ((third >= x) & (fourth >= y)).mean() > MOSTLY:
        return "its boxes are corners x1 y1 x2 y2, not centres with widths and heights"
    return None


def _no_scores(scores: NDArray[np.float32]) -> str | None:
    least, most = scores.min(initial=0), scores.max(initial=0)
    if least < -SLACK or most > 1 + SLACK:
        return f"its scores are from {least:.3g} to {most:.3g}, not from 0 to 1"
    return None


def _name(head: Head) -> str:
    return HeadName[head.name].value


def _looks_like(shape: tuple[int, ...]) -> str:
    """Guess for how many classes a head is made, for whoever gave the wrong list."""
    if len(shape) != 2:
        return ""
    rows, columns = shape
    classes = rows - 4 if rows < columns else columns - 5
    return f"; it looks like one for {classes}" if classes > 0 else ""
