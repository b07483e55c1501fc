"""Choosing a runtime, agreeing on classes, and refusing a model that does not see."""

import json
from pathlib import Path

import numpy as np
import pytest

from yoloserve.detections.postprocess import Head
from yoloserve.engine import starting
from yoloserve.engine.starting import (
    choose_precision,
    class_names,
    installed,
    oddities,
    runtime_for,
    start,
)
from yoloserve.errors import BackendUnsupported, BlindModel, ClassesDiffer, ModelUnsupported
from yoloserve.images.letterbox import InputSize
from yoloserve.model.metadata import Metadata
from yoloserve.model.weights import Format
from yoloserve.settings import BackendName, PrecisionName, Profile, Settings

FP32, BF16, FP16 = PrecisionName.FP32, PrecisionName.BF16, PrecisionName.FP16
OPENVINO, ORT, TORCH = BackendName.OPENVINO, BackendName.ONNXRUNTIME, BackendName.TORCH


@pytest.mark.parametrize(
    ("here", "wanted", "names"),
    [
        ({"openvino", "onnxruntime", "torch"}, BackendName.AUTO, [OPENVINO, ORT, TORCH]),
        ({"onnxruntime", "torch"}, BackendName.AUTO, [ORT, TORCH]),
        ({"openvino", "torch"}, TORCH, [TORCH]),
    ],
)
def test_auto_takes_the_fastest_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, here: set[str], wanted: BackendName, names: list[BackendName]
) -> None:
    monkeypatch.setattr(starting, "find_spec", lambda package: package in here or None)
    assert installed(wanted) == names


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (TORCH, "torch not installed in this image; use another backend, or the image `torch`"),
        (BackendName.TENSORRT, "tensorrt not installed .* or the image `gpu`"),
        (BackendName.AUTO, "openvino, onnxruntime, torch, tensorrt not installed"),
    ],
)
def test_a_runtime_that_is_not_installed_is_told_with_the_image_that_has_it(
    monkeypatch: pytest.MonkeyPatch, wanted: BackendName, told: str
) -> None:
    monkeypatch.setattr(starting, "find_spec", lambda _: None)
    with pytest.raises(BackendUnsupported, match=told):
        installed(wanted)


def test_the_first_runtime_that_reads_the_file_runs_it() -> None:
    assert runtime_for(Format.ONNX, [OPENVINO, ORT, TORCH]) is OPENVINO
    assert runtime_for(Format.TORCHSCRIPT, [OPENVINO, ORT, TORCH]) is TORCH


def test_a_file_that_no_runtime_here_reads_names_those_that_do() -> None:
    with pytest.raises(ModelUnsupported, match="needs one of: openvino, onnxruntime"):
        runtime_for(Format.ONNX, [TORCH])


def test_precision_is_the_devices_best_or_what_was_asked_for() -> None:
    assert choose_precision(PrecisionName.AUTO, [BF16, FP32], OPENVINO) is BF16
    assert choose_precision(FP32, [BF16, FP32], OPENVINO) is FP32


def test_a_precision_that_would_be_emulated_is_refused() -> None:
    with pytest.raises(BackendUnsupported, match="openvino on this device computes fp32"):
        choose_precision(FP16, [FP32], OPENVINO)


@pytest.mark.parametrize(
    ("expected", "told", "names"),
    [
        (None, ("a", "b"), ("a", "b")),
        (("a", "b"), ("a", "b"), ("a", "b")),
        (("a", "b"), (), ("a", "b")),
    ],
)
def test_class_names_are_the_models_or_those_given(expected, told, names) -> None:
    assert class_names(expected, Metadata(told)) == names


@pytest.mark.parametrize(
    ("expected", "told", "message"),
    [
        (("a", "c"), ("a", "b"), "class 1 of the model is 'b', not 'c'"),
        (("b", "a"), ("a", "b"), "class 0 of the model is 'a', not 'b'"),
        (("a",), ("a", "b"), "class 1 of the model is 'b', not None"),
        (("a", "b", "c"), ("a", "b"), "class 2 of the model is None, not 'c'"),
    ],
)
def test_classes_that_differ_are_refused_by_the_first(expected, told, message: str) -> None:
    with pytest.raises(ClassesDiffer, match=message):
        class_names(expected, Metadata(told))


def test_a_model_without_class_names_needs_them_given() -> None:
    with pytest.raises(ModelUnsupported, match="give them as `classes`"):
        class_names(None, Metadata())
    with pytest.raises(ModelUnsupported, match="names is '17'"):
        class_names(None, Metadata.parse({"names": "17"}))


def test_class_names_that_are_blank_or_doubled_are_served_and_told(
    make_model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address = make_model(names=("car ", " ", "car"), stride="odd")
    with caplog.at_level("WARNING"):
        running = started(address, tmp_path, backend=ORT, classes=("car", "", " car"))
    assert running.info.classes == ("car", "class1", "car")
    reasons = [record.reason for record in caplog.records if hasattr(record, "reason")]
    assert [each for each in reasons if "class 1 has no name" in each]
    assert [each for each in reasons if "'car' names the classes 0, 2" in each]
    assert [each for each in reasons if each.startswith("stride is 'odd'")]


def test_a_name_that_is_another_classs_index_is_told() -> None:
    assert list(oddities(("1", "2", "3"))) == [
        "class 0 is called '1': a filter by 1 means it, by its name",
        "class 1 is called '2': a filter by 2 means it, by its name",
    ]
    assert list(oddities(("0", "1", "person"))) == []


def started(address: str, tmp_path: Path, **changes: object) -> starting.Engine:
    return start(Settings(model=address, cache_dir=tmp_path / "cache", **changes))


@pytest.mark.parametrize("backend", [OPENVINO, ORT])
def test_an_engine_tells_what_it_serves(make_model, tmp_path: Path, backend: BackendName) -> None:
    running = started(make_model(), tmp_path, backend=backend, precision=FP32, revision="gate-1")
    info = running.info
    assert (info.name, info.version, info.revision) == ("gate", "1.2", "gate-1")
    assert info.classes == ("circle", "square", "star")
    assert (info.backend, info.precision, info.device) == (backend, FP32, "cpu")
    assert info.input_size == InputSize(64, 64)
    assert running.head is Head.ANCHOR_FREE


@pytest.mark.parametrize("backend", [OPENVINO, ORT])
def test_a_dynamic_model_takes_the_size_of_its_metadata_or_of_the_settings(
    make_model, tmp_path: Path, backend: BackendName
) -> None:
    free = make_model(size=None, imgsz="[96, 128]")
    assert started(free, tmp_path, backend=backend).input_size == InputSize(96, 128, dynamic=True)
    asked = started(free, tmp_path, backend=backend, image_size=320)
    assert asked.input_size == InputSize(320, 320, dynamic=True)


@pytest.mark.parametrize("backend", [OPENVINO, ORT])
def test_a_fixed_model_of_another_size_than_asked_for_is_refused(
    make_model, tmp_path: Path, backend: BackendName
) -> None:
    with pytest.raises(ModelUnsupported, match="fixed at 64 x 64 pixels, not 320"):
        started(make_model(), tmp_path, backend=backend, image_size=320)


@pytest.mark.parametrize("backend", [OPENVINO, ORT])
@pytest.mark.parametrize(
    ("profile", "batch", "shape"),
    [
        (Profile.REALTIME, None, (2, 1)),
        (Profile.THROUGHPUT, None, (1, 8)),
        (Profile.THROUGHPUT, 1, (2, 1)),  # a graph for one image cannot take eight
    ],
)
def test_a_profile_is_lanes_of_one_image_or_one_lane_of_batches(
    make_model, tmp_path: Path, backend, profile: Profile, batch: int | None, shape
) -> None:
    running = started(
        make_model(batch=batch), tmp_path, backend=backend, profile=profile, threads=2
    )
    assert (running.lanes, running.max_batch) == shape


@pytest.mark.parametrize("backend", [OPENVINO, ORT])
def test_every_lane_answers_alike(make_model, tmp_path: Path, backend: BackendName) -> None:
    running = started(make_model(), tmp_path, backend=backend, threads=2)
    blank = np.zeros((64, 64, 3), np.uint8)
    answers = [running.infer(lane, [blank])[0] for lane in range(running.lanes)]
    np.testing.assert_array_equal(answers[0], answers[1])


@pytest.mark.parametrize("backend", [OPENVINO, ORT])
def test_a_model_of_another_task_is_refused(make_model, tmp_path: Path, backend) -> None:
    with pytest.raises(ModelUnsupported, match="segment"):
        started(make_model(task="segment"), tmp_path, backend=backend)


@pytest.mark.parametrize("backend", [OPENVINO, ORT])
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path: Path, backend: BackendName) -> None:
    (tmp_path / "gate.onnx").write_bytes(b"\x08\x08" + bytes(range(200)))
    with pytest.raises(ModelUnsupported, match="the ONNX file is damaged"):
        started((tmp_path / "gate.onnx").as_uri(), tmp_path, backend=backend)


def test_a_model_that_answers_with_no_numbers_is_blind(make_model, tmp_path: Path) -> None:
    with pytest.raises(BlindModel, match="not finite"):
        started(make_model(output=np.full((7, 20), np.nan, np.float32)), tmp_path)


def test_a_bundled_model_that_misses_a_known_object_is_blind(
    make_model, tmp_path: Path, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [{"name": "square", "box": {"x1": 0, "y1": 0, "x2": 30, "y2": 30}}]
    (tmp_path / "probe.jpg").write_bytes(jpeg)
    (tmp_path / "probe.json").write_text(json.dumps(known))
    monkeypatch.setattr(starting, "PROBE", tmp_path / "probe.jpg")
    monkeypatch.setattr(starting, "PROBE_OBJECTS", tmp_path / "probe.json")
    running = started(make_model(), tmp_path)
    with pytest.raises(BlindModel, match="square was not found"):
        starting.probe(running)


def test_a_model_works_without_a_cache(make_model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    start(Settings(model=make_model(), cache_dir=tmp_path / "file" / "cache"))
