"""kopf, and only here: the frame of the process, which is start-up, log-in, signals and the end.

Nothing is registered for any object: kopf watches nothing and writes nothing, and what the operator
knows comes from its own informer (ADR 1).
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import kopf

from yolofleet.runtime.credentials import Credentials

_IDENTITY: Final[Any] = "yolofleet"  # kopf keeps the type of it to itself


async def run(
    credentials: Credentials,
    *,
    namespaces: Sequence[str],
    answered: Callable[[], Awaitable[Any]],
    start: Callable[[], Awaitable[None]],
    stop: Callable[[], Awaitable[None]],
) -> None:
    """Call `start`; at SIGTERM or SIGINT call `stop`, and return. Raises what `start` raises.

    answered: waits until the API server has answered. kopf looks there once which kinds there are,
    and gives up within a minute: the process would end again and again, each time later.
    """
    registry, failed, told_to_stop = kopf.OperatorRegistry(), list[Exception](), asyncio.Event()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:  # which kopf waits for before it asks
        await answered()
        return kopf.AiohttpSession(aiohttp_session=credentials.session(), server=credentials.server)

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
    settings.scanning.disabled = True  # there is nothing to look for
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    try:
        await kopf.operator(
            registry=registry,
            settings=settings,
            standalone=True,  # our own Lease decides who works; a standby watches too
            identity=_IDENTITY,  # kopf would look up the user, and an image has no name for 65532
            clusterwide=not namespaces,
            namespaces=list(namespaces),
            stop_flag=told_to_stop,
        )
    except Exception:
        if failed:
            raise failed[0] from None
        raise
