"""Rewrites ONNX graphs for GPUs: pixels enter as bytes, convolutions compute in half precision.

Both belong into the graph: the conversion then costs nothing, a quarter of the bytes is copied to
the GPU, and TensorRT computes each value in the type that the graph says, no other.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from yoloserve.errors import ModelUnsupported
from yoloserve.settings import PrecisionName

KINDS = {
    TensorProto.FLOAT: (np.float32, PrecisionName.FP32),
    TensorProto.FLOAT16: (np.float16, PrecisionName.FP16),
}
QUANTISED = {"QuantizeLinear", "DequantizeLinear"}
EXACT = {"Cast", "Range", "NonMaxSuppression"}  # they say their type themselves, or have no other
CONVERTED_INPUTS = {"Resize": {0}, "Upsample": {0}}  # the others of these are scales, always fp32
PREFIX = "yoloserve_"


def prepared(content: bytes, wanted: PrecisionName) -> tuple[bytes, PrecisionName]:
    """Return the model with (N, H, W, 3) uint8 BGR as its input, and what it computes in.

    In fp16, what comes after the last convolutions stays exact: in half precision a coordinate of a
    640 px picture moves by up to a quarter of a pixel. A model that was exported in fp16, or
    quantised, stays all as it is, whatever is wanted. Raises `ModelUnsupported`.
    """
    model = onnx.load_from_string(content)
    exported = _take_pixels(model.graph)
    if any(node.op_type in QUANTISED for node in model.graph.node):
        exported = PrecisionName.INT8
    if exported is PrecisionName.FP32 and wanted is PrecisionName.FP16:
        _halve(model)
        exported = wanted
    return model.SerializeToString(), exported


def metadata_of(content: bytes) -> dict[str, str]:
    """Read the entries that exporters write into the file."""
    model = onnx.load_from_string(content)
    return {entry.key: entry.value for entry in model.metadata_props}


def _take_pixels(graph: Any) -> PrecisionName:
    """Put the conversion from bytes before the network's own input; say what that is in."""
    weights = {each.name for each in graph.initializer}
    entries = [each for each in graph.input if each.name not in weights]
    kind, shape = _kind_and_shape(entries[0])
    if len(entries) != 1 or kind not in KINDS or len(shape) != 4 or shape[1] != 3:
        raise ModelUnsupported(f"the model's inputs are {entries}, no image")
    number, precision = KINDS[kind]
    pixels = helper.make_tensor_value_info(
        f"{PREFIX}pixels", TensorProto.UINT8, [shape[0], shape[2], shape[3], 3]
    )
    order = numpy_helper.from_array(np.array([2, 1, 0]), f"{PREFIX}bgr")
    white = numpy_helper.from_array(np.array(255, number), f"{PREFIX}white")
    names = [pixels.name, *(f"{PREFIX}{each}" for each in ("floats", "rgb", "planes"))]
    nodes = [
        # First, since TensorRT takes bytes at a network's input and does nothing else with them.
        helper.make_node("Cast", [names[0]], [names[1]], to=kind),
        helper.make_node("Gather", [names[1], order.name], [names[2]], axis=3),
        helper.make_node("Transpose", [names[2]], [names[3]], perm=[0, 3, 1, 2]),
        helper.make_node("Div", [names[3], white.name], [entries[0].name]),
        *graph.node,
    ]
    graph.input.remove(entries[0])
    graph.input.insert(0, pixels)
    graph.initializer.extend([order, white])
    _replace(graph.node, nodes)
    return precision


def _kind_and_shape(value: Any) -> tuple[int, list[int | str]]:
    kind = value.type.tensor_type
    return kind.elem_type, [each.dim_value or each.dim_param for each in kind.shape.dim]


def _halve(model: Any) -> None:
    """Let all up to the last convolutions take and give half precision, casting in between."""
    graph = model.graph
    single = _single_precision(model)
    weights = {each.name: each for each in graph.initializer if each.name in single}
    head = _head(graph)
    half: set[str] = set()
    made: set[str] = set()
    nodes: list[Any] = []

    def as_wanted(name: str, wants_half: bool) -> str:
        """Return the name under which a value is there in the type that is wanted."""
        if name not in single or (name in half) is wants_half:
            return name
        other = f"{PREFIX}{name}_{'half' if wants_half else 'single'}"
        if other not in made:
            made.add(other)
            if name in weights:
                graph.initializer.append(_half_of(weights[name], other))
            else:
                kind = TensorProto.FLOAT16 if wants_half else TensorProto.FLOAT
                nodes.append(helper.make_node("Cast", [name], [other], to=kind))
        return other

    for index, node in enumerate(graph.node):
        converted = CONVERTED_INPUTS.get(node.op_type, range(len(node.input)))
        floats = [place for place in converted if node.input[place] in single]
        halved = bool(floats) and index not in head and not _is_exact(node)
        for place in floats:
            node.input[place] = as_wanted(node.input[place], halved)
        nodes.append(node)
        half.update(name for name in node.output if halved and name in single)
    _replace(graph.node, nodes)
    used = {name for node in nodes for name in node.input}
    _replace(graph.initializer, [each for each in graph.initializer if each.name in used])
    _replace(graph.input, [e for e in graph.input if e.name not in weights or e.name in used])
    del graph.value_info[:]  # they tell the types that were


def _single_precision(model: Any) -> set[str]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    names = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    return names | {w.name for w in graph.initializer if w.data_type == TensorProto.FLOAT}


def _is_exact(node: Any) -> bool:
    return node.op_type in EXACT or any(attribute.HasField("g") for attribute in node.attribute)


def _head(graph: Any) -> set[int]:
    """Number the nodes from the outputs back to the last convolutions, these left out.

    The one that turns distributions into distances has a single channel, and belongs to the head.
    """
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output}
    channels = {each.name: each.dims[0] for each in graph.initializer if each.dims}
    outputs = [each.name for each in graph.output]
    head = {makers[name] for name in outputs if name in makers}
    following = [name for index in head for name in graph.node[index].input]
    while following:
        index = makers.get(following.pop())
        if index is None or index in head:
            continue
        node = graph.node[index]
        if node.op_type == "Conv" and channels.get(node.input[1]) != 1:
            continue
        head.add(index)
        following.extend(_inputs(node))
    return head


def _inputs(node: Any) -> Iterator[str]:
    """Name what a node reads, inside of its branches too."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _inputs(inner)


def _half_of(weight: Any, name: str) -> Any:
    most = np.finfo(np.float16).max
    return numpy_helper.from_array(
        np.clip(numpy_helper.to_array(weight), -most, most).astype(np.float16), name
    )


def _replace(field: Any, values: list[Any]) -> None:
    copies = [type(value).FromString(value.SerializeToString()) for value in values]
    del field[:]
    field.extend(copies)
