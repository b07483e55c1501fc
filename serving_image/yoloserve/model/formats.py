"""From a file, an archive or a folder to the parts of a model; told by bytes, never by names."""

import bz2
import enum
import gzip
import io
import json
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Any, cast

from yoloserve.errors import ModelUnsupported
from yoloserve.model import external

METADATA_FILE = "metadata.yaml"  # beside an OpenVINO IR, by the public exporter's convention
ONNX_START = b"\x08"  # the protobuf key of ir_version, which exporters write first
PICKLE_START = b"\x80"
PLAN_STARTS = b"ptrt", b"ftrt"  # written nowhere, but all of TensorRT's plans begin so
BLANK = b"\xef\xbb\xbf \t\r\n"
DAMAGED = (  # what the readers of archives raise for bytes that are none
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    LookupError,
    RuntimeError,
    struct.error,
)
UNPACK: dict[bytes, Callable[[io.BytesIO], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    b"\x5d\0\0": lzma.open,  # its older format
}
MOST_IN_HEADER = 2**20  # bytes of a tar: a long name, what else is told of a file
MOST_IN_HEADERS = 2**24  # of all files, with the gaps between them
LENGTH_BYTES = 4  # of an engine's metadata: an integer, little end first


class Format(enum.StrEnum):
    """The model files this server reads."""

    ONNX = "ONNX"
    OPENVINO = "OpenVINO IR"
    TORCHSCRIPT = "TorchScript"
    CHECKPOINT = "Torch checkpoint"
    TENSORRT = "TensorRT engine"


CAN_RUN_CODE = {
    Format.CHECKPOINT: "a Torch checkpoint (a pickle), which can run code when loaded: export it "
    "to ONNX, or, if you trust whoever made it, set YOLOSERVE_ALLOW_PICKLE=true "
    "(spec.model.allowCode: [pickle])",
    # Torch's own policy: "TorchScript models should be treated as programs". Custom operators, and
    # files read and written, are within its reach.
    Format.TORCHSCRIPT: "a TorchScript model, which is a program and can run code when loaded: "
    "export the network to ONNX, or, if you trust whoever made it, set "
    "YOLOSERVE_ALLOW_TORCHSCRIPT=true (spec.model.allowCode: [torchscript])",
    # NVIDIA says so, and that there is no way to check one.
    Format.TENSORRT: "a TensorRT engine, which is native code: give the ONNX file, which the "
    "tensorrt backend compiles, or, if you trust whoever made it, set YOLOSERVE_ALLOW_ENGINE=true "
    "(spec.model.allowCode: [engine])",
}


@dataclass(frozen=True, slots=True, repr=False)
class Parts:
    """What a runtime is given."""

    format: Format
    content: bytes
    weights: bytes = b""  # of an OpenVINO IR, whose `content` is the graph
    metadata: Mapping[str, object] = field(default_factory=dict)  # in a metadata file beside it


def parts_of(content: bytes, *, most: int, trusted: Collection[Format] = ()) -> Parts:
    """Tell what one file is, opening archives of up to `most` bytes.

    Raises `ModelUnsupported`; also for files that can run code when loaded (Torch checkpoints are
    pickles, TorchScript is a program, TensorRT engines are native code), unless they are of a
    `trusted` format.
    """
    file = io.BytesIO(content)
    if engine := engine_parts(content):
        return _trusted(engine, trusted)
    if zipfile.is_zipfile(file):
        with _zip(file) as archive:
            names = archive.namelist()  # a TorchScript or checkpoint is a zip file as well
            if any("/code/" in name for name in names):
                return _trusted(Parts(Format.TORCHSCRIPT, content), trusted)
            if not any(name.endswith("data.pkl") for name in names):
                return parts_in(_unzipped(archive, most), trusted=trusted)
    elif content.startswith(ONNX_START):
        return Parts(Format.ONNX, external.whole(content, external.refused))
    elif _is_tar(content, most):
        return parts_in(_untarred(content, most), trusted=trusted)
    elif not content.startswith(PICKLE_START):
        raise ModelUnsupported(
            "the file is neither an ONNX nor a TorchScript model, nor a TensorRT engine, nor an "
            "archive of an OpenVINO IR: export it to ONNX"
        )
    return _trusted(Parts(Format.CHECKPOINT, content), trusted)


def parts_in(files: Mapping[str, bytes], *, trusted: Collection[Format] = ()) -> Parts:
    """Find the model among a folder's files: an OpenVINO IR, or one ONNX file or engine.

    Hidden files are none: `._gate.onnx` is what a Mac packs beside `gate.onnx`.
    """
    visible = [name for name in files if not PurePosixPath(name).name.startswith(".")]
    graphs = [name for name in visible if name.endswith(".xml")]
    single = [name for name in visible if name.endswith((".onnx", ".engine"))]
    if len(graphs) == 1:
        weights = graphs[0].removesuffix(".xml") + ".bin"
        if weights not in files:
            raise ModelUnsupported(f"{graphs[0]} has no {weights} beside it")
        beside = str(PurePosixPath(graphs[0]).with_name(METADATA_FILE))
        metadata = _yaml(files[beside]) if beside in files else {}
        if not files[graphs[0]].lstrip(BLANK).startswith(b"<"):
            # The runtime goes by the bytes: another format's references would lead elsewhere.
            raise ModelUnsupported(f"{graphs[0]} is no OpenVINO graph: it does not begin as XML")
        return Parts(Format.OPENVINO, files[graphs[0]], files[weights], metadata)
    if len(single) == 1 and not graphs:
        if engine := engine_parts(files[single[0]]):
            return _trusted(engine, trusted)
        beside_it = external.among(files, single[0])
        return Parts(Format.ONNX, external.whole(files[single[0]], beside_it))
    raise ModelUnsupported(
        "there must be one OpenVINO graph (.xml with its .bin), .onnx or .engine, but there is: "
        + (", ".join(sorted(files)[:10]) or "nothing")
    )


def engine_parts(content: bytes) -> Parts | None:
    """Read a TensorRT plan, bare or after metadata, as the public exporter writes it."""
    if content.startswith(PLAN_STARTS):
        return Parts(Format.TENSORRT, content)
    if content[LENGTH_BYTES : LENGTH_BYTES + 1] != b"{" or not content.startswith(
        PLAN_STARTS, _plan(content)
    ):
        return None
    return written_engine(content)


def written_engine(content: bytes) -> Parts:
    """Read what `engine_file` has written; how a plan begins is TensorRT's own matter."""
    plan = _plan(content)
    try:
        metadata = json.loads(content[LENGTH_BYTES:plan])
    except (ValueError, RecursionError) as error:
        raise ModelUnsupported(f"the engine's metadata cannot be read: {error}") from error
    return Parts(Format.TENSORRT, content[plan:], metadata=metadata)


def _plan(content: bytes) -> int:
    """Say where the plan begins, after its metadata."""
    return LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "little")


def engine_file(plan: bytes, metadata: Mapping[str, object]) -> bytes:
    """Write a plan with its metadata."""
    head = json.dumps(metadata).encode()
    return len(head).to_bytes(LENGTH_BYTES, "little") + head + plan


def _trusted(parts: Parts, trusted: Collection[Format]) -> Parts:
    if parts.format not in trusted:
        raise ModelUnsupported(f"the file is {CAN_RUN_CODE[parts.format]}")
    return parts


def _yaml(text: bytes) -> dict[str, object]:
    import yaml  # only models of this format need it

    class Plain(yaml.SafeLoader):
        """Reads a tag of whoever wrote it (`!!python/tuple`) as if it was not there.

        A scalar that is not what it looks like (2026-13-45) stays text.
        """

    for kind in ("bool", "int", "float", "timestamp"):
        tag = f"tag:yaml.org,2002:{kind}"
        Plain.add_constructor(tag, partial(_or_text, yaml.SafeLoader.yaml_constructors[tag]))
    Plain.add_multi_constructor("", _untagged)
    try:
        content = yaml.load(text, Plain)  # still a SafeLoader: it makes no objects
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ModelUnsupported(f"{METADATA_FILE} cannot be read: {error}") from error
    return content if isinstance(content, dict) else {}


def _or_text(construct: Callable[[Any, Any], object], loader: Any, node: Any) -> object:
    try:
        return construct(loader, node)
    except (
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
    ):  # whatever these raise: no YAMLError
        return loader.construct_scalar(node)


def _untagged(loader: Any, _: str, node: Any) -> object:
    if node.id == "mapping":
        return loader.construct_mapping(node, deep=True)
    if node.id == "sequence":
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node)


def _unzipped(archive: zipfile.ZipFile, most: int) -> dict[str, bytes]:
    # `is_dir` cannot be asked of a file whose name is empty.
    inside = [entry for entry in archive.infolist() if not entry.filename.endswith("/")]
    for entry in inside:
        # Systems that know no kinds of files leave theirs at 0.
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            raise _irregular(entry.filename)
    _require_room(sum(entry.file_size for entry in inside), most)
    try:
        return {entry.filename: archive.read(entry) for entry in inside}
    except DAMAGED as error:
        raise ModelUnsupported(f"the archive is damaged: {error}") from error


def _zip(file: io.BytesIO) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except DAMAGED as error:
        raise ModelUnsupported(f"the archive is damaged: {error}") from error


def _irregular(name: str) -> ModelUnsupported:
    return ModelUnsupported(
        f"the archive's {name} is a link or something else that is no regular file: pack the files "
        "themselves (tar --dereference --hard-dereference)"
    )


class _Unpacked:
    """What a tar is read from: bounded before it is unpacked, headers and names too."""

    def __init__(self, content: bytes, most: int) -> None:
        packed = io.BytesIO(content)
        unpack = next((UNPACK[start] for start in UNPACK if content.startswith(start)), None)
        self._file: Any = unpack(packed) if unpack else packed
        self._most = most
        self.at_once = MOST_IN_HEADER
        self.tell = self._file.tell

    def read(self, size: int) -> bytes:
        """Read so many bytes, if they may be."""
        if not 0 <= size <= self.at_once:
            raise ModelUnsupported(f"the archive is damaged: it tells {size} bytes of a file")
        self._require_room(self.tell() + size)
        content: bytes = self._file.read(size)
        return content

    def seek(self, position: int) -> None:
        """Go on from there."""
        self._require_room(position)
        self._file.seek(position)

    def _require_room(self, end: int) -> None:
        if end > self._most + MOST_IN_HEADERS:
            raise _too_large(self._most)


def _is_tar(content: bytes, most: int) -> bool:
    try:
        with _tar(_Unpacked(content, most)):
            return True
    except DAMAGED:
        return False


def _untarred(content: bytes, most: int) -> dict[str, bytes]:
    """Read the files; nothing is extracted, so no name in it can lead anywhere."""
    try:
        file = _Unpacked(content, most)
        with _tar(file) as archive:
            return dict(_members(archive, file, most))
    except DAMAGED as error:
        raise ModelUnsupported(f"the archive is damaged: {error}") from error


def _tar(file: _Unpacked) -> tarfile.TarFile:
    return tarfile.open(fileobj=cast(io.BytesIO, file), mode="r:")


def _members(archive: tarfile.TarFile, file: _Unpacked, most: int) -> Iterator[tuple[str, bytes]]:
    total = 0
    for entry in archive:  # one by one: what is compressed may be endless
        if entry.size < 0:  # it would lead back to what was read
            raise ModelUnsupported(f"the archive is damaged: {entry.name} has {entry.size} bytes")
        total += entry.size
        _require_room(total, most)
        if entry.isdir():
            continue
        if not entry.isreg():  # a link may lead to itself, a device never ends
            raise _irregular(entry.name)
        if member := archive.extractfile(entry):
            file.at_once = most
            yield entry.name.removeprefix("./"), member.read()
            file.at_once = MOST_IN_HEADER


def _require_room(size: int, most: int) -> None:
    if size > most:
        raise _too_large(most)


def _too_large(most: int) -> ModelUnsupported:
    return ModelUnsupported(f"the archive holds more than {most} bytes")
