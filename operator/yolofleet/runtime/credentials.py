"""Where the API server is and how to prove who we are: a kubeconfig, else the pod's own account."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import aiohttp
from kubernetes import config
from kubernetes.client import Configuration
from kubernetes.config.config_exception import ConfigException

from yolofleet.runtime.errors import Forbidden

_REFRESH_SECONDS = 60.0  # a mounted token rotates long before it expires


@dataclass(slots=True)
class Credentials:
    """The address of the API server, how it is trusted, and a token that is kept fresh."""

    server: str
    trust: ssl.SSLContext
    read_token: Callable[[], str]
    _token: str = ""
    _read_at: float = field(default=float("-inf"))

    async def authorization(self) -> str:
        """Return the value of the Authorization header, or nothing (client certificates)."""
        if time.monotonic() - self._read_at > _REFRESH_SECONDS:
            self._token = await asyncio.to_thread(self.read_token)  # a file, or a login helper
            self._read_at = time.monotonic()
        return self._token

    def session(self, *middlewares: aiohttp.ClientMiddlewareType) -> aiohttp.ClientSession:
        """Return a new HTTP session that signs each request; the caller closes it."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self.trust),  # workers bound it
            middlewares=(*middlewares, self._sign),
            headers={"User-Agent": "yolofleet"},
        )

    async def _sign(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if token := await self.authorization():
            request.headers["Authorization"] = token
        response = await handler(request)
        if response.status == HTTPStatus.UNAUTHORIZED and token == self._token:
            self._read_at = float("-inf")  # it may have been replaced: the next request reads it
        return response


def find_credentials() -> Credentials:
    """Read the kubeconfig ($KUBECONFIG, ~/.kube/config), else what a pod is given.

    Raises `Forbidden` when there is neither.
    """
    found = Configuration()
    try:
        config.load_kube_config(client_configuration=found)
    except ConfigException:
        try:
            config.load_incluster_config(client_configuration=found)
        except ConfigException as error:
            raise Forbidden(
                f"no cluster to talk to ({error}); set KUBECONFIG, or run in a pod"
            ) from error
    return credentials_of(found)


def credentials_of(found: Any) -> Credentials:
    """Take over what the `kubernetes` package read (a `kubernetes.client.Configuration`)."""
    return Credentials(found.host, _trust(found), lambda: _token(found))


def _trust(found: Any) -> ssl.SSLContext:
    trust = ssl.create_default_context(cafile=found.ssl_ca_cert)
    if not found.verify_ssl:
        trust.check_hostname = False
        trust.verify_mode = ssl.CERT_NONE
    if found.cert_file:
        trust.load_cert_chain(found.cert_file, found.key_file)
    return trust


def _token(found: Any) -> str:
    return str(found.get_api_key_with_prefix("BearerToken", alias="authorization") or "")
