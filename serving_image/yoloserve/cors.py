"""Pages of other sites: which may ask from a browser, and read the answer (CORS, WebSocket)."""

import re
from collections.abc import Collection
from functools import partial
from urllib.parse import urlsplit

from starlette.middleware.cors import CORSMiddleware

ANY = "*"
ORIGIN = re.compile(r"[a-z][-a-z0-9+.]*://([-a-z0-9_.]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
UNSAID = re.compile(r"http://.*:80|https://.*:443")  # browsers leave these ports out
METHODS = "GET", "HEAD", "POST"
# What a page may read besides the body: nothing of these is a secret.
READABLE = (
    "Inference-Header-Content-Length",
    "Retry-After",
    "Traceparent",
    "WWW-Authenticate",
    "X-Request-Id",
    "X-Yolofleet-Revision",
)


def require_origins(origins: Collection[str]) -> None:
    """Raise `ValueError` for what no browser sends as its origin, so that it would never match."""
    for origin in origins:
        if origin != ANY and (not ORIGIN.fullmatch(origin) or UNSAID.fullmatch(origin)):
            raise ValueError(
                f"{origin!r} is no origin: write scheme://host or scheme://host:port as browsers "
                "do, in small letters, without a path and without a port that goes without saying"
            )
    if ANY in origins and len(origins) > 1:
        raise ValueError(f'"{ANY}" stands for all origins: leave out the others')


def allowing(origins: Collection[str]) -> partial[CORSMiddleware]:
    """Make the middleware that lets pages of `origins` ask and read the answers, errors included.

    Pages that are named may use what the browser keeps for this server (a password that was typed
    in, a proxy's cookie), and ask from the internet into a private network. Under "*" neither: any
    page may ask then, but only as somebody without credentials, or with a key that it has itself.
    """
    named = ANY not in origins
    return partial(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=METHODS,
        allow_headers=(ANY,),  # a route may go by any header that a user thinks of
        allow_credentials=named,
        allow_private_network=named,
        expose_headers=READABLE,
    )


def may_stream(origin: str | None, host: str | None, origins: Collection[str], open_: bool) -> bool:
    """Say whether a page of `origin` may open a WebSocket at `host`; CORS does not ask for those.

    A browser sends a password that was typed in along: where somebody is asked for one (not
    `open_`), a page must be named.
    """
    if not origin or urlsplit(origin).netloc == host:
        return True
    return origin in origins or (ANY in origins and open_)
