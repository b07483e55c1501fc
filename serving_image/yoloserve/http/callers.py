"""Who asks: until when an answer is of use to them, and whether they are still there."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import Scope

from yoloserve.access.clients import Client
from yoloserve.detector import Detector
from yoloserve.http.replies import V2
from yoloserve.scheduling.admission import Flow
from yoloserve.telemetry.traffic import Traffic

R = TypeVar("R")
TRAFFIC = "traffic"  # in the state of a scope, where it is another than a caller's
HURRIED = "hurried"  # there too, True where the caller's own deadline ends before the server's
OF_LATE = 16  # requests, of which the mean is taken
IMAGES = "images"  # and there, once they are known, how many pictures the request has


class ClientGone(Exception):
    """The caller hung up; there is nobody to answer."""


class Deadline(NamedTuple):
    """Until when to answer, on the detector's clock."""

    at: float
    hurried: bool = False  # the caller's own, and sooner than the server promises

    @classmethod
    def asked(cls, at: float, own: float) -> "Deadline":
        """Take the caller's word. own: until when the server answers by itself."""
        return cls(at, at < own)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and until when the answer is of use to them."""

    client: Client
    flow: Flow  # what takes turns with others
    arrived: float  # on the detector's clock
    asked_s: float | None  # how long an answer is of use
    traffic: Traffic = Traffic.REQUEST
    stamped: bool = False  # a gateway said when the request arrived: there, not here

    def with_camera(self, camera: str) -> "Caller":
        """Say which of the client's cameras it is."""
        return replace(self, flow=self.flow._replace(camera=camera))

    def deadline(
        self, detector: Detector, images: int = 1, *, asked_s: float | None = None
    ) -> "Deadline":
        """Say until when to answer; to be called when the body, of so many images, is there.

        What a caller asks for counts from the arrival of the request's head, as they count it
        themselves. The server's own limit counts from the body's last byte: how long a slow
        network took to bring it is not the server's to promise. A gateway's stamp is from before
        the body, and before whatever queue is between: what is stamped counts from there.

        asked_s: what the body asks for; it goes before what the head does.
        """
        own = self.arrived if self.stamped else detector.clock()
        own += detector.deadline_s * images
        asked_s = self.asked_s if asked_s is None else asked_s
        return Deadline(own) if asked_s is None else Deadline.asked(self.arrived + asked_s, own)


def traffic_of(scope: Scope) -> Traffic:
    """Say what a request is counted as, whether it got as far as a route or not."""
    traffic: Traffic = scope.get("state", {}).get(TRAFFIC, Traffic.REQUEST)
    return traffic


def is_hurried(scope: Scope) -> bool:
    """Say whether the caller wants the answer earlier than the server promises one."""
    return bool(scope.get("state", {}).get(HURRIED))


class Sizes:
    """How many pictures a request has, or is likely to have: as many as those before it.

    When the server is full, or blind, a request is refused before its body is read. Was it one, as
    answered ones are sixteen, half of all refused would read as six in a hundred.
    """

    def __init__(self) -> None:
        self._lately: dict[str, float] = {}

    def counted(self, scope: Scope, images: int) -> int:
        """Remember how many a request has, and return it."""
        before = self._lately.setdefault(_way(scope), images)
        self._lately[_way(scope)] = before + (images - before) / OF_LATE
        scope.setdefault("state", {})[IMAGES] = images
        return images

    def of(self, scope: Scope) -> int:
        """Count the pictures of a request; else as many as came that way lately, 1 if none did."""
        images: int | None = scope.get("state", {}).get(IMAGES)
        return images or round(self._lately.get(_way(scope), 1))


def _way(scope: Scope) -> str:
    """Return by which way it came. Of all models' names by the inference protocol one: few."""
    path: str = scope["path"]
    return V2 if path.startswith(V2) else path


def sizes_of(app: Starlette) -> Sizes:
    """Return what an application knows of how many pictures come together."""
    sizes: Sizes = app.state.sizes
    return sizes


def images_in(scope: Scope) -> int:
    """Count the pictures of a request; those that nobody has counted yet by those before it."""
    return sizes_of(scope["app"]).of(scope)


async def while_connected(request: Request, work: Coroutine[Any, Any, R]) -> R:
    """Await `work`, but give it up when the caller hangs up; then raise `ClientGone`.

    To be used after the body was read: what comes next from the client can only be its end.
    """
    asking = asyncio.current_task()
    assert asking
    awaited, gone = True, False

    def hung_up(_: object) -> None:
        nonlocal gone
        if awaited:
            gone = asking.cancel()

    hears = asyncio.ensure_future(request.receive())
    hears.add_done_callback(hung_up)
    try:
        return await work
    except (Exception, asyncio.CancelledError):
        if gone and asking.cancelling() == 1:  # nobody else wants an end of it
            raise ClientGone from None
        raise
    finally:
        awaited = False
        hears.cancel()
        if gone:
            asking.uncancel()
