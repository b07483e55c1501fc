"""Where the user wrote what an object of a detector holds: for the API server's words about it."""

import re
from collections.abc import Mapping

_WRITTEN: Mapping[str, tuple[tuple[str, str], ...]] = {
    "Deployment": ((r"spec\.template", "spec.podTemplate"),),
    "HorizontalPodAutoscaler": (
        (r"spec\.behavior", "spec.autoscaling.behavior"),
        (r"spec\.minReplicas", "spec.autoscaling.minReplicas"),
        (r"spec\.maxReplicas", "spec.autoscaling.maxReplicas"),
        (r"spec\.metrics(\[\d+\])?", "spec.autoscaling"),
    ),
    "NetworkPolicy": (
        (r"spec\.ingress(\[\d+\])?\.from", "spec.access.allowFrom"),
        (r"spec\.egress(\[\d+\])?", "spec.access.allowTo"),
    ),
    "VirtualService": (
        (r"spec\.(hosts|gateways)", r"spec.traffic.\1"),
        (r"spec\.http(\[\d+\])?\.match", "spec.canary.match"),
    ),
    "HTTPRoute": (
        (r"spec\.hostnames", "spec.traffic.hosts"),
        (r"spec\.parentRefs", "spec.traffic.gateways"),
        (r"spec\.rules(\[\d+\])?\.matches", "spec.canary.match"),
    ),
}


_OUR_SIDE = re.compile(r"\S+:\d+->(?=\S+:\d)")
"""Of a connection in the words of Go's `net`: another port at each try, which would be news."""


def as_the_user_wrote(kind: str, told: str) -> str:
    """Return what the API server says of an object of `kind`, with fields as the detector has them.

    A field that the detector does not have is left as it is. What differs from try to try goes.
    """
    told = steady(told)
    for field, written in _WRITTEN.get(kind, ()):
        told = re.sub(rf"(?<![\w.])\.?{field}(?![A-Za-z])", written, told)
    return told


def steady(told: str) -> str:
    """Return what the API server says without what differs from try to try."""
    return _OUR_SIDE.sub("", told)
