"""How a canary is asked over HTTP; a module of its own, for an HTTP client takes long to import."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

AT_ONCE = 2
MOST_BYTES = 4 * 2**20  # of an answer: ten thousand boxes have less than half of it
CONNECT_S = 1.0


class Unreachable(Exception):
    """Nobody answered."""


class Late(Exception):
    """Nobody answered in time."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Caller:
    """Asks over few connections, which stay open; goes nowhere else, and never asks twice."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._transport = transport or httpx.AsyncHTTPTransport(
            verify=False,  # it is asked over plain HTTP, or through a mesh
            trust_env=False,
            limits=httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE),
        )

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float
    ) -> Reply:
        """Send a picture; raises `Unreachable` or `Late`.

        What is longer than any answer of ours comes back as nothing.
        """
        # Shorter than the whole: who is not there at all is not late.
        timeouts = httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s / 2)).as_dict()
        request = httpx.Request(
            "POST", url, headers=headers, content=body, extensions={"timeout": timeouts}
        )
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._transport.handle_async_request(request)
                try:
                    answer = await _bounded(response)
                finally:
                    await response.aclose()
        except httpx.ConnectTimeout as error:
            raise Unreachable(str(error)) from None
        except (TimeoutError, httpx.TimeoutException):
            raise Late from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from None
        return Reply(response.status_code, response.headers, answer)

    async def close(self) -> None:
        """Close what is open."""
        await self._transport.aclose()


async def _bounded(response: httpx.Response) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        return b""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MOST_BYTES:
            return b""
    return bytes(body)
