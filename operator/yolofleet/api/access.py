"""Who may talk to a detector's pods, and whom they may talk to."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from yolofleet.api.base import ApiModel, FreeForm, Rule


class Isolation(StrEnum):
    """What the detector's NetworkPolicy holds off."""

    RESTRICTED = "Restricted"
    INGRESS_ONLY = "IngressOnly"
    NONE = "None"


class Protocol(StrEnum):
    """The protocols that a NetworkPolicy knows."""

    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"


class Peer(ApiModel):
    """Pods or addresses, as in a NetworkPolicy."""

    rules = (
        Rule(
            "has(self.ipBlock) != (has(self.podSelector) || has(self.namespaceSelector))",
            "spec.access: a peer is an ipBlock, or a podSelector, a namespaceSelector or both"
            " (namespaceSelector: {} stands for every namespace)",
        ),
    )

    pod_selector: FreeForm | None = Field(
        default=None,
        description="Pods of the detector's namespace, or of those that namespaceSelector names.",
    )
    namespace_selector: FreeForm | None = Field(
        default=None, description="Namespaces by label; {} for all of them."
    )
    ip_block: FreeForm | None = Field(
        default=None, description="cidr, and except in it. Not for pods, whose addresses change."
    )


class PortOf(ApiModel):
    """A port of a peer."""

    port: Annotated[int, Field(ge=1, le=65_535)] = Field(description="Its number.")
    protocol: Protocol = Field(default=Protocol.TCP, description="TCP, UDP or SCTP.")


class Reach(ApiModel):
    """Peers and ports that the pods may connect to."""

    rules = (
        Rule(
            "size(self.to) > 0 || size(self.ports) > 0",
            "spec.access.allowTo: an entry needs `to`, `ports` or both; to allow everything, set"
            " spec.access.networkPolicy to IngressOnly",
        ),
    )

    to: Annotated[list[Peer], Field(max_length=16)] = Field(
        default=[], description="The peers. Empty: any address."
    )
    ports: Annotated[list[PortOf], Field(max_length=16)] = Field(
        default=[], description="Their ports. Empty: any port."
    )


class Access(ApiModel):
    """Who may talk to the pods, and whom they may talk to."""

    rules = (
        Rule(
            "self.networkPolicy != 'None' || size(self.allowFrom) + size(self.allowTo) == 0",
            "spec.access.networkPolicy: is None, so allowFrom and allowTo have no effect; remove"
            " them, or set it to Restricted",
            ".networkPolicy",
        ),
        Rule(
            "self.networkPolicy != 'IngressOnly' || size(self.allowTo) == 0",
            "spec.access.allowTo: has no effect with networkPolicy IngressOnly, which restricts no"
            " outgoing connection; remove it, or set networkPolicy to Restricted",
            ".allowTo",
        ),
    )

    network_policy: Isolation = Field(
        default=Isolation.RESTRICTED,
        description="Restricted: pods accept connections to the ports that their containers declare"
        " and make them to DNS, to the ports of every URL in their settings (the model's above"
        " all), to other pods of the detector and to what allowTo adds; when podTemplate adds"
        " containers, whose needs nobody can tell, they may connect to anything unless allowTo is"
        " given. IngressOnly: only the first half. None: no NetworkPolicy is made. Without a"
        " network plug-in that enforces policies none of this has an effect.",
    )
    allow_from: Annotated[list[Peer], Field(max_length=32)] = Field(
        default=[],
        description="Who may connect, besides the detector's own pods. Empty: anybody. Name your"
        " gateway's namespace and that of Prometheus, which scrapes the serving port.",
    )
    allow_to: Annotated[list[Reach], Field(max_length=32)] = Field(
        default=[], description="What else the pods may connect to."
    )
