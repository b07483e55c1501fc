"""Asks the Prometheus that the cluster's admin named; users choose whether, never whom."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import aiohttp

from yolofleet.analysis.prometheus import MOST_BYTES
from yolofleet.cluster.bounded import body_of

TIMEOUT_S: Final = 5.0
AT_ONCE: Final = 4
"""One that is slow has so many queries of ours to answer, however many releases are judged."""

Query = Callable[[str], Awaitable[tuple[int, bytes]]]
"""Returns status and body of the answer; raises OSError, TimeoutError or aiohttp.ClientError."""


async def not_configured(_query: str) -> tuple[int, bytes]:
    """Say so, where no Prometheus is named."""
    raise OSError("prometheus.url is not set in the operator's chart")


def http_query(session: aiohttp.ClientSession, url: str, *, token: str = "", ca: str = "") -> Query:
    """Return what asks the API at `url`; empty: nobody. token, ca: files, or none.

    They are read each time: both are renewed while we run.
    """
    places = asyncio.Semaphore(AT_ONCE)
    api = f"{url.rstrip('/')}/api/v1/query"

    async def ask(query: str) -> tuple[int, bytes]:
        async with places:
            headers = {"authorization": f"Bearer {_content(token)}"} if token else {}
            trusted = _trusted(ca) if ca else True
            form = {"query": query, "timeout": f"{TIMEOUT_S:.0f}s"}
            async with session.post(
                api,
                data=form,
                headers=headers,
                ssl=trusted,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            ) as answer:
                return answer.status, await body_of(answer, most=MOST_BYTES)

    return ask if url else not_configured


def _content(file: str) -> str:
    token = Path(file).read_bytes().strip()
    if not token or not all(ord("!") <= byte <= ord("~") for byte in token):
        raise OSError("prometheus.tokenSecret of the operator's chart holds no token")
    return token.decode()


def _trusted(file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=file)
    except ssl.SSLError as error:
        raise OSError(
            "prometheus.caConfigMap of the operator's chart holds no certificate"
        ) from error
