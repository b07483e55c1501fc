"""The one map from errors to HTTP."""

from collections.abc import Mapping

from starlette.responses import Response

from yoloserve import errors
from yoloserve.schemas import error_json, v2_error_json

STATUS_OF: dict[type[errors.Refusal], int] = {
    errors.InvalidImage: 400,
    errors.InvalidParameter: 400,
    errors.Unauthorized: 401,
    errors.SlowBody: 408,
    errors.TooLarge: 413,
    errors.TooManyPixels: 413,
    errors.UnsupportedMediaType: 415,
    errors.OverQuota: 429,
    errors.Overloaded: 503,
    errors.KeysUnavailable: 503,
    errors.TooLate: 504,
}
DETECT = "/v1/"
V2 = "/v2/"


def detects(path: str) -> bool:
    """Say whether a request to this path is one to detect, and counted as such."""
    return path.startswith(DETECT) or (path.startswith(V2) and path.endswith("/infer"))


def refusal(error: errors.Refusal, path: str, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with what is wrong, and when to come back if that helps."""
    told = dict(headers or {}) if isinstance(error, errors.Unauthorized) else {}
    if error.retry_after_s is not None:
        told["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, errors.SlowBody):
        told["Connection"] = "close"  # the rest of the body may never come
    return reply(STATUS_OF[type(error)], error.code, str(error), path, told)


def reply(
    status: int, code: str, message: str, path: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Write an error as the protocol of this path does."""
    write = v2_error_json if path.startswith(V2) else error_json
    return Response(write(code, message), status, headers, media_type="application/json")
