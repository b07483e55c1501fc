"""The JSON spoken, both ways; computes nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from yoloserve.detector import Answer
from yoloserve.engine.starting import ModelInfo
from yoloserve.errors import Refusal

CONFIDENCE_DIGITS = 5
PIXEL_DIGITS = 2
MILLISECOND_DIGITS = 3


class Box(BaseModel):
    """Corners in pixels of the image as it is looked at; (0, 0) is its upper left."""

    x1: float = Field(description="Left edge")
    y1: float = Field(description="Upper edge")
    x2: float = Field(description="Right edge")
    y2: float = Field(description="Lower edge")


class Detection(BaseModel):
    """One object."""

    model_config = ConfigDict(populate_by_name=True)

    name: str = Field(description="Class name")
    class_index: int = Field(alias="class", description="Class index in the model")
    confidence: float = Field(ge=0, le=1)
    box: Box


class Model(BaseModel):
    """Who answered: which detector, which model, which very file, which revision of it."""

    name: str
    version: str
    sha256: str
    revision: str = Field(description="Empty outside of Kubernetes")


class Size(BaseModel):
    """Size of the image that the boxes refer to, after its EXIF orientation was applied."""

    width: int
    height: int


class TimingMs(BaseModel):
    """Where the time went, in milliseconds; `total` counts from the last byte of the body."""

    decode: float
    preprocess: float
    queue: float
    inference: float
    postprocess: float
    total: float


EXAMPLE: dict[str, Any] = {
    "model": {
        "name": "gate",
        "version": "1.0.0",
        "sha256": "9f2c8f6a3e7b1d4c5a6978f0e1d2c3b4a5968778695a4b3c2d1e0f9a8b7c6d5e",
        "revision": "gate-7c9f1b2a",
    },
    "image": {"width": 1280, "height": 720},
    "detections": [
        {
            "name": "circle",
            "class": 0,
            "confidence": 0.93118,
            "box": {"x1": 412.25, "y1": 96.5, "x2": 530.75, "y2": 214.0},
        }
    ],
    "timing_ms": {
        "decode": 2.104,
        "preprocess": 0.312,
        "queue": 0.021,
        "inference": 11.87,
        "postprocess": 0.164,
        "total": 15.02,
    },
}


class DetectResponse(BaseModel):
    """What was found in one image, surest first."""

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE})

    model: Model
    image: Size
    detections: list[Detection]
    timing_ms: TimingMs


class ErrorDetail(BaseModel):
    """What went wrong: a constant for machines, a sentence for people."""

    code: str = Field(examples=["invalid_image"])
    message: str = Field(examples=["the image/jpeg is cut short"])


class ErrorResponse(BaseModel):
    """Any answer that is not an answer."""

    error: ErrorDetail


class Health(BaseModel):
    """The state of this server."""

    status: str = Field(examples=["ready"])


class ImageResult(BaseModel):
    """What became of one image of several: its objects, or why there are none."""

    file: str = Field(description="Its name in the form")
    image: Size | None = None
    detections: list[Detection] | None = None
    timing_ms: TimingMs | None = None
    error: ErrorDetail | None = None


class BatchResponse(BaseModel):
    """What was found in each image, in the order in which they were sent."""

    model: Model
    results: list[ImageResult]


class StreamResponse(BaseModel):
    """A message of `/v1/stream`: the answer to one frame."""

    frame: int = Field(description="Which frame of this stream, counted from 0 as they were sent")
    skipped: int = Field(description="Frames that a newer one replaced since the last answer")
    image: Size | None = None
    detections: list[Detection] | None = None
    timing_ms: TimingMs | None = None
    error: ErrorDetail | None = None


def detect_json(answer: Answer, info: ModelInfo) -> bytes:
    """Write a `DetectResponse`, as bytes: validating what we made ourselves costs a millisecond."""
    return orjson.dumps({"model": _model(info)} | _found(answer, info))


def shadow_json(answer: Answer, info: ModelInfo, confidence: float) -> bytes:
    """Write a `DetectResponse` for another revision, with what it needs to compare the two."""
    own = {"confidence": confidence, "classes": info.classes}
    return orjson.dumps({"model": _model(info), "shadow": own} | _found(answer, info))


def batch_json(names: Sequence[str], answers: Sequence[Answer | Refusal], info: ModelInfo) -> bytes:
    """Write a `BatchResponse`."""
    results = [
        {"file": name} | _result(answer, info) for name, answer in zip(names, answers, strict=True)
    ]
    return orjson.dumps({"model": _model(info), "results": results})


def stream_json(frame: int, skipped: int, answer: Answer | Refusal, info: ModelInfo) -> bytes:
    """Write a `StreamResponse`."""
    return orjson.dumps({"frame": frame, "skipped": skipped} | _result(answer, info))


def _result(answer: Answer | Refusal, info: ModelInfo) -> dict[str, Any]:
    if isinstance(answer, Refusal):
        return {"error": {"code": answer.code, "message": str(answer)}}
    return _found(answer, info)


def _model(info: ModelInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "version": info.version,
        "sha256": info.sha256,
        "revision": info.revision,
    }


def _found(answer: Answer, info: ModelInfo) -> dict[str, Any]:
    found = answer.detections
    detections = [
        {
            "name": info.classes[index],
            "class": index,
            "confidence": score,
            "box": {"x1": x1, "y1": y1, "x2": x2, "y2": y2},
        }
        for (x1, y1, x2, y2), score, index in zip(
            _rounded(found.boxes, PIXEL_DIGITS),
            _rounded(found.scores, CONFIDENCE_DIGITS),
            found.classes.tolist(),
            strict=True,
        )
    ]
    return {
        "image": {"width": answer.width, "height": answer.height},
        "detections": detections,
        "timing_ms": {
            stage: round(seconds * 1000, MILLISECOND_DIGITS)
            for stage, seconds in answer.timing.as_dict().items()
        },
    }


def _rounded(numbers: NDArray[np.float32], digits: int) -> list[Any]:
    """Round them all at once, in double precision: that has the short decimals."""
    rounded: list[Any] = numbers.astype(np.float64).round(digits).tolist()
    return rounded


def error_json(code: str, message: str) -> bytes:
    """Write an `ErrorResponse`."""
    return orjson.dumps({"error": {"code": code, "message": message}})


def v2_error_json(code: str, message: str) -> bytes:
    """Write an error as the Open Inference Protocol does: one sentence."""
    return orjson.dumps({"error": f"{code}: {message}"})


class V2Error(BaseModel):
    """Any answer of `/v2` that is not an answer."""

    error: str = Field(examples=["overloaded: 24 requests are in progress, 24 are allowed"])


class V2Server(BaseModel):
    """This server."""

    name: str
    version: str
    extensions: list[str]


class V2Live(BaseModel):
    """The process answers."""

    live: bool


class V2ServerReady(BaseModel):
    """More may come; the protocol's text calls it `live`, KServe's client reads `ready`."""

    live: bool
    ready: bool


class V2Ready(BaseModel):
    """The model may be asked."""

    name: str
    ready: bool


class V2TensorMetadata(BaseModel):
    """One tensor; -1 stands for any size."""

    name: str
    datatype: str
    shape: list[int]


class V2Model(BaseModel):
    """The model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[V2TensorMetadata]
    outputs: list[V2TensorMetadata]


class V2Input(BaseModel):
    """The images."""

    name: str = Field(examples=["image"])
    shape: list[int] = Field(examples=[[1]])
    datatype: str = Field(description="BYTES, UINT8 or FP32", examples=["BYTES"])
    parameters: dict[str, Any] | None = Field(None, description="`binary_data_size`")
    data: list[Any] | None = Field(
        None, description="Base64 of each encoded image, or numbers; absent when binary"
    )


class V2Output(BaseModel):
    """An output that is asked for."""

    name: str = Field(examples=["det_boxes"])
    parameters: dict[str, Any] | None = Field(None, description="`binary_data`")


class V2Request(BaseModel):
    """Images to look at."""

    id: str | None = None
    parameters: dict[str, Any] | None = Field(
        None,
        description="`confidence`, `iou`, `max_detections`, `classes`, `agnostic_nms`; `timeout` "
        "in microseconds; `binary_data_output`",
        examples=[{"confidence": 0.4, "timeout": 200_000}],
    )
    inputs: list[V2Input]
    outputs: list[V2Output] | None = Field(None, description="Default: all")


class V2Tensor(BaseModel):
    """One output."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class V2Response(BaseModel):
    """What was found."""

    model_config = ConfigDict(protected_namespaces=())

    id: str | None = None
    model_name: str
    model_version: str
    outputs: list[V2Tensor]


class V2Statistics(BaseModel):
    """Triton's statistics extension; times in nanoseconds."""

    model_config = ConfigDict(protected_namespaces=())

    model_stats: list[dict[str, Any]]


class V2IndexEntry(BaseModel):
    """One model of the repository: there is one."""

    name: str
    version: str
    state: str
    reason: str
