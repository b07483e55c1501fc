"""kopf, and only here: the frame of the process, which is start-up, signals and the end.

Nothing is registered for any object: kopf watches nothing and writes nothing, and what the operator
knows comes from its own informer (ADR 1).
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Any, Final

import kopf

_IDENTITY: Final[Any] = "yolofleet"  # kopf keeps the type of it to itself


async def run(start: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]]) -> None:
    """Call `start`; at SIGTERM or SIGINT call `stop`, and return. Raises what `start` raises."""
    registry, failed, told_to_stop = kopf.OperatorRegistry(), list[Exception](), asyncio.Event()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> None:
        # kopf would look which kinds there are, and end the process where that takes a minute: it
        # would be started ever more seldom while no API server answers
        await asyncio.Event().wait()

    logging.getLogger("kopf.activities.authentication").setLevel(logging.ERROR)  # the end of it

    @kopf.on.startup(registry=registry)
    async def started(**_: Any) -> None:
        try:
            await start()
        except Exception as error:  # handed on below: kopf would try again, or wrap it
            failed.append(error)
            raise kopf.PermanentError(str(error)) from error
        for number in (signal.SIGINT, signal.SIGTERM):  # kopf's own fail at a second one
            asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)

    @kopf.on.cleanup(registry=registry)
    async def stopped(**_: Any) -> None:
        await stop()

    settings = kopf.OperatorSettings()
    settings.posting.enabled = False  # we post our own Events, aggregated
    try:
        await kopf.operator(
            registry=registry,
            settings=settings,
            standalone=True,  # our own Lease decides who works; a standby watches too
            identity=_IDENTITY,  # kopf would look up the user, and an image has no name for 65532
            clusterwide=True,
            stop_flag=told_to_stop,
        )
    except Exception:
        if failed:
            raise failed[0] from None
        raise
