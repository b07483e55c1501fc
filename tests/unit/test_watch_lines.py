"""What kopf is spared of a watch: it would end the process for it."""

import aiohttp
import orjson
import pytest

from yolofleet import handlers
from yolofleet.handlers import WholeLines


class Content:
    def __init__(self, *chunks):
        self._chunks = chunks

    async def iter_chunked(self, size):  # noqa: ARG002 (kopf says it)
        for chunk in self._chunks:
            yield chunk


async def read(*chunks):
    return [line async for line in WholeLines(Content(*chunks)).iter_chunked(1024)]


async def test_lines_come_whole_however_they_were_cut():
    got = await read(b'{"a":1}\n{"b', b'":2}', b'\n{"c":3}\n')
    assert b"".join(got) == b'{"a":1}\n{"b":2}\n{"c":3}\n'
    assert all(chunk == b"" or chunk.endswith(b"\n") for chunk in got)


async def test_half_a_line_is_a_broken_connection():
    with pytest.raises(aiohttp.ClientPayloadError, match="middle of a line"):
        await read(b'{"a":1}\n{"b":')


async def test_any_error_means_to_list_anew(monkeypatch):
    monkeypatch.setattr(handlers, "_PAUSE_AFTER_ERROR_S", 0)
    error = b'{"type":"ERROR","object":{"code":500}}\n'
    [told] = await read(error, b'{"type":"ADDED"}\n')
    assert orjson.loads(told)["object"]["code"] == 410


async def test_an_answer_that_says_so_means_it_too(monkeypatch):
    monkeypatch.setattr(handlers, "_PAUSE_AFTER_ERROR_S", 0)
    expired = WholeLines(Content(), expired=True)
    [told] = [line async for line in expired.iter_chunked(1024)]
    assert orjson.loads(told)["object"]["code"] == 410


async def test_an_object_that_says_error_is_no_error():
    line = b'{"type":"ADDED","object":{"kind":"x","reason":"ERROR","y":"ERROR"}}\n'
    assert await read(line) == [line]
