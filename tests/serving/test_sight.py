"""A network that does not see is refused, one that finds nothing is not."""

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from yoloserve.detections.postprocess import Head
from yoloserve.engine import sight
from yoloserve.engine.starting import start
from yoloserve.errors import BlindModel, ModelUnsupported
from yoloserve.model.weights import BUNDLED
from yoloserve.settings import BackendName, Settings

RUNTIMES = [BackendName.OPENVINO, BackendName.ONNXRUNTIME]
EYES = BUNDLED / "shapes.onnx"


def changed(into: Path, kind: int, *, divides: bool, brightness: float = 1) -> str:
    """Put a conversion of its own before the bundled network."""
    model = onnx.load(EYES)
    graph, pixels = model.graph, model.graph.input[0]
    name, pixels.name = pixels.name, "pixels"
    pixels.type.tensor_type.elem_type = kind
    by = np.float32(255 if divides else 1 / brightness)
    graph.initializer.append(numpy_helper.from_array(by, "by"))
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "by"], [name]),
        *graph.node,
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, into / "gate.onnx")
    return (into / "gate.onnx").as_uri()


@pytest.mark.parametrize("backend", RUNTIMES)
def test_a_network_for_bytes_is_refused_by_its_input(tmp_path: Path, backend: BackendName) -> None:
    address = changed(tmp_path, TensorProto.UINT8, divides=True)
    with pytest.raises(ModelUnsupported, match=r"input is of type .*u(int)?8"):
        start(Settings(model=address, cache_dir=tmp_path / "cache", backend=backend))


@pytest.mark.parametrize("backend", RUNTIMES)
def test_a_network_that_divides_once_more_is_refused_as_blind(
    tmp_path: Path, backend: BackendName, caplog: pytest.LogCaptureFixture
) -> None:
    address = changed(tmp_path, TensorProto.FLOAT, divides=True)
    asked = Settings(model=address, cache_dir=tmp_path / "cache", backend=backend)
    with pytest.raises(BlindModel, match=r"do not depend on the picture.*divide by 255.*ALLOW_BL"):
        start(asked)
    with caplog.at_level(logging.WARNING):
        start(asked.model_copy(update={"allow_blind": True}))
    assert "blind model served" in caplog.text


@pytest.mark.parametrize("backend", RUNTIMES)
def test_the_same_network_fed_well_is_served(tmp_path: Path, backend: BackendName) -> None:
    address = changed(tmp_path, TensorProto.FLOAT, divides=False)
    start(Settings(model=address, cache_dir=tmp_path / "cache", backend=backend))


@pytest.mark.parametrize("backend", RUNTIMES)
def test_a_network_whose_scores_never_change_is_refused(
    make_model, tmp_path: Path, backend: BackendName
) -> None:
    same = np.tile(np.float32([32, 32, 20, 10, 0.9, 0.5, 0.5])[:, None], 10)
    with pytest.raises(BlindModel, match="for 4 unlike ones"):
        start(Settings(model=make_model(output=same), cache_dir=tmp_path, backend=backend))


def scores(*each: float) -> np.ndarray:
    return np.vstack((np.full((4, len(each)), 32), each)).astype(np.float32)


@pytest.mark.parametrize(
    ("grey", "other", "seeing"),
    [
        ((0.001, 0.001, 0.002), (0.9, 0.001, 0.002), True),
        # Nothing for it in our pictures, and yet not the same: a user's model is not blind.
        ((1e-5, 2e-5, 4e-6), (8e-5, 4e-6, 3e-5), True),
        ((1e-9, 2e-9, 4e-10), (8e-9, 4e-10, 3e-9), True),  # nor is one that is very sure of it
        ((1e-9, 2e-9, 4e-10), (1.1e-9, 2.1e-9, 4.2e-10), False),
        ((0, 6e-8, 0), (6e-8, 0, 6e-8), False),  # all that half precision tells apart down there
        ((0.001, 0.002, 0.001), (0.00101, 0.002, 0.00103), False),
        ((0, 0, 0), (0, 0, 0), False),
        ((0.5, 0.5, 0.5), (0.5039, 0.5, 0.5039), False),  # bf16 rounds so
    ],
)
def test_sight_is_told_by_scores_before_any_threshold(grey, other, seeing: bool) -> None:
    assert sight.sees([scores(*grey), scores(*other)], Head.ANCHOR_FREE) is seeing


def test_a_graph_that_hides_its_scores_is_not_called_blind() -> None:
    nothing, one = np.zeros((300, 6), np.float32), np.zeros((300, 6), np.float32)
    one[0] = 10, 10, 20, 20, 0.9, 0
    assert sight.sees([nothing, nothing], Head.END_TO_END) is None
    assert sight.sees([nothing, one], Head.END_TO_END) is True
    assert sight.sees([one, one], Head.END_TO_END) is False


def test_the_pictures_are_unlike_and_of_the_size_asked_for() -> None:
    photo = np.full((9, 16, 3), 200, np.uint8)
    shown = list(sight.pictures((96, 160), photo))
    assert {picture.shape for picture in shown} == {(96, 160, 3)}
    assert len({picture.tobytes() for picture in shown}) == 4
