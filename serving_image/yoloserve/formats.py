"""From a file, an archive or a folder to the parts of a model; told by bytes, never by names."""

import enum
import io
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from yoloserve.errors import ModelUnsupported

METADATA_FILE = "metadata.yaml"  # beside an OpenVINO IR, by the public exporter's convention
ONNX_START = b"\x08"  # the protobuf key of ir_version, which exporters write first
PICKLE_START = b"\x80"


class Format(enum.StrEnum):
    """The model files this server reads."""

    ONNX = "ONNX"
    OPENVINO = "OpenVINO IR"
    TORCHSCRIPT = "TorchScript"
    CHECKPOINT = "Torch checkpoint"


@dataclass(frozen=True, slots=True, repr=False)
class Parts:
    """What a runtime is given."""

    format: Format
    content: bytes
    weights: bytes = b""  # of an OpenVINO IR, whose `content` is the graph
    told: Mapping[str, object] = field(default_factory=dict)  # in a metadata file beside it


def parts_of(content: bytes, *, most: int, allow_pickle: bool) -> Parts:
    """Tell what one file is, opening archives of up to `most` bytes.

    Raises `ModelUnsupported`; also for Torch checkpoints (`.pt`) unless they are allowed: those are
    pickles, and loading a pickle runs whatever code its author put there.
    """
    file = io.BytesIO(content)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if any("/code/" in name for name in names):
                return Parts(Format.TORCHSCRIPT, content)
            if not any(name.endswith("data.pkl") for name in names):
                return parts_in(_unzipped(archive, most))
    elif content.startswith(ONNX_START):
        return Parts(Format.ONNX, content)
    elif _is_tar(content):
        return parts_in(_untarred(content, most))
    elif not content.startswith(PICKLE_START):
        raise ModelUnsupported(
            "the file is neither an ONNX nor a TorchScript model, nor an archive of an OpenVINO IR"
        )
    if not allow_pickle:
        raise ModelUnsupported(
            "the file is a Torch checkpoint (a pickle), which can run code when loaded: export it "
            "to ONNX or TorchScript, or set YOLOSERVE_ALLOW_PICKLE if you trust whoever made it"
        )
    return Parts(Format.CHECKPOINT, content)


def parts_in(files: Mapping[str, bytes]) -> Parts:
    """Find the model among the files of a folder: an OpenVINO IR, or a single ONNX file."""
    graphs = [name for name in files if name.endswith(".xml")]
    onnx = [name for name in files if name.endswith(".onnx")]
    if len(graphs) == 1:
        weights = graphs[0].removesuffix(".xml") + ".bin"
        if weights not in files:
            raise ModelUnsupported(f"{graphs[0]} has no {weights} beside it")
        beside = str(PurePosixPath(graphs[0]).with_name(METADATA_FILE))
        told = _yaml(files[beside]) if beside in files else {}
        return Parts(Format.OPENVINO, files[graphs[0]], files[weights], told)
    if len(onnx) == 1 and not graphs:
        return Parts(Format.ONNX, files[onnx[0]])
    raise ModelUnsupported(
        "there must be one OpenVINO graph (.xml with its .bin) or one .onnx, but there is: "
        + (", ".join(sorted(files)[:10]) or "nothing")
    )


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
