"""Writes the package's answers, to which the tests hold this server without the package."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from ultralytics.data.augment import LetterBox
from ultralytics.utils import ops

from parity import reference
from parity.compare import OPTIONS
from parity.pictures import EXAMPLES, SIZES
from yoloserve.detections.postprocess import Detections, Output

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "serving_image" / "yoloserve" / "bundled"
TESTS = ROOT / "tests" / "serving"
FAMILIES = "yolov5n", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo26n"
SIDE, CLASSES, PASSING = 320, 4, 12
ALL = replace(OPTIONS, confidence=0.0005)  # most of what is kept of each raw output
STRIDE, BOX = 32, [[10.25, 20.5, 300.75, 30.5]]  # of the tensor, to be mapped back
KEPT = 40  # places of a raw output, the surest; the others are below any threshold


def write(folder: Path) -> int:
    """Write the fixtures of the bundled models, of each family's heads, and of the letterbox."""
    _dump(TESTS / "reference.json", {"confidence": OPTIONS.confidence, "answers": _bundled()})
    told = {"confidence": ALL.confidence, "iou": ALL.iou}
    _dump(TESTS / "reference_heads.json", told | {"heads": list(_heads(folder))})
    fits = {"stride": STRIDE, "box": BOX, "fits": list(_letterboxes())}
    _dump(TESTS / "reference_letterbox.json", fits)
    return 0


def _dump(path: Path, told: dict[str, object]) -> None:
    """Write a line for each entry of a list: small, and readable in a diff."""
    text = json.dumps({"package": reference.VERSION} | told, separators=(",", ":"))
    for mark in ('{"family"', '{"picture"', "[["):
        text = text.replace(mark, f"\n{mark}")
    path.write_text(text + "\n")


def _rows(found: Detections) -> list[list[float]]:
    return [
        [*(round(edge, 3) for edge in box), round(score, 5), kind]
        for box, score, kind in zip(
            found.boxes.tolist(), found.scores.tolist(), found.classes.tolist(), strict=True
        )
    ]


def _bundled() -> dict[str, object]:
    """Ask for every picture of the repository, on the bundled models."""
    return {
        model: {
            str(picture.relative_to(ROOT)): _rows(
                reference.ask(MODELS / f"{model}.onnx", picture, OPTIONS, SIDE).detections
            )
            for picture in (*EXAMPLES, MODELS / "probe.jpg")
        }
        for model in ("shapes", "shapes-v2")
    }


def _heads(folder: Path) -> Any:
    """Run each head on one picture, keep what matters of its raw output, and ask what it means."""
    picture, (height, width) = EXAMPLES[1], (720, 1280)
    for family in FAMILIES:
        model = reference.awake(family, SIDE, EXAMPLES, CLASSES, PASSING)
        forms = ["ONNX, free size", "ONNX, NMS inside"]
        forms += ["ONNX, end to end"] if family.startswith(reference.END_TO_END) else []
        for form, path in reference.exported(model, family, forms, SIDE, folder):
            answer = reference.ask(path, picture, OPTIONS, SIDE)
            kept = _significant(answer.output)
            output = np.array(kept, np.float32)
            found = reference.suppressed(output, answer.tensor.shape[:2], (height, width), ALL)
            yield {
                "family": family,
                "exported": form,
                "metadata": _metadata(path),
                "shape": answer.output.shape,
                "tensor": answer.tensor.shape[:2],
                "picture": [height, width],
                "output": kept,
                "boxes": _rows(found),
            }


def _significant(output: Output) -> list[list[float]]:
    """Keep the surest places, and five digits of each number."""
    if output.shape[1] == 6:
        kept = output[: max(1, int((output[:, 4] > 0.05).sum()))]
    else:
        order = np.argsort(-output[4:].max(axis=0), kind="stable")[:KEPT]
        kept = output[:, np.sort(order)]
    return [[float(f"{value:.5g}") for value in row] for row in kept.tolist()]


def _metadata(path: Path) -> dict[str, str]:
    told = {each.key: each.value for each in onnx.load(path).metadata_props}
    return {k: v for k, v in told.items() if k not in ("date", "description", "docs", "author")}


def _letterboxes() -> Any:
    """Fit pictures of many sizes into free and fixed tensors, and map a box of them back."""
    more: Sequence[tuple[int, int]] = ((640, 480), (1280, 720), (1, 1), (3000, 1), (1, 3000))
    box = np.array(BOX, np.float32)
    for free in (True, False):
        for side in (SIDE, 640):
            for width, height in (*SIZES, *more):
                fit = LetterBox((side, side), auto=free, stride=STRIDE)
                image = np.full((height, width, 3), 7, np.uint8)
                tensor = fit(image=image)
                rows, columns = np.nonzero((tensor != 114).all(axis=2))
                boxes = ops.scale_boxes(tensor.shape[:2], box.copy(), (height, width))
                yield {
                    "picture": [width, height],
                    "free": free,
                    "side": side,
                    "tensor": tensor.shape[:2],
                    "inner": [int(each) for each in (columns[0], rows[0], columns[-1], rows[-1])],
                    "mapped": [round(float(edge), 3) for edge in boxes[0]],
                }
