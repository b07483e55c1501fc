"""Weights that an ONNX file keeps in files beside it: put into the file, or refused. Pure.

A runtime that is given bytes looks such a file up in the working directory, past the digest. So a
graph is handed on only without references: from a folder or an archive, whose digest covers all its
files, the weights are put in; of a single file they are refused. Source: onnx.proto of onnx 1.19.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import NoReturn

from yoloserve.errors import ModelUnsupported

MOST_BYTES = 2**31 - 1  # of a protobuf message
MOST_NESTED = 100  # messages in messages; protobuf's own readers go no deeper
# Which fields of each message hold messages on the way to a tensor.
INSIDE = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
RAW_DATA, EXTERNAL_DATA, DATA_LOCATION = 9, 13, 14  # of a tensor
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
Read = Callable[[str], bytes]
Pieces = list[bytes | memoryview]  # of a file; joined once


def whole(content: bytes, read: Read) -> bytes:
    """Return an ONNX file that refers to nothing; `read` gives the file of a location.

    Raises `ModelUnsupported` for a damaged file, and whatever `read` raises.
    """
    if not any(number == 7 for number, *_ in _fields(memoryview(content))):
        raise ModelUnsupported("the ONNX file has no graph")
    made = _rewritten(memoryview(content), "model", read)
    if made is None:
        return content
    if _size(made) > MOST_BYTES:  # before any of it is copied: tensors may share a file
        raise ModelUnsupported("the ONNX model has more than 2 GB with its weights")
    return b"".join(made)


def _rewritten(message: memoryview, kind: str, read: Read, depth: int = 0) -> Pieces | None:
    """Return a message with the weights in it; none if it stays as it is."""
    if depth > MOST_NESTED:
        raise ModelUnsupported(f"the ONNX file has more than {MOST_NESTED} messages in each other")
    if kind == "tensor":
        return _tensor(message, read)
    made: Pieces = []
    changed = False
    for number, wire, start, value, end in _fields(message):
        inner = INSIDE[kind].get(number) if wire == BYTES else None
        part = _rewritten(message[value:end], inner, read, depth + 1) if inner else None
        if part is None:
            made.append(message[start:end])
        else:
            changed = True
            made += [_varint(number << 3 | BYTES), _varint(_size(part)), *part]
    return made if changed else None


def _size(pieces: Pieces) -> int:
    return sum(map(len, pieces))


def _tensor(message: memoryview, read: Read) -> Pieces | None:
    kept: Pieces = []
    entries: dict[str, str] = {}
    elsewhere = False
    for number, wire, start, value, end in _fields(message):
        if number == EXTERNAL_DATA and wire == BYTES:
            entry = {n: bytes(message[v:e]) for n, v, e in _entry(message, value, end)}
            entries[entry.get(1, b"").decode(errors="replace")] = entry.get(2, b"").decode(
                errors="replace"
            )
            elsewhere = True
        elif number == DATA_LOCATION:
            elsewhere = elsewhere or bytes(message[value:end]) != b"\0"
        else:
            kept.append(message[start:end])
    if not elsewhere:
        return None
    data = read(entries.get("location", ""))
    try:
        begin = int(entries.get("offset", 0))
        length = int(entries["length"]) if "length" in entries else len(data) - begin
    except ValueError as error:
        raise ModelUnsupported(f"the ONNX file is damaged: {error}") from error
    if begin < 0 or length < 0 or begin + length > len(data):
        raise ModelUnsupported(
            f"{entries.get('location')} has {len(data)} bytes, fewer than the model asks of it"
        )
    raw = memoryview(data)[begin : begin + length]
    return [*kept, _varint(RAW_DATA << 3 | BYTES), _varint(len(raw)), raw]


def _entry(message: memoryview, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    for number, wire, _, value, stop in _fields(message[begin:end]):
        if wire == BYTES:
            yield number, begin + value, begin + stop


def _fields(message: memoryview) -> Iterator[tuple[int, int, int, int, int]]:
    """Give each field's number, wire type, start, start of its value, and end."""
    position = 0
    while position < len(message):
        start = position
        key, position = _read_varint(message, position)
        number, wire = key >> 3, key & 7
        value = position
        if wire == VARINT:
            _, position = _read_varint(message, position)
        elif wire == BYTES:
            length, value = _read_varint(message, position)
            position = value + length
        elif wire in (FIXED64, FIXED32):
            position += 8 if wire == FIXED64 else 4
        else:
            raise ModelUnsupported("the ONNX file is damaged: it is no protobuf message")
        if position > len(message) or number == 0:
            raise ModelUnsupported("the ONNX file is damaged, or cut short")
        yield number, wire, start, value, position


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ModelUnsupported("the ONNX file is damaged, or cut short")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def refused(location: str) -> NoReturn:
    """Raise for a file whose weights are elsewhere."""
    raise ModelUnsupported(
        f"the model's weights are in a file beside it, {location!r}, which its digest does not "
        "cover: give the folder of both (or an archive of it) as the model, with the digest of "
        "`LC_ALL=C sha256sum * | sha256sum` in it, or one file, as "
        "onnx.save(onnx.load(path), path) writes it"
    )


def among(files: Mapping[str, bytes], graph: str) -> Read:
    """Return what reads a location beside `graph` among the files of a folder or archive."""

    def read(location: str) -> bytes:
        path = PurePosixPath(location)
        name = str(PurePosixPath(graph).parent / path)
        if not location or path.is_absolute() or ".." in path.parts or name not in files:
            raise ModelUnsupported(
                f"{graph} has its weights in {location!r}, which is not among its files: "
                + ", ".join(sorted(files)[:10])
            )
        return files[name]

    return read
