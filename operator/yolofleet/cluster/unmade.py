"""What of a detector could not be made: who waits for it, and whose turn it is."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

import orjson

from yolofleet.api.names import REVISION_LABEL, Manifest
from yolofleet.api.status import Reason
from yolofleet.cluster import kinds
from yolofleet.runtime.errors import Refused, ResourceConflict
from yolofleet.runtime.failures import Failed
from yolofleet.runtime.objects import identity
from yolofleet.workloads.choice import WORKLOADS, workload_of

_ROUTES: Final = frozenset({kind.name for kind in kinds.ROUTERS.values()})
_BACKENDS: Final = frozenset({kinds.SERVICE.name, kinds.DESTINATION_RULE.name})


def backends(failed: Iterable[Failed]) -> frozenset[str]:
    """Return the names of those of `failed` that a route leads by."""
    return frozenset(each.name for each in failed if each.kind in _BACKENDS)


def waits(manifest: Manifest, unmade: Failed, there: Collection[tuple[str, str]]) -> bool:
    """Say whether `manifest` is to wait for what is not there, or is another's.

    By a route requests would go there; pods would have rights that nobody gave them here, or be
    open to everybody. there: (kind, name) of the children that are: what serves goes on.
    """
    if manifest["kind"] in _ROUTES and unmade.kind in _BACKENDS:
        host = rf'"{re.escape(unmade.name)}(\.{manifest["metadata"]["namespace"]}\.svc[^"]*)?"'
        return re.search(host, orjson.dumps(manifest["spec"]).decode()) is not None
    workload = workload_of(manifest)
    if workload and unmade.kind == kinds.NETWORK_POLICY.name:
        if of := unmade.manifest["metadata"]["labels"].get(REVISION_LABEL):
            return bool(of == manifest["metadata"]["name"]) and identity(manifest) not in there
        return not runs(there)
    if workload and unmade.kind == kinds.SERVICE_ACCOUNT.name:
        foreign = isinstance(unmade.error, ResourceConflict)  # with rights that nobody gave it here
        pod = workload.pod(manifest)["spec"]
        return foreign and pod.get("serviceAccountName") == unmade.name
    return False


def runs(there: Iterable[tuple[str, str]]) -> bool:
    """Say whether anything of the children (kind, name) makes pods."""
    return any(kind in WORKLOADS for kind, _ in there)


def reason_of(failed: Failed) -> Reason:
    """Return why an object is not as wanted, in one word: who has to act."""
    if isinstance(failed.error, ResourceConflict):
        return Reason.RESOURCE_CONFLICT
    return Reason.WRITE_REFUSED if isinstance(failed.error, Refused) else Reason.WRITE_FAILED
