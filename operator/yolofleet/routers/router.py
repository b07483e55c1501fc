"""What a router is: how its objects are written, and what decisions see of those that are there."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from yolofleet.api.detector import Detector, HeaderMatch
from yolofleet.api.names import Manifest
from yolofleet.routers.buckets import Buckets
from yolofleet.routers.doors import Doors
from yolofleet.routers.following import Followed, Mesh

Places = tuple[list[str], list[str]]
"""The hosts and the gateways of a route."""


@dataclass(frozen=True, slots=True)
class Route:
    """What the route of a detector is to say.

    leads: the percent of requests for each Service. matched: the Service of those that `match`.
    sticky: the header by which cameras stay on a revision, and the buckets of each. stamped:
    requests are to say when they came, for they may wait before a server sees them.
    """

    hosts: Sequence[str]
    gateways: Sequence[str]
    leads: Mapping[str, int]
    matched: str | None = None
    match: Sequence[HeaderMatch] = ()
    sticky: str = ""
    buckets: Buckets = field(default_factory=dict)
    stamped: bool = False


STAMP = ("x-request-start", "t=%START_TIME(%s.%3f)%")
"""The header that a route sets, whatever a caller sent, and its value as Envoy fills it in. Where
another proxy does not, servers pass over what it says."""


class Router(Protocol):
    """Plain functions and facts of a module. A `spec` is that of a route as it is stored."""

    KIND: str
    """Of its routes; empty: it has none, and so splits nothing."""

    POINTS: tuple[str, ...]
    """Kinds of which one by the name of a revision has to be there before a route leads to it."""

    TAKES_ALL_HOSTS: bool
    """Whether a route without hosts answers to all hosts of its gateways, and not to none."""

    MOST_HOSTS: int
    """So many hosts a route of it may name."""

    NEEDS_GATEWAYS: bool
    """Whether a route hangs on gateways that only the user can name."""

    ACKNOWLEDGES: bool
    """Whether it tells of a route that it routes by it."""

    LACKING: str
    """What is to be installed where its API is not in the cluster."""

    STICKS: str
    """What is to be known of how it keeps cameras on a revision; empty: nothing."""

    FIELDS: tuple[tuple[str, str], ...]
    """Of its route: what the API server calls a part, and what the user wrote it as."""

    PROXIES_IN: tuple[int, ...]
    """Ports at which pods are reached for it, beside their own."""

    PROXIES_OUT: tuple[int, ...]
    """Ports that pods reach for it."""

    def destination_rules(self, detector: Detector, revision: str, /) -> list[Manifest]:
        """Return what it needs of a revision beside its Service."""

    def routes(self, detector: Detector, route: Route, /) -> list[Manifest]:
        """Return its route, if it has one.

        Those that match go their way, then those of a bucket; all others by weight.
        """

    def asked(self, hosts: list[str] | None, gateways: list[str], /) -> Places:
        """Return where a spec asks to be routed; hosts: None: it names none."""

    def places(self, spec: Mapping[str, Any], /) -> Places:
        """Return where a route answers; without a host: nowhere by itself."""

    def shadows(self, route: Manifest, /) -> Places:
        """Return where a route of somebody else leaves no request to a younger one."""

    def doors(self, gateway: Manifest, /) -> Doors | None:
        """Return whom a gateway of its kind lets in; None where it does not say it."""

    def leads(self, spec: Mapping[str, Any], /) -> dict[str, int]:
        """Return what it gives each Service of all that matches nothing."""

    def matched(self, spec: Mapping[str, Any], /) -> str:
        """Return the Service to which it leads those that match; empty: none."""

    def buckets(self, spec: Mapping[str, Any], /) -> Buckets:
        """Return which cameras it keeps on which Service."""

    def followed(
        self,
        detector: Detector,
        hosts: Sequence[str],
        route: Manifest | None,
        mesh: Mesh,
        absent: Collection[str],
        /,
    ) -> Followed:
        """Say whether somebody routes by its route, of the gateways of which some are there."""

    def refused(self, route: Manifest, /) -> str:
        """Return what is said against the route as it is now."""
