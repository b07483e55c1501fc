"""The runtimes on a GPU: they see what a CPU sees, alone, in batches, in two lanes, as graphs."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from yoloserve.__main__ import main
from yoloserve.detections.postprocess import Detections, Options, postprocess
from yoloserve.engine.starting import PROBE, Engine, start
from yoloserve.errors import ModelUnsupported
from yoloserve.images.decoding import decode
from yoloserve.images.letterbox import letterbox
from yoloserve.model.formats import engine_file
from yoloserve.model.own import own_folder
from yoloserve.quality.agreement import Agreement, agreement, comparable
from yoloserve.quality.conversion import CONFIDENCE, TARGETS
from yoloserve.settings import BackendName, PrecisionName, Profile, Settings

ORT, TORCH, TENSORRT = BackendName.ONNXRUNTIME, BackendName.TORCH, BackendName.TENSORRT
FP16, BF16, FP32 = PrecisionName.FP16, PrecisionName.BF16, PrecisionName.FP32
RUNS = [(ORT, FP32), (ORT, FP16), (TORCH, FP32), (TORCH, FP16), (TORCH, BF16)]
RUNS += [(TENSORRT, FP32), (TENSORRT, FP16)]
GRAPHED = [(TORCH, FP16), (TENSORRT, FP16)]
OPTIONS = comparable(Options(CONFIDENCE, iou=0.7, max_detections=300))
EXAMPLES = Path(__file__).parents[2] / "examples" / "images"


def running(settings: Settings, backend: BackendName, precision: PrecisionName, **more) -> Engine:
    asked = {"backend": backend, "precision": precision} | more
    engine = start(settings.model_copy(update=asked))
    assert (engine.info.device, engine.info.precision) == ("cuda", precision)
    return engine


def tensor_of(engine: Engine, path: Path = PROBE) -> tuple[Any, Any]:
    return letterbox(decode(path.read_bytes(), max_pixels=10**8), engine.input_size)


def seen(engine: Engine, tensor: Any, fit: Any) -> Detections:
    (output,) = engine.infer(0, [tensor])
    return postprocess(output, engine.head, fit, OPTIONS)


@pytest.mark.parametrize(("backend", "precision"), RUNS)
def test_a_gpu_sees_what_a_cpu_sees(settings, exact, backend, precision) -> None:
    engine = running(settings, backend, precision)
    told = Agreement()
    for path in sorted(EXAMPLES.glob("*.jpg")):
        put = tensor_of(engine, path)  # for both: a GPU's runtime may want the whole square
        told += agreement(seen(engine, *put), seen(exact, *put), confidence=CONFIDENCE)
    assert told.both > 20
    assert told.f1 >= TARGETS[precision].least_f1
    if precision is FP32:
        assert (told.missing, told.extra) == (0, 0)
        assert told.worst_iou >= 0.99
        assert told.worst_score <= 0.01


@pytest.mark.parametrize(("backend", "precision"), RUNS)
def test_a_picture_in_a_batch_is_answered_as_alone(settings, backend, precision) -> None:
    engine = running(settings, backend, precision, profile=Profile.THROUGHPUT, max_batch=4)
    assert engine.max_batch == 4
    tensor, _ = tensor_of(engine)
    other = np.ascontiguousarray(tensor[:, ::-1])
    (alone,) = engine.infer(0, [tensor])
    for batch in ([other, tensor], [other, other, tensor], [other, tensor, other, tensor]):
        together = engine.infer(0, batch)
        assert len(together) == len(batch)
        place = [each is tensor for each in batch].index(True)
        np.testing.assert_allclose(together[place], alone, rtol=0.02, atol=0.5)


@pytest.mark.parametrize(("backend", "precision"), GRAPHED)
def test_a_graph_answers_as_the_calls_it_was_captured_from(settings, backend, precision) -> None:
    engine = running(settings, backend, precision)
    tensor, _ = tensor_of(engine)
    wide = np.ascontiguousarray(tensor[: engine.input_size.stride * 2])
    graphs = engine._backend._gpu.graphs
    (before,) = engine.infer(0, [wide])
    graphs.prepare((1, *wide.shape[:2]))
    assert graphs.find((1, *wide.shape[:2]))
    for lane in range(engine.lanes):
        np.testing.assert_allclose(engine.infer(lane, [wide])[0], before, rtol=0.02, atol=0.5)


@pytest.mark.parametrize("asked", [{}, {"confidence": 0.0}, {"confidence": 0.01, "classes": {1}}])
@pytest.mark.parametrize("captured", [False, True], ids=["calls", "graph"])
@pytest.mark.parametrize(("backend", "precision"), GRAPHED)
def test_what_is_picked_on_the_gpu_gives_the_boxes_of_the_whole_output(
    settings, backend, precision, captured: bool, asked: dict[str, Any]
) -> None:
    engine = running(settings, backend, precision, profile=Profile.THROUGHPUT, max_batch=4)
    options = replace(OPTIONS, agnostic_nms=bool(asked), **asked)
    graphs, fits = engine._backend._gpu.graphs, []
    for path in sorted(EXAMPLES.glob("*.jpg")):
        tensor, fit = tensor_of(engine, path)
        if captured:
            graphs.prepare((4, *tensor.shape[:2]))
            assert graphs.find((4, *tensor.shape[:2]))
        for each in engine.look(0, [tensor, tensor, np.zeros_like(tensor)]):
            found, whole = (postprocess(o, engine.head, fit, options) for o in (each, each.whole()))
            np.testing.assert_array_equal(found.boxes, whole.boxes)
            np.testing.assert_array_equal(found.scores, whole.scores)
            np.testing.assert_array_equal(found.classes, whole.classes)
            fits.append(len(found))
    assert sum(fits) > 20


@pytest.mark.parametrize(("backend", "precision"), RUNS)
def test_two_lanes_do_not_disturb_each_other(settings, backend, precision) -> None:
    engine = running(settings, backend, precision)
    tensor, _ = tensor_of(engine)
    pictures = [tensor, np.ascontiguousarray(tensor[::-1])]
    assert engine.lanes == len(pictures)
    expected = [engine.infer(0, [picture])[0].copy() for picture in pictures]

    def often(lane: int) -> None:
        for _ in range(200):
            (output,) = engine.infer(lane, [pictures[lane]])
            np.testing.assert_allclose(output, expected[lane], rtol=0.02, atol=0.5)

    with ThreadPoolExecutor(engine.lanes) as threads:
        list(threads.map(often, range(engine.lanes)))


@pytest.mark.parametrize(("backend", "precision"), GRAPHED)
def test_batches_of_all_sizes_need_few_graphs(settings, backend, precision) -> None:
    engine = running(settings, backend, precision, profile=Profile.THROUGHPUT, max_batch=8)
    tensor, _ = tensor_of(engine)
    graphs = engine._backend._gpu.graphs
    for _ in range(10):
        for count in range(1, 9):
            assert len(engine.infer(0, [tensor] * count)) == count
    graphs.settle()
    captured = {size[0] for size in graphs._entries if size[1:] == tensor.shape[:2]}
    assert captured == {1, 2, 4, 8}


def test_pictures_of_all_sizes_have_one_shape_where_a_new_one_is_dear(settings) -> None:
    """ONNX Runtime prepares its convolutions on a GPU anew whenever the shape differs."""
    engine = running(settings, ORT, FP16, profile=Profile.THROUGHPUT, max_batch=4)
    size = engine.input_size
    wide = np.zeros((180, 640, 3), np.uint8)
    tensor, _ = letterbox(wide, size)
    shapes = set()
    run = engine._backend._session.run

    def watched(names, inputs):
        shapes.update(each.shape for each in inputs.values())
        return run(names, inputs)

    engine._backend._session.run = watched
    assert [len(engine.infer(0, [tensor] * count)) for count in (1, 3, 4)] == [1, 3, 4]
    assert shapes == {(4, size.height, size.width, 3)}


@pytest.mark.parametrize(("backend", "precision"), GRAPHED)
def test_an_answer_is_the_callers_own(settings, backend, precision) -> None:
    engine = running(settings, backend, precision)
    tensor, _ = tensor_of(engine)
    (first,) = engine.infer(0, [tensor])
    kept = first.copy()
    for _ in range(10):
        engine.infer(0, [np.zeros_like(tensor)])
    np.testing.assert_array_equal(first, kept)


def test_a_compiled_model_is_compiled_once(settings: Settings, cache: Path) -> None:
    running(settings, TENSORRT, FP16)
    engines = {
        path: path.stat().st_mtime_ns for path in (own_folder(cache) / "compiled").glob("*.engine")
    }
    running(settings, TENSORRT, FP16)
    assert {path: path.stat().st_mtime_ns for path in engines} == engines
    assert engines


def test_a_converted_model_is_found_and_can_be_served_as_a_file(
    settings: Settings, cache: Path, tmp_path: Path, capsys
) -> None:
    asked = ["convert", str(EXAMPLES), f"--model={settings.model}", f"--cache-dir={cache}"]
    asked += ["--backend=tensorrt", "--precision=fp16", f"--into={tmp_path / 'out'}"]
    assert main(asked) == 0
    assert "F1" in capsys.readouterr().out
    file = {"model": (tmp_path / "out" / "model.engine").as_uri(), "allow_engine": True}
    served = start(settings.model_copy(update=file))
    assert (served.info.backend, served.info.precision) == (TENSORRT, FP16)


def test_an_engine_of_no_known_version_is_refused_with_what_tensorrt_says(
    settings: Settings, tmp_path: Path
) -> None:
    strange = tmp_path / "gate.engine"
    strange.write_bytes(engine_file(b"ftrt" + bytes(4096), {"names": ["person"]}))
    file = {"model": strange.as_uri(), "allow_engine": True, "backend": TENSORRT}
    with pytest.raises(
        ModelUnsupported, match=r"cannot load the engine.*TensorRT says: (?!nothing)"
    ):
        start(settings.model_copy(update=file))
