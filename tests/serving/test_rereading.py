"""A file that changes while we run is read once for each change, and only then."""

import os
from pathlib import Path

import pytest

from yoloserve.rereading import Reread


def number_in(file: Path) -> int:
    return int(file.read_text())


def replace(file: Path, text: str) -> None:
    other = file.with_suffix(".new")
    other.write_text(text)
    os.replace(other, file)  # as Kubernetes does with a mounted Secret


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "number"
    path.write_text("1")
    return path


def test_another_file_is_read_once(file: Path) -> None:
    read: list[Path] = []

    def reading(path: Path) -> int:
        read.append(path)
        return number_in(path)

    number = Reread(file, reading)
    assert not number.look()
    replace(file, "2")
    assert number.look()
    assert number.content == 2
    assert not number.look()
    assert len(read) == 2


def test_it_does_not_look_more_often_than_it_was_told_to(file: Path, clock) -> None:
    number = Reread(file, number_in, every_s=1, clock=clock)
    replace(file, "2")
    assert not number.look()
    clock.now += 1
    assert number.look()


def test_a_file_that_cannot_be_read_is_told_once_and_leaves_what_was(file: Path) -> None:
    number = Reread(file, number_in)
    replace(file, "two")
    with pytest.raises(ValueError, match="two"):
        number.look()
    assert not number.look()
    assert number.content == 1
    file.unlink()
    with pytest.raises(FileNotFoundError):
        number.look()
    assert number.content == 1
    replace(file, "3")
    assert number.look()
    assert number.content == 3
