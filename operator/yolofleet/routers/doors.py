"""Whom a gateway lets in: of which namespaces routes may have which of its hosts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from yolofleet.routers.hostnames import Hostnames

ANY: Final = "*"
"""Among namespaces: all of them."""


@dataclass(frozen=True)
class Doors:
    """Hosts of a gateway, each with the namespace whose routes may have it. said_in: by what field.

    By the rules of Istio, which tells of no route that it is passed over
    (https://istio.io/latest/docs/reference/config/networking/gateway/, Server, hosts), and of the
    Gateway API (https://gateway-api.sigs.k8s.io/reference/spec/, Listener, allowedRoutes).

    There may be thousands, asked of again and again, and read anew whenever the gateway's status is
    written: they are sorted when somebody asks, and of the namespaces only those asked of.
    """

    names: frozenset[tuple[str, str]]
    said_in: str = ""

    def let_in(self, namespace: str, host: str) -> bool:
        """Say whether a route of `namespace` has `host` here."""
        return any(self._of(each).meet(host) for each in (ANY, namespace) if each in self._listed)

    def kept_for(self, namespace: str, host: str) -> str:
        """Return as what others have `host` here if routes of `namespace` do not, or nothing."""
        if self.let_in(namespace, host) or (name := self._all.one_meeting(host)) is None:
            return ""
        return f"{self._whose[name]}/{name}"

    def _of(self, namespace: str) -> _Hosts:
        if namespace not in self._asked:
            self._asked[namespace] = _Hosts(self._listed[namespace])
        return self._asked[namespace]

    @cached_property
    def _asked(self) -> dict[str, _Hosts]:
        return {}

    @cached_property
    def _listed(self) -> dict[str, list[str]]:
        by: dict[str, list[str]] = {}
        for namespace, host in self.names:
            by.setdefault(namespace, []).append(host)
        return by

    @cached_property
    def _all(self) -> _Hosts:
        return _Hosts(self._whose)

    @cached_property
    def _whose(self) -> dict[str, str]:
        """Of several who have one host the first by name, so that a message stays as it is."""
        return {host: namespace for namespace, host in sorted(self.names, reverse=True)}


class _Hosts:
    """Hosts of a gateway, any of which may be a wildcard: all that begins with a star is one."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = Hostnames(names)
        self._ends = frozenset(name[1:] for name in self._names if name.startswith("*"))
        self._lengths = frozenset(map(len, self._ends))

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def meet(self, host: str) -> bool:
        """Say whether `host`, which may be a wildcard too, is one, below one, or above one."""
        return self.one_meeting(host) is not None

    def one_meeting(self, host: str) -> str | None:
        """Return the name that it is, or one below or above which it is."""
        name = host.removeprefix("*")
        for end in (name[len(name) - n :] for n in self._lengths if n <= len(name)):
            if end in self._ends:
                return f"*{end}"
        if name == host:
            return host if host in self._names else None
        return next(self._names.ending(name), None)
