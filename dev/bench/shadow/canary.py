"""A canary that answers at once, whatever it is shown: `canary.py PORT REVISION ANSWER.json`."""

import sys
from pathlib import Path

from aiohttp import web


def main() -> None:
    """Answer until it is ended."""
    port, revision, answer = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]).read_bytes()
    head = {"X-YoloFleet-Revision": revision, "Content-Type": "application/json"}

    async def detect(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=answer, headers=head)

    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_post("/v1/detect", detect)
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


if __name__ == "__main__":
    main()
