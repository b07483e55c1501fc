"""The one map from errors to HTTP."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response

from yoloserve import errors
from yoloserve.http.schemas import error_json, v2_error_json
from yoloserve.telemetry.counting import HURRIED

STATUS_OF: dict[type[errors.Refusal], int] = {
    errors.InvalidImage: 400,
    errors.InvalidParameter: 400,
    errors.Unauthorized: 401,
    errors.UrlRefused: 403,
    errors.ForeignOrigin: 403,
    errors.UnknownModel: 404,
    errors.SlowBody: 408,
    errors.TooLarge: 413,
    errors.TooManyPixels: 413,
    errors.UnsupportedMediaType: 415,
    errors.UrlFailed: 424,  # not 502: nothing is wrong with this server, and no other one helps
    errors.OverQuota: 429,
    errors.Overloaded: 503,
    errors.Blind: 503,
    errors.FetchesFull: 503,
    errors.KeysUnavailable: 503,
    errors.TooLate: 504,
}
DESCRIPTIONS = {
    400: "`invalid_image`: damaged or cut short; `invalid_parameter`: an option is wrong",
    401: "`unauthorized`: a key or token is needed here",
    403: "`url_refused`: the picture's address is not one that may be asked",
    404: "`unknown_model`: another name or version is served here",
    408: "`slow_body`: the body took too long to arrive",
    413: "`too_large`: too many bytes; `too_many_pixels`: found in its header, not decoded",
    415: "`unsupported_media_type`: no picture, or compression, that is read here",
    424: "`url_failed`: the picture's address was asked, and gave none",
    429: "`over_quota`: this client sends more than it may; see `Retry-After`",
    503: "`overloaded`: too many wait already; try again after `Retry-After` seconds. "
    "`fetches_full`: so many other pictures are fetched. "
    "`keys_unavailable`: nobody can say whether the token is valid. `blind`: about to restart",
    504: "`deadline_exceeded`: no answer could be ready in time",
}
# What a request may have come to, besides an answer.
CODES = frozenset(error.code for error in STATUS_OF) | {
    HURRIED,
    "canceled",
    "http_error",
    "internal",
    "method_not_allowed",
    "not_found",
}
DETECT = "/v1/"
V2 = "/v2/"


def documented(model: type[BaseModel], *left_out: int) -> dict[int | str, dict[str, Any]]:
    """Describe every refusal, for the API's documentation."""
    responses: dict[int | str, dict[str, Any]] = {
        status: {"model": model, "description": description}
        for status, description in DESCRIPTIONS.items()
        if status not in left_out
    }
    seconds = {"description": "Seconds to wait", "schema": {"type": "integer", "minimum": 1}}
    for status in (429, 503):
        responses[status]["headers"] = {"Retry-After": seconds}
    return responses


def detects(path: str) -> bool:
    """Say whether a request to this path is one to detect, and counted as such."""
    return path.startswith(DETECT) or (path.startswith(V2) and path.endswith("/infer"))


def refusal(error: errors.Refusal, path: str, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with what is wrong, and when to come back if that helps."""
    more = dict(headers or {}) if isinstance(error, errors.Unauthorized) else {}
    if error.retry_after_s is not None:
        more["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, errors.SlowBody):
        more["Connection"] = "close"  # the rest of the body may never come
    return reply(STATUS_OF[type(error)], error.code, str(error), path, more)


def reply(
    status: int, code: str, message: str, path: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Write an error as the protocol of this path does."""
    write = v2_error_json if path.startswith(V2) else error_json
    return Response(write(code, message), status, headers, media_type="application/json")
