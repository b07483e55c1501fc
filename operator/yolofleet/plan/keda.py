"""What KEDA is asked, and what it says: ScaledObjects and the state that they are in; pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from yolofleet.api.autoscaling import Autoscaling
from yolofleet.api.names import HASH_DIGITS, Manifest, revisions_prefix
from yolofleet.plan.autoscaler import Limit
from yolofleet.plan.defaults import GpuSeries
from yolofleet.workloads.failures import moment

KIND: Final = "ScaledObject"
HOLDS: Final = "currentReplicasIfHigher"
"""What a lost metric does. By KEDA's default it is a fixed number, and may be less than runs."""

SCALED_OBJECT_STAYS: Final = "ScaledObjectStays"

_OFFERED: Final = "ok|internal|canceled|overloaded|deadline_exceeded|hurried"
_RATE: Final = "[2m]"  # two scrapes and more, where Prometheus scrapes once a minute

_CUT: Final = 58
"""So much of its owner's name and a hyphen is in the name of a pod, and five letters: the rest of
a longer one is cut off (Kubernetes' names/generate.go)."""

_ROOM: Final = 12
"""So much of that is what comes between: ten characters at most, and two hyphens."""

_LETTERS: Final = "[0-9a-z]{5}"


@dataclass(frozen=True, slots=True)
class Question:
    """What Prometheus is asked, and how much of it one replica is to have.

    each: a whole number. KEDA 2.17 cuts off what is behind the point when it makes up a metric for
    one that is lost (`doFallback`): with 0.7 a replica it asked for none, and nobody was held.
    """

    name: str
    query: str
    each: int


def questions(
    asked: Autoscaling, namespace: str, detector: str, stable: str, gpu: GpuSeries
) -> Iterator[Question]:
    """Ask for what all pods of a detector have to do, whichever revision they are of.

    What one can do, those of the revision `stable` say, of which replicas are added. Each answer is
    a sum: divided by what a replica is to have, it is the number of replicas. A pod that two jobs
    scrape counts once. Where no pod is scraped there is no answer, which is no 0.
    """
    pods = _pods(f"{revisions_prefix(detector)}-", HASH_DIGITS)
    where = f'namespace="{namespace}",pod=~"{pods}"'
    if asked.load is not None:
        requests = f'yoloserve_requests_total{{{where},source="request",outcome=~"{_OFFERED}"}}'
        own = f'namespace="{namespace}",pod=~"{_pods(stable)}"'
        capacity = f"yoloserve_capacity_requests_per_second{{{own}}} < +Inf"
        rates = f"max by (pod, outcome) (rate({requests}{_RATE}))"
        query = f"100 * sum({rates}) / avg({capacity})"
        yield Question("load", query, asked.load)
    if asked.in_flight is not None:
        inside = f"yoloserve_inflight_requests{{{where}}}"
        query = f"sum(max by (pod) (avg_over_time({inside}{_RATE})))"
        yield Question("in-flight", query, asked.in_flight)
    if asked.gpu is not None:
        yield Question(_GPU, f"sum({_busiest(gpu, where, namespace, pods)})", asked.gpu)


def _pods(name: str, digits: int = 0) -> str:
    """Return what matches the pods of the revision `name`, or of all with so many digits more."""
    left = _CUT - len(name) - digits
    cut = name[:_CUT] + (f"[0-9a-f]{{{digits + min(left, 0)}}}" if digits else "")
    if left <= 0:
        return f"{cut}{_LETTERS}"
    return f"{cut}-[0-9a-z]{'*-?' if left < _ROOM else '+-'}{_LETTERS}"


def _busiest(gpu: GpuSeries, where: str, namespace: str, pods: str) -> str:
    """Ask for the use of `pods` by the labels of a target, or as the exporter tells of others.

    Its labels give way to those of its own target where it is scraped without honor_labels. From
    any other namespace the same words are those of a pod that says what it likes in its /metrics.
    """
    own = _busy(gpu, where)
    if not gpu.exporter:
        return own
    said = f'exported_namespace="{namespace}",exported_pod=~"{pods}"'
    told = _busy(gpu, f'namespace="{gpu.exporter}",{said}')
    return f"{own} or {told}"


def _busy(gpu: GpuSeries, where: str) -> str:
    """Ask for percent: as profiled, which alone is right on MIG; where it is not, as estimated."""
    return f"(100 * {gpu.active}{{{where}}} or {gpu.utilization}{{{where}}})"


_GPU: Final = "gpu"
_EXPORTER: Final = (
    "; what an exporter tells of GPUs is believed of the namespace keda.gpu.exporterNamespace of"
    " the chart"
)


def complaint(scaled: Sequence[Manifest], stable: str) -> Limit | None:
    """Return what keeps KEDA from scaling the revision `stable`, if its ScaledObject tells.

    Else which ScaledObject does not go: who is to scale next waits for that.
    """
    found = next((one for one in scaled if one["metadata"]["name"] == stable), None)
    ends = next((one for one in scaled if "deletionTimestamp" in one["metadata"]), None)
    if found is None or "deletionTimestamp" in found["metadata"]:
        return _stays(found or ends)
    metadata = found["metadata"]
    conditions = (found.get("status") or {}).get("conditions")
    if not conditions:
        return Limit(
            "KedaSilent",
            f"KEDA does nothing with the ScaledObject {stable}; is its operator running?",
            moment(metadata.get("creationTimestamp")),
            computes=False,
        )
    ready = _condition(conditions, "Ready")
    if ready.get("status") == "False":
        reason, message = ready.get("reason", "NotReady"), ready.get("message", "")
        return Limit(reason, f"KEDA says: {message}", None, computes=False)
    fallback = found["spec"].get("fallback")
    if fallback and fallback.get("behavior") != HOLDS:
        return Limit(
            "KedaTooOld",
            "spec.autoscaling: this KEDA keeps no replicas when Prometheus is away, but goes to"
            f" minReplicas: its ScaledObject has no fallback.behavior {HOLDS}; install 2.17 or"
            " later",
            _made(metadata),
        )
    if _condition(conditions, "Fallback").get("status") == "True":
        triggers = found["spec"].get("triggers", ())
        on_gpus = any(trigger.get("name") == _GPU for trigger in triggers)
        return Limit(
            "MetricLost",
            "KEDA has no answer of Prometheus to spec.autoscaling: the replicas that run are held,"
            " unless cpu asks for more" + (_EXPORTER if on_gpus else ""),
            None,
        )
    return None


def _stays(ends: Manifest | None) -> Limit | None:
    if ends is None:
        return None
    name, namespace = ends["metadata"]["name"], ends["metadata"]["namespace"]
    return Limit(
        SCALED_OBJECT_STAYS,
        f"spec.autoscaling.provider: the ScaledObject {name} cannot go: KEDA, whose finalizer"
        " it has, does not take it away. Start KEDA again, or, if it is gone for good: kubectl"
        f" -n {namespace} patch scaledobject {name} --type=merge"
        ' -p \'{"metadata":{"finalizers":null}}\'',
        moment(ends["metadata"]["deletionTimestamp"]),
    )


def _condition(conditions: Iterable[Mapping[str, Any]], kind: str) -> Mapping[str, Any]:
    return next((each for each in conditions if each.get("type") == kind), {})


def _made(metadata: Manifest) -> datetime | None:
    return moment(metadata.get("creationTimestamp"))
