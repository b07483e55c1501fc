"""Replicas by load: what is gone by, and who feeds the autoscaler."""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import Field, WithJsonSchema

from yolofleet.api.base import QUANTITY_SCHEMA, ApiModel, Rule

USUAL_CPU: Final = 70


class Scaler(StrEnum):
    """Who moves the replicas, and what tells it the load."""

    AUTO = "auto"
    KEDA = "keda"
    BUILTIN = "builtin"
    NONE = "none"


def _described(description: str, **schema: Any) -> dict[str, Any]:
    return schema | {"description": description}


def _whole(description: str, least: int, most: int | None = None) -> dict[str, Any]:
    limits = {"minimum": least} | ({"maximum": most} if most is not None else {})
    return _described(description, type="integer", **limits)


_POLICY = {
    "type": _described("Pods or percent.", type="string", enum=["Pods", "Percent"]),
    "value": _whole("How many.", 1),
    "periodSeconds": _whole("In how many seconds.", 1, 1800),
}
_SCALING_RULES = {
    "stabilizationWindowSeconds": _whole("For how long the wish has to last.", 0, 3600),
    "selectPolicy": _described(
        "Which of `policies` counts.", type="string", enum=["Max", "Min", "Disabled"]
    ),
    "tolerance": _described("How far from the target is near enough.", **QUANTITY_SCHEMA),
    "policies": _described(
        "How many replicas may change in what time.",
        type="array",
        maxItems=16,
        items={"type": "object", "required": list(_POLICY), "properties": _POLICY},
    ),
}

ScalingBehavior = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "properties": {
                "scaleUp": _described("How to add.", type="object", properties=_SCALING_RULES),
                "scaleDown": _described("How to remove.", type="object", properties=_SCALING_RULES),
            },
        }
    ),
]
"""Passed on as it is. The fields of autoscaling/v2 are written out so that a typo in one is refused
when it is applied, not when the autoscaler is made."""


Percent = Annotated[int, Field(ge=1, le=100)]


class Autoscaling(ApiModel):
    """Replicas by load (a HorizontalPodAutoscaler on the stable revision)."""

    rules = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "spec.autoscaling.minReplicas: must not be above maxReplicas",
            ".minReplicas",
        ),
        Rule(
            "!has(self.gpu) || self.provider != 'builtin'",
            "spec.autoscaling.gpu: the operator cannot see what GPUs do; set spec.autoscaling"
            ".provider to keda, which asks Prometheus, or go by load",
            ".gpu",
        ),
        Rule(
            "self.provider != 'none' || !(has(self.load) || has(self.inFlight) || has(self.gpu))",
            "spec.autoscaling.provider: with none an autoscaler of your own decides by what it"
            " goes; remove load, inFlight and gpu, or use auto",
            ".provider",
        ),
    )

    min_replicas: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1, description="Never fewer replicas than this."
    )
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = Field(
        description="Never more replicas than this."
    )
    cpu: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None,
        description="Target for the average CPU use of the replicas, in percent of"
        f" resources.requests.cpu. Absent: {USUAL_CPU} where neither load nor inFlight nor gpu is"
        " given, else CPU use counts for nothing.",
    )
    load: Percent | None = Field(
        default=None,
        description="Target for the requests that callers send, in percent of those that the"
        " replicas can answer in time. Requests that are refused because all are busy count, so"
        " that it rises above 100 where a queue would only be full; copies and checks do not. 70"
        " is a good start.",
    )
    in_flight: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="Target for the requests inside a replica, on average."
    )
    gpu: Percent | None = Field(
        default=None,
        description="Target for the average use of the accelerators, in percent. Needs KEDA, a"
        " Prometheus that scrapes NVIDIA's dcgm-exporter, and a GPU or MIG slice that is the"
        " detector's alone.",
    )
    provider: Scaler = Field(
        default=Scaler.AUTO,
        description="Who tells the autoscaler the load. keda: a ScaledObject, by which KEDA asks"
        " Prometheus; needs prometheus.url in the operator's chart. builtin: the operator asks the"
        " pods, and moves the autoscaler's minReplicas. auto: keda where both are there, else"
        " builtin; decided once and kept (`status.autoscaling.provider`). With cpu alone it is the"
        " autoscaler's own business. none: no autoscaler is made; yours moves the detector by its"
        " scale subresource, within minReplicas and maxReplicas.",
    )
    behavior: ScalingBehavior = Field(
        default={},
        description="scaleUp and scaleDown policies, passed to the HorizontalPodAutoscaler as they"
        " are (autoscaling/v2). What of the two is absent is, with load, inFlight or gpu: up at"
        " once, by two pods or as many as there are in 15 s; down after five minutes (with gpu"
        " ten), by a pod a minute. With cpu alone it is Kubernetes' own.",
    )

    @property
    def cpu_target(self) -> int | None:
        """Percent of the CPU request to go by; None: CPU use counts for nothing."""
        return self.cpu or (None if self.by_load else USUAL_CPU)

    @property
    def by_load(self) -> bool:
        """Whether anything is gone by that an autoscaler does not know by itself."""
        return any(target is not None for target in (self.load, self.in_flight, self.gpu))
