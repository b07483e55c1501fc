"""What `spec.podTemplate` may hold, and what of it is refused: nothing is ignored.

CEL does not look into free-form fields, so this is checked when a resource is parsed. What is
checked here is what would break the operator's promises, or fail in words nobody understands; the
API server checks the rest.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from yolofleet.api.base import ApiModel, FreeForm
from yolofleet.api.names import GROUP, child_labels
from yolofleet.runtime.amounts import POD, unreadable
from yolofleet.runtime.nesting import deeper_than
from yolofleet.runtime.quoting import below, cut, quoted

SERVER_CONTAINER = "yoloserve"
SERVER_PORT = ("http", 8080)
EVIDENCE_PORT = ("evidence", 8081)
METRICS_PORT = ("server-metrics", 8082)
"""Of pods whose port of requests leads to any of them; else that one has the metrics. KubeRay calls
Ray's own port `metrics`."""
RAY_TAKES = frozenset({8000, METRICS_PORT[1], 52_365, *range(10_002, 20_000)})
"""Ports of a worker of Ray: of requests, of metrics, of its agent, and of its own processes."""

MOST_LEVELS = 50  # more than twice what a pod of Kubernetes has
MOST_KB = 512
"""Its record holds a podTemplate twice, and the API server stores no object above 1.5 MiB."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume of ours in the server's container, where it is, and what asks for it."""

    volume: str
    path: str
    field: str


MODEL_CLAIM = Mount("model", "/mnt/model", "spec.model.uri")
API_KEYS = Mount("api-keys", "/mnt/api-keys", "spec.access.apiKeys")
OWN_FOLDER = "/etc/yoloserve"
LIVE = Mount("yoloserve-live", f"{OWN_FOLDER}/live", "spec.canary.shadow")
SHADOW_KEY = Mount("yoloserve-shadow-key", f"{OWN_FOLDER}/shadow", "spec.access.shadowKey")
FRAMES_KEY = Mount("yoloserve-frames-key", f"{OWN_FOLDER}/frames", "spec.access.framesKey")
GOLDEN = Mount("yoloserve-golden", f"{OWN_FOLDER}/golden", "spec.rollout.analysis.golden")
MOUNTS = (MODEL_CLAIM, API_KEYS, LIVE, SHADOW_KEY, FRAMES_KEY, GOLDEN)

MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "resourceClaims": "name",
}
"""patchMergeKey of the lists of a pod. Other lists (tolerations…) are replaced whole."""


class PodTemplate(ApiModel):
    """Anything else that the pods need, merged into them."""

    metadata: FreeForm = Field(
        default={},
        description="labels and annotations to add to the pods; not those that select them.",
    )
    spec: FreeForm = Field(
        default={},
        description="A pod spec, merged into the rendered one: containers, mounts and topology"
        " spread constraints by their key, env and volumes too but each as a whole, everything else"
        " as given (nodeSelector, tolerations, affinity, imagePullSecrets…). The server's container"
        f" is called {SERVER_CONTAINER}; what the rest of the spec says of it, and its probes, port"
        " and command, cannot be changed here.",
    )


_LEAVE = "is YoloFleet's, as its probes, drain and status rest on it; remove it"
_OF_SERVER = {
    "image": "use spec.runtime.image",
    "resources": "use spec.resources",
    "command": _LEAVE,
    "args": _LEAVE,
    "ports": _LEAVE,
    "livenessProbe": _LEAVE,
    "readinessProbe": _LEAVE,
    "startupProbe": _LEAVE,
    "lifecycle": _LEAVE,
    "restartPolicy": _LEAVE,
    "terminationMessagePath": _LEAVE,
    "terminationMessagePolicy": _LEAVE,
}
"""Fields of the server's container that cannot be set here, and where they can."""

_OF_POD = {
    "restartPolicy": "pods of a Deployment always restart; remove it",
    "activeDeadlineSeconds": "pods of a Deployment have no deadline; remove it",
    "ephemeralContainers": "no template can have any; use kubectl debug",
    "serviceAccount": "use serviceAccountName",
    "terminationGracePeriodSeconds": "follows from spec.inference.deadline and the chart's"
    " drainSeconds; remove it",
}
"""Fields of a pod that cannot be set here, and why."""

SERVER_SETTINGS = {
    "NAME": "is the detector's",
    "REVISION": "is the revision's",
    "MODEL": "use spec.model.uri",
    "SHA256": "use spec.model.sha256",
    "CLASSES": "use spec.model.classes",
    "BACKEND": "use spec.runtime.backend",
    "PRECISION": "use spec.runtime.precision",
    "PROFILE": "use spec.inference.profile",
    "IMAGE_SIZE": "use spec.inference.imageSize",
    "CONFIDENCE": "use spec.inference.confidence",
    "IOU": "use spec.inference.iou",
    "AGNOSTIC_NMS": "use spec.inference.agnosticNms",
    "MAX_DETECTIONS": "use spec.inference.maxDetections",
    "DEADLINE_MS": "use spec.inference.deadline",
    "MAX_BATCH": "use spec.inference.maxBatch",
    "DRAIN_SECONDS": "use the chart's drainSeconds",
    "CORS_ORIGINS": "use spec.access.corsOrigins",
    "CACHE_DIR": "replace the volume `cache` instead",
    "HOST": "the probes and the Service need it as it is",
    "PORT": "the probes and the Service need it as it is",
    "TERMINATION_LOG": "the status is read from there",
    "NAMESPACE": "is the detector's",
    "EVIDENCE_PORT": "the operator reads it there",
    "METRICS_PORT": "Prometheus reads it there, where a port of its own is needed",
    "LIVE_DIR": "the operator writes there; use spec.canary.shadow",
    "SHADOW_KEY_FILE": "use spec.access.shadowKey",
    "FRAMES_KEY_FILE": "use spec.access.framesKey",
    "GOLDEN_DIR": "use spec.rollout.analysis.golden",
}
"""Environment of the server, less its prefix, that podTemplate cannot set, and what can."""

GUARD_SETTINGS = {
    "JWT_ISSUER": "use spec.access.jwt.issuer",
    "JWT_JWKS_URI": "use spec.access.jwt.jwksUri",
    "JWT_AUDIENCES": "use spec.access.jwt.audiences",
    "API_KEYS_FILE": "use spec.access.apiKeys",
    "METRICS_OPEN": "use spec.access.metricsOpen",
}
"""The same where spec.access says who may ask; else podTemplate may, as it could before that."""

MODEL_SETTINGS = {
    "ALLOW_TORCHSCRIPT": "use spec.model.allowCode",
    "ALLOW_ENGINE": "use spec.model.allowCode",
    "ALLOW_PICKLE": "use spec.model.allowCode",
    "HEAD": "use spec.model.head",
    "ALLOW_BLIND": "use spec.model.allowBlind",
}
"""The same, each where spec.model says it; else podTemplate may, as it could before that."""

_OF_RAY = {"RAY_SERVE_ENABLE_HA_PROXY": "use spec.runtime.ray.proxy, which tells the head as well"}
"""Environment that Ray reads on every node alike."""

_LABEL_NAME = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def problems(
    template: PodTemplate,
    *,
    mounts: Sequence[Mount],
    guarded: bool,
    said: Collection[str] = (),
    on_ray: bool = False,
    path: str,
) -> Iterator[str]:
    """Say what of `template` cannot be honoured; each names the field and the fix.

    mounts: what is mounted besides the cache. guarded: spec.access says who may ask. said: which of
    `MODEL_SETTINGS` spec.model says. on_ray: some of the pods are Ray's. path: of the template.
    """
    if deeper_than(MOST_LEVELS, [template.metadata, template.spec]):
        yield f"{path}: is nested in more than {MOST_LEVELS} levels, and no pod's fields are"
        return
    size = len(json.dumps([template.metadata, template.spec]).encode()) // 1000
    if size > MOST_KB:
        yield (
            f"{path}: has {size} kB as JSON, and at most {MOST_KB} kB can be kept; put what is long"
            " into a ConfigMap, and mount it"
        )
        return
    yield from _of_metadata(template.metadata, f"{path}.metadata")
    wrong = _unmergeable(template.spec, f"{path}.spec")  # one by one: there may be 100,000
    if first := next(wrong, ""):
        yield first
        yield from wrong
        return
    settings = SERVER_SETTINGS | (GUARD_SETTINGS if guarded else {})
    settings |= {name: fix for name, fix in MODEL_SETTINGS.items() if name in said}
    yield from _of_spec(template.spec, mounts, settings, f"{path}.spec")
    if on_ray:
        yield from _of_ray(template.spec, f"{path}.spec")


def _unmergeable(value: object, path: str, name: str = "") -> Iterator[str]:
    """Say what cannot be merged by name: nulls, directives, items without their key or twice."""
    if value is None:
        yield f"{path}: is null; give it a value, or remove it"
    elif name in MERGE_KEYS and not isinstance(value, list):
        yield f"{path}: must be a list"
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if str(key).startswith("$"):
                yield f"{path}.{cut(key)}: directives of patches are not understood; remove it"
            else:
                yield from _unmergeable(inner, below(path, f".{cut(key)}"), key)
    elif isinstance(value, list):
        yield from _unmergeable_items(value, path, MERGE_KEYS.get(name))


def _unmergeable_items(items: list[object], path: str, key: str | None) -> Iterator[str]:
    seen = set()
    for number, item in enumerate(items):
        here = below(path, f"[{number}]")
        if key and not (isinstance(item, Mapping) and isinstance(item.get(key), str | int)):
            yield f"{here}: every item needs a {key}"
            continue
        yield from _unmergeable(item, here)
        if key and isinstance(item, Mapping):
            named = (item[key], str(item.get("protocol", "TCP")))
            if named in seen:
                yield f"{here}.{key}: {quoted(item[key])} is given twice; keep one of them"
            seen.add(named)


def _of_metadata(metadata: Mapping[str, Any], path: str) -> Iterator[str]:
    for name in metadata.keys() - {"labels", "annotations"}:
        yield f"{path}.{cut(name)}: only labels and annotations can be set; remove it"
    for name in ("labels", "annotations"):
        given = metadata.get(name, {})
        if not (isinstance(given, Mapping) and all(isinstance(v, str) for v in given.values())):
            yield f"{path}.{name}: must map names to strings (quote numbers and booleans)"
        elif name == "labels":
            yield from _of_labels(given, f"{path}.labels")


def _of_labels(labels: Mapping[str, str], path: str) -> Iterator[str]:
    for name, value in labels.items():
        if name in child_labels("") or name.startswith(f"{GROUP}/"):
            yield f"{path}.{cut(name)}: is YoloFleet's, as it selects the pods; remove it"
        elif not (_LABEL_NAME.fullmatch(name) and _LABEL_VALUE.fullmatch(value)):
            yield (
                f"{path}.{cut(name)}: {quoted(value)} is no label; names and values have at"
                " most 63 letters, digits, -, _ and ., or use an annotation"
            )


def _of_spec(
    spec: Mapping[str, Any], mounts: Sequence[Mount], settings: Mapping[str, str], path: str
) -> Iterator[str]:
    yield from _refused(spec, _OF_POD, path)
    yield from unreadable(spec, POD, path)
    fields = {mount.volume: mount.field for mount in mounts}
    for volume in spec.get("volumes", ()):
        if field := fields.get(volume["name"]):
            yield f"{path}.volumes[{cut(volume['name'])}]: is made for {field}; rename yours"
    for container in spec.get("containers", ()):
        here = f"{path}.containers[{cut(container['name'])}]"
        if container["name"] == SERVER_CONTAINER:
            yield from _of_server(container, mounts, settings, here)
        else:
            yield from _of_other(container, here)
    for container in spec.get("initContainers", ()):
        here = f"{path}.initContainers[{cut(container['name'])}]"
        if container["name"] == SERVER_CONTAINER:
            yield f"{here}: is the name of the server's container; rename yours"
        yield from _of_other(container, here)


def _of_server(
    container: Mapping[str, Any],
    mounts: Sequence[Mount],
    settings: Mapping[str, str],
    path: str,
) -> Iterator[str]:
    yield from _refused(container, _OF_SERVER, path)
    named = {f"YOLOSERVE_{name}": fix for name, fix in settings.items()} | _OF_RAY
    for entry in container.get("env", ()):
        if fix := named.get(str(entry["name"])):
            yield f"{path}.env[{entry['name']}]: {fix}"
    fields = {mount.path: mount.field for mount in mounts}
    for mount in container.get("volumeMounts", ()):
        where = mount["mountPath"]
        if field := fields.get(where):
            yield f"{path}.volumeMounts[{cut(where)}]: is for {field}; move yours"
        elif f"{where}/".startswith(f"{OWN_FOLDER}/"):
            yield f"{path}.volumeMounts[{cut(where)}]: is YoloFleet's own folder; move yours"


def _of_other(container: Mapping[str, Any], path: str) -> Iterator[str]:
    if not container.get("image"):
        yield (
            f"{path}: needs an image; to change the server's container, call it {SERVER_CONTAINER}"
        )
    name, number = SERVER_PORT
    for port in container.get("ports", ()):
        if port.get("name") == name:
            yield f"{path}.ports[{name}]: is the name of the server's port; rename yours"
        given, protocol = port["containerPort"], port.get("protocol", "TCP")
        here = f"{path}.ports[{cut(given)}]"
        if given == number:
            yield f"{path}.ports[{number}]: is the server's port; use another"
        elif type(given) is not int or not 0 < given < 2**16:
            yield f"{here}.containerPort: must be a number from 1 to 65535, unquoted"
        if protocol not in ("TCP", "UDP", "SCTP"):
            yield f"{here}.protocol: must be TCP, UDP or SCTP"


def _of_ray(spec: Mapping[str, Any], path: str) -> Iterator[str]:
    for kind in ("containers", "initContainers"):
        for container in spec.get(kind, ()):
            for port in container.get("ports", ()):
                if (number := port["containerPort"]) in RAY_TAKES:
                    here = f"{path}.{kind}[{cut(container['name'])}].ports[{number}]"
                    yield (
                        f"{here}: with engine ray 8000, 8082, 52365 and 10002 to 19999 are Ray's"
                        " and the server's; use another"
                    )


def _refused(given: Iterable[str], fixes: Mapping[str, str], path: str) -> Iterator[str]:
    for field, fix in fixes.items():
        if field in given:
            yield f"{path}.{field}: {fix}"
