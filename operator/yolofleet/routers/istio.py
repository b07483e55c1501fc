"""Istio: one VirtualService a detector, one DestinationRule a revision.

Weights point at the Services of revisions, not at subsets of one: a destination exists from the
moment its revision does, and changing or dropping one can never touch another. They are named
without a dot: Istio takes such a name for one of the object's own namespace, whatever the domain of
the cluster is called (https://istio.io/latest/docs/reference/config/networking/virtual-service/,
Destination).
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import Any

from yolofleet.api.detector import Detector, HeaderMatch
from yolofleet.api.hosts import MESH, MOST_NAMED, gateway_name, normal, texts
from yolofleet.api.names import Manifest
from yolofleet.api.status import Reason
from yolofleet.manifests.child import child
from yolofleet.routers.buckets import Buckets, buckets_of, pattern
from yolofleet.routers.doors import ANY, Doors
from yolofleet.routers.following import Followed, Following, Mesh
from yolofleet.routers.router import STAMP, Places, Route

KIND = "VirtualService"
POINTS: tuple[str, ...] = ("Service", "DestinationRule")
TAKES_ALL_HOSTS = False  # without hosts it is a delegate, to which others lead
MOST_HOSTS = MOST_NAMED
NEEDS_GATEWAYS = False
ACKNOWLEDGES = False
LACKING = "need Istio, whose API (networking.istio.io/v1) is not in the cluster; install it"
STICKS = ""

FIELDS: tuple[tuple[str, str], ...] = (
    (r"spec\.(hosts|gateways)", r"spec.traffic.\1"),
    (r"spec\.http(\[\d+\])?\.match", "spec.canary.match"),
)

PROXIES_IN: tuple[int, ...] = (15008, 15020, 15090)
"""Its tunnel between nodes (ambient), its proxies' merged and own metrics."""

PROXIES_OUT: tuple[int, ...] = (15008, 15012)
"""The same tunnel; and istiod, without which a proxy gets neither routes nor certificates."""

RETRY_ON = "connect-failure,refused-stream,reset-before-request"
"""Only what surely did not reach a model: a request is never run twice."""

_WEIGHTED = "weighted"
"""The name of the rule for all that matches nothing: by it the weights are found again."""

_MATCHED = "matched"
"""The name of the rule for what matches."""

_STICKY = "sticky-"
"""What the names of the rules for cameras begin with, before that of their revision."""

_OWN_NAMESPACE = ["."]
"""For a route inside the mesh: it changes where the clients that see it go, and these are its own
namespace's. A gateway, and a root that delegates, have to see it from elsewhere."""


# writing


def destination_rules(detector: Detector, revision: str, /) -> list[Manifest]:
    """Return how proxies talk to the pods of `revision`."""
    template = "destination_rule.yaml.j2"
    return [child(template, detector, revision, revision=revision)]


def routes(detector: Detector, route: Route, /) -> list[Manifest]:
    """Return the VirtualService."""
    return [
        child(
            "virtual_service.yaml.j2",
            detector,
            detector.name,
            hosts=route.hosts or None,
            gateways=route.gateways or None,
            seen_by=_OWN_NAMESPACE if route.hosts and set(route.gateways) <= {MESH} else None,
            http=[
                rule | _stamped(route)
                for rule in (
                    *_matched(detector, route),
                    *_sticky(detector, route),
                    _weighted(detector, route),
                )
            ],
        )
    ]


def _stamped(route: Route) -> dict[str, Any]:
    return {"headers": {"request": {"set": dict([STAMP])}}} if route.stamped else {}


def _weighted(detector: Detector, route: Route) -> dict[str, Any]:
    leads = [
        {"destination": _destination(name), "weight": weight}
        for name, weight in route.leads.items()
    ]
    return {"name": _WEIGHTED, "route": leads, "retries": _retries(detector)}


def _retries(detector: Detector) -> dict[str, Any]:
    attempts = detector.spec.traffic.retries
    return {"attempts": attempts} | ({"retryOn": RETRY_ON} if attempts else {})


def _matched(detector: Detector, route: Route) -> list[dict[str, Any]]:
    if not route.matched:
        return []
    leads = [{"destination": _destination(route.matched), "weight": 100}]
    match = [{"headers": _headers(entry)} for entry in route.match]
    return [{"name": _MATCHED, "match": match, "route": leads, "retries": _retries(detector)}]


def _sticky(detector: Detector, route: Route) -> list[dict[str, Any]]:
    return [
        {
            "name": f"{_STICKY}{name}",
            "match": [{"headers": {route.sticky: {"regex": pattern(buckets)}}}],
            "route": [{"destination": _destination(name), "weight": 100}],
            "retries": _retries(detector),
        }
        for name, buckets in route.buckets.items()
    ]


def _headers(entry: HeaderMatch) -> dict[str, Any]:
    return {name: how.model_dump(exclude_none=True) for name, how in entry.headers.items()}


def _destination(revision: str) -> dict[str, Any]:
    return {"host": revision, "port": {"number": 80}}


# reading


def asked(hosts: list[str] | None, gateways: list[str], /) -> Places:
    """Return where a spec asks to be routed."""
    return hosts or [], gateways or [MESH]


def places(spec: Mapping[str, Any], /) -> Places:
    """Return where a VirtualService answers."""
    hosts = texts(spec.get("hosts"))
    return hosts, (texts(spec.get("gateways")) or [MESH]) if hosts else []


def shadows(route: Manifest, /) -> Places:
    """Return where a VirtualService of somebody else leaves no request to a younger one.

    Gateways join those of one host, and what takes all requests in the older one goes first.
    Sidecars take one whole: that for their namespace alone before all others.
    """
    metadata, spec = route["metadata"], route.get("spec") or {}
    hosts, gateways = places(spec)
    rules = [rule for rule in spec.get("http") or () if isinstance(rule, Mapping)]
    seen_by, own = set(texts(spec.get("exportTo"))) or {"*"}, str(metadata["namespace"])
    if "." in seen_by:
        seen_by = seen_by - {"."} | {own}
    all_of_it = any(_takes_all(rule) for rule in rules)
    on = [
        gateway
        for gateway in gateways
        if (
            bool(rules) and seen_by == {own}
            if gateway == MESH
            else all_of_it and seen_by & {"*", gateway_name(gateway, own).partition("/")[0]}
        )
    ]
    return hosts, on


def _takes_all(rule: Mapping[str, Any]) -> bool:
    matches = rule.get("match")
    return not matches or any(
        isinstance(match, Mapping) and {**match, "name": ""} == {"uri": {"prefix": "/"}, "name": ""}
        for match in matches
    )


def doors(gateway: Manifest, /) -> Doors | None:
    """Return whom a Gateway lets in; None where it does not say it.

    A host is NAMESPACE/NAME: of one namespace, of its own (.), or of any (*, as without one).
    """
    metadata, servers = gateway["metadata"], (gateway.get("spec") or {}).get("servers")
    listed = servers if isinstance(servers, list) else []
    names = set[tuple[str, str]]()
    for each in (server for server in listed if isinstance(server, Mapping)):
        for host in texts(each.get("hosts")):
            namespace, slash, name = host.partition("/")
            own = metadata["namespace"] if namespace == "." else namespace
            names.add((own, normal(name)) if slash else (ANY, normal(host)))
    return Doors(frozenset(names), "servers.hosts") if names else None


def leads(spec: Mapping[str, Any], /) -> dict[str, int]:
    """Return the weights of the rule that has them, wherever it stands.

    Where somebody renamed it, it is the one that all requests match: they still go by it.
    """
    rules = spec.get("http") or ()
    named = (rule for rule in rules if rule.get("name") == _WEIGHTED)
    unmatched = (rule for rule in rules if not rule.get("match"))
    weighted: Mapping[str, Any] = next(chain(named, unmatched), {})
    return {_revision(to): to.get("weight", 0) for to in weighted.get("route") or ()}


def matched(spec: Mapping[str, Any], /) -> str:
    """Return the Service of the rule by that name."""
    rules = (rule for rule in spec.get("http") or () if rule.get("name") == _MATCHED)
    return next((_revision(to) for rule in rules for to in rule.get("route") or ()), "")


def _revision(to: Mapping[str, Any]) -> str:
    # Earlier releases wrote the whole name.
    return str(to["destination"]["host"].split(".", 1)[0])


def buckets(spec: Mapping[str, Any], /) -> Buckets:
    """Return which cameras it keeps on which Service."""
    rules = [rule for rule in spec.get("http") or () if isinstance(rule, Mapping)]
    sticky = (rule for rule in rules if str(rule.get("name", "")).startswith(_STICKY))
    return {
        str(rule["name"]).removeprefix(_STICKY): buckets_of(str(how.get("regex", "")))
        for rule in sticky
        for match in rule.get("match") or ()
        for how in (match.get("headers") or {}).values()
    }


def followed(
    detector: Detector,
    hosts: Sequence[str],
    _route: Manifest | None,
    mesh: Mesh,
    _absent: Collection[str],
    /,
) -> Followed:
    """Say whether proxies route by it: without hosts of its own only by who delegates to it."""
    return Followed() if hosts else delegated(detector.key, mesh)


def refused(_route: Manifest, /) -> str:
    """Return nothing: Istio says of no route that it is not served."""
    return ""


def delegated(key: str, mesh: Mesh) -> Followed:
    """Say whether a VirtualService delegates to that of the detector `key`."""
    if mesh.delegates:
        return Followed()
    message = f"no VirtualService delegates to {key}"
    if mesh.everywhere:
        message += "; reference it from yours, or set spec.traffic.hosts"
        return Followed(Following.NOBODY, Reason.NOT_REFERENCED, message, status=False)
    return Followed(
        Following.UNKNOWN,
        Reason.ROUTE_UNSEEN,
        f"{message} in the namespaces that the operator may read (watchNamespaces);"
        " one elsewhere may",
    )


def delegates_of(route: Manifest) -> frozenset[str]:
    """Return "namespace/name" of the VirtualServices that a VirtualService delegates to."""
    metadata, rules = route["metadata"], (route.get("spec") or {}).get("http")
    if "deletionTimestamp" in metadata or not isinstance(rules, list):
        return frozenset()
    found = (rule.get("delegate") for rule in rules if isinstance(rule, Mapping))
    return frozenset(
        f"{to.get('namespace') or metadata['namespace']}/{to.get('name')}"
        for to in found
        if isinstance(to, Mapping)
    )
