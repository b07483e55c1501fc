"""ONNX Runtime: runs everywhere, on a GPU too; the reference the other runtimes are held to."""

import numpy as np
import onnxruntime as ort

from yoloserve.backends.base import STREAMS, Outputs, Tensors, Tuning, input_size, lanes_and_batch
from yoloserve.errors import ModelUnsupported
from yoloserve.metadata import Metadata
from yoloserve.settings import PrecisionName, Profile
from yoloserve.weights import ModelFile

CUDA = "CUDAExecutionProvider"
PROVIDERS = (CUDA, "CPUExecutionProvider")  # in the order of preference
ELEMENT_TYPES: dict[str, type[np.float32 | np.float16]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}
LOG_ERRORS_ONLY = 3  # by default it warns of each optimisation it did not make


class OnnxRuntime:
    """A session; its `run` may be entered by several lanes at a time."""

    @staticmethod
    def precisions() -> tuple[PrecisionName, ...]:
        """Name one: the session computes in what the file holds, and exporters write fp32."""
        return (PrecisionName.FP32,)

    def __init__(self, model: ModelFile, tuning: Tuning) -> None:
        providers = [p for p in PROVIDERS if p in ort.get_available_providers()]
        if CUDA in providers:
            ort.preload_dlls()  # CUDA's libraries are in Python packages, which no loader searches
        options = ort.SessionOptions()
        options.log_severity_level = LOG_ERRORS_ONLY
        # The lanes' own threads compute too, beside a pool of one less than this; so all together
        # are as many as there are CPUs. They do not spin: decoding wants the CPUs meanwhile.
        lanes = STREAMS if tuning.profile is Profile.REALTIME else 1
        options.intra_op_num_threads = max(1, tuning.threads - lanes + 1)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(model.content, options, providers=providers)
        # A provider that cannot start is left out without an error: ask what is really used.
        self.device = "cuda" if CUDA in self._session.get_providers() else "cpu"
        entry = self._session.get_inputs()[0]
        if entry.type not in ELEMENT_TYPES or len(entry.shape) != 4 or entry.shape[1] != 3:
            raise ModelUnsupported(f"the model's input is {entry.type} {entry.shape}, no image")
        batch, _, height, width = (s if isinstance(s, int) else None for s in entry.shape)
        self._input, self._dtype = entry.name, ELEMENT_TYPES[entry.type]
        half = self._dtype is np.float16
        self.precision = PrecisionName.FP16 if half else PrecisionName.FP32
        self._output = self._session.get_outputs()[0].name
        self.metadata = Metadata.parse(self._session.get_modelmeta().custom_metadata_map)
        self.input_size = input_size((height, width), self.metadata, tuning)
        self.lanes, self.max_batch = lanes_and_batch(tuning, batchable=batch is None)

    def infer(self, lane: int, tensors: Tensors) -> Outputs:  # noqa: ARG002 (a session has none)
        """Run the network on RGB planes of 0 to 1."""
        planes = tensors[..., ::-1].transpose(0, 3, 1, 2)
        scaled = np.empty(planes.shape, self._dtype)
        np.multiply(planes, self._dtype(1 / 255), out=scaled, casting="unsafe")
        (output,) = self._session.run([self._output], {self._input: scaled})
        answer: Outputs = output.astype(np.float32, copy=False)
        return answer
