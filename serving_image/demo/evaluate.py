"""Scores an exported detector on pictures it was not trained on: `python -m demo evaluate`."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from demo.dataset import HELD_BACK
from demo.geometry import Floats, Image, letterbox, read_output, tensor
from demo.pictures import draw
from demo.shapes import NAMES
from yoloserve.detections.postprocess import Detections
from yoloserve.quality.scores import AreaRange, Scores, Truth, score

SIZES = {  # areas in the network's 320 px square
    "small (< 32²)": AreaRange(0, 32**2),
    "medium": AreaRange(32**2, 96**2),
    "large (≥ 96²)": AreaRange(96**2),
}


@dataclass(frozen=True, slots=True)
class Report:
    """What a model scores, in all and by the size of objects, and how long a picture takes."""

    overall: Scores
    by_size: dict[str, Scores]
    milliseconds: float  # of inference alone, on one thread


class Runner:
    """An ONNX model on one thread of ONNX Runtime."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, batch: Floats) -> Floats:
        """Return the raw output (B, 4 + classes, A)."""
        return np.asarray(self.session.run(None, {"images": batch})[0], np.float32)

    def find(self, image: Image, confidence: float) -> Detections:
        """Return the objects of one picture, in its own pixels."""
        square, fit = letterbox(image)
        found = read_output(self(tensor(square))[0], confidence)
        return Detections(fit.back(found.boxes), found.scores, found.classes)


def evaluate(path: Path, pictures: int) -> Report:
    """Score the model on the first `pictures` of the held-back split, in the square's pixels."""
    runner = Runner(path)
    found, truth, spent = [], [], 0.0
    for square, known in held_back(pictures):
        batch = tensor(square)
        began = time.perf_counter()
        output = runner(batch)
        spent += time.perf_counter() - began
        found.append(read_output(output[0]))
        truth.append(known)
    by_size = {name: score(found, truth, len(NAMES), areas) for name, areas in SIZES.items()}
    return Report(score(found, truth, len(NAMES)), by_size, 1000 * spent / pictures)


def held_back(pictures: int) -> Iterator[tuple[Image, Truth]]:
    """Draw held-back pictures and their objects, fitted into the network's square."""
    cv2.setNumThreads(1)
    for index in range(pictures):
        picture = draw(HELD_BACK, index)
        square, fit = letterbox(picture.image)
        yield square, Truth(fit.into(picture.boxes), picture.classes)


def table(reports: dict[str, Report]) -> str:
    """Lay reports out as a Markdown table, a column pair for each model."""
    lines = ["| |" + "".join(f" {name} mAP50 | {name} mAP50-95 |" for name in reports)]
    lines.append("|---|" + "---:|" * (2 * len(reports)))
    rows = {"all": [report.overall for report in reports.values()]}
    for size in SIZES:
        rows[size] = [report.by_size[size] for report in reports.values()]
    for number, name in enumerate(NAMES):
        rows[name] = [Scores(report.overall.table[[number]]) for report in reports.values()]
    for label, cells in rows.items():
        values = "".join(f" {cell.map50:.3f} | {cell.map50_95:.3f} |" for cell in cells)
        lines.append(f"| {label} |{values}")
    times = "".join(f" {report.milliseconds:.1f} ms | |" for report in reports.values())
    lines.append(f"| inference, one thread |{times}")
    return "\n".join(lines)
