"""OpenVINO: the fastest on x86 CPUs, with the colour and scale conversion inside the graph."""

import hashlib
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import openvino as ov
from openvino.preprocess import ColorFormat, PrePostProcessor

from yoloserve.engine import kept
from yoloserve.engine.backends.base import (
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
from yoloserve.engine.backends.sizes import CompiledSizes, Size
from yoloserve.errors import ModelUnsupported
from yoloserve.model.metadata import Metadata
from yoloserve.model.weights import ModelFile
from yoloserve.settings import PrecisionName, Profile

log = logging.getLogger(__name__)

DEVICE = "CPU"
FLOATS = {"f32", "f16", "bf16"}
HINTS = {
    PrecisionName.FP32: ov.Type.f32,
    PrecisionName.BF16: ov.Type.bf16,
    PrecisionName.FP16: ov.Type.f16,
}
CPU_INFO = Path("/proc/cpuinfo")
SAID_BY = "flags", "Features"  # of x86 and of ARM
BF16_INSTRUCTIONS = {"avx512_bf16", "amx_bf16"}
# ARM's for vectors of half precision (FEAT_FP16): there the runtime computes in it, not in bf16.
FP16_INSTRUCTIONS = {"asimdhp"}
LONGEST_LINE = 4096
CRASHES = {"amx_int8"}  # a quantised network of any size does, openvinotoolkit/openvino#37577


class OpenVino:
    """A compiled network, and an inference request for each lane."""

    device = "cpu"

    @staticmethod
    def precisions() -> tuple[PrecisionName, ...]:
        """Say half only where there are instructions for it: emulated, bf16 is a fifth as fast.

        The runtime's own list of capabilities names bf16 on every CPU with AVX-512. Integers are
        computed everywhere, but only in a graph that was quantised.
        """
        return precisions_of(cpu_flags())

    def __init__(self, model: ModelFile, tuning: Tuning) -> None:
        core = ov.Core()
        network = core.read_model(model.content, model.parts.weights)
        self.metadata = Metadata.parse(model.parts.metadata or entries_in(network))
        self.precision = _precision(network, tuning.precision)
        shapes = [each.partial_shape for each in network.inputs]
        entry = entry_of([[_length(side) for side in each] for each in shapes], str(shapes[0]))
        require_numbers(network.input(0).element_type.get_type_name(), FLOATS)
        require_one_output([each.partial_shape.rank.get_length() for each in network.outputs])
        batch, _, height, width = shapes[0]  # as it has them: a free one may have bounds
        self.input_size = input_size(entry, self.metadata, tuning)
        if self.precision is PrecisionName.INT8 and CRASHES & cpu_flags():
            self.input_size = replace(self.input_size, dynamic=False)
            height, width = self.input_size.height, self.input_size.width
        self._batch = entry.batch
        self.lanes, self.max_batch = lanes_and_batch(entry, self.metadata, tuning)
        if self.max_batch == 1 and entry.batch is None:
            batch = ov.Dimension(1)
        options = self._options(tuning)
        self._red_first = _asks_for_its_size(network) or _reorders(network)

        cache = _Cache(core, model, tuning.cache_dir, options)

        def compiled(size: Size | None = None) -> _Program:
            shape = [batch, 3, *(size or (height, width))]

            def anew(more: dict[str, object]) -> ov.CompiledModel:
                sized = network.clone()
                sized.reshape(shape)
                converting = _with_conversion(sized, blue_first=not self._red_first)
                return core.compile_model(converting, DEVICE, options | more)

            network_here, mapped = cache.find(shape, anew)
            requests = [network_here.create_infer_request() for _ in range(self.lanes)]
            return _Program(requests, mapped)

        self._any_size = compiled()
        # Compiled for one size, a network is 4 to 25 % faster than one that takes any.
        self.sizes = CompiledSizes(compiled) if self.input_size.dynamic else None

    def infer(self, lane: int, tensors: Tensors) -> Outputs:
        """Run the network on this lane's request, copying its output out."""
        height, width = tensors.shape[1:3]
        of_size = self.sizes.find((height, width)) if self.sizes else None
        program = of_size or self._any_size
        request = program.requests[lane]
        pixels = filled(tensors, self._batch)
        if self._red_first:
            pixels = np.ascontiguousarray(pixels[..., ::-1])
        request.infer([pixels], share_inputs=True)
        output: Outputs = request.get_output_tensor(0).data[: len(tensors)].astype("float32")
        return output

    def _options(self, tuning: Tuning) -> dict[str, object]:
        realtime = tuning.profile is Profile.REALTIME
        return {
            "PERFORMANCE_HINT": "LATENCY" if realtime else "THROUGHPUT",
            "NUM_STREAMS": self.lanes,
            "INFERENCE_NUM_THREADS": tuning.threads,
            # Unset, it would be bf16 wherever there is AMX: two pods of one detector, two
            # answers. What runs is chosen in `engine` and told in the metrics.
            # What a quantised graph leaves in floating point is computed exactly.
            "INFERENCE_PRECISION_HINT": HINTS.get(self.precision, ov.Type.f32),
            # Pinned threads of several containers would pile up on the same first cores.
            "ENABLE_CPU_PINNING": False,
        }


@dataclass(frozen=True, slots=True)
class _Program:
    """An inference request for each lane, and the file that holds their weights."""

    requests: list[ov.InferRequest]
    mapped: object  # none may outlive it


class _Cache:
    """Compiled networks on disk. The runtime's own cache loads damaged ones, and they answer."""

    def __init__(
        self, core: ov.Core, model: ModelFile, folder: str, options: dict[str, object]
    ) -> None:
        self._core = core
        self._folder = folder
        self._options = options
        # All that a compiled network depends on besides its shape, this very file included.
        cpu = core.get_property(DEVICE, "FULL_DEVICE_NAME"), *sorted(cpu_flags())
        here = repr((ov.get_version(), cpu, sorted(options.items()))).encode()
        self._made_of = hashlib.sha256(here)
        for part in (Path(__file__).read_bytes(), model.content, model.parts.weights):
            self._made_of.update(part)

    def find(
        self, shape: list[object], compile_: Callable[[dict[str, object]], ov.CompiledModel]
    ) -> tuple[ov.CompiledModel, object]:
        """Return the network for inputs of this shape, compiled if it is not here, or damaged.

        With it comes what must be kept as long: the runtime reads weights where they are mapped.
        """
        if not self._folder:
            return compile_({}), None
        key = self._made_of.copy()
        key.update(repr(shape).encode())
        place = Path(self._folder) / f"{key.hexdigest()}.openvino"
        if content := kept.read(place):
            # Before the network stands a line that says which runtime wrote it: that is in the key.
            start = bytes(content[:LONGEST_LINE]).find(b"\n") + 1
            mapped = np.frombuffer(content, np.uint8, offset=start)
            tensor = ov.Tensor(mapped, shared_memory=True)
            try:
                return self._core.import_model(tensor, DEVICE, self._options), mapped
            except RuntimeError as error:  # the runtime's own reasons, of which we know none
                log.warning("compiled anew", extra={"file": str(place), "reason": str(error)})
        # `export_model` would hold the interpreter, and a copy of the network, until it is done:
        # all requests would wait. So the runtime writes, as it does for its own cache.
        with kept.keeping(place) as written:
            program = compile_({"CACHE_DIR": str(written)} if written else {})
        return program, None


def _precision(network: ov.Model, wanted: PrecisionName) -> PrecisionName:
    """Say what the graph will be computed in; raise `ModelUnsupported` if it cannot be."""
    if any(node.get_type_name() == "FakeQuantize" for node in network.get_ops()):
        return PrecisionName.INT8
    if wanted is PrecisionName.INT8:
        raise ModelUnsupported(
            "precision int8: the model is not quantised; `yoloserve convert --precision int8` "
            "does that, with pictures to calibrate by"
        )
    return wanted


def cpu_flags(cpuinfo: Path = CPU_INFO) -> set[str]:
    """Read what instructions the first CPU says it has; nothing where there is no such file."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return set()
    flags = (line.partition(":")[2].split() for line in lines if line.startswith(SAID_BY))
    return set(next(flags, []))


def precisions_of(flags: Collection[str]) -> tuple[PrecisionName, ...]:
    """Name what a CPU with these instructions computes natively, the preferred one first."""
    here = (PrecisionName.FP32, PrecisionName.INT8)
    if BF16_INSTRUCTIONS.intersection(flags):
        return (PrecisionName.BF16, *here)
    return (PrecisionName.FP16, *here) if FP16_INSTRUCTIONS.intersection(flags) else here


def _with_conversion(network: ov.Model, *, blue_first: bool) -> ov.Model:
    """Let the graph take u8 pixels in rows: the conversion costs nothing there."""
    steps = PrePostProcessor(network)
    tensor = steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW"))
    planes = steps.input().preprocess().convert_element_type(ov.Type.f32)
    if blue_first:
        tensor.set_color_format(ColorFormat.BGR)
        planes.convert_color(ColorFormat.RGB)
    planes.scale(255.0)
    return steps.build()


def _asks_for_its_size(network: ov.Model) -> bool:
    """Tell whether the graph computes with the shape of its input, as `nms=True` exports do.

    Where it does, and the size is free, colours must not be turned around inside: OpenVINO fuses
    that into what reads the tensor, and then the graph is told a wrong shape (2026.4; boxes of
    different classes suppressed each other).
    """
    readers = network.input(0).get_target_inputs()
    return any(reader.get_node().get_type_name() == "ShapeOf" for reader in readers)


def _reorders(network: ov.Model) -> bool:
    """Tell whether the graph puts something in another order, as one does that renames classes.

    Where it does, colours must not be turned around inside either: OpenVINO joins all such steps
    with that one, whatever they are of (2026.4; boxes were off by a sixth of the picture).
    """
    gathers = (node for node in network.get_ops() if node.get_type_name() == "Gather")
    orders = (node.input_value(1).get_node() for node in gathers)
    return any(o.get_type_name() == "Constant" and len(o.shape) == 1 for o in orders)


def entries_in(network: ov.Model) -> dict[str, str]:
    """Read what the graph carries: an ONNX file's metadata is kept under `framework`."""
    if network.has_rt_info("framework"):
        return {key: value.astype(str) for key, value in network.rt_info["framework"].items()}
    if network.has_rt_info(["model_info", "labels"]):  # Intel's model API: names without blanks
        labels = network.get_rt_info(["model_info", "labels"]).astype(str)
        return {"names": repr(labels.split())}
    return {}


def _length(dimension: ov.Dimension) -> int | None:
    return dimension.get_length() if dimension.is_static else None
