"""What can go wrong between an operator and its API server: small things, to be put together."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from faults.proxy import Call, Ended, Fault, Instead, Reset, event_line, status_object

Which = Callable[[Call], bool]


def write(number: int) -> Which:
    """Choose the counted write `number`."""
    return lambda call: call.number == number


def any_write(call: Call) -> bool:
    """Choose every write but those of the Lease."""
    return bool(call.number)


def any_call(call: Call) -> bool:
    """Choose every request but those of the Lease: to lose that is a fault of its own."""
    return call.kind != "leases"


def of(kind: str, *verbs: str) -> Which:
    """Choose the requests for `kind` (a plural) with one of `verbs`, or with any."""
    return lambda call: call.kind == kind and (not verbs or call.verb in verbs)


@dataclass(eq=False)
class Strike(Fault):
    """Something that happens to the first `times` requests that `which` chooses."""

    which: Which
    times: int = 1
    struck: int = 0

    def strikes(self, call: Call) -> bool:
        """Return whether `call` is hit; counts it."""
        if self.struck >= self.times or not self.which(call):
            return False
        self.struck += 1
        return True


@dataclass(eq=False)
class CrashBefore(Strike):
    """The operator dies before the request has left."""

    kill: Callable[[], None] = field(kw_only=True)

    async def before(self, call: Call) -> None:  # noqa: D102
        if self.strikes(call):
            self.kill()
            raise Reset


@dataclass(eq=False)
class CrashAfter(Strike):
    """The operator dies when the API server has done it, and before it hears of that."""

    kill: Callable[[], None] = field(kw_only=True)

    async def after(self, call: Call) -> None:  # noqa: D102
        if self.strikes(call):
            self.kill()
            raise Reset


@dataclass(eq=False)
class LostAnswer(Strike):
    """The API server has done it; the operator sees a broken connection, or a 504."""

    status: int = 0

    async def after(self, call: Call) -> None:  # noqa: D102
        if self.strikes(call):
            raise Instead(self.status, "Timeout") if self.status else Reset


@dataclass(eq=False)
class Then(Strike):
    """Something happens elsewhere once the API server has done it; the operator hears of that."""

    act: Callable[[], None] = field(kw_only=True)

    async def after(self, call: Call) -> None:  # noqa: D102
        if self.strikes(call):
            self.act()


@dataclass(eq=False)
class Refused(Strike):
    """A share of the requests is answered with `status` and never reaches the API server."""

    times: int = 1_000_000
    status: int = field(kw_only=True)
    share: float = 1.0
    headers: dict[str, str] = field(default_factory=dict)
    dice: random.Random = field(default_factory=lambda: random.Random(0))

    async def before(self, call: Call) -> None:  # noqa: D102
        if self.which(call) and self.dice.random() < self.share and self.strikes(call):
            raise Instead(self.status, "Injected", self.headers)


@dataclass(eq=False)
class Forgotten(Strike):
    """A watch is told, as an API server tells it, that the version it asks for is forgotten."""

    async def before(self, call: Call) -> None:  # noqa: D102
        if self.strikes(call):
            raise Instead(200, line=event_line("ERROR", status_object(410, "Expired")))


@dataclass(eq=False)
class Held(Strike):
    """Requests wait on their way to the API server until `release`."""

    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def before(self, call: Call) -> None:  # noqa: D102
        if self.strikes(call):
            await self.released.wait()

    def release(self) -> None:
        """Let them go on."""
        self.released.set()


@dataclass(eq=False)
class HeldLines(Fault):
    """What a watch tells waits until `release`, and then comes all at once."""

    which: Which
    lines: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def line(self, call: Call, line: bytes) -> bytes:  # noqa: D102
        if self.which(call) and not self.released.is_set():
            self.lines += 1
            await self.released.wait()
        return line

    def release(self) -> None:
        """Let them go on."""
        self.released.set()


@dataclass(eq=False)
class Truncated(Fault):
    """The next line of a watch breaks off in its middle, and with it the stream."""

    kind: str
    struck: int = 0

    async def line(self, call: Call, line: bytes) -> bytes:  # noqa: D102
        if call.kind == self.kind and not self.struck:
            self.struck += 1
            raise Ended(line[: len(line) // 2])
        return line


@dataclass(eq=False)
class SmallPages(Fault):
    """Lists come in pages of few items, so that a short list has a rest to be forgotten."""

    size: int

    async def before(self, call: Call) -> None:  # noqa: D102
        if call.verb == "list" and "limit" in call.query:
            call.query = {**call.query, "limit": str(self.size)}
