"""The parts of a process: tasks that live as long as it does; none ends by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any


class Parts:
    """Starts tasks by name, notices the first that ends, and stops those that are named."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[Any]] = {}

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` from now on."""
        self._tasks[name] = asyncio.create_task(work, name=name)

    async def one_ends(self) -> None:
        """Wait until one of those that run now has ended, for whatever reason."""
        await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)

    def ended(self) -> Mapping[str, BaseException | None]:
        """Return which have ended, and of what; None: of nothing, or because they were stopped."""
        return {
            name: None if task.cancelled() else task.exception()
            for name, task in self._tasks.items()
            if task.done()
        }

    async def stop(self, *names: str) -> None:
        """Stop these, and wait until they are at their end, however they take it."""
        tasks = [self._tasks[name] for name in names]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def stop_all(self) -> None:
        """Stop whatever still runs."""
        await self.stop(*self._tasks)
