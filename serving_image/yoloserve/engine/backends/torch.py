"""Torch: TorchScript models and trusted checkpoints, on CPUs and on CUDA GPUs."""

import json
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from typing import Any

import torch

from yoloserve.detections.postprocess import Head
from yoloserve.detections.postprocess import surest as surest_of
from yoloserve.detections.surest import Surest
from yoloserve.engine.backends import cuda
from yoloserve.engine.backends.base import (
    STREAMS,
    Entry,
    Outputs,
    Tensors,
    Tuning,
    input_size,
    lanes_and_batch,
    require_one_output,
)
from yoloserve.engine.backends.sizes import MOST
from yoloserve.errors import BackendUnsupported
from yoloserve.images.letterbox import Image, blank
from yoloserve.model.formats import Format
from yoloserve.model.metadata import Metadata
from yoloserve.model.weights import ModelFile
from yoloserve.settings import PrecisionName

METADATA_FILE = "config.txt"  # inside the archive, by the public exporter's convention
DTYPES = {
    PrecisionName.FP32: torch.float32,
    PrecisionName.FP16: torch.float16,
    PrecisionName.BF16: torch.bfloat16,
}


class Torch:
    """A module in evaluation mode."""

    @staticmethod
    def precisions() -> tuple[PrecisionName, ...]:
        """Half precision where there are tensor cores; a CPU stays with what is exact."""
        if torch.cuda.is_available():
            return PrecisionName.FP16, PrecisionName.BF16, PrecisionName.FP32
        return (PrecisionName.FP32, PrecisionName.BF16)

    def __init__(self, model: ModelFile, tuning: Tuning) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.precision = tuning.precision
        self._dtype = DTYPES[tuning.precision]
        torch.set_num_threads(max(1, tuning.threads // STREAMS))  # a team for each lane
        load = _checkpoint if model.format is Format.CHECKPOINT else _torchscript
        self._module, metadata = load(model.content, self.device)
        if self.device == "cuda":
            for_tensor_cores(self._module, self._dtype)
        self.metadata = Metadata.parse(metadata)
        # What a half-precision export was traced with is all it takes.
        parameter = next(iter(self._module.parameters()), None)
        self._input = torch.float32 if parameter is None else parameter.dtype
        entry = _entry(self.metadata)
        self.input_size = input_size(entry, self.metadata, tuning)
        self.lanes, self.max_batch = lanes_and_batch(entry, self.metadata, tuning)
        self._gpu: cuda.Lanes | None = None
        if self.device == "cuda":
            self.lanes = cuda.LANES
            # Graphs share the memory that they compute in: there is room for all of a few formats.
            batches = 1 + (self.max_batch - 1).bit_length()
            self._gpu = cuda.Lanes(
                lambda: self._forward,
                self.max_batch,
                graphs=MOST * batches,
                usual=blank(self.input_size).shape[:2],
            )

    def infer(self, lane: int, tensors: Tensors) -> Outputs:
        """Run the network on RGB planes of 0 to 1, converted where it runs."""
        if self._gpu:
            return self._gpu.infer(lane, list(tensors))
        with torch.inference_mode():
            answer: Outputs = self._forward(torch.from_numpy(tensors)).numpy()
        return answer

    def suit(self, head: Head) -> None:
        """Learn how outputs are read: on a GPU, the surest places are picked there."""
        if self._gpu:
            self._gpu.suit(head)

    def surest(self, lane: int, tensors: Sequence[Image]) -> list[Surest] | None:
        """Run the network for the surest places; on a CPU there is no way to save."""
        return self._gpu.surest(lane, tensors) if self._gpu else None

    def _forward(self, pixels: torch.Tensor) -> torch.Tensor:
        half = self._dtype is not torch.float32
        with torch.autocast(self.device, self._dtype, enabled=half):
            planes = pixels.flip(-1).permute(0, 3, 1, 2).to(self._input).div_(255)
            output = self._module(planes)
            if isinstance(output, tuple | list):  # YOLOv5 returns its raw maps as well
                require_one_output([each.dim() for each in output if torch.is_tensor(each)])
                output = output[0]
        return output.float()


def _entry(metadata: Metadata) -> Entry:
    """Say what a trace takes, which does not tell by itself."""
    return Entry(None, None, None) if metadata.dynamic else Entry(1, *metadata.image_size)


def for_tensor_cores(module: Any, dtype: torch.dtype) -> None:
    """Turn a module's weights into what tensor cores take: `dtype`, with the channels last.

    What a trace holds as constants stays as it is; autocast brings the two together. An export in
    half precision stays one. fp32 means just that, not the shortened one (TF32) that convolutions
    take by default.
    """
    exported_in = {parameter.dtype for parameter in module.parameters()}
    module.to(
        dtype=dtype if exported_in == {torch.float32} else None, memory_format=torch.channels_last
    )
    if dtype is torch.float32:
        torch.backends.cudnn.conv.fp32_precision = "ieee"


def _torchscript(content: bytes, device: str) -> tuple[Any, dict[str, object]]:
    """Load a scripted module, and the metadata inside its archive."""
    _offer_suppression()
    extra = {METADATA_FILE: ""}
    with warnings.catch_warnings():
        # Torch asks for another format; this one is what the public exporters write.
        warnings.filterwarnings("ignore", ".*torch.jit.load.*", FutureWarning)
        module = torch.jit.load(BytesIO(content), map_location=device, _extra_files=extra).eval()
    make_on(module, device)
    # A trace does not tell its input's shape, and repeats the one it was made with.
    return module, json.loads(extra[METADATA_FILE] or "{}")


def make_on(module: Any, device: str) -> None:
    """Let a scripted module make its tensors on `device`; its trace names the exporter's own.

    Loading moves what the archive holds, not what is made on the way, as grids of anchors are.
    """
    graph = module.graph
    torch._C._jit_pass_inline(graph)  # what its parts and functions make is in it then
    for node in graph.findAllNodes("prim::Constant"):
        if str(node.output().type()) == "Device" and node.hasAttribute("value"):
            node.s_("value", device)


def _offer_suppression() -> None:
    """Let graphs that suppress by themselves (exported with `nms=True`) be loaded.

    All they want of torchvision is this one operator; where it is not installed, ours serves.
    """
    if find_spec("torchvision"):
        import_module("torchvision")
    elif not hasattr(torch.ops.torchvision, "nms"):
        schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        torch.library.define("torchvision::nms", schema)
        torch.library.impl("torchvision::nms", "default", _suppress)


def _suppress(boxes: Any, scores: Any, iou_threshold: float) -> Any:
    kept = surest_of(boxes.float().cpu().numpy(), scores.float().cpu().numpy(), iou_threshold)
    return torch.from_numpy(kept).to(boxes.device)


def _checkpoint(content: bytes, device: str) -> tuple[Any, dict[str, object]]:
    """Load a pickled module of the public YOLO package, as its own predictor does.

    The caller was allowed to: this runs whatever the file's author put into it.
    """
    if find_spec("ultralytics") is None:
        raise BackendUnsupported(
            "a Torch checkpoint needs the `ultralytics` package (AGPL-3.0), which no image of ours "
            "contains: install the extra of that name, or export the model to ONNX"
        )
    checkpoint = torch.load(BytesIO(content), map_location=device, weights_only=False)
    module = (checkpoint.get("ema") or checkpoint["model"]).float().fuse().eval()
    trained_at = getattr(module, "args", {})
    size = trained_at.get("imgsz", 640) if isinstance(trained_at, dict) else 640
    return module, {
        "names": module.names,
        "stride": max(int(module.stride.max()), 32),
        "imgsz": size,
        "task": getattr(module, "task", "detect"),
        "end2end": bool(getattr(module, "end2end", False)),
        "args": {"dynamic": True},
    }
