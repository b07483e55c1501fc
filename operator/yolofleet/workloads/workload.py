"""What a workload is: how a revision is run, and what decisions see of one that is there."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

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
class Scaled:
    """How a workload moves its replicas itself: its bounds, and the requests in flight of each.

    runs: how many there are now.
    """

    least: int
    most: int
    in_flight: int
    runs: int = 1


@dataclass(frozen=True, slots=True)
class PlannedRevision:
    """A revision and its replicas; None: an autoscaler owns the number.

    scaled: by an autoscaler of the workload's own. anew: it is taken away, to be made again.
    remade: how often it was. served: whether the one that is there was ever ready.
    record: what is kept of it. released: whether it is or was the stable revision; unproved:
    whether it is that as the first one, and still to be judged. failed: what it was called off for.
    """

    revision: Revision
    record: Record
    replicas: int | None
    released: bool = False
    failed: Failed | None = None
    unproved: bool = False
    scaled: Scaled | None = None
    anew: bool = False
    remade: int = 0
    served: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """What a workload tells of the revision that it runs.

    ready: replicas that can answer, of `replicas` that are asked for. settled: whether that is told
    of its present spec, not of one before. leaving: whether some that go may still be among those
    that it tells of as ready. noted: what is kept of the revision on the workload.
    released: whether it was the stable one at some time; proved: and nothing is left to prove.
    failed: what it was called off for. failure: why it has no pod to ask.
    hopeless: since when there has been a workload that never had a ready replica, and will have
    none by itself; another one may. served: whether it was ever ready. look_at: when time alone
    changes what is read.
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
    hopeless: datetime | None = None
    served: bool = False
    look_at: datetime | None = None


class Workload(Protocol):
    """Plain functions and facts of a module. A `manifest` is one of its kind as it is stored."""

    KIND: str
    """Of its objects, each by the name of its revision."""

    POD: str
    """The pod template in it, as the API server's words name it."""

    OWN_AUTOSCALER: bool
    """Whether it moves its replicas itself, where it is told to; else an HPA or KEDA does."""

    SWAPS: bool
    """Whether a replica that is given up leaves its room to another at once."""

    SCRAPED: str
    """The name of the port on which each of its pods tells its own metrics."""

    QUEUES: bool
    """Whether requests may wait before a server sees them: deadlines count from the route then."""

    SAID: tuple[tuple[str, str], ...]
    """What the API server may say of it, and what that means."""

    LACKING: str
    """What is to be installed where its API is not in the cluster."""

    def build(self, detector: Detector, planned: PlannedRevision, /) -> Manifest:
        """Return what runs a revision; without replicas when an autoscaler owns them."""

    def stands(self, planned: PlannedRevision, /) -> bool:
        """Say whether there is to be one: else the record is what it is made again from."""

    def beside(self, detector: Detector, planned: PlannedRevision, /) -> list[Manifest]:
        """Return what it needs beside itself, and before."""

    def read(self, manifest: Manifest, pods: Sequence[Manifest], now: datetime, /) -> Running:
        """Return what it tells of its revision. pods: of that."""

    def budget(self, replicas: int, /) -> dict[str, Any]:
        """Return the holes of a disruption budget over so many replicas."""

    def alone(self, revision: Revision, /) -> str:
        """Say which pod takes all others with it, and what helps; empty: none does."""

    def pod(self, manifest: Manifest, /) -> Manifest:
        """Return the template of its pods."""

    def scaled(self, revision: str, /) -> dict[str, str]:
        """Return what an autoscaler targets."""
