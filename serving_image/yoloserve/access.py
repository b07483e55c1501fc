"""Who may ask: API keys from a file, and tokens (JWT) signed with keys that an issuer publishes.

Either is enough where both are configured; where neither is, everybody may ask.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from yoloserve.errors import InvalidSettings, KeysUnavailable, Unauthorized
from yoloserve.settings import Settings

log = logging.getLogger(__name__)

# Signatures that only the issuer can make. Never HS*: its "public" key would sign, too.
CURVES = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
ALGORITHMS = frozenset({"RS256", "RS384", "RS512", *CURVES})
LEAST_RSA_BITS = 2048
LEAST_KEY_LENGTH = 16
LOOK_AGAIN_S = 1.0  # how soon a changed file of keys is seen
KEYS_AGE_S = 600.0  # the issuer's keys are read again after this
ASK_AGAIN_S = 10.0  # however many tokens name a key nobody knows
FETCH_TIMEOUT_S = 5.0
MOST_JWKS_BYTES = 2**20
HASHED = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody who may ask."""

    name: str
    per_second: float | None = None  # a quota of its own
    expires: float = float("inf")  # seconds since 1970; a stream ends then


@dataclass(frozen=True, slots=True)
class _Key:
    digest: bytes
    client: Client


class ApiKeys:
    """The keys in a file, read again when it changes.

    A line for each: a name, the key or `sha256:` and its digest in hex, and if wanted the images a
    second that this client may send. `#` begins a comment.
    """

    def __init__(self, file: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._looked = clock()
        self._version = self._stat()
        self._keys = read_keys(file)

    def client(self, key: str) -> Client:
        """Tell whose key it is; raise `Unauthorized` for nobody's."""
        self._look_again()
        digest = hashlib.sha256(key.encode()).digest()
        found = None
        for known in self._keys:  # all of them: the time tells nothing
            if hmac.compare_digest(known.digest, digest):
                found = known.client
        if found is None:
            raise Unauthorized("the API key is not known here")
        return found

    def _look_again(self) -> None:
        if (now := self._clock()) < self._looked + LOOK_AGAIN_S:
            return
        self._looked = now
        if (version := self._stat()) == self._version:
            return
        self._version = version
        try:
            self._keys = read_keys(self._file)
            log.info("api keys read again", extra={"keys": len(self._keys)})
        except InvalidSettings as error:  # better yesterday's keys than none
            log.warning("api keys not read again", extra={"reason": str(error)})

    def _stat(self) -> tuple[int, ...]:
        try:  # a mounted Secret changes by a link to another file
            stat = self._file.stat()
            return stat.st_mtime_ns, stat.st_ino, stat.st_size
        except OSError:
            return ()


def read_keys(file: Path) -> list[_Key]:
    """Read a file of keys; raise `InvalidSettings` naming the line, never the key."""
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"cannot read the API keys in {file}: {error}") from error
    keys = []
    for number, line in enumerate(lines, 1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        where = f"{file}, line {number}"
        if len(words) not in (2, 3):
            raise InvalidSettings(f"{where}: expected a name, a key and perhaps a quota")
        name, key, *quota = words
        if hashed := HASHED.fullmatch(key):
            digest = bytes.fromhex(hashed[1])
        elif key.startswith("sha256:") or len(key) < LEAST_KEY_LENGTH:
            raise InvalidSettings(
                f"{where}: a key has at least {LEAST_KEY_LENGTH} characters, or is sha256: and 64 "
                "hex digits"
            )
        else:
            digest = hashlib.sha256(key.encode()).digest()
        try:
            per_second = float(quota[0]) if quota else None
        except ValueError:
            raise InvalidSettings(f"{where}: the quota {quota[0]!r} is no number") from None
        keys.append(_Key(digest, Client(name, per_second)))
    return keys


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
        if algorithm not in ALGORITHMS:
            raise Unauthorized(f"the token is signed with {algorithm!r}, not with RS* or ES*")
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
        except jwt.InvalidTokenError as error:
            raise Unauthorized(f"the token is not valid: {error}") from None
        return Client(str(claims.get("sub", "")), expires=float(claims["exp"]) + self._leeway_s)

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
            self._refresh = asyncio.create_task(self._ask())  # the known ones serve meanwhile
        if (found := _matching(self._keys, name, algorithm)) is None:
            await self._ask()
            found = _matching(self._keys, name, algorithm)
        if found is None:
            raise Unauthorized("the token's key is not one that its issuer publishes")
        return found

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
            except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                told = {"uri": self._uri, "reason": f"{type(error).__name__}: {error}"}
                log.warning("the issuer's keys were not read", extra=told)

    async def _fetch(self) -> list[dict[str, Any]]:
        async with self._http.stream("GET", self._uri) as response:
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


class Access:
    """Everything that may be shown to be let in."""

    def __init__(self, keys: ApiKeys | None = None, tokens: Tokens | None = None) -> None:
        self._keys = keys
        self._tokens = tokens
        ways = ['Bearer realm="yoloserve"']
        if keys:
            ways.append('Basic realm="yoloserve"')  # a browser asks for it by itself
        self.challenge = ", ".join(ways)

    @classmethod
    def of(cls, settings: Settings) -> "Access | None":
        """Read what is configured; None lets everybody in. Raises `InvalidSettings`."""
        keys = ApiKeys(settings.api_keys_file) if settings.api_keys_file else None
        tokens = None
        if settings.jwt_jwks_uri:
            tokens = Tokens(
                settings.jwt_jwks_uri,
                issuer=settings.jwt_issuer,
                audiences=settings.jwt_audiences or (),
                leeway_s=settings.jwt_leeway_seconds,
            )
        return cls(keys, tokens) if keys or tokens else None

    async def client(self, headers: Mapping[str, str]) -> Client:
        """Tell who asks; raise `Unauthorized`, or `KeysUnavailable` while nobody can say."""
        secret = _secret(headers)
        if self._tokens and secret.count(".") == 2:
            return await self._tokens.client(secret)
        if self._keys:
            return self._keys.client(secret)
        raise Unauthorized("send a token: Authorization: Bearer ...")

    async def close(self) -> None:
        """Let go of what is held."""
        if self._tokens:
            await self._tokens.close()


def _secret(headers: Mapping[str, str]) -> str:
    """Read `Authorization: Bearer`, `X-Api-Key`, or the password of `Authorization: Basic`."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer" and value:
        return value
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except ValueError:  # neither base64 nor text
            raise Unauthorized("the Authorization header cannot be read") from None
    if key := headers.get("x-api-key"):
        return key
    raise Unauthorized("send a key or a token: Authorization: Bearer ...")
