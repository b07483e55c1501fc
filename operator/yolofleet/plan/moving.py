"""From a plain Service to a router that appears: by itself, but not before that one routes.

Until then the Service carries all there is, and status says so. A route that has to be accepted
first is written meanwhile, and leads to that same Service: whoever follows it early finds what the
Service sends to.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from yolofleet.api.detector import Provider
from yolofleet.api.status import Reason
from yolofleet.plan.exposure import Exposure
from yolofleet.plan.following import Followed, Following


@dataclass(frozen=True, slots=True)
class Way:
    """A router that a detector could be on. live: whether its route is there."""

    router: Provider
    exposure: Exposure
    followed: Followed
    live: bool

    @property
    def carries(self) -> bool:
        """Say whether requests go, or will go at once, by a route of this router.

        A gateway has accepted it. An Istio says nothing of the kind: there it is enough that the
        gateways exist, or that somebody delegates to it.
        """
        if not self.exposure.routes or self._lacks_gateways:
            return False
        if self.router is Provider.ISTIO:
            return self.followed.counts
        return self.live and self.followed.by is Following.YES and not self.followed.why

    @property
    def written(self) -> bool:
        """Say whether its route is to be there: it waits for gateways, but stays once it is."""
        return self.exposure.routes and (self.live or not self._lacks_gateways)

    @property
    def missing(self) -> Followed:
        """Return what it waits for."""
        if self.followed.why or self.router is not Provider.GATEWAY:
            return self.followed
        told = "the gateways have not seen the route yet"
        return Followed(Following.NOBODY, Reason.ROUTE_PENDING, told)

    @property
    def _lacks_gateways(self) -> bool:
        return self.followed.reason is Reason.GATEWAY_ABSENT


def choose(ways: Iterable[Way]) -> Way:
    """Return the way to go: what carries; else what was begun; else what can be."""
    return max(ways, key=lambda way: (way.carries, way.live, way.written))
