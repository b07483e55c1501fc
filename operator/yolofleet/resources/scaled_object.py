"""What KEDA scales the stable revision by: it targets a workload, so it goes with the revision."""

from collections.abc import Mapping
from typing import Any, Final

from yolofleet.api.detector import Detector
from yolofleet.api.names import Manifest
from yolofleet.manifests.child import child
from yolofleet.plan.keda import HOLDS, Question, questions
from yolofleet.plan.scaler import Scaling
from yolofleet.plan.snapshot import Keda
from yolofleet.resources.hpa import behavior

TAKES_OVER: Final = "scaledobject.keda.sh/transfer-hpa-ownership"
"""Without it KEDA refuses a workload that has an autoscaler, ours, already."""

_FAILURES: Final = 3  # looks of 15 s without an answer, before its words for that are used


def scaled_object(
    detector: Detector, revision: str, target: Mapping[str, str], scaling: Scaling, keda: Keda
) -> Manifest:
    """Return the ScaledObject of `revision`, which scales `target`.

    Its autoscaler has the name of ours, so that it is taken over as it is. A series that vanished
    is no answer (`ignoreNullValues`): KEDA would take it for 0.
    """
    asked = scaling.asked
    triggers = [
        _prometheus(question, keda)
        for question in questions(asked, detector.namespace, detector.name, revision, keda.gpu)
    ]
    fallback = {"failureThreshold": _FAILURES, "replicas": scaling.least, "behavior": HOLDS}
    if asked.cpu_target:
        value = {"value": str(asked.cpu_target)}
        triggers.append({"type": "cpu", "metricType": "Utilization", "metadata": value})
    advanced = {"name": revision, "behavior": behavior(asked)}
    return child(
        "scaled_object.yaml.j2",
        detector,
        revision,
        revision=revision,
        annotations={TAKES_OVER: "true"},
        target=target,
        min_replicas=scaling.least,
        max_replicas=asked.max_replicas,
        autoscaler={name: value for name, value in advanced.items() if value},
        fallback=fallback if asked.by_load else None,  # KEDA refuses one of cpu alone
        triggers=triggers,
    )


def _prometheus(question: Question, keda: Keda) -> dict[str, Any]:
    asks = {
        "serverAddress": keda.prometheus,
        "query": question.query,
        "threshold": str(question.each),
        "ignoreNullValues": "false",
    }
    trigger: dict[str, Any] = {
        "type": "prometheus",
        "name": question.name,
        "metricType": "AverageValue",
    }
    if not keda.authentication:
        return trigger | {"metadata": asks}
    by = {"kind": "ClusterTriggerAuthentication", "name": keda.authentication}
    return trigger | {"metadata": asks | {"authModes": "bearer"}, "authenticationRef": by}
