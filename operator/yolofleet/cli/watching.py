"""What is printed again whenever it changes: watches of detectors and pods, side by side."""

from __future__ import annotations

import queue
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Final

from yolofleet.api.seen import Raw
from yolofleet.cli.kubectl import Failed, Forbidden, events, failure

GATHER_S: Final = 0.2
"""So long what comes together is awaited before it is shown."""


@dataclass(slots=True)
class World:
    """The objects of each kind as last received, by namespace and name."""

    objects: dict[str, dict[tuple[str, str], Raw]] = field(default_factory=dict)

    def take(self, kind: str, event: Raw) -> None:
        """Take over one event of a watch."""
        metadata = event["object"]["metadata"]
        known, key = self.objects.setdefault(kind, {}), (metadata["namespace"], metadata["name"])
        if event["type"] == "DELETED":
            known.pop(key, None)
        elif event["type"] in ("ADDED", "MODIFIED"):
            known[key] = event["object"]

    def forget(self, kind: str) -> None:
        """Forget all of a kind: its watch begins anew, with all that there is."""
        self.objects[kind] = {}

    def all(self, kind: str) -> list[Raw]:
        """Return the objects of a kind."""
        return list(self.objects.get(kind, {}).values())


Start = Callable[[], "subprocess.Popen[str]"]
_Event = tuple[str, Raw | Failed | None]
"""Of which kind: an event, the end of its watch (None), or why there is no other."""


def changes(watches: dict[str, Start], optional: frozenset[str]) -> Generator[World, None, None]:
    """Return what there is, again each time it has changed. Raises `Failed`.

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
                if isinstance(news, Forbidden) and kind in optional:
                    continue
                if isinstance(news, Failed):
                    raise news
                if news is not None:
                    world.take(kind, news)
                else:
                    world.forget(kind)
                    _begin(kind, watches[kind], incoming, running)
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
        for event in events(process):
            incoming.put((kind, event))
        err = process.stderr.read() if process.stderr else ""
        incoming.put((kind, failure(err) if process.wait() else None))

    threading.Thread(target=pump, name=kind, daemon=True).start()


def _together(incoming: queue.Queue[_Event]) -> Iterator[_Event]:
    """Return the next news, and what comes within a moment of it."""
    yield incoming.get()
    until = time.monotonic() + GATHER_S
    while (left := until - time.monotonic()) > 0:
        try:
            yield incoming.get(timeout=left)
        except queue.Empty:
            return
