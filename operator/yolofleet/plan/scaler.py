"""Who tells the autoscaler the load, and with how many replicas it may make do.

`auto` is decided once: what the status remembers stays, whatever appears in the cluster. Where what
feeds the autoscaler is gone, the replicas that run are held, and a person is told.
"""

from dataclasses import dataclass, replace

from yolofleet.api.autoscaling import Autoscaling, Scaler
from yolofleet.api.detector import Detector
from yolofleet.api.status import AutoscalingStatus
from yolofleet.plan.floor import Moved, Targets
from yolofleet.plan.observed import Observed

_OURS = Scaler.BUILTIN
_TO_CHOOSE = "; or set spec.autoscaling.provider to builtin"


@dataclass(frozen=True, slots=True)
class Followed:
    """A detector whose load to look at. What a replica can do, pods of `revision` tell.

    begins: the floor before anybody looked.
    """

    revision: str
    targets: Targets
    begins: int


@dataclass(frozen=True, slots=True)
class Scaling:
    """How the stable revision is scaled.

    least: the fewest replicas that the autoscaler may choose. missing: what it lacks, and the fix;
    empty: nothing. status: what is to be said and remembered. followed: whom to ask. keda_has_it:
    whether KEDA has not let go of the autoscaler yet.
    """

    asked: Autoscaling
    provider: Scaler
    least: int
    missing: str = ""
    lost: str = ""
    status: AutoscalingStatus | None = None
    followed: Followed | None = None

    keda_has_it: bool = False

    @property
    def by_keda(self) -> bool:
        """Whether KEDA writes the autoscaler: it can, and is to."""
        return self.provider is Scaler.KEDA and not self.missing


def scaling(detector: Detector, observed: Observed, stable: str) -> Scaling | None:
    """Say who scales the stable revision; None: nobody, or an autoscaler of somebody else."""
    asked = detector.spec.autoscaled
    if asked is None:
        return None
    provider = _provider(asked, observed)
    missing = _missing(asked, provider, observed)
    held = stable in observed.scaled and (provider is not Scaler.KEDA or bool(missing))
    decided = Scaling(asked, provider, asked.min_replicas, missing, keda_has_it=held)
    if provider is Scaler.KEDA:
        return _held(decided, observed, stable) if missing else _fed(decided)
    if asked.load is None and asked.in_flight is None:
        return decided if asked.provider is Scaler.AUTO and not missing else _fed(decided)
    return _by_floor(decided, observed, stable)


def status_of_none(detector: Detector) -> AutoscalingStatus | None:
    """Return what the status says where somebody else's autoscaler has the number."""
    spec = detector.spec
    return (
        AutoscalingStatus(provider=Scaler.NONE)
        if spec.autoscaling and not spec.autoscaled
        else None
    )


def _provider(asked: Autoscaling, observed: Observed) -> Scaler:
    if asked.provider is not Scaler.AUTO:
        return asked.provider
    if not asked.by_load:
        return _OURS  # the autoscaler knows of cpu by itself
    known = observed.status.autoscaling
    if known and known.provider is not Scaler.NONE:
        return known.provider
    return Scaler.KEDA if observed.keda.usable else _OURS


def _missing(asked: Autoscaling, provider: Scaler, observed: Observed) -> str:
    if provider is Scaler.KEDA:
        if not observed.keda.served:
            return (
                "spec.autoscaling.provider: keda needs KEDA 2.17 or later, whose kind ScaledObject"
                " is not in the cluster, or not for the operator (keda.enabled in its chart)"
                f"{_TO_CHOOSE}"
            )
        if not observed.keda.prometheus:
            return (
                "spec.autoscaling.provider: keda asks Prometheus, and prometheus.url is not set in"
                f" the operator's chart{_TO_CHOOSE}"
            )
    elif asked.gpu is not None:
        return (
            "spec.autoscaling.gpu has no effect: the operator cannot see what GPUs do; install"
            " KEDA, set prometheus.url in the operator's chart, and spec.autoscaling.provider to"
            " keda"
        )
    return ""


def _fed(decided: Scaling) -> Scaling:
    return replace(decided, status=AutoscalingStatus(provider=decided.provider))


def _held(decided: Scaling, observed: Observed, stable: str) -> Scaling:
    """Keep what runs, until what is missing is there."""
    known, targets = observed.status.autoscaling, _targets(decided.asked)
    before = known.floor if known and known.provider is decided.provider else None
    least = targets.bounded(before or observed.replicas(stable))
    status = AutoscalingStatus(provider=decided.provider, floor=least, held=True)
    return replace(decided, least=least, status=status)


def _by_floor(decided: Scaling, observed: Observed, stable: str) -> Scaling:
    known, targets, moved = observed.status.autoscaling, _targets(decided.asked), observed.moved
    begins = targets.bounded(_before(known, observed, stable))
    status = (
        _status_of(moved, targets) if moved else AutoscalingStatus(provider=_OURS, floor=begins)
    )
    if known and (known.provider, known.floor, known.held) == (_OURS, status.floor, status.held):
        status = known  # since then
    return replace(
        decided,
        least=status.floor or targets.least,
        lost=moved.floor.lost if moved else "",
        status=status,
        followed=Followed(stable, targets, begins),
    )


def _status_of(moved: Moved, targets: Targets) -> AutoscalingStatus:
    floor = moved.floor
    return AutoscalingStatus(
        provider=_OURS,
        floor=targets.bounded(floor.replicas),
        since=moved.since,
        demand=None if floor.demand is None else round(floor.demand, 1),
        reason=floor.reason,
        held=bool(floor.lost),
    )


def _before(known: AutoscalingStatus | None, observed: Observed, stable: str) -> int:
    """Return the floor before anybody looked: as it was, or the replicas that another one chose."""
    if known and known.provider is _OURS and known.floor:
        return max(known.floor, observed.least or 0)
    return observed.replicas(stable)


def _targets(asked: Autoscaling) -> Targets:
    return Targets(asked.min_replicas, asked.max_replicas, asked.load, asked.in_flight)
