"""What may go wrong between the operator and the API server in memory: small, to be put together.

Writes are numbered from 1, from `World.begin` on. A fault looks at each request twice: before it is
done, and after that, before the operator hears of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from memory_cluster.server import Answer, status
from yolofleet.runtime.client import Request


@dataclass(frozen=True)
class Call:
    """One request of the operator. number: 0 for a read."""

    number: int
    request: Request
    kind: str
    name: str

    @property
    def subresource(self) -> str:
        """What of the object is written, if not all."""
        return self.request.path.rpartition(self.name + "/")[2] if self.name else ""

    def __str__(self) -> str:
        verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
        return f"{verb.get(self.request.method, 'read')} {self.kind}/{self.name}"


class Crashed(BaseException):
    """The operator's process has ended: nothing of it goes on."""


class Lost(Exception):
    """The connection broke: nobody knows whether the request was done."""


Which = Callable[[Call], bool]


def write(number: int) -> Which:
    """Choose the write `number`."""
    return lambda call: call.number == number


def writes_of(kind: str) -> Which:
    """Choose every write of objects of `kind` (a plural), but not of their status."""
    return lambda call: bool(call.number) and call.kind == kind and not _of_status(call)


def _of_status(call: Call) -> bool:
    return call.request.path.endswith("/status")


@dataclass
class Fault:
    """Happens to the first `times` requests that `which` chooses; this one does nothing."""

    which: Which
    times: int = 1
    struck: int = 0

    def strikes(self, call: Call) -> bool:
        """Return whether `call` is hit; counts it."""
        if self.struck >= self.times or not self.which(call):
            return False
        self.struck += 1
        return True

    async def before(self, _call: Call) -> Answer | None:
        """Act before a call is done; return an answer to have it never done."""

    async def after(self, _call: Call, answer: Answer) -> Answer:
        """Act once a call is done; return what the operator is told."""
        return answer


ALWAYS: Final = 1_000_000


@dataclass
class Refused(Fault):
    """It is not done, and the answer says why."""

    code: int = 403
    message: str = 'admission webhook "policy.example.com" denied the request: not on a Sunday'

    async def before(self, _call: Call) -> Answer | None:  # noqa: D102
        if self.strikes(_call):
            return Answer(self.code, status(self.code, "Injected", self.message))
        return None


@dataclass
class FailedAfter(Fault):
    """It is done, and the answer says that the server failed."""

    code: int = 504

    async def after(self, _call: Call, answer: Answer) -> Answer:  # noqa: D102
        if self.strikes(_call):
            return Answer(
                self.code, status(self.code, "Timeout", "the server was not able to answer")
            )
        return answer


@dataclass
class LostBefore(Fault):
    """The connection breaks before the request arrives."""

    async def before(self, _call: Call) -> Answer | None:  # noqa: D102
        if self.strikes(_call):
            raise Lost("connection reset by peer")
        return None


@dataclass
class LostAfter(Fault):
    """The connection breaks before the answer arrives."""

    async def after(self, _call: Call, answer: Answer) -> Answer:  # noqa: D102
        if self.strikes(_call):
            raise Lost("connection reset by peer")
        return answer


@dataclass
class CrashBefore(Fault):
    """The operator dies before the request has left."""

    async def before(self, _call: Call) -> Answer | None:  # noqa: D102
        if self.strikes(_call):
            raise Crashed
        return None


@dataclass
class CrashAfter(Fault):
    """The operator dies when it is done, and before it hears of that."""

    async def after(self, _call: Call, answer: Answer) -> Answer:  # noqa: D102
        if self.strikes(_call):
            raise Crashed
        return answer


@dataclass
class Slow(Fault):
    """The world goes on while the request is on its way there."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def before(self, _call: Call) -> Answer | None:  # noqa: D102
        if self.strikes(_call) and self.meanwhile:
            await self.meanwhile()
        return None


@dataclass
class SlowAnswer(Fault):
    """The world goes on while the answer is on its way back."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def after(self, _call: Call, answer: Answer) -> Answer:  # noqa: D102
        if self.strikes(_call) and self.meanwhile:
            await self.meanwhile()
        return answer


@dataclass
class Then(Fault):
    """Something else happens once it is done."""

    act: Callable[[Call], None] = lambda _call: None

    async def after(self, _call: Call, answer: Answer) -> Answer:  # noqa: D102
        if self.strikes(_call):
            self.act(_call)
        return answer


@dataclass
class Hangs(Fault):
    """A webhook does not answer, which the API server says after so long."""

    wait: Callable[[], None] = lambda: None

    async def before(self, call: Call) -> Answer | None:  # noqa: D102
        if not self.strikes(call):
            return None
        self.wait()
        return Answer(
            500, status(500, "InternalError", "failed calling webhook: deadline exceeded")
        )
