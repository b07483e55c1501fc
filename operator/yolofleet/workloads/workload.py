"""What a workload is: how a revision is run, and what decisions see of one that is there."""

from dataclasses import dataclass
from typing import Protocol

from yolofleet.api.analysis import Failed
from yolofleet.api.detector import Detector
from yolofleet.api.names import Manifest
from yolofleet.workloads.failures import Failure
from yolofleet.workloads.revision import Revision


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of a revision.

    number: counts the revisions of a detector in the order in which they were made.
    """

    text: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class PlannedRevision:
    """A revision and its replicas; None: an autoscaler owns the number.

    record: what is kept of it. released: whether it is or was the stable revision; unproved:
    whether it is that as the first one, and still to be judged. failed: what it was called off for.
    """

    revision: Revision
    record: Record
    replicas: int | None
    released: bool = False
    failed: Failed | None = None
    unproved: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """What a workload tells of the revision that it runs.

    ready: replicas that can answer, of `replicas` that are asked for. settled: whether that is told
    of its present spec, not of one before. leaving: whether some that go may still be among those
    that it tells of as ready. noted: what is kept of the revision on the workload.
    released: whether it was the stable one at some time; proved: and nothing is left to prove.
    failed: what it was called off for. failure: why it has no pod to ask.
    """

    name: str
    created: str
    replicas: int
    ready: int
    settled: bool
    leaving: bool
    noted: Record
    released: bool
    proved: bool
    failed: Failed | None
    failure: Failure | None


class Workload(Protocol):
    """Plain functions and facts of a module. A `manifest` is one of its kind as it is stored."""

    KIND: str
    """Of its objects, each by the name of its revision."""

    POD: str
    """The pod template in it, as the API server's words name it."""

    def build(self, detector: Detector, planned: PlannedRevision, /) -> Manifest:
        """Return what runs a revision; without replicas when an autoscaler owns them."""

    def read(self, manifest: Manifest, /) -> Running:
        """Return what it tells of its revision."""

    def pod(self, manifest: Manifest, /) -> Manifest:
        """Return the template of its pods."""

    def scaled(self, revision: str, /) -> dict[str, str]:
        """Return what an autoscaler targets."""
