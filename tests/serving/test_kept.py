"""What is damaged in the cache is not used, and made again."""

import errno
import io
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from yoloserve.engine import kept
from yoloserve.engine.backends import openvino
from yoloserve.engine.starting import PROBE, Engine, start
from yoloserve.images.decoding import decode
from yoloserve.images.letterbox import letterbox
from yoloserve.model.own import own_folder
from yoloserve.settings import BackendName, Settings

CONTENT = bytes(range(256)) * 1024


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def zeroed(content: bytes) -> bytes:
    """Lose some blocks, as a node that is reset does."""
    middle = len(content) // 2
    return content[:middle] + bytes(65536) + content[middle + 65536 :]


def flipped(content: bytes) -> bytes:
    return content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]


DAMAGE = [cut, zeroed, flipped, lambda _: b"", lambda _: b"short", lambda content: content + b"."]


def test_what_was_kept_is_read(tmp_path: Path) -> None:
    place = tmp_path / "network"
    assert kept.read(place) is None
    for content in (CONTENT, b""):
        kept.write(place, content)
        assert kept.read(place) == content
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_told_and_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[bytes], bytes]
) -> None:
    place = tmp_path / "network"
    kept.write(place, CONTENT)
    place.write_bytes(damage(place.read_bytes()))
    assert kept.read(place) is None
    assert [record.message for record in caplog.records] == ["damaged file in the cache"]
    assert not place.exists()


def test_what_is_read_stays_whole_while_another_takes_its_place(tmp_path: Path) -> None:
    kept.write(tmp_path / "network", CONTENT)
    content = kept.read(tmp_path / "network")
    kept.write(tmp_path / "network", b"another")
    assert content == CONTENT


def test_where_there_is_no_room_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    kept.keep(tmp_path / "network", CONTENT)
    assert list(tmp_path.iterdir()) == []
    assert [record.message for record in caplog.records] == ["not kept"]


def test_what_cannot_be_read_just_now_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def without_memory(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    place = tmp_path / "network"
    kept.write(place, CONTENT)
    with monkeypatch.context() as patched:
        patched.setattr(kept.mmap, "mmap", without_memory)
        assert kept.read(place) is None
    told = [(record.message, vars(record)["reason"]) for record in caplog.records]
    assert told == [("file in the cache could not be read", "Cannot allocate memory")]
    assert kept.read(place) == CONTENT


def test_what_another_writes_is_kept_whole_or_not_at_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "network"
    with kept.keeping(place) as one, kept.keeping(place) as another:
        assert one
        assert another  # two processes may write at once
        (one / "blob").write_bytes(CONTENT)
        (one / "blob").chmod(0o440)  # as OpenVINO leaves it
        (another / "blob").write_bytes(CONTENT)
    assert kept.read(place) == CONTENT
    assert place.stat().st_mode & 0o777 == 0o600
    with kept.keeping(place):
        pass
    with kept.keeping(tmp_path / "absent" / "network") as nowhere:
        assert nowhere is None
    assert [record.message for record in caplog.records] == ["not kept"] * 2
    assert kept.read(place) == CONTENT
    assert list(tmp_path.iterdir()) == [place]


def test_what_a_killed_process_left_is_removed_once_nobody_can_be_at_it(tmp_path: Path) -> None:
    old, left = tmp_path / ".part-old", tmp_path / ".written-old"
    new, conversion = tmp_path / ".part-new", tmp_path / ".part-conversion"
    for file in (old, new):
        file.write_bytes(b"begun")
    for folder in (left, conversion):
        folder.mkdir()
        (folder / "blob").write_bytes(b"begun")
    for each in (old, left, conversion):
        os.utime(each, (0, 0))
    assert kept.read(tmp_path / "network") is None
    assert set(tmp_path.iterdir()) == {new, conversion}


def test_where_the_disk_fails_it_is_told_and_does_not_end_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(io.FileIO):
        def read(self, _: int | None = -1) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    place = tmp_path / "network"
    kept.write(place, CONTENT)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda path, _: Failing(path))
        assert kept.read(place) is None
    told = [(record.message, vars(record)["reason"]) for record in caplog.records]
    assert told == [("file in the cache could not be read", "Input/output error")]
    assert kept.read(place) == CONTENT


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path, backend=BackendName.OPENVINO, precision="fp32")


def files(settings: Settings) -> dict[Path, bytes]:
    folder = own_folder(settings.cache_dir) / "compiled"
    return {path: path.read_bytes() for path in folder.iterdir()}


def seen(engine: Engine) -> np.ndarray:
    tensor, _ = letterbox(decode(PROBE.read_bytes(), max_pixels=2**24), engine.input_size)
    return engine.infer(0, [tensor])[0]


def test_a_network_is_compiled_once_for_each_way_to_run_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = seen(start(settings))
    assert len(before := files(settings)) == 1

    def compile_model(*_: object) -> None:
        raise AssertionError("compiled again")

    with monkeypatch.context() as patched:
        patched.setattr(openvino.ov.Core, "compile_model", compile_model)
        assert np.array_equal(seen(start(settings)), expected)
    assert files(settings) == before
    start(settings.model_copy(update={"profile": "throughput"}))
    assert len(files(settings)) == 2


def test_keeping_a_network_does_not_hold_up_the_interpreter(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export_model(*_: object) -> None:
        raise AssertionError("it holds the interpreter, and a copy of the network, until it ends")

    monkeypatch.setattr(openvino.ov.CompiledModel, "export_model", export_model)
    start(settings)
    assert len(files(settings)) == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_without_room_for_it_a_network_runs_all_the_same(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    expected = seen(start(settings.model_copy(update={"cache_dir": settings.cache_dir / "other"})))
    if when == "before":
        monkeypatch.setattr(kept, "TemporaryDirectory", full)
    else:
        monkeypatch.setattr(kept.hashlib, "file_digest", full)
    assert np.array_equal(seen(start(settings)), expected)
    assert files(settings) == {}
    assert [record.message for record in caplog.records] == ["not kept"]


def test_a_network_that_the_runtime_wrote_in_part_is_refused_by_it(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    expected = seen(start(settings))
    [place] = files(settings)
    content = bytes(kept.read(place) or b"")
    for part in (content[:-2], content[: len(content) // 2], content[: content.index(b"\n") + 1]):
        kept.write(place, part)
        assert np.array_equal(seen(start(settings)), expected)
    assert [record.message for record in caplog.records] == ["compiled anew"] * 3


def test_a_damaged_network_is_compiled_anew(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    expected = seen(start(settings))
    [(place, content)] = files(settings).items()
    place.write_bytes(zeroed(content))
    assert np.array_equal(seen(start(settings)), expected)
    assert np.array_equal(seen(start(settings)), expected)
    assert [record.message for record in caplog.records] == ["damaged file in the cache"]


def test_a_damaged_network_of_one_size_is_not_taken_up(settings: Settings) -> None:
    def of_its_size() -> np.ndarray:
        engine = start(settings)
        for _ in range(10):
            seen(engine)
        engine._backend.sizes.settle()
        return seen(engine)

    expected = of_its_size()
    for place, content in files(settings).items():
        place.write_bytes(zeroed(content))
    assert np.array_equal(of_its_size(), expected)


def test_what_the_runtime_refuses_is_compiled_anew(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    expected = seen(start(settings))
    [place] = files(settings)
    kept.write(place, b"of another making")
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(seen(start(settings)), expected)
    assert [record.message for record in caplog.records] == ["compiled anew"]
