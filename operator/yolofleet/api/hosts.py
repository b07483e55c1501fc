"""Host names and gateways: what a route may answer to, as rules for the API server and in Python.

Both say the same of the same patterns: the API server refuses at admission, and what was stored
before there was a rule is told in the status.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from yolofleet.api.base import Rule

EVERY_HOST: Final = "*"
MOST_NAMED: Final = 32
"""So many hosts a spec may name, and so many gateways."""
MOST_ON_HTTP_ROUTE: Final = 16
"""So many hosts an HTTPRoute may name, as the definition of the Gateway API has it."""
FEWER: Final = "remove some, or name several by a wildcard such as *.example.com"
"""What to do about hosts for which a route has no room."""

MESH: Final = "mesh"
"""Among gateways: the proxies of clients inside the mesh."""

_LABEL = "[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?"
_NAME = f"^([*]|([*][.])?{_LABEL}([.]{_LABEL})*)$"
_NOT_AN_ADDRESS = "[^.0-9][^.]*$"  # a last label of digits alone: an IPv4 address, or nothing
_OF_THE_CLUSTER = "[.]svc([.]|$)|[.]local$"
_GATEWAY = "^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"

_SHAPE = (
    "must be a DNS name without scheme, port or path, such as gate.example.com or *.example.com"
    " (no address, no _, no dot at the end; other alphabets as xn--)"
)
_CLUSTER = (
    "names of the cluster (.svc, .svc.DOMAIN, .local) are those of Services, and a route would take"
    " their traffic; name a host of your own, or use the detector's Service as it is"
)
_IN_MESH = (
    "inside the mesh a name without a dot is a Service's and a wildcard is everybody's; name a"
    " whole host, or the gateways that serve it in spec.traffic.gateways"
)
_WELL_FORMED = f"h.matches('{_NAME}') && (h == '*' || h.matches('{_NOT_AN_ADDRESS}'))"
_CLUSTERS = f"h.lowerAscii().matches('{_OF_THE_CLUSTER}')"
_MESHED = f"(size(self.gateways) == 0 || '{MESH}' in self.gateways)"
_WIDE = "!h.contains('.') || h.contains('*')"
_ONCE = "self.hosts.exists_one(o, o.lowerAscii() == h.lowerAscii())"

RULES: Final = (
    Rule(
        f"self.hosts.all(h, {_WELL_FORMED})",
        f"spec.traffic.hosts: {_SHAPE}",
        ".hosts",
        f"self.hosts.filter(h, !({_WELL_FORMED}))[0]",
    ),
    Rule(
        f"self.hosts.all(h, {_ONCE})",
        "spec.traffic.hosts: is listed twice, and a router takes it once (capitals do not count);"
        " remove one",
        ".hosts",
        f"self.hosts.filter(h, !({_ONCE}))[0]",
    ),
    Rule(  # without how many there are: to make a string of a number costs CEL too much
        f"self.provider != 'gateway' || size(self.hosts) <= {MOST_ON_HTTP_ROUTE}"
        f" || '{EVERY_HOST}' in self.hosts",
        f"spec.traffic.hosts: an HTTPRoute has room for {MOST_ON_HTTP_ROUTE}; {FEWER}",
        ".hosts",
    ),
    Rule(
        f"!self.hosts.exists(h, {_CLUSTERS})",
        f"spec.traffic.hosts: {_CLUSTER}",
        ".hosts",
        f"self.hosts.filter(h, {_CLUSTERS})[0]",
    ),
    Rule(
        f"!{_MESHED} || !self.hosts.exists(h, {_WIDE})",
        f"spec.traffic.hosts: {_IN_MESH}",
        ".hosts",
        f"self.hosts.filter(h, {_WIDE})[0]",
    ),
    Rule(
        f"self.gateways.all(g, g.matches('{_GATEWAY}'))",
        "spec.traffic.gateways: write NAMESPACE/NAME, NAME for one of this namespace, or mesh",
        ".gateways",
        f"self.gateways.filter(g, !g.matches('{_GATEWAY}'))[0]",
    ),
    Rule(
        "self.gateways.all(g, self.gateways.exists_one(o, o == g))",
        "spec.traffic.gateways: is listed twice; remove one",
        ".gateways",
        "self.gateways.filter(g, !self.gateways.exists_one(o, o == g))[0]",
    ),
)


def normal(host: str) -> str:
    """Return `host` as routers compare it: capitals and a dot at the end make no difference."""
    return host.lower().removesuffix(".")


def wrong_with(host: str, gateways: Sequence[str]) -> str:
    """Say why no route may answer to `host` on `gateways` (none: the mesh); nothing if one may."""
    host = normal(host)
    if not re.fullmatch(_NAME, host) or not (host == "*" or re.search(_NOT_AN_ADDRESS, host)):
        return _SHAPE
    if len(host) > 253:
        return "must be at most 253 characters long"
    if re.search(_OF_THE_CLUSTER, host):
        return _CLUSTER
    if (not gateways or MESH in gateways) and ("." not in host or "*" in host):
        return _IN_MESH
    return ""


def gateway_name(gateway: str, namespace: str) -> str:
    """Return NAMESPACE/NAME of a gateway, which a detector of `namespace` may name in short."""
    return gateway if gateway == MESH or "/" in gateway else f"{namespace}/{gateway}"


def texts(values: Any) -> list[str]:
    """Return a list of names as it is stored, which nobody has parsed; none of what is no list."""
    return [str(value) for value in values] if isinstance(values, list) else []
