"""Who may ask: API keys from a file, and tokens (JWT) signed with keys that an issuer publishes.

Either is enough where both are configured; where neither is, everybody may ask.
"""

import base64
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from yoloserve.errors import InvalidSettings, Unauthorized
from yoloserve.settings import Settings

if TYPE_CHECKING:
    from yoloserve.access.tokens import Tokens

log = logging.getLogger(__name__)

LEAST_KEY_LENGTH = 16
LOOK_AGAIN_S = 1.0  # how soon a changed file of keys is seen
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


class Access:
    """Everything that may be shown to be let in."""

    def __init__(self, keys: ApiKeys | None = None, tokens: "Tokens | None" = None) -> None:
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
            from yoloserve.access.tokens import Tokens

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
