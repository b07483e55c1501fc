"""What is shown to be let in: API keys from a file, or tokens (JWT) of an issuer.

Either is enough where both are configured; where neither is, everybody may ask.
"""

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING

from yoloserve.access.clients import Client
from yoloserve.access.keys import ApiKeys
from yoloserve.errors import Unauthorized
from yoloserve.settings import Settings

if TYPE_CHECKING:
    from yoloserve.access.tokens import Tokens


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
        if self._keys and (client := self._keys.find(secret)):  # a key may have two dots, too
            return client
        if self._tokens and secret.count(".") == 2:
            return await self._tokens.client(secret)
        if self._keys:
            return self._keys.client(secret)
        raise Unauthorized("send a token: Authorization: Bearer ...")

    def is_key(self, secret: str) -> bool:
        """Say whether a client is let in by this key."""
        return bool(self._keys and self._keys.find(secret))

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
