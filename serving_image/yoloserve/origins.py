"""Pages of other sites: which may ask from a browser, and read the answers; pure."""

import re
from collections.abc import Collection

ANY = "*"
ORIGIN = re.compile(r"[a-z][-a-z0-9+.]*://([-a-z0-9_.]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
UNSAID = re.compile(r"http://.*:80|https://.*:443")  # browsers leave these ports out


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


def may_stream(origin: str | None, host: str | None, origins: Collection[str], open_: bool) -> bool:
    """Say whether a page of `origin` may open a WebSocket at `host`; CORS does not ask for those.

    A browser sends a password that was typed in along: where somebody is asked for one (not
    `open_`), a page must be named.
    """
    if not origin or origin.partition("://")[2] == host:
        return True
    return origin in origins or (ANY in origins and open_)
