"""Graphs rewritten for GPUs, run on a CPU: they must see what the model sees."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from yoloserve.engine.backends.onnx_graph import metadata_of, prepared
from yoloserve.engine.starting import PROBE
from yoloserve.errors import ModelUnsupported
from yoloserve.images.decoding import decode
from yoloserve.images.letterbox import InputSize, letterbox
from yoloserve.model.weights import BUNDLED
from yoloserve.settings import PrecisionName

FP32, FP16 = PrecisionName.FP32, PrecisionName.FP16


@pytest.fixture(scope="module", params=["shapes", "shapes-v2"])
def model(request) -> bytes:
    return (BUNDLED / f"{request.param}.onnx").read_bytes()


@pytest.fixture(scope="module")
def pixels() -> Any:
    image = decode(PROBE.read_bytes(), max_pixels=10**8)
    return letterbox(image, InputSize(320, 320))[0][None]


def run(content: bytes, entry: Any) -> Any:
    session = ort.InferenceSession(content)
    return session.run(None, {session.get_inputs()[0].name: entry})[0]


def planes(pixels: Any) -> Any:
    return pixels[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 255


def test_bytes_enter_the_graph_and_give_the_same_answer(model: bytes, pixels) -> None:
    graph, precision = prepared(model, FP32)
    assert precision is FP32
    np.testing.assert_array_equal(run(graph, pixels), run(model, planes(pixels)))


def test_in_half_precision_boxes_and_scores_stay_where_they_are(model: bytes, pixels) -> None:
    graph, precision = prepared(model, FP16)
    exact, half = run(model, planes(pixels)), run(graph, pixels)
    assert precision is FP16
    assert half.dtype == np.float32
    assert np.abs(half[:, :4] - exact[:, :4]).max() < 0.5  # pixels
    assert np.abs(half[:, 4:] - exact[:, 4:]).max() < 0.01
    assert not np.array_equal(half, exact)


def test_in_half_precision_the_convolutions_are_and_the_head_is_not(model: bytes) -> None:
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(prepared(model, FP16)[0])).graph
    types = {v.name: v.type.tensor_type.elem_type for v in [*graph.value_info, *graph.output]}
    convolutions = [types[n.output[0]] for n in graph.node if n.op_type == "Conv"]
    assert convolutions.count(TensorProto.FLOAT16) >= len(convolutions) - 1  # all but distances
    assert types[graph.output[0].name] == TensorProto.FLOAT
    assert [types[n.output[0]] for n in graph.node if n.op_type == "Softmax"] == [TensorProto.FLOAT]
    weights = sum(len(each.raw_data) for each in graph.initializer)
    assert weights < 0.55 * len(model)


@pytest.mark.parametrize("precision", [FP32, FP16])
def test_a_rewritten_graph_is_valid_and_says_what_the_model_said(model: bytes, precision) -> None:
    graph, _ = prepared(model, precision)
    onnx.checker.check_model(onnx.load_from_string(graph), full_check=True)
    assert metadata_of(graph) == metadata_of(model)
    assert "names" in metadata_of(model)


def test_sizes_and_batches_stay_free(model: bytes, pixels) -> None:
    session = ort.InferenceSession(prepared(model, FP16)[0])
    assert [isinstance(side, str) for side in session.get_inputs()[0].shape] == [True] * 3 + [False]
    two = np.concatenate([pixels[:, :192], pixels[:, 64:256]])
    assert len(run(prepared(model, FP16)[0], two)) == 2


@pytest.mark.parametrize("wanted", [FP32, FP16])
def test_what_was_exported_in_half_precision_stays_so(make_model, wanted) -> None:
    from urllib.parse import urlsplit

    with open(urlsplit(make_model(half=True)).path, "rb") as file:
        content = file.read()
    graph, precision = prepared(content, wanted)
    assert precision is FP16
    assert run(graph, np.zeros((1, 64, 64, 3), np.uint8)).dtype == np.float16


def graph_of(nodes: list[Any], kind: int = TensorProto.FLOAT, channels: int = 3) -> bytes:
    entry = helper.make_tensor_value_info("images", kind, [1, channels, 8, 8])
    output = helper.make_tensor_value_info("output0", kind, None)
    graph = helper.make_graph(nodes, "small", [entry], [output])
    opset = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


@pytest.mark.parametrize(("kind", "channels"), [(TensorProto.INT64, 3), (TensorProto.FLOAT, 4)])
def test_a_graph_that_takes_no_image_is_refused(kind: int, channels: int) -> None:
    content = graph_of([helper.make_node("Identity", ["images"], ["output0"])], kind, channels)
    with pytest.raises(ModelUnsupported, match="no image"):
        prepared(content, FP16)


@pytest.mark.parametrize("wanted", [FP32, FP16])
def test_a_quantised_graph_stays_one(wanted) -> None:
    nodes = [
        helper.make_node("Constant", [], ["scale"], value_float=0.1),
        helper.make_node("QuantizeLinear", ["images", "scale"], ["small"]),
        helper.make_node("DequantizeLinear", ["small", "scale"], ["output0"]),
    ]
    graph, precision = prepared(graph_of(nodes), wanted)
    assert precision is PrecisionName.INT8
    output = run(graph, np.full((1, 8, 8, 3), 51, np.uint8))
    np.testing.assert_allclose(output, 0.2, rtol=1e-6)
