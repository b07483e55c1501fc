"""Where a route may answer: of the hosts and gateways asked for, those that a detector may have.

A route that is there keeps what it has, whatever is said against it: that is told, and a person
decides. Nothing more is added to it than what it may have.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from yolofleet.api.detector import Detector
from yolofleet.api.hosts import EVERY_HOST, FEWER, MESH, MOST_NAMED, gateway_name, normal, texts
from yolofleet.api.names import Manifest
from yolofleet.api.status import Reason
from yolofleet.routers.claims import Claim, as_named, claim, improper
from yolofleet.routers.following import Followed, Following


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

    def of(self, claims: Collection[Claim]) -> frozenset[Claim]:
        """Return those of `claims` that may be routed."""
        gateways = {each for each, _ in claims if not self.against_gateway(as_named(each))}
        hosts = {each for _, each in claims if not self.against_host(each)}
        return frozenset(each for each in claims if each[0] in gateways and each[1] in hosts)

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


def apart(claims: frozenset[Claim], had: Collection[Claim]) -> frozenset[Claim]:
    """Return what a route that has `had` may come to have of `claims` on `mesh` beside gateways.

    Where these may not stand together: of the rest it would be the holder, and never be given it.
    """
    inside = frozenset(each for each in claims if as_named(each[0]) == MESH)
    if had and all(as_named(gateway) == MESH for gateway, _ in had):
        return inside
    kept = claims.intersection(had)
    if not kept & inside:
        return claims - inside
    hosts = {host for _, host in kept}  # which it may be given on a further gateway
    return kept | {each for each in claims - inside if each[1] in hosts}


def fitting(
    raw: Manifest, claims: frozenset[Claim], had: Collection[Claim], most: int
) -> frozenset[Claim]:
    """Return for which of its `claims` the route of `raw` has room, if it has `had` by now.

    Of the others it would be the holder, and never be given them. What it has takes room, whether
    it may have it or not.
    """
    has = _hosts(had)
    counted = has | _hosts(claims)
    asked = map(normal, texts(raw["spec"]["traffic"]["hosts"]))
    room = with_room([host for host in asked if host in counted], has, most)
    return frozenset(each for each in claims if each[1] in room)


def stopped(
    claims: frozenset[Claim], asked: frozenset[Claim], had: Collection[Claim]
) -> frozenset[Claim]:
    """Return what of the allowed `claims` of all that is `asked` a route that has `had` may have.

    While it is on a gateway where nothing is allowed, a new host beside one that it keeps would be
    there too; and what it keeps that is not allowed would be on a new gateway. It gets neither, and
    would be the holder.
    """
    may, hosts, on = _gateways(claims), _hosts(had), _gateways(had)
    if not _gateways(asked) & on <= may:
        claims = frozenset(each for each in claims if each[1] in hosts)
    if not _hosts(asked) & hosts <= _hosts(claims):
        claims = frozenset(each for each in claims if each[0] in on)
    return claims


def kept_of(asked: frozenset[Claim], had: frozenset[Claim]) -> frozenset[Claim]:
    """Return what a route has, `had`, if it goes on from there: if some of it is `asked` still."""
    goes_on = _hosts(asked) & _hosts(had) and _gateways(asked) & _gateways(had)
    return had if goes_on else frozenset()


def _hosts(claims: Collection[Claim]) -> set[str]:
    return {host for _, host in claims}


def _gateways(claims: Collection[Claim]) -> set[str]:
    return {gateway for gateway, _ in claims}


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
    live: tuple[Collection[str], Collection[str]] | None,
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
    inside = live is not None and set(live[1]) == {MESH}
    asked = _Asked(detector, taken, shut or {}, allowed, exported=not bare, inside=inside)
    traffic, namespace = detector.spec.traffic, detector.namespace
    hosts = list(dict.fromkeys(normal(host) for host in traffic.hosts))
    if not hosts and not (bare and any(gateway != MESH for gateway in traffic.gateways)):
        return Exposure(routes=True, hosts=(), gateways=tuple(traffic.gateways))
    names = hosts or [EVERY_HOST]
    written = {gateway_name(each, namespace): each for each in traffic.gateways or [MESH]}
    denials = tuple(asked.denials(names, list(written.values())))
    if not denials and len(hosts) <= most:
        all_of_them = written.values() if traffic.gateways else ()
        return Exposure(routes=True, hosts=tuple(hosts), gateways=tuple(all_of_them))
    kept = _kept(live, names, list(written), namespace)
    possible = [h for h in names if h in kept[0] or any(asked.fits(g, h) for g in written)]
    room = with_room(possible, kept[0], most)
    denials += tuple(_no_room(host, most) for host in possible if host not in room)
    # A gateway that passes over all of it is no hindrance to what others may take in.
    idle = {gateway for gateway in kept[1] if all(asked.is_shut(gateway, h) for h in names)}
    given, on = granted(room, list(written), kept, lambda g, h: g in idle or asked.may(g, h))
    if not given and live is None:
        return Exposure(routes=False, hosts=(), gateways=(), denials=denials)
    if not given:
        return unchanged(live or ((), ()), denials)
    named = () if given == [EVERY_HOST] and not hosts else tuple(given)
    gateways = tuple(written[each] for each in on)
    return Exposure(routes=True, hosts=named, gateways=gateways, denials=denials)


def with_room(hosts: Sequence[str], kept: Collection[str], most: int) -> list[str]:
    """Return those of `hosts` for which a route has room: what it has, then the first of the rest.

    One for all hosts names none.
    """
    if EVERY_HOST in hosts:
        return list(hosts)
    room = sorted(hosts, key=lambda host: host not in kept)[:most]
    return [host for host in hosts if host in room]


def unchanged(
    live: tuple[Collection[str], Collection[str]], denials: tuple[Denial, ...] = ()
) -> Exposure:
    """Return what the route that is there has: but for its weights, what serves keeps serving."""
    hosts, gateways = live
    named = () if list(hosts) == [EVERY_HOST] else tuple(hosts)
    return Exposure(routes=True, hosts=named, gateways=tuple(gateways), denials=denials)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is said against each host on each gateway.

    exported: proxies of other namespaces see a route on gateways. inside: the route that is there
    is in the mesh alone.
    """

    detector: Detector
    taken: Mapping[Claim, str]
    shut: Mapping[Claim, str]
    allowed: Allowed
    exported: bool
    inside: bool

    def may(self, gateway: str, host: str) -> bool:
        """Say whether a new route may have `host` on `gateway`."""
        taken = claim(gateway, host, self.detector.namespace) in self.taken
        return not taken and self.fits(gateway, host)

    def fits(self, gateway: str, host: str) -> bool:
        """Say whether it might, whoever has it now: so much of a wish is a claim, and has room."""
        wrong = self._host(host, [gateway]) or self._gateway(gateway)
        return not (wrong or self.is_shut(gateway, host))

    def is_shut(self, gateway: str, host: str) -> bool:
        """Say whether the gateway keeps it for other namespaces."""
        return claim(gateway, host, self.detector.namespace) in self.shut

    def denials(self, hosts: Sequence[str], gateways: Sequence[str]) -> Iterator[Denial]:
        for gateway in gateways:
            if message := self._gateway(gateway):
                yield Denial(Reason.HOST_NOT_ALLOWED, message)
        for host in hosts:
            if denial := self._host(host, gateways):
                yield denial
                continue
            for gateway in gateways:
                where = gateway_name(gateway, self.detector.namespace)
                wish = claim(gateway, host, self.detector.namespace)
                if listed := self.shut.get(wish):
                    message = shut_to(self.detector.namespace, listed, (where, host))
                    yield Denial(Reason.HOST_NOT_ALLOWED, message)
                elif other := self.taken.get(wish):
                    yield Denial(Reason.HOST_TAKEN, taken_by(other, (where, host)))

    def _host(self, host: str, gateways: Sequence[str]) -> Denial | None:
        own = f"{self.detector.name}.{self.detector.namespace}"
        bare = not self.detector.spec.traffic.hosts
        if not bare and (wrong := improper(host, gateways, own=own)):
            return Denial(Reason.HOST_REFUSED, f"spec.traffic.hosts: {host}: {wrong}")
        message = self.allowed.against_host(host)
        return Denial(Reason.HOST_NOT_ALLOWED, message) if message else None

    def _gateway(self, gateway: str) -> str:
        name = gateway_name(gateway, self.detector.namespace)
        message = self.allowed.against_gateway(name)
        if not message and self.exported and (name == MESH) is not self.inside:
            message = self.allowed.against_export(self.detector.spec.traffic.gateways)
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


def _kept(
    live: tuple[Collection[str], Collection[str]] | None,
    hosts: Sequence[str],
    gateways: Sequence[str],
    namespace: str,
) -> tuple[list[str], list[str]]:
    """Return what of the wish the route that is there has already."""
    if live is None:
        return [], []
    has = {normal(host) for host in live[0]}
    on = {gateway_name(gateway, namespace) for gateway in live[1]}
    kept = [host for host in hosts if host in has]
    there = [gateway for gateway in gateways if gateway in on]
    return (kept, there) if kept and there else ([], [])


def granted(
    hosts: Sequence[str],
    gateways: Sequence[str],
    before: tuple[Collection[str], Collection[str]],
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
    within = [g for g in sorted(on) if as_named(g) != MESH] or on  # an HTTPRoute is free inside
    free = {g: [h for h in hosts if may(g, h)] for g in within}
    most = max(free, key=lambda g: len(free[g]))
    return granted(hosts, gateways, (free[most], [most]), may)
