"""No router: the detector's own Service, which stands for one revision, and selects one or all.

And the Service of each revision, to which the routes of all routers lead.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from yolofleet.api.detector import Detector
from yolofleet.api.hosts import MESH, MOST_NAMED
from yolofleet.api.names import DETECTOR_LABEL, REVISION_LABEL, Manifest, selector_labels
from yolofleet.manifests.child import child
from yolofleet.routers.buckets import Buckets
from yolofleet.routers.doors import Doors
from yolofleet.routers.following import Followed, Mesh
from yolofleet.routers.router import Places, Route

KIND = ""
POINTS: tuple[str, ...] = ("Service",)
TAKES_ALL_HOSTS = False
MOST_HOSTS = MOST_NAMED
NEEDS_GATEWAYS = False
ACKNOWLEDGES = False
LACKING = ""
STICKS = (
    "has no effect on a plain Service, which reads no headers; set spec.traffic.provider to istio,"
    " gateway or auto, or remove it"
)
FIELDS: tuple[tuple[str, str], ...] = ()
PROXIES_IN: tuple[int, ...] = ()
PROXIES_OUT: tuple[int, ...] = ()


# writing


def revision_service(detector: Detector, revision: str) -> Manifest:
    """Return the Service of one revision."""
    return _service(detector, revision, revision, selector_labels(detector.name, revision))


def stable_service(detector: Detector, stable: str, *, answering: str | None) -> Manifest:
    """Return the detector's own Service, mesh or none.

    Its label says what the detector is released on: the pointer. Its selector says who answers.

    answering: the revision whose pods it selects; None: those of all.
    """
    selected = {DETECTOR_LABEL: detector.name}
    if answering is not None:
        selected = selector_labels(detector.name, answering)
    return _service(detector, detector.name, stable, selected)


def _service(detector: Detector, name: str, revision: str, selector: Mapping[str, str]) -> Manifest:
    return child("service.yaml.j2", detector, name, revision=revision, selector=selector)


def destination_rules(_detector: Detector, _revision: str, /) -> list[Manifest]:
    """Return nothing: there is no route to lead anywhere."""
    return []


def routes(_detector: Detector, _route: Route, /) -> list[Manifest]:
    """Return nothing: the Service is written whoever routes."""
    return []


# reading


@dataclass(frozen=True, slots=True)
class Selection:
    """What the detector's Service says; where there is none, nothing."""

    stands_for: str | None = None  # what the detector was released on when it was written
    answering: str | None = None  # the revision whose pods it selects; None: those of all, or none
    spans: bool = False  # whether it selects the pods of all revisions

    def leads_to(self, name: str) -> bool:
        """Say whether pods of `name` get requests by it while they are ready."""
        return self.spans or self.answering == name


def selection(detector: Detector, services: Iterable[Manifest]) -> Selection:
    """Return what the detector's Service says."""
    for service in services:
        if service["metadata"]["name"] == detector.name:
            selector: dict[str, str] = service["spec"].get("selector") or {}
            answering = selector.get(REVISION_LABEL)
            named = service["metadata"].get("labels", {}).get(REVISION_LABEL)
            return Selection(named or answering, answering, spans=answering is None)
    return Selection()


def asked(hosts: list[str] | None, gateways: list[str], /) -> Places:
    """Return where a spec asks to be routed: its hosts are its own also before anybody routes."""
    return hosts or [], gateways or [MESH]


def places(_spec: Mapping[str, Any], /) -> Places:
    """Return nothing: there is no route."""
    return [], []


def shadows(_route: Manifest, /) -> Places:
    """Return nothing: there is no route."""
    return [], []


def doors(_gateway: Manifest, /) -> Doors | None:
    """Return nothing: a Service hangs on no gateway."""
    return None


def leads(_spec: Mapping[str, Any], /) -> dict[str, int]:
    """Return nothing: a Service has no weights."""
    return {}


def matched(_spec: Mapping[str, Any], /) -> str:
    """Return nothing: a Service reads no headers."""
    return ""


def buckets(_spec: Mapping[str, Any], /) -> Buckets:
    """Return nothing: a Service reads no headers."""
    return {}


def followed(
    _detector: Detector,
    _hosts: Sequence[str],
    _route: Manifest | None,
    _mesh: Mesh,
    _absent: Collection[str],
    /,
) -> Followed:
    """Say yes: kube-proxy does what a Service says."""
    return Followed()


def refused(_route: Manifest, /) -> str:
    """Return nothing."""
    return ""
