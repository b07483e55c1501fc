"""What is printed again whenever it changes: watches of detectors and pods, side by side."""

from __future__ import annotations

import queue
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from yolofleet.api.seen import Raw
from yolofleet.cli.kubectl import Failed, Forbidden, end, events, failure, listen

GATHER_S: Final = 0.2
"""So long what comes together is awaited before it is shown."""

ANEW_S: Final = 30.0
"""So long after a watch began anew nothing comes of it where there is nothing any more."""


@dataclass(slots=True)
class World:
    """The objects of each kind as last received, by namespace and name.

    hidden: kinds that the caller may not see. former: those whose watch began anew, as before it.
    """

    objects: dict[str, dict[tuple[str, str], Raw]] = field(default_factory=dict)
    hidden: dict[str, Forbidden] = field(default_factory=dict)
    former: set[str] = field(default_factory=set)

    def take(self, kind: str, event: Raw) -> None:
        """Take over one event of a watch; the first of one that began anew is of a whole list."""
        if kind in self.former:
            self.forget(kind)
        metadata = event["object"]["metadata"]
        known, key = self.objects.setdefault(kind, {}), (metadata["namespace"], metadata["name"])
        if event["type"] == "DELETED":
            known.pop(key, None)
        elif event["type"] in ("ADDED", "MODIFIED"):
            known[key] = event["object"]

    def forget(self, kind: str) -> None:
        """Forget all of a kind."""
        self.former.discard(kind)
        self.objects[kind] = {}

    def all(self, kind: str) -> list[Raw]:
        """Return the objects of a kind."""
        return list(self.objects.get(kind, {}).values())


REDRAW_S: Final = 10.0
"""So long the same is shown where nothing happens: ages grow."""

Start = Callable[[], "subprocess.Popen[str]"]


class _Mark(Enum):
    ENDED = auto()  # the watch; the API server ends each now and then
    LISTED = auto()  # what there is has come, had it anything in it


_Event = tuple[str, Raw | Failed | _Mark]
"""Of which kind: an event, or what became of its watch."""


def changes(watches: dict[str, Start], optional: frozenset[str]) -> Generator[World, None, None]:
    """Return what there is, again each time it has changed, or grown older. Raises `Failed`.

    optional: kinds that the caller may have no right to see.
    """
    incoming: queue.Queue[_Event] = queue.Queue()
    running: dict[str, subprocess.Popen[str]] = {}
    world = World()
    try:
        for kind, start in watches.items():
            _begin(kind, start, incoming, running)
        while True:
            for kind, news in _together(incoming):
                match news:
                    case Forbidden() if kind in optional:
                        world.hidden[kind] = news
                        world.forget(kind)
                    case Failed():
                        raise news
                    case _Mark.ENDED:
                        world.former.add(kind)
                        _begin(kind, watches[kind], incoming, running)
                        later = threading.Timer(ANEW_S, incoming.put, [(kind, _Mark.LISTED)])
                        later.daemon = True
                        later.start()
                    case _Mark.LISTED:
                        if kind in world.former:
                            world.forget(kind)
                    case _:
                        world.take(kind, news)
            yield world
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def _begin(
    kind: str,
    start: Start,
    incoming: queue.Queue[_Event],
    running: dict[str, subprocess.Popen[str]],
) -> None:
    running[kind] = process = start()

    def pump() -> None:
        for news in _news(process):
            incoming.put((kind, news))

    threading.Thread(target=pump, name=kind, daemon=True).start()


def _news(process: subprocess.Popen[str]) -> Iterator[Raw | Failed | _Mark]:
    """Return the events of a watch, and at last how it ended."""
    complaints = listen(process)
    try:
        for event in events(process):
            if event.get("type") == "ERROR":  # what it goes on from is too old, most often
                yield _Mark.ENDED
                return
            yield event
        yield failure(complaints()) if process.wait() else _Mark.ENDED
    except Failed as error:
        yield error
    finally:
        end(process)


def _together(incoming: queue.Queue[_Event]) -> Iterator[_Event]:
    """Return the next news, and what comes within a moment of it; none where all is quiet."""
    try:
        yield incoming.get(timeout=REDRAW_S)
    except queue.Empty:
        return
    until = time.monotonic() + GATHER_S
    while (left := until - time.monotonic()) > 0:
        try:
            yield incoming.get(timeout=left)
        except queue.Empty:
            return
