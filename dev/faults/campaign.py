"""Fault 23: specs that nobody thought of, generated from the schema in the CRD.

Where a field needs to mean something to be accepted (a URI, a host, a quantity), or would only cost
time (a thousand replicas), `_MEANT` says what to draw from; every other field, new ones too, gets
whatever its schema allows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Final

import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from controlplane.installation import DETECTOR_CRD
from yolofleet.api.names import Manifest
from yolofleet.runtime.quantity import amount

Spec = dict[str, Any]
Strategy = st.SearchStrategy[Any]

BROKEN: Final = "https://models.example.com/broken.onnx"
"""A model whose pods never get ready, by the theatre's kubelet."""

_QUANTITIES = st.fixed_dictionaries(
    {"cpu": st.sampled_from(["100m", "0.5", "1", "2.0"])},
    optional={"memory": st.sampled_from(["512Mi", "1Gi", "1000000000", "1.5Gi"])},
)
_LIMITS = st.fixed_dictionaries(
    {"memory": st.sampled_from(["2Gi", "4000Mi", "3e9"])},
    optional={"cpu": st.sampled_from(["2", "4000m"]), "nvidia.com/gpu": st.just(1)},
)
_POD_SPEC = st.fixed_dictionaries(
    {},
    optional={
        "nodeSelector": st.just({"disk": "ssd"}),
        "volumes": st.just([{"name": "scratch", "emptyDir": {}}]),
        "tolerations": st.just([{"key": "edge", "operator": "Exists"}]),
        "containers": st.just(
            [
                {"name": "yoloserve", "env": [{"name": "A", "value": "b"}]},
                {"name": "sidecar", "image": "sidecar:1"},
            ]
        ),
    },
)  # fmt: skip
_POD_METADATA = st.fixed_dictionaries(
    {}, optional={"annotations": st.just({"example.com/a": "on"}), "labels": st.just({"x": "y"})}
)
_HEADERS = st.dictionaries(
    st.sampled_from(["x-canary", "x-camera-id"]),
    st.sampled_from([{"exact": "always"}, {"prefix": "a"}, {"regex": "a.*"}, {"exact": ""}]),
    min_size=1,
    max_size=2,
)
_PEERS = st.lists(
    st.sampled_from([{"namespaceSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}]),
    max_size=2,
    unique_by=str,
)

_MEANT: Final[Mapping[str, Strategy]] = {
    "uri": st.sampled_from(
        ["demo://shapes", "demo://shapes-v2", "https://m.example.com/a.onnx", "pvc://m/a.onnx"]
    ),
    "image": st.sampled_from(["", "example.com/serve:1"]),
    "requests": _QUANTITIES,
    "limits": _LIMITS,
    "replicas": st.integers(0, 3),
    "canary.replicas": st.integers(1, 2),
    "minReplicas": st.integers(1, 2),
    "maxReplicas": st.integers(2, 4),
    "behavior": st.sampled_from([{}, {"scaleDown": {"stabilizationWindowSeconds": 1}}]),
    "hosts": st.lists(st.sampled_from(["a.example.com", "b.example.com"]), max_size=2, unique=True),
    "gateways": st.lists(st.sampled_from(["mesh", "istio-system/public"]), max_size=1),
    "headers": _HEADERS,
    "deadline": st.sampled_from(["250ms", "500ms", "2s", "1m"]),
    "name": st.just("store"),
    "hold": st.sampled_from(["1s", "500ms"]),
    "steps": st.lists(st.integers(1, 99), max_size=2, unique=True).map(
        lambda weights: [{"weight": weight, "hold": "1s"} for weight in sorted(weights)]
    ),
    "approved": st.nothing(),
    "engine": st.just("deployment"),  # no KubeRay is there
    "ray": st.nothing(),
    "rayServe": st.nothing(),
    "stickyHeader": st.just("X-Camera-Id"),
    "allowFrom": _PEERS,
    "allowTo": _PEERS.map(lambda peers: [{"to": [peer]} for peer in peers]),
    "corsOrigins": st.just(["https://a.example.com"]),
    "jwt": st.just(
        {
            "issuer": "https://a.example.com",
            "audiences": ["gate"],
            "jwksUri": "https://a.example.com/keys",
        }
    ),
    "networkPolicy": st.just("Restricted"),
    "autoscaling.provider": st.just("auto"),
    "interval": st.sampled_from(["2s", "10s"]),
    "maxHold": st.just("1h"),
    "golden": st.nothing(),
    "podTemplate.spec": _POD_SPEC,
    "podTemplate.metadata": _POD_METADATA,
    "paused": st.just(False),
    "suspend": st.just(False),
    "revisionHistory": st.just(0),
}


def specs() -> Strategy:
    """Return the strategy for whole specs."""
    versions = yaml.safe_load(DETECTOR_CRD.read_text())["spec"]["versions"]
    schema = versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return _values(schema, ()).map(sensible)


def sensible(spec: Spec) -> Spec:
    """Return `spec` changed where the CRD's rules would refuse how its fields go together."""
    spec = copy.deepcopy(spec) | {"revisionHistory": 0}
    traffic, rollout = spec.setdefault("traffic", {}), spec.setdefault("rollout", {})
    if "autoscaling" in spec:
        spec.pop("replicas", None)
        spec.setdefault("resources", {}).setdefault("requests", {})["cpu"] = "500m"
        rollout.pop("maxSurge", None)
        if rollout.get("strategy") == "InPlace":
            del rollout["strategy"]
    if traffic.get("provider") == "service":
        traffic.pop("hosts", None)
        if rollout.get("strategy") == "Canary":
            rollout["strategy"] = "BlueGreen"
        if "canary" in spec:
            spec["canary"] |= {"weight": 0, "match": []}
    if rollout.get("strategy") == "Canary" and not traffic.get("hosts"):
        traffic["hosts"] = ["a.example.com"]  # a delegate that nobody references walks no steps
    if not traffic.get("hosts"):
        traffic.pop("gateways", None)
    if rollout.get("strategy") != "Canary":
        rollout.pop("steps", None)
        rollout.pop("maxSurge", None)
    elif not rollout.get("steps"):
        rollout["steps"] = [{"weight": 50, "hold": "1s"}]
    if rollout.get("strategy") == "InPlace":
        spec.pop("canary", None)
    if "canary" in spec:
        spec["canary"]["model"] = {"uri": "demo://on-trial"}
    access, canary = spec.get("access", {}), spec.get("canary", {})
    if not access.get("shadowKey") and {"jwt", "apiKeys"} & access.keys():
        canary.pop("shadow", None)
    if _by_number(spec):
        spec.pop("accelerator", None)
    if _by_number(spec) or _by_number(canary):
        canary.pop("accelerator", None)
    if not lacks(spec):
        spec.get("autoscaling", {}).pop("gpu", None)
    for runtime in (spec.get("runtime", {}), canary.get("runtime", {})):
        if runtime.get("backend") == "onnxruntime":
            runtime.pop("precision", None)
        amiss = {"tensorrt"} | ({"openvino"} if lacks(spec) or lacks(canary) else set())
        if runtime.get("backend") in amiss:
            del runtime["backend"]
    return spec


def _by_number(asked: Manifest) -> bool:
    limits = asked.get("resources", {}).get("limits", {})
    return any("/" in name for name in limits)


def lacks(asked: Manifest) -> bool:
    """Say whether a spec, or a canary's, asks for accelerators: no node has one."""
    return _by_number(asked) or "accelerator" in asked


def ends_alike(spec: Spec) -> bool:
    """Say whether a spec has one end from wherever it comes.

    An autoscaler keeps the replicas that it finds; what cannot run, or be judged, takes over from
    nobody.
    """
    return not (lacks(spec) or "autoscaling" in spec or spec["rollout"].get("analysis") is not None)


def _values(schema: Manifest, path: tuple[str, ...]) -> Strategy:
    for name in (".".join(path[-2:]), path[-1] if path else ""):
        if name in _MEANT:
            return _MEANT[name]
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind == "object":
        return _objects(schema, path)
    if kind == "array":
        most = min(schema.get("maxItems", 3), 3)
        return st.lists(_values(schema["items"], path), max_size=most)
    return _PLAIN[kind or "string"](schema)


def _objects(schema: Manifest, path: tuple[str, ...]) -> Strategy:
    fields = schema.get("properties", {})
    drawn = {name: _values(inner, (*path, name)) for name, inner in fields.items()}
    drawn = {name: strategy for name, strategy in drawn.items() if not strategy.is_empty}
    required = {name: drawn[name] for name in schema.get("required", ()) if name in drawn}
    optional = {name: strategy for name, strategy in drawn.items() if name not in required}
    return st.fixed_dictionaries(required, optional=optional)


def _integers(schema: Manifest) -> Strategy:
    step = schema.get("multipleOf", 1)
    least, most = schema.get("minimum", 0), schema.get("maximum", 1000)
    return st.integers(-(-least // step), most // step).map(lambda number: number * step)


def _numbers(schema: Manifest) -> Strategy:
    return st.floats(schema.get("minimum", 0), schema.get("maximum", 1), allow_subnormal=False)


def _strings(schema: Manifest) -> Strategy:
    least, most = schema.get("minLength", 0), schema.get("maxLength", 64)
    if pattern := schema.get("pattern"):
        drawn: Strategy = st.from_regex(pattern, fullmatch=True)
        return drawn.filter(lambda text: "\n" not in text and least <= len(text) <= most)
    readable = st.characters(codec="utf-8", exclude_categories=["C"])
    return st.text(readable, min_size=least, max_size=min(most, least + 20))


_PLAIN: Final[Mapping[str, Callable[[Manifest], Strategy]]] = {
    "integer": _integers,
    "number": _numbers,
    "string": _strings,
    "boolean": lambda _: st.booleans(),
}


def generated(count: int, number: int) -> list[Spec]:
    """Return `count` specs, always the same for one seed `number`."""
    found: list[Spec] = []

    @seed(number)
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(specs())
    def collect(spec: Spec) -> None:
        found.append(spec)

    collect()
    return found


def inconsistencies(spec: Spec, state: Mapping[str, Any]) -> list[str]:
    """Say which fields of `spec`, as the API server stored it, its children do not show."""
    status = state["YoloDetector"]["status"]
    stable = status["stable"]["revision"]
    deployment = state[f"Deployment/{stable}"]["spec"]
    (server,) = [
        container
        for container in deployment["template"]["spec"]["containers"]
        if container["name"] == "yoloserve"
    ]
    wrong = []

    def same(field: str, wanted: Any, found: Any) -> None:
        if wanted != found:
            wrong.append(f"{field} is {wanted!r}, and its child has {found!r}")

    scaling = spec.get("autoscaling")
    if scaling:
        scaler = state[f"HorizontalPodAutoscaler/{stable}"]["spec"]
        same("autoscaling.minReplicas", scaling["minReplicas"], scaler["minReplicas"])
        same("autoscaling.maxReplicas", scaling["maxReplicas"], scaler["maxReplicas"])
    elif not lacks(spec):
        same("replicas", spec.get("replicas", 1), deployment["replicas"])
    if spec["runtime"]["image"]:
        same("runtime.image", spec["runtime"]["image"], server["image"])
    for part in ("requests", "limits"):
        wanted = {k: amount(str(v)) for k, v in spec["resources"].get(part, {}).items()}
        live = {k: amount(v) for k, v in server["resources"].get(part, {}).items()}
        same(f"resources.{part}", wanted, {k: v for k, v in live.items() if k in wanted})
    if "VirtualService/gate" in state:
        route = state["VirtualService/gate"]["spec"]
        same("traffic.hosts", spec["traffic"]["hosts"], route.get("hosts", []))
        same("traffic.gateways", spec["traffic"]["gateways"], route.get("gateways", []))
    elif spec["traffic"]["provider"] in ("auto", "istio"):
        wrong.append("traffic.provider asks for Istio, and there is no VirtualService")
    return wrong
