"""What is served on loopback, where `kubectl port-forward` gets and no other pod.

It has no log-in: whoever may forward to the operator's pod may see it. What a browser could be made
to do by a page of somebody else is kept out: no other origin may read, frame or embed it, and a
name that was bent to 127.0.0.1 (DNS rebinding) is not answered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

ADDRESS: Final = "127.0.0.1"
HOSTS: Final = frozenset({"localhost", ADDRESS, "[::1]"})
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none';"
    " form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def only_local_names(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer those who ask for a name of loopback, and no page of others."""
    host = request.headers.get("Host", "")
    if host.lower().removesuffix(f":{_port(host)}") not in HOSTS:
        refusal = "This is for localhost: kubectl port-forward, then http://localhost:PORT/\n"
        return web.Response(text=refusal, status=403, headers=HEADERS)
    response = await handler(request)
    response.headers.update(HEADERS)
    return response


def _port(host: str) -> str:
    port = host.rpartition(":")[2]
    return port if port.isdecimal() else ""
