"""`POST /v1/detect`: an image in, its objects out."""

from typing import Any

from fastapi import APIRouter, Request, Response

from yoloserve.dependencies import Asked, Bodies, Calling, Counted, Served, while_connected
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
        401: "`unauthorized`: a key or token is needed here",
        408: "`slow_body`: the body took too long to arrive",
        413: "`too_large`: too many bytes; `too_many_pixels`: found in its header, not decoded",
        415: "`unsupported_media_type`: no JPEG, PNG, WebP or BMP",
        429: "`over_quota`: this client sends more than it may; see `Retry-After`",
        503: "`overloaded`: too many wait already; try again after `Retry-After` seconds",
        504: "`deadline_exceeded`: no answer could be ready in time",
    }.items()
}
RETRY_AFTER = {
    "Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer", "minimum": 1}}
}
for status in (429, 503):
    REFUSALS[status]["headers"] = RETRY_AFTER


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
async def detect(
    request: Request, caller: Calling, detector: Served, options: Asked, metrics: Counted
) -> Response:
    """Send an image, get its objects.

    Boxes are in pixels of the image as it is looked at: a rotation in its EXIF data is applied.
    An answer that cannot be in time is refused early, and never sent late.
    """
    bodies: Bodies = request.app.state.bodies
    async with bodies.image_of(request) as encoded:
        deadline = caller.deadline(detector)
        if JPEG in request.headers.get("accept", ""):
            answer, picture = await while_connected(
                request, detector.picture(encoded, options, deadline=deadline, flow=caller.flow)
            )
            response = Response(picture, media_type=JPEG)
        else:
            answer = await while_connected(
                request, detector.detect(encoded, options, deadline=deadline, flow=caller.flow)
            )
            response = Response(detect_json(answer, detector.info), media_type="application/json")
    detector.require_in_time(deadline)
    request.state.timing = answer.timing
    metrics.answered(answer, detector.info.classes)
    return response
