"""The validating webhook, on its own port with TLS: every replica answers, leader or not.

Not kopf's: that answers an unknown path with "allowed". Here all that is not asked properly, at
the one path there is, is refused.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import web

from yolofleet.api.base import first_of
from yolofleet.api.names import KIND, Manifest
from yolofleet.cluster import kinds
from yolofleet.cluster.cache import Cache
from yolofleet.plan.admission import Neighbours, Verdict, judge
from yolofleet.plan.defaults import Defaults
from yolofleet.routers.choice import router_of
from yolofleet.routers.claims import wanted
from yolofleet.runtime import nesting

logger = logging.getLogger(__name__)

PATH: Final = "/validate-yolofleet-io-v1alpha1-yolodetector"
REREAD_S: Final = 10.0  # the kubelet takes about a minute to bring a new Secret to the pod
MAX_REVIEW: Final = 8 << 20  # an object is at most 3 MiB; a review has two


class BadCertificate(Exception):
    """The certificate or its key is absent or cannot be used; the message names the folder."""


class Certificate:
    """`tls.crt` and `tls.key` of a folder, as a Secret is mounted; read again when they change."""

    def __init__(self, folder: Path, read: Callable[[bool], None] = lambda _well: None) -> None:
        self._folder = folder
        self._was_read = read
        self._content = b""
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.read()

    def read(self) -> None:
        """Use what is in the folder now, for connections to come. Raises `BadCertificate`."""
        chain, key = self._folder / "tls.crt", self._folder / "tls.key"
        try:
            content = chain.read_bytes() + key.read_bytes()
            if content == self._content:
                return
            ssl.create_default_context().load_cert_chain(chain, key)  # half written: not ours
            self.context.load_cert_chain(chain, key)
        except (OSError, ssl.SSLError) as error:
            self._was_read(False)
            raise BadCertificate(f"no usable tls.crt and tls.key in {self._folder}: {error}") from (
                error
            )
        self._content = content
        self._was_read(True)

    async def keep_fresh(self) -> None:
        """Read the files again and again, until cancelled; a bad pair leaves the old one in use."""
        while True:
            await asyncio.sleep(REREAD_S)
            before = self._content
            try:
                await asyncio.to_thread(self.read)
            except BadCertificate as error:
                logger.warning("certificate not renewed", extra={"fields": {"error": str(error)}})
            else:
                if self._content != before:
                    logger.info("certificate renewed")


async def serve(
    cache: Cache,
    warm: Callable[[], bool],
    certificate: Certificate,
    port: int,
    defaults: Defaults,
) -> web.AppRunner:
    """Answer reviews on `port`; the caller cleans the runner up."""

    async def review(request: web.Request) -> web.Response:
        try:
            asked = nesting.shallow(nesting.read(await request.read()))["request"]
            uid, new, old = str(asked["uid"]), asked["object"], asked.get("oldObject")
            if request.path != PATH:
                return _answer(uid, Verdict((f"{request.path} is no path of this webhook",)), 404)
            if asked["kind"]["kind"] != KIND or not isinstance(new, dict):
                return _answer(uid, Verdict((f"only the making of a {KIND} is judged",)), 400)
            if not (warm() or "deletionTimestamp" in new["metadata"]):
                message = "the operator is starting, and does not know all detectors yet; try again"
                return _answer(uid, Verdict((message,)), 503)
            metadata = new["metadata"] | {"namespace": asked["namespace"]}
            metadata.setdefault("name", metadata.get("generateName", ""))
            new |= {"metadata": metadata}
            if isinstance(old, dict):
                old |= {"metadata": old["metadata"] | {"namespace": asked["namespace"]}}
            return _answer(uid, judge(new, old, _neighbours(new, cache, defaults)), 422)
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            return web.Response(status=400, text=f"not an AdmissionReview: {error!r}\n")

    app = web.Application(client_max_size=MAX_REVIEW)
    app.router.add_post("/{path:.*}", review)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port, ssl_context=certificate.context).start()
    logger.info("serving admission", extra={"fields": {"port": port, "path": PATH}})
    return runner


def _neighbours(new: Manifest, cache: Cache, defaults: Defaults) -> Neighbours:
    """Return what of the cache matters for `new`."""
    namespace, name = new["metadata"]["namespace"], new["metadata"]["name"]
    owner = ""
    for kind in kinds.CHILDREN:
        if entry := cache.named(kind, namespace, name):
            owner = entry.key.partition("/")[2]
    routers, absent = cache.routers(), cache.absent(new, defaults.namespaces)
    key, claims = f"{namespace}/{name}", wanted(new, routers, absent)
    by = router_of(new, routers, absent).KIND
    others = cache.routes.shadows(key, claims, by)
    return Neighbours(
        cache.detectors(),
        {**others, **cache.routes.rivals(key, claims)},
        owner,
        defaults.allowed,
        defaults.forbidden,
        routers,
        absent,
        tuple(cache.routes.crossed(key, claims)),
        cache.shut(by, namespace, claims),
    )


def _answer(uid: str, verdict: Verdict, code: int) -> web.Response:
    response: dict[str, Any] = {"uid": uid, "allowed": not verdict.refusals}
    if verdict.refusals:
        response["status"] = {"code": code, "message": "; ".join(first_of(verdict.refusals))}
    if verdict.warnings:
        response["warnings"] = [warning[:256] for warning in first_of(verdict.warnings)]
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
    return web.Response(body=orjson.dumps(review), content_type="application/json")
