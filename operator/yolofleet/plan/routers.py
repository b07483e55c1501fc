"""Which router a detector is for: one answer for what it claims, may have and is given."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from yolofleet.api.detector import Provider
from yolofleet.api.names import Manifest

ROUTES: Final = {Provider.ISTIO: "VirtualService", Provider.GATEWAY: "HTTPRoute"}
"""What splits traffic, and the kind of its routes."""


def router_for(
    asked: Provider, on: Provider | None, routers: Collection[Provider], *, gateways: bool
) -> Provider:
    """Return what a detector routes by, or would if its API were there.

    on: the router that it has been on. With auto it stays there, whatever else appears: its route
    and its gateways are of that kind, and only the user can name others. gateways: whether it names
    any, without which the Gateway API has nothing to hang a route on.
    """
    named = on if asked is Provider.AUTO and on in ROUTES else asked
    if named is not None and named is not Provider.AUTO:
        return named
    if Provider.ISTIO in routers:
        return Provider.ISTIO
    return Provider.GATEWAY if gateways and Provider.GATEWAY in routers else Provider.SERVICE


def router_of(raw: Manifest, routers: Collection[Provider]) -> Provider:
    """Return the same for a resource as it is stored, or about to be."""
    traffic, status = (raw.get("spec") or {}).get("traffic"), raw.get("status")
    traffic = traffic if isinstance(traffic, Mapping) else {}
    status = status if isinstance(status, Mapping) else {}
    asked, on = _provider(traffic.get("provider")), _provider(status.get("provider"))
    return router_for(asked or Provider.AUTO, on, routers, gateways=bool(traffic.get("gateways")))


def _provider(value: Any) -> Provider | None:
    return next((provider for provider in Provider if provider == value), None)
