"""The status of a `YoloDetector`: what is true, with reasons that a person can act on."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from yolofleet.api.analysis import AnalysisStatus
from yolofleet.api.autoscaling import Scaler
from yolofleet.api.base import ApiModel, Since, Time
from yolofleet.api.detector import Provider
from yolofleet.api.names import Manifest
from yolofleet.api.rollout import Hold, Strategy


class ConditionType(StrEnum):
    """What is said about every detector (Reconciling and the last eight: where they apply).

    Reconciling and Stalled are kstatus's names, by which Flux, Helm and others tell whether an
    object is as asked: https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus
    """

    READY = "Ready"
    RELEASED = "Released"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    PROGRESSING = "Progressing"
    TRAFFIC_ROUTED = "TrafficRouted"
    CANARY_HEALTHY = "CanaryHealthy"
    ANALYSED = "Analysed"
    GPU_AVAILABLE = "GPUAvailable"
    AUTOSCALING_LIMITED = "AutoscalingLimited"
    DRIFTED = "Drifted"
    WRITTEN = "Written"
    NAME_CLASH = "NameClash"
    HEAD_NOT_REDUNDANT = "HeadNotRedundant"


class Reason(StrEnum):
    """Why a condition is what it is. A failing server gives its own (`DigestMismatch`…)."""

    # Ready
    SERVING = "Serving"
    NOTHING_READY = "NothingReady"
    SCALED_TO_ZERO = "ScaledToZero"
    DEPLOYMENT_DELETED = "DeploymentDeleted"
    # Released, Stalled
    RELEASED = "Released"
    NOT_STALLED = "NotStalled"
    # Progressing
    SETTLED = "Settled"
    STARTING = "Starting"
    ROLLING_OUT = "RollingOut"
    HOLDING = "Holding"
    AWAITING_APPROVAL = "AwaitingApproval"
    PAUSED = "Paused"
    DRAINING = "Draining"
    SUSPENDED = "Suspended"
    INVALID_SPEC = "InvalidSpec"
    RESOURCE_CONFLICT = "ResourceConflict"
    WRITE_REFUSED = "WriteRefused"
    WRITE_FAILED = "WriteFailed"
    READ_FAILED = "ReadFailed"
    OPERATOR_FAILED = "OperatorFailed"
    # of pods
    IMAGE_PULL_FAILED = "ImagePullFailed"
    UNSCHEDULABLE = "Unschedulable"
    OUT_OF_MEMORY = "OutOfMemory"
    CRASHED = "Crashed"
    CONFIG_REFUSED = "ContainerConfigRefused"
    PODS_REFUSED = "PodsRefused"
    MOUNT_FAILED = "MountFailed"
    START_FAILED = "StartFailed"
    DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    # of revisions on Ray
    ENGINE_ABSENT = "EngineAbsent"
    KUBERAY_SILENT = "KubeRaySilent"
    DEPLOY_FAILED = "DeployFailed"
    UNHEALTHY = "Unhealthy"
    HEAD_LOST = "HeadLost"
    HEAD_FAILED = "HeadFailed"
    NO_REDIS = "NoRedis"
    # TrafficRouted
    ROUTED = "Routed"
    ROUTE_PENDING = "RoutePending"
    MESH_ABSENT = "MeshAbsent"
    ROUTE_REFUSED = "RouteRefused"
    SHORT_OF_CAPACITY = "ShortOfCapacity"
    HOST_REFUSED = "HostRefused"
    HOST_NOT_ALLOWED = "HostNotAllowed"
    HOST_TAKEN = "HostTaken"
    NAME_CLASH = "NameClash"
    GATEWAY_ABSENT = "GatewayAbsent"
    NOT_REFERENCED = "NotReferenced"
    ROUTE_UNSEEN = "RouteUnseen"
    # CanaryHealthy
    CANARY_READY = "CanaryReady"
    CANARY_STARTING = "CanaryStarting"
    CANARY_EQUAL = "CanaryEqual"
    # Analysed, and Progressing or CanaryHealthy for it
    ANALYSING = "Analysing"
    PASSING = "Passing"
    ANALYSIS_FAILED = "AnalysisFailed"
    ANALYSIS_UNAVAILABLE = "AnalysisUnavailable"
    NOT_JUDGED = "NotJudged"
    NOT_ENOUGH_DATA = "NotEnoughData"
    # GPUAvailable
    ENOUGH = "Enough"
    UNSURE = "Unsure"
    MISSING = "Missing"
    # AutoscalingLimited: else the autoscaler's own
    TOO_MANY_REPLICAS = "TooManyReplicas"
    METRIC_LOST = "MetricLost"
    SHARED_GPU = "SharedGPU"
    PROVIDER_MISSING = "ProviderMissing"
    # Drifted
    REPAIRED = "DriftRepaired"
    LEFT_IN_PLACE = "DriftLeft"
    CONTESTED = "DriftContested"
    NOT_KEPT = "NotKept"
    AS_DESIRED = "AsDesired"


class Condition(ApiModel):
    """One statement, as all of Kubernetes makes them."""

    type: Annotated[str, Field(max_length=63)] = Field(description="What is spoken of.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it is so.")
    reason: Annotated[str, Field(max_length=128)] = Field(description="Why, in one word.")
    message: Annotated[str, Field(max_length=4096)] = Field(
        default="", description="Why, and what to do about it."
    )
    last_transition_time: Time = Field(description="When `status` last changed.")
    observed_generation: int = Field(default=0, description="The generation of the spec spoken of.")


class Role(StrEnum):
    """What a revision is there for."""

    STABLE = "Stable"  # the detector is released on it
    TARGET = "Target"  # on its way to be the stable one
    CANARY = "Canary"  # on trial
    FORMER = "Former"  # nobody wants it any more; it serves or drains


class RevisionStatus(ApiModel):
    """One revision as it is, for short."""

    revision: str = Field(description="Its name, which is also that of its Deployment and Service.")
    model: str = Field(default="", description="Where its weights came from.")
    ready: int = Field(default=0, description="Replicas that can answer.")
    desired: int = Field(default=0, description="Replicas that there should be.")
    weight: int = Field(default=0, description="Percent of requests, as the router has it.")


class Serving(ApiModel):
    """One revision that has pods or requests, or is to have some."""

    name: str = Field(description="Its name, which is also that of its Deployment and Service.")
    role: Role = Field(
        description="Stable: the detector is released on it. Target: on its way to be that. Canary:"
        " on trial. Former: nobody wants it any more, and it still has pods or requests."
    )
    model: str = Field(default="", description="Where its weights came from.")
    digest: str | None = Field(
        default=None,
        description="SHA-256 of the model that its ready pods have loaded. Absent while none is"
        " ready, and where the model's sha256 is not pinned: then only the pods know, and tell it"
        " in every answer.",
    )
    ready: int = Field(default=0, description="Replicas that can answer.")
    desired: int = Field(default=0, description="Replicas that there should be.")
    weight: int = Field(default=0, description="Percent of requests, as the router has it.")


class Draining(ApiModel):
    """A revision that the router has let go of, and that still finishes its requests."""

    revision: str = Field(description="Its name.")
    since: Since = Field(description="When the router was first seen without it.")


class Remade(ApiModel):
    """A revision whose workload never had a ready replica, and was made anew."""

    revision: str = Field(description="Its name.")
    times: int = Field(description="How often, of at most three times.")


class Share(ApiModel):
    """What of the requests a revision keeps during a release."""

    revision: str = Field(description="Its name.")
    weight: int = Field(ge=0, le=100, description="Percent of requests.")


class RolloutStatus(ApiModel):
    """A release under way. All that it must remember is here: a new leader goes on from it."""

    revision: str = Field(description="The revision on its way to be the stable one.")
    strategy: Strategy = Field(description="How it takes over.")
    step: int = Field(default=0, description="The present step, counted from 1; 0: not in steps.")
    steps: int | None = Field(
        default=None, description="How many steps there are; absent where it walks none."
    )
    weight: int = Field(default=0, description="Percent of requests that it is to get now.")
    hold: Hold | None = Field(
        default=None, description="How long the router is to have that before the next step."
    )
    since: Since | None = Field(
        default=None, description="Since when the router has had the weight of the step."
    )
    begun: Time | None = Field(
        default=None,
        description="When the release of this revision began. Absent where an operator began it"
        " that did not store that.",
    )
    shares: list[Share] = Field(
        default=[],
        description="What each revision beside the stable one has of the requests, and has again"
        " once pods of it are ready that were lost.",
    )


class AutoscalingStatus(ApiModel):
    """Who tells the autoscaler the load. What is told here is as of the last change."""

    provider: Scaler = Field(
        description="keda, builtin or none. With spec.autoscaling.provider auto a detector stays on"
        " it; to change it, name the other one."
    )
    floor: int | None = Field(
        default=None,
        description="With builtin: the minReplicas of the autoscaler, as the load asks for.",
    )
    since: Time | None = Field(default=None, description="Since when it is that.")
    demand: float | None = Field(
        default=None, description="How many replicas the load asked for then."
    )
    reason: str = Field(default="", description="Why, in words.")
    held: bool = Field(
        default=False,
        description="Whether no replica is taken away for want of data; the condition"
        " AutoscalingLimited says why.",
    )


class Status(ApiModel):
    """What the operator has seen and said."""

    observed_generation: int = Field(
        default=0, description="The generation of the spec that the operator last acted on."
    )
    url: str = Field(default="", description="Where requests go.")
    ready: str = Field(
        default="", description="Replicas of the stable revision: how many are ready / desired."
    )
    provider: Provider | None = Field(
        default=None,
        description="What routes. With spec.traffic.provider auto a detector stays on it, whatever"
        " other router's API appears; to move it, name the other one. From a plain Service it moves"
        " by itself, once the gateways exist and route.",
    )
    revisions: list[Serving] = Field(
        default=[],
        description="All revisions that have pods or requests, or are to have some.",
    )
    stable: RevisionStatus | None = Field(
        default=None, description="The revision that the detector is released on."
    )
    canary: RevisionStatus | None = Field(
        default=None, description="The revision on trial, or on its way to be the stable one."
    )
    rollout: RolloutStatus | None = Field(
        default=None, description="The release under way; absent when there is none."
    )
    draining: list[Draining] = Field(
        default=[], description="Revisions without traffic whose pods still finish their requests."
    )
    remade: list[Remade] | None = Field(
        default=None,
        description="Revisions on Ray that never had a ready replica, and were made anew for it.",
    )
    analysis: AnalysisStatus | None = Field(
        default=None,
        description="How the revision on its way, or on trial, was judged by spec.rollout.analysis,"
        " and which ones failed. Absent until one is judged, and where nothing is.",
    )
    autoscaling: AutoscalingStatus | None = Field(
        default=None,
        description="Who tells the autoscaler the load. Absent where it goes by cpu alone.",
    )
    replicas: int = Field(default=0, description="Replicas of the stable revision (for scale).")
    selector: str = Field(default="", description="Selects the stable pods (for scale).")
    conditions: list[Condition] = Field(default=[], description="What is true of the detector.")

    @property
    def serving(self) -> list[str]:
        """Return the names of the revisions that serve, or are about to."""
        short = [each.revision for each in (self.stable, self.canary) if each]  # since 0.1
        return list(dict.fromkeys([*short, *(each.name for each in self.revisions)]))

    def condition(self, kind: ConditionType) -> Condition | None:
        """Return what was said about `kind`, if anything."""
        return next((c for c in self.conditions if c.type == kind), None)

    def dump(self) -> dict[str, Any]:
        """Return it as JSON, without what is empty."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def read_status(raw: Manifest) -> Status:
    """Return the status that `raw` carries, or an empty one: status is rebuilt from the world.

    Where what an analysis remembers is all that cannot be read, it alone is lost.
    """
    stored = raw.get("status") or {}
    try:
        return Status.model_validate(stored)
    except ValidationError:
        pass
    try:
        return Status.model_validate({**stored, "analysis": None})
    except ValidationError:
        return Status()
