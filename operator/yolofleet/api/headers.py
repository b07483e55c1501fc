"""Headers of requests: which one cameras may stay on a revision by, and which there can be at all.

The former is said twice, for the API server and in Python, of the same patterns.
"""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from yolofleet.api.base import Rule

_NAME = "^[a-zA-Z0-9]([-_a-zA-Z0-9]*[a-zA-Z0-9])?$"
_OF_OTHERS = (
    "^(host|uri|scheme|method|authority|connection|keep-alive|te|trailer|transfer-encoding|upgrade"
    "|content-length|expect|date|via|forwarded|cookie|authorization|traceparent|tracestate"
    "|x-request-id|(x-envoy|x-forwarded|x-b3|x-istio|x-yoloserve)-.*)$"
)
_SHAPE = "write the name of a request header, such as X-Camera-Id"
_TAKEN = (
    "is set by clients, proxies or the mesh for a purpose of its own; have the cameras send one"
    " that is theirs, such as X-Camera-Id"
)

RULE: Final = Rule(
    f"!has(self.stickyHeader) || (self.stickyHeader.matches('{_NAME}') &&"
    f" !self.stickyHeader.lowerAscii().matches('{_OF_OTHERS}'))",
    f"spec.traffic.stickyHeader: is no header that tells cameras apart; {_SHAPE}, and none that"
    " proxies, the mesh or HTTP itself sets",
    ".stickyHeader",
    "self.stickyHeader",
)


def _telling(name: str) -> str:
    if not re.fullmatch(_NAME, name):
        raise ValueError(_SHAPE)
    if re.fullmatch(_OF_OTHERS, name.lower()):
        raise ValueError(_TAKEN)
    return name


Sticky = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_telling)]


_A_HEADERS: Final = r"[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,256}"
_ISTIOS: Final = r":(method|scheme|authority|path|status)|@request\.auth\.claims[.\[].{1,256}"


def _can_be(name: str) -> str:
    if not re.fullmatch(f"{_A_HEADERS}|{_ISTIOS}", name):
        raise ValueError(f"{_SHAPE}, of at most 256 characters")
    return name


HeaderName = Annotated[str, AfterValidator(_can_be)]
"""As an HTTPRoute takes it, or what only Istio does: HTTP/2's pseudo headers, and claims of tokens
(https://istio.io/latest/docs/tasks/security/authentication/jwt-route/).

The API server has no rule: it cannot say how long such a key may be, and takes no pattern for one
that may be of any length.
"""
