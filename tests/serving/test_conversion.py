"""Scoring a model, and converting it to one that sees the same."""

import json
import math
import os
import resource
import shutil
from dataclasses import replace
from errno import ENOSPC
from pathlib import Path

import numpy as np
import pytest

from yoloserve.__main__ import main
from yoloserve.engine.backends import openvino
from yoloserve.engine.backends.openvino_convert import write_ir
from yoloserve.engine.starting import start
from yoloserve.errors import ModelUnsupported, ParityFailed
from yoloserve.model.formats import Format
from yoloserve.model.own import own_folder
from yoloserve.model.weights import fetch
from yoloserve.quality import conversion
from yoloserve.quality.agreement import Agreement
from yoloserve.quality.conversion import Parity
from yoloserve.settings import BackendName, PrecisionName, Settings

EXAMPLES = Path(__file__).parents[2] / "examples" / "images"
EX_CONFIG = 78


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """The example pictures and what is known to be in them, in COCO's layout."""
    told = json.loads((EXAMPLES / "labels.json").read_text())
    names = sorted({each["name"] for picture in told.values() for each in picture["objects"]})
    images, annotations = [], []
    for number, (name, picture) in enumerate(told.items()):
        size = {side: picture[side] for side in ("width", "height")}
        images.append({"id": number, "file_name": name} | size)
        for each in picture["objects"]:
            x1, y1, x2, y2 = (each["box"][edge] for edge in ("x1", "y1", "x2", "y2"))
            box, kind = [x1, y1, x2 - x1, y2 - y1], names.index(each["name"])
            annotations.append({"image_id": number, "category_id": kind, "bbox": box})
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    path = tmp_path / "set" / "labels.json"
    path.parent.mkdir()
    (path.parent / "images").symlink_to(EXAMPLES)
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_evaluate_prints_the_average_precision_of_each_class(labelled, cache, capsys) -> None:
    assert main(["evaluate", str(labelled), f"--cache-dir={cache}", "--precision=fp32"]) == 0
    head, _titles, overall, *classes = capsys.readouterr().out.splitlines()
    assert "6 pictures" in head
    assert float(overall.split()[1]) > 0.4
    assert len(classes) >= 5


def test_evaluate_wants_labels(cache, capsys) -> None:
    assert main(["evaluate", str(EXAMPLES), f"--cache-dir={cache}"]) == EX_CONFIG
    assert "shapes-1.jpg has no labels, and 5 more" in capsys.readouterr().err


def test_a_converted_model_is_kept_written_and_sees_the_same(
    labelled, cache, tmp_path, capsys
) -> None:
    asked = ["convert", str(labelled), f"--cache-dir={cache}", "--precision=fp16"]
    assert main([*asked, f"--into={tmp_path / 'out'}"]) == 0
    place, numbers = capsys.readouterr().out.splitlines()
    assert place == str(tmp_path / "out")
    assert "F1 1.0000" in numbers
    written = start(Settings(model=Path(place).as_uri(), cache_dir=cache, precision="fp32"))
    source = start(Settings(cache_dir=cache, precision="fp32"))
    assert written.info.classes == source.info.classes
    assert written.input_size == source.input_size
    assert main(asked) == 0
    assert capsys.readouterr().out.splitlines() == ["fp16: compared only, --into keeps it", numbers]
    assert list((own_folder(cache) / "converted").iterdir()) == []


def test_a_quantised_model_is_found_by_its_source_and_precision(
    cache, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(cache_dir=cache, precision="int8", backend=BackendName.OPENVINO)
    with pytest.raises(ModelUnsupported, match="convert --precision int8"):
        start(settings)
    int8 = PrecisionName.INT8  # three pictures do not calibrate well; that is not the question here
    loose = replace(conversion.TARGETS[int8], least_f1=0.5)
    monkeypatch.setitem(conversion.TARGETS, int8, loose)
    asked = ["convert", str(EXAMPLES), f"--cache-dir={cache}", "--precision=int8"]
    assert main([*asked, "--image-size=256"]) == 0
    served, source = start(settings), start(Settings(cache_dir=cache))
    sides = [(size.height, size.width) for size in (served.input_size, source.input_size)]
    assert sides[0] == sides[1]  # what it was made with are settings, and not the model's own
    assert served.info.precision is int8
    assert served.input_size.dynamic == ("amx_int8" not in openvino.cpu_flags())
    monkeypatch.setattr(openvino, "cpu_flags", lambda: {"amx_int8"})
    assert not start(settings).input_size.dynamic  # where a quantised network of any size crashes
    assert served.info.sha256 == source.info.sha256

    (empty := tmp_path / "empty").mkdir()
    assert main([*asked[:1], str(empty), *asked[2:]]) == EX_CONFIG  # not what was kept before
    [place] = (own_folder(cache) / "converted").iterdir()
    place.write_bytes(place.read_bytes()[:-1])
    with pytest.raises(ModelUnsupported, match="convert --precision int8"):
        start(settings)
    assert not place.exists()


def test_a_conversion_that_sees_other_things_is_refused_and_not_kept(
    cache, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    fp16 = PrecisionName.FP16
    strict = replace(conversion.TARGETS[fp16], least_f1=1.01)
    monkeypatch.setitem(conversion.TARGETS, fp16, strict)
    asked = ["convert", str(EXAMPLES), f"--cache-dir={cache}", "--precision=fp16"]
    assert main(asked) == EX_CONFIG
    assert "ParityFailed: in fp16 the model does not see what it saw" in capsys.readouterr().err
    assert list((own_folder(cache) / "converted").iterdir()) == []


def test_a_conversion_that_loses_average_precision_is_refused_with_the_numbers() -> None:
    agreed = Agreement(both=100)
    Parity(agreed, (55.0, 54.2)).require(PrecisionName.INT8)
    with pytest.raises(ParityFailed, match=r"loses 0\.80 points of mAP.*55\.00 -> 54\.20"):
        Parity(agreed, (55.0, 54.2)).require(PrecisionName.BF16)


def test_a_conversion_says_of_itself_what_its_source_does(make_model, cache, tmp_path) -> None:
    arguments = {"args": "{'nms': True, 'dynamic': True}", "batch": "2", "version": "8.10"}
    rows = np.array([[8, 8, 40, 40, 0.9, 1], [4, 4, 20, 60, 0.1, 0]], np.float32)
    model = make_model(output=np.repeat(rows, 3, 0), size=None, batch=None, told=arguments)
    into = tmp_path / "out"
    asked = ["convert", str(EXAMPLES), f"--model={model}", f"--cache-dir={cache}"]
    assert main([*asked, "--precision=fp16", f"--into={into}", "--image-size=128"]) == 0
    usual = Settings(cache_dir=cache, precision="fp32", profile="throughput", max_batch=8)
    source, written = (
        start(usual.model_copy(update={"model": address})) for address in (model, into.as_uri())
    )
    assert written._backend.metadata == source._backend.metadata
    assert written.max_batch == 2  # further pictures would be answered with nothing


def test_what_is_kept_in_the_cache_is_only_what_a_server_gains_by(cache) -> None:
    before = start(Settings(cache_dir=cache, precision="fp32")).input_size
    asked = ["convert", str(EXAMPLES), f"--cache-dir={cache}", "--precision=fp32"]
    assert main([*asked, "--image-size=256"]) == 0
    assert start(Settings(cache_dir=cache, precision="fp32")).input_size == before


@pytest.mark.parametrize(
    "nothing", [Parity(Agreement()), Parity(Agreement(both=3), (math.nan, math.nan))]
)
def test_pictures_that_tell_nothing_let_no_conversion_pass(nothing: Parity) -> None:
    with pytest.raises(ParityFailed, match="do not tell what fp16 costs"):
        nothing.require(PrecisionName.FP16)


def test_what_to_convert_to_must_be_said(cache, capsys) -> None:
    assert main(["convert", str(EXAMPLES), f"--cache-dir={cache}"]) == EX_CONFIG
    assert "say which to convert to, one of fp32, fp16, bf16, int8" in capsys.readouterr().err


def test_what_models_are_not_converted_to_is_told(cache, capsys) -> None:
    asked = ["convert", str(EXAMPLES), f"--cache-dir={cache}", "--precision=fp16"]
    assert main([*asked, "--backend=torch"]) == EX_CONFIG
    assert "models are converted to openvino, tensorrt" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_told(cache, capsys) -> None:
    cache.write_text("a file where the directory should be")
    asked = ["convert", str(EXAMPLES), f"--cache-dir={cache}", "--precision=fp16"]
    assert main(asked) == EX_CONFIG
    assert "cannot write to" in capsys.readouterr().err


def test_a_folder_that_is_full_is_named_and_left_as_it_was(
    cache, tmp_path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copied_by_half(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:9])
        raise OSError(ENOSPC, os.strerror(ENOSPC), str(source))

    monkeypatch.setattr(shutil, "copyfile", copied_by_half)
    monkeypatch.setattr(shutil, "copy2", copied_by_half)
    (into := tmp_path / "into").mkdir()
    (into / "model.xml").write_text("of before")
    asked = ["convert", str(EXAMPLES), f"--cache-dir={cache}", "--precision=fp16"]
    assert main([*asked, f"--into={into}"]) == EX_CONFIG
    assert f"cannot write to {into}: No space left on device" in capsys.readouterr().err
    assert [path.name for path in into.iterdir()] == ["model.xml"]
    assert (into / "model.xml").read_text() == "of before"


def test_a_full_disk_is_told_where_the_runtime_writes(tmp_path) -> None:
    parts = fetch(Settings(), Format.ONNX).parts
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="perhaps the disk is full") as told:
            write_ir(parts, PrecisionName.FP32, [], tmp_path / "model.xml")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert told.value.filename == str(tmp_path / "model.xml")
