"""What is damaged in the cache is not used, and made again."""

import logging
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
