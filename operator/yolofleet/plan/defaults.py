"""What the cluster's admin has set for all detectors; filled in by `settings`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Defaults:
    """Values that a spec may leave open. drain_seconds: how long pods outlive their last weight."""

    image_cpu: str
    image_torch: str
    image_gpu: str
    image_pull_policy: str = "IfNotPresent"
    drain_seconds: int = 30
