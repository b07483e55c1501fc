"""What strangers send: slowly, endlessly, half, or made to hurt. The server answers on."""

import contextlib
import io
import resource
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from fuzz.tiffs import tiff

HEAD = b"POST /v1/detect HTTP/1.1\r\nHost: x\r\n"
IDLE = 1000
PATIENCE_S, DRIP_S = 60, 0.1


def started(run_server, model: str, body_timeout_seconds: float):
    server = run_server(
        model=model, body_timeout_seconds=body_timeout_seconds, max_body_bytes=200_000
    )
    server.url = server.logged("ready")["url"]
    return server


@pytest.fixture(scope="module")
def server(run_server, make_model):
    return started(run_server, make_model(), 60)


@pytest.fixture(scope="module")
def impatient(run_server, make_model):
    """A server that gives up in a second what does not come."""
    return started(run_server, make_model(), 1)


@contextlib.contextmanager
def connected(server) -> Iterator[socket.socket]:
    url = urlsplit(server.url)
    with socket.create_connection((url.hostname, url.port), timeout=PATIENCE_S) as connection:
        yield connection


def answer(connection: socket.socket) -> bytes:
    """Read until the server closes."""
    told = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65_536):
            told += chunk
    return told


GIVEN_UP = b"HTTP/1.1 408 "


def asked(server, request: bytes, read=answer, late: tuple[bytes, ...] = (GIVEN_UP,)) -> bytes:
    """Return what is answered; again where this side was late, and an impatient server hung up."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        with contextlib.suppress(ConnectionError), connected(server) as connection:
            connection.sendall(request)
            if (told := read(connection)) and not told.startswith(late):
                return told
    raise AssertionError("it hangs up on whoever asks")


def answers_on(server, jpeg: bytes) -> bool:
    length = b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(jpeg)
    return asked(server, HEAD + length + jpeg).startswith(b"HTTP/1.1 200 ")


def drip(connection: socket.socket) -> bytes:
    """Send a byte now and then until the server closes; return what it says."""
    told = b""
    connection.settimeout(DRIP_S)
    for _ in range(int(PATIENCE_S / DRIP_S)):
        try:
            connection.sendall(b"\xff")
            if not (chunk := connection.recv(65_536)):
                return told
            told += chunk
        except TimeoutError:
            continue
        except ConnectionError:
            return told
    raise AssertionError("the server still listens")


def test_a_head_that_never_ends_is_given_up(impatient, jpeg: bytes) -> None:
    assert asked(impatient, HEAD + b"X-Slow: ", late=()).startswith(GIVEN_UP)
    assert answers_on(impatient, jpeg)


def test_a_head_without_end_is_not_kept(server, jpeg: bytes) -> None:
    with connected(server) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(HEAD)
            for number in range(100_000):
                connection.sendall(b"X-%d: %s\r\n" % (number, b"y" * 1000))
        assert b"431" in answer(connection)
    assert answers_on(server, jpeg)


def test_a_body_that_drips_is_given_up(impatient, jpeg: bytes) -> None:
    with connected(impatient) as connection:
        connection.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")
        told = drip(connection)
    # The answer is lost where a byte comes after the end: the kernel resets the connection.
    assert told == b"" or told.startswith(GIVEN_UP)
    assert answers_on(impatient, jpeg)


def test_a_refused_body_that_drips_on_is_given_up(impatient, jpeg: bytes) -> None:
    def refused(connection: socket.socket) -> bytes:
        told = connection.recv(65_536)
        drip(connection)  # ends
        return told

    head = HEAD + b"Content-Type: text/plain\r\nContent-Length: 100000\r\n\r\n"
    assert asked(impatient, head, refused).startswith(b"HTTP/1.1 415 ")
    assert answers_on(impatient, jpeg)


def test_a_connection_whose_refused_body_came_after_all_goes_on(server, jpeg: bytes) -> None:
    with connected(server) as connection:
        refused = b"Content-Type: text/plain\r\nContent-Length: 100000\r\n\r\n" + bytes(50_000)
        connection.sendall(HEAD + refused)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 415 ")
        length = b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(jpeg)
        connection.sendall(bytes(50_000) + HEAD + length + jpeg)
        assert b"HTTP/1.1 200 " in answer(connection)


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"Content-Length: 9999\r\n\r\nabc"])
def test_a_half_closed_connection_is_closed(server, jpeg: bytes, sent: bytes) -> None:
    with connected(server) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer(connection)  # ends
    assert answers_on(server, jpeg)


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\0\0\0",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        b"GET /%ff%fe%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET http://[::1/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused(server, jpeg: bytes, request_: bytes) -> None:
    with connected(server) as connection:
        connection.sendall(request_)
        told = answer(connection)
    assert told == b"" or 400 <= int(told.split()[1]) < 500
    assert answers_on(server, jpeg)


def test_a_thousand_idle_connections_disturb_nobody(server, jpeg: bytes) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 3 * IDLE)), hard))
    with contextlib.ExitStack() as idle:
        for number in range(IDLE):
            connection = idle.enter_context(connected(server))
            if number % 2:
                connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert all(answers_on(server, jpeg) for _ in range(5))
    assert answers_on(server, jpeg)
    open_files = Path(f"/proc/{server.process.pid}/fd")
    for _ in range(600):  # the server closes its ends when it has heard of it
        if len(list(open_files.iterdir())) < IDLE // 2:
            break
        time.sleep(0.1)
    assert len(list(open_files.iterdir())) < IDLE // 2


def chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(width: int, height: int, pixels: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


DOT = np.zeros((8, 8, 3), np.uint8)


def bmp(width: int, height: int) -> bytes:
    return b"BM" + bytes(12) + struct.pack("<Iii", 40, width, height)


def zeros(size: int) -> bytes:
    """Compress so many zeros, a block at a time."""
    packer, block = zlib.compressobj(9), bytes(2**20)
    return b"".join(packer.compress(block) for _ in range(size // 2**20)) + packer.flush()


WEBP_OF_16K = (
    b"RIFF"
    + struct.pack("<I", 30)
    + b"WEBPVP8X"
    + struct.pack("<I", 10)
    + bytes(4)
    + (b"\xff\x3f\x00" * 2)
)


@pytest.mark.parametrize(
    ("name", "make", "statuses"),
    [
        ("400 million pixels of PNG", lambda: png(20_000, 20_000, zeros(2**20)), {413}),
        ("a width of 4 billion", lambda: png(2**32 - 1, 1, b""), {413}),
        ("268 million pixels of WebP", lambda: WEBP_OF_16K, {413}),
        ("a bomb behind a small header", lambda: png(8, 8, zeros(100 * 2**20)), {200, 400}),
        ("chunks that lie about their length", lambda: png(8, 8, b"")[:-20] + b"\xff" * 9, {400}),
        (
            "a BMP of 2 billion rows",
            lambda: b"BM" + bytes(12) + struct.pack("<Iii", 40, 9, 2**31 - 1),
            {413, 400},
        ),
        ("4 GB in a chunk", lambda: png(8, 8, b"")[:33] + b"\xff\0\0\0IDAT", {400}),
        ("a million chunks", lambda: png(8, 8, b"")[:33] + bytes(12) * 10**6, {400}),
        (
            "a billion pixels of TIFF",
            lambda: tiff(DOT, tags={256: 65_000, 257: 65_000, 278: 2**32 - 1}),
            {413},
        ),
        (
            "a TIFF with tiles of a billion pixels",
            lambda: tiff(DOT, block=(8, 8), tiled=True, tags={322: 32_768, 323: 32_768}),
            {400},
        ),
        ("a million strips", lambda: tiff(DOT, tags={257: 10**6, 278: 1}), {400}),
        ("a BMP of no width", lambda: b"BM" + bytes(12) + struct.pack("<Iii", 40, 0, 9), {400}),
    ],
)
async def test_a_bomb_does_not_go_off(serve, name: str, make, statuses: set[int]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with serve() as served:
        told = await served.detect(make())
    assert told.status_code in statuses, (name, told.text)
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mib < 300, name


async def test_what_is_two_things_at_once_is_the_picture_it_begins_with(
    serve, jpeg, picture
) -> None:
    whole = cv2.imencode(".png", picture)[1].tobytes()
    tails = (b"PK\x03\x04" + bytes(100), b"<script>alert(1)</script>", b"<?php ?>", jpeg)
    async with serve() as served:
        for first in (jpeg, whole):
            for tail in tails:
                answer = await served.detect(first + tail)
                assert answer.status_code == 200
                assert answer.json()["image"] == {"width": 160, "height": 90}
        for head in (b"GIF89a", b"%PDF-1.7\n", b"PK\x03\x04", b"\x7fELF", b"<svg>"):
            assert (await served.detect(head + jpeg)).status_code == 415


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff"])
async def test_a_picture_cut_anywhere_is_an_answer_or_a_refusal(serve, picture, suffix) -> None:
    encoded = cv2.imencode(suffix, picture)[1].tobytes()
    async with serve() as served:
        for end in np.linspace(0, len(encoded) - 1, 60).astype(int):
            answer = await served.detect(encoded[:end])
            assert answer.status_code in (200, 400, 415), (end, answer.text)


async def test_an_image_that_is_a_form_is_read_to_the_limit_only(serve, jpeg: bytes) -> None:
    form = io.BytesIO()
    for number in range(200):
        form.write(b'--x\r\nContent-Disposition: form-data; name="%d"\r\n\r\nv\r\n' % number)
    form.write(b"--x--\r\n")
    async with serve() as served:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = await served.detect(form.getvalue(), **headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_parameter")
