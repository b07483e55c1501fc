"""Pictures by their address: what is fetched, and all that is not."""

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from yoloserve.errors import FetchesFull, TooLarge, UrlFailed, UrlRefused
from yoloserve.http.fetching import (
    MOST_AT_ONCE,
    MOST_OF_A_HOST,
    Fetcher,
    _Places,
    refused_address,
)

LOOPBACK = ipaddress.ip_network("127.0.0.0/8")
HOUR_S = 3600
PUBLIC = ipaddress.ip_address("93.184.215.14")


async def fetched(fetcher: Fetcher, url: str, max_bytes: int = 10_000) -> bytes:
    try:
        return b"".join([chunk async for chunk in fetcher.chunks(url, max_bytes)])
    finally:
        await fetcher.close()


def resolving(*addresses: str) -> Callable:
    async def resolve(_host: str, _port: int) -> list:
        return [ipaddress.ip_address(address) for address in addresses]

    return resolve


@asynccontextmanager
async def answering(answer: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple]:
    """A server that sends these bytes to everybody; gives its port and what it was asked."""
    asked: list[bytes] = []
    writers: list[asyncio.StreamWriter] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        if not answer.endswith(b"STALL"):
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1], asked
        for writer in writers:
            writer.close()
        server.close()


def ok(body: bytes, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.5.4",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fd00:ec2::254",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2001:db8::1",
    ],
)
def test_an_address_inside_is_refused(address: str) -> None:
    assert refused_address(ipaddress.ip_address(address), ())


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:220:1::1", "64:ff9b::5db8:d70e"])
def test_an_address_outside_is_not(address: str) -> None:
    assert not refused_address(ipaddress.ip_address(address), ())


def test_an_allowed_network_is_allowed_but_never_for_a_machines_own_secrets() -> None:
    everything = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
    assert not refused_address(ipaddress.ip_address("10.1.2.3"), everything)
    for address in ("169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254"):
        assert refused_address(ipaddress.ip_address(address), everything)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://cams.example.com/a.jpg", "only https"),
        ("ftp://cams.example.com/a.jpg", "only https"),
        ("file:///etc/passwd", "only https"),
        ("https://user:secret@cams.example.com/a.jpg", "user names"),
        ("https://else.example.com/a.jpg", "not one of the hosts"),
        ("https://cams.example.com:8443/a.jpg", "not one of the hosts"),
        ("https://cams.example.com.evil.com/", "not one of the hosts"),
        ("https://evilyard.example.org/", "not one of the hosts"),
        ("https://127.0.0.1/", "not one of the hosts"),
        ("https://inside.example.com/", "not on the public internet"),
    ],
)
async def test_what_may_not_be_asked_is_not(url: str, told: str) -> None:
    hosts = ("cams.example.com", "inside.example.com", "*.yard.example.org")
    fetcher = Fetcher(hosts, resolver=resolving("10.0.0.1"))
    with pytest.raises(UrlRefused, match=told):
        await fetched(fetcher, url)


async def test_one_address_inside_among_others_is_enough_to_refuse() -> None:
    fetcher = Fetcher(("*",), resolver=resolving(str(PUBLIC), "127.0.0.1"))
    with pytest.raises(UrlRefused):
        await fetched(fetcher, "https://rebinding.example.com/")


async def test_without_an_allow_list_nothing_is_fetched(serve) -> None:
    async with serve() as served:
        told = b'{"url": "https://cams.example.com/a.jpg"}'
        answer = await served.detect(told, **{"Content-Type": "application/json"})
    assert answer.status_code == 403
    assert "YOLOSERVE_URL_HOSTS" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "url", ["", "https://", "//x", "https://[::1", "https://\x00/", "x" * 70_000]
)
async def test_an_address_that_is_none_is_told(url: str) -> None:
    with pytest.raises((UrlFailed, UrlRefused)):
        await fetched(Fetcher(("*",), resolver=resolving("127.0.0.1")), url)


def local(port: int, **options) -> Fetcher:
    defaults = {"networks": (LOOPBACK,), "http": True, "resolver": resolving("127.0.0.1")}
    return Fetcher((f"cams.example.com:{port}",), **(defaults | options))


async def test_the_connection_goes_to_the_address_checked_under_the_name_asked_for() -> None:
    async with answering(ok(b"picture")) as (port, asked):
        url = f"http://cams.example.com:{port}/gate.jpg?now"
        assert await fetched(local(port), url) == b"picture"
    head = asked[0].decode().lower()
    assert head.startswith("get /gate.jpg?now http/1.1")
    assert f"host: cams.example.com:{port}" in head
    assert "accept-encoding: identity" in head


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", UrlFailed, "answers 404"),
        (ok(b"x", "Content-Encoding: gzip"), UrlFailed, "encoding"),
        (ok(bytes(2000)), TooLarge, "more than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nx", UrlFailed, "RemoteProtocolError"),
        (b"nonsense\r\n\r\n", UrlFailed, "RemoteProtocolError"),
        (b"", UrlFailed, "RemoteProtocolError"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nSTALL", UrlFailed, "within 0.2 s"),
        (b"HTTP/1.1 302 F\r\nLocation: http://127.0.0.1/\r\n\r\n", UrlRefused, "not one of"),
        (b"HTTP/1.1 302 F\r\nLocation: file:///etc/passwd\r\n\r\n", UrlRefused, "only https"),
        (
            b"HTTP/1.1 302 F\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n",
            UrlFailed,
            "Redirects",
        ),
    ],
)
async def test_what_the_other_side_does_wrong_is_told(answer: bytes, error, told: str) -> None:
    timeout_s = 0.2 if answer.endswith(b"STALL") else 30
    async with answering(answer) as (port, _):
        fetcher = local(port, timeout_s=timeout_s)
        with pytest.raises(error, match=told):
            await fetched(fetcher, f"http://cams.example.com:{port}/", 1000)


@pytest.mark.parametrize(
    "brings",
    [
        b"Content-Length: 1000000000\r\n\r\nand so on",
        b"Content-Encoding: gzip\r\nContent-Length: 8\r\n\r\nno gzip.",
    ],
)
async def test_what_a_redirect_brings_is_neither_read_nor_unpacked(brings: bytes) -> None:
    """httpx reads it to its end, unpacked: a megabyte was a gigabyte."""
    asked: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        if len(asked) == 1:
            cookie = b"Set-Cookie: seen=1; Path=/\r\n"
            writer.write(b"HTTP/1.1 302 Found\r\nLocation: /there.jpg\r\n" + cookie + brings)
            await reader.read()  # until the other side leaves
        else:
            writer.write(ok(b"picture"))
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        asking = fetched(local(port, timeout_s=HOUR_S), f"http://cams.example.com:{port}/gate.jpg")
        assert await asyncio.wait_for(asking, 60) == b"picture"
    there = asked[1].decode().lower()
    assert there.startswith("get /there.jpg http/1.1")
    assert "cookie: seen=1" in there


@pytest.mark.parametrize("late", [TimeoutError(), httpx.ReadTimeout("")])
async def test_the_clock_of_the_whole_and_that_of_a_step_tell_the_same(late: Exception) -> None:
    async def resolve(_host: str, _port: int) -> list:
        raise late

    with pytest.raises(UrlFailed, match="no picture within 5 s"):
        await fetched(Fetcher(("*",), resolver=resolve), "https://cams.example.com/")


@pytest.mark.parametrize("dead_host", ["dead.example.com", "cams.example.com"])
async def test_dead_cameras_of_one_host_are_in_nobody_elses_way(dead_host: str) -> None:
    """Nor are those behind another port of one host."""
    silent = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nSTALL"
    resolved, full = [], asyncio.Event()

    async def resolve(_host: str, port: int) -> list:
        resolved.append(port)
        if len(resolved) == MOST_OF_A_HOST:
            full.set()
        return [ipaddress.ip_address("127.0.0.1")]

    async with answering(silent) as (dead, _), answering(ok(b"picture")) as (alive, _):
        urls = f"http://{dead_host}:{dead}/", f"http://cams.example.com:{alive}/"
        fetcher = Fetcher(
            ("*",), networks=(LOOPBACK,), http=True, resolver=resolve, timeout_s=HOUR_S
        )

        async def ask(url: str) -> bytes:
            return b"".join([chunk async for chunk in fetcher.chunks(url, 1000)])

        waiting = [asyncio.create_task(ask(urls[0])) for _ in range(2 * MOST_AT_ONCE)]
        await full.wait()
        assert await asyncio.wait_for(ask(urls[1]), 60) == b"picture"
        assert resolved.count(dead) == MOST_OF_A_HOST
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await fetcher.close()


@pytest.mark.parametrize("hosts", [1, MOST_AT_ONCE // MOST_OF_A_HOST])
async def test_who_gets_no_place_is_not_told_of_the_other_side(hosts: int) -> None:
    places = _Places(wait_s=0.05)
    async with AsyncExitStack() as held:
        for number in range(hosts * MOST_OF_A_HOST):
            await held.enter_async_context(places.hold(f"{number % hosts}.example.com"))
        host = "0.example.com" if hosts == 1 else "another.example.com"
        with pytest.raises(FetchesFull, match=f"no place to fetch from {host} within 0.05 s"):
            async with places.hold(host):
                pass
    async with places.hold(host):  # what was waited for in vain is held by nobody
        assert len(places._of_hosts) == 1


async def test_an_address_that_is_refused_waits_for_no_place() -> None:
    fetcher = Fetcher(("cams.example.com",), timeout_s=0.05)
    async with AsyncExitStack() as held:
        for _ in range(MOST_OF_A_HOST):
            await held.enter_async_context(fetcher._places.hold("else.example.com:443"))
        with pytest.raises(UrlRefused, match="not one of the hosts"):
            await fetched(fetcher, "https://else.example.com/gate.jpg")


async def test_nobody_there_is_told(nobodys_port: int) -> None:
    with pytest.raises(UrlFailed, match="ConnectError"):
        await fetched(local(nobodys_port), f"http://cams.example.com:{nobodys_port}/")


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Make a server's context for this name, and that of a client who trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return server, ssl.create_default_context(cafile=str(folder / "cert.pem"))


@pytest.mark.parametrize("name", ["cams.example.com", "else.example.com"])
async def test_the_certificate_must_be_for_the_name_that_was_asked_for(tmp_path, name) -> None:
    server, client = certificate(tmp_path, name)
    async with answering(ok(b"picture"), server) as (port, _):
        fetcher = local(port, verify=client, http=False)
        asking = fetched(fetcher, f"https://cams.example.com:{port}/gate.jpg")
        if name == "cams.example.com":
            assert await asking == b"picture"
        else:
            with pytest.raises(UrlFailed, match="CERTIFICATE_VERIFY_FAILED"):
                await asking


async def test_a_request_by_address_is_answered_like_any_other(serve, jpeg: bytes) -> None:
    async with answering(ok(jpeg)) as (port, asked):
        settings = {"url_hosts": (f"localhost:{port}",), "url_http": True}
        url = {"url": f"http://localhost:{port}/gate.jpg"}
        async with serve(**settings) as served:
            refused = await served.client.post("/v1/detect", json=url)
        async with serve(
            **settings, url_networks=(LOOPBACK, ipaddress.ip_network("::1"))
        ) as served:
            answer = await served.client.post("/v1/detect", json=url)
            assert served.serving.bodies.held == 0
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "url_refused"
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["detections"]) == 2
    assert answer.headers["traceparent"].encode() in asked[0]
