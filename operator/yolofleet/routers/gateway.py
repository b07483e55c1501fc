"""The Gateway API: one HTTPRoute a detector, over the Services of its revisions."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from yolofleet.api.detector import Detector, StringMatch
from yolofleet.api.hosts import (
    EVERY_HOST,
    MESH,
    MOST_ON_HTTP_ROUTE,
    gateway_name,
    normal,
    texts,
)
from yolofleet.api.names import Manifest
from yolofleet.api.status import Reason
from yolofleet.manifests.child import child
from yolofleet.routers.buckets import Buckets, buckets_of, pattern
from yolofleet.routers.doors import ANY, Doors
from yolofleet.routers.following import Followed, Following, Mesh
from yolofleet.routers.router import STAMP, Places, Route

KIND = "HTTPRoute"
POINTS: tuple[str, ...] = ("Service",)
TAKES_ALL_HOSTS = True
MOST_HOSTS = MOST_ON_HTTP_ROUTE
NEEDS_GATEWAYS = True
ACKNOWLEDGES = True
LACKING = (
    "need the Gateway API (gateway.networking.k8s.io/v1), which is not in the cluster; install it"
)
STICKS = (
    "needs a gateway that matches headers by RegularExpression, and not every one does: remove it"
    " where the gateway's words are against that"
)

FIELDS: tuple[tuple[str, str], ...] = (
    (r"spec\.hostnames", "spec.traffic.hosts"),
    (r"spec\.parentRefs", "spec.traffic.gateways"),
    (r"spec\.rules(\[\d+\])?\.matches", "spec.canary.match"),
)

PROXIES_IN: tuple[int, ...] = ()
PROXIES_OUT: tuple[int, ...] = ()

_NAME_OF_NAMESPACE = "kubernetes.io/metadata.name"
"""The label by which the API server names each namespace."""

_TAKES_NO_HTTP = ("TCP", "TLS", "UDP")
"""Protocols of listeners to which no HTTPRoute is attached."""

_EVERY_REQUEST: Sequence[Mapping[str, Any]] = ({}, {"path": {"type": "PathPrefix", "value": "/"}})
"""Matches that all requests fulfil; the API server gives the latter to a rule that has none."""


# writing


def destination_rules(_detector: Detector, _revision: str, /) -> list[Manifest]:
    """Return nothing: a route leads to Services."""
    return []


def routes(detector: Detector, route: Route, /) -> list[Manifest]:
    """Return the HTTPRoute."""
    return [
        child(
            "http_route.yaml.j2",
            detector,
            detector.name,
            parents=[_parent(detector, name) for name in route.gateways or (MESH,)],
            hosts=None if EVERY_HOST in route.hosts else route.hosts or None,
            rules=[
                rule | _stamped(route)
                for rule in (*_matched(route), *_sticky(route), _weighted(route))
            ],
        )
    ]


def _parent(detector: Detector, gateway: str) -> dict[str, Any]:
    if gateway == MESH:  # clients inside a mesh, which call the detector's Service (GAMMA)
        return {"group": "", "kind": "Service", "name": detector.name, "port": 80}
    namespace, _, name = gateway.rpartition("/")
    return {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "namespace": namespace or detector.namespace,
        "name": name,
    }


def _stamped(route: Route) -> dict[str, Any]:
    if not route.stamped:
        return {}
    name, value = STAMP
    modifier = {"set": [{"name": name, "value": value}]}
    return {"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": modifier}]}


def _weighted(route: Route) -> dict[str, Any]:
    return {"backendRefs": [_backend(name, weight) for name, weight in route.leads.items()]}


def _matched(route: Route) -> list[dict[str, Any]]:
    if not route.matched:
        return []
    matches = [
        {"headers": [_header(name, how) for name, how in entry.headers.items()]}
        for entry in route.match
    ]
    return [{"matches": matches, "backendRefs": [_backend(route.matched, 1)]}]


def _sticky(route: Route) -> list[dict[str, Any]]:
    """Of rules with as many headers the first one counts, so `match` goes before."""
    return [
        {
            "matches": [{"headers": [_regex(route.sticky, pattern(buckets))]}],
            "backendRefs": [_backend(name, 1)],
        }
        for name, buckets in route.buckets.items()
    ]


def _header(name: str, how: StringMatch) -> dict[str, str]:
    if how.exact == "":  # which an HTTPRoute takes for none
        return _regex(name, "^$")
    if how.exact is not None:
        return {"name": name, "type": "Exact", "value": how.exact}
    return _regex(name, how.regex if how.regex is not None else f"{re.escape(how.prefix or '')}.*")


def _regex(name: str, expression: str) -> dict[str, str]:
    return {"name": name, "type": "RegularExpression", "value": expression}


def _backend(revision: str, weight: int) -> dict[str, Any]:
    return {"group": "", "kind": "Service", "name": revision, "port": 80, "weight": weight}


# reading


def asked(hosts: list[str] | None, gateways: list[str], /) -> Places:
    """Return where a spec asks to be routed. `mesh` is its own Service: nobody else's."""
    named = [gateway for gateway in gateways if gateway != MESH]
    return [EVERY_HOST] if hosts is None else hosts, named


def places(spec: Mapping[str, Any], /) -> Places:
    """Return where an HTTPRoute answers; one that hangs on a Service, inside the mesh."""
    kinds = {ref.get("kind") for ref in _objects(spec.get("parentRefs"))}
    gateways = _gateways(spec.get("parentRefs")) + [MESH] * ("Service" in kinds)
    return texts(spec.get("hostnames")) or [EVERY_HOST], gateways


def _gateways(parents: Any) -> list[str]:
    return [
        f"{ref['namespace']}/{ref['name']}" if ref.get("namespace") else str(ref.get("name"))
        for ref in _objects(parents)
        if ref.get("kind", "Gateway") == "Gateway"
    ]


def shadows(route: Manifest, /) -> Places:
    """Return where an HTTPRoute of somebody else leaves no request to a younger one.

    That is where a gateway has accepted it for all its listeners, and it takes all requests. Who
    edits it keeps that until the gateway says otherwise: it serves meanwhile.
    """
    spec = route.get("spec") or {}
    hosts, _ = places(spec)
    if not any(isinstance(rule, Mapping) and _takes_all(rule) for rule in spec.get("rules") or ()):
        return hosts, []
    whole = [
        ref
        for ref in spec.get("parentRefs") or ()
        if isinstance(ref, Mapping) and not ref.get("sectionName") and not ref.get("port")
    ]
    generation = route["metadata"].get("generation", 0)
    served = [
        ref
        for ref in whole
        if _ACCEPTED & {_accepts(parent, generation) for parent in _statuses_of(ref, route)}
    ]
    return hosts, _gateways(served)


def doors(gateway: Manifest, /) -> Doors | None:
    """Return whom a Gateway lets in; None where it has no listener for HTTPRoutes."""
    own, spec = str(gateway["metadata"]["namespace"]), gateway.get("spec") or {}
    names = {
        (namespace, normal(str(listener.get("hostname") or EVERY_HOST)))
        for listener in _objects(spec.get("listeners"))
        if listener.get("protocol") not in _TAKES_NO_HTTP
        for namespace in _let_in(_object(listener.get("allowedRoutes")), own)
    }
    return Doors(frozenset(names), "listeners.allowedRoutes") if names else None


def _let_in(allowed: Mapping[str, Any], own: str) -> Collection[str]:
    """Return the namespaces whose HTTPRoutes a listener of a Gateway in `own` takes.

    Where it selects them by labels of the admin's, it may be any: these are not read.
    """
    kinds = [each.get("kind") for each in _objects(allowed.get("kinds"))]
    if kinds and KIND not in kinds:
        return ()
    namespaces = _object(allowed.get("namespaces"))
    which = namespaces.get("from") or "Same"
    if which == "Same":
        return (own,)
    return _selected(_object(namespaces.get("selector"))) if which == "Selector" else (ANY,)


def _selected(selector: Mapping[str, Any]) -> Collection[str]:
    """Return the namespaces that a selector may pick: those that it names, else any."""
    if name := _object(selector.get("matchLabels")).get(_NAME_OF_NAMESPACE):
        return (str(name),)
    for asked in _objects(selector.get("matchExpressions")):
        if (asked.get("key"), asked.get("operator")) == (_NAME_OF_NAMESPACE, "In"):
            return texts(asked.get("values"))
    return (ANY,)


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _objects(values: Any) -> list[Mapping[str, Any]]:
    found = values if isinstance(values, list) else []
    return [value for value in found if isinstance(value, Mapping)]


def leads(spec: Mapping[str, Any], /) -> dict[str, int]:
    """Return the weights of the rule that every request matches, wherever it stands."""
    rules = spec.get("rules") or ()
    weighted: Mapping[str, Any] = next((rule for rule in rules if _takes_all(rule)), {})
    return {to["name"]: to.get("weight", 1) for to in weighted.get("backendRefs") or ()}


def matched(spec: Mapping[str, Any], /) -> str:
    """Return the Service of the rule that neither takes all requests nor those of cameras."""
    rules = (rule for rule in spec.get("rules") or () if not _takes_all(rule))
    chosen = (rule for rule in rules if not buckets({"rules": [rule]}))
    return next((str(to["name"]) for rule in chosen for to in rule.get("backendRefs") or ()), "")


def buckets(spec: Mapping[str, Any], /) -> Buckets:
    """Return which cameras it keeps on which Service: rules have no names, but such expressions."""
    return {
        str(to.get("name")): found
        for rule in spec.get("rules") or ()
        for match in rule.get("matches") or ()
        for how in match.get("headers") or ()
        for to in rule.get("backendRefs") or ()
        if (found := buckets_of(str(how.get("value", ""))))
    }


def _takes_all(rule: Mapping[str, Any]) -> bool:
    matches = rule.get("matches")
    return not matches or any(match in _EVERY_REQUEST for match in matches)


def followed(
    _detector: Detector,
    _hosts: Sequence[str],
    route: Manifest | None,
    _mesh: Mesh,
    absent: Collection[str],
    /,
) -> Followed:
    """Say whether its gateways have accepted it."""
    return Followed() if route is None else accepted(route, absent)


def accepted(route: Manifest, absent: Collection[str] = ()) -> Followed:
    """Say whether a gateway routes by the HTTPRoute `route` in its present generation.

    absent: gateways that do not exist. What was said for one when it did is no news.
    """
    generation, namespace = route["metadata"].get("generation", 0), route["metadata"]["namespace"]
    waits, served = [], 0
    for parent in route["spec"].get("parentRefs") or ():
        if any(gateway_name(g, namespace) in absent for g in _gateways([parent])):
            continue
        found = [_accepts(each, generation) for each in _statuses_of(parent, route)]
        if Following.YES in found:
            served += 1
        else:
            waits.append((parent["name"], Following.PENDING in found))
    if not waits:
        return Followed()
    message = f"{', '.join(sorted(name for name, _ in waits))} has not accepted the route"
    if any(before for _, before in waits):
        message += " as it is now yet"
        pending = Following.PENDING
        return Followed(pending, Reason.ROUTE_PENDING, message, in_part=served > 0)
    if served:
        return Followed(Following.YES, Reason.ROUTE_PENDING, f"{message}; others have")
    return Followed(Following.NOBODY, Reason.ROUTE_PENDING, f"{message}: nobody routes by it yet")


def _statuses_of(parent: Mapping[str, Any], route: Manifest) -> Iterator[Mapping[str, Any]]:
    """Return what each controller says for one of the route's parents."""
    namespace = route["metadata"]["namespace"]

    def which(ref: Mapping[str, Any]) -> tuple[Any, ...]:
        return ref.get("kind", "Gateway"), ref.get("namespace", namespace), ref.get("name")

    for status in (route.get("status") or {}).get("parents") or ():
        if which(status.get("parentRef") or {}) == which(parent):
            yield status


def _accepts(parent: Mapping[str, Any], generation: int) -> Following:
    for condition in parent.get("conditions") or ():
        if condition.get("type") == "Accepted" and condition.get("status") == "True":
            seen = condition.get("observedGeneration", generation)
            return Following.YES if seen >= generation else Following.PENDING
    return Following.NOBODY


_ACCEPTED = frozenset({Following.YES, Following.PENDING})
"""Now, or before it was edited; what no gateway has ever accepted is neither."""

_SERVED = ("Accepted", "ResolvedRefs", "Programmed")
"""Conditions of a route that are false when it is not served; of others, false is good news."""


def refused(route: Manifest, /) -> str:
    """Return what a gateway says against the route as it is now."""
    generation = route["metadata"].get("generation", 0)
    for parent in route.get("status", {}).get("parents", ()):
        gateway = parent.get("parentRef", {}).get("name", "")
        for said in parent.get("conditions", ()):
            if said.get("observedGeneration", generation) < generation:
                continue
            if said.get("type") in _SERVED and said.get("status") == "False":
                return f"the gateway {gateway}: {said.get('reason')}: {said.get('message', '')}"
    return ""
