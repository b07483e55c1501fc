"""A front and its engine in one process: what they say goes over no socket, but is written."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from yoloserve.fronts import wire
from yoloserve.fronts.application import Application
from yoloserve.fronts.engine_side import Session, routes_of, welcome
from yoloserve.fronts.slots import Memory, Slots, bytes_of
from yoloserve.http.serving import engine_serving_of


def carried(decoder: Any, take: Callable[[Any], None]) -> Callable[[Any], None]:
    """Write each message, and have it read in the next turn of the loop."""
    frames = wire.Frames(decoder, wire.MOST_ANSWERED_BYTES)
    loop = asyncio.get_running_loop()

    def carry(message: Any) -> None:
        loop.call_soon(frames.feed, wire.frame(message), take)

    return carry


@asynccontextmanager
async def front_of(app: FastAPI, clock: Callable[[], float]) -> AsyncIterator[Application]:
    """Give a front of the server that `app` is."""
    engine = engine_serving_of(app)
    slots = Slots(engine.core.most, bytes_of(engine.core.info.input_size))
    session = Session(engine, app, slots, routes_of(app))
    memory = Memory(slots.descriptor, slots.count, slots.slot_bytes)
    front = Application(engine.settings, welcome(engine, slots, fronts=1, threads=2), memory, clock)
    front.asking.say = carried(wire.ASKED, session.received)
    say, told = carried(wire.SAID, front.hear), wire.State()

    def send(said: wire.Said) -> None:
        """Say what is new of the server before anything else, where a server of its own waits."""
        nonlocal told
        if told != (told := wire.State(engine.status(), engine.draining, roomy=False)):
            say(told)
        say(said)

    session.send = send
    async with front.app.router.lifespan_context(front.app):
        try:
            yield front
        finally:
            session.end()
            slots.close()
