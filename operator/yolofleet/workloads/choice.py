"""Which workload runs a revision, and which are among what was found."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from yolofleet.api.detector import Engine
from yolofleet.api.names import Manifest
from yolofleet.workloads import deployment, ray_service
from yolofleet.workloads.revision import Revision
from yolofleet.workloads.workload import Workload

_BY_ENGINE: Final[Mapping[Engine, Workload]] = {
    Engine.DEPLOYMENT: deployment,
    Engine.RAY: ray_service,
}

WORKLOADS: Final[Mapping[str, Workload]] = {each.KIND: each for each in _BY_ENGINE.values()}
"""All there are, by kind."""


def workload_for(revision: Revision | None) -> Workload:
    """Return what runs a revision, or ran one of which nothing is known."""
    return _BY_ENGINE[revision.runtime.engine if revision else Engine.DEPLOYMENT]


def workload_of(manifest: Manifest) -> Workload | None:
    """Return the workload that `manifest` is one of."""
    return WORKLOADS.get(manifest["kind"])


def among(children: Iterable[Manifest]) -> Iterator[tuple[Workload, Manifest]]:
    """Find the workloads among the children of a detector."""
    for child in children:
        if workload := workload_of(child):
            yield workload, child
