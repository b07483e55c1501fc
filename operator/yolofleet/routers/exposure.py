"""Where a route may answer: of the hosts and gateways asked for, those that a detector may have.

A route that is there keeps what it has, whatever is said against it: that is told, and a person
decides. Nothing more is added to it than what it may have.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from yolofleet.api.detector import Detector
from yolofleet.api.hosts import EVERY_HOST, FEWER, MESH, MOST_NAMED, gateway_name, normal
from yolofleet.api.status import Reason
from yolofleet.routers.claims import Claim, Wish, as_named, claim, wish_for
from yolofleet.routers.following import Followed, Following

Live = tuple[Collection[str], Collection[str]]
"""The hosts and the gateways of a route that is there."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the cluster's admin lets detectors route; empty: everything.

    hosts: names, *.example.com for all names below, * for all. gateways: NAMESPACE/NAME,
    NAMESPACE/* for all of a namespace, mesh.
    """

    hosts: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()

    def against_host(self, host: str) -> str:
        """Say why `host` may not be routed; nothing if it may."""
        if not self.hosts or any(_below(host, pattern) for pattern in self.hosts):
            return ""
        which = "all hosts of a gateway are" if host == EVERY_HOST else f"{host} is"
        return (
            f"spec.traffic.hosts: {which} not among the hosts that detectors may route in this"
            f" cluster ({', '.join(self.hosts)}); choose one of these, or ask the cluster's admin"
            " (traffic.allowedHosts of the chart)"
        )

    def against_gateway(self, gateway: str) -> str:
        """Say why nothing may be routed on `gateway`; nothing if it may."""
        namespace = gateway.partition("/")[0]
        if not self.gateways or {gateway, f"{namespace}/*"} & set(self.gateways):
            return ""
        return (
            f"spec.traffic.gateways: {gateway} is not among the gateways that detectors may use in"
            f" this cluster ({', '.join(self.gateways)}); choose one of these, or ask the cluster's"
            " admin (traffic.allowedGateways of the chart)"
        )

    def seen(self, gateway: str) -> str:
        """Return as which one the gateway of a claim counts.

        The mesh of one namespace does as that of all where a route may show itself to all of them:
        then a host has one detector in all of the mesh.
        """
        return as_named(gateway) if {MESH} < set(self.gateways) else gateway

    def against_export(self, gateways: Collection[str]) -> str:
        """Say why `mesh` may not stand beside other `gateways`; nothing if it may.

        Gateways have to see a route from elsewhere, and then the sidecars of all namespaces do.
        """
        if MESH not in gateways or len(gateways) == 1 or MESH in self.gateways:
            return ""
        return (
            "spec.traffic.gateways: mesh beside other gateways would take the hosts from clients of"
            " all namespaces; remove mesh, or ask the cluster's admin (mesh in"
            " traffic.allowedGateways of the chart)"
        )


def _below(host: str, pattern: str) -> bool:
    if pattern in (host, EVERY_HOST):
        return True
    return pattern.startswith("*.") and host.endswith(pattern[1:])


@dataclass(frozen=True, slots=True)
class Denial:
    """What of the spec is not routed, or ought not to be, and why."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Exposure:
    """What the route has. routes: False: none may be written, and none is there.

    hosts: none means that others route to this one (a delegate), or all of the gateways' hosts.
    """

    routes: bool
    hosts: tuple[str, ...]
    gateways: tuple[str, ...]
    denials: tuple[Denial, ...] = ()


def expose(
    detector: Detector,
    live: Live | None,
    taken: Mapping[Claim, str],
    allowed: Allowed,
    *,
    bare: bool,
    shut: Mapping[Claim, str] | None = None,
    most: int = MOST_NAMED,
) -> Exposure:
    """Return what the route of `detector` may have.

    live: hosts and gateways of the route that is there; None without one. taken: claims that others
    hold, and who: a detector by its key, a route by its kind and name. bare: whether a route
    without hosts answers to all hosts of its gateways (the Gateway API), and not to none (Istio's
    delegates). shut: claims that a gateway keeps for other namespaces, and whom it lets in.
    most: for so many hosts a route has room.
    """
    traffic, namespace = detector.spec.traffic, detector.namespace
    written = {gateway_name(each, namespace): each for each in traffic.gateways}
    if not traffic.hosts and not (bare and written.keys() - {MESH}):
        return Exposure(routes=True, hosts=(), gateways=tuple(traffic.gateways))
    hosts, gateways = traffic.hosts or [EVERY_HOST], written or {MESH: MESH}
    # Inside the mesh the Gateway API routes by the detector's own Service, which nobody else has.
    own = [MESH] if bare and gateways.keys() > {MESH} else []
    shared = [each for each in gateways if each not in own]
    limits = Limits(allowed, shut or {}, bare=bare, most=most)
    wish = wish_for(detector.name, namespace, hosts, shared)
    denials = tuple(_Asked(wish, live, limits).denials(taken))
    if own and (message := allowed.against_gateway(MESH)):
        own, denials = [], (Denial(Reason.HOST_NOT_ALLOWED, message), *denials)
    if not denials and len(traffic.hosts) <= most:
        named = wish.hosts if traffic.hosts else ()
        return Exposure(routes=True, hosts=named, gateways=tuple(written.values()))
    reach = reach_of(wish, live, limits)
    denials += tuple(_no_room(host, most) for host in reach.crowded)
    given, on = reach.given(lambda claim: claim not in taken)
    if not given and live is None and own:
        inside = reach_of(wish_for(detector.name, namespace, hosts, own), None, limits)
        given, _ = inside.given(lambda _: True)
    if not given and live is None:
        return Exposure(routes=False, hosts=(), gateways=(), denials=denials)
    if not given:
        return unchanged(live or ((), ()), denials)
    named = tuple(given) if traffic.hosts or given != [EVERY_HOST] else ()
    where = tuple(name for each, name in gateways.items() if each in (*on, *own))
    return Exposure(routes=True, hosts=named, gateways=where, denials=denials)


def with_room(hosts: Sequence[str], kept: Collection[str], most: int) -> list[str]:
    """Return those of `hosts` for which a route has room: what it has, then the first of the rest.

    One for all hosts names none.
    """
    if EVERY_HOST in hosts:
        return list(hosts)
    room = sorted(hosts, key=lambda host: host not in kept)[:most]
    return [host for host in hosts if host in room]


def unchanged(live: Live, denials: tuple[Denial, ...] = ()) -> Exposure:
    """Return what the route that is there has: but for its weights, what serves keeps serving."""
    hosts, gateways = live
    named = () if list(hosts) == [EVERY_HOST] else tuple(hosts)
    return Exposure(routes=True, hosts=named, gateways=tuple(gateways), denials=denials)


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the route of a detector, whoever else asks for the same.

    shut: claims that a gateway keeps for other namespaces, and whom it lets in. bare: whether
    a route without hosts answers to all. most: for so many hosts it has room.
    """

    allowed: Allowed
    shut: Mapping[Claim, str]
    bare: bool
    most: int


@dataclass(frozen=True, slots=True)
class Reach:
    """What the route of a detector could have of its wish, as others leave it this or that.

    kept: what of the wish the route that is there has: from there it goes on. idle: gateways of it
    that pass over all of the wish, and so are no hindrance to what others may take in. claims: what
    it could have, by gateway and host: not more, for who holds what it is never given keeps it from
    others. crowded: hosts for which there is no room.
    """

    hosts: tuple[str, ...]
    gateways: tuple[str, ...]
    kept: tuple[frozenset[str], frozenset[str]]
    idle: frozenset[str]
    claims: Mapping[tuple[str, str], Claim]
    crowded: tuple[str, ...]

    @property
    def had(self) -> frozenset[Claim]:
        """Return what of its claims the route that is there has."""
        hosts, gateways = self.kept
        had = (self.claims.get(each) for each in product(gateways, hosts))
        return frozenset(each for each in had if each)

    def given(self, free: Callable[[Claim], bool]) -> tuple[list[str], list[str]]:
        """Return the hosts and gateways of the route where `free` says what others leave."""

        def may(gateway: str, host: str) -> bool:
            found = self.claims.get((gateway, host))
            return gateway in self.idle or (found is not None and free(found))

        return granted(self.hosts, self.gateways, self.kept, may)


def reach_of(wish: Wish, live: Live | None, limits: Limits) -> Reach:
    """Return what of `wish` the route may come to have that has `live` now.

    It has each of its hosts on each of its gateways: beside what it keeps there is a new host only
    where that fits on all of these gateways, and a new gateway only for all of these hosts.
    """
    asked = _Asked(wish, live, limits)
    fits = asked.fitting()
    kept, there = asked.kept()
    idle = frozenset(g for g in there if all(asked.is_shut(g, h) for h in wish.hosts))
    on = [g for g in wish.gateways if g in there or all((g, h) in fits for h in kept)]
    possible = [
        host
        for host in wish.hosts
        if host in kept
        or (any((g, host) in fits for g in on) and all((g, host) in fits for g in there - idle))
    ]
    room = with_room(possible, kept, limits.most)
    could = {(g, h) for g, h in product(on, room) if (g, h) in fits or (g in there and h in kept)}
    return Reach(
        tuple(room),
        tuple(on),
        (kept, there),
        idle,
        {(g, h): wish.claim(g, h) for g, h in could if not asked.is_shut(g, h)},
        tuple(host for host in possible if host not in room),
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is said against each host on each gateway."""

    wish: Wish
    live: Live | None
    limits: Limits

    def fitting(self) -> set[tuple[str, str]]:
        """Return on which gateways it may have which hosts, whoever has them now."""
        gateways = [each for each in self.wish.gateways if not self._gateway(each)]
        fits = set[tuple[str, str]]()
        for meshed in (True, False):
            on = [each for each in gateways if (each == MESH) is meshed]
            hosts = [each for each in self.wish.hosts if on and not self._host(each, on)]
            fits |= {(g, h) for g, h in product(on, hosts) if not self.is_shut(g, h)}
        return fits

    def kept(self) -> tuple[frozenset[str], frozenset[str]]:
        """Return what of the wish the route that is there has already."""
        hosts, gateways = self.live or ((), ())
        full = (gateway_name(gateway, self.wish.namespace) for gateway in gateways)
        kept = frozenset(self.wish.hosts).intersection(map(normal, hosts))
        there = frozenset(self.wish.gateways).intersection(full)
        return (kept, there) if kept and there else (frozenset(), frozenset())

    def is_shut(self, gateway: str, host: str) -> bool:
        """Say whether the gateway keeps it for other namespaces."""
        return bool(self.limits.shut) and self.wish.claim(gateway, host) in self.limits.shut

    def denials(self, taken: Mapping[Claim, str]) -> Iterator[Denial]:
        """Say what of the wish may not be routed, or is `taken`, and by whom."""
        namespace, gateways = self.wish.namespace, self.wish.gateways
        for gateway in gateways:
            if message := self._gateway(gateway):
                yield Denial(Reason.HOST_NOT_ALLOWED, message)
        for host in self.wish.hosts:
            if denial := self._host(host, gateways):
                yield denial
                continue
            for gateway in gateways:
                claim = self.wish.claim(gateway, host)
                if listed := self.limits.shut.get(claim):
                    message = shut_to(namespace, listed, (gateway, host))
                    yield Denial(Reason.HOST_NOT_ALLOWED, message)
                elif other := taken.get(claim):
                    yield Denial(Reason.HOST_TAKEN, taken_by(other, (gateway, host)))

    def _host(self, host: str, gateways: Sequence[str]) -> Denial | None:
        every = self.limits.bare and self.wish.hosts == (EVERY_HOST,)
        if not every and (wrong := self.wish.improper(host, gateways)):
            return Denial(Reason.HOST_REFUSED, f"spec.traffic.hosts: {host}: {wrong}")
        message = self.limits.allowed.against_host(host)
        return Denial(Reason.HOST_NOT_ALLOWED, message) if message else None

    def _gateway(self, gateway: str) -> str:
        message = self.limits.allowed.against_gateway(gateway)
        inside = self.live is not None and set(self.live[1]) == {MESH}
        # Proxies of other namespaces see a route on gateways; not one of the Gateway API inside.
        if not message and not self.limits.bare and (gateway == MESH) is not inside:
            message = self.limits.allowed.against_export(self.wish.gateways)
        return message


def overtaken(exposure: Exposure, namespace: str, taken: Mapping[Claim, str]) -> Followed | None:
    """Say whether others have all that a route that is there answers to: no request comes by it."""
    gateways = exposure.gateways or (MESH,)
    had = [
        (gateway, host, taken.get(claim(gateway, host, namespace)))
        for host in exposure.hosts
        for gateway in gateways
    ]
    if not had or not all(other for _, _, other in had):
        return None
    gateway, host, other = had[0]
    message = taken_by(other or "", (gateway_name(gateway, namespace), host))
    return Followed(Following.NOBODY, Reason.HOST_TAKEN, message, status=False)


def taken_by(other: str, taken: Claim) -> str:
    """Say that another detector, or a route of somebody else, has a host, and what to do."""
    gateway, host = taken
    who = other if " " in other else f"detector {other}"
    what = "all other hosts" if host == EVERY_HOST else host
    where = "inside the mesh" if gateway == MESH else f"on the gateway {gateway}"
    return (
        f"spec.traffic.hosts: {what} {where} is taken by the {who} already;"
        " choose another host or gateway, or remove it there first"
    )


def shut_to(namespace: str, listed: str, wish: Claim) -> str:
    """Say that a Gateway takes no route of `namespace` to a host, and what to do."""
    gateway, host = wish
    return (
        f"spec.traffic.hosts: the Gateway {gateway} lets in {listed}, and nothing of {host} for the"
        f" namespace {namespace}; choose another host or gateway, or let {namespace}/{host} in"
        " there"
    )


def _no_room(host: str, most: int) -> Denial:
    message = (
        f"spec.traffic.hosts: {host}: a route has room for the first {most} that are asked for,"
        f" what others have among them; {FEWER}"
    )
    return Denial(Reason.HOST_REFUSED, message)


def granted(
    hosts: Sequence[str],
    gateways: Sequence[str],
    before: Live,
    may: Callable[[str, str], bool],
) -> tuple[list[str], list[str]]:
    """Return the hosts and gateways for a route: what is kept, and what may be added to it.

    A route has each of its hosts on each of its gateways, so one that is not free on all of them
    is left out; for a new route first the gateways are left out on which no host is free. Where no
    host is free on all that remain it begins with what is on one, so that whatever is free, some of
    it is given.
    """
    kept, there = before
    if kept:
        on = [g for g in gateways if g in there or all(may(g, host) for host in kept)]
    else:
        on = [g for g in gateways if any(may(g, host) for host in hosts)]
    if not on:
        return [], []
    if given := [h for h in hosts if h in kept or all(may(g, h) for g in on)]:
        return given, on
    within = [g for g in sorted(on) if as_named(g) != MESH] or on  # where it is seen from outside
    free = {g: [h for h in hosts if may(g, h)] for g in within}
    most = max(free, key=lambda g: len(free[g]))
    return granted(hosts, gateways, (free[most], [most]), may)
