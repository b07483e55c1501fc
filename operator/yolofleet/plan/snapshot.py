"""What is known of one detector's world at one moment, as it was read."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from yolofleet.api.analysis import AnalysisStatus
from yolofleet.api.detector import Provider
from yolofleet.api.names import Manifest
from yolofleet.api.status import Status
from yolofleet.plan.defaults import GpuSeries
from yolofleet.plan.floor import Moved
from yolofleet.plan.nodes import NodeRoom
from yolofleet.routers.claims import Claim, Crossing
from yolofleet.routers.exposure import Allowed
from yolofleet.routers.following import Mesh
from yolofleet.workloads.failures import Complaint


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What of the rest of the cluster concerns a detector's route.

    taken: of what it asks for, what other detectors have; others: what by each router the route of
    somebody who is no detector has ("KIND NAMESPACE/NAME"); shut: what by each router a gateway
    keeps for other namespaces, and whom it lets in. crossed: what shares a part of its hosts.
    allowed: what the admin lets it have.
    absent: of its gateways, those that are known not to exist. namesake: an older detector whose
    revision it could be by its name, or the other way round.
    """

    taken: Mapping[Claim, str] = field(default_factory=dict)
    allowed: Allowed = field(default_factory=Allowed)
    mesh: Mesh = field(default_factory=Mesh)
    absent: Mapping[Provider, frozenset[str]] = field(default_factory=dict)
    namesake: str = ""
    others: Mapping[Provider, Mapping[Claim, str]] = field(default_factory=dict)
    crossed: tuple[Crossing, ...] = ()
    shut: Mapping[Provider, Mapping[Claim, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Keda:
    """What KEDA needs. served: whether its API is there. prometheus: whom to ask; empty: nobody.

    authentication: the ClusterTriggerAuthentication by which it asks; empty: it shows nothing.
    gpu: what it asks for the use of GPUs. autoscalers: those that it has made, or taken over.
    """

    served: bool = False
    prometheus: str = ""
    authentication: str = ""
    gpu: GpuSeries = field(default_factory=GpuSeries)
    autoscalers: tuple[Manifest, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether both are there."""
        return self.served and bool(self.prometheus)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All of it. status: what was said last.

    nodes: those with accelerators; none for who asks for no accelerator. device_classes: the names
    of those by which devices can be claimed; None: none can, or nobody asks. routers: what of Istio
    and the Gateway API is in the cluster. monitors: whether the API of the Prometheus operator is.
    pull_secrets: of the account of the pods. complaints: by the uid of a pod, what its Events say.
    unreached: revisions whose Service, or rule, could not be made. edited: workloads whose note
    is not as we wrote it. token: a secret that was never used, should one be needed. analysis: what
    the pods showed last; None: nothing since the status. moved: the floor of the autoscaler; None:
    nobody looked at the load yet. lacking: the kinds of workloads whose API is not there.
    """

    status: Status
    children: Sequence[Manifest] = ()
    pods: Sequence[Manifest] = ()
    nodes: tuple[NodeRoom, ...] = ()
    device_classes: frozenset[str] | None = None
    routers: Collection[Provider] = ()
    elsewhere: Elsewhere = field(default_factory=Elsewhere)
    monitors: bool = False
    pull_secrets: Sequence[str] = ()
    complaints: Mapping[str, Complaint] = field(default_factory=dict)
    unreached: frozenset[str] = frozenset()
    edited: frozenset[str] = frozenset()
    token: str = field(default="", repr=False)
    analysis: AnalysisStatus | None = None
    keda: Keda = field(default_factory=Keda)
    moved: Moved | None = None
    lacking: frozenset[str] = frozenset()
