"""The application: routes, start and end, and the one map from errors to HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from yoloserve import errors
from yoloserve.admission import Quotas
from yoloserve.dependencies import Bodies, ClientGone
from yoloserve.detector import Detector
from yoloserve.metrics import Metrics
from yoloserve.routes import detect, health, page
from yoloserve.schemas import error_json
from yoloserve.settings import Settings

STATUS_OF: dict[type[errors.Refusal], int] = {
    errors.InvalidImage: 400,
    errors.InvalidParameter: 400,
    errors.SlowBody: 408,
    errors.TooLarge: 413,
    errors.TooManyPixels: 413,
    errors.UnsupportedMediaType: 415,
    errors.OverQuota: 429,
    errors.Overloaded: 503,
    errors.TooLate: 504,
}
CODE_OF = {404: "not_found", 405: "method_not_allowed"}  # what the router itself refuses
CLIENT_CLOSED_REQUEST = 499  # nginx's number for it; nobody receives it
DETECT = "/v1/detect"
REVISION = b"x-yolofleet-revision"


def create_app(detector: Detector, metrics: Metrics, settings: Settings) -> FastAPI:
    """Build the application around a detector that is ready to warm up."""
    app = FastAPIOffline(
        title="yoloserve",
        version=detector.info.version,
        summary="Objects in pictures, in time.",
        description=f"Serves **{detector.info.name}** with the classes "
        f"{', '.join(detector.info.classes)}. Try it on [the page](/).",
        lifespan=_lifespan,
        redoc_url=None,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    app.state.detector = detector
    app.state.metrics = metrics
    app.state.bodies = Bodies(settings.max_body_bytes, settings.body_timeout_seconds)
    app.state.quotas = Quotas(detector.clock)
    app.state.quota_per_second = settings.quota_per_second
    app.state.draining = False
    for routes in (detect, health, page):
        app.include_router(routes.router)
    _forget_422(app.openapi())  # made once, and kept by FastAPI
    app.add_exception_handler(errors.Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _invalid_parameter)
    app.add_exception_handler(HTTPException, _not_routed)
    app.add_exception_handler(ClientDisconnect, _nobody_there)
    app.add_exception_handler(ClientGone, _nobody_there)
    app.add_exception_handler(Exception, _failed)
    app.add_middleware(ResponseHeaders, state=app.state)
    return app


def _forget_422(document: dict[str, Any]) -> None:
    """Take out the answer to wrong parameters that FastAPI documents; ours is a 400."""
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    detector: Detector = app.state.detector
    await detector.warm_up()
    app.state.metrics.watch(detector)
    yield
    await detector.close()


class ResponseHeaders:
    """Says who answered, and asks clients to go elsewhere while the server drains.

    A client with an open connection would send its next request into the closing server; told to
    close, it connects anew, and the Service leads it to a pod that stays.
    """

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._inner = app
        self._state = state
        self._revision = (REVISION, state.detector.info.revision.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add to the headers of what comes back."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                if scope["path"] == DETECT:
                    message["headers"].append(self._revision)
                if self._state.draining:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        await self._inner(scope, receive, send_with_headers)


def _error(request: Request, status: int, code: str, message: str, **headers: str) -> Response:
    if request.url.path == DETECT:
        request.app.state.metrics.refused(code)
    return Response(
        error_json(code, message), status, headers=headers, media_type="application/json"
    )


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.Refusal)
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, errors.TooLate):
        request.app.state.metrics.missed(error.miss)
    if isinstance(error, errors.SlowBody):
        headers["Connection"] = "close"  # the rest of the body may never come
    return _error(request, STATUS_OF[type(error)], error.code, str(error), **headers)


async def _invalid_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = "; ".join(f"{e['loc'][-1]}: {e['msg']}, not {e['input']!r}" for e in error.errors())
    return _error(request, 400, errors.InvalidParameter.code, faults)


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = CODE_OF.get(error.status_code, "http_error")
    message = f"{request.method} {request.url.path}: {error.detail}; see /docs"
    return _error(request, error.status_code, code, message, **(error.headers or {}))


async def _nobody_there(request: Request, _: Exception) -> Response:
    request.app.state.metrics.refused("canceled")
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _failed(request: Request, error: Exception) -> Response:
    """Answer a bug; Starlette sends this and raises the error again, for the log."""
    response = _error(request, 500, "internal", f"the server failed: {type(error).__name__}")
    response.raw_headers.append((REVISION, request.app.state.detector.info.revision.encode()))
    return response
