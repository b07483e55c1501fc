"""What a route is handed: the detector, the caller's options, and a body bounded in every way."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Query, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import HTTPConnection

from yoloserve.access import Client
from yoloserve.detector import Detector
from yoloserve.errors import (
    InvalidImage,
    InvalidParameter,
    Overloaded,
    SlowBody,
    TooLarge,
    UnsupportedMediaType,
)
from yoloserve.metrics import Metrics
from yoloserve.postprocess import Options

R = TypeVar("R")
MULTIPART = "multipart/form-data"
FORM_FIELDS = "file", "image"
# Refused unread. Others pass: `curl --data-binary` calls everything a form, and the bytes decide.
NEVER_AN_IMAGE = "application/json", "text/"
LONGEST_DEADLINE_MS = 600_000
BODIES_HELD = 8  # of the largest size, by all requests together, before new ones are turned away


class ClientGone(Exception):
    """The caller hung up; there is nobody to answer."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and until when the answer is of use to them."""

    client: Client
    flow: str  # what takes turns with others: a camera of a client
    asked_deadline: float | None  # on the detector's clock

    def deadline(self, detector: Detector) -> float:
        """Say until when to answer; to be called when the body is there.

        What a caller asks for counts from the arrival of the request's head, as they count it
        themselves. The server's own limit counts from the body's last byte: how long a slow
        network took to bring it is not the server's to promise.
        """
        if self.asked_deadline is not None:
            return self.asked_deadline
        return detector.clock() + detector.deadline_s


# These are `async` although they await nothing: FastAPI would run them on threads otherwise.
async def served(request: Request) -> Detector:
    """Hand over the detector."""
    detector: Detector = request.app.state.detector
    return detector


async def counted(request: Request) -> Metrics:
    """Hand over the metrics."""
    metrics: Metrics = request.app.state.metrics
    return metrics


async def calling(
    request: Request,
    detector: Annotated[Detector, Depends(served)],
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
    """Tell who asks; raise `Overloaded` or `OverQuota` before a byte of the body is read."""
    arrived = detector.clock()
    client: Client = request.scope.get("state", {}).get("client") or Client(
        request.client.host if request.client else ""
    )
    caller = Caller(
        client=client,
        # Where clients are known, none can take another's turns by naming its cameras.
        flow=f"{client.name}/{x_camera_id}" if request.app.state.guarded else x_camera_id,
        asked_deadline=None if x_deadline_ms is None else arrived + x_deadline_ms / 1000,
    )
    detector.admission.check(caller.flow)
    spend(request, client)
    return caller


def spend(request: HTTPConnection, client: Client, images: int = 1) -> None:
    """Count images against a client's quota, if it has one; raise `OverQuota`."""
    state = request.app.state
    per_second = state.quota_per_second if client.per_second is None else client.per_second
    if per_second > 0:
        state.quotas.take(client.name, per_second, images)


async def asked(
    detector: Annotated[Detector, Depends(served)],
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
) -> Options:
    """Read the caller's options, the server's settings being the defaults."""
    given: dict[str, Any] = {
        "confidence": confidence,
        "iou": iou,
        "max_detections": max_detections,
        "classes": None if classes is None else class_indices(classes, detector.info.classes),
    }
    return replace(detector.defaults, **{k: v for k, v in given.items() if v is not None})


def class_indices(wanted: str, known: tuple[str, ...]) -> frozenset[int]:
    """Read "person, 2" as indices; raise `InvalidParameter` for what the model does not have."""
    indices = set()
    for word in (word.strip() for word in wanted.split(",")):
        if word in known:
            indices.add(known.index(word))
        elif word.isdecimal() and int(word) < len(known):
            indices.add(int(word))
        else:
            raise InvalidParameter(f"classes: no class {word!r}; there are {', '.join(known)}")
    return frozenset(indices)


class Bodies:
    """Reads bodies, within limits on each one's size and time and on the memory of all."""

    def __init__(self, max_bytes: int, timeout_s: float) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self.held = 0

    @asynccontextmanager
    async def image_of(self, request: Request) -> AsyncIterator[bytes]:
        """Give the encoded image, from a raw body or a form, and count its bytes while it is used.

        What is wrong by its headers is refused before anything is read.
        """
        media_type = request.headers.get("content-type", "").lower()
        if media_type.startswith(NEVER_AN_IMAGE):
            raise UnsupportedMediaType(f"the body is {media_type}: send the image itself")
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_bytes:
            raise TooLarge(f"the body has {declared} bytes, more than {self._max_bytes}")
        stream = _Counted(self, request)
        try:
            try:
                async with asyncio.timeout(self._timeout_s):
                    if media_type.startswith(MULTIPART):
                        encoded = await _file_in_form(request, stream.chunks(), self._max_bytes)
                    else:
                        encoded = b"".join([chunk async for chunk in stream.chunks()])
            except TimeoutError:
                raise SlowBody(f"the body took longer than {self._timeout_s:g} s") from None
            if not encoded:
                raise InvalidImage("the body is empty: send the image as the body")
            yield encoded
        finally:
            self.held -= stream.size

    def take(self, size: int, of: int) -> None:
        """Count `size` more bytes of a body that now has `of`; raise if either is too much."""
        self.held += size
        if of > self._max_bytes:
            raise TooLarge(f"the body has more than {self._max_bytes} bytes")
        if self.held > BODIES_HELD * self._max_bytes:
            raise Overloaded(f"requests hold {self.held} bytes already")


class _Counted:
    """One body on its way in."""

    def __init__(self, bodies: Bodies, request: Request) -> None:
        self._bodies = bodies
        self._request = request
        self.size = 0

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        async for chunk in self._request.stream():
            self.size += len(chunk)
            self._bodies.take(len(chunk), of=self.size)
            yield chunk


async def _file_in_form(
    request: Request, chunks: AsyncGenerator[bytes, None], max_bytes: int
) -> bytes:
    """Read the one file of a form."""
    parser = MultiPartParser(request.headers, chunks, max_files=1, max_fields=len(FORM_FIELDS))
    parser.spool_max_size = max_bytes  # never to disk: the file system may be read-only
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise InvalidParameter(f"the form cannot be read: {error.message}") from error
    try:
        for field in FORM_FIELDS:
            if isinstance(upload := form.get(field), UploadFile):
                return await upload.read()
    finally:
        await form.close()
    raise InvalidParameter(f"the form has no file in a field {' or '.join(FORM_FIELDS)}")


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
Calling = Annotated[Caller, Depends(calling)]
Asked = Annotated[Options, Depends(asked)]
