"""Whether somebody routes by a detector's route as it is: a route alone moves no request."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from yolofleet.api.hosts import MESH, gateway_name
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
    status: bool | None = None  # what TrafficRouted is because of it
    in_part: bool = False  # pending at one router, while another does what the route says now

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


def on_gateways(gateways: Sequence[str], namespace: str, absent: Collection[str]) -> Followed:
    """Say whether the gateways of a route with hosts exist."""
    names = [gateway_name(gateway, namespace) for gateway in gateways] or [MESH]
    missing = [name for name in names if name in absent]
    if not missing:
        return Followed()
    message = (
        f"spec.traffic.gateways: {', '.join(missing)} does not exist; make it, or name another"
    )
    by = Following.YES if len(missing) < len(names) else Following.NOBODY
    return Followed(by, Reason.GATEWAY_ABSENT, message, status=False)
