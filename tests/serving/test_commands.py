"""The command line, on files."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from yoloserve import commands
from yoloserve.__main__ import main
from yoloserve.commands import _drawings
from yoloserve.detections import heads

EX_CONFIG = 78


@pytest.fixture
def street(tmp_path: Path, jpeg: bytes) -> Path:
    (tmp_path / "street.jpg").write_bytes(jpeg)
    return tmp_path / "street.jpg"


@pytest.fixture
def flags(make_model, tmp_path: Path) -> list[str]:
    return [f"--model={make_model()}", f"--cache-dir={tmp_path}"]


def test_predict_prints_a_line_for_each_picture(street, flags, capsys) -> None:
    assert main(["predict", str(street), str(street), *flags]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["picture"] for line in lines] == [str(street)] * 2
    assert [found["name"] for found in lines[0]["detections"]] == ["circle", "star"]


def test_predict_obeys_the_settings(street, flags, capsys) -> None:
    assert main(["predict", str(street), "--confidence=0.7", *flags]) == 0
    assert len(json.loads(capsys.readouterr().out)["detections"]) == 1


def test_predict_saves_pictures_with_boxes(street, flags, tmp_path: Path, picture) -> None:
    assert main(["predict", str(street), f"--save={tmp_path / 'out'}", *flags]) == 0
    drawn = cv2.imread(str(tmp_path / "out" / "street.jpg"))
    assert drawn.shape == picture.shape
    assert np.abs(drawn.astype(int) - picture).max() > 100


def test_a_class_list_that_turns_out_too_short_is_told(
    street, make_model, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(heads, "_named", lambda head, *_: head)  # as if the start had seen none
    rows = np.float32([[10, 10, 20, 20, 0.9, 2], [10, 10, 20, 20, 0.1, 1]])
    model = make_model(output=rows, names=("circle",), end2end="True")
    assert (
        main(["predict", str(street), f"--model={model}", f"--cache-dir={tmp_path}"]) == EX_CONFIG
    )
    assert "an object of class 2, but the list of classes has 1" in capsys.readouterr().err


def test_predict_writes_over_nothing(street, flags, tmp_path: Path, jpeg: bytes, capsys) -> None:
    (other := tmp_path / "cam2" / "street.jpg").parent.mkdir()
    other.write_bytes(jpeg)
    assert main(["predict", str(street), f"--save={tmp_path}", *flags]) == EX_CONFIG
    assert f"{street} is there already" in capsys.readouterr().err
    assert street.read_bytes() == jpeg
    out = tmp_path / "out"
    assert main(["predict", str(street), str(other), f"--save={out}", *flags]) == EX_CONFIG
    assert f"{out}/street.jpg would be written twice" in capsys.readouterr().err
    assert not list(out.iterdir())
    assert main(["predict", str(street), f"--save={street}", *flags]) == EX_CONFIG
    assert f"cannot write to {street}: File exists" in capsys.readouterr().err


def test_what_many_drawings_are_called_is_compared_about_once_each(tmp_path: Path) -> None:
    compared: list[object] = []

    class Counted(type(tmp_path)):
        __hash__ = type(tmp_path).__hash__

        def __eq__(self, other: object) -> bool:
            compared.append(other)
            return super().__eq__(other)

    pictures = [Path(f"{number}.jpg") for number in range(100)]
    assert len(_drawings(pictures, Counted(tmp_path / "out"))) == 100
    assert len(compared) <= 100


def test_predict_draws_only_what_it_saves(street, flags, capsys) -> None:
    """No JPEG has sides that long; an answer has."""
    cv2.imwrite(str(wide := street.with_name("wide.png")), np.zeros((8, 66_000, 3), np.uint8))
    assert main(["predict", str(wide), *flags]) == 0
    assert json.loads(capsys.readouterr().out)["image"] == {"width": 66_000, "height": 8}


def labelled(folder: Path, jpeg: bytes, labels: str = "0 .5 .5 .1 .1") -> str:
    (folder / "set").mkdir()
    (folder / "set" / "a.jpg").write_bytes(jpeg)
    (folder / "set" / "a.txt").write_text(labels)
    return str(folder / "set")


def test_evaluate_prints_a_table(tmp_path, flags, jpeg: bytes, capsys) -> None:
    assert main(["evaluate", labelled(tmp_path, jpeg), *flags]) == 0
    assert "circle" in capsys.readouterr().out


def test_a_damaged_picture_of_a_set_is_named(tmp_path, flags, jpeg: bytes, capsys) -> None:
    data = labelled(tmp_path, jpeg[: len(jpeg) // 2])
    assert main(["convert", data, "--precision=int8", *flags]) == EX_CONFIG
    assert f"{data}/a.jpg: the image/jpeg is cut short" in capsys.readouterr().err
    assert main(["evaluate", data, *flags]) == EX_CONFIG
    assert f"{data}/a.jpg: the image/jpeg is cut short" in capsys.readouterr().err


def test_a_picture_that_leads_nowhere_is_named(tmp_path, flags, jpeg: bytes, capsys) -> None:
    data = labelled(tmp_path, jpeg)
    (gone := Path(data) / "a.jpg").unlink()
    gone.symlink_to("gone.jpg")
    assert main(["convert", data, "--precision=int8", *flags]) == EX_CONFIG
    assert f"cannot read {gone}: No such file" in capsys.readouterr().err


def test_a_set_without_objects_is_not_evaluated(tmp_path, flags, jpeg: bytes, capsys) -> None:
    assert main(["evaluate", labelled(tmp_path, jpeg, ""), *flags]) == EX_CONFIG
    assert "no picture of the set has an object" in capsys.readouterr().err


def test_convert_asks_for_its_folder_before_it_begins(street, capsys) -> None:
    assert main(["convert", str(street.parent), f"--into={street}"]) == EX_CONFIG
    assert f"cannot write to {street}: File exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argument", ["evaluate --limit=0", "bench --concurrency=0", "bench --seconds=nan"]
)
def test_numbers_that_cannot_be_meant_are_refused(argument: str, capsys) -> None:
    with pytest.raises(SystemExit):
        main([*argument.split(), "street.jpg"])
    assert f"argument {argument.split()[1].split('=')[0]}:" in capsys.readouterr().err


def test_predict_goes_on_after_a_damaged_picture_and_says_so(
    street, flags, tmp_path: Path, capsys
) -> None:
    (tmp_path / "notes.jpg").write_text("not a picture")
    assert main(["predict", str(tmp_path / "notes.jpg"), str(street), *flags]) == 1
    bad, good = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert bad["error"]["code"] == "unsupported_media_type"
    assert good["detections"]


def test_a_picture_that_is_not_there_is_told_before_anything_is_loaded(capsys) -> None:
    assert main(["predict", "/nowhere.jpg"]) == EX_CONFIG
    assert "cannot read /nowhere.jpg" in capsys.readouterr().err


def test_what_is_no_picture_cannot_be_measured_and_is_named(tmp_path, flags, capsys) -> None:
    (notes := tmp_path / "notes.jpg").write_text("no picture")
    assert main(["bench", str(notes), *flags]) == EX_CONFIG
    assert f"{notes}: the body is no image" in capsys.readouterr().err


def test_bench_prints_the_engine_and_the_whole_path(street, flags, capsys) -> None:
    assert main(["bench", str(street), "--seconds=0.2", *flags]) == 0
    told = capsys.readouterr().out
    assert "engine alone" in told
    assert "whole path" in told
    assert "images/s" in told


async def test_even_when_the_time_is_over_at_once_each_caller_has_called() -> None:
    calls = 0

    async def call() -> None:
        nonlocal calls
        calls += 1

    rate, median, slowest = await commands._measure(call, 0, 3)
    assert calls == 3
    assert rate > 0
    assert 0 <= median <= slowest
