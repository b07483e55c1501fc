"""The command line, on files."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from yoloserve import commands
from yoloserve.__main__ import main

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
