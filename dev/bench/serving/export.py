"""Writes the network that every server runs; in the peers' environment, which has its exporter.

Random weights, made to see something: speed does not need more, and suppression wants boxes.
"""

import shutil
import sys
from pathlib import Path

import torch
from ultralytics import YOLO

from parity import reference

SIZE = 640


def main(folder: Path) -> None:
    """Write `yolov8n.pt`, `.onnx` (any size, any batch) and `-square.onnx` (fixed, for one)."""
    torch.manual_seed(0)
    checkpoint = folder / "yolov8n.pt"
    model = YOLO("yolov8n.yaml")
    reference.awaken(model.model, reference.pictures(), SIZE)
    model.save(checkpoint)
    for name, dynamic in (("yolov8n-square.onnx", False), ("yolov8n.onnx", True)):
        written = YOLO(checkpoint).export(
            format="onnx", imgsz=SIZE, dynamic=dynamic, simplify=False, verbose=False
        )
        shutil.move(written, folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
