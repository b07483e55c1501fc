"""The Open Inference Protocol (v2) with Triton's binary tensors: bytes to values and back; pure.

One input, `image`: encoded images (BYTES, shape [n]), or pixels in RGB: UINT8 of shape [h, w, 3]
or [n, h, w, 3], FP32 from 0 to 1 of shape [3, h, w] or [n, 3, h, w]. The outputs are those of the
usual YOLO ensembles for Triton, and `json`, the answer of `/v1/detect` for each image.
"""

import base64
import binascii
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, TypeGuard

import numpy as np
import orjson
from numpy.typing import NDArray

from yoloserve.detector import Answer, Source
from yoloserve.engine.starting import ModelInfo
from yoloserve.errors import InvalidParameter, TooLarge, TooManyPixels, quoted
from yoloserve.http.options import OPTIONS, refuse_unknown
from yoloserve.http.schemas import detect_json
from yoloserve.images.letterbox import Image
from yoloserve.images.pixels import Pixels

INPUT = "image"
# name -> (datatype, shape); n images, the most detections of any of them
OUTPUTS: dict[str, tuple[str, list[int]]] = {
    "num_dets": ("INT32", [-1, 1]),
    "det_boxes": ("FP32", [-1, -1, 4]),
    "det_scores": ("FP32", [-1, -1]),
    "det_classes": ("INT32", [-1, -1]),
    "json": ("BYTES", [-1]),
}
DTYPES: dict[str, np.dtype[Any]] = {
    "UINT8": np.dtype("u1"),
    "FP32": np.dtype("<f4"),
    "INT32": np.dtype("<i4"),
}
CONFIG_TYPES = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32", "INT32": "TYPE_INT32"}
EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]
# What the clients of Triton, KServe and MLServer send along, and what it is to each:
PASSED_OVER = frozenset(
    {
        "sequence_id",  # no picture knows of another one,
        "sequence_start",
        "sequence_end",
        "priority",  # each client has its turn, whatever it thinks of itself,
        "triton_enable_empty_final_response",  # an answer is whole,
        "content_type",  # and the datatype says what is sent
    }
)
OF_REQUESTS = OPTIONS | {"timeout", "binary_data_output"}
OF_INPUTS = frozenset({"binary_data_size"})
OF_OUTPUTS = frozenset({"binary_data"})
ALWAYS_PARSED_BYTES = 65_536
COUNTED_AT_ONCE = 2**20
MOST_OTHER_VALUES = 4096  # that are no pixels
MOST_SIDES = 4
LONGEST_ID = 1024
HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold."""

    images: int
    pixels: int
    numbers: int = 3 * 640 * 640  # as JSON: one picture of the model's own input size


@dataclass(frozen=True, slots=True)
class Inference:
    """One request, read."""

    id: str
    sources: list[Source]
    outputs: list[tuple[str, bool]]  # names, and whether as binary
    parameters: dict[str, Any]


def read(body: bytes, header_length: int | None, limits: Limits) -> Inference:
    """Read a request; `header_length` is what `Inference-Header-Content-Length` says.

    With a length of 0 the body is the one encoded image itself. Raises `InvalidParameter`.
    """
    if header_length == 0:
        return Inference("", [body], [(name, True) for name in OUTPUTS], {})
    if header_length is not None and header_length > len(body):
        raise InvalidParameter(f"{HEADER_LENGTH}: {header_length}, of a body of {len(body)} bytes")
    header, binary = (body, b"") if header_length is None else _split(body, header_length)
    _refuse_bomb(header, limits)
    try:
        content = orjson.loads(header)
    except orjson.JSONDecodeError as error:
        raise InvalidParameter(f"the request is not JSON: {error}") from None
    request = _object(content, "the request")
    parameters = _parameters(request, "parameters", OF_REQUESTS, "parameter of a request")
    tensors = _list(request.get("inputs"), "inputs")
    if len(tensors) != 1:
        raise InvalidParameter(f"inputs: expected one, {INPUT!r}, not {len(tensors)}")
    sources = _sources(_object(tensors[0], "inputs[0]"), binary, limits)
    name = _string(_given(request, "id", ""), "id")
    if len(name) > LONGEST_ID:  # it is sent back
        raise InvalidParameter(f"id: {len(name)} characters; expected at most {LONGEST_ID}")
    return Inference(name, sources, _outputs(request), parameters)


def _refuse_bomb(header: bytes, limits: Limits) -> None:
    """Raise `TooLarge` for JSON of too many values, before any of them is made.

    A value of two bytes takes up to a hundred as an object, and none of it lets others run. What
    separates and opens values bounds their number; those within strings are counted, too, of which
    base64 has none. Pixels may be nested as the shape is: a list for each pixel, at most.
    """
    if len(header) <= ALWAYS_PARSED_BYTES:
        return
    counts = np.zeros(256, np.int64)
    for at in range(0, len(header), COUNTED_AT_ONCE):
        piece = np.frombuffer(header, np.uint8, min(COUNTED_AT_ONCE, len(header) - at), at)
        counts += np.bincount(piece, minlength=256)
    lists, objects = counts[ord("[")], counts[ord("{")]
    values = counts[ord(",")] - limits.numbers
    if max(values, lists - limits.numbers // 3, objects) > MOST_OTHER_VALUES:
        raise TooLarge(
            f"the JSON holds too many values: at most {limits.numbers} numbers, one picture of the "
            "model's own input size. Send pixels as binary data (binary_data_size, which Triton's "
            "clients write by themselves), or encoded images (BYTES) in base64"
        )


def _split(body: bytes, at: int) -> tuple[bytes, bytes]:
    return body[:at], body[at:]


def _outputs(request: dict[str, Any]) -> list[tuple[str, bool]]:
    of_all = _object(_given(request, "parameters", {}), "parameters")
    by_default = _flag(of_all, "binary_data_output", default=False)
    asked = _list(request.get("outputs") or [{"name": name} for name in OUTPUTS], "outputs")
    outputs: list[tuple[str, bool]] = []
    for number, raw in enumerate(asked):
        output = _object(raw, f"outputs[{number}]")
        name = _string(output.get("name"), f"outputs[{number}].name")
        if name not in OUTPUTS:
            raise InvalidParameter(f"outputs: no {quoted(name)}; there are {', '.join(OUTPUTS)}")
        where = f"outputs[{number}].parameters"
        parameters = _parameters(output, where, OF_OUTPUTS, "parameter of an output")
        if name in (known for known, _ in outputs):
            raise InvalidParameter(f"outputs: {name!r} is asked for twice")
        outputs.append((name, _flag(parameters, "binary_data", default=by_default)))
    return outputs


def _sources(tensor: dict[str, Any], binary: bytes, limits: Limits) -> list[Source]:
    if (name := tensor.get("name")) != INPUT:
        raise InvalidParameter(f"inputs: no {quoted(name)}; the input is {INPUT!r}")
    shape = _list(tensor.get("shape"), "shape")
    if len(shape) > MOST_SIDES:  # their product would take for ever
        raise InvalidParameter(f"shape: {len(shape)} sizes; expected at most {MOST_SIDES}")
    if not all(is_whole(size) and 0 < size < 2**31 for size in shape):
        raise InvalidParameter(f"shape: {quoted(shape)} is not a list of positive numbers")
    where = "parameters of the input"
    parameters = _parameters(tensor, where, OF_INPUTS, "parameter of an input")
    size = parameters.get("binary_data_size")
    if size is not None:
        if not is_whole(size) or size != len(binary):
            raise InvalidParameter(
                f"binary_data_size: {quoted(size)}, while {len(binary)} bytes follow"
            )
        data: Any = binary
    elif binary:
        raise InvalidParameter(f"{len(binary)} bytes follow, and no input says that they are its")
    else:
        data = _list(tensor.get("data"), "data")
    datatype = tensor.get("datatype")
    if datatype == "BYTES":
        return _encoded(data, shape, limits)
    if datatype in ("UINT8", "FP32"):
        return _pixels(data, shape, datatype, limits)
    raise InvalidParameter(f"datatype: {quoted(datatype)}; the input is BYTES, UINT8 or FP32")


def _encoded(data: bytes | list[Any], shape: list[int], limits: Limits) -> list[Source]:
    # No more of them are made than may be sent: the empty ones of a large body are millions.
    most = limits.images + 1
    elements = list(islice(_elements(data) if isinstance(data, bytes) else _flat(data), most))
    if len(elements) == most:
        raise InvalidParameter(f"too many images: send 1 to {limits.images} at a time")
    if not elements or len(elements) != math.prod(shape):
        raise InvalidParameter(f"shape: {shape}, while {len(elements)} images were sent")
    return [each if isinstance(data, bytes) else _base64(each) for each in elements]


def _elements(data: bytes) -> Iterator[bytes]:
    """Take apart elements that each follow their length (4 bytes, little-endian)."""
    at = 0
    while at < len(data):
        if at + 4 > len(data):
            raise InvalidParameter("the data ends within the length of an element")
        (length,) = struct.unpack_from("<I", data, at)
        at += 4
        if at + length > len(data):
            raise InvalidParameter(
                f"an element says it has {length} bytes; {len(data) - at} follow"
            )
        yield data[at : at + length]
        at += length


def _base64(element: Any) -> bytes:
    try:
        return base64.b64decode(_string(element, "data"), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidParameter("data: an image in JSON is written in base64") from None


def _flat(data: list[Any]) -> Iterator[Any]:
    """Flatten the one level that shape [n, 1] has."""
    return (item for each in data for item in (each if isinstance(each, list) else [each]))


def _pixels(
    data: bytes | list[Any], shape: list[int], datatype: str, limits: Limits
) -> list[Source]:
    channel = -1 if datatype == "UINT8" else -3
    if len(shape) not in (3, 4) or shape[channel] != 3:
        expected = "[n, h, w, 3]" if datatype == "UINT8" else "[n, 3, h, w]"
        raise InvalidParameter(f"shape: {shape} of {datatype}; expected {expected}")
    shape = shape if len(shape) == 4 else [1, *shape]
    if shape[0] > limits.images:
        raise InvalidParameter(f"{shape[0]} images: send 1 to {limits.images} at a time")
    if (pixels := math.prod(shape[1:]) // 3) > limits.pixels:
        raise TooManyPixels(f"the image has {pixels} pixels, more than {limits.pixels}")
    dtype = DTYPES[datatype]
    if isinstance(data, bytes):
        if len(data) != math.prod(shape) * dtype.itemsize:
            raise InvalidParameter(f"shape: {shape} of {datatype} is not {len(data)} bytes")
        array = np.frombuffer(data, dtype)
    else:
        array = _numbers(data)
    if array.size != math.prod(shape):
        raise InvalidParameter(f"shape: {shape} is not {array.size} numbers")
    to_image = _from_bytes if datatype == "UINT8" else _from_floats
    down, across = (1, 2) if datatype == "UINT8" else (2, 3)
    size = shape[across], shape[down]
    return [Pixels(*size, partial(to_image, image)) for image in array.reshape(shape)]


def _numbers(data: list[Any]) -> NDArray[Any]:
    """Flatten lists of numbers: numpy takes text, too, and makes all as wide as the longest."""
    flat, kinds = data, set(map(type, data))
    while kinds == {list}:
        flat = list(chain.from_iterable(flat))
        kinds = set(map(type, flat))
    try:
        if kinds <= {int, float}:
            return np.asarray(data, np.float64).reshape(-1)
    except (ValueError, OverflowError):  # lists of different lengths, or of too many levels
        pass
    raise InvalidParameter("data: expected numbers")


def _from_bytes(rgb: NDArray[Any]) -> Image:
    image: Image = np.ascontiguousarray(_clipped(rgb)[:, :, ::-1])
    return image


def _from_floats(planes: NDArray[Any]) -> Image:
    image: Image = np.ascontiguousarray(_clipped(planes * 255.0)[::-1].transpose(1, 2, 0))
    return image


def _clipped(values: NDArray[Any]) -> Image:
    if values.dtype != np.uint8:
        values = np.nan_to_num(np.rint(values)).clip(0, 255).astype(np.uint8)
    return values


def write(
    inference: Inference, answers: Sequence[Answer], info: ModelInfo
) -> tuple[bytes, int | None]:
    """Write a response; returns it and the length of its JSON if binary tensors follow that."""
    outputs, binaries = [], []
    for name, as_binary in inference.outputs:
        datatype, _ = OUTPUTS[name]
        tensor: dict[str, Any] = {"name": name, "datatype": datatype}
        if datatype == "BYTES":
            elements = [detect_json(answer, info) for answer in answers]
            tensor["shape"] = [len(elements)]
            if as_binary:
                data = b"".join(struct.pack("<I", len(each)) + each for each in elements)
            else:
                tensor["data"] = [element.decode() for element in elements]
        else:
            array = _TENSORS[name](answers).astype(DTYPES[datatype])
            tensor["shape"] = list(array.shape)
            if as_binary:
                data = array.tobytes()
            else:
                tensor["data"] = array.reshape(-1).tolist()
        if as_binary:
            tensor["parameters"] = {"binary_data_size": len(data)}
            binaries.append(data)
        outputs.append(tensor)
    response = {"model_name": info.name, "model_version": version_of(info), "outputs": outputs}
    if inference.id:
        response["id"] = inference.id
    header = orjson.dumps(response)
    return header + b"".join(binaries), len(header) if binaries else None


def _padded(answers: Sequence[Answer], of: Callable[[Answer], NDArray[Any]]) -> NDArray[Any]:
    """Stack what each image has, the shorter ones filled up with zeros."""
    rows = [of(answer) for answer in answers]
    longest = max(map(len, rows))
    stacked = np.zeros((len(rows), longest, *rows[0].shape[1:]), rows[0].dtype)
    for into, row in zip(stacked, rows, strict=True):
        into[: len(row)] = row
    return stacked


_TENSORS: dict[str, Callable[[Sequence[Answer]], NDArray[Any]]] = {
    "num_dets": lambda answers: np.array([[len(answer.detections)] for answer in answers]),
    "det_boxes": partial(_padded, of=lambda answer: answer.detections.boxes),
    "det_scores": partial(_padded, of=lambda answer: answer.detections.scores),
    "det_classes": partial(_padded, of=lambda answer: answer.detections.classes),
}


def version_of(info: ModelInfo) -> str:
    """Give the version as a whole number, which Triton's clients take it to be."""
    return info.version if info.version.isdecimal() else "1"


def metadata(info: ModelInfo) -> dict[str, Any]:
    """Describe the model as `/v2/models/NAME` does."""
    return {
        "name": info.name,
        "versions": [version_of(info)],
        "platform": f"yoloserve_{info.backend}",
        "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": shape}
            for name, (datatype, shape) in OUTPUTS.items()
        ],
    }


def config(info: ModelInfo) -> dict[str, Any]:
    """Describe the model as Triton's configuration does; `perf_analyzer` needs it."""
    return {
        "name": info.name,
        "platform": f"yoloserve_{info.backend}",
        "backend": "yoloserve",
        "max_batch_size": 0,  # the images of a request are its own; those of others join inside
        "input": [{"name": INPUT, "data_type": CONFIG_TYPES["BYTES"], "dims": [-1]}],
        "output": [
            {"name": name, "data_type": CONFIG_TYPES[datatype], "dims": shape}
            for name, (datatype, shape) in OUTPUTS.items()
        ],
        "instance_group": [
            {"name": info.name, "kind": "KIND_CPU" if info.device == "cpu" else "KIND_GPU"}
        ],
        "parameters": {
            "version": {"string_value": info.version},
            "precision": {"string_value": str(info.precision)},
            "classes": {"string_value": ",".join(info.classes)},
        },
    }


def _parameters(of: dict[str, Any], where: str, known: frozenset[str], kind: str) -> dict[str, Any]:
    """Return the parameters of a request or tensor; what means nothing here is refused."""
    parameters = _object(_given(of, "parameters", {}), where)
    refuse_unknown(parameters.keys() - PASSED_OVER, known, kind)
    return parameters


def _given(of: dict[str, Any], name: str, default: Any) -> Any:
    """Return an optional field; clients that know its name alone write null for it."""
    value = of.get(name)
    return default if value is None else value


def _flag(of: dict[str, Any], name: str, *, default: bool) -> bool:
    value = _given(of, name, default)
    if not isinstance(value, bool):
        raise InvalidParameter(f"{name}: expected true or false, not {quoted(value)}")
    return value


def is_whole(value: object) -> TypeGuard[int]:
    """Say whether this is a whole number; `true` is one to Python."""
    return isinstance(value, int) and not isinstance(value, bool)


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidParameter(f"{name}: expected an object")
    return value


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidParameter(f"{name}: expected a list")
    return value


def _string(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise InvalidParameter(f"{name}: expected a string")
    return value
