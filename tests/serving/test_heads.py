"""Every head that the public exporters write, on every runtime, in every kind of graph."""

from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import yaml

from yoloserve.detections.postprocess import Head, Options, postprocess
from yoloserve.engine.starting import Engine, start
from yoloserve.errors import ModelUnsupported
from yoloserve.images.letterbox import letterbox
from yoloserve.settings import BackendName, HeadName, PrecisionName, Profile, Settings

NAMES = ("circle", "square", "star")
RUNTIMES = [BackendName.OPENVINO, BackendName.ONNXRUNTIME]
OPTIONS = Options(confidence=0.25, iou=0.7, max_detections=300)
SIZE = 64

# The same two objects, and a third below the threshold, as each head writes them.
ANCHOR_FREE = np.array(
    [
        [32.0, 32.0, 20.0, 10.0, 0.9, 0.1, 0.0],
        [12.0, 40.0, 8.0, 8.0, 0.0, 0.0, 0.6],
        [50.0, 50.0, 6.0, 6.0, 0.0, 0.2, 0.0],
    ],
    np.float32,
).T
OBJECTNESS = np.array(
    [
        [32.0, 32.0, 20.0, 10.0, 0.9, 1.0, 0.1, 0.0],
        [12.0, 40.0, 8.0, 8.0, 0.75, 0.0, 0.0, 0.8],
        [50.0, 50.0, 6.0, 6.0, 0.4, 0.0, 0.5, 0.0],
    ],
    np.float32,
)
END_TO_END = np.array(
    [
        [22.0, 27.0, 42.0, 37.0, 0.9, 0.0],
        [8.0, 36.0, 16.0, 44.0, 0.6, 2.0],
        [47.0, 47.0, 53.0, 53.0, 0.2, 1.0],
        *np.zeros((297, 6)),
    ],
    np.float32,
)
HEADS = {
    Head.ANCHOR_FREE: ANCHOR_FREE,
    Head.OBJECTNESS: OBJECTNESS,
    Head.END_TO_END: END_TO_END,
}


def loaded(address: str, folder: Path, **given: object) -> Engine:
    fp32 = {"precision": PrecisionName.AUTO}
    return start(Settings(model=address, cache_dir=folder, **(fp32 | given)))


def requires_two_objects(engine: Engine, batch: int = 1) -> None:
    tensor, fit = letterbox(np.zeros((SIZE, SIZE, 3), np.uint8), engine.input_size)
    outputs = engine.infer(0, [tensor] * batch)
    assert len(outputs) == batch
    for output in outputs:
        found = postprocess(output, engine.head, fit, OPTIONS)
        assert [NAMES[index] for index in found.classes] == ["circle", "star"]
        np.testing.assert_allclose(found.scores, [0.9, 0.6], atol=4e-3)
        np.testing.assert_allclose(found.boxes, [[22, 27, 42, 37], [8, 36, 16, 44]], atol=0.1)


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize(("batch", "size"), [(1, SIZE), (None, SIZE), (None, None), (1, None)])
@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
@pytest.mark.parametrize("backend", RUNTIMES)
def test_every_head_in_every_graph_gives_the_same_objects(
    make_model, tmp_path: Path, backend: BackendName, head: Head, batch, size, half: bool
) -> None:
    address = make_model(output=HEADS[head], batch=batch, size=size, half=half)
    engine = loaded(address, tmp_path, backend=backend, profile=Profile.THROUGHPUT)
    assert engine.head is head
    requires_two_objects(engine)
    if batch is None:
        requires_two_objects(engine, batch=3)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_an_openvino_folder_gives_the_same_objects(make_model, tmp_path: Path, head: Head) -> None:
    source = make_model(output=HEADS[head], size=None, names=None)
    folder = tmp_path / "gate_openvino_model"
    ov.save_model(ov.Core().read_model(source.removeprefix("file://")), folder / "gate.xml")
    told = {"names": dict(enumerate(NAMES)), "imgsz": [SIZE, SIZE], "task": "detect", "stride": 32}
    (folder / "metadata.yaml").write_text(yaml.safe_dump(told))
    engine = loaded(folder.as_uri(), tmp_path / "cache")
    assert (engine.head, engine.info.classes) == (head, NAMES)
    requires_two_objects(engine)


def test_an_openvino_graph_without_metadata_has_its_labels(make_model, tmp_path: Path) -> None:
    network = ov.Core().read_model(make_model(names=None).removeprefix("file://"))
    del network.rt_info["framework"]
    network.set_rt_info(list(NAMES), ["model_info", "labels"])
    ov.save_model(network, tmp_path / "gate" / "gate.xml")
    engine = loaded((tmp_path / "gate").as_uri(), tmp_path / "cache")
    assert engine.info.classes == NAMES
    requires_two_objects(engine)


@pytest.mark.parametrize("backend", RUNTIMES)
def test_a_class_list_of_another_length_than_the_heads_says_for_how_many_it_is(
    make_model, tmp_path: Path, backend: BackendName
) -> None:
    with pytest.raises(ModelUnsupported, match=r"of 2 classes.*looks like one for 3"):
        loaded(
            make_model(output=np.tile(ANCHOR_FREE, 10), names=None),
            tmp_path,
            backend=backend,
            classes=("circle", "star"),
        )


@pytest.mark.parametrize("said", [{"end2end": "True"}, {}], ids=["told", "said"])
def test_a_class_list_that_is_too_short_for_what_a_graph_finds_is_told_at_start(
    make_model, tmp_path: Path, said: dict[str, str]
) -> None:
    address = make_model(output=END_TO_END, names=None, **said)
    asked = {} if said else {"head": HeadName.END_TO_END}
    with pytest.raises(ModelUnsupported, match="objects of class 2, but the list of classes has 2"):
        loaded(address, tmp_path, classes=("circle", "square"), **asked)


@pytest.mark.parametrize(("told", "head"), [("True", Head.END_TO_END), ("False", Head.OBJECTNESS)])
def test_what_the_metadata_says_decides_between_heads_of_one_shape(
    make_model, tmp_path: Path, told: str, head: Head
) -> None:
    rows = np.tile(np.float32([30, 30, 10, 10, 0.2, 0]), (300, 1))  # either could be meant
    address = make_model(output=rows, names=("circle",), end2end=told)
    assert loaded(address, tmp_path).head is head


def test_suppression_exported_into_the_graph_is_told_by_the_arguments(
    make_model, tmp_path: Path
) -> None:
    rows = np.zeros((2000, 6), np.float32)
    address = make_model(output=rows, names=("circle",), args="{'nms': True}")
    assert loaded(address, tmp_path).head is Head.END_TO_END


@pytest.mark.parametrize("backend", RUNTIMES)
@pytest.mark.parametrize(("exported", "most"), [(1, 1), (3, 3), (16, 8)])
def test_suppression_in_the_graph_looks_at_as_many_images_as_it_was_exported_for(
    make_model, tmp_path: Path, backend: BackendName, exported: int, most: int
) -> None:
    address = make_model(
        output=END_TO_END,
        batch=None,
        told={"args": "{'nms': True, 'dynamic': True}", "batch": str(exported)},
    )
    engine = loaded(address, tmp_path, backend=backend, profile=Profile.THROUGHPUT, max_batch=8)
    assert engine.max_batch == most
    requires_two_objects(engine, batch=most)


@pytest.mark.parametrize("backend", RUNTIMES)
@pytest.mark.parametrize("profile", Profile)
def test_a_graph_for_several_images_is_given_them_and_run_full_for_fewer(
    make_model, tmp_path: Path, backend: BackendName, profile: Profile
) -> None:
    engine = loaded(
        make_model(output=END_TO_END, batch=4), tmp_path, backend=backend, profile=profile
    )
    assert (engine.lanes, engine.max_batch) == (1, 4)
    for images in (1, 3, 4):
        requires_two_objects(engine, batch=images)


@pytest.mark.parametrize("backend", RUNTIMES)
def test_a_size_that_is_no_multiple_of_the_stride_names_one_that_is(
    make_model, tmp_path: Path, backend: BackendName
) -> None:
    with pytest.raises(ModelUnsupported, match="give 128 as the image size"):
        loaded(make_model(size=None), tmp_path, backend=backend, image_size=100)


def test_a_stride_may_be_given_where_the_model_tells_none(make_model, tmp_path: Path) -> None:
    engine = loaded(make_model(size=None), tmp_path, stride=64, image_size=128)
    tensor, _ = letterbox(np.zeros((40, 128, 3), np.uint8), engine.input_size)
    assert tensor.shape == (64, 128, 3)
