"""Tokens (JWT) signed with keys that an issuer publishes; a module of its own for what it imports.

An HTTP client and a library of cryptography take longer to import than the rest of `access`.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import httpx
import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from yoloserve.access.clients import Client
from yoloserve.errors import KeysUnavailable, Unauthorized, bare, quoted

log = logging.getLogger(__name__)

# Signatures that only the issuer can make. Never HS*: its "public" key would sign, too.
CURVES = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
ALGORITHMS = frozenset({"RS256", "RS384", "RS512", *CURVES})
LEAST_RSA_BITS = 2048
KEYS_AGE_S = 600.0  # the issuer's keys are read again after this
ASK_AGAIN_S = 10.0  # however many tokens name a key nobody knows
FETCH_TIMEOUT_S = 5.0
MOST_JWKS_BYTES = 2**20


class Tokens:
    """Tokens of one issuer, checked against the keys it publishes (RFC 7517, 7519)."""

    def __init__(
        self,
        jwks_uri: str,
        *,
        issuer: str = "",
        audiences: tuple[str, ...] = (),
        leeway_s: float = 0,
        http: httpx.AsyncClient | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._uri = jwks_uri
        self._issuer = issuer
        self._audiences = audiences
        self._leeway_s = leeway_s
        self._http = http or httpx.AsyncClient(timeout=FETCH_TIMEOUT_S)
        self._clock = clock
        self._keys: list[dict[str, Any]] = []
        self._read_at = self._asked_at = -float("inf")
        self._asking = asyncio.Lock()
        self._refresh: asyncio.Task[None] | None = None

    async def client(self, token: str) -> Client:
        """Tell whose token it is; raise `Unauthorized` unless it is valid now."""
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise Unauthorized("the token cannot be read") from None
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:  # a list has no hash
            raise Unauthorized(f"the token is signed with {quoted(algorithm)}, not with RS* or ES*")
        key = await self._key(header.get("kid"), algorithm)
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audiences or None,
                issuer=self._issuer or None,
                leeway=self._leeway_s,
                options={"require": ["exp"], "verify_aud": bool(self._audiences)},
            )
            expires = float(claims["exp"]) + self._leeway_s
        except (jwt.InvalidTokenError, OverflowError) as error:  # JSON has numbers of any length
            raise Unauthorized(f"the token is not valid: {error}") from None
        name = str(claims.get("sub", ""))  # half a character in JSON can be in no answer
        return Client(name.encode(errors="replace").decode(), expires=expires)

    async def close(self) -> None:
        """Close the connection to the issuer."""
        if self._refresh:
            self._refresh.cancel()
        await self._http.aclose()

    async def _key(self, name: str | None, algorithm: str) -> RSAPublicKey | EllipticCurvePublicKey:
        """Find the key that signs by this name; new ones appear when the issuer rotates them."""
        if not self._keys:
            await self._ask()
            if not self._keys:
                raise KeysUnavailable("the keys of the token's issuer cannot be read now")
        elif self._clock() > self._read_at + KEYS_AGE_S and self._may_ask():
            self._begin_refresh()  # the known ones serve meanwhile
        if (found := _matching(self._keys, name, algorithm)) is None:
            await self._ask()
            found = _matching(self._keys, name, algorithm)
        if found is None:
            raise Unauthorized("the token's key is not one that its issuer publishes")
        return found

    def _begin_refresh(self) -> None:
        if self._refresh is None or self._refresh.done():
            self._refresh = asyncio.create_task(self._ask())

    def _may_ask(self) -> bool:
        return self._clock() >= self._asked_at + ASK_AGAIN_S

    async def _ask(self) -> None:
        async with self._asking:
            if not self._may_ask():
                return
            self._asked_at = self._clock()
            try:
                self._keys = await self._fetch()
                self._read_at = self._clock()
            except httpx.InvalidURL:  # whose words have the beginning of a password in them
                self._not_read("it is no URL that can be asked")
            except TimeoutError:
                self._not_read(f"there was no whole answer within {FETCH_TIMEOUT_S:g} s")
            except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                self._not_read(f"{type(error).__name__}: {error}")

    def _not_read(self, reason: str) -> None:
        fields = {"uri": bare(self._uri), "reason": reason}
        log.warning("the issuer's keys were not read", extra=fields)

    async def _fetch(self) -> list[dict[str, Any]]:
        # Of the whole: httpx's own is of each read, and whoever asks waits for whoever reads.
        async with (
            asyncio.timeout(FETCH_TIMEOUT_S),
            self._http.stream("GET", self._uri) as response,
        ):
            response.raise_for_status()
            body = b""
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MOST_JWKS_BYTES:
                    raise ValueError(f"more than {MOST_JWKS_BYTES} bytes")
        return [key for key in orjson.loads(body)["keys"] if isinstance(key, dict)]


def _matching(
    keys: list[dict[str, Any]], name: str | None, algorithm: str
) -> RSAPublicKey | EllipticCurvePublicKey | None:
    """Take the one key of this name that can have made such a signature.

    A token that names no key is checked with the issuer's only key of that sort.
    """
    fitting = []
    for raw in keys:
        if name not in (None, raw.get("kid")) or raw.get("use", "sig") != "sig":
            continue
        if raw.get("alg", algorithm) != algorithm:
            continue
        try:
            key = jwt.PyJWK(raw, algorithm=algorithm).key
        except jwt.PyJWTError:
            continue
        if isinstance(key, RSAPublicKey):
            fits = algorithm.startswith("RS") and key.key_size >= LEAST_RSA_BITS
        else:
            fits = isinstance(key, EllipticCurvePublicKey) and key.curve.name == CURVES.get(
                algorithm
            )
        if fits:
            fitting.append(key)
    return fitting[0] if len(fitting) == 1 else None
