"""`yoloserve serve` whose copies go to a port of loopback, as no cluster resolves Services here."""

import os
import sys

import httpx

from yoloserve import __main__ as yoloserve
from yoloserve.shadow import replay
from yoloserve.shadow.asking import Caller

PORT = "BENCH_CANARY_PORT"


class ToPort(httpx.AsyncHTTPTransport):
    """Sends what is for a Service to a port of loopback."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send it there; the head goes on saying whom it is for."""
        request.url = request.url.copy_with(host="127.0.0.1", port=int(os.environ[PORT]))
        return await super().handle_async_request(request)


if __name__ == "__main__":
    replay._usual = lambda: lambda: Caller(ToPort())  # there is no setting for it, on purpose
    sys.exit(yoloserve.main())
