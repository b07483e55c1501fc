"""What is fuzzed: each target takes bytes, and may only answer or refuse."""

import asyncio
import contextlib
import gzip
import json
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from starlette.datastructures import Headers
from starlette.requests import Request

from fuzz import bombs, said
from fuzz.tiffs import DEFLATE, SEPARATE, tiff
from yoloserve.access import credentials
from yoloserve.access.tokens import Tokens
from yoloserve.errors import Refusal
from yoloserve.http import inference_protocol
from yoloserve.http.bodies import Bodies, url_in
from yoloserve.http.fetching import Address, Fetcher
from yoloserve.http.options import class_indices
from yoloserve.images.decoding import decode_for, require_size
from yoloserve.images.letterbox import Frame, InputSize, letterbox
from yoloserve.telemetry import tracing

EXAMPLES = Path(__file__).parents[2] / "examples" / "images"
MOST_PIXELS = 2**20
LIMITS = inference_protocol.Limits(images=4, pixels=MOST_PIXELS)
FIXED, DYNAMIC = InputSize(64, 64), InputSize(64, 64, dynamic=True)
BOUNDARY = b"boundary-of-the-form"
ENTRIES = [(tag, kind) for tag in (256, 257, 258, 259, 262, 277, 278, 322, 323) for kind in (3, 4)]


@dataclass(frozen=True)
class Target:
    """One reader of foreign bytes, and inputs that it takes."""

    name: str
    run: Callable[[bytes], object]
    seeds: Sequence[bytes]
    words: Sequence[bytes] = field(default=())  # what mutations write
    cost: int = 1  # of an input, in those of the others: as many fewer are made


def all_targets() -> list[Target]:
    """List every target."""
    return [
        _images(),
        _megapixels(),
        _inference(),
        *_forms(),
        _compressed(),
        _headers(),
        _addresses(),
        _fronts(),
    ]


def attempt(target: Target, data: bytes) -> bool:
    """Say whether the target took the input; anything but an answer or a refusal is raised."""
    try:
        target.run(data)
    except Refusal:
        return False
    return True


def _images() -> Target:
    picture = np.random.default_rng(7).integers(0, 255, (24, 40, 3), np.uint8)
    small = [
        cv2.imencode(suffix, picture, options)[1].tobytes()
        for suffix, options in (
            (".jpg", []),
            (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
            (".png", []),
            (".webp", [cv2.IMWRITE_WEBP_QUALITY, 60]),
            (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),
            (".bmp", []),
            (".tiff", []),
        )
    ]
    samples = np.ascontiguousarray(picture[:, :, ::-1])
    tiffs = [
        tiff(samples, tags={274: 6}),
        tiff(samples, order=">", block=(8, 40), tags={259: DEFLATE}),
        tiff(samples, block=(16, 16), tiled=True, tags={259: DEFLATE, 284: SEPARATE}),
        tiff(samples.astype(np.uint16) * 257, order=">"),
        tiff(np.dstack((samples, samples[:, :, 0])), tags={262: 5}),
        tiff(samples[:, :, :2], tags={338: 2}),
        tiff(samples[:, :, 0] % 16, tags={262: 3, 320: list(range(768))}),
    ]
    grey = cv2.imencode(".png", picture[:, :, 0].astype(np.uint16) * 257)[1].tobytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    turned = small[0][:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + small[0][2:]

    def run(data: bytes) -> None:
        for size in (FIXED, DYNAMIC):
            look_at(data, size, MOST_PIXELS)

    # What a TIFF's entries say of themselves, and the ends of their values.
    words = [struct.pack(f"{order}HHI", tag, kind, 1) for order in "<>" for tag, kind in ENTRIES]
    words += [struct.pack("<I", number) for number in (0, 2**16 - 1, 2**31 - 1, 2**32 - 1)]
    return Target("images", run, [*small, *tiffs, grey, turned], words)


def look_at(data: bytes, size: InputSize, most: int) -> None:
    """Do with an encoded image what is done with a request's, up to the network."""
    header = require_size(data, most)
    frame = Frame.of(header.width, header.height, size)
    image, reduced = decode_for(data, header, size, frame.place)
    assert image.ndim == 3
    assert image.shape[0] * image.shape[1] * reduced**2 <= most * 1.1
    letterbox(image, size, reduced, frame)


def _megapixels() -> Target:
    """Small files of large pictures: what a changed byte may multiply."""
    flat = np.full((1728, 2304, 3), 90, np.uint8)
    progressive = cv2.imencode(".jpg", flat, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    grey = np.ascontiguousarray(flat[:, :, 0])
    seeds = [
        cv2.imencode(".jpg", flat, [cv2.IMWRITE_JPEG_RST_INTERVAL, 1])[1].tobytes(),
        bombs.with_scans(progressive, 10),
        bombs.with_comments(progressive, 4000),
        bombs.png(flat, before=bombs.chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(10_000_000)))),
        bombs.png(flat, surplus=10_000_000, pieces=4),
        bombs.apng(flat, frames=3),
        cv2.imencode(".webp", flat, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes(),
        cv2.imencode(".webp", flat, [cv2.IMWRITE_WEBP_QUALITY, 1])[1].tobytes(),
        bombs.tiff_of_jpeg(progressive, 2304, 1728),
        tiff(grey, tags={259: DEFLATE}, block=(64, 2304)),
        tiff(grey, tags={259: DEFLATE}, block=(64, 64), tiled=True),
    ]
    chunks = (b"zTXt", b"iCCP", b"IDAT", b"fdAT", b"ANMF", b"VP8X")
    words = [bombs.SCAN * 10, bombs.SCAN * 100, b"\xff\xdd\x00\x04\x00\x01", *chunks]
    size = InputSize(640, 640, dynamic=True)
    return Target("megapixels", lambda data: look_at(data, size, 2**23), seeds, words, cost=25)


def _inference() -> Target:
    pixel = bytes(range(12))

    def request(header: dict[str, object], binary: bytes = b"") -> bytes:
        raw = json.dumps(header).encode()
        return struct.pack("<I", len(raw)) + raw + binary

    def tensor(**changes: object) -> dict[str, object]:
        image = {"name": "image", "shape": [2, 2, 3], "datatype": "UINT8"} | changes
        return {"id": "7", "inputs": [image], "parameters": {"timeout": 5, "confidence": 0.5}}

    seeds = [
        request(tensor(data=list(pixel))),
        request(tensor(parameters={"binary_data_size": 12}), pixel),
        request(tensor(datatype="BYTES", shape=[1], data=["/9j/"])),
        request(
            tensor(datatype="BYTES", shape=[2], parameters={"binary_data_size": 14}),
            struct.pack("<I", 3) + b"abc" + struct.pack("<I", 3) + b"def",
        ),
        request(
            tensor(datatype="BYTES", shape=[1], parameters={"binary_data_size": 60_000}),
            bytes(60_000),
        ),
        request(tensor(datatype="BYTES" * 10_000)),
        request(
            tensor(datatype="FP32", shape=[3, 1, 1], data=[0, 0.5, 1])
            | {"outputs": [{"name": "det_boxes", "parameters": {"binary_data": True}}]}
        ),
    ]
    words = (
        b"null",
        b"-1",
        b"1e999",
        b"[]",
        b"{}",
        b'"x"',
        b"9223372036854775808",
        b"NaN",
        b"[[1]]",
    )

    def run(data: bytes) -> None:
        """Read a body, the first four bytes of which say what the header says of it."""
        length = struct.unpack_from("<I", data.ljust(4, b"\0"))[0]
        for told in (length, None):
            inference = inference_protocol.read(data[4:], told, LIMITS)
            assert 1 <= len(inference.sources) <= LIMITS.images
            for source in inference.sources:
                if not isinstance(source, bytes):
                    source.make()

    return Target("inference", run, seeds, words)


def _forms() -> list[Target]:
    """Forms, and what the head of a request says of one."""
    part = b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="a.jpg"\r\n\r\nabc\r\n'
    ends = b"--" + BOUNDARY + b"--\r\n"
    seeds = [
        b"".join(part % (BOUNDARY, name) for name in names) + ends
        for names in ((b"file",), (b"image", b"file"), (b"a", b"b", b"c"))
    ]
    bodies = Bodies(100_000, timeout_s=5, max_images=3)

    kind = b"multipart/form-data; boundary="

    async def read(data: bytes, kind: bytes) -> None:
        scope = {"type": "http", "headers": [(b"content-type", kind)]}
        messages = iter(
            [
                {"type": "http.request", "body": data[: len(data) // 2], "more_body": True},
                {"type": "http.request", "body": data[len(data) // 2 :], "more_body": False},
            ]
        )

        async def receive() -> dict[str, object]:
            return next(messages)

        try:
            async with bodies.images_of(Request(scope, receive)) as files:
                assert 1 <= len(files) <= 3
        finally:
            assert bodies.held == 0

    runner = asyncio.Runner()
    heads = [
        kind + BOUNDARY,
        kind + b'"' + BOUNDARY + b'"',
        kind + BOUNDARY + b"; charset=utf-8",
        b"multipart/form-data; charset=undefined; boundary=" + BOUNDARY,
    ]
    return [
        Target(
            "forms",
            lambda data: runner.run(read(data, kind + BOUNDARY)),
            seeds,
            (BOUNDARY, b"\r\n\r\n", b"--", b'"'),
        ),
        Target(
            "heads",
            lambda data: runner.run(read(seeds[0], data)),
            heads,
            (b"charset=", b"undefined", b"unicode_escape", b'"', b";", b"="),
        ),
    ]


def _compressed() -> Target:
    bodies = Bodies(20_000, timeout_s=5, max_images=1, fetcher=Fetcher(()))
    plain = b"any body at all, " * 40

    async def read(data: bytes) -> None:
        encoding = b"deflate" if data[:1] == b"x" else b"gzip"  # as bodies of each begin
        scope = {"type": "http", "headers": [(b"content-encoding", encoding)]}
        messages = iter(
            [
                {"type": "http.request", "body": data[: len(data) // 3], "more_body": True},
                {"type": "http.request", "body": data[len(data) // 3 :], "more_body": False},
            ]
        )

        async def receive() -> dict[str, object]:
            return next(messages)

        try:
            async with bodies.body_of(Request(scope, receive)) as body:
                assert len(body) <= 20_000
        finally:
            assert bodies.held == 0

    runner = asyncio.Runner()
    seeds = [
        pack(body)
        for pack in (gzip.compress, zlib.compress)
        for body in (plain, bytes(10_000), b"")
    ]
    return Target("compressed", lambda data: runner.run(read(data)), seeds, (b"\x1f\x8b\x08",))


def _headers() -> Target:
    seeds = [
        b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        b"x-request-id: frame-17",
        b"authorization: Basic YW55b25lOmtleQ==",
        b"authorization: Bearer eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.e30.c2ln",
        b"x-api-key: correct-horse-battery",
    ]
    tokens = Tokens("http://127.0.0.1:9/", clock=lambda: 0)
    tokens._asked_at = tokens._read_at = 0  # just now, so never again
    tokens._keys = [{"kid": "1", "kty": "RSA", "n": "AQAB", "e": "AQAB"}]
    door = credentials.Access(tokens=tokens)
    runner = asyncio.Runner()

    def run(data: bytes) -> None:
        name, _, value = data.partition(b":")
        headers = Headers(raw=[(name.strip().lower(), value.strip())])
        assert tracing.REQUEST_ID.fullmatch(tracing.begin(headers).request_id)
        runner.run(door.client(headers))

    return Target("headers", run, seeds, (b".", b"=", b"-", b"none", b"HS256"))


def _addresses() -> Target:
    fetcher = Fetcher(("cams.example.com", "*.example.org"), http=True, resolver=_nowhere)
    runner = asyncio.Runner()

    async def fetch(url: str) -> None:
        async for _ in fetcher.chunks(url, 1000):
            raise AssertionError("something was fetched")

    def run(data: bytes) -> None:
        with contextlib.suppress(Refusal):
            class_indices(data.decode("latin-1"), ("circle", "star"))
        runner.run(fetch(url_in(data)))

    seeds = [
        b'{"url": "https://cams.example.com/a.jpg?b=c#d"}',
        b'{"url": "http://user@a.example.org:80/"}',
        b'{"url": "https://[::1]:443/"}',
        b"circle,1",
        b"0," * 30_000,
        b"9" * 5000,
    ]
    return Target("addresses", run, seeds, (b"@", b"[", b"%00", b"\\u0000", b"//", b"127.0.0.1"))


def _fronts() -> Target:
    return Target("fronts", said.hear, said.seeds(), said.WORDS)


async def _nowhere(_host: str, _port: int) -> list[Address]:
    return []
