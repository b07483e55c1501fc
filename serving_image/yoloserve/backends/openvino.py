"""OpenVINO: the fastest on x86 CPUs, with the colour and scale conversion inside the graph."""

import openvino as ov
from openvino.preprocess import ColorFormat, PrePostProcessor

from yoloserve.backends.base import Outputs, Tensors, Tuning, input_size, lanes_and_batch
from yoloserve.errors import ModelUnsupported
from yoloserve.metadata import Metadata
from yoloserve.settings import PrecisionName, Profile
from yoloserve.weights import ModelFile

DEVICE = "CPU"
HINTS = {PrecisionName.FP32: ov.Type.f32, PrecisionName.BF16: ov.Type.bf16}


class OpenVino:
    """A compiled model, and an inference request for each lane."""

    device = "cpu"

    @staticmethod
    def precisions() -> tuple[PrecisionName, ...]:
        """Ask the device: bf16 without AMX or its like is emulated, at a fifth of fp32's speed."""
        native = ov.Core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
        return tuple(p for p in (PrecisionName.BF16, PrecisionName.FP32) if p.upper() in native)

    def __init__(self, model: ModelFile, tuning: Tuning) -> None:
        self.precision = tuning.precision
        core = ov.Core()
        network = core.read_model(model.content)
        self.metadata = Metadata.parse(_entries(network))
        shape = network.input(0).partial_shape
        if len(shape) != 4 or _length(shape[1]) not in (3, None):
            raise ModelUnsupported(f"the model's input is {shape}, no image")
        batch, _, height, width = shape
        self.input_size = input_size((_length(height), _length(width)), self.metadata, tuning)
        self.lanes, self.max_batch = lanes_and_batch(tuning, batchable=batch.is_dynamic)
        if self.max_batch == 1 and batch.is_dynamic:
            network.reshape([1, 3, height, width])
        compiled = core.compile_model(
            _with_conversion(network),
            DEVICE,
            {
                "PERFORMANCE_HINT": (
                    "LATENCY" if tuning.profile is Profile.REALTIME else "THROUGHPUT"
                ),
                "NUM_STREAMS": self.lanes,
                "INFERENCE_NUM_THREADS": tuning.threads,
                # Unset, it would be bf16 wherever there is AMX: two pods of one detector, two
                # answers. What runs is chosen in `engine` and told in the metrics.
                "INFERENCE_PRECISION_HINT": HINTS[tuning.precision],
                # Pinned threads of several containers would pile up on the same first cores.
                "ENABLE_CPU_PINNING": False,
                "CACHE_DIR": tuning.cache_dir,
            },
        )
        self._requests = [compiled.create_infer_request() for _ in range(self.lanes)]

    def infer(self, lane: int, tensors: Tensors) -> Outputs:
        """Run the network on this lane's request, copying its output out."""
        request = self._requests[lane]
        request.infer([tensors], share_inputs=True)
        output: Outputs = request.get_output_tensor(0).data.astype("float32")
        return output


def _with_conversion(network: ov.Model) -> ov.Model:
    """Let the graph take u8 BGR pixels in rows: the conversion costs nothing there."""
    steps = PrePostProcessor(network)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(
        ov.Layout("NHWC")
    ).set_color_format(ColorFormat.BGR)
    steps.input().model().set_layout(ov.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(ov.Type.f32).convert_color(
        ColorFormat.RGB
    ).scale(255.0)
    return steps.build()


def _entries(network: ov.Model) -> dict[str, str]:
    """Read the metadata that the ONNX front end keeps under `framework`."""
    if not network.has_rt_info("framework"):
        return {}
    return {key: value.astype(str) for key, value in network.rt_info["framework"].items()}


def _length(dimension: ov.Dimension) -> int | None:
    return dimension.get_length() if dimension.is_static else None
