"""The Open Inference Protocol under `/v2`, so that KServe's and Triton's clients work unchanged."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.background import BackgroundTask

from yoloserve.detections.postprocess import Options
from yoloserve.detector import Answer, Detector
from yoloserve.errors import InvalidParameter, Refusal, UnknownModel, quoted
from yoloserve.http import compression
from yoloserve.http import inference_protocol as protocol
from yoloserve.http.callers import sizes_of, while_connected
from yoloserve.http.dependencies import Calling, Counted, Served
from yoloserve.http.options import class_indices, option_of
from yoloserve.http.replies import documented
from yoloserve.http.schemas import (
    V2Error,
    V2IndexEntry,
    V2Live,
    V2Model,
    V2Ready,
    V2Response,
    V2Server,
    V2ServerReady,
    V2Statistics,
)
from yoloserve.http.serving import serving_of

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

MODEL, VERSION = "/models/{model}", "/models/{model}/versions/{version}"
NO_MODEL: dict[int | str, dict[str, Any]] = {
    status: documented(V2Error)[status] for status in (401, 404)
}
LARGE_JSON_BYTES = 2**20
LONGEST_TIMEOUT_US = 600_000_000
BODY = {
    "required": True,
    "description": "May be compressed: `Content-Encoding: gzip` or `deflate`.",
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/V2Request"}},
        "application/octet-stream": {
            "schema": {"type": "string", "format": "binary"},
            "description": "JSON and then the tensors, or an encoded image alone",
        },
    },
}
HEADERS = [
    {
        "name": protocol.HEADER_LENGTH,
        "in": "header",
        "required": False,
        "description": "Bytes of JSON at the start of the body, the rest being binary tensors; "
        "0 when the body is one encoded image.",
        "schema": {"type": "integer", "minimum": 0},
    }
]


async def chosen(model: str, detector: Served, version: str | None = None) -> Detector:
    """Hand over the model of this name; raise `UnknownModel` for any other."""
    info = detector.info
    if model != info.name or version not in (None, info.version, protocol.version_of(info)):
        raise UnknownModel(f"{quoted(model)} is not here: this is {info.name!r}, {info.version!r}")
    return detector


Chosen = Annotated[Detector, Depends(chosen)]


@router.get("", summary="This server", response_model=V2Server)
async def server(request: Request) -> dict[str, Any]:
    """Say what this is, and which extensions of the protocol it has."""
    return {
        "name": "yoloserve",
        "version": request.app.version,
        "extensions": protocol.EXTENSIONS,
    }


@router.get("/health/live", summary="Does the process answer?", response_model=V2Live)
async def live() -> dict[str, bool]:
    """Say that the process answers."""
    return {"live": True}


@router.get(
    "/health/ready",
    summary="May requests be sent here?",
    response_model=V2ServerReady,
    responses={503: {"model": V2ServerReady, "description": "Draining, or blind"}},
)
async def ready(request: Request, response: Response) -> dict[str, bool]:
    """Say whether more may come, as `/health/ready` does."""
    is_ready = serving_of(request.app).status() == "ready"
    response.status_code = 200 if is_ready else 503
    return {"live": is_ready, "ready": is_ready}


# Before the models: there is none of the name `stats`.
@router.get("/models/stats", summary="Statistics", response_model=V2Statistics)
async def all_statistics(detector: Served, metrics: Counted) -> dict[str, Any]:
    """Count what was done, and where the time went, as Triton's statistics extension does."""
    info = detector.info
    return {"model_stats": [metrics.statistics.as_dict(info.name, protocol.version_of(info))]}


@router.get(MODEL + "/stats", summary="Statistics", response_model=V2Statistics, responses=NO_MODEL)
@router.get(
    VERSION + "/stats", summary="Statistics", response_model=V2Statistics, responses=NO_MODEL
)
async def statistics(detector: Chosen, metrics: Counted) -> dict[str, Any]:
    """Count what was done with this model."""
    return await all_statistics(detector, metrics)


@router.get(MODEL, summary="The model", response_model=V2Model, responses=NO_MODEL)
@router.get(VERSION, summary="The model", response_model=V2Model, responses=NO_MODEL)
async def model_metadata(detector: Chosen) -> dict[str, Any]:
    """Describe the model's input and outputs."""
    return protocol.metadata(detector.info)


@router.get(
    MODEL + "/ready",
    summary="May the model be asked?",
    response_model=V2Ready,
    responses={503: {"model": V2Ready, "description": "Draining, or blind"}, **NO_MODEL},
)
@router.get(
    VERSION + "/ready",
    summary="May the model be asked?",
    response_model=V2Ready,
    responses={503: {"model": V2Ready, "description": "Draining, or blind"}, **NO_MODEL},
)
async def model_ready(request: Request, detector: Chosen, response: Response) -> dict[str, Any]:
    """Say whether the model may be asked."""
    live = serving_of(request.app).status() == "ready"
    response.status_code = 200 if live else 503
    return {"name": detector.info.name, "ready": live}


@router.get(MODEL + "/config", summary="The model, as Triton describes it", responses=NO_MODEL)
@router.get(VERSION + "/config", summary="The model, as Triton describes it", responses=NO_MODEL)
async def model_config(detector: Chosen) -> dict[str, Any]:
    """Describe the model as Triton's model configuration does."""
    return protocol.config(detector.info)


@router.post("/repository/index", summary="All models", response_model=list[V2IndexEntry])
async def repository_index(request: Request, detector: Served) -> list[dict[str, str]]:
    """List the one model there is."""
    state = "READY" if serving_of(request.app).status() == "ready" else "UNAVAILABLE"
    info = detector.info
    return [{"name": info.name, "version": protocol.version_of(info), "state": state, "reason": ""}]


@router.post(
    MODEL + "/infer",
    summary="Find the objects in images",
    response_model=V2Response,
    responses=documented(V2Error, 403, 424),
    openapi_extra={"requestBody": BODY, "parameters": HEADERS},
)
@router.post(
    VERSION + "/infer",
    summary="Find the objects in images",
    response_model=V2Response,
    responses=documented(V2Error, 403, 424),
    openapi_extra={"requestBody": BODY, "parameters": HEADERS},
)
async def infer(request: Request, caller: Calling, detector: Chosen) -> Response:
    """Send images as a tensor, get boxes, scores and classes as tensors.

    The input `image` is encoded images (BYTES, in JSON as base64), or RGB pixels (UINT8 `[n, h, w,
    3]`, or FP32 from 0 to 1 `[n, 3, h, w]`). Boxes are in pixels of each image, filled up with
    zeros to the most detections of any image; `num_dets` says how many count. Should one image
    be refused, all of them are. A long answer is compressed for those who accept gzip or deflate.
    """
    serving = serving_of(request.app)
    size, settings = detector.info.input_size, serving.settings
    limits = protocol.Limits(settings.max_images, settings.max_pixels, 3 * size.height * size.width)
    length = _header_length(request)
    async with serving.bodies.body_of(request) as body:
        read_at = detector.clock()
        # Many numbers are many objects: those of one request at a time.
        large = (len(body) if length is None else length) > LARGE_JSON_BYTES
        async with serving.large_json if large else nullcontext():
            inference = await detector.off_loop(protocol.read, body, length, limits)
        images = sizes_of(request.app).counted(request.scope, len(inference.sources))
        if images > 1:
            await serving.spend(caller.client, images - 1, paid=1)
        options = asked_in(inference.parameters, detector)
        asked_us = _timeout_us(inference.parameters)
        deadline, request.state.hurried = caller.deadline(
            detector, images, asked_s=asked_us / 1e6 if asked_us else None
        )
        with serving.shadow.drawn(inference.sources, options) as drawn:
            results = await while_connected(
                request,
                detector.detect_each(
                    drawn.sources,
                    options,
                    deadline=deadline,
                    flow=caller.flow,
                    below=drawn.below,
                ),
            )
            answers = _all_answered(results)
            shows = drawn.answered(answers)
    request.state.answers = answers
    objects = sum(len(answer.detections) for answer in answers)
    written = await detector.write(objects, protocol.write, inference, answers, detector.info)
    detector.require_in_time(deadline)
    response = await _response(*written, request, detector)
    response.background = BackgroundTask(serving.shadow.offer, drawn) if shows else None
    waited_s = detector.clock() - read_at
    for answer in answers:
        serving.metrics.answered(answer, detector.info.classes, caller.traffic, waited_s, images)
    return response


async def _response(
    written: bytes, header: int | None, request: Request, detector: Detector
) -> Response:
    """Send it, compressed where that is asked for and worth it. header: its bytes of JSON."""
    headers = {"Vary": "Accept-Encoding"}
    if header is not None:
        headers[protocol.HEADER_LENGTH] = str(header)  # of the answer before it is compressed
    encoding = compression.chosen(request.headers.getlist("accept-encoding"))
    if encoding and len(written) >= compression.LEAST_BYTES:
        written = await detector.off_loop(compression.compressed, written, encoding)
        headers["Content-Encoding"] = encoding
    kind = "application/json" if header is None else "application/octet-stream"
    return Response(written, media_type=kind, headers=headers)


def _all_answered(results: Sequence[Answer | Refusal]) -> list[Answer]:
    """Give the answers; raise the first refusal."""
    answers = []
    for result in results:
        if isinstance(result, Refusal):
            raise result
        answers.append(result)
    return answers


def _header_length(request: Request) -> int | None:
    given = request.headers.get(protocol.HEADER_LENGTH)
    if given is None:
        return None
    if not (given.isascii() and given.isdecimal() and len(given) < 16):
        raise InvalidParameter(f"{protocol.HEADER_LENGTH}: {quoted(given)} is no length")
    return int(given)


def _timeout_us(parameters: dict[str, Any]) -> int:
    timeout = parameters.get("timeout")
    if timeout is None:
        return 0
    if not protocol.is_whole(timeout) or not 0 <= timeout <= LONGEST_TIMEOUT_US:
        raise InvalidParameter(f"timeout: expected 0 to {LONGEST_TIMEOUT_US} microseconds")
    return timeout


def asked_in(parameters: dict[str, Any], detector: Detector) -> Options:
    """Read the options among a request's parameters."""
    classes = parameters.get("classes")
    if classes is not None and not isinstance(classes, str):
        raise InvalidParameter("classes: expected names or indices, separated by commas")
    agnostic = parameters.get("agnostic_nms")
    if agnostic is not None and not isinstance(agnostic, bool):
        raise InvalidParameter(f"agnostic_nms: expected true or false, not {quoted(agnostic)}")
    return option_of(
        detector,
        confidence=_number(parameters, "confidence", 0, 1),
        iou=_number(parameters, "iou", 0, 1),
        max_detections=_number(parameters, "max_detections", 1, 10_000),
        classes=None if classes is None else class_indices(classes, detector.info.classes),
        agnostic_nms=agnostic,
    )


def _number(parameters: dict[str, Any], name: str, least: float, most: float) -> Any:
    value = parameters.get(name)
    if value is None:
        return None
    kinds = int if least == 1 else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
        raise InvalidParameter(f"{name}: expected {least} to {most}, not {quoted(value)}")
    return value
