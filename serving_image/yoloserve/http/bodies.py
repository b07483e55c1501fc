"""The bodies of requests, bounded in every way: each one's size and time, and the memory of all."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

import orjson
from starlette.requests import Request

from yoloserve.errors import (
    InvalidImage,
    InvalidParameter,
    Overloaded,
    SlowBody,
    TooLarge,
    UnsupportedMediaType,
    UrlRefused,
)
from yoloserve.http.compression import decompressed
from yoloserve.http.forms import all_files, one_file
from yoloserve.http.negotiation import media_type
from yoloserve.settings import Settings

if TYPE_CHECKING:
    from yoloserve.http.fetching import Fetcher

R = TypeVar("R")
MULTIPART = "multipart/form-data"
# Refused unread. Others pass: `curl --data-binary` calls everything a form, and the bytes decide.
NEVER_AN_IMAGE = ("text/",)
JSON = "application/json"
MOST_JSON_BYTES = 16_384  # of {"url": ...}
ONLY_A_URL = (
    'the body must be {"url": "https://..."}: JSON holds no picture here; send one as it is, as '
    "the body or as a file of a form"
)
BODIES_HELD = 8  # of the largest size, by all requests together, before new ones are turned away


class Bodies:
    """Reads bodies, within limits on each one's size and time and on the memory of all."""

    def __init__(
        self,
        max_bytes: int,
        timeout_s: float,
        max_images: int,
        fetcher: "Fetcher | None" = None,
        most_held: int = BODIES_HELD,
    ) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._max_images = max_images
        self._fetcher = fetcher
        self._most_held = most_held * max_bytes
        self.held = 0

    @classmethod
    def within(
        cls, settings: Settings, fetcher: "Fetcher | None", most_held: int = BODIES_HELD
    ) -> Self:
        """Make it as the settings say. most_held: bodies of the largest size, of all together."""
        return cls(
            settings.max_body_bytes,
            settings.body_timeout_seconds,
            settings.max_images,
            fetcher,
            most_held,
        )

    @asynccontextmanager
    async def image_of(self, request: Request) -> AsyncIterator[bytes]:
        """Give the encoded image, from a raw body, a form or an address.

        What is wrong by its headers is refused before anything is read.
        """
        sent = _media_type(request)
        if sent.startswith(NEVER_AN_IMAGE):
            raise UnsupportedMediaType(f"the body is {sent}: send the image itself")
        with self._hold() as held:
            if sent == JSON:
                try:
                    content = await self._read(request, held, _whole, MOST_JSON_BYTES)
                except TooLarge:
                    raise TooLarge(f"{ONLY_A_URL}; this is too long for one") from None
                url = url_in(content)
                encoded = b"".join([held.take(chunk) async for chunk in self._fetched(url)])
            elif sent == MULTIPART:
                [(_, encoded)] = await self._read(request, held, one_file(request))
            else:
                encoded = await self._read(request, held, _whole)
            if not encoded:
                raise InvalidImage("the body is empty: send the image as the body")
            yield encoded

    def _fetched(self, url: str) -> AsyncGenerator[bytes, None]:
        if self._fetcher is None:
            raise UrlRefused("this server fetches no pictures: YOLOSERVE_URL_HOSTS allows no host")
        return self._fetcher.chunks(url, self._max_bytes)

    @asynccontextmanager
    async def images_of(self, request: Request) -> AsyncIterator[list[tuple[str, bytes]]]:
        """Give the files of a form, each with its name."""
        sent = _media_type(request)
        if sent != MULTIPART:
            raise UnsupportedMediaType(f"the body is {sent or 'untyped'}: send a form of files")
        with self._hold() as held:
            yield await self._read(request, held, all_files(request, self._max_images))

    @asynccontextmanager
    async def body_of(self, request: Request) -> AsyncIterator[bytes]:
        """Give the body as it is."""
        with self._hold() as held:
            yield await self._read(request, held, _whole)

    def keep(self, body: bytes) -> Callable[[], None]:
        """Count a body that came by itself, a frame of a stream; returns what lets go of it."""
        try:
            self.take(len(body))
        except Overloaded:
            self.held -= len(body)
            raise
        return partial(self.let_go, len(body))

    def let_go(self, size: int) -> None:
        """Count `size` bytes less."""
        self.held -= size

    @contextmanager
    def _hold(self) -> Iterator["_Held"]:
        held = _Held(self)
        try:
            yield held
        finally:
            self.held -= held.size

    async def _read(
        self,
        request: Request,
        held: "_Held",
        read: Callable[[AsyncGenerator[bytes, None]], Awaitable[R]],
        most: int | None = None,
    ) -> R:
        most = most or self._max_bytes
        declared = request.headers.get("content-length", "")
        if _is_more(declared, most):
            raise TooLarge(f"the body has more than {most} bytes")
        try:
            async with asyncio.timeout(self._timeout_s):
                return await read(_counted_chunks(request, held, most))
        except TimeoutError:
            raise SlowBody(f"the body took longer than {self._timeout_s:g} s") from None

    def take(self, size: int) -> None:
        """Count `size` more bytes; raise `Overloaded` when all bodies together are too much."""
        self.held += size
        if self.held > self._most_held:
            raise Overloaded(f"requests hold {self.held} bytes already")


class _Held:
    """The bytes of one request."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self.size = 0

    def take(self, chunk: bytes) -> bytes:
        self.size += len(chunk)
        self._bodies.take(len(chunk))
        return chunk


async def _counted_chunks(request: Request, held: _Held, most: int) -> AsyncGenerator[bytes, None]:
    """Give a body as it was before it was compressed; each of the two within the limit."""
    chunks = request.stream()
    if encoding := request.headers.get("content-encoding"):
        chunks = decompressed(_at_most(chunks, most), encoding)
    async for chunk in _at_most(chunks, most):
        yield held.take(chunk)


async def _at_most(chunks: AsyncGenerator[bytes, None], most: int) -> AsyncGenerator[bytes, None]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > most:
            raise TooLarge(f"the body has more than {most} bytes")
        yield chunk


def _media_type(request: Request) -> str:
    return media_type(request.headers.get("content-type", ""))


def _is_more(declared: str, most: int) -> bool:
    """Compare by digits first: Python itself refuses to read thousands of them."""
    if not declared.isdecimal():
        return False
    digits = declared.lstrip("0")
    return len(digits) > len(str(most)) or int(digits or 0) > most


async def _whole(chunks: AsyncGenerator[bytes, None]) -> bytes:
    return b"".join([chunk async for chunk in chunks if chunk])  # a single one is not copied


def url_in(body: bytes) -> str:
    """Read `{"url": ...}`."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidParameter(f"the body is not JSON: {error}") from None
    url = request.get("url") if isinstance(request, dict) else None
    if not isinstance(url, str) or len(request) > 1:
        raise InvalidParameter(ONLY_A_URL)
    return url
