"""The way of requests: which router a detector is on, and when it moves to one that appears.

From a plain Service it moves by itself, but not before the router routes. Until then the Service
carries all there is, and status says so. A route that has to be accepted first is written
meanwhile, and leads to that same Service: whoever follows it early finds what the Service sends to.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from yolofleet.api.detector import Detector, Provider
from yolofleet.api.names import Manifest
from yolofleet.api.status import Reason, Status
from yolofleet.plan.snapshot import Elsewhere
from yolofleet.routers.buckets import Buckets
from yolofleet.routers.choice import ROUTERS, SPLITTING, provider_for, splits
from yolofleet.routers.exposure import Exposure, expose, overtaken
from yolofleet.routers.following import Followed, Following, on_gateways

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
    it is on its plain Service. From there it moves, with auto, only once a router routes.
    """
    auto = detector.spec.traffic.provider is Provider.AUTO
    kept = _kept(detector, status, children)
    provider = provider_for(detector, routers, kept)
    there = [each for each in SPLITTING if provider_for(detector, {each}) in routers]
    if auto and splits(provider) and kept is None:
        new = [_option(detector, each, children, elsewhere) for each in there]
        option = next((each for each in new if not each.lacks_gateways), new[0])
        nowhere = option.lacks_gateways and not option.followed.counts and not option.live
        return (option, Provider.SERVICE, option) if nowhere else (option, option.router, None)
    if not auto or not splits(provider) or kept is not Provider.SERVICE:
        option = _option(detector, provider, children, elsewhere)
        away = auto and kept and not splits(provider)  # its API may come back
        return option, kept if away and kept else provider, None
    option = best(_option(detector, each, children, elsewhere) for each in there)
    return (option, option.router, None) if option.routes else (option, Provider.SERVICE, option)


def _kept(detector: Detector, status: Status, children: Children) -> Provider | None:
    """Return the router that `detector` is on: by status; where that is lost, by its route.

    A route that leads to the detector's own Service waits to be accepted: it is on that Service.
    """
    if status.provider and splits(status.provider):
        return status.provider
    routes = {each: _route(detector, each, children) for each in SPLITTING}
    leads = {p: ROUTERS[p].leads(r["spec"]).keys() for p, r in routes.items() if r and r["spec"]}
    there = [p for p, names in leads.items() if names != {detector.name}]
    if len(there) == 1:
        return there[0]
    return status.provider or (Provider.SERVICE if leads and not there else None)


def _option(
    detector: Detector, router: Provider, children: Children, elsewhere: Elsewhere
) -> RouterOption:
    by, route = ROUTERS[router], _route(detector, router, children)
    taken = {**elsewhere.others.get(router, {}), **elsewhere.taken}
    exposure = expose(
        detector,
        by.places(route["spec"]) if route else None,
        taken,
        elsewhere.allowed,
        bare=by.TAKES_ALL_HOSTS,
    )
    return RouterOption(
        router,
        exposure,
        followed=overtaken(exposure, detector.namespace, taken)
        or _followed(detector, router, exposure, route, elsewhere),
        live=route is not None,
        leads=by.leads(route["spec"]) if route else {},
        matched=by.matched(route["spec"]) if route else "",
        buckets=by.buckets(route["spec"]) if route else {},
        refused=by.refused(route) if route else "",
    )


def _followed(
    detector: Detector,
    router: Provider,
    exposure: Exposure,
    route: Manifest | None,
    elsewhere: Elsewhere,
) -> Followed:
    absent = elsewhere.absent.get(router, frozenset())
    missing = on_gateways(exposure.gateways, detector.namespace, absent)
    if missing.why:
        return missing
    return ROUTERS[router].followed(detector, exposure.hosts, route, elsewhere.mesh)


def _route(detector: Detector, router: Provider, children: Children) -> Manifest | None:
    routes = children.get(ROUTERS[router].KIND, ())
    return next((r for r in routes if r["metadata"]["name"] == detector.name), None)
