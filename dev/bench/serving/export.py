"""Writes the network that every server runs; in the peers' environment, which has its exporter.

Random weights, made to see something: speed does not need more, and suppression wants boxes.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from ultralytics import YOLO

from parity import reference

SIZE = 640
CANDIDATES = 60  # places above the threshold in a picture: a street with a dozen of objects
THRESHOLD = 0.25


def main(folder: Path, pictures: list[Path]) -> None:
    """Write `yolov8n.pt`, `.onnx` (any size, any batch) and `-square.onnx` (fixed, for one)."""
    torch.manual_seed(0)
    checkpoint = folder / "yolov8n.pt"
    model = YOLO("yolov8n.yaml")
    reference.awaken(model.model, pictures, SIZE)
    _soften(model.model, pictures)
    model.save(checkpoint)
    for name, dynamic in (("yolov8n-square.onnx", False), ("yolov8n.onnx", True)):
        written = YOLO(checkpoint).export(
            format="onnx", imgsz=SIZE, dynamic=dynamic, simplify=False, verbose=False
        )
        shutil.move(written, folder / name)


def _soften(network: Any, pictures: list[Path]) -> None:
    """Move the scores so that each picture has about as many candidates as a real one."""
    planes = [cv2.resize(np.asarray(cv2.imread(str(p))), (SIZE, 384))[..., ::-1] for p in pictures]
    batch = torch.from_numpy(np.stack(planes).transpose(0, 3, 1, 2).copy()).float() / 255
    with torch.no_grad():
        scores = network(batch)[0][:, 4:].amax(dim=1)
        passing = scores.flatten().topk(CANDIDATES * len(pictures)).values[-1]
        shift = torch.logit(torch.tensor(THRESHOLD)) - torch.logit(passing)
        for branch in network.model[-1].cv3:
            branch[-1].bias += shift


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(each) for each in sys.argv[2:]])
