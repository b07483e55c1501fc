"""What of a detector could not be made: who would lead to nothing by it, and whose turn it is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import orjson

from yolofleet.api.names import Manifest
from yolofleet.api.status import Reason
from yolofleet.cluster import kinds
from yolofleet.runtime.errors import Refused, ResourceConflict
from yolofleet.runtime.failures import Failed
from yolofleet.workloads.choice import workload_of

_ROUTES: Final = frozenset({kind.name for kind in kinds.ROUTERS.values()})
_BACKENDS: Final = frozenset({kinds.SERVICE.name, kinds.DESTINATION_RULE.name})


def backends(failed: Iterable[Failed]) -> frozenset[str]:
    """Return the names of those of `failed` that a route leads by."""
    return frozenset(each.name for each in failed if each.kind in _BACKENDS)


def leads_to_nothing(manifest: Manifest, unmade: Failed) -> bool:
    """Say whether `manifest` names what is not there, or is another's: requests would go there."""
    if manifest["kind"] in _ROUTES and unmade.kind in _BACKENDS:
        host = rf'"{re.escape(unmade.name)}(\.{manifest["metadata"]["namespace"]}\.svc[^"]*)?"'
        return re.search(host, orjson.dumps(manifest["spec"]).decode()) is not None
    workload = workload_of(manifest)
    if workload and unmade.kind == kinds.SERVICE_ACCOUNT.name:
        foreign = isinstance(unmade.error, ResourceConflict)  # with rights that nobody gave it here
        pod = workload.pod(manifest)["spec"]
        return foreign and pod.get("serviceAccountName") == unmade.name
    return False


def reason_of(failed: Failed) -> Reason:
    """Return why an object is not as wanted, in one word: who has to act."""
    if isinstance(failed.error, ResourceConflict):
        return Reason.RESOURCE_CONFLICT
    return Reason.WRITE_REFUSED if isinstance(failed.error, Refused) else Reason.WRITE_FAILED
