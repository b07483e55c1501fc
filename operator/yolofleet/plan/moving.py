"""The way of requests: which router a detector is on, and when it moves to another.

From a plain Service it moves by itself, from one router to another when that is named; but not
before the new one routes. Until then all goes the way it went, and status says so. A route that has
to be accepted first is written meanwhile, and leads to the detector's Service: whoever follows it
early finds what the Service sends to.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from yolofleet.api.detector import Detector, Provider
from yolofleet.api.hosts import normal
from yolofleet.api.names import Manifest
from yolofleet.api.status import Reason, Status
from yolofleet.plan.snapshot import Elsewhere
from yolofleet.routers.buckets import Buckets
from yolofleet.routers.choice import ROUTERS, SPLITTING, provider_for, splits
from yolofleet.routers.exposure import Denial, Exposure, expose, overtaken, unchanged
from yolofleet.routers.following import Followed, Following, on_gateways
from yolofleet.routers.router import Places, Route

Children = Mapping[str, Sequence[Manifest]]
"""By kind."""


@dataclass(frozen=True, slots=True)
class RouterOption:
    """A router that a detector could be on.

    live: whether its route is there; leads: the weights that it has; matched: where it leads those
    that match; buckets: the cameras that it keeps where they are; refused: what is said against it.
    """

    router: Provider
    exposure: Exposure
    followed: Followed
    live: bool
    leads: Mapping[str, int]
    matched: str
    buckets: Buckets
    refused: str

    @property
    def routes(self) -> bool:
        """Say whether requests go, or will go at once, by a route of this router.

        Of a router that tells of no route that it took it, it is enough that the gateways exist, or
        that somebody delegates to it.
        """
        if not self.exposure.routes or self.lacks_gateways:
            return False
        if not ROUTERS[self.router].ACKNOWLEDGES:
            return self.followed.counts
        return self.live and self.followed.by is Following.YES and not self.followed.why

    @property
    def written(self) -> bool:
        """Say whether its route is to be there: it waits for gateways, but stays once it is."""
        return self.exposure.routes and (self.live or not self.lacks_gateways)

    def waiting(self, detector: Detector) -> Route:
        """Return what its route says until it is accepted: it leads to the detector's Service."""
        return Route(self.exposure.hosts, self.exposure.gateways, {detector.name: 100})

    @property
    def missing(self) -> Followed:
        """Return what it waits for."""
        if self.followed.why or not ROUTERS[self.router].ACKNOWLEDGES:
            return self.followed
        message = "the gateways have not seen the route yet"
        return Followed(Following.NOBODY, Reason.ROUTE_PENDING, message)

    @property
    def lacks_gateways(self) -> bool:
        """Say whether it names a gateway that does not exist, of this router's kind."""
        return self.followed.reason is Reason.GATEWAY_ABSENT


def best(options: Iterable[RouterOption]) -> RouterOption:
    """Return the one to take: what routes; else what was begun; else what can be."""
    return max(options, key=lambda option: (option.routes, option.live, option.written))


def choose_router(
    detector: Detector,
    routers: Collection[Provider],
    status: Status,
    children: Children,
    elsewhere: Elsewhere,
) -> tuple[RouterOption, Provider, RouterOption | None]:
    """Return the way of requests, the router that the detector is on, and where it is to move.

    A detector that is new takes the first router that has its gateways; where none has one of them
    it is on its plain Service. From there it moves, with auto, only once a router routes: until
    then its way is the one that it is to move to. One that is on a router goes on by that until
    another, which the user names, routes.
    """
    auto = detector.spec.traffic.provider is Provider.AUTO
    kept = _kept(detector, status, children)
    if by_name := _by_name(detector, kept, routers, children, elsewhere):
        return by_name
    provider = provider_for(detector, routers, kept)
    usable = [each for each in SPLITTING if provider_for(detector, {each}) in routers]
    if auto and splits(provider) and kept is None:
        new = [_option(detector, each, children, elsewhere) for each in usable]
        option = next((each for each in new if not each.lacks_gateways), new[0])
        nowhere = option.lacks_gateways and not option.followed.counts and not option.live
        return (option, Provider.SERVICE, option) if nowhere else (option, option.router, None)
    if not auto or not splits(provider) or kept is not Provider.SERVICE:
        option = _option(detector, provider, children, elsewhere)
        away = auto and kept and not splits(provider)  # its API may come back
        return option, kept if away and kept else provider, None
    option = best(_option(detector, each, children, elsewhere) for each in usable)
    return (option, option.router, None) if option.routes else (option, Provider.SERVICE, option)


def _by_name(
    detector: Detector,
    kept: Provider | None,
    routers: Collection[Provider],
    children: Children,
    elsewhere: Elsewhere,
) -> tuple[RouterOption, Provider, RouterOption | None] | None:
    """Return the way of one on a router that has not moved yet to another, which the user names.

    It goes on by the former as it is, if anybody follows that. While the API of the former is away,
    as it may be for a moment, the Service carries all; it is still on that one.
    """
    named = detector.spec.traffic.provider
    if kept is None or kept is named or not (splits(kept) and splits(named)):
        return None
    goal = _option(detector, named, children, elsewhere) if named in routers else None
    routes = goal is not None and goal.routes
    if kept not in routers:
        return (goal, kept, goal) if goal and not routes else None
    if routes and not detector.spec.suspend:
        return None
    former = _option(detector, kept, children, elsewhere, stays=True)
    serves = former.live and former.followed.by is not Following.NOBODY
    return (former, kept, goal) if serves else None


def _kept(detector: Detector, status: Status, children: Children) -> Provider | None:
    """Return the router that `detector` is on: by status; where that is lost, by its route.

    A route that leads to the detector's own Service waits to be accepted: it is on that Service.
    """
    routes = {each: _route(detector, each, children) for each in SPLITTING}
    leads = {p: ROUTERS[p].leads(r["spec"]).keys() for p, r in routes.items() if r and r["spec"]}
    there = [p for p, names in leads.items() if names != {detector.name}]
    waits = status.provider in leads and status.provider not in there
    if status.provider and splits(status.provider) and not (waits and there):
        return status.provider
    if len(there) == 1:
        return there[0]
    return status.provider or (Provider.SERVICE if leads and not there else None)


def _option(
    detector: Detector,
    router: Provider,
    children: Children,
    elsewhere: Elsewhere,
    *,
    stays: bool = False,
) -> RouterOption:
    """Return what comes of `router`. stays: whether its route is to be where it is."""
    by, route = ROUTERS[router], _route(detector, router, children)
    taken = {**elsewhere.others.get(router, {}), **elsewhere.taken}
    live = by.places(route["spec"]) if route else None
    exposure = expose(
        detector,
        live,
        taken,
        elsewhere.allowed,
        bare=by.TAKES_ALL_HOSTS,
        shut=elsewhere.shut.get(router, {}),
        most=by.MOST_HOSTS,
    )
    absent = None
    if live and stays:
        exposure = _as_it_is(detector, live)
    elif live:
        exposure, absent = _on_what_is_there(detector, router, exposure, live, elsewhere)
    followed = overtaken(exposure, detector.namespace, taken) or _followed(
        detector, router, exposure, route, elsewhere
    )
    if absent:
        followed = replace(followed, reason=absent.reason, why=absent.why, status=absent.status)
    return RouterOption(
        router,
        exposure,
        followed=followed,
        live=route is not None,
        leads=by.leads(route["spec"]) if route else {},
        matched=by.matched(route["spec"]) if route else "",
        buckets=by.buckets(route["spec"]) if route else {},
        refused=by.refused(route) if route else "",
    )


def _on_what_is_there(
    detector: Detector, router: Provider, asked: Exposure, live: Places, elsewhere: Elsewhere
) -> tuple[Exposure, Followed | None]:
    """Return where the route is to be: not taken from a gateway that exists to none that does.

    With it, what is against what was asked for.
    """
    there = _as_it_is(detector, live, asked.denials)
    missing = _on_gateways(detector, router, asked, elsewhere)
    if missing.by is not Following.NOBODY:
        return asked, None
    if _on_gateways(detector, router, there, elsewhere).by is Following.NOBODY:
        return asked, None
    stays = f"until then the route stays on {', '.join(there.gateways) or 'who delegates to it'}"
    return there, replace(missing, why=f"{missing.why}; {stays}")


def _as_it_is(detector: Detector, live: Places, denials: tuple[Denial, ...] = ()) -> Exposure:
    """Return where a route is, but for hosts that nobody asks for any more, if others are."""
    hosts, gateways = live
    asked = {normal(host) for host in detector.spec.traffic.hosts}
    return unchanged(([h for h in hosts if normal(h) in asked] or hosts, gateways), denials)


def _followed(
    detector: Detector,
    router: Provider,
    exposure: Exposure,
    route: Manifest | None,
    elsewhere: Elsewhere,
) -> Followed:
    """Say who routes; where some gateways are absent, that, and what the others do."""
    missing = _on_gateways(detector, router, exposure, elsewhere)
    if missing.by is Following.NOBODY:
        return missing
    absent = elsewhere.absent.get(router, frozenset())
    found = ROUTERS[router].followed(detector, exposure.hosts, route, elsewhere.mesh, absent)
    if not missing.why:
        return found
    why = f"{missing.why}; {found.why}" if found.why else missing.why
    return replace(missing, by=found.by, why=why)


def _on_gateways(
    detector: Detector, router: Provider, exposure: Exposure, elsewhere: Elsewhere
) -> Followed:
    absent = elsewhere.absent.get(router, frozenset())
    return on_gateways(exposure.gateways, detector.namespace, absent)


def _route(detector: Detector, router: Provider, children: Children) -> Manifest | None:
    routes = children.get(ROUTERS[router].KIND, ())
    return next((r for r in routes if r["metadata"]["name"] == detector.name), None)
