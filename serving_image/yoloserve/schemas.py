"""The JSON spoken, both ways; computes nothing."""

from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from yoloserve.detector import Answer
from yoloserve.engine import ModelInfo

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


def detect_json(answer: Answer, info: ModelInfo) -> bytes:
    """Write a `DetectResponse`, as bytes: validating what we made ourselves costs a millisecond."""
    found = answer.detections
    detections: list[dict[str, Any]] = [
        {
            "name": info.classes[index],
            "class": index,
            "confidence": round(score, CONFIDENCE_DIGITS),
            "box": {
                edge: round(pixel, PIXEL_DIGITS)
                for edge, pixel in zip(("x1", "y1", "x2", "y2"), box, strict=True)
            },
        }
        for box, score, index in zip(
            found.boxes.tolist(), found.scores.tolist(), found.classes.tolist(), strict=True
        )
    ]
    timing = answer.timing
    return orjson.dumps(
        {
            "model": {
                "name": info.name,
                "version": info.version,
                "sha256": info.sha256,
                "revision": info.revision,
            },
            "image": {"width": answer.width, "height": answer.height},
            "detections": detections,
            "timing_ms": {
                stage: round(getattr(timing, stage) * 1000, MILLISECOND_DIGITS)
                for stage in TimingMs.model_fields
            },
        }
    )


def error_json(code: str, message: str) -> bytes:
    """Write an `ErrorResponse`."""
    return orjson.dumps({"error": {"code": code, "message": message}})


def v2_error_json(code: str, message: str) -> bytes:
    """Write an error as the Open Inference Protocol does: one sentence."""
    return orjson.dumps({"error": f"{code}: {message}"})
