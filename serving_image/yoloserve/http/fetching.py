"""Pictures by their address: fetched from allowed hosts only, and never from inside the network.

The name is resolved here, every address it has is checked, and the connection goes to one that
passed, under the name that was asked for: what a name server says a moment later changes nothing.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary

import httpx

from yoloserve.errors import FetchesFull, TooLarge, UrlFailed, UrlRefused
from yoloserve.settings import Settings
from yoloserve.telemetry.tracing import current

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MOST_REDIRECTS = 3
MOST_AT_ONCE = 32
MOST_OF_A_HOST = 8  # cameras that are dead are waited for: those of one host leave room for others
# Where clouds tell a machine its own secrets; not even an allowed network may hold these.
METADATA = frozenset(
    map(
        ipaddress.ip_address,
        ("169.254.169.254", "169.254.170.2", "100.100.100.200", "fd00:ec2::254"),
    )
)
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
DEFAULT_PORTS = {"https": 443, "http": 80}


async def resolve(host: str, port: int) -> list[Address]:
    """Ask for every address of a host, IPv4 first."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = {ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found}
    return sorted(addresses, key=lambda address: (address.version, int(address)))


def refused_address(address: Address, allowed: tuple[Network, ...]) -> bool:
    """Say whether an address is not one of the public internet, nor of an allowed network."""
    real = _inner(address)
    if real in METADATA:
        return True
    if any(real in network for network in allowed):
        return False
    return not real.is_global or real.is_multicast or real.is_reserved


def _inner(address: Address) -> Address:
    """Unwrap an IPv4 address from the IPv6 addresses that lead to it."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        teredo = address.teredo[1] if address.teredo else None
        return address.ipv4_mapped or address.sixtofour or teredo or address
    return address


class _Places:
    """So many fetches at once, and of one host a part; who comes first to a host is next there."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._all = asyncio.Semaphore(MOST_AT_ONCE)
        # Each lives as long as somebody holds a place of it, or waits for one.
        self._of_hosts: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def hold(self, host: str) -> AsyncIterator[None]:
        """Hold a place; raise `FetchesFull` if none becomes free."""
        of_host = self._of_hosts.setdefault(host, asyncio.Semaphore(MOST_OF_A_HOST))
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(self._wait_s):
                    await held.enter_async_context(of_host)  # who waits here is in nobody's way
                    await held.enter_async_context(self._all)
            except TimeoutError:
                raise FetchesFull(
                    f"url: no place to fetch from {host} within {self._wait_s:g} s: at once "
                    f"there are {MOST_AT_ONCE}, and {MOST_OF_A_HOST} for one host"
                ) from None
            yield


class Fetcher:
    """Gets images from the hosts of an allow-list."""

    def __init__(
        self,
        hosts: tuple[str, ...],
        *,
        networks: tuple[Network, ...] = (),
        http: bool = False,
        timeout_s: float = 5,
        resolver: Callable[[str, int], Awaitable[list[Address]]] = resolve,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        self._hosts = tuple(host.lower() for host in hosts)
        self._networks = networks
        self._schemes = ("https", "http") if http else ("https",)
        self._timeout_s = timeout_s
        self._resolve = resolver
        self._places = _Places(timeout_s)  # before the other side's time begins
        # A connection for each picture: a shared one might have been opened under another name.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._connections = httpx.AsyncHTTPTransport(
            verify=verify or ssl.create_default_context(), limits=limits, trust_env=False
        )

    @classmethod
    def of(cls, settings: Settings) -> "Fetcher":
        """Read what is configured."""
        return cls(
            settings.url_hosts or (),
            networks=settings.url_networks or (),
            http=settings.url_http,
            timeout_s=settings.url_timeout_seconds,
        )

    async def chunks(self, url: str, max_bytes: int) -> AsyncGenerator[bytes, None]:
        """Give the body at `url` piece by piece.

        Raises `UrlRefused` before anything is sent, `UrlFailed` for what the other side does,
        `FetchesFull`, and `TooLarge`.
        """
        headers = {"User-Agent": "yoloserve", "Accept": "image/*", "Accept-Encoding": "identity"}
        if trace := current.get():
            headers["traceparent"] = trace.traceparent
        size = 0
        try:
            self._require_allowed(asked := httpx.URL(url))  # what is refused waits for no place
            async with (
                self._places.hold(_host(asked)),
                asyncio.timeout(self._timeout_s),
                # One for each picture: a cookie of one answer is no other's business.
                httpx.AsyncClient(
                    transport=_Checked(self),
                    trust_env=False,
                    timeout=self._timeout_s,
                    follow_redirects=True,
                    max_redirects=MOST_REDIRECTS,
                ) as client,
                client.stream("GET", url, headers=headers) as response,
            ):
                if response.status_code != 200:
                    raise UrlFailed(f"url: {response.url.host} answers {response.status_code}")
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise UrlFailed(f"url: {response.url.host} sends an encoding nobody asked for")
                async for chunk in response.aiter_raw():
                    size += len(chunk)
                    if size > max_bytes:
                        raise TooLarge(f"the picture at the url has more than {max_bytes} bytes")
                    yield chunk
        except (TimeoutError, httpx.TimeoutException):  # either clock may be the first
            raise UrlFailed(f"url: no picture within {self._timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            raise UrlFailed(f"url: {type(error).__name__}: {error}") from error

    async def checked(self, request: httpx.Request) -> httpx.Request:
        """Turn a request into one to an address that may be asked."""
        url, port = request.url, self._require_allowed(request.url)
        addresses = await self._resolve(url.host, port)
        if not addresses:
            raise UrlFailed(f"url: {url.host} has no address")
        if any(refused_address(address, self._networks) for address in addresses):
            raise UrlRefused(f"url: {url.host} is not on the public internet")
        return httpx.Request(
            request.method,
            url.copy_with(host=str(addresses[0])),
            headers=request.headers,  # Host is the name that was asked for
            extensions=request.extensions | {"sni_hostname": url.host},  # and so is the certificate
        )

    def _require_allowed(self, url: httpx.URL) -> int:
        """Return the port of an address whose name may be asked; raise `UrlRefused` of others."""
        if url.scheme not in self._schemes:
            raise UrlRefused(f"url: only {' and '.join(self._schemes)} addresses are fetched")
        if url.userinfo:
            raise UrlRefused("url: no user names and passwords in addresses")
        port = url.port or DEFAULT_PORTS[url.scheme]
        if not self._allows(url.host.lower(), port, url.scheme):
            raise UrlRefused(f"url: {url.host}:{port} is not one of the hosts allowed here")
        return port

    def _allows(self, host: str, port: int, scheme: str) -> bool:
        names = {f"{host}:{port}"} | ({host} if port == DEFAULT_PORTS[scheme] else set())
        return any(
            name == allowed
            or allowed == "*"
            or (allowed.startswith("*.") and name.endswith(allowed[1:]))
            for allowed in self._hosts
            for name in names
        )

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Send a request that was checked."""
        return await self._connections.handle_async_request(request)

    async def close(self) -> None:
        """Close what is open."""
        await self._connections.aclose()


def _host(url: httpx.URL) -> str:
    """Name who is asked; cameras behind one router differ by their ports."""
    return f"{url.host.lower()}:{url.port or DEFAULT_PORTS.get(url.scheme)}"


class _Checked(httpx.AsyncBaseTransport):
    """Checks each request on its way out: the first one, and each redirect."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._fetcher.send(await self._fetcher.checked(request))
        if not response.has_redirect_location:
            return response
        # httpx would read what it brings to its end and unpack it, however much that is.
        await response.aclose()
        headers = response.headers.copy()
        headers.pop("content-encoding", None)
        return httpx.Response(response.status_code, headers=headers)
