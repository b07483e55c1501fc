"""List and watch over real HTTP: nothing is missed, whatever the server does to a watch."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from controlplane.kube import eventually
from yolofleet.cluster import kinds
from yolofleet.runtime import client as requests
from yolofleet.runtime import reflector
from yolofleet.runtime.client import METADATA, Client
from yolofleet.runtime.credentials import Credentials
from yolofleet.runtime.reflector import Reflector

Script = Callable[[web.StreamResponse], Awaitable[None]]


def line(type: str, name: str, version: int) -> bytes:
    metadata = {"name": name, "resourceVersion": str(version)}
    return orjson.dumps({"type": type, "object": {"metadata": metadata}}) + b"\n"


ERROR = b'{"type":"ERROR","object":{"code":500,"message":"broken"}}\n'


class Server:
    """Answers each watch by the next of `answers`; the last one stays open and says nothing."""

    def __init__(self) -> None:
        self.answers: list[bytes | int] = []
        self.asked: list[dict[str, str]] = []
        self.accepted: list[str] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.query))
        self.accepted.append(request.headers["Accept"])
        answer = self.answers.pop(0) if self.answers else b""
        if isinstance(answer, int):
            return web.json_response({"message": f"code {answer}"}, status=answer)
        response = web.StreamResponse()
        await response.prepare(request)
        for part in answer.split(b"|"):  # so that a line may come in pieces
            await response.write(part)
            await asyncio.sleep(0.01)
        if not answer:
            await asyncio.sleep(60)
        return response

    @property
    def versions(self) -> list[str]:
        return [asked["resourceVersion"] for asked in self.asked]


class World:
    def __init__(self, server: Server, client: Client) -> None:
        self.server = server
        self.lists = 0
        self.seen: list[tuple[str, str]] = []
        self.reflector = Reflector(
            client, kinds.SERVICE, self._list, self._take, namespace="shop", selector="a=b"
        )

    async def _list(self, _: Reflector) -> int:
        self.lists += 1
        return 100 * self.lists

    def _take(self, type: str, manifest: dict[str, Any]) -> None:
        self.seen.append((type, manifest["metadata"]["name"]))

    async def follow(self, *answers: bytes | int) -> None:
        """Run until the server has given all of `answers`, and was asked once more."""
        self.server.answers = list(answers)
        running = asyncio.create_task(self.reflector.run())
        await eventually(lambda: running.done() or len(self.server.asked) > len(answers))
        assert not running.done(), "it ends by being cancelled only"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(reflector, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(reflector, "PAUSE_WITHOUT_RIGHT_S", 0.0)
    scripted, app = Server(), web.Application()
    app.router.add_get(kinds.SERVICE.path("shop"), scripted.answer)
    async with TestServer(app) as server, ClientSession() as session:
        credentials = Credentials(str(server.make_url("")).rstrip("/"), None, str)  # type: ignore[arg-type]
        yield World(scripted, Client(credentials, session))


async def test_a_watch_goes_on_where_the_one_before_it_ended(world: World) -> None:
    await world.follow(
        line("ADDED", "a", 105) + line("BOOKMARK", "", 120), line("DELETED", "a", 130)
    )
    assert world.seen == [("ADDED", "a"), ("DELETED", "a")]
    assert world.server.versions == ["100", "120", "130"]
    assert world.lists == 1
    asked = world.server.asked[0]
    assert (asked["labelSelector"], asked["allowWatchBookmarks"]) == ("a=b", "true")


async def test_a_line_that_comes_in_pieces_is_one_event(world: World) -> None:
    whole = line("ADDED", "a", 105)
    await world.follow(whole[:9] + b"|" + whole[9:40] + b"|" + whole[40:] + line("ADDED", "b", 106))
    assert world.seen == [("ADDED", "a"), ("ADDED", "b")]


async def test_more_events_than_are_taken_at_once_all_arrive_in_order(world: World) -> None:
    await world.follow(b"".join(line("ADDED", f"a{n}", 100 + n) for n in range(1, 100)))
    assert [name for _, name in world.seen] == [f"a{n}" for n in range(1, 100)]


@pytest.mark.parametrize("answer", [410, ERROR, 404, 403, 500], ids=str)
async def test_a_place_that_is_forgotten_or_in_doubt_is_answered_by_a_list(
    world: World, answer: bytes | int
) -> None:
    await world.follow(line("ADDED", "a", 105), answer)
    assert world.lists == 2
    assert world.server.versions == ["100", "105", "200"]


async def test_nothing_is_taken_after_an_error(world: World) -> None:
    await world.follow(line("ADDED", "a", 105) + ERROR + line("ADDED", "b", 106))
    assert world.seen == [("ADDED", "a")]


@pytest.mark.parametrize(
    "broken",
    [429, line("ADDED", "b", 106)[:30], b"nonsense\n", b'{"type":7}\n', b"null\n"],
    ids=repr,
)
async def test_a_connection_that_breaks_loses_no_place(world: World, broken: bytes | int) -> None:
    world.server.answers = []
    await world.follow(line("ADDED", "a", 105), broken)
    assert world.lists == 1
    assert world.server.versions == ["100", "105", "105"]


async def test_a_watch_that_says_nothing_at_all_is_begun_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection may be dead and nobody says so: bookmarks come each minute."""
    monkeypatch.setattr(requests, "SILENT_WATCH_S", 0.05)
    running = asyncio.create_task(world.reflector.run())
    await eventually(lambda: len(world.server.asked) > 2)
    running.cancel()
    assert set(world.server.versions) == {"100"}


async def test_nothing_is_asked_for_but_metadata_where_that_is_enough(world: World) -> None:
    client = world.reflector._client
    world.server.answers = [line("ADDED", "a", 105)]
    await client.watch(kinds.SERVICE, 100, lambda *_: None, namespace="shop", metadata_only=True)
    assert world.server.accepted == [METADATA]
