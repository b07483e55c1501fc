"""TensorRT: engines for one kind of GPU and one version, compiled from ONNX or as they are."""

import logging
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import tensorrt as trt
import torch

from yoloserve.detections.postprocess import Head
from yoloserve.detections.surest import Surest
from yoloserve.engine import kept
from yoloserve.engine.backends import cuda, onnx_graph, plans
from yoloserve.engine.backends.base import (
    Outputs,
    Tensors,
    Tuning,
    entry_of,
    input_size,
    lanes_and_batch,
    require_numbers,
    require_one_output,
)
from yoloserve.engine.backends.sizes import MOST
from yoloserve.errors import BackendUnsupported, ModelUnsupported
from yoloserve.images.letterbox import Image, blank
from yoloserve.model.formats import Format, Parts, engine_file, written_engine
from yoloserve.model.metadata import Metadata
from yoloserve.model.weights import ModelFile
from yoloserve.settings import PrecisionName, Profile

log = logging.getLogger(__name__)

COMPILED = PrecisionName.FP16, PrecisionName.FP32  # others must be in the file that is compiled
MOST_ERRORS = 20  # that are kept: an engine that runs may go on failing
DTYPES = {
    trt.uint8: torch.uint8,
    trt.float16: torch.float16,
    trt.float32: torch.float32,
    trt.int32: torch.int32,
    trt.int64: torch.int64,
}


class TensorRt:
    """An engine, and an execution context for each lane and each graph."""

    device = "cuda"
    lanes = cuda.LANES

    @staticmethod
    def precisions() -> tuple[PrecisionName, ...]:
        """Name what tensor cores compute in; 8 bits only where an engine was made so."""
        if not torch.cuda.is_available():
            raise BackendUnsupported("backend tensorrt: there is no NVIDIA GPU here")
        return PrecisionName.FP16, PrecisionName.FP32, PrecisionName.INT8

    def __init__(self, model: ModelFile, tuning: Tuning) -> None:
        parts = model.parts if model.format is Format.TENSORRT else compiled(model, tuning)
        engine = load(parts.content)
        self.metadata = Metadata.parse(parts.metadata)
        self.precision = plans.precision_in(parts.metadata)
        inputs = _inputs(engine)
        name = next(iter(inputs))
        rows = engine.get_tensor_dtype(name) == trt.uint8
        entry = entry_of([plans.sides(each) for each in inputs.values()], in_rows=rows)
        if rows and "precision" not in parts.metadata:  # ours say it, and what they make of bytes
            require_numbers("uint8", ())
        self.input_size = input_size(entry, self.metadata, tuning)
        _, self.max_batch = lanes_and_batch(entry, self.metadata, tuning)
        if plans.FREE in inputs[name]:
            *_, largest = engine.get_tensor_profile_shape(name, 0)
            most = entry_of([tuple(largest)], in_rows=rows)
            plans.require_room(self.input_size, most)
            self.max_batch = min(self.max_batch, most.batch or self.max_batch)
        # Each graph has a context, and each context has memory for the largest input.
        self._gpu = cuda.Lanes(
            lambda: _Context(engine, name, rows=rows),
            self.max_batch,
            graphs=MOST,
            usual=blank(self.input_size).shape[:2],
            fixed=entry.batch,
        )

    def infer(self, lane: int, tensors: Tensors) -> Outputs:
        """Run the network; our own engines take the bytes as they are."""
        return self._gpu.infer(lane, list(tensors))

    def suit(self, head: Head) -> None:
        """Learn how outputs are read: the surest places are picked on the GPU."""
        self._gpu.suit(head)

    def surest(self, lane: int, tensors: Sequence[Image]) -> list[Surest] | None:
        """Run the network for the surest places of each image."""
        return self._gpu.surest(lane, tensors)


class _Context:
    """Runs the engine, with memory of its own: one for each lane, and for each graph."""

    def __init__(self, engine: Any, entry: str, *, rows: bool) -> None:
        self._entry = entry
        self._rows = rows
        self._dtype = DTYPES[engine.get_tensor_dtype(entry)]
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self._outputs = {n: DTYPES[engine.get_tensor_dtype(n)] for n in names if n != entry}
        require_one_output([len(engine.get_tensor_shape(name)) for name in self._outputs])
        self._context = engine.create_execution_context()
        if self._context is None:
            raise MemoryError("the GPU has no memory for another execution context")

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        entry = pixels if self._rows else _planes(pixels, self._dtype)
        context, shape = self._context, tuple(entry.shape)
        # Setting a shape, even the same, has work done that cannot be captured.
        if tuple(context.get_tensor_shape(self._entry)) != shape and not context.set_input_shape(
            self._entry, shape
        ):
            raise ModelUnsupported(f"the engine takes no input of {shape}")
        context.set_tensor_address(self._entry, entry.data_ptr())
        outputs = []
        for name, dtype in self._outputs.items():
            of_output = tuple(context.get_tensor_shape(name))
            if plans.FREE in of_output:
                raise ModelUnsupported(f"the size of the engine's output {name} is not known ahead")
            outputs.append(torch.empty(of_output, dtype=dtype, device="cuda"))
            context.set_tensor_address(name, outputs[-1].data_ptr())
        if not context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise RuntimeError("TensorRT did not run the network")
        return outputs[0]  # YOLOv5 returns its raw maps as well


def _planes(pixels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Make RGB planes of 0 to 1, on the GPU, for engines that others have made."""
    return pixels.flip(-1).permute(0, 3, 1, 2).to(dtype).div_(255).contiguous()


def _inputs(engine: Any) -> dict[str, plans.Shape]:
    """Return the shape of each input by its name."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return {
        name: tuple(engine.get_tensor_shape(name))
        for name in names
        if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
    }


def load(plan: bytes) -> Any:
    """Load a serialized engine; raise `ModelUnsupported` if it is not for here."""
    said = LOGGER.anew()
    # What an engine may contain besides kernels, code for the CPU, stays off: the default.
    engine = trt.Runtime(said).deserialize_cuda_engine(plan)
    if engine is None:
        raise ModelUnsupported(
            f"TensorRT {trt.__version__} on {torch.cuda.get_device_name()} cannot load the engine, "
            "and takes only those made with the same version on the same kind of GPU: convert the "
            f"model here, or give the ONNX file. TensorRT says: {said}"
        )
    return engine


def compiled(model: ModelFile, tuning: Tuning) -> Parts:
    """Compile an ONNX model for this GPU; that takes minutes, unless it is in the cache."""
    place = Path(tuning.cache_dir) / f"{model.sha256}-{made_for(tuning)}.engine"
    if tuning.cache_dir and (found := kept.read(place)):
        return written_engine(bytes(found))
    log.info("compiling for TensorRT", extra={"place": str(place), "reason": "not in the cache"})
    content = compile_onnx(model.parts, tuning)
    if tuning.cache_dir:
        kept.keep(place, content)
    return written_engine(content)


def compile_onnx(parts: Parts, tuning: Tuning) -> bytes:
    """Make the content of an engine file, with the metadata that the public exporter writes."""
    if tuning.precision not in COMPILED:
        raise BackendUnsupported(
            f"precision {tuning.precision}: an ONNX model is compiled for TensorRT in "
            f"{' or '.join(COMPILED)}"
        )
    graph, precision = onnx_graph.prepared(parts.content, tuning.precision)
    metadata = onnx_graph.metadata_of(parts.content) | {"precision": precision}
    said = LOGGER.anew()
    builder = trt.Builder(said)
    network = builder.create_network()
    parser = trt.OnnxParser(network, said)
    if not parser.parse(graph):
        faults = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise ModelUnsupported(f"TensorRT cannot read the model: {'; '.join(faults) or said}")
    config = builder.create_builder_config()
    # Streams of the engine's own would have to be joined in each capture; lanes keep a GPU busy.
    config.max_aux_streams = 0
    if tuning.precision is PrecisionName.FP32:
        config.clear_flag(trt.BuilderFlag.TF32)  # 10 bits of mantissa, as fp16 has
    entry = network.get_input(0)
    shape = tuple(entry.shape)
    if plans.FREE in shape:
        pixels = entry_of([plans.sides(shape)], in_rows=True)
        size = input_size(pixels, Metadata.parse(metadata), tuning)
        of_pictures = builder.create_optimization_profile()
        of_pictures.set_shape(entry.name, *plans.profile(shape, size, _batch(tuning)))
        config.add_optimization_profile(of_pictures)
    timings = Path(tuning.cache_dir) / plans.file_name("timings", *_device())
    _remember(config, timings if tuning.cache_dir else None)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ModelUnsupported(f"TensorRT cannot compile the model: {said}")
    if tuning.cache_dir:
        kept.keep(timings, bytes(config.get_timing_cache().serialize()))
    return engine_file(bytes(plan), metadata)


def made_for(tuning: Tuning) -> str:
    """Name all that an engine depends on besides the model."""
    size = f"{tuning.image_size}px-{tuning.stride}" if tuning.image_size or tuning.stride else "own"
    return plans.file_name(tuning.precision, size, f"b{_batch(tuning)}", *_device())


def _device() -> tuple[str, str, str]:
    major, minor = torch.cuda.get_device_capability()
    return torch.cuda.get_device_name(), f"sm{major}{minor}", f"tensorrt{trt.__version__}"


def _batch(tuning: Tuning) -> int:
    return tuning.max_batch if tuning.profile is Profile.THROUGHPUT else 1


def _remember(config: Any, timings: Path | None) -> None:
    """Let the builder measure only what it has not measured here before."""
    known = bytes((timings and kept.read(timings)) or b"")
    cache = config.create_timing_cache(known) or config.create_timing_cache(b"")
    config.set_timing_cache(cache, ignore_mismatch=False)


class _Log(trt.ILogger):  # type: ignore[misc]  # untyped
    """Keeps what went wrong, to be told with the failure.

    There is one in a process: TensorRT stays with the first that it is given.
    """

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: deque[str] = deque(maxlen=MOST_ERRORS)

    def anew(self) -> Self:
        """Forget what was said of former models."""
        self.errors.clear()
        return self

    def log(self, severity: Any, msg: str) -> None:
        """Remember an error; leave the rest."""
        if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
            self.errors.append(msg)

    def __str__(self) -> str:
        """Tell them in a line."""
        return "; ".join(self.errors) or "nothing"


LOGGER = _Log()
