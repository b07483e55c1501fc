"""Which workload runs a revision, and which are among what was found."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from yolofleet.api.names import Manifest
from yolofleet.workloads import deployment
from yolofleet.workloads.revision import Revision
from yolofleet.workloads.workload import Workload

WORKLOADS: Final[Mapping[str, Workload]] = {each.KIND: each for each in (deployment,)}
"""All there are, by kind; the first one runs what asks for no other."""


def workload_for(_revision: Revision | None) -> Workload:
    """Return what runs a revision, or ran one of which nothing is known."""
    return next(iter(WORKLOADS.values()))


def workload_of(manifest: Manifest) -> Workload | None:
    """Return the workload that `manifest` is one of."""
    return WORKLOADS.get(manifest["kind"])


def among(children: Iterable[Manifest]) -> Iterator[tuple[Workload, Manifest]]:
    """Find the workloads among the children of a detector."""
    for child in children:
        if workload := workload_of(child):
            yield workload, child
