"""Who routes what: a host on a gateway goes to one detector.

A claim is what a spec asks for, and what a route that is there has. Reads what the API server
stores without parsing it: it is asked of every object that passes.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from yolofleet.api.detector import Provider
from yolofleet.api.hosts import MESH, MOST_NAMED, gateway_name, normal, texts, wrong_with
from yolofleet.api.names import Manifest
from yolofleet.api.status import ConditionType, Reason
from yolofleet.routers.choice import NONE_ABSENT, Absent, router_of, router_of_kind

Claim = tuple[str, str]
"""A gateway (NAMESPACE/NAME, or the mesh as clients of one namespace see it) and a host name on it.

Inside the mesh each namespace has its own: a route there is seen by its own namespace alone.
"""


MOST_CROSSINGS: Final = 100
"""So many hosts of others that share requests with those of one detector are told."""


@dataclass(frozen=True, slots=True)
class Area:
    """Hosts on gateways, each on each: not multiplied out, for nobody bounds how many there are."""

    hosts: frozenset[str]
    gateways: frozenset[str]


@dataclass(frozen=True, slots=True)
class Crossing:
    """Two hosts of two detectors on one gateway, one of which is below the wildcard of the other.

    Routers give a request to the narrower. mine: which one the detector has that is told of it.
    """

    gateway: str
    mine: str
    other: str
    detector: str

    def __str__(self) -> str:
        """Say who gets the requests."""
        if below(self.other, self.mine):
            return (
                f"requests for {self.other} go to the detector {self.detector}, not to {self.mine}"
            )
        return f"{self.mine} takes its requests from {self.other} of the detector {self.detector}"


@dataclass(frozen=True, slots=True)
class Wish:
    """Where a detector asks to be routed: at each host on each gateway, which are listed once.

    Hosts as routers compare them; gateways as NAMESPACE/NAME, or mesh.
    """

    name: str
    namespace: str
    hosts: tuple[str, ...]
    gateways: tuple[str, ...]

    def claim(self, gateway: str, host: str) -> Claim:
        """Return what it claims with `host` on `gateway`."""
        return claim(gateway, host, self.namespace)

    def claims(self) -> frozenset[Claim]:
        """Return all of it, but for hosts that nobody may have."""
        found = set[Claim]()
        for meshed in (True, False):  # what is no name for clients inside may be one at a gateway
            where = [each for each in self.gateways if (each == MESH) is meshed]
            proper = [host for host in self.hosts if where and not self.improper(host, where)]
            found |= _product(proper, where, self.namespace)
        return frozenset(found)

    def improper(self, host: str, gateways: Sequence[str]) -> str:
        """Say why nobody, or not this detector, may route `host` on `gateways`."""
        return improper(host, gateways, own=f"{self.name}.{self.namespace}")


def wish_for(name: str, namespace: str, hosts: Iterable[str], gateways: Iterable[str]) -> Wish:
    """Return the wish of the detector `name` for `hosts` and `gateways` as a spec has them."""
    full = (gateway_name(gateway, namespace) for gateway in gateways)
    once, on = dict.fromkeys(map(normal, hosts)), dict.fromkeys(full)
    return Wish(name, namespace, tuple(once), tuple(on))


def below(host: str, wildcard: str) -> bool:
    """Say whether `wildcard` (*.example.com) would stand for `host`, were that nobody's."""
    return wildcard.startswith("*.") and host != wildcard and host.endswith(wildcard[1:])


def wildcards_over(host: str) -> list[str]:
    """Return the wildcards that would stand for `host`, but for the one that is every host."""
    labels = host.split(".")[1:]
    ways = (f"*.{'.'.join(labels[at:])}" for at in range(len(labels)))
    return [wildcard for wildcard in ways if wildcard != host]


NOTHING: Final = frozenset[Claim]()


def wish_of(
    raw: Manifest, routers: Collection[Provider] = (), absent: Absent = NONE_ABSENT
) -> Wish:
    """Return where a detector asks to be routed; one that is on its way out asks for nothing.

    routers: what of Istio and the Gateway API is there; absent: the gateways of each that are not.
    """
    metadata, traffic = raw["metadata"], (raw.get("spec") or {}).get("traffic") or {}
    name, namespace = str(metadata["name"]), str(metadata["namespace"])
    if "deletionTimestamp" in metadata or not isinstance(traffic, Mapping):
        return Wish(name, namespace, (), ())
    named = _named(traffic.get("hosts")) if traffic.get("hosts") else None
    router = router_of(raw, routers, absent)
    return wish_for(name, namespace, *router.asked(named, _named(traffic.get("gateways"))))


def wanted(
    raw: Manifest, routers: Collection[Provider] = (), absent: Absent = NONE_ABSENT
) -> frozenset[Claim]:
    """Return what a detector asks for, but for hosts that nobody may have."""
    return wish_of(raw, routers, absent).claims()


_STUCK: Final = frozenset(
    {Reason.SUSPENDED, Reason.INVALID_SPEC, Reason.READ_FAILED, Reason.OPERATOR_FAILED}
)


def moves(raw: Manifest) -> bool:
    """Say whether a detector will write the route that it asks for, as far as its status tells.

    What its status does not speak of yet may be a spec that nobody can follow.
    """
    reasons = _told(raw)
    return (
        reasons is not None
        and ConditionType.WRITTEN not in reasons
        and reasons.get(ConditionType.PROGRESSING) not in _STUCK
    )


def rests(raw: Manifest) -> bool:
    """Say whether nothing is written for a detector until its spec is another one.

    It holds what its route has, and no more: that would be dark for as long. An invalid spec may be
    valid to the next operator, who would write without having asked.
    """
    return (_told(raw) or {}).get(ConditionType.PROGRESSING) == Reason.SUSPENDED


def _told(raw: Manifest) -> Mapping[Any, Any] | None:
    """Return the reasons in its status by their conditions, if that speaks of the spec as it is."""
    status = raw.get("status") or {}
    if status.get("observedGeneration") != raw["metadata"].get("generation"):
        return None
    return {c.get("type"): c.get("reason") for c in status.get("conditions") or ()}


def routed(route: Manifest) -> frozenset[Claim]:
    """Return what the route of a detector has now; not more than it may, whoever wrote it."""
    metadata, spec = route["metadata"], route.get("spec") or {}
    if "deletionTimestamp" in metadata:
        return NOTHING
    router = router_of_kind(route["kind"])
    hosts, gateways = router.asked(*router.places(spec))
    return _product(hosts[:MOST_NAMED], gateways[:MOST_NAMED], str(metadata["namespace"]))


def shadowed(route: Manifest) -> tuple[Area, ...]:
    """Return of which areas the route of somebody who is no detector leaves nothing to others."""
    metadata = route["metadata"]
    if "deletionTimestamp" in metadata:
        return ()
    hosts, gateways = router_of_kind(route["kind"]).shadows(route)
    namespace, places = str(metadata["namespace"]), set(gateways)
    areas = (
        Area(
            frozenset(claim(MESH, host, namespace)[1] for host in hosts),
            frozenset(inside(namespace) for _ in {MESH} & places),
        ),
        Area(
            frozenset(normal(host) for host in hosts),
            frozenset(gateway_name(gateway, namespace) for gateway in places - {MESH}),
        ),
    )
    return tuple(area for area in areas if area.hosts and area.gateways)


def named_gateways(raw: Manifest) -> frozenset[str]:
    """Return NAMESPACE/NAME of the gateways that a detector names, and mesh if it does."""
    traffic = (raw.get("spec") or {}).get("traffic") or {}
    given = texts(traffic.get("gateways")) if isinstance(traffic, Mapping) else []
    namespace = str(raw["metadata"]["namespace"])
    return frozenset(gateway_name(gateway, namespace) for gateway in given)


def claim(gateway: str, host: str, namespace: str) -> Claim:
    """Return what a detector of `namespace` claims with `host` on `gateway`."""
    named, host = gateway_name(gateway, namespace), normal(host)
    if named != MESH:
        return named, host
    return inside(namespace), host if "." in host else f"{host}.{namespace}"


def inside(namespace: str) -> str:
    """Return as what gateway the mesh counts for clients of `namespace`; no object is named so."""
    return f"{MESH} of {namespace}"


def as_named(gateway: str) -> str:
    """Return the gateway of a claim as a spec names it."""
    return gateway.partition(" ")[0]


def improper(host: str, gateways: Sequence[str], *, own: str) -> str:
    """Say why the detector whose Service is `own` (NAME.NAMESPACE) may not route `host`."""
    if wrong := wrong_with(host, gateways):
        return wrong
    host = normal(host)
    meshed = not gateways or MESH in gateways
    if meshed and host.count(".") == 1 and host != own:
        service, _, namespace = host.partition(".")
        return (
            f"inside the mesh this is also what clients call the Service {service} of the namespace"
            f" {namespace}; name a host with more than one dot"
        )
    return ""


def _product(hosts: Sequence[str], gateways: Sequence[str], namespace: str) -> frozenset[Claim]:
    names = [gateway_name(gateway, namespace) for gateway in gateways]
    return frozenset(claim(gateway, host, namespace) for host in hosts for gateway in names)


def _named(values: Any) -> list[str]:
    """Return as many names as may be given: the spec has more only where it is refused."""
    return texts(values[:MOST_NAMED] if isinstance(values, list) else values)
