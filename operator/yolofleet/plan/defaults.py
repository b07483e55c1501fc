"""What the cluster's admin has set for all detectors; filled in by `settings`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from yolofleet.plan.powers import Power
from yolofleet.routers.exposure import Allowed


@dataclass(frozen=True, slots=True)
class OperatorPods:
    """By what a NetworkPolicy knows the operator's own pods."""

    namespace: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Defaults:
    """Values that a spec may leave open. drain_seconds: how long pods outlive their last weight.

    monitor_labels: what Prometheus selects PodMonitors by; None: none are made. allowed: the hosts
    and gateways that detectors may route. namespaces: those that are looked after; none: all.
    forbidden: what no podTemplate may take. operator: who reads the evidence of pods; None: nobody
    can be let in by name.
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
