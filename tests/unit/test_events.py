"""Events: the same words once in ten minutes, and not too many about one object."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from yolofleet.api.names import MANAGER
from yolofleet.runtime.client import Client, Request
from yolofleet.runtime.errors import Forbidden, NotFound
from yolofleet.runtime.events import BURST, WINDOW_S, Events

RAW = {
    "apiVersion": "yolofleet.io/v1alpha1",
    "kind": "YoloDetector",
    "metadata": {"name": "gate", "namespace": "shop", "uid": "u"},
}


class Server:
    """Takes requests, and refuses as told."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.refusals: Iterator[Exception | None] = iter(())

    async def send(self, request: Request) -> dict[str, Any]:
        self.requests.append(request)
        if error := next(self.refusals, None):
            raise error
        return {}


class World:
    def __init__(self) -> None:
        self.now = 1000.0
        self.server = Server()
        self.events = Events(
            cast(Client, self.server),
            instance="test",
            manager=MANAGER,
            clock=lambda: self.now,
            now=lambda: datetime.fromtimestamp(self.now, UTC),
        )

    async def say(self, message: str = "it is so") -> None:
        await self.events.emit(RAW, "Normal", "Reason", message)

    async def posted(self) -> list[Request]:
        """Post what waits, and return what was sent."""
        running = asyncio.create_task(self.events.run())
        await self.events.posted()
        running.cancel()
        sent, self.server.requests = self.server.requests, []
        return sent


@pytest.fixture
def world() -> World:
    return World()


async def test_an_event_names_its_object_and_is_made_once(world: World) -> None:
    for _ in range(5):
        await world.say()
    (request,) = await world.posted()
    assert request.method == "POST"
    assert request.body["involvedObject"]["uid"] == "u"
    assert request.body["message"] == "it is so"
    assert request.body["source"]["component"] == "yolofleet"


async def test_after_ten_minutes_the_same_words_are_counted_on_the_same_event(
    world: World,
) -> None:
    await world.say()
    (made,) = await world.posted()
    for _ in range(3):
        world.now += WINDOW_S / 3
        await world.say()
    (counted,) = await world.posted()
    assert counted.method == "PATCH"
    assert counted.path.endswith(made.body["metadata"]["name"])
    assert {"op": "replace", "path": "/count", "value": 4} in counted.body


async def test_an_event_that_expired_is_made_again(world: World) -> None:
    await world.say()
    await world.posted()
    world.now += WINDOW_S
    await world.say()
    world.server.refusals = iter([NotFound("gone after an hour")])
    assert [request.method for request in await world.posted()] == ["PATCH", "POST"]


async def test_other_words_are_another_event_up_to_a_limit(world: World) -> None:
    for number in range(BURST + 10):
        await world.say(f"attempt {number}")
    assert len(await world.posted()) == BURST
    world.now += WINDOW_S
    await world.say("a new window")
    assert len(await world.posted()) == 1


async def test_an_event_that_cannot_be_posted_is_dropped_with_a_log_line(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    world.server.refusals = iter([Forbidden("events may not be created")])
    await world.say()
    await world.posted()
    assert "event not posted" in caplog.messages
