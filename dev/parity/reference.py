"""The public YOLO package: networks with random weights that see something, and its answers."""

import shutil
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import ultralytics
from ultralytics import YOLO
from ultralytics.utils import ASSETS

from yoloserve.postprocess import Detections, Options

VERSION = f"ultralytics {ultralytics.__version__}"
SPREAD, MIDDLE = 0.8, -4.0  # of the logits: a few of each thousand pass the threshold
FORMATS: dict[str, dict[str, Any]] = {
    "onnx, dynamic": {"format": "onnx", "dynamic": True, "simplify": False},
    "onnx, fixed": {"format": "onnx", "simplify": False},
    "onnx, end to end": {"format": "onnx", "dynamic": True, "nms": False, "simplify": False},
    "openvino, dynamic": {"format": "openvino", "dynamic": True},
    "torchscript, fixed": {"format": "torchscript"},
}
END_TO_END = "yolov10", "yolo26"  # the families that have such a head


def pictures() -> list[Path]:
    """Return the photographs that come with the package."""
    return [ASSETS / "bus.jpg", ASSETS / "zidane.jpg"]


def detections(path: Path, picture: Path, options: Options) -> Detections:
    """Ask the package, as its documentation shows, for one picture at the model's own size."""
    model = _loaded(path)
    (result,) = model.predict(
        str(picture),
        conf=options.confidence,
        iou=options.iou,
        max_det=options.max_detections,
        imgsz=_size_of(path),
        device="cpu",
        verbose=False,
    )
    boxes = result.boxes
    return Detections(
        boxes.xyxy.numpy().astype(np.float32),
        boxes.conf.numpy().astype(np.float32),
        boxes.cls.numpy().astype(np.int64),
    )


@lru_cache(maxsize=1)
def _loaded(path: Path) -> Any:
    return YOLO(str(path), task="detect")


def _size_of(path: Path) -> list[int]:
    """Read the model's own size: left alone, the package runs a dynamic model at 640."""
    from yoloserve.engine import start
    from yoloserve.settings import Settings

    size = start(Settings.read(model=path.as_uri())).input_size
    return [size.height, size.width]


def exported(
    family: str, size: int, folder: Path, seen: Sequence[Path]
) -> Iterator[tuple[str, Path]]:
    """Write one network of a family in every format."""
    torch.manual_seed(0)
    for form, arguments in FORMATS.items():
        if "nms" in arguments and not family.startswith(END_TO_END):
            continue
        model = YOLO(f"{family.removesuffix('u')}.yaml")
        torch.manual_seed(0)
        awaken(model.model, [*seen, *pictures()], size)
        written = Path(model.export(imgsz=size, verbose=False, **arguments))
        suffix = "_openvino_model" if written.is_dir() else written.suffix
        path = folder / f"{family}-{form.replace(', ', '-').replace(' ', '-')}{suffix}"
        shutil.rmtree(path, ignore_errors=True)
        shutil.move(written, path)
        yield form, path


def awaken(network: Any, seen: Sequence[Path], size: int) -> None:
    """Make random weights see: statistics from pictures, and scores that pass the threshold.

    Fresh from its initialisation, a network finds nothing at all, and agreeing on that is easy.
    """
    for name, weight in network.named_parameters():
        if weight.dim() > 1 and ".dfl." not in name:  # that one is no weight but 0, 1, 2…
            torch.nn.init.kaiming_normal_(weight, nonlinearity="linear")
    planes = [cv2.resize(np.asarray(cv2.imread(str(p))), (size, size))[..., ::-1] for p in seen]
    batch = torch.from_numpy(np.stack(planes).transpose(0, 3, 1, 2).copy()).float() / 255
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean of all that it sees
            module.reset_running_stats()
    network.train()
    heads = network.model[-1]
    sets = [heads.cv3] + ([heads.one2one_cv3] if hasattr(heads, "one2one_cv3") else [])
    boxes = [heads.cv2] + ([heads.one2one_cv2] if hasattr(heads, "one2one_cv2") else [])
    hooks = [
        branch[-1].register_forward_hook(_scaled(SPREAD, MIDDLE))
        for branches in sets
        for branch in branches
    ]
    hooks += [
        branch[-1].register_forward_hook(_scaled(0.8, 1.0 if heads.reg_max > 1 else 4.0))
        for branches in boxes
        for branch in branches
    ]
    with torch.no_grad():
        network(batch)
    for hook in hooks:
        hook.remove()
    network.eval()


def _scaled(spread: float, middle: float) -> Any:
    """Give a last convolution outputs of this spread around this middle."""

    def hook(convolution: Any, _inputs: Any, output: Any) -> None:
        factor = spread / (output.std() + 1e-9)
        convolution.weight.data *= factor
        convolution.bias.data = (convolution.bias.data - output.mean()) * factor + middle

    return hook
