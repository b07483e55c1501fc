"""`POST /v1/detect`: an image in, its objects out."""

from typing import Any

from fastapi import APIRouter, Request, Response

from yoloserve.dependencies import Asked, Bodies, Counted, Served, while_connected
from yoloserve.images import Format
from yoloserve.schemas import DetectResponse, ErrorResponse, detect_json

router = APIRouter(tags=["detect"])

JPEG = "image/jpeg"
BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
FORM: dict[str, Any] = {
    "schema": {
        "type": "object",
        "properties": {"file": {"type": "string", "format": "binary"}},
        "required": ["file"],
    }
}
BODY = {
    "required": True,
    "description": "The image as it is, or a form with it in the field `file` or `image`.",
    "content": {form.value: BINARY for form in Format} | {"multipart/form-data": FORM},
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": description}
    for status, description in {
        400: "`invalid_image`: damaged or cut short; `invalid_parameter`: an option is wrong",
        408: "`slow_body`: the body took too long to arrive",
        413: "`too_large`: too many bytes; `too_many_pixels`: found in its header, not decoded",
        415: "`unsupported_media_type`: no JPEG, PNG, WebP or BMP",
        503: "`overloaded`: too many wait already; try again after `Retry-After` seconds",
        504: "`deadline_exceeded`: no answer could be ready in time",
    }.items()
}


@router.post(
    "/v1/detect",
    summary="Find the objects in one image",
    response_model=DetectResponse,
    responses={
        200: {
            "description": "The objects found, surest first; or, with `Accept: image/jpeg`, "
            "the picture with their boxes drawn.",
            "content": {JPEG: BINARY},
            "headers": {
                "X-Yolofleet-Revision": {
                    "description": "The revision that answered",
                    "schema": {"type": "string"},
                }
            },
        },
        **REFUSALS,
    },
    openapi_extra={"requestBody": BODY},
)
async def detect(request: Request, detector: Served, options: Asked, metrics: Counted) -> Response:
    """Send an image, get its objects.

    Boxes are in pixels of the image as it is looked at: a rotation in its EXIF data is applied.
    The deadline starts when the body has arrived whole; an answer that cannot be in time is
    refused early.
    """
    bodies: Bodies = request.app.state.bodies
    detector.admission.check()  # a full server does not even read the body
    async with bodies.image_of(request) as encoded:
        deadline = detector.clock() + detector.deadline_s
        if JPEG in request.headers.get("accept", ""):
            work = detector.picture(encoded, options, deadline=deadline)
            answer, picture = await while_connected(request, work)
            response = Response(picture, media_type=JPEG)
        else:
            answer = await while_connected(
                request, detector.detect(encoded, options, deadline=deadline)
            )
            response = Response(detect_json(answer, detector.info), media_type="application/json")
    metrics.answered(answer, detector.info.classes)
    return response
