"""The RayService of a revision: a Ray cluster of its own, with one replica in each worker.

The Service of the revision selects the workers by our labels as it does the pods of a Deployment,
so that routes, weights and evidence know nothing of Ray. KubeRay's own Service is not used.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from math import ceil
from typing import Any, Final

from yolofleet.api.access import Isolation
from yolofleet.api.base import seconds
from yolofleet.api.detector import Detector, Ray, RayProxy, RayServe, Redis
from yolofleet.api.names import (
    DETECTOR_LABEL,
    RAY_LABEL,
    RENDER_ANNOTATION,
    REVISION_LABEL,
    SERVED_ANNOTATION,
    Manifest,
    child_labels,
    selector_labels,
)
from yolofleet.api.pod_template import METRICS_PORT, SERVER_CONTAINER, SERVER_PORT
from yolofleet.manifests.child import child
from yolofleet.runtime.quantity import amount
from yolofleet.workloads import judged, ray_status, server
from yolofleet.workloads.accelerators import requests_of
from yolofleet.workloads.account import account_of
from yolofleet.workloads.claims import container_claims, pod_claims
from yolofleet.workloads.pods import is_ready, stays
from yolofleet.workloads.record import failure_noted, notes, was_proved, was_released
from yolofleet.workloads.revision import Revision
from yolofleet.workloads.serve_config import (
    PORT,
    ActorOptions,
    Application,
    Autoscaling,
    Deployment,
    HttpOptions,
    ServeConfig,
)
from yolofleet.workloads.workload import PlannedRevision, Record, Running, Scaled

KIND = "RayService"
POD = r"spec\.rayClusterConfig\.workerGroupSpecs\[0\]\.template"
OWN_AUTOSCALER = True
SWAPS = False  # a worker goes a minute after its replica
SCRAPED = METRICS_PORT[0]  # the port of requests leads to any replica
QUEUES = True  # in its proxies
SAID: tuple[tuple[str, str], ...] = (
    (
        r"\.spec\.rayClusterConfig\.authOptions: field not declared in schema",
        "this KubeRay is too old: it lets anybody run code on Ray, without a token; install KubeRay"
        " 1.5.1 or later, with its CRDs",
    ),
)
LACKING = (
    "spec.runtime.engine: ray needs KubeRay 1.5.1 or later, whose kind RayService is not in the"
    " cluster, or not for the operator (ray.enabled in its chart); install it, or use engine"
    " deployment"
)

OBJECT_STORE: Final = "100000000"
"""Bytes: pictures come by HTTP, and Ray passes references to nothing."""

_KUBERAY: Final = {"app.kubernetes.io/component": "kuberay-operator"}
_DASHBOARD: Final = 8265
API_SERVER: Final = (443, 6443, 8443, 16443)  # the autoscaler asks; as in the chart's values
_DNS: Final = (53, 5353)
_TMP: Final = {"name": "tmp", "mountPath": "/tmp"}
_NO_SIDECAR: Final = {"sidecar.istio.io/inject": "false"}
"""Ray's parts call each other by address on many ports, which no sidecar is in the way of well."""


# writing


def stands(planned: PlannedRevision, /) -> bool:
    """Say no with no replica: the head would stay, and Serve knows no zero."""
    return planned.replicas != 0 and not planned.anew


def build(detector: Detector, planned: PlannedRevision, /) -> Manifest:
    """Return the RayService of one revision; with Serve's own autoscaler, if that is asked for."""
    revision, ray = planned.revision, _ray(planned.revision)
    name, cores = revision.name, _cores(revision)
    config = _serve_config(detector, planned, cores)
    made = child(
        "ray_service.yaml.j2",
        detector,
        name,
        revision=name,
        annotations=server.noted(planned) | notes(planned) | _served(planned),
        drain_seconds=max(60, revision.drain_seconds),
        serve_config=config.text(),
        version=ray.version,
        redis=_redis(ray.redis),
        image=revision.image,
        pull_policy=revision.pull_policy,
        pull_secrets=revision.pod_template.spec.get("imagePullSecrets"),
        pod_security=server.POD_SECURITY,
        container_security=server.CONTAINER_SECURITY,
        cache=server.CACHE,
        head_labels=_head(name) | _NO_SIDECAR,
        head_env=_environment(ray),
        head_resources={"requests": ray.head.requests, "limits": ray.head.limits},
        workers=config.deployment.autoscaling_config.min_replicas,
        worker_params={
            "num-cpus": str(cores),
            "num-gpus": str(_gpus(revision)),
            "object-store-memory": OBJECT_STORE,
        },
        worker_labels=_worker_labels(detector, name),
        pod_annotations=server.scraped(METRICS_PORT) if revision.guard.metrics_open else None,
        selector=selector_labels(detector.name, name),
        service_account=account_of(detector, revision),
        grace_seconds=2 * server.drain(revision) + ceil(seconds(revision.inference.deadline)) + 10,
        drain_text=str(server.drain(revision)),
        container=SERVER_CONTAINER,
        env=[
            *server.environment(detector, revision),
            *_behind_proxies(revision),
            *_environment(ray),
        ],
        ports=_ports(revision),
        claims=pod_claims(revision),
        resources=server.resources(revision) | container_claims(revision),
        mounts=[_TMP, *server.mounts(revision)],
        volumes=[{"name": "tmp", "emptyDir": {}}, *server.volumes(detector, revision)],
    )
    group = _group(made)
    group["template"] = server.as_asked(pod(made), revision)
    return made


def _ports(revision: Revision) -> list[dict[str, Any]]:
    own = [METRICS_PORT] if revision.guard.metrics_open else []
    return [
        *(
            {"name": name, "containerPort": number, "protocol": "TCP"}
            for name, number in ((SERVER_PORT[0], PORT), *own)
        ),
        *judged.ports(revision),
    ]


def _behind_proxies(revision: Revision) -> list[dict[str, str]]:
    """Return what a server is told that callers reach by way of others."""
    values = {"TRUST_REQUEST_START": "true"}
    if revision.guard.metrics_open:
        values["METRICS_PORT"] = str(METRICS_PORT[1])
    return [{"name": f"YOLOSERVE_{name}", "value": value} for name, value in values.items()]


def _served(planned: PlannedRevision) -> dict[str, str]:
    """Remember that it was ready: what KubeRay says of that may be lost."""
    return {SERVED_ANNOTATION: "true"} if planned.served else {}


def _ray(revision: Revision) -> Ray:
    return revision.runtime.ray or Ray()


def _environment(ray: Ray) -> list[dict[str, str]]:
    """Return what head and workers have in common: of two minds, they would not find each other.

    HAProxy asks another replica only where it could not connect: nobody saw the request then. Ray
    counts on that when a replica ends; whatever a replica began is never done again.
    """
    values = {
        "HOME": server.CACHE,
        "RAY_agent_register_timeout_ms": "120000",  # else 30 s, on a busy node too
        "RAY_SERVE_ENABLE_HA_PROXY": "1" if ray.proxy is RayProxy.HAPROXY else "0",
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure",
    }
    return [{"name": name, "value": value} for name, value in values.items()]


def _serve_config(detector: Detector, planned: PlannedRevision, cores: int) -> ServeConfig:
    revision, asked = planned.revision, detector.spec.ray_serve or RayServe()
    deadline = seconds(revision.inference.deadline)
    deployment = Deployment(
        autoscaling_config=_autoscaling(planned, asked),
        max_ongoing_requests=asked.max_ongoing_requests,
        max_queued_requests=asked.max_queued_requests,
        graceful_shutdown_timeout_s=max(30.0, ceil(deadline) + 10.0),
        ray_actor_options=ActorOptions(num_cpus=cores, num_gpus=_gpus(revision)),
    )
    return ServeConfig(
        http_options=HttpOptions(request_timeout_s=deadline + 1),
        applications=(Application(deployments=(deployment,)),),
    )


def _autoscaling(planned: PlannedRevision, asked: RayServe) -> Autoscaling:
    if (scaled := planned.scaled) is None:
        number = planned.replicas or 1
        scaled = Scaled(least=number, most=number, in_flight=asked.max_ongoing_requests)
    return Autoscaling(
        min_replicas=scaled.least,
        max_replicas=scaled.most,
        target_ongoing_requests=scaled.in_flight,
    )


def _cores(revision: Revision) -> int:
    """Return the CPUs that Ray counts for a replica: whole ones, and all of its worker."""
    resources = revision.resources
    asked = resources.limits.get("cpu") or resources.requests.get("cpu") or "1"
    return max(1, ceil(amount(asked)))


def _gpus(revision: Revision) -> int:
    """Return the accelerators that Ray lets the replica see: all of its worker, claimed or not."""
    return sum(requests_of(revision).values())


def _redis(redis: Redis | None) -> dict[str, Any] | None:
    if redis is None:
        return None
    options: dict[str, Any] = {"redisAddress": redis.address}
    if password := redis.password:
        of = {"name": password.secret_name, "key": password.key}
        options["redisPassword"] = {"valueFrom": {"secretKeyRef": of}}
    return options


def _head(revision: str) -> dict[str, str]:
    """Return what selects the head. No other label of ours: no Service is to lead to it."""
    return {RAY_LABEL: revision, f"{RAY_LABEL}-node": "head"}


def _worker_labels(detector: Detector, revision: str) -> dict[str, str]:
    ours = child_labels(detector.name) | {REVISION_LABEL: revision, RAY_LABEL: revision}
    ours.pop("app.kubernetes.io/name")  # KubeRay's: its own Services go by it
    return ours | _NO_SIDECAR


def beside(detector: Detector, planned: PlannedRevision, /) -> list[Manifest]:
    """Return who may reach Ray's ports, and what keeps a drain from a head that stands alone."""
    isolation, name = detector.spec.access.network_policy, planned.revision.name
    policies = [_policy_of_head(detector, planned.revision)]
    if isolation is not Isolation.NONE:
        policies.append(_policy_of_workers(detector, name))
    if _ray(planned.revision).redis:
        return policies
    kept = child(
        "pdb.yaml.j2",
        detector,
        f"{name}-head",
        revision=name,
        max_unavailable=None,
        min_available=1,
        selector=_head(name),
    )
    return [*policies, kept]


def _policy_of_head(detector: Detector, revision: Revision) -> Manifest:
    """Let in its own workers, and KubeRay at the dashboard; out, where that is asked for."""
    name = revision.name
    restricted = detector.spec.access.network_policy is Isolation.RESTRICTED
    redis = _ray(revision).redis
    reached = [*API_SERVER, *(_redis_ports(redis) if redis else ())]
    kuberay = {"namespaceSelector": {}, "podSelector": {"matchLabels": _KUBERAY}}
    return child(
        "network_policy.yaml.j2",
        detector,
        f"{name}-head",
        revision=name,
        selector=_head(name),
        types=["Ingress", "Egress"] if restricted else ["Ingress"],
        ingress=[
            {"from": [_own_pods(name)]},
            {"from": [kuberay], "ports": [_tcp(_DASHBOARD)]},
        ],
        egress=[
            {"to": [_own_pods(name)]},
            {"ports": [*({"protocol": p, "port": n} for p in ("TCP", "UDP") for n in _DNS)]},
            {"ports": [_tcp(port) for port in reached]},
        ]
        if restricted
        else None,
    )


def _policy_of_workers(detector: Detector, revision: str) -> Manifest:
    """Let in their own cluster, beside those whom the policy of the detector lets in."""
    restricted = detector.spec.access.network_policy is Isolation.RESTRICTED
    own = _own_pods(revision)
    return child(
        "network_policy.yaml.j2",
        detector,
        revision,
        revision=revision,
        selector={DETECTOR_LABEL: detector.name, RAY_LABEL: revision},
        types=["Ingress", "Egress"] if restricted else ["Ingress"],
        ingress=[{"from": [own]}],
        egress=[{"to": [own]}] if restricted else None,
    )


def _own_pods(revision: str) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": {RAY_LABEL: revision}}}


def _tcp(port: int) -> dict[str, Any]:
    return {"protocol": "TCP", "port": port}


def _redis_ports(redis: Redis) -> list[int]:
    """Return the ports of all that `redis.address` names: Ray takes several, with commas."""
    found = (re.search(r":([0-9]{1,5})(/.*)?$", each) for each in redis.address.split(","))
    return sorted({int(each[1]) if each else 6379 for each in found})


def budget(replicas: int, /) -> dict[str, Any]:
    """Return what a drained node leaves: a RayCluster tells nobody how many pods it is to have."""
    return {"max_unavailable": None, "min_available": max(replicas - 1, 0)}


def scaled(revision: str, /) -> dict[str, str]:
    """Return what an autoscaler would target."""
    return {"apiVersion": "ray.io/v1", "kind": KIND, "name": revision}


# reading


def pod(manifest: Manifest, /) -> Manifest:
    """Return the template of its workers; an empty one where others took that away."""
    try:
        template: Manifest = _group(manifest)["template"]
        template["spec"].keys()
    except (LookupError, TypeError, AttributeError):
        return {"spec": {}}
    return template


def _group(manifest: Manifest) -> Manifest:
    group: Manifest = manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    return group


def alone(revision: Revision, /) -> str:
    """Say that the head takes its workers with it."""
    if _ray(revision).redis:
        return ""
    return (
        f"{revision.name}: its Ray cluster has one head, and all replicas end with it; give Ray a"
        " Redis of yours in spec.runtime.ray.redis, or accept it"
    )


def read(manifest: Manifest, pods: Sequence[Manifest], now: datetime, /) -> Running:
    """Return what a RayService and its workers tell of a revision.

    Ready is who is ready himself, as far as KubeRay has seen him at the Service of its own: by then
    every proxy has heard of him. What Ray says of its application takes no requests from those who
    answer; it keeps them from being released on.
    """
    metadata, status = manifest["metadata"], ray_status.part(manifest, "status")
    told = ray_status.read(manifest, now)
    config = ServeConfig.read(manifest["spec"].get("serveConfigV2"))
    answering = sum(map(is_ready, pods))
    replicas = _replicas(config, sum(map(stays, pods)))
    known = ray_status.number(status, "numServeEndpoints") or 0
    seen = ray_status.number(status, "observedGeneration") or 0
    ready = min(answering, known, replicas)
    served = ready > 0 or SERVED_ANNOTATION in (metadata.get("annotations") or {})
    current = seen >= metadata.get("generation", 0)
    return Running(
        name=metadata["name"],
        created=metadata.get("creationTimestamp", ""),
        replicas=replicas,
        ready=ready,
        settled=current and told.well,
        leaving=answering > replicas,
        noted=Record((metadata.get("annotations") or {}).get(RENDER_ANNOTATION, "")),
        released=was_released(manifest),
        proved=was_proved(manifest),
        failed=failure_noted(manifest),
        failure=told.failure,
        hopeless=None if answering or served else told.hopeless,
        served=served,
        look_at=told.look_at,
    )


def _replicas(config: ServeConfig | None, workers: int) -> int:
    """Return what is asked for: within Serve's bounds the workers tell of that, one for each.

    KubeRay's `desiredWorkerReplicas` does not: it writes the status anew for other reasons alone.
    Where others wrote what cannot be read, Ray goes on with what it had.
    """
    if config is None:
        return workers
    bounds = config.deployment.autoscaling_config
    return min(max(workers, bounds.min_replicas), bounds.max_replicas)
