"""Looks at each of what is followed whenever it is due, each beside all others."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from math import inf
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(slots=True)
class _Turn(Generic[T]):
    """Whose turn comes. due: when, by the clock; never, while it is looked at."""

    whom: T
    due: float


class Rounds(Generic[T]):
    """Knows by key who is followed; `look` is awaited for each, every `every_s` of it.

    A look that raises is logged, and ends no other. One that takes longer than its interval is
    followed by the next at once, and never has a second beside it.
    """

    def __init__(
        self,
        look: Callable[[str, T], Awaitable[None]],
        every_s: Callable[[T], float],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._every_s = every_s
        self._clock = clock
        self._turns: dict[str, _Turn[T]] = {}
        self._changed = asyncio.Event()

    def get(self, key: str) -> T | None:
        """Return who is followed as `key`."""
        turn = self._turns.get(key)
        return turn.whom if turn else None

    def begin(self, key: str, whom: T) -> None:
        """Follow `whom` from now on, in place of whoever was followed as `key`."""
        self._turns[key] = _Turn(whom, self._clock())
        self._changed.set()

    def end(self, key: str) -> None:
        """Follow nobody as `key`."""
        self._turns.pop(key, None)

    def next_look_s(self) -> float | None:
        """Return in how many seconds somebody is due; None: nobody waits for that."""
        due = min((turn.due for turn in self._turns.values()), default=inf)
        return None if due == inf else max(due - self._clock(), 0.0)

    async def run(self) -> None:
        """Look at whoever is due until cancelled."""
        async with asyncio.TaskGroup() as looks:
            while True:
                self._changed.clear()
                try:
                    async with asyncio.timeout(self.next_look_s()):
                        await self._changed.wait()
                except TimeoutError:
                    for look in self._due():
                        looks.create_task(look)

    async def look_at_due(self) -> None:
        """Look once at each that is due."""
        await asyncio.gather(*self._due())

    def _due(self) -> list[Coroutine[None, None, None]]:
        now = self._clock()
        due = [(key, turn) for key, turn in self._turns.items() if turn.due <= now]
        for _, turn in due:
            turn.due = inf
        return [self._in_peace(key, turn, now) for key, turn in due]

    async def _in_peace(self, key: str, turn: _Turn[T], began: float) -> None:
        try:
            await self._look(key, turn.whom)
        except Exception as error:  # a fault of ours ends no other look, and is seen
            fields = {"key": key, "of": type(turn.whom).__name__}
            logger.error("a look failed", exc_info=error, extra={"fields": fields})
        turn.due = max(began + self._every_s(turn.whom), self._clock())
        self._changed.set()
