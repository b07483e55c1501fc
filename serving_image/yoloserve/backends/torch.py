"""Torch: TorchScript models, on CPUs and on CUDA GPUs."""

import json
import warnings
from io import BytesIO

import torch

from yoloserve.backends.base import STREAMS, Outputs, Tensors, Tuning, input_size, lanes_and_batch
from yoloserve.metadata import Metadata
from yoloserve.settings import PrecisionName
from yoloserve.weights import ModelFile

METADATA_FILE = "config.txt"  # inside the archive, by the public exporter's convention
DTYPES = {
    PrecisionName.FP32: torch.float32,
    PrecisionName.FP16: torch.float16,
    PrecisionName.BF16: torch.bfloat16,
}


class Torch:
    """A scripted module in evaluation mode."""

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
        extra = {METADATA_FILE: ""}
        with warnings.catch_warnings():
            # Torch asks for another format; this one is what the public exporters write.
            warnings.filterwarnings("ignore", ".*torch.jit.load.*", FutureWarning)
            self._module = torch.jit.load(
                BytesIO(model.content), map_location=self.device, _extra_files=extra
            ).eval()
        # A trace does not tell its input's shape, and repeats the one it was made with.
        self.metadata = Metadata.parse(json.loads(extra[METADATA_FILE] or "{}"))
        free = self.metadata.dynamic
        fixed = (None, None) if free else self.metadata.image_size
        self.input_size = input_size(fixed, self.metadata, tuning)
        self.lanes, self.max_batch = lanes_and_batch(tuning, batchable=free)

    def infer(self, lane: int, tensors: Tensors) -> Outputs:  # noqa: ARG002 (a module has none)
        """Run the network on RGB planes of 0 to 1, converted where it runs."""
        half = self._dtype is not torch.float32
        with torch.inference_mode(), torch.autocast(self.device, self._dtype, enabled=half):
            pixels = torch.from_numpy(tensors).to(self.device, non_blocking=True)
            planes = pixels.flip(-1).permute(0, 3, 1, 2).to(torch.float32).div_(255)
            output = self._module(planes)
            if isinstance(output, tuple | list):  # YOLOv5 returns its raw maps as well
                output = output[0]
            answer: Outputs = output.float().cpu().numpy()
        return answer
