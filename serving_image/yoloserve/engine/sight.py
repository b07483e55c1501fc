"""Does a network see at all? Its raw scores for unlike pictures, before any threshold.

A network that is fed wrongly (bytes that it divides by 255 once more, an input of whole numbers)
loads, answers and finds nothing. What it was made to find is not known here, so finding nothing in
our pictures says nothing. But the scores of one that sees differ from picture to picture, if not in
their values then in their orders of magnitude; those of a blind one are the same. Pure.
"""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from yoloserve.detections.heads import scores_of
from yoloserve.detections.postprocess import Head, Output
from yoloserve.images.letterbox import GREY, Image

BLOCK = 16  # pixels of a side: finer patterns are averaged away before they reach a score
# Networks that see, of pictures that hold nothing for them, differ by several units in the logit
# of most scores; networks fed with a 255th of the picture by 0.1 to 0.3, and by 0.001 in the score.
LEAST_CHANGE = 0.01  # of any score
LEAST_LOGIT_CHANGE = 0.5  # in the middle of all scores
LEAST_SCORE = 1e-7  # what half precision still holds


def pictures(shape: tuple[int, int], photo: Image) -> Iterator[Image]:
    """Give tensors of (height, width, 3) that are as unlike as can be: grey first, then `photo`."""
    height, width = shape
    yield np.full((height, width, 3), GREY, np.uint8)
    yield cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
    few = np.random.default_rng(0).integers(
        0, 256, (-(-height // BLOCK), -(-width // BLOCK), 3), np.uint8
    )
    yield np.repeat(np.repeat(few, BLOCK, 0), BLOCK, 1)[:height, :width].copy()
    night = np.zeros((height, width, 3), np.uint8)
    night[height // 3 : height // 2, width // 3 : width // 2] = 255
    yield night


def sees(outputs: Sequence[Output], head: Head) -> bool | None:
    """Say whether the scores depend on the picture; none where the graph has hidden them.

    outputs: of unlike pictures. A graph that suppresses by itself hands out what has passed its
    threshold: rows of zeros where nothing did.
    """
    scores = [scores_of(output, head) for output in outputs]
    if len({each.shape for each in scores}) > 1:
        return True  # as many rows as there are objects
    if head is Head.END_TO_END and not any(output.any() for output in outputs):
        return None
    all_scores = np.stack(scores)
    if all_scores.size == 0:
        return None
    if _range(all_scores).max() >= LEAST_CHANGE:
        return True
    exact = all_scores.astype(np.float64)
    least = exact[exact > 0].min(initial=LEAST_SCORE)  # single precision holds far smaller ones
    held = np.clip(exact, least, 1 - LEAST_SCORE)
    return bool(np.median(_range(np.log(held / (1 - held)))) >= LEAST_LOGIT_CHANGE)


def widest_change(outputs: Sequence[Output], head: Head) -> float:
    """Return by how much the score that differs most does, for whoever is told of it."""
    return float(_range(np.stack([scores_of(output, head) for output in outputs])).max(initial=0))


def _range(scores: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.asarray(np.ptp(scores, axis=0))
