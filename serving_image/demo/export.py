"""Writes trained weights as ONNX and TorchScript, in the layout of the public YOLO exporters."""

import copy
import json
import warnings
from pathlib import Path

import onnx
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from demo.geometry import SIDE
from demo.models import MODELS, Model
from demo.network import STRIDES, Conv, Detector, Network
from demo.shapes import NAMES

OPSET = 17


def export(name: str, weights: Path, folder: Path) -> list[Path]:
    """Write `name`.onnx and `name`.torchscript to `folder`; both take any batch, height, width."""
    model = MODELS[name]
    network = model.network()
    network.load_state_dict(torch.load(weights, weights_only=True))
    detector = Detector(fused(network)).eval()
    folder.mkdir(parents=True, exist_ok=True)
    onnx_path, script_path = folder / f"{name}.onnx", folder / f"{name}.torchscript"
    facts = metadata(name, model)
    example = torch.zeros(1, 3, SIDE, SIDE)
    with torch.no_grad(), warnings.catch_warnings():
        # Torch recommends its newer exporter; tracing writes the plain graph every runtime reads.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        write_onnx(detector, example, onnx_path, facts)
        traced = torch.jit.trace(detector, example)
        config = json.dumps(facts, indent=1)
        torch.jit.save(traced, str(script_path), _extra_files={"config.txt": config})
    return [onnx_path, script_path]


def write_onnx(
    detector: Detector, example: torch.Tensor, path: Path, facts: dict[str, object]
) -> None:
    """Write one ONNX file with its metadata."""
    torch.onnx.export(
        detector,
        (example,),
        str(path),
        input_names=["images"],
        output_names=["output0"],
        dynamic_axes={
            "images": {0: "batch", 2: "height", 3: "width"},
            "output0": {0: "batch", 2: "anchors"},
        },
        opset_version=OPSET,
        do_constant_folding=True,
        dynamo=False,
    )
    written = onnx.load(path)
    onnx.helper.set_model_props(written, {key: str(value) for key, value in facts.items()})
    written.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4 + len(NAMES)
    onnx.checker.check_model(written, full_check=True)
    onnx.save(written, path)


def metadata(name: str, model: Model) -> dict[str, object]:
    """Return what the public exporters write beside the weights."""
    return {
        "description": f"YoloFleet {name}: geometric shapes in drawn pictures",
        "author": "The YoloFleet authors",
        "date": model.date,
        "version": model.version,
        "license": "Apache-2.0",
        "task": "detect",
        "stride": max(STRIDES),
        "batch": 1,
        "imgsz": [SIDE, SIDE],
        "names": dict(enumerate(NAMES)),
        "args": {"batch": 1, "half": False, "dynamic": True, "nms": False},
    }


def fused(network: Network) -> Network:
    """Return a copy with each normalisation folded into the convolution before it."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, Conv):
            module[0] = fuse_conv_bn_eval(module[0], module[1])
            module[1] = nn.Identity()
    return network
