"""ONNX Runtime: runs everywhere, on a GPU too; the reference the other runtimes are held to."""

import ctypes
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from yoloserve.engine.backends.base import (
    STREAMS,
    Outputs,
    Tensors,
    Tuning,
    entry_of,
    filled,
    input_size,
    lanes_and_batch,
    require_numbers,
    require_one_output,
)
from yoloserve.errors import BackendUnsupported
from yoloserve.model.metadata import Metadata
from yoloserve.model.weights import ModelFile
from yoloserve.settings import PrecisionName, Profile

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
DRIVER = "libcuda.so.1"
Providers = list[tuple[str, dict[str, str]]]
FLOATS: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}
BYTES = "tensor(uint8)"
LOG_ERRORS_ONLY = 3  # by default it warns of each optimisation it did not make


class OnnxRuntime:
    """A session; its `run` may be entered by several lanes at a time."""

    @staticmethod
    def precisions() -> tuple[PrecisionName, ...]:
        """Name one on CPUs: the session computes in what the file holds, mostly fp32."""
        if CUDA in _available():
            return PrecisionName.FP16, PrecisionName.FP32
        return (PrecisionName.FP32,)

    def __init__(self, model: ModelFile, tuning: Tuning) -> None:
        chosen = providers(_available(), tuning.precision)
        best, content, computes_in = chosen[0][0], model.content, PrecisionName.FP32
        if best == CUDA:
            from yoloserve.engine.backends import onnx_graph  # only GPUs' images have what it needs

            ort.preload_dlls()  # CUDA's libraries are in Python packages, which no loader searches
            content, computes_in = onnx_graph.prepared(content, tuning.precision)
        options = ort.SessionOptions()
        options.log_severity_level = LOG_ERRORS_ONLY
        # The lanes' own threads compute too, beside a pool of one less than this; so all together
        # are as many as there are CPUs. They do not spin: decoding wants the CPUs meanwhile.
        lanes = STREAMS if tuning.profile is Profile.REALTIME else 1
        options.intra_op_num_threads = max(1, tuning.threads - lanes + 1)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(content, options, providers=chosen)
        # A provider that cannot start is left out without an error: ask what is really used.
        if best not in self._session.get_providers():
            raise BackendUnsupported(
                "ONNX Runtime cannot use the GPU that is here, and says why on stderr: use the "
                "backend torch or tensorrt, or take the GPU from the container"
            )
        self.device = "cuda" if best == CUDA else "cpu"
        inputs = self._session.get_inputs()
        # Bytes only where `onnx_graph` has put the conversion before the network: what a graph of
        # others makes of them is not known.
        self._takes_bytes = best == CUDA
        entry = entry_of(
            [[side if isinstance(side, int) else None for side in each.shape] for each in inputs],
            f"{inputs[0].type} {inputs[0].shape}",
            in_rows=self._takes_bytes,
        )
        require_numbers(inputs[0].type, {BYTES} if self._takes_bytes else FLOATS)
        require_one_output([len(each.shape) for each in self._session.get_outputs()])
        self._input, self._dtype = inputs[0].name, (FLOATS | {BYTES: np.uint8})[inputs[0].type]
        half = self._dtype is np.float16
        self.precision = PrecisionName.FP16 if half else computes_in
        self._output = self._session.get_outputs()[0].name
        self.metadata = Metadata.parse(self._session.get_modelmeta().custom_metadata_map)
        self.input_size = input_size(entry, self.metadata, tuning)
        self._batch = entry.batch
        self.lanes, self.max_batch = lanes_and_batch(entry, self.metadata, tuning)
        if best == CUDA:
            self.lanes = STREAMS  # while one copies, the other computes
            # Its convolutions are prepared anew whenever a shape differs from the last: 0.2 to
            # 0.3 s for a small network. So all have one shape.
            self.input_size = replace(self.input_size, dynamic=False)
            self._batch = self.max_batch

    def infer(self, lane: int, tensors: Tensors) -> Outputs:  # noqa: ARG002 (a session has none)
        """Run the network: on a GPU on the bytes, on a CPU on RGB planes of 0 to 1."""
        whole = filled(tensors, self._batch)
        entry = whole if self._takes_bytes else _planes(whole, self._dtype)
        (output,) = self._session.run([self._output], {self._input: entry})
        answer: Outputs = output[: len(tensors)].astype(np.float32, copy=False)
        return answer


def providers(available: Collection[str], precision: PrecisionName) -> Providers:
    """Choose what runs the graph, the best first, and how.

    TensorRT's own provider is never chosen: it compiles for minutes whenever a new size comes,
    while requests wait. The backend `tensorrt` does that once, ahead.
    """
    options = {
        # By default each new size is measured with every algorithm there is.
        "cudnn_conv_algo_search": "HEURISTIC",
        # fp32 is to mean just that, not the shortened one that convolutions take by default.
        "use_tf32": "0" if precision is PrecisionName.FP32 else "1",
    }
    on_gpu: Providers = [(CUDA, options)] if CUDA in available else []
    return [*on_gpu, (CPU, {})]


def _available() -> set[str]:
    """List the providers that can run here: the package for GPUs offers CUDA's without any."""
    return {each for each in ort.get_available_providers() if each != CUDA or has_gpu()}


def has_gpu(driver: str = DRIVER) -> bool:
    """Ask the driver, if there is one, whether this process may use an NVIDIA GPU."""
    try:
        cuda = ctypes.CDLL(driver)
    except OSError:
        return False
    count = ctypes.c_int()
    started = cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0
    return started and count.value > 0


def _planes(tensors: Tensors, dtype: Any) -> NDArray[np.floating[Any]]:
    planes = tensors[..., ::-1].transpose(0, 3, 1, 2)
    scaled = np.empty(planes.shape, dtype)
    np.divide(planes, dtype(255), out=scaled, casting="unsafe")  # as the reference, to the last bit
    return scaled
