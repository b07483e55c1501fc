"""What every request passes: its ids and its time, who answers, and whether it may ask at all."""

import logging
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from yoloserve.access.clients import Client
from yoloserve.access.credentials import Access
from yoloserve.detector import Answer
from yoloserve.errors import Overloaded, Refusal
from yoloserve.http.callers import TRAFFIC, images_in, traffic_of
from yoloserve.http.protocol import CROWDED
from yoloserve.http.replies import detects, refusal
from yoloserve.http.serving import Serving
from yoloserve.origins import ANY
from yoloserve.shadow.replay import SOURCE, SOURCE_KEY
from yoloserve.telemetry.counting import Counting
from yoloserve.telemetry.tracing import current
from yoloserve.telemetry.traffic import Traffic

log = logging.getLogger(__name__)

REVISION = b"x-yolofleet-revision"
OPEN = frozenset({"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"})
METRICS = "/metrics"
DISAGREEMENTS = "/disagreements"  # has a key of its own, which no client has
SHADOWED = "/v1/detect"
SHADOWS = Client("the shadow", per_second=0)  # no quota; a key's name has no blank in it
CORS_METHODS = "GET", "HEAD", "POST"
# What a page may read besides the body: nothing of these is a secret.
READABLE = (
    "Inference-Header-Content-Length",
    "Retry-After",
    "Traceparent",
    "WWW-Authenticate",
    "X-Request-Id",
    "X-Yolofleet-Revision",
)
Failed = Callable[[Scope, Exception], Response]  # answers a bug


class AsAtTheRoot:
    """Passes requests on as the routes know them: without a host's prefix, and HEAD as GET.

    HEAD is taken wherever GET is (RFC 9110, 9.1): a GET whose body the host leaves out. Below a
    prefix (`root_path`) paths mean what they mean without one, and nothing here speaks of itself
    but relatively.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._inner = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; the host goes by the scope it made, so that one stays as it is."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        if prefix := scope.get("root_path"):
            path = _below(prefix.rstrip("/"), scope["path"])
            scope = {**scope, "path": path, "root_path": "", "app_root_path": ""}
        await self._inner(scope, receive, send)


def _below(prefix: str, path: str) -> str:
    """Take a prefix off a path, unless the host has done so already, as some do."""
    rest = path.removeprefix(prefix)
    return (rest or "/") if rest[:1] in ("", "/") else path


class Traced:
    """Gives each request its ids, counts it, and writes it to the log where that is wanted."""

    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self._inner = app
        self._serving = serving
        self._access_log = serving.settings.access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on under a trace; its ids go out with the answer."""
        if scope["type"] not in ("http", "websocket"):
            await self._inner(scope, receive, send)
            return
        began = time.perf_counter()
        method = scope.get("method", "WEBSOCKET")
        trace, span = self._serving.spans.begin(method, Headers(scope=scope))
        current.set(trace)  # of this request's own task; uvicorn's last words are said under it
        status = 0

        async def send_with_ids(message: Message) -> None:
            nonlocal status
            if message["type"].endswith(("response.start", "websocket.accept")):
                status = message.get("status", 101)
                message.setdefault("headers", []).extend(
                    (
                        (b"x-request-id", trace.request_id.encode()),
                        (b"traceparent", trace.traceparent.encode()),
                    )
                )
            await send(message)

        metrics = self._serving.metrics
        metrics.active += 1
        try:
            await self._inner(scope, receive, send_with_ids)
        finally:
            metrics.active -= 1
            route = getattr(scope.get("route"), "path", "")
            seconds = time.perf_counter() - began
            metrics.served(method, route, status, seconds)
            attributes: dict[str, Any] = {
                "http.request.method": method,
                "http.route": route,
                "http.response.status_code": status,
            }
            answers: list[Answer] = scope.get("state", {}).get("answers", [])
            stages: dict[str, float] = {}
            if len(answers) == 1:
                stages = {f"yoloserve.{k}_s": v for k, v in answers[0].timing.as_dict().items()}
            images = [answer.stages() for answer in answers]
            self._serving.spans.end(span, f"{method} {route}".strip(), attributes | stages, images)
            if self._access_log:
                path = scope["path"]
                log.info(
                    "request", extra=attributes | {"url.path": path, "seconds": seconds} | stages
                )


class SaysWho:
    """Says who answered, and asks clients to go elsewhere while the server drains.

    A client with an open connection would send its next request into the closing server; told to
    close, it connects anew, and the Service leads it to a pod that stays.
    """

    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self._inner = app
        self._serving = serving
        self._revision = (REVISION, serving.detector.info.revision.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add to the headers of what comes back."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                if detects(scope["path"]):
                    message["headers"].append(self._revision)
                if self._serving.draining:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        await self._inner(scope, receive, send_with_headers)


class AnswersBugs:
    """Answers what nobody foresaw, within all that adds to answers; the error goes on, to the log.

    Starlette's own answer would be outside of them: without ids, and of no use to another site.
    """

    def __init__(self, app: ASGIApp, failed: Failed) -> None:
        self._inner = app
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; answer in its place unless an answer has begun."""
        begun = False

        async def send_on(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._inner(scope, receive, send_on)
        except Exception as error:
            if scope["type"] == "http" and not begun:
                await self._failed(scope, error)(scope, receive, send)
            raise


def cors(origins: Collection[str]) -> partial[CORSMiddleware]:
    """Make the middleware that lets pages of `origins` ask and read the answers, errors included.

    Pages that are named may use what the browser keeps for this server (a password that was typed
    in, a proxy's cookie), and ask from the internet into a private network. Under "*" neither: any
    page may ask then, but only as somebody without credentials, or with a key that it has itself.
    """
    named = ANY not in origins
    return partial(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=CORS_METHODS,
        allow_headers=(ANY,),  # a route may go by any header that a user thinks of
        allow_credentials=named,
        allow_private_network=named,
        expose_headers=READABLE,
    )


class Door:
    """Lets in who looks after the server, and nobody else, when all connections are taken."""

    def __init__(self, app: ASGIApp, metrics: Counting) -> None:
        self._inner = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer that there is no place."""
        path = scope.get("path")
        if CROWDED not in scope.get("state", ()) or path in OPEN or path == METRICS:
            await self._inner(scope, receive, send)
            return
        error = Overloaded("all connections are taken, or all that one client may have then")
        if detects(scope["path"]):
            self._metrics.refusal(error, traffic_of(scope), images=images_in(scope))
        await refusal(error, scope["path"])(scope, receive, send)


class KnowsShadows:
    """Tells what another revision asks again from what callers ask, by the key that it shows.

    Whoever shows none is a caller like any other, whatever they say of themselves.
    """

    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self._inner = app
        self._keys = serving.shadow.keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; as a shadow if it is one."""
        if scope["type"] == "http" and scope["path"] == SHADOWED:
            headers = dict(scope["headers"])
            shown = headers.get(SOURCE_KEY.encode(), b"").decode("latin-1")
            if headers.get(SOURCE.encode()) == Traffic.SHADOW.encode() and self._keys.takes(shown):
                scope.setdefault("state", {}).update({TRAFFIC: Traffic.SHADOW, "client": SHADOWS})
        await self._inner(scope, receive, send)


class Guarded:
    """Asks who it is, before anything else is looked at; probes and shadows are never asked."""

    def __init__(self, app: ASGIApp, access: Access, serving: Serving) -> None:
        self._inner = app
        self._access = access
        self._metrics = serving.metrics
        self._open = OPEN | {METRICS} if serving.settings.metrics_open else OPEN

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its client, or answer that it may not ask."""
        path = scope.get("path", "")
        asks = scope["type"] in ("http", "websocket") and path not in self._open
        if path == DISAGREEMENTS or path.startswith(f"{DISAGREEMENTS}/"):
            asks = False
        if not asks or traffic_of(scope) is Traffic.SHADOW:
            await self._inner(scope, receive, send)
            return
        try:
            client = await self._access.client(Headers(scope=scope))
        except Refusal as error:
            if detects(scope["path"]):
                self._metrics.refused(error.code, traffic_of(scope), images_in(scope))
            response = refusal(error, scope["path"], {"WWW-Authenticate": self._access.challenge})
            await response(scope, receive, send)
            return
        scope.setdefault("state", {})["client"] = client
        await self._inner(scope, receive, send)
