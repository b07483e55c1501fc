"""What a route is handed: the detector, the caller's options, and a body bounded in every way."""

import asyncio
import difflib
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
)
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import parse_qsl

import orjson
from fastapi import Depends, Header, Query, Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import HTTPConnection

from yoloserve.access.credentials import Client
from yoloserve.detections.postprocess import Options
from yoloserve.detector import Detector
from yoloserve.errors import (
    Blind,
    InvalidImage,
    InvalidParameter,
    Overloaded,
    SlowBody,
    TooLarge,
    UnsupportedMediaType,
    UrlRefused,
)
from yoloserve.http.compression import decompressed
from yoloserve.http.negotiation import media_type
from yoloserve.scheduling.admission import Flow
from yoloserve.scheduling.connections import network_of
from yoloserve.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from yoloserve.http.fetching import Fetcher

R = TypeVar("R")
MULTIPART = "multipart/form-data"
FORM_FIELDS = "file", "image"
# Refused unread. Others pass: `curl --data-binary` calls everything a form, and the bytes decide.
NEVER_AN_IMAGE = ("text/",)
JSON = "application/json"
MOST_JSON_BYTES = 16_384  # of {"url": ...}
ONLY_A_URL = (
    'the body must be {"url": "https://..."}: JSON holds no picture here; send one as it is, as '
    "the body or as a file of a form"
)
MOST_IN_MEMORY = 2**40
OPTIONS = frozenset({"confidence", "iou", "classes", "max_detections", "agnostic_nms"})
LEAST_LIKENESS = 0.5  # "conf" is like "confidence"
LONGEST_DEADLINE_MS = 600_000
BODIES_HELD = 8  # of the largest size, by all requests together, before new ones are turned away


class ClientGone(Exception):
    """The caller hung up; there is nobody to answer."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and until when the answer is of use to them."""

    client: Client
    flow: Flow  # what takes turns with others
    arrived: float  # on the detector's clock
    asked_s: float | None  # how long an answer is of use

    def with_camera(self, camera: str) -> "Caller":
        """Say which of the client's cameras it is."""
        return replace(self, flow=self.flow._replace(camera=camera))

    def deadline(self, detector: Detector, images: int = 1) -> float:
        """Say until when to answer; to be called when the body, of so many images, is there.

        What a caller asks for counts from the arrival of the request's head, as they count it
        themselves. The server's own limit counts from the body's last byte: how long a slow
        network took to bring it is not the server's to promise.
        """
        if self.asked_s is not None:
            return self.arrived + self.asked_s
        return detector.clock() + detector.deadline_s * images


# These are `async` although they await nothing: FastAPI would run them on threads otherwise.
# Where each request passes, what needs no reading comes from the application's state: FastAPI takes
# 30 us for each that it hands over.
async def served(request: HTTPConnection) -> Detector:
    """Hand over the detector."""
    detector: Detector = request.app.state.detector
    return detector


async def counted(request: HTTPConnection) -> Metrics:
    """Hand over the metrics."""
    metrics: Metrics = request.app.state.metrics
    return metrics


async def named(
    request: HTTPConnection,
    x_deadline_ms: Annotated[
        float | None,
        Header(
            gt=0,
            le=LONGEST_DEADLINE_MS,
            allow_inf_nan=False,
            description="The answer is of no use later than so many milliseconds from now: it is "
            "refused then, as early as that is known. Default: the server's, from the last byte "
            "of the body.",
        ),
    ] = None,
    x_camera_id: Annotated[
        str,
        Header(
            max_length=128,
            description="Whose picture it is. Cameras take turns, and a place is kept for each: "
            "one that sends too much does not displace the others.",
        ),
    ] = "",
) -> Caller:
    """Tell who asks."""
    client: Client = request.scope.get("state", {}).get("client") or Client(
        network_of(request.client.host) if request.client else ""
    )
    caller = Caller(
        client=client,
        flow=Flow(client.name),  # by its address where clients have no names
        arrived=request.app.state.detector.clock(),
        asked_s=None if x_deadline_ms is None else x_deadline_ms / 1000,
    )
    return caller.with_camera(x_camera_id)


async def calling(request: Request, caller: Annotated[Caller, Depends(named)]) -> Caller:
    """Let the caller in; raise `Overloaded` or `OverQuota` before a byte of the body is read."""
    refuse_if_blind(request)
    spend(request, caller.client)  # first: who may not ask has nothing to do with places
    request.app.state.detector.admission.check(caller.flow)
    return caller


def refuse_if_blind(request: HTTPConnection) -> None:
    """Raise `Blind` while the network does not see: no boxes would be a lie."""
    if request.app.state.watch.blind:
        raise Blind("the network's answer to a known picture is not what it was")


def spend(request: HTTPConnection, client: Client, images: int = 1) -> None:
    """Count images against a client's quota, if it has one; raise `OverQuota`."""
    state = request.app.state
    per_second = state.quota_per_second if client.per_second is None else client.per_second
    if per_second > 0:
        state.quotas.take(client.name, per_second, images)


async def asked(
    request: HTTPConnection,
    confidence: Annotated[
        float | None,
        Query(ge=0, le=1, description="Only detections surer than this; default: the server's."),
    ] = None,
    iou: Annotated[
        float | None,
        Query(ge=0, le=1, description="Boxes of one class that overlap more are one object."),
    ] = None,
    classes: Annotated[
        str | None,
        Query(description="Only these classes: names or indices, separated by commas."),
    ] = None,
    max_detections: Annotated[
        int | None, Query(ge=1, le=10_000, description="At most so many, the surest first.")
    ] = None,
    agnostic_nms: Annotated[
        bool | None,
        Query(
            description="Boxes that overlap more than `iou` are one object whatever their class."
        ),
    ] = None,
) -> Options:
    """Read the caller's options, the server's settings being the defaults."""
    detector: Detector = request.app.state.detector
    return option_of(
        detector,
        confidence=confidence,
        iou=iou,
        max_detections=max_detections,
        agnostic_nms=agnostic_nms,
        classes=None if classes is None else class_indices(classes, detector.info.classes),
    )


def option_of(detector: Detector, **given: Any) -> Options:
    """Take what was given; the rest is the server's."""
    return replace(detector.defaults, **{k: v for k, v in given.items() if v is not None})


def refuse_unknown(given: Iterable[str], known: Collection[str], kind: str) -> None:
    """Raise `InvalidParameter` for a name that means nothing here, and say what is near it.

    An option that is passed over is worse than a refusal: its caller believes that it holds.
    """
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name.lower(), known, 1, LEAST_LIKENESS)
            hint = f"did you mean {near[0]}? There are" if near else "there are"
            raise InvalidParameter(
                f"{name[:100]!r} is no {kind} here; {hint} {', '.join(sorted(known))}"
            )


def refuse_unknown_query(query: bytes, known: Collection[str]) -> None:
    """Raise `InvalidParameter` for parameters of a query that are unknown, or given twice."""
    names = [name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)]
    refuse_unknown(names, known, "query parameter")
    if len(names) > len(set(names)):
        doubled = next(name for name in names if names.count(name) > 1)
        raise InvalidParameter(f"{doubled}: given {names.count(doubled)} times; once is meant")


def class_indices(wanted: str, known: tuple[str, ...]) -> frozenset[int]:
    """Read "person, 2" as indices; raise `InvalidParameter` for what the model does not have.

    A name may have commas in it: the longest that fits is meant.
    """
    words, indices = [word.strip() for word in wanted.split(",")], set[int]()
    longest = 1 + max((name.count(",") for name in known), default=0)
    while words:
        for count in range(min(longest, len(words)), 0, -1):
            name = ", ".join(words[:count])
            # All of them, where a model has two of one name.
            if named := [index for index, each in enumerate(known) if _spaced(each) == name]:
                break
        else:
            count, word = 1, words[0]
            if not (word.isdecimal() and int(word) < len(known)):
                raise InvalidParameter(
                    f"classes: no class {word[:100]!r}; there are {', '.join(known)}"
                )
            named = [int(word)]
        indices.update(named)
        del words[:count]
    return frozenset(indices)


def _spaced(name: str) -> str:
    return ", ".join(part.strip() for part in name.split(","))


class Bodies:
    """Reads bodies, within limits on each one's size and time and on the memory of all."""

    def __init__(
        self, max_bytes: int, timeout_s: float, max_images: int, fetcher: "Fetcher | None" = None
    ) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._max_images = max_images
        self._fetcher = fetcher
        self.held = 0

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
                    told = await self._read(request, held, _whole, MOST_JSON_BYTES)
                except TooLarge:
                    raise TooLarge(f"{ONLY_A_URL}; this is too long for one") from None
                url = url_in(told)
                encoded = b"".join([held.take(chunk) async for chunk in self._fetched(url)])
            elif sent == MULTIPART:
                [(_, encoded)] = await self._read(request, held, _one_file(request))
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
            yield await self._read(request, held, _all_files(request, self._max_images))

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
        if declared.isdecimal() and int(declared) > most:
            raise TooLarge(f"the body has {declared} bytes, more than {most}")
        try:
            async with asyncio.timeout(self._timeout_s):
                return await read(_counted_chunks(request, held, most))
        except TimeoutError:
            raise SlowBody(f"the body took longer than {self._timeout_s:g} s") from None

    def take(self, size: int) -> None:
        """Count `size` more bytes; raise `Overloaded` when all bodies together are too much."""
        self.held += size
        if self.held > BODIES_HELD * self._max_bytes:
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
    encoding = request.headers.get("content-encoding", "")
    async for chunk in _at_most(decompressed(_at_most(request.stream(), most), encoding), most):
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


async def _whole(chunks: AsyncGenerator[bytes, None]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


Files = list[tuple[str, bytes]]
ReadsFiles = Callable[[AsyncGenerator[bytes, None]], Awaitable[Files]]


def _one_file(request: Request) -> ReadsFiles:
    """Read the one file of a form."""

    async def read(chunks: AsyncGenerator[bytes, None]) -> Files:
        files = await _files(request, chunks, 1, FORM_FIELDS)
        if not files:
            raise InvalidParameter(f"the form has no file in a field {' or '.join(FORM_FIELDS)}")
        return files[:1]

    return read


def _all_files(request: Request, most: int) -> ReadsFiles:
    """Read every file of a form, whatever its field is called."""

    async def read(chunks: AsyncGenerator[bytes, None]) -> Files:
        files = await _files(request, chunks, most, ())
        if not files:
            raise InvalidParameter("the form has no file: send each image as a file of it")
        return files

    return read


class _FormOfFiles(MultiPartParser):
    """Takes parts for files also without `filename`, which is optional (RFC 7578, 4.2)."""

    known: Collection[str] = ()  # names that fields may have; none: any, if it is a file

    def on_headers_finished(self) -> None:
        """Refuse a field that is no picture by its name, before its content is read."""
        part = self._current_part
        _, told = parse_options_header(part.content_disposition)
        name = told.get(b"name", b"").decode("utf-8", "replace")
        typed = any(field == b"content-type" for field, _ in part.item_headers)
        is_file = b"filename" in told or typed or name in FORM_FIELDS
        if name in OPTIONS:
            raise InvalidParameter(f"{name}: a form holds pictures; say ?{name}=... in the address")
        if self.known or not is_file:
            refuse_unknown([name], self.known or FORM_FIELDS, "field of a form")
        if b"filename" not in told:
            part.content_disposition = (part.content_disposition or b"") + b'; filename=""'
        super().on_headers_finished()


async def _files(
    request: Request, chunks: AsyncGenerator[bytes, None], most: int, fields: Collection[str]
) -> Files:
    parser = _FormOfFiles(request.headers, chunks, max_files=most, max_fields=0)
    parser.known = fields
    parser.spool_max_size = MOST_IN_MEMORY  # never to disk: the file system may be read-only
    try:
        form = await parser.parse()
        return [
            (value.filename or name, await value.read())
            for name, value in form.multi_items()
            if isinstance(value, UploadFile)
        ]
    except MultiPartException as error:
        raise InvalidParameter(f"the form cannot be read: {error.message}") from error
    finally:
        for file in parser._files_to_close_on_error:  # the form does not know those that are cut
            file.close()


def url_in(body: bytes) -> str:
    """Read `{"url": ...}`."""
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidParameter(f"the body is not JSON: {error}") from None
    url = told.get("url") if isinstance(told, dict) else None
    if not isinstance(url, str) or len(told) > 1:
        raise InvalidParameter(ONLY_A_URL)
    return url


async def while_connected(request: Request, work: Coroutine[Any, Any, R]) -> R:
    """Await `work`, but give it up when the caller hangs up; then raise `ClientGone`.

    To be used after the body was read: what comes next from the client can only be its end.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.wait((task, gone))


Served = Annotated[Detector, Depends(served)]
Counted = Annotated[Metrics, Depends(counted)]
Named = Annotated[Caller, Depends(named)]
Calling = Annotated[Caller, Depends(calling)]
Asked = Annotated[Options, Depends(asked)]
