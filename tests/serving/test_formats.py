"""Telling model files apart by their bytes, and what is refused."""

import gzip
import io
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import pytest

from yoloserve.errors import ModelUnsupported
from yoloserve.model.formats import Format, Parts, engine_file, parts_in, parts_of, written_engine

ONNX = b"\x08\x08\x12\x04ONNX\x3a\x00"  # version, producer, an empty graph
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


def opened(content: bytes, *, most: int = 10**6, trusted: Collection[Format] = ()) -> Parts:
    return parts_of(content, most=most, trusted=trusted)


def test_a_format_is_told_by_its_bytes() -> None:
    assert opened(ONNX).format is Format.ONNX
    assert opened(SCRIPT, trusted=[Format.TORCHSCRIPT]).format is Format.TORCHSCRIPT


SCRIPT = zipped({"gate/data.pkl": b"", "gate/code/network.py": b""})


def test_a_torchscript_model_is_refused_because_it_is_a_program() -> None:
    told = r"TorchScript.*can run code.*YOLOSERVE_ALLOW_TORCHSCRIPT=true.*spec\.model\.allowCode"
    with pytest.raises(ModelUnsupported, match=told):
        opened(SCRIPT, trusted=[Format.CHECKPOINT, Format.TENSORRT])


CHECKPOINTS = [zipped({"gate/data.pkl": b"", "gate/data/0": b""}), b"\x80\x02pickle"]


@pytest.mark.parametrize("content", CHECKPOINTS)
def test_a_torch_checkpoint_is_refused_because_it_can_run_code(content: bytes) -> None:
    with pytest.raises(ModelUnsupported, match="can run code when loaded"):
        opened(content)


@pytest.mark.parametrize("content", CHECKPOINTS)
def test_a_torch_checkpoint_is_taken_from_who_is_trusted(content: bytes) -> None:
    assert opened(content, trusted=[Format.CHECKPOINT]).format is Format.CHECKPOINT


PLAN = b"ftrt" + bytes(40)
TOLD = {"names": {"0": "person"}, "task": "detect"}
ENGINES = [
    (PLAN, {}),
    (b"ptrt" + PLAN, {}),
    (engine_file(PLAN, TOLD), TOLD),
    (zipped({"gate/gate.engine": engine_file(PLAN, TOLD)}), TOLD),
]


@pytest.mark.parametrize(("content", "told"), ENGINES)
def test_a_tensorrt_engine_is_its_plan_and_what_is_told_before_it(content, told) -> None:
    parts = opened(content, trusted=[Format.TENSORRT])
    assert parts.format is Format.TENSORRT
    assert parts.content.endswith(PLAN)
    assert parts.content.startswith((b"ptrt", b"ftrt"))
    assert parts.metadata == told


def test_an_engine_of_our_own_is_read_however_its_plan_begins() -> None:
    """The next TensorRT may write plans that begin in another way."""
    content = engine_file(b"next" + bytes(40), TOLD)
    parts = written_engine(content)
    assert (parts.format, parts.content[:4], parts.metadata) == (Format.TENSORRT, b"next", TOLD)
    with pytest.raises(ModelUnsupported):
        opened(content, trusted=[Format.TENSORRT])  # from elsewhere it could be anything


@pytest.mark.parametrize(("content", "told"), ENGINES)
def test_a_tensorrt_engine_is_refused_because_it_is_code(content, told) -> None:
    with pytest.raises(ModelUnsupported, match=r"native code.*YOLOSERVE_ALLOW_ENGINE"):
        opened(content, trusted=[Format.CHECKPOINT])


def test_an_engines_metadata_may_begin_like_an_onnx_file() -> None:
    told = {"why": "x" * (0x0108 - len('{"why": ""}'))}
    content = engine_file(PLAN, told)
    assert content.startswith(b"\x08")
    assert opened(content, trusted=[Format.TENSORRT]).metadata == told


@pytest.mark.parametrize("metadata", [b"{,}", b'{"names": \xff}'])
def test_an_engine_with_damaged_metadata_says_so(metadata: bytes) -> None:
    content = len(metadata).to_bytes(4, "little") + metadata + PLAN
    with pytest.raises(ModelUnsupported, match="metadata cannot be read"):
        opened(content, trusted=[Format.TENSORRT])


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
    assert parts.metadata == {"stride": 64}


def test_an_archive_of_one_onnx_file_is_that_file() -> None:
    assert opened(tarred({"./gate.onnx": ONNX, "README": b""}, "w:gz")).content == ONNX


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "nothing"),
        ({"a.onnx": ONNX, "b.onnx": ONNX}, "a.onnx, b.onnx"),
        ({"a.xml": b"<net/>"}, "a.xml has no a.bin"),
        (IR | {"gate/metadata.yaml": b"a: ["}, "metadata.yaml cannot be read"),
        (IR | {"gate/metadata.yaml": b"a: " + b"[" * 5000}, "metadata.yaml cannot be read"),
    ],
)
def test_a_folder_in_which_no_model_can_be_told_says_what_is_there(files, message: str) -> None:
    with pytest.raises(ModelUnsupported, match=message):
        parts_in(files)


@pytest.mark.parametrize("model", [IR, {"gate/gate.onnx": ONNX}])
def test_hidden_files_of_an_archive_are_no_models_as_those_of_a_folder_are_none(model) -> None:
    """What a Mac packs beside each file is called as that is, after `._`."""
    beside = {name.replace("gate/", "gate/._"): b"\0\5\x16\7" for name in model}
    for archive in (zipped(beside | model), tarred(beside | model, "w:gz")):
        assert opened(archive) == parts_in(model)


@pytest.mark.parametrize(
    "odd",
    ["2026-13-45", "0x_", "!!int abc", "!!int ''", "!!float x", "!!bool maybe", "!!timestamp soon"],
)
def test_a_value_that_is_not_what_it_looks_like_is_text(odd: str) -> None:
    told = parts_in(IR | {"gate/metadata.yaml": f"odd: {odd}\nstride: 64".encode()}).metadata
    assert isinstance(told["odd"], str)
    assert told["stride"] == 64


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


def headed(mode: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A tar whose one header tells of `size` bytes, which are zeros."""
    entry = tarfile.TarInfo("gate.onnx")
    entry.type = kind
    header = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    told = size if size < 0 else size + (0x80 << 88)  # GNU's way to tell what octal cannot
    header[124:136] = told.to_bytes(12, "big", signed=size < 0)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content = bytes(header) + bytes(max(size, 0)) + bytes(1024)
    return {"gz": gzip.compress, "xz": lzma.compress, "": bytes}[mode](content)


@pytest.mark.parametrize("size", [-512, -1024, -(2**40)])
def test_an_archive_of_a_file_of_less_than_nothing_is_damaged(size: int) -> None:
    with pytest.raises(ModelUnsupported, match="the archive is damaged"):
        opened(tarred({"a": b""}, "w")[:512] + headed("", size))


@pytest.mark.parametrize("mode", ["gz", "xz"])
def test_a_header_is_no_way_past_the_limit(mode: str) -> None:
    """46 KB of xz told a name of 300 MB, which was unpacked to see whether it is a tar."""
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        with pytest.raises(ModelUnsupported, match="damaged: it tells 2097152 bytes"):
            opened(headed(mode, 2**21, kind), most=10**9)


def test_countless_empty_files_are_not_unpacked() -> None:
    entry = tarfile.TarInfo("a").tobuf()
    with pytest.raises(ModelUnsupported, match="more than 1000 bytes"):
        opened(gzip.compress(entry * 40_000, 1), most=1000)


def test_an_archive_whose_file_has_no_name_holds_no_model() -> None:
    """`is_dir` of the standard library fails on one."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        unnamed = zipfile.ZipInfo("later")
        unnamed.filename = ""
        archive.writestr(unnamed, ONNX)
    with pytest.raises(ModelUnsupported, match=r"there must be one OpenVINO graph"):
        opened(file.getvalue())


def linked(kind: bytes, target: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        entry = tarfile.TarInfo("gate.onnx")
        entry.type, entry.linkname = kind, target
        archive.addfile(entry)
    return file.getvalue()


def zipped_link() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        entry = zipfile.ZipInfo("gate.onnx")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/hostname")
    return file.getvalue()


@pytest.mark.parametrize(
    "archive",
    [
        linked(tarfile.SYMTYPE, "gate.onnx"),  # to itself
        linked(tarfile.SYMTYPE, "/etc/hostname"),
        linked(tarfile.LNKTYPE, "gate.onnx"),
        linked(tarfile.FIFOTYPE, ""),
        linked(tarfile.CHRTYPE, ""),
        zipped_link(),
    ],
)
def test_an_archive_holds_regular_files_only(archive: bytes) -> None:
    with pytest.raises(ModelUnsupported, match=r"archive's gate\.onnx is a link or something else"):
        opened(archive)


@pytest.mark.parametrize("archive", [zipped(IR), tarred(IR, "w:gz"), tarred(IR, "w:xz")])
def test_an_archive_with_a_changed_byte_is_read_or_refused(archive: bytes) -> None:
    for position in range(len(archive)):
        changed = bytearray(archive)
        changed[position] ^= 0x55
        with suppress(ModelUnsupported):
            opened(bytes(changed))


def test_a_graph_of_another_format_is_not_handed_on_as_openvinos() -> None:
    with pytest.raises(ModelUnsupported, match="does not begin as XML"):
        parts_in({"a.xml": ONNX, "a.bin": b""})
