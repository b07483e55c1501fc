"""What the API server says in a list or a watch, taken in before kopf reads it.

kopf makes a task with timers for each event, and keeps some 28 KiB for each object that it ever
heard of. It needs neither to do what it is here for: to list, to watch from there, and to begin
anew. So the objects are taken out on the way, and what kopf reads says only how far it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import aiohttp
import orjson

from yolofleet.runtime.objects import Manifest

Take = Callable[[str | None, Manifest], None]
"""Takes in an event: its type (None: the object was listed) and the object."""

PAUSE_AFTER_ERROR_S: Final = 1.0  # the next answer may be the same
AT_ONCE: Final = 20  # events, some milliseconds of work, between two looks at what else is due

_GONE: Final = b'{"type":"ERROR","object":{"kind":"Status","code":410}}\n'


class _Body:
    """The content of an answer, with another way to read it."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    def __getattr__(self, name: str) -> Any:
        """Be the content itself in all else: aiohttp tells it of its end."""
        return getattr(self._content, name)


class ListBody(_Body):
    """A list, whose items are taken out.

    begun: told of the list itself, which may hold nothing: all there was may have been deleted.
    """

    def __init__(
        self, content: aiohttp.StreamReader, take: Take, begun: Callable[[], None]
    ) -> None:
        super().__init__(content)
        self._take = take
        self._begun = begun

    async def read(self) -> bytes:
        """Take in the items; return the list without them."""
        page = orjson.loads(await self._content.read())
        self._begun()
        for number, item in enumerate(page.get("items") or (), start=1):
            self._take(None, item)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        return orjson.dumps(page | {"items": []})


class WatchBody(_Body):
    """The lines of a watch, without what kopf gives up on: half a line, and errors but 410.

    client-go lists anew after any error, and so does kopf after a line with a 410: each becomes
    one, and so does an answer that is a 410 (`expired`). A line that breaks off, or is no JSON, is
    a connection that broke.

    take: takes the events out, and leaves a bookmark where they were. None: they stay.
    """

    def __init__(
        self, content: aiohttp.StreamReader, take: Take | None = None, *, expired: bool = False
    ) -> None:
        super().__init__(content)
        self._take = take
        self._failed = expired

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Return whole lines, as kopf reads them."""
        rest = b""
        if not self._failed:
            async for chunk in self._content.iter_chunked(size):
                whole, _, rest = (rest + chunk).rpartition(b"\n")
                lines = whole.split(b"\n") if whole else []
                left = await self._taken(lines, self._take) if self._take else self._passed(lines)
                if left:
                    yield left
                if self._failed:
                    break
        if self._failed:
            await asyncio.sleep(PAUSE_AFTER_ERROR_S)
            yield _GONE
        elif rest:
            raise aiohttp.ClientPayloadError("the watch broke off in the middle of a line")

    def _passed(self, lines: list[bytes]) -> bytes:
        """Leave the lines as they are, unless one tells of an error."""
        self._failed = any(b'"ERROR"' in line and _event(line)["type"] == "ERROR" for line in lines)
        return b"" if self._failed else b"\n".join((*lines, b""))

    async def _taken(self, lines: list[bytes], take: Take) -> bytes:
        """Take in what the lines say, up to an error; leave a bookmark."""
        version = ""
        for number, line in enumerate(filter(None, lines), start=1):
            event = _event(line)
            if event["type"] == "ERROR":
                self._failed = True
                break
            if event["type"] != "BOOKMARK":
                take(event["type"], event["object"])
            version = event["object"]["metadata"]["resourceVersion"]
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        return _bookmark(version) if version else b""


def _event(line: bytes) -> Manifest:
    try:
        event: Manifest = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise aiohttp.ClientPayloadError(f"the watch said no JSON: {error}") from error
    return event


def _bookmark(version: str) -> bytes:
    bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version}}}
    return orjson.dumps(bookmark, option=orjson.OPT_APPEND_NEWLINE)
