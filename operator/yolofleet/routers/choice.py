"""Which router a detector is for: one answer for what it claims, may have and is given."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any, Final

from yolofleet.api.detector import Detector, Provider
from yolofleet.api.names import Manifest
from yolofleet.routers import gateway, istio, service
from yolofleet.routers.router import Router

ROUTERS: Final[Mapping[Provider, Router]] = {
    Provider.ISTIO: istio,
    Provider.GATEWAY: gateway,
    Provider.SERVICE: service,
}
"""All there are; what comes first is taken first. The last one is always there."""

SPLITTING: Final = tuple(provider for provider, router in ROUTERS.items() if router.KIND)
"""Those that give each revision its part of the traffic by a route."""

Absent = Mapping[Provider, Collection[str]]
"""Of each router the gateways, of those that a detector names, that are known not to exist."""

NONE_ABSENT: Final[Absent] = MappingProxyType({})

_BY_KIND: Final = {router.KIND: router for router in ROUTERS.values()}


def splits(provider: Provider) -> bool:
    """Say whether `provider` splits traffic by weights, and not as pods happen to be ready."""
    return provider in SPLITTING


def router_of_kind(kind: str) -> Router:
    """Return the router whose routes are of `kind`."""
    return _BY_KIND[kind]


def router_for(
    asked: Provider,
    on: Provider | None,
    routers: Collection[Provider],
    *,
    gateways: bool,
    absent: Absent = NONE_ABSENT,
) -> Provider:
    """Return what a detector routes by, or would if its API were there.

    on: the router that it has been on. With auto it stays there, whatever else appears: its route
    and its gateways are of that kind, and only the user can name others. gateways: whether it names
    any; absent: which of them each router lacks. Who is on none takes the first one that has them.
    """
    named = on if asked is Provider.AUTO and on in SPLITTING else asked
    if named is not None and named is not Provider.AUTO:
        return named
    usable = [
        each
        for each in SPLITTING
        if each in routers and (gateways or not ROUTERS[each].NEEDS_GATEWAYS)
    ]
    having = (each for each in usable if not absent.get(each))
    return next(chain(having, usable), Provider.SERVICE)


def router_of(raw: Manifest, routers: Collection[Provider], absent: Absent = NONE_ABSENT) -> Router:
    """Return the same for a resource as it is stored, or about to be."""
    traffic, status = (raw.get("spec") or {}).get("traffic"), raw.get("status")
    traffic = traffic if isinstance(traffic, Mapping) else {}
    status = status if isinstance(status, Mapping) else {}
    asked, on = _provider(traffic.get("provider")), _provider(status.get("provider"))
    gateways = bool(traffic.get("gateways"))
    by = asked or Provider.AUTO
    return ROUTERS[router_for(by, on, routers, gateways=gateways, absent=absent)]


def provider_for(
    detector: Detector, routers: Collection[Provider], kept: Provider | None = None
) -> Provider:
    """Return what routes in fact: what was asked for where it is, else the plain Service.

    kept: the router that it has been on.
    """
    traffic = detector.spec.traffic
    router = router_for(traffic.provider, kept, routers, gateways=bool(traffic.gateways))
    return router if router in routers else Provider.SERVICE


def lacking(detector: Detector) -> str:
    """Say what is missing to split traffic, and what to do."""
    traffic = detector.spec.traffic
    if splits(traffic.provider):
        return ROUTERS[traffic.provider].LACKING
    other = "" if traffic.gateways else ", or the Gateway API and spec.traffic.gateways"
    return istio.LACKING + other


@dataclass(frozen=True, slots=True)
class Proxies:
    """Ports of the routers' proxies beside pods: where these are reached, and what they reach."""

    reached_at: tuple[int, ...]
    reach: tuple[int, ...]


def proxies(routers: Collection[Provider]) -> Proxies:
    """Return the ports that the proxies of `routers` need open."""
    there = [router for provider, router in ROUTERS.items() if provider in routers]
    reached_at = (port for router in there for port in router.PROXIES_IN)
    reach = (port for router in there for port in router.PROXIES_OUT)
    return Proxies(tuple(reached_at), tuple(reach))


def _provider(value: Any) -> Provider | None:
    return next((provider for provider in Provider if provider == value), None)
