"""Whether the process is well, in words: what the probes say, and what ended it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from yolofleet.metrics import Metrics
from yolofleet.runtime.errors import NotLeading
from yolofleet.runtime.leader import LeadershipLost
from yolofleet.runtime.parts import Parts
from yolofleet.runtime.queue import WorkQueue
from yolofleet.runtime.watch_health import WatchHealth

logger = logging.getLogger(__name__)


class Health:
    """Asks the parts of the process how they are."""

    def __init__(
        self, parts: Parts, metrics: Metrics, queue: WorkQueue[Any], watches: WatchHealth
    ) -> None:
        self._parts = parts
        self._metrics = metrics
        self._queue = queue
        self._watches = watches
        self.warm = asyncio.Event()  # the first lists are complete
        self.ending = False

    def ails(self) -> str:
        """Say what a restart would put right. An API server that is away is not among it."""
        if self.ending:
            return ""
        ended = self._parts.ended()
        ails = [
            f"ended: {', '.join(ended)}" if ended else "",
            self._metrics.late(),
            self._queue.stuck(),
            self._watches.failing(),
        ]
        return "; ".join(filter(None, ails))

    def unready(self) -> str:
        """Say why it does not work yet, or not any more."""
        if self.ending:
            return "ending"
        if not self.warm.is_set():
            return "the first lists are not complete"
        return self.ails() or self._watches.unopened()

    def leadership_lost(self) -> bool:
        """Log what ended; return whether it was the leadership."""
        lost = False
        for name, error in self._parts.ended().items():
            fields = {"fields": {"part": name}}
            if _is_loss(error):
                lost = True
                logger.error("leadership lost; exiting", extra=fields)
            else:
                logger.critical("a part ended; exiting", exc_info=error, extra=fields)
        return lost


def _is_loss(error: BaseException | None) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(lambda one: isinstance(one, NotLeading)) is not None
    return isinstance(error, LeadershipLost | NotLeading)
