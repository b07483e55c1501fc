"""Telling model files apart by their bytes, and what is refused."""

import io
import tarfile
import zipfile
from typing import Any

import pytest

from yoloserve.errors import ModelUnsupported
from yoloserve.formats import Format, Parts, parts_in, parts_of

ONNX = b"\x08\x08: an ONNX file begins with its version"
IR = {"gate/gate.xml": b"<net/>", "gate/gate.bin": b"\1\2", "gate/metadata.yaml": b"stride: 64"}


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def tarred(files: dict[str, bytes], mode: Any) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def opened(content: bytes, *, most: int = 10**6, allow_pickle: bool = False) -> Parts:
    return parts_of(content, most=most, allow_pickle=allow_pickle)


def test_a_format_is_told_by_its_bytes() -> None:
    assert opened(ONNX).format is Format.ONNX
    script = zipped({"gate/data.pkl": b"", "gate/code/network.py": b""})
    assert opened(script).format is Format.TORCHSCRIPT


CHECKPOINTS = [zipped({"gate/data.pkl": b"", "gate/data/0": b""}), b"\x80\x02pickle"]


@pytest.mark.parametrize("content", CHECKPOINTS)
def test_a_torch_checkpoint_is_refused_because_it_can_run_code(content: bytes) -> None:
    with pytest.raises(ModelUnsupported, match="can run code when loaded"):
        opened(content)


@pytest.mark.parametrize("content", CHECKPOINTS)
def test_a_torch_checkpoint_is_taken_from_who_is_trusted(content: bytes) -> None:
    assert opened(content, allow_pickle=True).format is Format.CHECKPOINT


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK nothing"])
def test_what_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(ModelUnsupported, match="neither"):
        opened(content)


@pytest.mark.parametrize(
    "archive", [zipped(IR), tarred(IR, "w"), tarred(IR, "w:gz"), tarred(IR, "w:xz")]
)
def test_an_archive_of_an_openvino_ir_is_its_graph_weights_and_metadata(archive: bytes) -> None:
    parts = opened(archive)
    assert (parts.format, parts.content, parts.weights) == (Format.OPENVINO, b"<net/>", b"\1\2")
    assert parts.told == {"stride": 64}


def test_an_archive_of_one_onnx_file_is_that_file() -> None:
    assert opened(tarred({"./gate.onnx": ONNX, "README": b""}, "w:gz")).content == ONNX


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "nothing"),
        ({"a.onnx": ONNX, "b.onnx": ONNX}, "a.onnx, b.onnx"),
        ({"a.xml": b""}, "a.xml has no a.bin"),
        (IR | {"gate/metadata.yaml": b"a: ["}, "metadata.yaml cannot be read"),
    ],
)
def test_a_folder_in_which_no_model_can_be_told_says_what_is_there(files, message: str) -> None:
    with pytest.raises(ModelUnsupported, match=message):
        parts_in(files)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_that_unpacks_to_more_than_allowed_is_refused(mode: str) -> None:
    bomb = {"gate.onnx": ONNX + bytes(10**6)}
    for archive in (tarred(bomb, mode), zipped(bomb)):
        with pytest.raises(ModelUnsupported, match="more than 1000 bytes"):
            opened(archive, most=1000)


@pytest.mark.parametrize("archive", [zipped(IR), tarred(IR, "w:gz")])
def test_half_an_archive_is_no_model(archive: bytes) -> None:
    with pytest.raises(ModelUnsupported):
        opened(archive[: len(archive) // 2])
