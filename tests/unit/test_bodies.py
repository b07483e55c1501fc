"""Lists and watches on their way to kopf: what we take out, and what it is spared."""

import aiohttp
import orjson
import pytest

from yolofleet.runtime import bodies
from yolofleet.runtime.bodies import ListBody, WatchBody

ERROR = b'{"type":"ERROR","object":{"code":500}}\n'


class Content:
    total_bytes = 7

    def __init__(self, *chunks):
        self._chunks = chunks

    async def iter_chunked(self, size):  # noqa: ARG002 (kopf says it)
        for chunk in self._chunks:
            yield chunk

    async def read(self):
        return b"".join(self._chunks)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(bodies, "PAUSE_AFTER_ERROR_S", 0)


@pytest.fixture
def taken():
    return []


@pytest.fixture
def take(taken):
    return lambda type, manifest: taken.append((type, manifest["metadata"]["name"]))


def event(type, name, version):
    metadata = {"name": name, "resourceVersion": str(version)}
    return orjson.dumps({"type": type, "object": {"metadata": metadata}}) + b"\n"


async def read(*chunks, take=None, expired=False):
    body = WatchBody(Content(*chunks), take, expired=expired)
    return [line async for line in body.iter_chunked(1024)]


# what is taken out


async def test_events_are_taken_in_order_and_leave_a_bookmark_of_the_last(take, taken):
    lines = event("ADDED", "a", 5) + event("MODIFIED", "a", 6) + event("DELETED", "a", 9)
    [left] = await read(lines, take=take)
    assert taken == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    assert orjson.loads(left) == {
        "type": "BOOKMARK",
        "object": {"metadata": {"resourceVersion": "9"}},
    }


async def test_an_event_cut_in_two_is_taken_once_it_is_whole(take, taken):
    line = event("ADDED", "a", 5)
    assert len(await read(line[:20], line[20:], take=take)) == 1
    assert taken == [("ADDED", "a")]


async def test_a_bookmark_passes_and_is_no_event(take, taken):
    [left] = await read(event("BOOKMARK", "", 7), take=take)
    assert orjson.loads(left)["object"]["metadata"]["resourceVersion"] == "7"
    assert taken == []


async def test_what_came_before_an_error_is_taken_and_nothing_after_it(take, taken):
    left = await read(event("ADDED", "a", 5) + ERROR + event("ADDED", "b", 6), take=take)
    assert taken == [("ADDED", "a")]
    assert [orjson.loads(line)["type"] for line in left] == ["BOOKMARK", "ERROR"]


async def test_more_events_than_are_taken_at_once_all_arrive(take, taken):
    await read(b"".join(event("ADDED", f"a{i}", i) for i in range(1, 100)), take=take)
    assert [name for _, name in taken] == [f"a{i}" for i in range(1, 100)]


@pytest.fixture
def begun():
    return []


def listing(page, take, begun):
    return ListBody(Content(orjson.dumps(page)), take, lambda: begun.append(True))


async def test_a_list_is_left_without_its_items_and_with_its_version(take, taken, begun):
    names = [{"metadata": {"name": f"a{i}"}} for i in range(45)]
    page = {"kind": "PodList", "metadata": {"resourceVersion": "9"}, "items": names}
    left = await listing(page, take, begun).read()
    assert orjson.loads(left) == page | {"items": []}
    assert taken == [(None, f"a{i}") for i in range(45)]
    assert begun == [True], "once a list, not once an item"


@pytest.mark.parametrize("nothing", [None, []])
async def test_a_list_of_nothing_is_told_too(take, taken, begun, nothing):
    """All there was may have been deleted while the watch did not hear."""
    page = {"metadata": {"resourceVersion": "9"}, "items": nothing}
    left = await listing(page, take, begun).read()
    assert (orjson.loads(left)["items"], taken, begun) == ([], [], [True])


def test_in_all_else_it_is_the_content(take, begun):
    assert listing({}, take, begun).total_bytes == 7


# what kopf would end the process for


async def test_lines_that_stay_come_whole_however_they_were_cut():
    got = await read(b'{"a":1}\n{"b', b'":2}', b'\n{"c":3}\n')
    assert b"".join(got) == b'{"a":1}\n{"b":2}\n{"c":3}\n'
    assert all(chunk.endswith(b"\n") for chunk in got)


async def test_half_a_line_is_a_broken_connection():
    with pytest.raises(aiohttp.ClientPayloadError, match="middle of a line"):
        await read(b'{"a":1}\n{"b":')


async def test_a_line_that_is_no_json_is_a_broken_connection(take):
    with pytest.raises(aiohttp.ClientPayloadError, match="no JSON"):
        await read(b"<html>\n", take=take)


async def test_any_error_means_to_list_anew():
    [told] = await read(ERROR, b'{"type":"ADDED"}\n')
    assert orjson.loads(told)["object"]["code"] == 410


async def test_an_answer_that_says_so_means_it_too():
    [told] = await read(expired=True)
    assert orjson.loads(told)["object"]["code"] == 410


async def test_an_object_that_says_error_is_no_error():
    line = b'{"type":"ADDED","object":{"kind":"x","reason":"ERROR","y":"ERROR"}}\n'
    assert await read(line) == [line]
