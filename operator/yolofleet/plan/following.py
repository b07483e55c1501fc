"""Whether somebody routes by a detector's route as it is: a route alone moves no request."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from yolofleet.api.hosts import MESH, gateway_name
from yolofleet.api.names import Manifest
from yolofleet.api.status import Reason


class Following(Enum):
    """Whether the router does what the route says."""

    YES = "yes"
    PENDING = "pending"  # what the route said before, perhaps
    NOBODY = "nobody"
    UNKNOWN = "unknown"  # it may, where the operator cannot read


@dataclass(frozen=True, slots=True)
class Followed:
    """Whether somebody routes, and what is to be said about it."""

    by: Following = Following.YES
    reason: Reason = Reason.ROUTED
    why: str = ""  # empty: there is nothing against it
    holds: bool | None = None  # what TrafficRouted is because of it

    @property
    def counts(self) -> bool:
        """Say whether the weights of the route may be taken for those of the traffic."""
        return self.by in (Following.YES, Following.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Mesh:
    """What of Istio's objects of others concerns a detector.

    delegates: whether a VirtualService that can be read delegates to it. everywhere: whether those
    of all namespaces can be read.
    """

    delegates: bool = False
    everywhere: bool = True


def accepted(route: Manifest) -> Followed:
    """Say whether a gateway routes by the HTTPRoute `route` in its present generation."""
    generation = route["metadata"].get("generation", 0)
    waits, served = [], 0
    for parent in route["spec"].get("parentRefs") or ():
        found = [_accepts(each, generation) for each in _told_by(parent, route)]
        if Following.YES in found:
            served += 1
        else:
            waits.append((parent["name"], Following.PENDING in found))
    if not waits:
        return Followed()
    told = f"{', '.join(sorted(name for name, _ in waits))} has not accepted the route"
    if any(before for _, before in waits):
        return Followed(Following.PENDING, Reason.ROUTE_PENDING, f"{told} as it is now yet")
    if served:
        return Followed(Following.YES, Reason.ROUTE_PENDING, f"{told}; others have")
    return Followed(Following.NOBODY, Reason.ROUTE_PENDING, f"{told}: nobody routes by it yet")


def _told_by(parent: Mapping[str, Any], route: Manifest) -> Iterator[Mapping[str, Any]]:
    """Return what each controller says for one of the route's parents."""
    namespace = route["metadata"]["namespace"]

    def which(ref: Mapping[str, Any]) -> tuple[Any, ...]:
        return ref.get("kind", "Gateway"), ref.get("namespace", namespace), ref.get("name")

    for told in (route.get("status") or {}).get("parents") or ():
        if which(told.get("parentRef") or {}) == which(parent):
            yield told


def _accepts(told: Mapping[str, Any], generation: int) -> Following:
    for condition in told.get("conditions") or ():
        if condition.get("type") == "Accepted" and condition.get("status") == "True":
            seen = condition.get("observedGeneration", generation)
            return Following.YES if seen >= generation else Following.PENDING
    return Following.NOBODY


def delegated(key: str, mesh: Mesh) -> Followed:
    """Say whether a VirtualService delegates to that of the detector `key`."""
    if mesh.delegates:
        return Followed()
    told = f"no VirtualService delegates to {key}"
    if mesh.everywhere:
        told += "; reference it from yours, or set spec.traffic.hosts"
        return Followed(Following.NOBODY, Reason.NOT_REFERENCED, told, holds=False)
    return Followed(
        Following.UNKNOWN,
        Reason.ROUTE_UNSEEN,
        f"{told} in the namespaces that the operator may read (watchNamespaces); one elsewhere may",
    )


def on_gateways(gateways: Sequence[str], namespace: str, absent: Collection[str]) -> Followed:
    """Say whether the gateways of a route with hosts exist."""
    names = [gateway_name(gateway, namespace) for gateway in gateways] or [MESH]
    missing = [name for name in names if name in absent]
    if not missing:
        return Followed()
    told = f"spec.traffic.gateways: {', '.join(missing)} does not exist; make it, or name another"
    by = Following.YES if len(missing) < len(names) else Following.NOBODY
    return Followed(by, Reason.GATEWAY_ABSENT, told, holds=False)
