"""What FastAPI hands a route: the server's parts, who asks, and what they want to see."""

from typing import Annotated

from fastapi import Depends, Header, Query, Request
from starlette.requests import HTTPConnection

from yoloserve.access.clients import Client
from yoloserve.detections.postprocess import Options
from yoloserve.detector import Detector
from yoloserve.http import request_start
from yoloserve.http.callers import Caller, traffic_of
from yoloserve.http.options import class_indices, option_of
from yoloserve.http.serving import engine_serving_of, serving_of
from yoloserve.scheduling.admission import Flow
from yoloserve.scheduling.connections import network_of
from yoloserve.telemetry.metrics import Metrics

LONGEST_DEADLINE_MS = 600_000


# These are `async` although they await nothing: FastAPI would run them on threads otherwise.
# Where each request passes, what needs no reading comes from `serving_of`: FastAPI takes 30 us for
# each that it hands over.
async def served(request: HTTPConnection) -> Detector:
    """Hand over the detector."""
    return serving_of(request.app).detector


async def counted(request: HTTPConnection) -> Metrics:
    """Hand over the metrics."""
    return engine_serving_of(request.app).metrics


async def named(
    request: HTTPConnection,
    x_deadline_ms: Annotated[
        float | None,
        Header(
            gt=0,
            le=LONGEST_DEADLINE_MS,
            allow_inf_nan=False,
            description="The answer is of no use later than so many milliseconds from now: it is "
            "refused then, as early as that is known. Default: the server's, from the last byte "
            "of the body.",
        ),
    ] = None,
    x_camera_id: Annotated[
        str,
        Header(
            max_length=128,
            description="Whose picture it is. Cameras take turns, and a place is kept for each: "
            "one that sends too much does not displace the others.",
        ),
    ] = "",
) -> Caller:
    """Tell who asks."""
    client: Client = request.scope.get("state", {}).get("client") or Client(
        network_of(request.client.host) if request.client else ""
    )
    serving = serving_of(request.app)
    waited_s = None
    if serving.settings.trust_request_start:
        waited_s = request_start.waited_s(
            request.headers.getlist(request_start.HEADER), serving.wall_clock()
        )
    return Caller(
        client=client,
        flow=Flow(client.name, x_camera_id),  # by its address where clients have no names
        arrived=serving.detector.clock() - (waited_s or 0),
        asked_s=x_deadline_ms and x_deadline_ms / 1000,
        stamped=waited_s is not None,
        traffic=traffic_of(request.scope),
    )


async def calling(request: Request, caller: Annotated[Caller, Depends(named)]) -> Caller:
    """Let the caller in; raise `Overloaded` or `OverQuota` before a byte of the body is read."""
    serving = serving_of(request.app)
    serving.refuse_if_blind()
    await serving.spend(caller.client)  # first: who may not ask has nothing to do with places
    await serving.detector.check(caller.flow)
    return caller


async def asked(
    request: HTTPConnection,
    confidence: Annotated[
        float | None,
        Query(ge=0, le=1, description="Only detections surer than this; default: the server's."),
    ] = None,
    iou: Annotated[
        float | None,
        Query(ge=0, le=1, description="Boxes of one class that overlap more are one object."),
    ] = None,
    classes: Annotated[
        str | None,
        Query(description="Only these classes: names or indices, separated by commas."),
    ] = None,
    max_detections: Annotated[
        int | None, Query(ge=1, le=10_000, description="At most so many, the surest first.")
    ] = None,
    agnostic_nms: Annotated[
        bool | None,
        Query(
            description="Boxes that overlap more than `iou` are one object whatever their class."
        ),
    ] = None,
) -> Options:
    """Read the caller's options, the server's settings being the defaults."""
    detector = serving_of(request.app).detector
    return option_of(
        detector,
        confidence=confidence,
        iou=iou,
        max_detections=max_detections,
        agnostic_nms=agnostic_nms,
        classes=None if classes is None else class_indices(classes, detector.info.classes),
    )


Served = Annotated[Detector, Depends(served)]
Counted = Annotated[Metrics, Depends(counted)]
Named = Annotated[Caller, Depends(named)]
Calling = Annotated[Caller, Depends(calling)]
Asked = Annotated[Options, Depends(asked)]
