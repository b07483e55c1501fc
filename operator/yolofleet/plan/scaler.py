"""Who tells the autoscaler the load, and with how many replicas it may make do.

`auto` is decided once: what the status remembers stays, whatever appears in the cluster. Where what
feeds the autoscaler is gone, the replicas that run are held, and a condition says so.
"""

from dataclasses import dataclass, replace

from yolofleet.api.autoscaling import Autoscaling, Scaler
from yolofleet.api.detector import Detector
from yolofleet.api.status import AutoscalingStatus, Reason
from yolofleet.plan.floor import Moved, Targets
from yolofleet.plan.nodes import SHARING, offering
from yolofleet.plan.observed import Observed
from yolofleet.workloads.choice import workload_for
from yolofleet.workloads.revision import Revision
from yolofleet.workloads.workload import Scaled

_OURS = Scaler.BUILTIN
_TO_CHOOSE = "; or set spec.autoscaling.provider to builtin"


@dataclass(frozen=True, slots=True)
class Lack:
    """What is asked for and cannot be had, and the fix. whole: whether nothing else is gone by."""

    reason: Reason
    message: str
    whole: bool = True


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

    least: the fewest replicas that the autoscaler may choose. lost: why its data say nothing, in
    words; empty: they do. beyond: whether the load asks for more than there may be. status: what is
    to be said and remembered. followed: whom to ask. keda_has_it: whether KEDA has not let go of
    the autoscaler yet. rests: whether its floor stays where it is, whatever the load.
    """

    asked: Autoscaling
    provider: Scaler
    least: int
    lack: Lack | None = None
    lost: str = ""
    beyond: bool = False
    status: AutoscalingStatus | None = None
    followed: Followed | None = None
    keda_has_it: bool = False
    rests: bool = False

    @property
    def by_keda(self) -> bool:
        """Whether KEDA writes the autoscaler: it can, and is to."""
        return self.provider is Scaler.KEDA and not (self.lack and self.lack.whole)


def scaling(
    detector: Detector, observed: Observed, stable: str, revision: Revision
) -> Scaling | None:
    """Say who scales the stable revision; None: nobody, or an autoscaler of somebody else.

    revision: whose pods it has, or is to have where nothing of it can be read.
    """
    asked = detector.spec.autoscaled
    if asked is None:
        return None
    found = _scaling(asked, observed, stable, revision)
    if not detector.spec.suspend:
        return found
    # Nothing is written: a floor that followed the load would be one that no autoscaler has.
    by_floor, known = found.followed is not None, observed.status.autoscaling
    return replace(found, status=known, lost="", beyond=False, followed=None, rests=by_floor)


def _scaling(asked: Autoscaling, observed: Observed, stable: str, revision: Revision) -> Scaling:
    provider = _provider(asked, observed)
    lack = _lack(revision, asked, provider, observed)
    if lack and not lack.whole:
        asked = asked.model_copy(update={"gpu": None})
    fed = lack is None or not lack.whole
    kept = stable in observed.scaled and not (fed and provider is Scaler.KEDA)
    decided = Scaling(asked, provider, asked.min_replicas, lack, keda_has_it=kept)
    if not fed:
        return _held(decided, observed, stable)
    if provider is Scaler.KEDA:
        return _fed(decided)
    if asked.load is None and asked.in_flight is None:
        known_to_it = asked.provider is Scaler.AUTO and lack is None
        return decided if known_to_it else _fed(decided)
    return _by_floor(decided, observed, stable)


def scales_itself(
    detector: Detector,
    observed: Observed,
    revision: Revision,
    replicas: int | None,
    *,
    least: int = 0,
) -> tuple[int | None, Scaled | None]:
    """Return the number of `revision`, or how its workload moves that by itself.

    It begins once no autoscaler of others is there any more, with what runs then; until then the
    number is only raised, to the fewest. Where it has nothing to go by it stays as it is.
    least: the fewest that it may choose now.
    """
    asked = detector.spec.autoscaled
    if replicas is not None or asked is None or not workload_for(revision).OWN_AUTOSCALER:
        return replicas, None
    runs = max(observed.replicas(revision.name), 1)
    if asked.in_flight is None:
        return runs, None
    fewest = max(asked.min_replicas, least)
    if observed.least is not None or observed.scaled:
        return max(runs, min(fewest, asked.max_replicas)), None
    return None, Scaled(fewest, asked.max_replicas, asked.in_flight, runs)


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
    if not observed.status.observed_generation:  # nothing yet, or the status was lost
        if observed.scaled:
            return Scaler.KEDA
        if observed.least is not None:
            return _OURS
    return Scaler.KEDA if observed.keda.usable else _OURS


def _lack(
    revision: Revision, asked: Autoscaling, provider: Scaler, observed: Observed
) -> Lack | None:
    by_keda, alone = provider is Scaler.KEDA, _goes_by_gpu_alone(asked)
    if by_keda and not observed.keda.served:
        return Lack(
            Reason.PROVIDER_MISSING,
            "spec.autoscaling.provider: keda needs KEDA 2.17 or later, whose kind ScaledObject"
            " is not in the cluster, or not for the operator (keda.enabled in its chart)"
            f"{_TO_CHOOSE}",
        )
    if by_keda and not observed.keda.prometheus:
        return Lack(
            Reason.PROVIDER_MISSING,
            "spec.autoscaling.provider: keda asks Prometheus, and prometheus.url is not set in"
            f" the operator's chart{_TO_CHOOSE}",
        )
    if asked.gpu is None:
        return None
    if not by_keda:
        return Lack(
            Reason.PROVIDER_MISSING,
            "spec.autoscaling.gpu has no effect: the operator cannot see what GPUs do; install"
            " KEDA, set prometheus.url in the operator's chart, and spec.autoscaling.provider to"
            " keda",
            whole=alone,
        )
    if sharing := [node for node in offering(revision, observed.nodes) if node.sharing]:
        return Lack(
            Reason.SHARED_GPU,
            f"spec.autoscaling.gpu has no effect: node {sharing[0].name} shares its GPUs"
            f" ({SHARING}), whose use is that of all who share them; go by load",
            whole=alone,
        )
    return None


def _goes_by_gpu_alone(asked: Autoscaling) -> bool:
    return asked.load is None and asked.in_flight is None and asked.cpu is None


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
    status = _status_of(moved, targets) if moved else _unlooked(known, begins)
    same = known and (known.provider, known.floor, known.held) == (_OURS, status.floor, status.held)
    if known and same and (known.reason or not status.reason):
        status = known  # since then
    least = status.floor or targets.least
    return replace(
        decided,
        least=least,
        lost=moved.floor.lost if moved else "",
        beyond=bool(moved and moved.floor.beyond and least == targets.most),
        status=status,
        followed=Followed(stable, targets, begins),
    )


def _unlooked(known: AutoscalingStatus | None, begins: int) -> AutoscalingStatus:
    """Return what is true until somebody has looked: data that were lost still are."""
    held = bool(known and known.provider is _OURS and known.held)
    return AutoscalingStatus(provider=_OURS, floor=begins, held=held)


def _status_of(moved: Moved, targets: Targets) -> AutoscalingStatus:
    floor, bounded = moved.floor, targets.bounded(moved.floor.replicas)
    return AutoscalingStatus(
        provider=_OURS,
        floor=bounded,
        since=moved.since,
        demand=None if floor.demand is None else round(floor.demand, 1),
        reason=floor.reason if bounded == floor.replicas else "",  # of bounds that were
        held=bool(floor.lost),
    )


def _before(known: AutoscalingStatus | None, observed: Observed, stable: str) -> int:
    """Return the floor before anybody looked: as it was, or the replicas that another one chose."""
    if known and known.provider is _OURS and known.floor:
        return max(known.floor, observed.least or 0)
    return observed.replicas(stable)


def _targets(asked: Autoscaling) -> Targets:
    return Targets(asked.min_replicas, asked.max_replicas, asked.load, asked.in_flight)
