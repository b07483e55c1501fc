"""Whom a gateway lets in: of which namespaces routes may have which of its hosts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from yolofleet.routers.hostnames import Hostnames

ANY: Final = "*"
"""Among namespaces: all of them."""


@dataclass(frozen=True, slots=True)
class Doors:
    """Hosts of a gateway, each with the namespace whose routes may have it.

    By the rule of Istio, which tells of no route that it is passed over
    (https://istio.io/latest/docs/reference/config/networking/gateway/, Server, hosts).
    """

    names: frozenset[tuple[str, str]]
    _of: dict[str, _Hosts] = field(init=False, compare=False, repr=False)
    _all: _Hosts = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Sort the hosts: there may be thousands, and they are asked of again and again."""
        by: dict[str, list[str]] = {}
        for namespace, host in self.names:
            by.setdefault(namespace, []).append(host)
        object.__setattr__(self, "_of", {each: _Hosts(hosts) for each, hosts in by.items()})
        object.__setattr__(self, "_all", _Hosts(host for _, host in self.names))

    def let_in(self, namespace: str, host: str) -> bool:
        """Say whether a route of `namespace` has `host` here."""
        return any(each in self._of and self._of[each].meet(host) for each in (ANY, namespace))

    def keep_out(self, namespace: str, host: str) -> bool:
        """Say whether others have `host` here, and routes of `namespace` do not."""
        return not self.let_in(namespace, host) and self._all.meet(host)


class _Hosts:
    """Hosts of a gateway, any of which may be a wildcard: all that begins with a star is one."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = Hostnames(names)
        self._ends = frozenset(name[1:] for name in self._names if name.startswith("*"))
        self._lengths = frozenset(map(len, self._ends))

    def meet(self, host: str) -> bool:
        """Say whether `host`, which may be a wildcard too, is one, below one, or above one."""
        name = host.removeprefix("*")
        if any(name[len(name) - n :] in self._ends for n in self._lengths if n <= len(name)):
            return True
        return host in self._names if name == host else any(True for _ in self._names.ending(name))
