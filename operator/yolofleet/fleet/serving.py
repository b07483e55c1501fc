"""The page over HTTP, on loopback: `kubectl port-forward` gets there, and no other pod."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import web

from yolofleet.loopback import ADDRESS, Handler, only_local_names
from yolofleet.probes import listen

PAGE: Final = Path(__file__).parent / "page"
FILES: Final = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
FRESH_S: Final = 2.0
"""So long one answer is for all screens: of thousands it takes a while to make."""

Fleet = Callable[[], Any]
"""What the page shows of all detectors now; None while they are not known yet."""


async def serve_page(fleet: Fleet, port: int) -> web.AppRunner:
    """Serve the page on `port` of loopback; the caller cleans the runner up."""
    return await listen(application(fleet), "the page of the fleet", port, ADDRESS)


def application(fleet: Fleet) -> web.Application:
    """Return the page and what it asks for; fleet: what it shows of all detectors now."""
    app = web.Application(middlewares=[only_local_names])
    for path, (name, kind) in FILES.items():
        app.router.add_get(path, _file((PAGE / name).read_bytes(), kind))
    app.router.add_get("/fleet.json", _Fleet(fleet).send)
    return app


def _file(content: bytes, kind: str) -> Handler:
    async def send(_: web.Request) -> web.Response:
        return web.Response(body=content, content_type=kind, charset="utf-8")

    return send


class _Fleet:
    """The answer of now, for a moment, and its tag: who has it already gets none."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._body, self._tag, self._until = b"", "", float("-inf")

    async def send(self, request: web.Request) -> web.Response:
        if (now := asyncio.get_running_loop().time()) >= self._until:
            if (shown := self._fleet()) is None:
                return web.Response(text="the first lists are not complete\n", status=503)
            self._body = orjson.dumps(shown)
            self._tag = f'"{hashlib.sha256(self._body).hexdigest()[:32]}"'
            self._until = now + FRESH_S
        headers = {"ETag": self._tag}
        if request.headers.get("If-None-Match") == self._tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=self._body, content_type="application/json", headers=headers)
