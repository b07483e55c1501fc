"""Bodies that come and go compressed: the same answers, and no bomb."""

import asyncio
import gzip
import resource
import zlib
from collections.abc import AsyncGenerator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yoloserve.errors import InvalidParameter, Refusal, UnsupportedMediaType
from yoloserve.http import compression
from yoloserve.http.compression import chosen, compressed, decompressed

PACK = {"gzip": gzip.compress, "deflate": zlib.compress, "x-gzip": gzip.compress}


async def pieces_of(body: bytes, encoding: str, size: int) -> list[bytes]:
    async def chunks() -> AsyncGenerator[bytes, None]:
        for at in range(0, len(body), size):
            yield body[at : at + size]
        yield b""  # as a server's last message is

    return [piece async for piece in decompressed(chunks(), encoding)]


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(st.binary(max_size=300), st.integers(0, 5000).map(bytes)),
    st.sampled_from(sorted(PACK)),
    st.integers(1, 70),
    st.integers(1, 50),
)
def test_what_was_compressed_comes_out_in_small_pieces(
    data: bytes, encoding: str, chunk: int, most: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compression, "PIECE", most)
        pieces = asyncio.run(pieces_of(PACK[encoding](data), encoding.upper(), chunk))
    assert b"".join(pieces) == data
    assert all(0 < len(piece) <= most for piece in pieces)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(sorted(PACK)), st.integers(0, 60), st.booleans())
def test_what_is_broken_is_refused(data: bytes, encoding: str, at: int, cut: bool) -> None:
    whole = PACK[encoding](data)
    at %= len(whole)
    broken = whole[:at] if cut else whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :]
    try:
        pieces = asyncio.run(pieces_of(broken, encoding, 10))
    except Refusal:
        return
    assert not cut
    assert b"".join(pieces) == data  # it was a byte that says nothing, of a file's date say


@pytest.mark.parametrize("tail", [b"x", gzip.compress(b"more"), bytes(3)])
async def test_nothing_follows_the_end(tail: bytes) -> None:
    for chunk in (1, 1000):
        with pytest.raises(InvalidParameter, match="after the end"):
            await pieces_of(gzip.compress(b"body") + tail, "gzip", chunk)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress", "nonsense"])
async def test_other_compressions_are_refused_unread(encoding: str) -> None:
    async def chunks() -> AsyncGenerator[bytes, None]:
        raise AssertionError("it was read")
        yield b""

    with pytest.raises(UnsupportedMediaType, match="gzip or deflate"):
        [piece async for piece in decompressed(chunks(), encoding)]


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("deflate, gzip", "gzip"),
        ("GZIP;q=0.5", "gzip"),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip; q=0.000", None),
        ("gzip;q=much", None),
        ("br, identity", None),
        ("*", "gzip"),
        ("gzip;q=0, *", "deflate"),
        ("x-gzip", "gzip"),
        ("gzip;q=0.2, deflate;q=0.8", "deflate"),
        ("identity, gzip;q=0.5", None),
    ],
)
def test_an_answer_is_compressed_as_accepted(accepted: str, expected: str | None) -> None:
    assert chosen([accepted] if accepted else []) == expected
    if expected:
        assert PACK[expected](b"") != compressed(bytes(5000), expected)
        unpack = gzip.decompress if expected == "gzip" else zlib.decompress
        assert unpack(compressed(bytes(5000), expected)) == bytes(5000)


@pytest.mark.parametrize("encoding", sorted(PACK))
async def test_a_picture_may_come_compressed(serve, jpeg: bytes, encoding: str) -> None:
    told = {"Content-Encoding": encoding}
    async with serve() as served:
        answer = await served.detect(PACK[encoding](jpeg), **told)
        assert len(answer.json()["detections"]) == 2
        form = served.client.build_request("POST", "/v1/detect", files={"file": ("a.jpg", jpeg)})
        told["Content-Type"] = form.headers["Content-Type"]
        answer = await served.detect(PACK[encoding](form.read()), **told)
        assert len(answer.json()["detections"]) == 2
        address = PACK[encoding](b'{"url": "https://cams.example.com/a.jpg"}')
        told["Content-Type"] = "application/json"
        assert (await served.detect(address, **told)).json()["error"]["code"] == "url_refused"
        assert served.serving.bodies.held == 0


@pytest.mark.parametrize(
    ("body", "encoding", "status", "code"),
    [
        (gzip.compress(bytes(100))[:-4], "gzip", 400, "invalid_parameter"),
        (b"no gzip", "gzip", 400, "invalid_parameter"),
        (zlib.compress(b"x"), "gzip", 400, "invalid_parameter"),
        (b"x", "br", 415, "unsupported_media_type"),
        (gzip.compress(bytes(2**16)), "gzip", 413, "too_large"),
        # A file's name in the head, without an end: nothing comes of it, however much is read.
        (b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * 2**16, "gzip", 413, "too_large"),
    ],
)
async def test_what_cannot_be_undone_is_refused(
    serve, body: bytes, encoding: str, status: int, code: str
) -> None:
    async with serve(max_body_bytes=2**15) as served:
        for path in ("/v1/detect", "/v2/models/gate/infer"):
            answer = await served.client.post(
                path,
                content=body,
                headers={"Content-Encoding": encoding, "Inference-Header-Content-Length": "0"},
            )
            assert answer.status_code == status, answer.text
            assert code in answer.text
            assert served.serving.bodies.held == 0


async def test_a_bomb_costs_no_more_than_the_limit_and_holds_nobody_up(serve, jpeg: bytes) -> None:
    packer = zlib.compressobj(9, wbits=31)
    head = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)  # knows none before
    bomb = head + 1000 * block
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with serve(max_body_bytes=2**24) as served:
        going_off = [
            asyncio.create_task(served.detect(bomb, **{"Content-Encoding": "gzip"}))
            for _ in range(3)
        ]
        await asyncio.sleep(0)
        assert (await served.detect(jpeg)).status_code == 200
        told = await asyncio.gather(*going_off)
        assert [answer.status_code for answer in told] == [413, 413, 413]
        assert served.serving.bodies.held == 0
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 200


async def test_long_answers_go_out_compressed_to_those_who_accept_it(serve, backend, jpeg) -> None:
    columns = [[4 + 8 * (n % 7), 4 + 8 * (n // 7), 6, 6, 0.9, 0, 0] for n in range(49)]
    backend.output = np.array(columns, np.float32).T
    path, alone = "/v2/models/gate/infer", {"Inference-Header-Content-Length": "0"}
    async with serve() as served:
        plain = await served.client.post(
            path, content=jpeg, headers=alone | {"Accept-Encoding": "identity"}
        )
        assert "content-encoding" not in plain.headers
        for encoding in ("gzip", "deflate"):
            told = alone | {"Accept-Encoding": encoding}
            answer = await served.client.post(path, content=jpeg, headers=told)
            assert answer.headers["content-encoding"] == encoding
            assert int(answer.headers["content-length"]) < len(answer.content) / 3
            length = int(answer.headers["inference-header-content-length"])
            assert length == int(plain.headers["inference-header-content-length"])
            assert len(answer.content) == pytest.approx(len(plain.content), abs=20)  # timings
        backend.output = np.zeros((7, 1), np.float32)
        wanted = alone | {"Accept-Encoding": "gzip"}
        short = await served.client.post(
            path, content=jpeg, headers=wanted | {"Inference-Header-Content-Length": "0"}
        )
        assert ("content-encoding" in short.headers) == (len(short.content) >= 1024)
        assert short.headers["vary"] == "Accept-Encoding"
