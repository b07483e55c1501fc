"""From a file, an archive or a folder to the parts of a model; told by bytes, never by names."""

import enum
import io
import json
import tarfile
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from yoloserve.errors import ModelUnsupported

METADATA_FILE = "metadata.yaml"  # beside an OpenVINO IR, by the public exporter's convention
ONNX_START = b"\x08"  # the protobuf key of ir_version, which exporters write first
PICKLE_START = b"\x80"
PLAN_STARTS = b"ptrt", b"ftrt"  # written nowhere, but all of TensorRT's plans begin so
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
    told: Mapping[str, object] = field(default_factory=dict)  # in a metadata file beside it


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
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if any("/code/" in name for name in names):
                return _trusted(Parts(Format.TORCHSCRIPT, content), trusted)
            if not any(name.endswith("data.pkl") for name in names):
                return parts_in(_unzipped(archive, most), trusted=trusted)
    elif content.startswith(ONNX_START):
        return Parts(Format.ONNX, content)
    elif _is_tar(content):
        return parts_in(_untarred(content, most), trusted=trusted)
    elif not content.startswith(PICKLE_START):
        raise ModelUnsupported(
            "the file is neither an ONNX nor a TorchScript model, nor a TensorRT engine, nor an "
            "archive of an OpenVINO IR"
        )
    return _trusted(Parts(Format.CHECKPOINT, content), trusted)


def parts_in(files: Mapping[str, bytes], *, trusted: Collection[Format] = ()) -> Parts:
    """Find the model among a folder's files: an OpenVINO IR, or one ONNX file or engine."""
    graphs = [name for name in files if name.endswith(".xml")]
    single = [name for name in files if name.endswith((".onnx", ".engine"))]
    if len(graphs) == 1:
        weights = graphs[0].removesuffix(".xml") + ".bin"
        if weights not in files:
            raise ModelUnsupported(f"{graphs[0]} has no {weights} beside it")
        beside = str(PurePosixPath(graphs[0]).with_name(METADATA_FILE))
        told = _yaml(files[beside]) if beside in files else {}
        return Parts(Format.OPENVINO, files[graphs[0]], files[weights], told)
    if len(single) == 1 and not graphs:
        engine = engine_parts(files[single[0]])
        return _trusted(engine, trusted) if engine else Parts(Format.ONNX, files[single[0]])
    raise ModelUnsupported(
        "there must be one OpenVINO graph (.xml with its .bin), .onnx or .engine, but there is: "
        + (", ".join(sorted(files)[:10]) or "nothing")
    )


def engine_parts(content: bytes) -> Parts | None:
    """Read a TensorRT plan, bare or after metadata, as the public exporter writes it."""
    if content.startswith(PLAN_STARTS):
        return Parts(Format.TENSORRT, content)
    plan = LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "little")
    if content[LENGTH_BYTES : LENGTH_BYTES + 1] != b"{" or not content.startswith(
        PLAN_STARTS, plan
    ):
        return None
    try:
        told = json.loads(content[LENGTH_BYTES:plan])
    except ValueError as error:
        raise ModelUnsupported(f"the engine's metadata cannot be read: {error}") from error
    return Parts(Format.TENSORRT, content[plan:], told=told)


def engine_file(plan: bytes, told: Mapping[str, object]) -> bytes:
    """Write a plan with its metadata."""
    metadata = json.dumps(told).encode()
    return len(metadata).to_bytes(LENGTH_BYTES, "little") + metadata + plan


def _trusted(parts: Parts, trusted: Collection[Format]) -> Parts:
    if parts.format not in trusted:
        raise ModelUnsupported(f"the file is {CAN_RUN_CODE[parts.format]}")
    return parts


def _yaml(text: bytes) -> dict[str, object]:
    import yaml  # only models of this format need it

    try:
        told = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelUnsupported(f"{METADATA_FILE} cannot be read: {error}") from error
    return told if isinstance(told, dict) else {}


def _unzipped(archive: zipfile.ZipFile, most: int) -> dict[str, bytes]:
    inside = [entry for entry in archive.infolist() if not entry.is_dir()]
    _require_room(sum(entry.file_size for entry in inside), most)
    try:
        return {entry.filename: archive.read(entry) for entry in inside}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ModelUnsupported(f"the archive is damaged: {error}") from error


def _is_tar(content: bytes) -> bool:
    try:
        with tarfile.open(fileobj=io.BytesIO(content)):
            return True
    except (tarfile.TarError, EOFError, OSError):
        return False


def _untarred(content: bytes, most: int) -> dict[str, bytes]:
    """Read the files; nothing is extracted, so no name in it can lead anywhere."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            return dict(_members(archive, most))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ModelUnsupported(f"the archive is damaged: {error}") from error


def _members(archive: tarfile.TarFile, most: int) -> Iterator[tuple[str, bytes]]:
    total = 0
    for entry in archive:  # one by one: what is compressed may be endless
        total += entry.size
        _require_room(total, most)
        if file := archive.extractfile(entry):
            yield entry.name.removeprefix("./"), file.read()


def _require_room(size: int, most: int) -> None:
    if size > most:
        raise ModelUnsupported(f"the archive holds more than {most} bytes")
