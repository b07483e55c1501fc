"""The application: routes, start and end, and what happens to errors."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import (
    RequestValidationError,
    ValidationException,
    WebSocketRequestValidationError,
)
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import Scope

from yoloserve import errors
from yoloserve.http.callers import ClientGone, Sizes, images_in, is_hurried, traffic_of
from yoloserve.http.middleware import (
    AnswersBugs,
    AsAtTheRoot,
    Door,
    Guarded,
    KnowsShadows,
    SaysWho,
    Traced,
    cors,
)
from yoloserve.http.replies import detects, refusal, reply
from yoloserve.http.routes import detect, disagreements, health, page, stream, v2
from yoloserve.http.schemas import StreamResponse, V2Request
from yoloserve.http.serving import Serving, engine_serving_of, serving_of
from yoloserve.telemetry.counting import Counting

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
CODE_OF = {404: "not_found", 405: "method_not_allowed"}  # what the router itself refuses
CLIENT_CLOSED_REQUEST = 499  # nginx's number for it; nobody receives it
ROUTES = detect, stream, v2, health, disagreements, page


def create_app(serving: Serving, lifespan: Lifespan | None = None) -> FastAPI:
    """Build the application around an engine that is ready to warm up.

    It runs at the root or below another's prefix; `serving_of` tells what its host may ask of it.
    lifespan: another than the engine's.
    """
    detector, metrics, settings = serving.detector, serving.metrics, serving.settings
    app = FastAPIOffline(
        # As they are, and first: an included router is looked through anew for each request.
        routes=[route for each in ROUTES for route in each.router.routes],
        telemetry={"tracing": False, "metrics": False, "logs": False},  # there are our own
        title="yoloserve",
        version=detector.info.version,
        summary="Objects in pictures, in time.",
        description=f"Serves **{detector.info.name}** with the classes "
        f"{', '.join(detector.info.classes)}. Try it on [the page](./).\n\n"
        "A camera's frames go over a WebSocket, `/v1/stream`: each binary message is an encoded "
        "image, each answer a `StreamResponse` as text. While a frame is looked at, newer ones "
        "replace each other. Parameters are those of `/v1/detect`, `deadline_ms` and `camera_id`.",
        lifespan=lifespan or _lifespan,
        docs_url=None,
        redoc_url=None,
        # Behind a proxy that strips a prefix, neither is where the client would be sent: what is
        # relative is right there, too, and nothing has to be believed of a header.
        redirect_slashes=False,
        servers=[{"url": "./"}],
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    app.state.serving, app.state.sizes = serving, Sizes()
    _complete(app.openapi())  # made once, and kept by FastAPI
    app.add_exception_handler(errors.Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _invalid_parameter)
    app.add_exception_handler(WebSocketRequestValidationError, _invalid_parameter)
    app.add_exception_handler(HTTPException, _not_routed)
    app.add_exception_handler(ClientDisconnect, _nobody_there)
    app.add_exception_handler(ClientGone, _nobody_there)
    # Outermost last.
    if serving.access:
        app.add_middleware(Guarded, access=serving.access, serving=serving)
    app.add_middleware(Door, metrics=metrics)
    app.add_middleware(KnowsShadows, serving=serving)
    app.add_middleware(AnswersBugs, failed=partial(_failed, metrics))
    app.add_middleware(SaysWho, serving=serving)
    if settings.cors_origins:
        app.add_middleware(cors(settings.cors_origins))
    app.add_middleware(Traced, serving=serving)
    app.add_middleware(AsAtTheRoot)
    return app


def _complete(document: dict[str, Any]) -> None:
    """Take out the answer to wrong parameters, which is a 400 here, and add what FastAPI misses."""
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    schemas = document["components"]["schemas"]
    for model in (V2Request, StreamResponse):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs")
        schemas[model.__name__] = schema
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with engine_serving_of(app).running():
        yield


def _counted(request: Request, code: str) -> None:
    if detects(request.url.path):
        scope = request.scope
        serving_of(request.app).metrics.refused(code, traffic_of(scope), images_in(scope))


async def _refused(request: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, errors.Refusal)
    if detects(request.url.path):
        scope = request.scope
        metrics = serving_of(request.app).metrics
        hurried, images = is_hurried(scope), images_in(scope)
        metrics.refusal(error, traffic_of(scope), hurried=hurried, images=images)
    return refusal(error, request.url.path)


async def _invalid_parameter(request: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, ValidationException)
    faults = "; ".join(
        f"{e['loc'][-1]}: {e['msg']}, not {errors.quoted(e['input'])}" for e in error.errors()
    )
    return await _refused(request, errors.InvalidParameter(faults))


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = CODE_OF.get(error.status_code, "http_error")
    message = f"{request.method} {request.url.path}: {error.detail}; see /docs"
    _counted(request, code)
    return reply(error.status_code, code, message, request.url.path, error.headers)


async def _nobody_there(request: Request, _: Exception) -> Response:
    scope = request.scope
    serving_of(request.app).metrics.refused("canceled", traffic_of(scope), images_in(scope))
    return Response(status_code=CLIENT_CLOSED_REQUEST)


def _failed(metrics: Counting, scope: Scope, error: Exception) -> Response:
    """Answer a bug; its error goes on, to the log."""
    path = scope["path"]
    if detects(path):
        metrics.refused("internal", traffic_of(scope), images_in(scope))
    return reply(500, "internal", f"the server failed: {type(error).__name__}", path)
