"""Our mean average precision is COCO's own, as a well-kept implementation of it computes it."""

from collections.abc import Sequence

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster
from hypothesis import given, settings
from hypothesis import strategies as st

from yoloserve.detections.postprocess import Detections
from yoloserve.quality.scores import AreaRange, Truth, score

SMALL, MEDIUM, LARGE = AreaRange(0, 32**2), AreaRange(32**2, 96**2), AreaRange(96**2)
EXACT = 1e-6


def reference(
    found: Sequence[Detections], truth: Sequence[Truth], classes: int, areas: AreaRange
) -> np.ndarray:
    """Return the table of `score`, by faster-coco-eval."""
    boxes = [
        (picture, box, int(kind), int(row in known.crowds))
        for picture, known in enumerate(truth, 1)
        for row, (box, kind) in enumerate(zip(known.boxes, known.classes, strict=True))
    ]
    known = COCO(
        {
            "info": {},
            "images": [{"id": n, "width": 640, "height": 640} for n in range(1, len(truth) + 1)],
            "categories": [{"id": n, "name": str(n)} for n in range(classes)],
            "annotations": [
                {"id": n, "image_id": at, "category_id": kind, "iscrowd": crowd}
                | {"bbox": _sides(box), "area": float(np.prod(_sides(box)[2:]))}
                for n, (at, box, kind, crowd) in enumerate(boxes, 1)
            ],
        }
    )
    seen = [
        {"image_id": at, "category_id": int(kind), "bbox": _sides(box), "score": float(sure)}
        for at, each in enumerate(found, 1)
        for box, sure, kind in zip(each.boxes, each.scores, each.classes, strict=True)
    ]
    judge = COCOeval_faster(known, known.loadRes(seen), "bbox", print_function=lambda *_: None)
    judge.params.maxDets = [10_000]
    judge.params.areaRng, judge.params.areaRngLbl = [[areas.low, min(areas.high, 1e10)]], ["all"]
    judge.evaluate()
    judge.accumulate()
    precision = judge.eval["precision"][:, :, :, 0, 0]  # threshold, recall, class
    told = np.where((precision < 0).any(1), np.nan, precision.mean(1))
    return told.T


def _sides(box: np.ndarray) -> list[float]:
    x1, y1, x2, y2 = map(float, box)
    return [x1, y1, x2 - x1, y2 - y1]


def agree(
    found: Sequence[Detections], truth: Sequence[Truth], classes: int, areas: AreaRange
) -> None:
    ours = score(found, truth, classes, areas).table
    np.testing.assert_allclose(ours, reference(found, truth, classes, areas), atol=EXACT, rtol=0)


def pictures(seed: int, count: int, classes: int, size: float, crowded: float) -> tuple[list, list]:
    """Make objects, and detections that are theirs moved a little, doubled, missing or made up."""
    generator = np.random.default_rng(seed)
    found, truth = [], []
    for _ in range(count):
        objects = int(generator.integers(0, 8))
        low = generator.uniform(0, 400, (objects, 2))
        boxes = np.hstack((low, low + generator.uniform(4, size, (objects, 2))))
        kinds = generator.integers(0, classes, objects)
        crowds = tuple(np.flatnonzero(generator.random(objects) < crowded).tolist())
        truth.append(Truth(boxes.astype(np.float32), kinds, crowds))
        moved = np.repeat(boxes, 3, 0) + generator.normal(0, size / 20, (3 * objects, 4))
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        told = np.where(generator.random(3 * objects) < 0.9, np.repeat(kinds, 3), 0)
        keep = generator.random(3 * objects) < 0.7
        # Distinct: of equal scores COCO's order is that of its sort, and no part of the definition.
        sure = (
            generator.permutation(3 * objects) / 100 + generator.random() / 1000 + len(truth) / 1e5
        )
        detections = Detections(
            moved[keep].astype(np.float32), sure[keep].astype(np.float32), told[keep]
        )
        found.append(detections)
    return found, truth


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32),
    st.integers(1, 6),
    st.integers(1, 3),
    st.sampled_from([20, 60, 200]),
    st.sampled_from([0, 0.3]),
)
def test_random_pictures_score_as_by_the_reference(
    seed: int, count: int, classes: int, size: float, crowded: float
) -> None:
    found, truth = pictures(seed, count, classes, size, crowded)
    if sum(map(len, found)):
        for areas in (AreaRange(), SMALL, MEDIUM, LARGE):
            agree(found, truth, classes, areas)


BOX = [10, 10, 50, 50]


def told(*rows: tuple[list[float], float]) -> Detections:
    return Detections(
        np.array([box for box, _ in rows], np.float32).reshape(-1, 4),
        np.array([sure for _, sure in rows], np.float32),
        np.zeros(len(rows), np.int64),
    )


def known(*boxes: list[float], crowds: tuple[int, ...] = ()) -> Truth:
    return Truth(np.array(boxes, np.float32).reshape(-1, 4), np.zeros(len(boxes), np.int64), crowds)


@pytest.mark.parametrize(
    ("found", "truth"),
    [
        ([told((BOX, 0.9))], [known(BOX)]),
        ([told((BOX, 0.9), (BOX, 0.8))], [known(BOX)]),  # seen twice
        ([told((BOX, 0.9))], [known(BOX, BOX)]),  # two objects in one place
        ([told((BOX, 0.9), (BOX, 0.8))], [known(BOX, BOX)]),
        ([told((BOX, 0.9))], [known()]),  # nothing is there at all
        ([told((BOX, 0.9)), told()], [known(), known(BOX)]),  # each in the other's picture
        ([told(([10, 10, 50, 30], 0.9))], [known(BOX)]),  # IoU of exactly 0.5
        ([told(([10, 10, 50, 40], 0.9))], [known(BOX)]),  # and of exactly 0.75
        ([told((BOX, 0.9), ([12, 10, 52, 50], 0.95))], [known(BOX)]),  # the surer is the worse one
        ([told(([0, 0, 30, 30], 0.9))], [known([0, 0, 34, 34])]),  # small, on one that is not
        # Several in a crowd, sure of themselves, and each of them inside of it but for a half.
        (
            [told(([5, 5, 25, 25], 0.9), ([30, 5, 50, 25], 0.8), (BOX, 0.5), ([90, 5, 110, 9], 1))],
            [known([0, 0, 100, 100], BOX, crowds=(0,))],
        ),
        ([told((BOX, 0.9), (BOX, 0.8))], [known(BOX, BOX, crowds=(0,))]),  # the object first
        ([told(([10, 10, 10, 50], 0.9))], [known([0, 0, 90, 90], BOX, crowds=(0,))]),  # no inside
    ],
)
@pytest.mark.parametrize("areas", [AreaRange(), SMALL, MEDIUM])
def test_edge_cases_score_as_by_the_reference(
    found: list[Detections], truth: list[Truth], areas: AreaRange
) -> None:
    agree(found, truth, 1, areas)
