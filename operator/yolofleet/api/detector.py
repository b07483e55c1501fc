"""The spec of a `YoloDetector`: types, defaults and the words a user reads in `kubectl explain`.

The CRD and the API reference are generated from here. What CEL can check at admission stands beside
the type it constrains; `Detector.parse` checks the rest.
"""

from collections.abc import Iterator
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from yolofleet.api import headers, hosts
from yolofleet.api.accelerator import Accelerator
from yolofleet.api.access import Access, SecretKey, SecretName
from yolofleet.api.addresses import bare, without_credentials
from yolofleet.api.autoscaling import Autoscaling, Scaler
from yolofleet.api.base import (
    REMEMBERED,
    ApiModel,
    Duration,
    InvalidSpec,
    Quantities,
    Rule,
    countable,
    first_of,
)
from yolofleet.api.headers import HeaderName
from yolofleet.api.hosts import MOST_NAMED
from yolofleet.api.names import RETRY_ANNOTATION, Manifest, is_accelerator
from yolofleet.api.pod_template import (
    API_KEYS,
    FRAMES_KEY,
    GOLDEN,
    LIVE,
    MODEL_CLAIM,
    MOST_KB,
    MOST_LEVELS,
    SHADOW_KEY,
    Mount,
    PodTemplate,
    problems,
)
from yolofleet.api.rollout import Rollout
from yolofleet.runtime.quoting import cut

RAY_VERSION: Final = "2.60.0"
ONGOING_REQUESTS: Final = 64
QUEUED_REQUESTS: Final = 8

URI_SCHEMES = ("demo", "https", "http", "s3", "oci", "file", "pvc")


class Code(StrEnum):
    """Formats of models that can run any code when they are loaded."""

    TORCHSCRIPT = "torchscript"
    ENGINE = "engine"
    PICKLE = "pickle"


class Head(StrEnum):
    """The layout of a network's output."""

    AUTO = "auto"
    ANCHOR_FREE = "anchor-free"
    ANCHOR_FREE_ROWS = "anchor-free-rows"
    OBJECTNESS = "objectness"
    END_TO_END = "end-to-end"


def _each_once(codes: list[Code]) -> list[Code]:
    """Return them in one order: the same leave, written otherwise, is no other revision."""
    return sorted(set(codes))


Codes = Annotated[list[Code], Field(max_length=len(Code)), AfterValidator(_each_once)]


def _readable(uri: str) -> str:
    """Refuse what no URL parser takes apart: brackets around no IPv6 address, look-alike signs."""
    try:
        urlsplit(uri)
    except ValueError:  # whose own words may have a password in them
        raise ValueError(
            "is no URL: its host has brackets around what is no IPv6 address, or signs that look"
            " like / ? # @ or :; write https://HOST/PATH, s3://BUCKET/KEY…"
        ) from None
    return uri


Uri = Annotated[str, Field(min_length=8, max_length=2048), AfterValidator(_readable)]


class Model(ApiModel):
    """The weights that a revision serves."""

    rules = (
        Rule(
            f"self.uri.matches('^({'|'.join(URI_SCHEMES)})://.+')",
            "spec.model.uri: the scheme must be one of demo://, https://, http://, s3://, oci://,"
            " file:// or pvc:// (for example https://models.example.com/gate-v7.onnx)",
            ".uri",
            "self.uri",
        ),
        Rule(
            "!self.uri.matches('^[a-z0-9]+://[^/?#]*[][]') || self.uri.matches("
            "'^[a-z0-9]+://([^][/?#]*@)?[[][0-9a-fA-F:.]+[]](:[0-9]*)?([/?#]|$)')",
            "spec.model.uri: brackets are for an IPv6 address alone, as in"
            " https://[2001:db8::7]:8443/gate-v7.onnx",
            ".uri",
            "self.uri",
        ),
        Rule(
            "!self.uri.startsWith('file://') || self.uri.startsWith('file:///')",
            "spec.model.uri: a file needs its whole path, file:///PATH/IN/THE/IMAGE.onnx",
            ".uri",
            "self.uri",
        ),
        Rule(
            "!self.uri.startsWith('pvc://') ||"
            " self.uri.matches('^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/.+')",
            "spec.model.uri: write a claim as pvc://CLAIM/PATH/IN/IT.onnx",
            ".uri",
            "self.uri",
        ),
        Rule(
            "!self.uri.startsWith('http://') || (has(self.sha256) && self.sha256 != '')",
            "spec.model.sha256: a model that comes over plain http:// needs its digest, or anybody"
            " on the way could replace it; give it (sha256sum FILE), or use https://",
            ".sha256",
        ),
    )

    uri: Uri = Field(
        description="Where the weights are: demo://shapes (bundled), https://, http://, s3://BUCKET/KEY,"
        " oci://REGISTRY/NAME:TAG, file:// (inside the image) or pvc://CLAIM/PATH (mounted"
        " read-only). ONNX or OpenVINO, as the public YOLO exporters write them; for others see"
        " allowCode."
        " Credentials: environment from a Secret, in podTemplate."
    )
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$", max_length=64)] = Field(
        default="",
        description="SHA-256 of the file in lower-case hex. When given, a file with another digest"
        " is never loaded. Needed with http://.",
    )
    classes: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=1024)
    ] = Field(
        default=[],
        description="The class names that callers rely on, in order. When given, a model whose"
        " names differ is refused at start-up.",
    )
    allow_code: Codes = Field(
        default=[],
        description="Formats to load although they can run any code, because you trust whoever"
        " made this model: torchscript, engine (TensorRT), pickle (Torch checkpoints, .pt). Else"
        " such a model is refused at start-up. ONNX, OpenVINO and the bundled models need none.",
    )
    head: Head = Field(
        default=Head.AUTO,
        description="Layout of the network's output: anchor-free is (4 + classes, places),"
        " anchor-free-rows the same transposed, objectness (places, 5 + classes), end-to-end"
        " (objects, 6). auto tells it by shape, metadata and numbers; what it cannot tell for sure"
        " is refused at start-up, with the choices.",
    )
    allow_blind: bool = Field(
        default=False,
        description="true: serve a model although its scores are the same whatever the picture,"
        " with a warning in its log. false: refuse it at start-up.",
    )

    @property
    def shown(self) -> str:
        """The address without user, password and query: a presigned one has its signature there."""
        return bare(self.uri)


class Backend(StrEnum):
    """The runtime that executes the model."""

    AUTO = "auto"
    OPENVINO = "openvino"
    ONNXRUNTIME = "onnxruntime"
    TORCH = "torch"
    TENSORRT = "tensorrt"


class Precision(StrEnum):
    """The arithmetic that the model runs in."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"


class Engine(StrEnum):
    """What runs the replicas of a revision."""

    DEPLOYMENT = "deployment"
    RAY = "ray"


class RayProxy(StrEnum):
    """What takes requests on each pod of Ray, and leads them to a replica."""

    HAPROXY = "haproxy"
    RAY = "ray"


class Resources(ApiModel):
    """Requests and limits of one replica, as in a pod."""

    requests: Quantities = Field(
        default={},
        description="What the scheduler reserves for one replica. Autoscaling needs cpu here.",
    )
    limits: Quantities = Field(
        default={},
        description="What one replica may use at most. An accelerator such as nvidia.com/gpu here"
        " makes this a GPU detector.",
    )

    @property
    def accelerators(self) -> dict[str, str]:
        """The extended resources asked for, such as {"nvidia.com/gpu": "1"}."""
        return {name: amount for name, amount in self.limits.items() if is_accelerator(name)}


class RedisPassword(ApiModel):
    """Where a Redis's password is kept."""

    secret_name: SecretName = Field(
        description="A Secret of the detector's namespace. The operator never reads it."
    )
    key: SecretKey = Field(default="password", description="Its key that holds the password.")


class Redis(ApiModel):
    """A Redis of yours, in which Ray keeps what its head knows."""

    address: Annotated[
        str, Field(min_length=1, max_length=512, pattern=r"^[A-Za-z0-9:/._\[\],-]+$")
    ] = Field(description="Its address, as in redis.shop.svc:6379, or rediss://HOST:PORT for TLS.")
    password: RedisPassword | None = Field(
        default=None, description="Its password. Absent: it asks for none."
    )


class RayHead(ApiModel):
    """Requests and limits of the head: the pod that keeps a Ray cluster together."""

    requests: Quantities = Field(
        default={"cpu": "500m", "memory": "1536Mi"},
        description="What the scheduler reserves for the head, which runs no replica.",
    )
    limits: Quantities = Field(
        default={"memory": "2Gi"},
        description="What the head may use at most. With a limit of cpu it may start too slowly:"
        " Ray gives its own parts 30 s.",
    )


class Ray(ApiModel):
    """What a revision on Ray is besides its replicas."""

    version: Annotated[str, Field(max_length=16, pattern=r"^2\.[0-9]{1,3}\.[0-9]{1,3}$")] = Field(
        default=RAY_VERSION,
        description="The version of Ray in the image; at least 2.52.0, from which on it asks for a"
        " token. The chart's image has the default.",
    )
    proxy: RayProxy = Field(
        default=RayProxy.HAPROXY,
        description="What takes requests and leads them to a replica. haproxy: HAProxy, which Ray"
        " brings along from 2.57.0 on. ray: Ray's own proxy, in Python; a request costs more than"
        " twice the CPU, and under load many more answers are late.",
    )
    head: RayHead = Field(default=RayHead(), description="The head's requests and limits.")
    redis: Redis | None = Field(
        default=None,
        description="Where the head keeps what it knows. Absent: the workers end with their head,"
        " and all their replicas with them (condition HeadNotRedundant).",
    )


class RayServe(ApiModel):
    """How many requests Ray Serve holds. A change makes no new revision and restarts nothing."""

    max_ongoing_requests: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=ONGOING_REQUESTS,
        description="Most requests that Ray leads to one replica at a time. The replica refuses"
        " what would be late; below what it can take, requests wait where nobody knows their"
        " deadline.",
    )
    max_queued_requests: Annotated[int, Field(ge=0, le=10_000)] = Field(
        default=QUEUED_REQUESTS,
        description="Most requests that each of Ray's proxies holds back beyond that; more get 503"
        " at once. Long queues answer late.",
    )


class Runtime(ApiModel):
    """What executes the model."""

    rules = (
        Rule(
            "!has(self.ray) || !has(self.engine) || self.engine == 'ray'",
            "spec.runtime.ray: has no effect with engine deployment; set spec.runtime.engine to"
            " ray, or remove ray",
            ".ray",
        ),
        Rule(
            "!has(self.ray) || !has(self.ray.version) ||"
            " !self.ray.version.matches('^2[.]([0-9]|[1-4][0-9]|5[01])[.]')",
            "spec.runtime.ray.version: must be at least 2.52.0: older ones ask nobody who runs code"
            " on them for a token",
            ".ray.version",
            "self.ray.version",
        ),
        Rule(
            "!has(self.ray) || !has(self.ray.version) || !has(self.ray.proxy) ||"
            " self.ray.proxy != 'haproxy' ||"
            " !self.ray.version.matches('^2[.]([0-9]|[1-4][0-9]|5[0-6])[.]')",
            "spec.runtime.ray.proxy: Ray has no HAProxy with it before 2.57.0; set it to ray, or"
            " use an image with a newer Ray and name that in version",
            ".ray.proxy",
            "self.ray.proxy",
        ),
        Rule(
            "!has(self.backend) || !has(self.precision) || self.backend != 'onnxruntime' ||"
            " self.precision in ['auto', 'fp32', 'fp16']",
            "spec.runtime.precision: onnxruntime computes in fp32, on a GPU in fp16 too; use auto,"
            " one of these, or the openvino backend",
            ".precision",
            "self.precision",
        ),
        Rule(
            "!has(self.backend) || !has(self.precision) || self.backend != 'tensorrt' ||"
            " self.precision != 'bf16'",
            "spec.runtime.precision: tensorrt computes in fp16 and fp32, an engine that was made so"
            " in int8; use auto or one of these",
            ".precision",
            "self.precision",
        ),
    )

    image: Annotated[str, Field(max_length=512)] = Field(
        default="",
        description="Serving image. Empty: the chart's, chosen by the engine, by whether"
        " resources.limits or accelerator asks for one, and by whether the backend is torch.",
    )
    backend: Backend = Field(
        default=Backend.AUTO,
        description="auto takes the fastest that the image carries: OpenVINO, else ONNX Runtime,"
        " else Torch. tensorrt (experimental: it has not run yet) needs an NVIDIA GPU, and compiles"
        " an ONNX model for it at the first start, which takes minutes.",
    )
    precision: Precision = Field(
        default=Precision.AUTO,
        description="auto takes what the device runs natively (bf16 where the CPU has instructions"
        " for it, fp16 on ARM likewise, else fp32; fp16 on a GPU). int8 needs a quantised model:"
        " `yoloserve convert` makes one. A precision that the device or backend cannot honour is"
        " refused at start-up.",
    )
    engine: Engine = Field(
        default=Engine.DEPLOYMENT,
        description="What runs the replicas. deployment: a Deployment. ray: Ray Serve, through"
        " KubeRay 1.5.1 or later (docs/guides/ray.md: who needs it, and what it costs).",
    )
    ray: Ray | None = Field(
        default=None,
        description="Of engine ray: its version, its proxies, its head and where that is kept.",
    )


class Profile(StrEnum):
    """What the server is tuned for."""

    REALTIME = "realtime"
    THROUGHPUT = "throughput"


class Inference(ApiModel):
    """How pictures become detections. A request may ask for other thresholds than these."""

    rules = (
        Rule(
            f"!has(self.deadline) || ({countable('deadline')} &&"
            " duration(self.deadline) <= duration('10m'))",
            "spec.inference.deadline: must be at most 10m; nobody waits longer for a picture",
            ".deadline",
            "self.deadline",
        ),
    )

    profile: Profile = Field(
        default=Profile.REALTIME,
        description="realtime: one picture at a time for the lowest latency. throughput: dynamic"
        " batches of up to maxBatch.",
    )
    image_size: Annotated[int, Field(ge=32, le=4096, multiple_of=32)] | None = Field(
        default=None,
        description="Side in pixels that pictures are fitted into, a multiple of 32. Absent: what"
        " the model's metadata says.",
    )
    confidence: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.25, description="Detections below this score are dropped."
    )
    iou: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.7,
        description="Of two boxes of one class that overlap more than this (intersection over"
        " union), the less confident one is dropped.",
    )
    agnostic_nms: bool = Field(
        default=False,
        description="true: boxes that overlap more than iou are one object whatever their class,"
        " and the most confident one stays. false: only boxes of one class.",
    )
    max_detections: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=300, description="At most this many detections are answered, the surest first."
    )
    deadline: Duration = Field(
        default="500ms",
        description="An answer that would be later than this is refused early (503 or 504), never"
        " sent late.",
    )
    max_batch: Annotated[int, Field(ge=1, le=128)] = Field(
        default=8, description="Largest batch of the throughput profile."
    )


class Provider(StrEnum):
    """What moves traffic between revisions."""

    AUTO = "auto"
    ISTIO = "istio"
    GATEWAY = "gateway"
    SERVICE = "service"


class Traffic(ApiModel):
    """How requests reach the revisions."""

    rules = (
        Rule(
            "size(self.hosts) > 0 || size(self.gateways) == 0 || self.provider == 'gateway'",
            "spec.traffic.gateways: need spec.traffic.hosts; add the host names that the gateways"
            " serve, or remove gateways to get a delegate VirtualService",
            ".gateways",
            "self.gateways[0]",
        ),
        Rule(
            "self.provider != 'service' || size(self.hosts) == 0",
            "spec.traffic.hosts: a plain Service routes no host names; use provider istio, gateway"
            " or auto, or remove hosts",
            ".hosts",
            "self.hosts[0]",
        ),
        *hosts.RULES,
        headers.RULE,
    )

    provider: Provider = Field(
        default=Provider.AUTO,
        description="auto: of Istio, and of the Gateway API where `gateways` are given, the first"
        " one whose API is in the cluster and that has these gateways; else a plain Service, until"
        " one has. What a detector is on it stays on (`status.provider`). istio, gateway: that one"
        " alone; a route of the other goes on until it routes. service: a plain Service whatever"
        " there is.",
    )
    hosts: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=253)]], Field(max_length=MOST_NAMED)
    ] = Field(
        default=[],
        description="Host names that the route answers to: DNS names; on gateways wildcards such"
        " as *.example.com too; none of the cluster's own (.svc, .local). With the Gateway API at"
        " most 16: an HTTPRoute has no room for more. Each goes to one detector"
        " on one gateway, and to none while somebody's own"
        " route has it. Empty: with Istio a delegate VirtualService, to be referenced from your"
        " own; with the Gateway API all hosts of the gateways.",
    )
    gateways: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=317)]], Field(max_length=MOST_NAMED)
    ] = Field(
        default=[],
        description="Gateways (NAMESPACE/NAME, or mesh) that the hosts are served on: Istio's, or"
        " those of the Gateway API. Empty, or mesh alone: inside the mesh only, with Istio for"
        " clients of the detector's own namespace. With Istio mesh beside others needs the cluster"
        " admin's leave: clients of all namespaces would go by the route.",
    )
    sticky_header: headers.Sticky | None = Field(
        default=None,
        description="A request header that tells cameras apart, such as X-Camera-Id. While two"
        " revisions have a weight, a camera stays on one of them: a revision has as many of the"
        " buckets 00 to 99, which are the last two digits of the header, as percent of the"
        " requests, a new one the lowest. Requests without the header, or whose value does not end"
        " in two digits, go by weight. Requests that `match` a canary go there all the same. With"
        " the Gateway API it needs a gateway that matches headers by RegularExpression; on a plain"
        " Service it has no effect. A change makes no new revision and restarts nothing.",
    )
    retries: Annotated[int, Field(ge=0, le=10)] = Field(
        default=2,
        description="With Istio: how often a proxy asks another replica when a request surely did"
        " not reach a model (connection refused, or reset before it was read). No request is ever"
        " run twice.",
    )


class StringMatch(ApiModel):
    """One way to compare a header's value."""

    rules = (
        Rule(
            "[has(self.exact), has(self.prefix), has(self.regex)].filter(x, x).size() == 1",
            "spec.canary.match: give exactly one of exact, prefix and regex for a header",
        ),
    )

    exact: Annotated[str, Field(max_length=1024)] | None = Field(
        default=None, description="The value is this."
    )
    prefix: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        default=None, description="The value begins with this."
    )
    regex: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        default=None, description="The whole value matches this RE2 expression."
    )


class HeaderMatch(ApiModel):
    """Headers that must all match."""

    headers: Annotated[dict[HeaderName, StringMatch], Field(min_length=1, max_length=8)] = Field(
        description="Lower-case header names, and what their values must be."
    )


class Canary(ApiModel):
    """A second revision: what differs from the spec around it, and its share of the traffic."""

    model: Model | None = Field(
        default=None, description="Replaces spec.model whole, digest and class list included."
    )
    runtime: Runtime = Field(
        default=Runtime(),
        description="The fields of spec.runtime that differ; the others are inherited.",
    )
    inference: Inference = Field(
        default=Inference(),
        description="The fields of spec.inference that differ; others are inherited.",
    )
    resources: Resources | None = Field(default=None, description="Replaces spec.resources whole.")
    accelerator: Accelerator | None = Field(
        default=None, description="Replaces spec.accelerator whole."
    )
    pod_template: PodTemplate | None = Field(
        default=None, description="Replaces spec.podTemplate whole."
    )
    weight: Annotated[int, Field(ge=0, le=100)] = Field(
        default=0,
        description="Percent of requests that the canary answers. 0 is a dark launch: its pods run"
        " and get no request but those that `match`. Never more than its ready replicas can carry.",
    )
    match: Annotated[list[HeaderMatch], Field(max_length=8)] = Field(
        default=[],
        description="Requests that match any of these go to the canary, whatever its weight.",
    )
    shadow: Annotated[int, Field(ge=0, le=100)] = Field(
        default=0,
        description="Percent of the pictures that the stable revision is asked about, however many"
        " of them a request has, of which the canary gets a copy once they are answered. Nobody"
        " sees what it answers; the two are compared, and counted in the metrics. Needs no mesh and"
        " no weight. A change makes no new revision and restarts nothing; pods follow it within"
        " about a minute. Needs spec.access.shadowKey where jwt or"
        " apiKeys are asked for.",
    )
    replicas: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None,
        description="Replicas of the canary. Absent: as many as its weight needs, at least one.",
    )


class LogLevel(StrEnum):
    """The least important messages that pods log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class DriftPolicy(StrEnum):
    """What happens to what others change of a detector's objects."""

    ENFORCE = "Enforce"
    REPORT = "Report"


def _differs(part: str, fields: Iterator[str] | list[str]) -> str:
    canary, stable = f"dyn(self.canary.{part})", f"dyn(self.{part})"
    return " || ".join(
        f"(has({canary}.{name}) && (!has({stable}.{name}) || {canary}.{name} != {stable}.{name}))"
        for name in fields
    )


def _names(model: type[ApiModel]) -> list[str]:
    return [to_camel(name) for name in model.model_fields]


def _limited(part: str) -> str:
    """Return the CEL of whether resources at `part` have an accelerator in their limits."""
    return (
        f"has(dyn(self.{part}).limits) &&"
        f" dyn(self.{part}).limits.exists(r, r.contains('/') && !r.contains('kubernetes.io/'))"
    )


_LIMITED = _limited("resources")
_ACCELERATED = f"has(self.accelerator) || ({_LIMITED})"


_AUTOSCALED = "has(self.autoscaling) && self.autoscaling.provider != 'none'"

_ON_RAY = "self.runtime.engine == 'ray'"

_OF_CANARY = "has(self.canary) && has(self.canary.runtime) && has(self.canary.runtime.engine)"

_ANY_ON_RAY = f"{_ON_RAY} || ({_OF_CANARY} && self.canary.runtime.engine == 'ray')"

_CANARY_ON_RAY = (
    f"has(self.canary) && (({_OF_CANARY}) ? self.canary.runtime.engine == 'ray' : {_ON_RAY})"
)

_SCALED_BY_RAY = f"({_ON_RAY}) && {_AUTOSCALED}"

_WHOLE_NUMBERS = (*range(9), 16)
_WHOLE = (
    # One by one: CEL has no other way to look at values that may be numbers or strings.
    "!{0}.limits.exists(r, r.contains('/') && !r.contains('kubernetes.io/') && !("
    + " || ".join(f"{{0}}.limits[r] == {n} || {{0}}.limits[r] == '{n}'" for n in _WHOLE_NUMBERS)
    + "))"
)


class DetectorSpec(ApiModel):
    """What a detector should be."""

    rules = (
        Rule(
            # Field by field: CEL compares no objects whose schemas are in two places.
            f"!has(self.canary) || (has(self.canary.model) && ({_differs('model', _names(Model))}))"
            f" || (has(self.canary.runtime) && ({_differs('runtime', _names(Runtime))}))"
            f" || (has(self.canary.inference) && ({_differs('inference', _names(Inference))}))"
            f" || (has(self.canary.resources) && ({_differs('resources', _names(Resources))}))"
            " || (has(self.canary.accelerator) && (!has(self.accelerator) ||"
            f" {_differs('accelerator', _names(Accelerator))}))"
            " || has(self.canary.podTemplate)",
            "spec.canary: is equal to the stable revision; change its model, runtime, inference,"
            " resources, accelerator or podTemplate, or remove canary",
            ".canary",
        ),
        Rule(
            "!has(self.canary) || self.traffic.provider != 'service' ||"
            " (self.canary.weight == 0 && size(self.canary.match) == 0)",
            "spec.canary.weight: a plain Service cannot split traffic; set spec.traffic.provider to"
            " istio, gateway or auto, or weight to 0 and no match (a dark launch)",
            ".canary.weight",
        ),
        Rule(
            "!has(self.canary) || self.canary.shadow == 0 || has(self.access.shadowKey) ||"
            " !(has(self.access.jwt) || has(self.access.apiKeys))",
            "spec.canary.shadow: needs spec.access.shadowKey where jwt or apiKeys are asked for,"
            " or the canary would refuse the copies; name a Secret there, made by kubectl create"
            " secret generic NAME --from-literal=key=$(openssl rand -hex 32)",
            ".canary.shadow",
        ),
        Rule(
            f"!({_AUTOSCALED}) || self.replicas == 1",
            "spec.replicas: the autoscaler owns the replicas; remove spec.replicas, or"
            " spec.autoscaling",
            ".replicas",
        ),
        Rule(
            f"!({_AUTOSCALED}) || (!has(self.autoscaling.cpu) && (has(self.autoscaling.load) ||"
            " has(self.autoscaling.inFlight) || has(self.autoscaling.gpu))) ||"
            " (has(dyn(self.resources).requests) && 'cpu' in dyn(self.resources).requests)",
            "spec.autoscaling.cpu: is a share of the CPU request; set spec.resources.requests.cpu,"
            " or go by load in its place",
            ".autoscaling.cpu",
        ),
        Rule(
            f"!has(self.autoscaling) || !has(self.autoscaling.gpu) || ({_ACCELERATED})",
            "spec.autoscaling.gpu: no accelerator is asked for; set spec.resources.limits"
            " (nvidia.com/gpu: 1) or spec.accelerator, or go by load",
            ".autoscaling.gpu",
        ),
        Rule(
            "!has(self.autoscaling) || !has(self.autoscaling.gpu) ||"
            " !has(dyn(self.resources).limits) ||"
            " !dyn(self.resources).limits.exists(r, r.endsWith('.shared'))",
            "spec.autoscaling.gpu: the use of a shared GPU is that of all who share it; go by load,"
            " or ask for a GPU that is the detector's alone",
            ".autoscaling.gpu",
        ),
        Rule(
            "!has(self.canary) || !has(self.rollout.strategy)"
            " || self.rollout.strategy != 'InPlace'",
            "spec.canary: needs pods beside the replicas, and spec.rollout.strategy InPlace never"
            " has any; remove canary, or choose BlueGreen or Canary",
            ".canary",
        ),
        Rule(
            f"!({_AUTOSCALED}) || !(has(self.rollout.maxSurge) ||"
            " (has(self.rollout.strategy) && self.rollout.strategy == 'InPlace'))",
            "spec.rollout: InPlace and maxSurge take replicas from the stable revision, which the"
            " autoscaler owns; remove them, or spec.autoscaling",
            ".rollout",
        ),
        Rule(
            "self.traffic.provider != 'service' || !has(self.rollout.strategy)"
            " || self.rollout.strategy != 'Canary'",
            "spec.rollout.strategy: a plain Service cannot split traffic; set spec.traffic.provider"
            " to istio, gateway or auto, or strategy to BlueGreen or InPlace",
            ".rollout.strategy",
            "self.rollout.strategy",
        ),
        Rule(
            f"!({_ACCELERATED}) || self.runtime.backend != 'openvino'",
            "spec.runtime.backend: openvino runs on the CPU; use auto, torch or onnxruntime with an"
            " accelerator, or remove it from spec.resources.limits, or spec.accelerator",
            ".runtime.backend",
            "self.runtime.backend",
        ),
        Rule(
            f"({_ACCELERATED}) || self.runtime.backend != 'tensorrt'",
            "spec.runtime.backend: tensorrt runs on NVIDIA GPUs only; ask for one in"
            " spec.resources.limits (nvidia.com/gpu: 1) or spec.accelerator, or use auto",
            ".runtime.backend",
            "self.runtime.backend",
        ),
        Rule(
            f"!has(self.accelerator) || !({_LIMITED})",
            "spec.accelerator: spec.resources.limits asks for an accelerator too, and pods would"
            " have both; remove one of them",
            ".accelerator",
        ),
        Rule(
            "!has(self.canary) || !has(self.canary.accelerator) || !(has(self.canary.resources) ?"
            f" ({_limited('canary.resources')}) : ({_LIMITED}))",
            "spec.canary.accelerator: the resources of the canary ask for an accelerator too, and"
            " its pods would have both; give it spec.canary.resources without, or remove this",
            ".canary.accelerator",
        ),
        Rule(
            f"!({_ANY_ON_RAY}) || !has(self.rollout.strategy) ||"
            " self.rollout.strategy != 'InPlace'",
            "spec.rollout.strategy: InPlace needs a replica's room at once, and Ray keeps a worker"
            " for a minute after its replica; choose BlueGreen or Canary, or engine deployment",
            ".rollout.strategy",
        ),
        Rule(
            f"!({_SCALED_BY_RAY}) || has(self.autoscaling.inFlight)",
            "spec.autoscaling.inFlight: is what Ray's autoscaler goes by, and all; set it, or"
            " remove spec.autoscaling",
            ".autoscaling.inFlight",
        ),
        Rule(
            f"!({_SCALED_BY_RAY}) || !(has(self.autoscaling.cpu) || has(self.autoscaling.load) ||"
            " has(self.autoscaling.gpu))",
            "spec.autoscaling: cpu, load and gpu are no metrics of Ray's autoscaler; go by inFlight"
            " alone with spec.runtime.engine ray",
            ".autoscaling",
        ),
        Rule(
            f"!({_SCALED_BY_RAY}) || self.autoscaling.provider == 'auto'",
            "spec.autoscaling.provider: Ray's own autoscaler moves its replicas; use auto, or none"
            " with an autoscaler of yours on the scale subresource",
            ".autoscaling.provider",
            "self.autoscaling.provider",
        ),
        Rule(
            f"!({_SCALED_BY_RAY}) || !has(self.autoscaling.behavior) || !("
            "has(self.autoscaling.behavior.scaleUp) || has(self.autoscaling.behavior.scaleDown))",
            "spec.autoscaling.behavior: is a HorizontalPodAutoscaler's, which Ray has none of;"
            " remove it with spec.runtime.engine ray",
            ".autoscaling.behavior",
        ),
        Rule(
            f"!({_SCALED_BY_RAY}) || !has(self.autoscaling.inFlight) ||"
            " self.autoscaling.inFlight <="
            f" (has(self.rayServe) ? self.rayServe.maxOngoingRequests : {ONGOING_REQUESTS})",
            "spec.autoscaling.inFlight: Ray never leads as many requests to a replica; set it to at"
            " most spec.rayServe.maxOngoingRequests",
            ".autoscaling.inFlight",
        ),
        Rule(
            f"!({_OF_CANARY}) || self.canary.runtime.engine == self.runtime.engine ||"
            " has(self.canary.replicas)",
            "spec.canary.replicas: a canary on another engine needs a number of its own, which no"
            " autoscaler moves; set it",
            ".canary.replicas",
        ),
        Rule(
            f"!({_ANY_ON_RAY}) || !has(dyn(self.resources).limits) ||"
            f" {_WHOLE.format('dyn(self.resources)')}",
            "spec.resources.limits: a part of an accelerator is none that Kubernetes gives, and Ray"
            " keeps replicas on one GPU from nothing; ask for whole ones, up to 8, or 16",
            ".resources.limits",
        ),
        Rule(
            "!has(self.canary) || !has(self.canary.resources) ||"
            f" !({_ANY_ON_RAY}) || !has(dyn(self.canary.resources).limits) ||"
            f" {_WHOLE.format('dyn(self.canary.resources)')}",
            "spec.canary.resources.limits: a part of an accelerator is none that Kubernetes gives;"
            " ask for whole ones, up to 8, or 16",
            ".canary.resources.limits",
        ),
        Rule(
            f"!({_ANY_ON_RAY}) || !({_ACCELERATED}) || self.runtime.image != '' ||"
            " (has(self.canary) && has(self.canary.runtime) && has(self.canary.runtime.image))",
            "spec.runtime.image: the chart names no image with Ray for accelerators; build one"
            " (target ray upon the gpu packages) and give its name",
            ".runtime.image",
        ),
        Rule(
            f"!({_CANARY_ON_RAY}) || !(has(self.canary.accelerator) ||"
            f" (has(self.canary.resources) && ({_limited('canary.resources')}))) ||"
            " self.runtime.image != '' ||"
            " (has(self.canary.runtime) && has(self.canary.runtime.image))",
            "spec.canary.runtime.image: the chart names no image with Ray for accelerators; build"
            " one (target ray upon the gpu packages) and give its name",
            ".canary.runtime.image",
        ),
        Rule(
            f"!has(self.rayServe) || {_ANY_ON_RAY}",
            "spec.rayServe: has no effect without spec.runtime.engine ray; remove it, or set that",
            ".rayServe",
        ),
    )

    model: Model = Field(description="The weights of the stable revision.")
    runtime: Runtime = Field(default=Runtime(), description="What executes the model.")
    inference: Inference = Field(default=Inference(), description="How pictures become detections.")
    resources: Resources = Field(
        default=Resources(requests={"cpu": "500m", "memory": "512Mi"}, limits={"memory": "2Gi"}),
        description="Requests and limits of one replica; an accelerator in limits makes it a GPU"
        " detector.",
    )
    accelerator: Accelerator | None = Field(
        default=None,
        description="The devices of one replica, by Dynamic Resource Allocation: in the place of an"
        " accelerator in resources.limits, where a GPU is chosen by what it can. Needs Kubernetes"
        " 1.34 and a driver that publishes the devices; makes this a GPU detector.",
    )
    # The default is written down: autoscalers of others (HPA, KEDA) read it by `scale`.
    replicas: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=1,
        description="Replicas of the stable revision. Leave it out where an autoscaler of your own"
        " sets it through the scale subresource, and with autoscaling, which then has the number.",
    )
    autoscaling: Autoscaling | None = Field(default=None, description="Replicas by load.")
    ray_serve: RayServe | None = Field(
        default=None, description="Of engine ray: how many requests Ray Serve holds."
    )
    traffic: Traffic = Field(default=Traffic(), description="How requests reach the revisions.")
    access: Access = Field(
        default=Access(),
        description="Who may ask, who may talk to the pods, and whom they may talk to.",
    )
    canary: Canary | None = Field(
        default=None,
        description="A second revision beside the stable one. Promote it by copying what differs"
        " into the spec and removing canary: no pod restarts. Remove it to call it off.",
    )
    rollout: Rollout = Field(
        default=Rollout(), description="How a changed spec reaches the whole traffic."
    )
    pod_template: PodTemplate = Field(
        default=PodTemplate(),
        description=f"Anything else that the pods need: at most {MOST_KB} kB as JSON, nested in at"
        f" most {MOST_LEVELS} levels.",
    )
    revision_history: Annotated[int, Field(ge=0, le=20)] = Field(
        default=2,
        description="Former revisions kept at zero replicas, so that a roll-back finds them.",
    )
    drift_policy: DriftPolicy = Field(
        default=DriftPolicy.ENFORCE,
        description="Enforce: what others change of the detector's objects, or add to them, is put"
        " right. Report: it is left as it is until the operator itself has to change that part of"
        " the object, as a release changes weights and replicas; an object that others delete comes"
        " back. Both tell it in the condition Drifted and in Events.",
    )
    log_level: LogLevel = Field(
        default=LogLevel.INFO,
        description="The least important messages that pods log: debug, info, warning or error. A"
        " change makes no new revision and restarts nothing; pods follow it within about a minute.",
    )
    suspend: bool = Field(
        default=False,
        description="true: the operator changes nothing, repairs nothing and only reports, until it"
        " is false again. What serves goes on serving.",
    )

    @property
    def autoscaled(self) -> Autoscaling | None:
        """How an autoscaler of ours moves the replicas; None: it is for `asked_replicas` to say."""
        scaling = self.autoscaling
        return None if scaling is None or scaling.provider is Scaler.NONE else scaling

    @property
    def asked_replicas(self) -> int:
        """Replicas that people, or autoscalers of theirs, ask for: in the bounds, if any."""
        bounds = self.autoscaling
        if bounds is None:
            return self.replicas
        return min(max(self.replicas, bounds.min_replicas), bounds.max_replicas)


class Detector(BaseModel):
    """A parsed resource: values that everything after can trust."""

    model_config = ConfigDict(frozen=True)

    name: str
    namespace: str
    uid: str
    generation: int
    spec: DetectorSpec
    retry: str = ""
    """What a person wants judged again (`RETRY_ANNOTATION`)."""

    @classmethod
    def parse(cls, raw: Manifest) -> Self:
        """Read a `YoloDetector` as the API server stores it. Raises InvalidSpec."""
        meta = raw["metadata"]
        return cls(
            name=meta["name"],
            namespace=meta["namespace"],
            uid=meta["uid"],
            generation=meta["generation"],
            spec=_spec_of(raw.get("spec", {})),
            retry=str((meta.get("annotations") or {}).get(RETRY_ANNOTATION, ""))[:128],
        )

    def __hash__(self) -> int:
        """Return the hash of what tells detectors apart; two are equal that are alike in all."""
        return hash((self.uid, self.generation))

    @property
    def key(self) -> str:
        """namespace/name, as caches and logs know it."""
        return f"{self.namespace}/{self.name}"


def _spec_of(raw: Any) -> DetectorSpec:
    """Parse a spec: the next passes find it as it was, and the very same object."""
    try:
        content = orjson.dumps(raw)
    except TypeError:  # a number of more than 64 bits, say: it is refused below, in words
        return _parsed(raw)
    return _remembered(content)


@lru_cache(maxsize=REMEMBERED)
def _remembered(content: bytes) -> DetectorSpec:
    return _parsed(orjson.loads(content))


def _parsed(raw: Any) -> DetectorSpec:
    try:
        spec = DetectorSpec.model_validate(raw)
    except ValidationError as error:
        raise InvalidSpec(*first_of(_messages(error))) from error
    if unservable := first_of(_unservable(spec)):
        raise InvalidSpec(*unservable)
    return spec


def mistakes(raw: Any) -> Iterator[str]:
    """Say what is wrong with a spec one by one, however many there are: `parse` tells the first."""
    try:
        spec = DetectorSpec.model_validate(raw)
    except ValidationError as error:
        yield from _messages(error)
    else:
        yield from _unservable(spec)


def _messages(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        path = ".".join(cut(part) for part in ("spec", *problem["loc"]))
        message = f"{path}: {problem['msg']} (is {_shown(problem['input'])!r})"
        yield without_credentials(message)[:500]


def _shown(value: Any) -> Any:
    """Return what was given with its addresses bare: as whole ones, since passwords have spaces."""
    match value:
        case str():
            return bare(value)
        case list():
            return [_shown(each) for each in value]
        case dict():
            return {name: _shown(each) for name, each in value.items()}
    return value


def _settings_said(model: Model) -> Iterator[str]:
    """Name the server's settings that a model gives, where podTemplate could give them as well."""
    yield from (f"ALLOW_{code.name}" for code in model.allow_code)
    if model.head is not Head.AUTO:
        yield "HEAD"
    if model.allow_blind:
        yield "ALLOW_BLIND"


def _unservable(spec: DetectorSpec) -> Iterator[str]:
    """Say what admission cannot see, because CEL does not look into free-form fields."""
    templates = [("spec.podTemplate", spec.pod_template)]
    if spec.canary and spec.canary.pod_template is not None:
        templates.append(("spec.canary.podTemplate", spec.canary.pod_template))
    models = [spec.model, *([spec.canary.model] if spec.canary and spec.canary.model else [])]
    said = {name for model in models for name in _settings_said(model)}
    mounts = list(_mounted(spec, models))
    guarded = bool(spec.access.jwt or spec.access.api_keys)
    runtimes = [spec.runtime, *([spec.canary.runtime] if spec.canary else [])]
    on_ray = any(runtime.engine is Engine.RAY for runtime in runtimes)
    for path, template in templates:
        yield from problems(
            template, mounts=mounts, guarded=guarded, said=said, on_ray=on_ray, path=path
        )
    yield from _golden_volume_missing(spec, templates)


def _mounted(spec: DetectorSpec, models: list[Model]) -> Iterator[Mount]:
    """Return what is mounted for the sake of the spec, besides the cache."""
    yield LIVE
    if any(model.uri.startswith("pvc://") for model in models):
        yield MODEL_CLAIM
    if spec.access.api_keys:
        yield API_KEYS
    if spec.access.shadow_key:
        yield SHADOW_KEY
    if spec.access.frames_key:
        yield FRAMES_KEY
    if spec.rollout.analysis and spec.rollout.analysis.golden:
        yield GOLDEN


def _golden_volume_missing(
    spec: DetectorSpec, templates: list[tuple[str, PodTemplate]]
) -> Iterator[str]:
    golden = spec.rollout.analysis and spec.rollout.analysis.golden
    if not golden or not golden.volume:
        return
    for path, template in templates:
        volumes = template.spec.get("volumes")
        listed = volumes if isinstance(volumes, list) else []
        named = [volume.get("name") for volume in listed if isinstance(volume, dict)]
        if golden.volume not in named:
            yield (
                f"spec.rollout.analysis.golden.volume: {path}.spec.volumes has none of the name"
                f" {golden.volume}; add it there, or name a configMap"
            )
