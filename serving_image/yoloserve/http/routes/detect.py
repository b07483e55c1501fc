"""`POST /v1/detect` and `/v1/detect/batch`: images in, their objects out."""

from typing import Any, TypedDict

from fastapi import APIRouter, Request, Response
from starlette.background import BackgroundTask

from yoloserve.detections.postprocess import Options
from yoloserve.detector import Answer
from yoloserve.errors import Refusal
from yoloserve.http.callers import is_hurried, sizes_of, while_connected
from yoloserve.http.declared import DeclaredRoute
from yoloserve.http.dependencies import Asked, Calling
from yoloserve.http.negotiation import prefers
from yoloserve.http.replies import documented, refusal
from yoloserve.http.schemas import (
    BatchResponse,
    DetectResponse,
    ErrorResponse,
    batch_json,
    detect_json,
    shadow_json,
)
from yoloserve.http.serving import serving_of
from yoloserve.images.decoding import Format
from yoloserve.scheduling.admission import Flow
from yoloserve.shadow.pairs import NEARLY
from yoloserve.telemetry.traffic import Traffic

router = APIRouter(tags=["detect"], route_class=DeclaredRoute)

JPEG, JSON = "image/jpeg", "application/json"


class Wanted(TypedDict):
    """How a picture is to be looked at."""

    deadline: float
    flow: Flow
    below: float


BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
FORM: dict[str, Any] = {
    "schema": {
        "type": "object",
        "properties": {"file": {"type": "string", "format": "binary"}},
        "required": ["file"],
    }
}
FORM_OF_MANY: dict[str, Any] = {
    "schema": {
        "type": "object",
        "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
        "required": ["file"],
    }
}
ADDRESS: dict[str, Any] = {
    "schema": {
        "type": "object",
        "properties": {"url": {"type": "string", "format": "uri"}},
        "required": ["url"],
        "additionalProperties": False,
        "example": {"url": "https://cams.example.com/gate/latest.jpg"},
    }
}
BODY = {
    "required": True,
    "description": "The image as it is; a form with it in the field `file` or `image`; or its "
    "address, on one of the hosts that this server is allowed to ask. May be compressed: "
    "`Content-Encoding: gzip` or `deflate`.",
    "content": {form.value: BINARY for form in Format}
    | {"multipart/form-data": FORM, "application/json": ADDRESS},
}
BODY_OF_MANY = {
    "required": True,
    "description": "A form with the images as its files, whatever their fields are called. May be "
    "compressed: `Content-Encoding: gzip` or `deflate`.",
    "content": {"multipart/form-data": FORM_OF_MANY},
}
REFUSALS = documented(ErrorResponse, 404)
REVISION = {
    "X-Yolofleet-Revision": {
        "description": "The revision that answered",
        "schema": {"type": "string"},
    }
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
            "headers": REVISION,
        },
        **REFUSALS,
    },
    openapi_extra={"requestBody": BODY},
)
async def detect(request: Request, caller: Calling, options: Asked) -> Response:
    """Send an image, get its objects.

    Boxes are in pixels of the image as it is looked at: a rotation in its EXIF data is applied.
    An answer that cannot be in time is refused early, and never sent late.
    """
    serving = serving_of(request.app)
    detector = serving.detector
    async with serving.bodies.image_of(request) as encoded:
        read_at = detector.clock()
        deadline, request.state.hurried = caller.deadline(detector)
        if caller.traffic is Traffic.SHADOW:
            answer, response = await _for_shadow(request, caller, options, encoded, deadline)
        else:
            with serving.shadow.drawn([encoded], options) as drawn:
                answer, response = await _for_caller(
                    request, caller, options, encoded, deadline, drawn.below[0]
                )
                if drawn.answered([answer]):
                    response.background = BackgroundTask(serving.shadow.offer, drawn)
    detector.require_in_time(deadline)
    request.state.answers = [answer]
    waited_s = detector.clock() - read_at
    serving.metrics.answered(answer, detector.info.classes, caller.traffic, waited_s)
    return response


async def _for_caller(
    request: Request,
    caller: Calling,
    options: Options,
    encoded: bytes,
    deadline: float,
    below: float,
) -> tuple[Answer, Response]:
    """Answer with what was found, or with a picture of it."""
    detector = serving_of(request.app).detector
    wanted: Wanted = {"deadline": deadline, "flow": caller.flow, "below": below}
    if prefers(JPEG, JSON, request.headers.getlist("accept")):
        answer, picture = await while_connected(
            request, detector.picture(encoded, options, **wanted)
        )
        return answer, Response(picture, media_type=JPEG)
    answer = await while_connected(request, detector.detect(encoded, options, **wanted))
    written = await detector.write(len(answer.detections), detect_json, answer, detector.info)
    return answer, Response(written, media_type=JSON)


async def _for_shadow(
    request: Request, caller: Calling, options: Asked, encoded: bytes, deadline: float
) -> tuple[Answer, Response]:
    """Answer another revision, which compares: with what is a little below the threshold, too."""
    detector = serving_of(request.app).detector
    answer = await while_connected(
        request,
        detector.detect(encoded, options.lower(NEARLY), deadline=deadline, flow=caller.flow),
    )
    written = await detector.write(
        len(answer.detections), shadow_json, answer, detector.info, options.confidence
    )
    return answer, Response(written, media_type=JSON)


@router.post(
    "/v1/detect/batch",
    summary="Find the objects in several images",
    response_model=BatchResponse,
    response_model_exclude_none=True,
    responses={
        200: {
            "description": "What became of each image, in their order: its objects, or an error.",
            "headers": REVISION,
        },
        **documented(ErrorResponse, 403, 404, 424),
    },
    openapi_extra={"requestBody": BODY_OF_MANY},
)
async def detect_batch(request: Request, caller: Calling, options: Asked) -> Response:
    """Send several images as the files of a form, get the objects of each.

    Each image is an answer of its own: one that cannot be read, or that came too late, does not
    spoil the others. The deadline, unless asked for, is that of one image times their number.
    When not a single image was answered, the answer is the first one's error.
    """
    serving = serving_of(request.app)
    detector = serving.detector
    async with serving.bodies.images_of(request) as files:
        read_at = detector.clock()
        sizes_of(request.app).counted(request.scope, len(files))
        if len(files) > 1:
            await serving.spend(caller.client, len(files) - 1, paid=1)
        deadline, request.state.hurried = caller.deadline(detector, len(files))
        with serving.shadow.drawn([encoded for _, encoded in files], options) as drawn:
            answers = await while_connected(
                request,
                detector.detect_each(
                    drawn.sources,
                    options,
                    deadline=deadline,
                    flow=caller.flow,
                    below=drawn.below,
                ),
            )
            shows = drawn.answered(answers)
    refused = [answer for answer in answers if isinstance(answer, Refusal)]
    found = [answer for answer in answers if not isinstance(answer, Refusal)]
    request.state.answers = found
    if found:
        names, objects = [name for name, _ in files], sum(len(each.detections) for each in found)
        written = await detector.write(objects, batch_json, names, answers, detector.info)
        then = BackgroundTask(serving.shadow.offer, drawn) if shows else None
        response = Response(written, media_type=JSON, background=then)
    else:  # not raised: each of them counts, and by its own code
        response = refusal(refused[0], request.url.path)
    hurried, among = is_hurried(request.scope), len(files)
    for error in refused:
        serving.metrics.refusal(error, caller.traffic, hurried=hurried, among=among)
    waited_s = detector.clock() - read_at
    for answer in found:
        serving.metrics.answered(answer, detector.info.classes, caller.traffic, waited_s, among)
    return response
