"""The application: routes, start and end, and what happens to errors."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import Scope

from yoloserve import errors
from yoloserve.access.credentials import Access
from yoloserve.detector import Detector
from yoloserve.engine.watching import Watch
from yoloserve.http.dependencies import Bodies, ClientGone
from yoloserve.http.middleware import AnswersBugs, Door, Guarded, SaysWho, TakesHead, Traced, cors
from yoloserve.http.replies import detects, refusal, reply
from yoloserve.http.routes import detect, health, page, stream, v2
from yoloserve.http.schemas import StreamResponse, V2Request
from yoloserve.scheduling.admission import Places, Quotas
from yoloserve.settings import Settings
from yoloserve.telemetry.metrics import Metrics
from yoloserve.telemetry.tracing import spans

if TYPE_CHECKING:
    from yoloserve.http.fetching import Fetcher

CODE_OF = {404: "not_found", 405: "method_not_allowed"}  # what the router itself refuses
CLIENT_CLOSED_REQUEST = 499  # nginx's number for it; nobody receives it


def create_app(detector: Detector, metrics: Metrics, settings: Settings) -> FastAPI:
    """Build the application around a detector that is ready to warm up."""
    app = FastAPIOffline(
        title="yoloserve",
        version=detector.info.version,
        summary="Objects in pictures, in time.",
        description=f"Serves **{detector.info.name}** with the classes "
        f"{', '.join(detector.info.classes)}. Try it on [the page](./).\n\n"
        "A camera's frames go over a WebSocket, `/v1/stream`: each binary message is an encoded "
        "image, each answer a `StreamResponse` as text. While a frame is looked at, newer ones "
        "replace each other. Parameters are those of `/v1/detect`, `deadline_ms` and `camera_id`.",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        # Behind a proxy that strips a prefix, neither is where the client would be sent: what is
        # relative is right there, too, and nothing has to be believed of a header.
        redirect_slashes=False,
        servers=[{"url": "./"}],
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    app.state.detector = detector
    app.state.metrics = metrics
    app.state.fetcher = fetcher = _fetcher(settings)
    app.state.bodies = Bodies(
        settings.max_body_bytes, settings.body_timeout_seconds, settings.max_images, fetcher
    )
    app.state.quotas = Quotas(detector.clock)
    app.state.quota_per_second = settings.quota_per_second
    app.state.spans = spans()
    app.state.access = access = Access.of(settings)
    app.state.guarded = access is not None
    app.state.cors_origins = frozenset(settings.cors_origins or ())
    app.state.max_images, app.state.max_pixels = settings.max_images, settings.max_pixels
    app.state.draining = False
    app.state.large_json = asyncio.Lock()
    app.state.streams = Places(settings.max_streams, "streams")
    app.state.stream_idle_s = settings.stream_idle_seconds or None
    metrics.watch_streams(app.state.streams)
    app.state.give_up = lambda: None  # the process's to say
    app.state.watch = Watch(
        detector.look_at_probe,
        is_busy=lambda: detector.admission.inside > 0,
        interval_s=settings.probe_interval_seconds,
        give_up=lambda: app.state.give_up(),
    )
    app.state.watches = settings.probe_interval_seconds > 0
    app.state.status = partial(_status, app.state)
    for routes in (detect, stream, v2, health, page):
        app.include_router(routes.router)
    _complete(app.openapi())  # made once, and kept by FastAPI
    app.add_exception_handler(errors.Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _invalid_parameter)
    app.add_exception_handler(HTTPException, _not_routed)
    app.add_exception_handler(ClientDisconnect, _nobody_there)
    app.add_exception_handler(ClientGone, _nobody_there)
    # Outermost last.
    if access:
        app.add_middleware(
            Guarded, access=access, state=app.state, metrics_open=settings.metrics_open
        )
    app.add_middleware(Door, state=app.state)
    app.add_middleware(AnswersBugs, failed=partial(_failed, app.state))
    app.add_middleware(SaysWho, state=app.state)
    if settings.cors_origins:
        app.add_middleware(cors(settings.cors_origins))
    app.add_middleware(Traced, state=app.state, access_log=settings.access_log)
    app.add_middleware(TakesHead)
    return app


def _fetcher(settings: Settings) -> "Fetcher | None":
    """Make what fetches pictures, if it may: importing an HTTP client takes a tenth of a second."""
    if not settings.url_hosts:
        return None
    from yoloserve.http.fetching import Fetcher

    return Fetcher.of(settings)


def _status(state: State) -> str:
    """Name the state that `/health/ready` tells; only "ready" is."""
    if state.watch.blind:
        return "blind"
    return "draining" if state.draining else "ready"


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
    detector: Detector = app.state.detector
    await detector.warm_up()
    app.state.metrics.watch(detector)
    watching = asyncio.create_task(app.state.watch.run()) if app.state.watches else None
    yield
    if watching:
        watching.cancel()
    await detector.close()
    if app.state.fetcher:
        await app.state.fetcher.close()
    if app.state.access:
        await app.state.access.close()
    app.state.spans.close()


def _counted(request: Request, code: str) -> None:
    if detects(request.url.path):
        request.app.state.metrics.refused(code)


async def _refused(request: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, errors.Refusal)
    if detects(request.url.path):
        request.app.state.metrics.refusal(error)
    return refusal(error, request.url.path)


async def _invalid_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = "; ".join(f"{e['loc'][-1]}: {e['msg']}, not {e['input']!r}" for e in error.errors())
    return await _refused(request, errors.InvalidParameter(faults))


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = CODE_OF.get(error.status_code, "http_error")
    message = f"{request.method} {request.url.path}: {error.detail}; see /docs"
    _counted(request, code)
    return reply(error.status_code, code, message, request.url.path, error.headers)


async def _nobody_there(request: Request, _: Exception) -> Response:
    request.app.state.metrics.refused("canceled")
    return Response(status_code=CLIENT_CLOSED_REQUEST)


def _failed(state: State, scope: Scope, error: Exception) -> Response:
    """Answer a bug; its error goes on, to the log."""
    path = scope["path"]
    if detects(path):
        state.metrics.refused("internal")
    return reply(500, "internal", f"the server failed: {type(error).__name__}", path)
