"""The operator, which says with each write what it had heard of when it decided it.

A module in place of `yolofleet`. What it says is a parameter of the request that the proxy takes
off again: which version of the detector, and of each workload, a pass had before it. So that a
write is judged by what its author could know, however late a busy machine brought it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from typing import Final

from yolofleet.api.detector import Detector
from yolofleet.api.names import KIND, Manifest
from yolofleet.cluster import kinds
from yolofleet.plan.snapshot import Snapshot

PARAMETER: Final = "heard"
_JUDGED: Final = {KIND, *(kind.name for kind in kinds.WORKLOADS)}

Heard = Mapping[str, int]
"""Versions by `Kind/name`."""

_heard: ContextVar[str] = ContextVar("heard", default="")


def key_of(manifest: Manifest) -> str:
    """Return by what `Heard` knows an object."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def written(manifests: Iterable[Manifest]) -> str:
    """Write down the versions of those of `manifests` by which a write is judged."""
    judged = (each for each in manifests if each["kind"] in _JUDGED)
    return ",".join(f"{key_of(each)}={each['metadata']['resourceVersion']}" for each in judged)


def read(text: str) -> Heard:
    """Read what was written down."""
    pairs = (each.rpartition("=") for each in filter(None, text.split(",")))
    return {key: int(version) for key, _, version in pairs}


def speak() -> None:
    """Let the operator of this process say it."""
    from yolofleet import reconcile
    from yolofleet.runtime import client

    look, send = reconcile._Turn.look, client.Client.send

    async def noting(turn: reconcile._Turn, detector: Detector) -> Snapshot:
        seen = await look(turn, detector)
        _heard.set(written((turn.raw, *seen.children)))
        return seen

    async def saying(sender: client.Client, request: client.Request) -> Manifest:
        if request.writes and (heard := _heard.get()):
            request = replace(request, query={**request.query, PARAMETER: heard})
        return await send(sender, request)

    setattr(reconcile._Turn, look.__name__, noting)
    setattr(client.Client, send.__name__, saying)


def main() -> int:
    """Run the operator."""
    from yolofleet import __main__ as operator

    speak()
    return operator.main()
