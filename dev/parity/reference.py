"""The public YOLO package: networks that see something, its exports of them, and its answers."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import ultralytics
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import ASSETS, ops
from ultralytics.utils.nms import non_max_suppression

from yoloserve.detections.postprocess import Detections, Options, Output
from yoloserve.images.letterbox import Image

VERSION = f"ultralytics {ultralytics.__version__}"
SPREAD, MIDDLE = 0.8, -4.0  # of the logits: a few of each thousand pass the threshold
THRESHOLD = 0.25
IN_THE_GRAPH = {"nms": True, "conf": 0.24, "iou": 0.7}
FORMATS: dict[str, dict[str, Any]] = {
    "ONNX, free size": {"format": "onnx", "dynamic": True},
    "ONNX, fixed size": {"format": "onnx"},
    "TorchScript, fixed size": {"format": "torchscript"},
    "OpenVINO, free size": {"format": "openvino", "dynamic": True},
    "ONNX, NMS inside": {"format": "onnx", "dynamic": True, **IN_THE_GRAPH},
    "ONNX, end to end": {"format": "onnx", "dynamic": True, "nms": False},
    # Of one family without and one with an end-to-end head:
    "TorchScript, free size": {"format": "torchscript", "dynamic": True},
    "OpenVINO, fixed size": {"format": "openvino"},
    "ONNX, fixed, batch of 4": {"format": "onnx", "batch": 4},
    "TorchScript, NMS inside": {"format": "torchscript", **IN_THE_GRAPH},
    "OpenVINO, NMS inside": {"format": "openvino", "dynamic": True, **IN_THE_GRAPH},
    "TorchScript, end to end": {"format": "torchscript", "nms": False},
    "OpenVINO, end to end": {"format": "openvino", "dynamic": True, "nms": False},
}
END_TO_END = "yolov10", "yolo26"  # the families that have such a head


@dataclass(frozen=True, slots=True)
class Answer:
    """What the package found in a picture, and what it looked at and computed on the way."""

    detections: Detections
    tensor: Image  # (H, W, 3), BGR
    output: Output


def pictures() -> list[Path]:
    """Return the photographs that come with the package."""
    return [ASSETS / "bus.jpg", ASSETS / "zidane.jpg"]


def ask(path: Path, picture: Path, options: Options, size: int) -> Answer:
    """Ask the package, as its documentation shows, for one picture at the model's own size."""
    model = _loaded(path)
    (result,) = model.predict(
        str(picture),
        conf=options.confidence,
        iou=options.iou,
        max_det=options.max_detections,
        imgsz=size,  # left alone, it runs a dynamic model at 640
        device="cpu",
        verbose=False,
    )
    boxes = result.boxes
    planes, output = model.predictor.witnessed
    pixels = np.rint(planes[0].transpose(1, 2, 0)[..., ::-1] * 255).astype(np.uint8)
    return Answer(
        _detections(boxes.xyxy, boxes.conf, boxes.cls), np.ascontiguousarray(pixels), output[0]
    )


def suppressed(
    output: Output, shape: Sequence[int], picture: Sequence[int], options: Options
) -> Detections:
    """Let the package turn one raw output into boxes; shapes are (height, width) of both."""
    (found,) = non_max_suppression(
        torch.from_numpy(output[None].copy()),
        options.confidence,
        options.iou,
        max_det=options.max_detections,
    )
    boxes = ops.scale_boxes(shape, found[:, :4], picture)
    return _detections(boxes, found[:, 4], found[:, 5])


def _detections(boxes: Any, scores: Any, classes: Any) -> Detections:
    return Detections(
        boxes.numpy().astype(np.float32),
        scores.numpy().astype(np.float32),
        classes.numpy().astype(np.int64),
    )


@lru_cache(maxsize=1)
def _loaded(path: Path) -> Any:
    import_module("torchvision")  # its suppression is then the one that is used
    _compute_exactly()
    model = YOLO(str(path), task="detect")
    model.add_callback("on_predict_start", _watch)
    return model


def _watch(predictor: Any) -> None:
    """Keep what the network was given and what it gave."""
    if hasattr(predictor, "witnessed"):
        return
    infer = predictor.inference

    def inference(planes: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = infer(planes, *args, **kwargs)
        output = outputs[0] if isinstance(outputs, list | tuple) else outputs
        predictor.witnessed = planes.numpy().copy(), output.float().numpy().copy()
        return outputs

    predictor.witnessed = None
    predictor.inference = inference


@lru_cache(maxsize=1)
def _compute_exactly() -> None:
    """Let the package's OpenVINO compute in fp32, too: left alone, that depends on the CPU."""
    import openvino

    compile_model = openvino.Core.compile_model

    def exact(
        self: Any, model: Any, device_name: Any = None, config: Any = None, **more: Any
    ) -> Any:
        config = {"INFERENCE_PRECISION_HINT": openvino.Type.f32} | (config or {})
        return compile_model(self, model, device_name, config, **more)

    openvino.Core.compile_model = exact


def awake(
    family: str, size: int, seen: Sequence[Path], classes: int = 80, passing: int = 60
) -> Any:
    """Make a network with random weights that finds some dozens of objects in a picture."""
    torch.manual_seed(0)
    model = YOLO(f"{family}.yaml")
    if classes != 80:
        told = {"args": model.model.args, "task": model.task}
        model.model = DetectionModel(f"{family}.yaml", nc=classes, verbose=False)
        vars(model.model).update(told)
    awaken(model.model, seen, size)
    _soften(model.model, _batch(seen, size), passing)
    return model


def trained(checkpoint: Path, seen: Sequence[Path], size: int, passing: int = 60) -> Any:
    """Load a network that was trained for minutes: of nothing sure yet, so its scores are moved."""
    model = YOLO(checkpoint)
    model.model.float().eval()
    _soften(model.model, _batch(seen, size), passing)
    return model


def train(family: str, data: Path, checkpoint: Path, *, side: int, epochs: int) -> None:
    """Train a family from nothing, for minutes: its answers are those of a network that learnt."""
    torch.manual_seed(0)
    model = YOLO(f"{family}.yaml")
    model.train(
        data=str(data),
        imgsz=side,
        epochs=epochs,
        batch=16,
        optimizer="AdamW",
        lr0=2e-3,
        warmup_epochs=0.5,
        mosaic=0.0,
        close_mosaic=0,
        val=False,
        plots=False,
        workers=0,
        device="cpu",
        project=str(checkpoint.parent / "runs"),
        name=family,
        exist_ok=True,
    )
    shutil.copy(model.trainer.last, checkpoint)


def exported(
    model: Any, name: str, forms: Sequence[str], size: int, folder: Path
) -> Iterator[tuple[str, Path]]:
    """Write one network in these formats."""
    for form in forms:
        with contextlib.chdir(folder):
            written = Path(model.export(imgsz=size, verbose=False, **FORMATS[form])).absolute()
        suffix = "_openvino_model" if written.is_dir() else written.suffix
        path = folder / f"{name}-{form.replace(', ', '-').replace(' ', '-')}{suffix}"
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
        network(_batch(seen, size))
    for hook in hooks:
        hook.remove()
    network.eval()


def _batch(seen: Sequence[Path], size: int) -> Any:
    planes = [cv2.resize(np.asarray(cv2.imread(str(p))), (size, size))[..., ::-1] for p in seen]
    return torch.from_numpy(np.stack(planes).transpose(0, 3, 1, 2).copy()).float() / 255


def _soften(network: Any, batch: Any, passing: int) -> None:
    """Move the scores of each head so that so many places of a picture pass the threshold."""
    heads, chosen = network.model[-1], network.end2end
    branches = {False: heads.cv3, True: getattr(heads, "one2one_cv3", None)}
    for end_to_end, convolutions in branches.items():
        if convolutions is None:
            continue
        network.end2end = end_to_end
        with torch.no_grad():
            output = network(batch)[0]
            scores = output[..., 4] if end_to_end else output[:, 4:].amax(dim=1)
            least = scores.flatten().topk(passing * len(batch)).values[-1]
            shift = torch.logit(torch.tensor(THRESHOLD)) - torch.logit(least)
            for branch in convolutions:
                branch[-1].bias += shift
    network.end2end = chosen


def _scaled(spread: float, middle: float) -> Any:
    """Give a last convolution outputs of this spread around this middle."""

    def hook(convolution: Any, _inputs: Any, output: Any) -> None:
        factor = spread / (output.std() + 1e-9)
        convolution.weight.data *= factor
        convolution.bias.data = (convolution.bias.data - output.mean()) * factor + middle

    return hook
