"""What the cluster's admin has set for all detectors; filled in by `settings`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from yolofleet.api.analysis import Analysis, Mode
from yolofleet.api.base import REMEMBERED
from yolofleet.api.detector import Detector
from yolofleet.plan.powers import Power
from yolofleet.routers.exposure import Allowed


@dataclass(frozen=True, slots=True)
class OperatorPods:
    """By what a NetworkPolicy knows the operator's own pods."""

    namespace: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class GpuSeries:
    """What NVIDIA's exporter calls the use of a GPU: as profiled, 0 to 1; as estimated, percent.

    exporter: the namespace that it runs in, and from which it is believed what it says of pods of
    others; empty: from none.
    """

    active: str = "DCGM_FI_PROF_GR_ENGINE_ACTIVE"
    utilization: str = "DCGM_FI_DEV_GPU_UTIL"
    exporter: str = "gpu-operator"


@dataclass(frozen=True, slots=True)
class Defaults:
    """Values that a spec may leave open. drain_seconds: how long pods outlive their last weight.

    monitor_labels: what Prometheus selects PodMonitors by; None: none are made. allowed: the hosts
    and gateways that detectors may route. namespaces: those that are looked after; none: all.
    forbidden: what no podTemplate may take. operator: who reads the evidence of pods; None: nobody
    can be let in by name. analysis: how releases are judged of detectors that do not say it.
    prometheus: who scrapes their pods; empty: nobody that is known. keda_authentication: the
    ClusterTriggerAuthentication by which KEDA asks it; empty: none. gpu: what it asks for the use
    of GPUs. nodes_follow_pods: whether nodes with accelerators are made, or emptied, for pods that
    wait: by a node autoscaler, or for their priority.
    """

    image_cpu: str
    image_torch: str
    image_gpu: str
    image_pull_policy: str = "IfNotPresent"
    drain_seconds: int = 30
    monitor_labels: Mapping[str, str] | None = field(default_factory=dict)
    allowed: Allowed = field(default_factory=Allowed)
    namespaces: tuple[str, ...] = ()
    forbidden: frozenset[Power] = frozenset()
    operator: OperatorPods | None = None
    analysis: Mode = Mode.DISABLED
    prometheus: str = ""
    keda_authentication: str = ""
    gpu: GpuSeries = field(default_factory=GpuSeries)
    image_ray: str = ""
    nodes_follow_pods: bool = False


@lru_cache(maxsize=REMEMBERED)  # the very same object at each pass, by which others remember
def judged(detector: Detector, usual: Mode) -> Detector:
    """Return it with what is asked of its releases: by its spec, or else what is usual."""
    asked = detector.spec.rollout.analysis
    if asked is not None and asked.mode is not Mode.DISABLED:
        return detector
    by_default = asked is None and usual is not Mode.DISABLED
    analysis = Analysis(mode=usual) if by_default else None
    rollout = detector.spec.rollout.model_copy(update={"analysis": analysis})
    return detector.model_copy(
        update={"spec": detector.spec.model_copy(update={"rollout": rollout})}
    )
