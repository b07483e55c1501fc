"""Every rule of the CRD, both ways: what is refused says the field and the fix; its twin passes."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from controlplane.kube import Kube
from yolofleet.api.names import API_VERSION
from yolofleet.cluster import kinds
from yolofleet.runtime.client import Client, Request
from yolofleet.runtime.errors import Invalid

VALUE = re.compile(r" \([^()]*\):")
MODEL = {"uri": "demo://shapes"}
CPU = {"requests": {"cpu": "1"}}
GPU = {"requests": {"cpu": "1"}, "limits": {"nvidia.com/gpu": 1}}
CLAIM = {"deviceClassName": "gpu.nvidia.com"}
V2 = {"uri": "demo://shapes-v2"}
SCALED = {"maxReplicas": 3}
ON_RAY = {"engine": "ray"}
GPU_ON_RAY = ON_RAY | {"image": "ray:gpu"}
BY_RAY = {"runtime": ON_RAY, "autoscaling": {"maxReplicas": 3, "inFlight": 4}}
HALF = {"limits": {"nvidia.com/gpu": "0.5"}}
PUBLIC = {"gateways": ["istio-system/public"]}
MANY = [f"{number}.example.com" for number in range(17)]
NO_NAME = "spec.traffic.hosts: must be a DNS name without scheme, port or path"
OF_THE_CLUSTER = "spec.traffic.hosts: names of the cluster"
JWT = {"issuer": "https://login", "jwksUri": "https://login/keys", "audiences": ["gate"]}


def stepped(*weights: int) -> dict[str, Any]:
    """Return a rollout in steps."""
    return {"strategy": "Canary", "steps": [{"weight": w, "hold": "5m"} for w in weights]}


RULES = [
    # (what is refused, what it says, the same put right)
    ({"model": {"uri": "ftp://host/a.onnx"}}, "spec.model.uri: the scheme must be one of", {}),
    *(
        (
            {"model": {"uri": f"https://{wrong}/a.onnx"}},
            "spec.model.uri: brackets are for an IPv6 address alone",
            {"model": {"uri": f"https://{right}/a.onnx"}},
        )
        for wrong, right in (
            ("[models", "models"),
            ("models]:8443", "[2001:db8::7]:8443"),
            ("a[::1]", "me@[::1]"),
            ("[models]", "models/[v7]"),
        )
    ),
    *(
        (
            {"rollout": {"strategy": "Canary", "steps": [{"weight": 10, "hold": wrong}]}},
            "spec.rollout.steps.hold: must be at most 87600h, ten years",
            {"rollout": {"strategy": "Canary", "steps": [{"weight": 10, "hold": right}]}},
        )
        for wrong, right in (
            ("99999999h", "87600h"),
            ("87601h", "Approval"),
            ("5256001m", "5256000m"),
            ("315360000001ms", "315360000000ms"),
        )
    ),
    (
        {"model": {"uri": "pvc://claim"}},
        "spec.model.uri: write a claim as pvc://CLAIM/PATH",
        {"model": {"uri": "pvc://claim/a.onnx"}},
    ),
    (
        {"model": {"uri": "file://models/a.onnx"}},
        "spec.model.uri: a file needs its whole path",
        {"model": {"uri": "file:///models/a.onnx"}},
    ),
    (
        {"model": {"uri": "http://store:9000/a.onnx"}},
        "spec.model.sha256: a model that comes over plain http:// needs its digest",
        {"model": {"uri": "http://store:9000/a.onnx", "sha256": "a" * 64}},
    ),
    *(
        (
            {"inference": {"deadline": wrong}},
            "spec.inference.deadline: must be at most 10m",
            {"inference": {"deadline": "600s"}},
        )
        for wrong in ("11m", "999999999999999h")
    ),
    (
        {"runtime": {"backend": "onnxruntime", "precision": "bf16"}},
        "spec.runtime.precision: onnxruntime computes in fp32, on a GPU in fp16 too",
        {"runtime": {"backend": "openvino", "precision": "bf16"}},
    ),
    (
        {"runtime": {"backend": "tensorrt", "precision": "bf16"}, "resources": GPU},
        "spec.runtime.precision: tensorrt computes in fp16 and fp32",
        {"runtime": {"backend": "tensorrt", "precision": "fp16"}, "resources": GPU},
    ),
    (
        {"autoscaling": {"minReplicas": 4, "maxReplicas": 3}, "resources": CPU},
        "spec.autoscaling.minReplicas: must not be above maxReplicas",
        {"autoscaling": {"minReplicas": 3, "maxReplicas": 3}, "resources": CPU},
    ),
    (
        {"autoscaling": SCALED | {"gpu": 60, "provider": "builtin"}, "resources": GPU},
        "spec.autoscaling.gpu: the operator cannot see what GPUs do; set spec.autoscaling.provider",
        {"autoscaling": SCALED | {"gpu": 60, "provider": "keda"}, "resources": GPU},
    ),
    (
        {"accelerator": CLAIM, "resources": GPU},
        "spec.accelerator: spec.resources.limits asks for an accelerator too",
        {"accelerator": CLAIM, "resources": CPU, "autoscaling": SCALED | {"gpu": 60}},
    ),
    (
        {"resources": GPU, "canary": {"accelerator": CLAIM}},
        "spec.canary.accelerator: the resources of the canary ask for an accelerator too",
        {"resources": GPU, "canary": {"accelerator": CLAIM, "resources": CPU}},
    ),
    (
        {"accelerator": CLAIM, "canary": {"accelerator": CLAIM}},
        "spec.canary: is equal to the stable revision",
        {"accelerator": CLAIM, "canary": {"accelerator": CLAIM | {"count": 2}}},
    ),
    (
        {"accelerator": CLAIM, "runtime": {"backend": "openvino"}},
        "spec.runtime.backend: openvino runs on the CPU",
        {"accelerator": CLAIM, "runtime": {"backend": "tensorrt"}},
    ),
    (
        {"autoscaling": SCALED | {"gpu": 60}},
        "spec.autoscaling.gpu: no accelerator is asked for; set spec.resources.limits",
        {"autoscaling": SCALED | {"gpu": 60}, "resources": GPU},
    ),
    (
        {
            "autoscaling": SCALED | {"gpu": 60},
            "resources": {"limits": {"nvidia.com/gpu.shared": "1"}},
        },
        "spec.autoscaling.gpu: the use of a shared GPU is that of all who share it; go by load",
        {"autoscaling": SCALED | {"load": 60}, "resources": {"limits": {"nvidia.com/gpu": "1"}}},
    ),
    *(
        (
            {"autoscaling": SCALED | {metric: 4, "provider": "none"}, "resources": GPU},
            "spec.autoscaling.provider: with none an autoscaler of your own decides by what it"
            " goes; remove load, inFlight and gpu",
            {"autoscaling": SCALED | {"provider": "none"}, "resources": GPU, "replicas": 2},
        )
        for metric in ("load", "inFlight", "gpu")
    ),
    (
        {"runtime": {"ray": {"version": "2.60.0"}}},
        "spec.runtime.ray: has no effect with engine deployment; set spec.runtime.engine to ray",
        {"runtime": {"engine": "ray", "ray": {"version": "2.60.0"}}},
    ),
    *(
        (
            {"runtime": {"engine": "ray", "ray": {"version": version}}},
            "spec.runtime.ray.version: must be at least 2.52.0",
            {"runtime": {"engine": "ray", "ray": {"version": "2.52.0", "proxy": "ray"}}},
        )
        for version in ("2.9.1", "2.51.9")
    ),
    *(
        (
            {"runtime": ON_RAY | {"ray": older}},
            "spec.runtime.ray.proxy: Ray has no HAProxy with it before 2.57.0; set it to ray",
            {"runtime": ON_RAY | {"ray": {"version": "2.57.0"}}},
        )
        for older in ({"version": "2.56.2"}, {"version": "2.52.0", "proxy": "haproxy"})
    ),
    (
        {
            "runtime": ON_RAY,
            "canary": {"runtime": {"ray": {"version": "2.56.2"}}, "replicas": 1},
        },
        "spec.runtime.ray.proxy: Ray has no HAProxy with it before 2.57.0; set it to ray",
        {
            "runtime": ON_RAY,
            "canary": {"runtime": {"ray": {"version": "2.56.2", "proxy": "ray"}}, "replicas": 1},
        },
    ),
    (
        {"runtime": ON_RAY, "rollout": {"strategy": "InPlace"}},
        "spec.rollout.strategy: InPlace needs a replica's room at once",
        {"runtime": ON_RAY, "rollout": {"strategy": "BlueGreen"}},
    ),
    (
        {"runtime": ON_RAY, "autoscaling": SCALED, "resources": CPU},
        "spec.autoscaling.inFlight: is what Ray's autoscaler goes by, and all",
        BY_RAY,
    ),
    *(
        (
            {"runtime": ON_RAY, "autoscaling": {"maxReplicas": 3, "inFlight": 4, metric: 60}}
            | {"resources": CPU},
            "spec.autoscaling: cpu, load and gpu are no metrics of Ray's autoscaler",
            BY_RAY,
        )
        for metric in ("cpu", "load")
    ),
    *(
        (
            {"runtime": ON_RAY, "autoscaling": BY_RAY["autoscaling"] | {"provider": provider}},
            "spec.autoscaling.provider: Ray's own autoscaler moves its replicas",
            BY_RAY,
        )
        for provider in ("keda", "builtin")
    ),
    (
        BY_RAY | {"autoscaling": BY_RAY["autoscaling"] | {"behavior": {"scaleDown": {}}}},
        "spec.autoscaling.behavior: is a HorizontalPodAutoscaler's",
        BY_RAY,
    ),
    (
        BY_RAY | {"rayServe": {"maxOngoingRequests": 3}},
        "spec.autoscaling.inFlight: Ray never leads as many requests to a replica",
        BY_RAY | {"rayServe": {"maxOngoingRequests": 4}},
    ),
    (
        {"canary": {"runtime": ON_RAY}, "traffic": PUBLIC | {"hosts": ["a.example.com"]}},
        "spec.canary.replicas: a canary on another engine needs a number of its own",
        {"canary": {"runtime": ON_RAY, "replicas": 1}},
    ),
    (
        # a canary on Ray beside an autoscaler by load is fine; its promotion is what lacks a metric
        {"runtime": ON_RAY, "autoscaling": SCALED | {"load": 70}},
        "spec.autoscaling",
        {"canary": {"runtime": ON_RAY, "replicas": 1}, "autoscaling": SCALED | {"load": 70}},
    ),
    (
        {"runtime": GPU_ON_RAY, "resources": HALF},
        "spec.resources.limits: a part of an accelerator is none that Kubernetes gives",
        {"runtime": GPU_ON_RAY, "resources": GPU},
    ),
    (
        {"canary": {"runtime": ON_RAY, "replicas": 1, "resources": HALF}},
        "spec.canary.resources.limits: a part of an accelerator",
        {"canary": {"runtime": GPU_ON_RAY, "replicas": 1, "resources": GPU}},
    ),
    *(
        (
            {"canary": {"runtime": ON_RAY, "replicas": 1} | asked},
            "spec.canary.runtime.image: the chart names no image with Ray for accelerators",
            {"canary": {"runtime": GPU_ON_RAY, "replicas": 1} | asked},
        )
        for asked in ({"resources": GPU}, {"accelerator": CLAIM})
    ),
    (
        {"runtime": ON_RAY, "canary": {"resources": GPU}},
        "spec.canary.runtime.image: the chart names no image with Ray for accelerators",
        {
            "runtime": ON_RAY,
            "canary": {"runtime": {"engine": "deployment"}, "replicas": 1, "resources": GPU},
        },
    ),
    (
        {"runtime": ON_RAY, "resources": GPU},
        "spec.runtime.image: the chart names no image with Ray for accelerators",
        {"runtime": GPU_ON_RAY, "resources": GPU},
    ),
    (
        {"runtime": ON_RAY, "accelerator": CLAIM},
        "spec.runtime.image: the chart names no image with Ray for accelerators",
        {"runtime": GPU_ON_RAY, "accelerator": CLAIM},
    ),
    (
        {"rayServe": {"maxOngoingRequests": 9}},
        "spec.rayServe: has no effect without spec.runtime.engine ray",
        {"canary": {"runtime": ON_RAY, "replicas": 1}, "rayServe": {"maxOngoingRequests": 9}},
    ),
    (
        {"access": {"networkPolicy": "None", "allowFrom": [{"namespaceSelector": {}}]}},
        "spec.access.networkPolicy: is None, so allowFrom and allowTo have no effect",
        {"access": {"networkPolicy": "IngressOnly", "allowFrom": [{"namespaceSelector": {}}]}},
    ),
    (
        {"access": {"networkPolicy": "IngressOnly", "allowTo": [{"ports": [{"port": 443}]}]}},
        "spec.access.allowTo: has no effect with networkPolicy IngressOnly",
        {"access": {"allowTo": [{"ports": [{"port": 443}]}]}},
    ),
    *(
        (
            {"access": {"corsOrigins": [wrong]}},
            "spec.access.corsOrigins: an origin is scheme://host or scheme://host:port",
            {"access": {"corsOrigins": [right]}},
        )
        for wrong, right in (
            ("app.example.com", "https://app.example.com"),
            ("https://app.example.com/", "https://app.example.com:8443"),
            ("https://App.example.com", "http://[::1]:3000"),
            ("https://app.example.com:443", "capacitor://localhost"),
            ("https://*.example.com", "*"),
            ("null", "http://localhost:3000"),
        )
    ),
    (
        {"access": {"corsOrigins": ["https://app.example.com", "*"]}},
        "spec.access.corsOrigins: * stands for all origins",
        {"access": {"corsOrigins": ["*"]}},
    ),
    (
        {"access": {"jwt": JWT | {"jwksUri": "http://login.example.com/keys"}}},
        "spec.access.jwt.jwksUri: must be https://, or http:// to a Service of the cluster",
        {"access": {"jwt": JWT | {"jwksUri": "http://keycloak.auth.svc:8080/keys"}}},
    ),
    (
        {"access": {"jwt": JWT | {"audiences": []}}},
        "spec.access.jwt.audiences: name at least one; without, a token that the issuer made",
        {"access": {"jwt": JWT}},
    ),
    (
        {"access": {"metricsOpen": False}},
        "spec.access.metricsOpen: has no effect while everybody may ask",
        {"access": {"metricsOpen": False, "apiKeys": {"secretName": "gate-keys"}}},
    ),
    (
        {"access": {"allowTo": [{}]}},
        "spec.access.allowTo: an entry needs `to`, `ports` or both",
        {"access": {"allowTo": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}},
    ),
    (
        {"access": {"allowTo": [{"to": [], "ports": []}]}},
        "spec.access.allowTo: an entry needs `to`, `ports` or both",
        {"access": {"allowTo": [{"to": [], "ports": [{"port": 443}]}]}},
    ),
    *(
        (
            {"access": {"allowFrom": [{"ipBlock": {"cidr": wrong}}]}},
            "spec.access: cidr of an ipBlock must be an address and how many bits of it count",
            {"access": {"allowFrom": [{"ipBlock": {"cidr": right}}]}},
        )
        for wrong, right in (
            ("10.0.0.0/33", "10.0.0.0/32"),
            ("10.0.0.256/32", "10.0.0.255/32"),
            ("10.0.0.1", "10.0.0.1/8"),
            ("10.0.0/8", "0.0.0.0/0"),
            ("fd00::/129", "fd00::/128"),
            ("fd00:/8", "::/0"),
            ("intranet", "::ffff:10.0.0.0/104"),
        )
    ),
    (
        {"access": {"allowTo": [{"to": [{"ipBlock": {"cidr": "::/0", "except": ["fe80::"]}}]}]}},
        "spec.access: each entry of except of an ipBlock must be an address",
        {"access": {"allowTo": [{"to": [{"ipBlock": {"cidr": "::/0", "except": ["fe80::/10"]}}]}]}},
    ),
    (
        {"access": {"allowFrom": [{}]}},
        "spec.access: a peer is an ipBlock, or a podSelector, a namespaceSelector or both",
        {"access": {"allowFrom": [{"podSelector": {}}]}},
    ),
    (
        {"access": {"allowTo": [{"to": [{"ipBlock": {"cidr": "::/0"}, "podSelector": {}}]}]}},
        "spec.access: a peer is an ipBlock, or a podSelector, a namespaceSelector or both",
        {"access": {"allowTo": [{"to": [{"namespaceSelector": {}, "podSelector": {}}]}]}},
    ),
    (
        {"autoscaling": SCALED, "resources": CPU, "replicas": 2},
        "spec.replicas: the autoscaler owns the replicas",
        {"autoscaling": SCALED, "resources": CPU},
    ),
    (
        {"autoscaling": SCALED, "resources": {"limits": {"memory": "1Gi"}}},
        "spec.autoscaling.cpu: is a share of the CPU request",
        {"autoscaling": SCALED},
    ),
    (
        {"traffic": {"gateways": ["istio-system/public"]}},
        "spec.traffic.gateways: need spec.traffic.hosts",
        {"traffic": {"gateways": ["istio-system/public"], "hosts": ["gate.example.com"]}},
    ),
    (
        {"traffic": {"provider": "service", "hosts": ["gate.example.com"]}},
        "spec.traffic.hosts: a plain Service routes no host names",
        {"traffic": {"provider": "service"}},
    ),
    *(
        ({"traffic": PUBLIC | {"hosts": [host]}}, told, {"traffic": PUBLIC | {"hosts": [right]}})
        for host, told, right in (
            ("http://a.example.com", NO_NAME, "a.example.com"),
            ("https://a.example.com/", NO_NAME, "*.example.com"),
            ("a.example.com:8080", NO_NAME, "*"),
            ("a.example.com/path", NO_NAME, "gate"),
            ("c_c.example.com", NO_NAME, "c-c.example.com"),
            ("a..example.com", NO_NAME, "A.Example.com"),
            ("a.example.com.", NO_NAME, "xn--tr-wia.example.com"),
            ("tür.example.com", NO_NAME, "gate.localhost"),
            ("-a.example.com", NO_NAME, "a.b.example.com"),
            (f"{'a' * 64}.example.com", NO_NAME, f"{'a' * 63}.example.com"),
            ("a.*.example.com", NO_NAME, "svc.example.com"),
            ("10.0.0.1", NO_NAME, "10.0.0.1.nip.io"),
            ("[2001:db8::1]", NO_NAME, "2001-db8--1.example.com"),
            ("pay.shop.svc.cluster.local", OF_THE_CLUSTER, "pay.example.com"),
            ("pay.shop.SVC", OF_THE_CLUSTER, "pay.services.example.com"),
            ("pay.shop.svc.k8s.example.com", OF_THE_CLUSTER, "svc.k8s.example.com"),
            ("*.svc.cluster.local", OF_THE_CLUSTER, "*.svcs.example.com"),
            ("printer.Local", OF_THE_CLUSTER, "printer.localhost"),
        )
    ),
    (
        {"traffic": PUBLIC | {"hosts": ["d.example.com", "D.example.com"]}},
        "spec.traffic.hosts: is listed twice",
        {"traffic": PUBLIC | {"hosts": ["d.example.com", "*.example.com"]}},
    ),
    *(
        (
            {"traffic": {"provider": "gateway", **PUBLIC, "hosts": MANY}},
            "spec.traffic.hosts: an HTTPRoute has room for 16",
            {"traffic": right},
        )
        for right in (
            {"provider": "gateway", **PUBLIC, "hosts": MANY[1:]},
            {"provider": "gateway", **PUBLIC, "hosts": [*MANY, "*"]},
            {"provider": "istio", **PUBLIC, "hosts": MANY},
        )
    ),
    *(
        ({"traffic": wrong}, "spec.traffic.hosts: inside the mesh", {"traffic": right})
        for wrong, right in (
            ({"hosts": ["*"]}, {"hosts": ["*"], "gateways": ["public"]}),
            ({"hosts": ["*.example.com"]}, {"hosts": ["gate.example.com"]}),
            (
                {"hosts": ["payments"], "gateways": ["mesh"]},
                {"hosts": ["payments.example.com"], "gateways": ["mesh"]},
            ),
            (
                {"hosts": ["a.example.com", "*"], "gateways": ["edge/public", "mesh"]},
                {"hosts": ["a.example.com", "b.example.com"], "gateways": ["edge/public", "mesh"]},
            ),
        )
    ),
    *(
        (
            {"traffic": {"hosts": ["a.example.com"], "gateways": wrong}},
            told,
            {"traffic": {"hosts": ["a.example.com"], "gateways": right}},
        )
        for wrong, told, right in (
            (["a/b/c"], "spec.traffic.gateways: write NAMESPACE/NAME", ["b/c"]),
            (["http://public"], "spec.traffic.gateways: write NAMESPACE/NAME", ["public.v1"]),
            (["/public"], "spec.traffic.gateways: write NAMESPACE/NAME", ["edge/public", "mesh"]),
            (["a/b", "a/b"], "spec.traffic.gateways: is listed twice", ["a/b", "b/b"]),
        )
    ),
    (
        {"rollout": {"strategy": "Canary"}},
        "spec.rollout.steps: strategy Canary walks steps",
        {"rollout": {"strategy": "Canary", "steps": [{"weight": 10, "hold": "5m"}]}},
    ),
    (
        {"rollout": {"strategy": "Canary", "analysis": {"mode": "Disabled"}}},
        "spec.rollout.steps: strategy Canary walks steps",
        {"rollout": {"strategy": "Canary", "analysis": {}}},
    ),
    (
        {"rollout": {"steps": [{"weight": 10, "hold": "5m"}]}},
        "spec.rollout.steps: only strategy Canary walks steps",
        {"rollout": {"strategy": "BlueGreen"}},
    ),
    (
        {"rollout": stepped(50, 10)},
        "spec.rollout.steps: the weights must rise",
        {"rollout": stepped(10, 50)},
    ),
    (
        {"rollout": stepped(10, 10)},
        "spec.rollout.steps: the weights must rise",
        {"rollout": stepped(10)},
    ),
    (
        {"rollout": stepped(0, 10)},
        "spec.rollout.steps: a step of weight 0 is there to judge in the dark; add analysis",
        {"rollout": stepped(0, 10) | {"analysis": {}}},
    ),
    (
        {"rollout": stepped(10, 0) | {"analysis": {}}},
        "spec.rollout.steps: the weights must rise",
        {"rollout": stepped(1, 10) | {"analysis": {}}},
    ),
    *(
        (
            {"rollout": {"analysis": {"golden": golden}}},
            "spec.rollout.analysis.golden: give either configMap",
            {"rollout": {"analysis": {"golden": {"configMap": "known", "minMAP50": 0.9}}}},
        )
        for golden in ({}, {"configMap": "known", "volume": "known"})
    ),
    *(
        (
            {"rollout": {"analysis": {field: wrong}}},
            f"spec.rollout.analysis.{field}: must be",
            {"rollout": {"analysis": {field: right}}},
        )
        for field, wrong, right in (
            ("interval", "1s", "2s"),
            ("interval", "6m", "300s"),
            ("interval", "999999999999999h", "300s"),
            ("maxHold", "59s", "1m"),
            ("maxHold", "2000000h", "87600h"),
            ("maxHold", "999999999999999h", "87600h"),
        )
    ),
    (
        {"rollout": {"strategy": "BlueGreen", "maxSurge": 1}},
        "spec.rollout.maxSurge: BlueGreen always runs a whole second set",
        {"rollout": stepped(10) | {"maxSurge": "25%"}},
    ),
    (
        {"rollout": stepped(10) | {"maxSurge": 0}},
        "spec.rollout.maxSurge: must be at least 1",
        {"rollout": stepped(10) | {"maxSurge": 1}},
    ),
    (
        {"rollout": {"strategy": "InPlace"}, "canary": {"model": V2}},
        "spec.canary: needs pods beside the replicas",
        {"rollout": {"strategy": "BlueGreen"}, "canary": {"model": V2}},
    ),
    (
        {"access": {"apiKeys": {"secretName": "a"}}, "canary": {"model": V2, "shadow": 10}},
        "spec.canary.shadow: needs spec.access.shadowKey",
        {
            "access": {"apiKeys": {"secretName": "a"}, "shadowKey": {"secretName": "b"}},
            "canary": {"model": V2, "shadow": 10},
        },
    ),
    (
        {"rollout": {"strategy": "InPlace"}, "autoscaling": SCALED, "resources": CPU},
        "spec.rollout: InPlace and maxSurge take replicas from the stable revision",
        {"rollout": stepped(10), "autoscaling": SCALED, "resources": CPU},
    ),
    (
        {"rollout": stepped(10), "traffic": {"provider": "service"}},
        "spec.rollout.strategy: a plain Service cannot split traffic",
        {"rollout": {"strategy": "InPlace"}, "traffic": {"provider": "service"}},
    ),
    (
        {"canary": {"model": MODEL, "weight": 10}},
        "spec.canary: is equal to the stable revision",
        {"canary": {"model": V2, "weight": 10}},
    ),
    (
        {"canary": {"weight": 10}},
        "spec.canary: is equal to the stable revision",
        {"canary": {"runtime": {"backend": "onnxruntime"}}},
    ),
    (
        {"canary": {"inference": {"confidence": 0.25}}},
        "spec.canary: is equal to the stable revision",
        {"canary": {"inference": {"confidence": 0.3}}},
    ),
    (
        {"canary": {"resources": CPU}, "resources": CPU},
        "spec.canary: is equal to the stable revision",
        {"canary": {"resources": GPU}, "resources": CPU},
    ),
    (
        {"canary": {"model": V2, "weight": 10}, "traffic": {"provider": "service"}},
        "spec.canary.weight: a plain Service cannot split traffic",
        {"canary": {"model": V2}, "traffic": {"provider": "service"}},
    ),
    (
        {"canary": {"model": V2, "match": [{"headers": {"x-a": {"exact": "b", "prefix": "c"}}}]}},
        "spec.canary.match: give exactly one of exact, prefix and regex",
        {"canary": {"model": V2, "match": [{"headers": {"x-a": {"exact": "b"}}}]}},
    ),
    *(
        (
            {"traffic": {"stickyHeader": name}},
            "spec.traffic.stickyHeader: is no header that tells cameras apart",
            {"traffic": {"stickyHeader": "X-Camera-Id"}},
        )
        for name in (":path", "camera id", "Host", "X-Forwarded-For", "traceparent")
    ),
    (
        {"resources": GPU, "runtime": {"backend": "openvino"}},
        "spec.runtime.backend: openvino runs on the CPU",
        {"resources": GPU, "runtime": {"backend": "torch"}},
    ),
    (
        {"runtime": {"backend": "tensorrt"}},
        "spec.runtime.backend: tensorrt runs on NVIDIA GPUs only",
        {"resources": GPU, "runtime": {"backend": "tensorrt"}},
    ),
]

BOUNDS = [
    ({"model": {}}, "spec.model.uri: Required value"),
    ({"model": {"uri": "demo://shapes", "sha256": "ABC"}}, "spec.model.sha256"),
    ({"replicas": -1}, "spec.replicas: Invalid value: -1"),
    ({"canary": {"model": V2, "weight": 101}}, "should be less than or equal to 100"),
    ({"canary": {"model": V2, "weight": -1}}, "should be greater than or equal to 0"),
    ({"canary": {"model": V2, "shadow": 101}}, "should be less than or equal to 100"),
    ({"rollout": {"analysis": {"minKept": 1}}}, "spec.rollout.analysis.minKept"),
    ({"rollout": {"analysis": {"golden": {"configMap": ""}}}}, "golden.configMap"),
    ({"inference": {"imageSize": 100}}, "spec.inference.imageSize"),
    ({"inference": {"confidence": 1.5}}, "spec.inference.confidence"),
    ({"inference": {"deadline": "soon"}}, "spec.inference.deadline"),
    ({"runtime": {"backend": "caffe"}}, 'supported values: "auto", "openvino"'),
    ({"resources": {"limits": {"cpu": "-1"}}}, "spec.resources.limits.cpu"),
    ({"resources": {"limits": {"cpu": -0.5}}}, "spec.resources.limits.cpu"),
    ({"resources": {"limits": {"cpu": "0,5"}}}, "spec.resources.limits.cpu"),
]


async def refused(make: Callable[..., Any], **spec: Any) -> str:
    with pytest.raises(Invalid) as refusal:
        await make(**spec)
    return str(refusal.value)


@pytest.mark.parametrize(("wrong", "told", "right"), RULES)
async def test_a_rule_refuses_and_says_the_fix(
    make_detector: Callable[..., Any], wrong: Any, told: str, right: Any
) -> None:
    said = await refused(make_detector, **wrong)
    assert told in VALUE.sub(":", said)
    assert "evaluating rule" not in said, "it could not be worked out"
    assert await make_detector(**right)


async def test_a_refusal_tells_the_value_that_is_wrong(make_detector: Callable[..., Any]) -> None:
    said = await refused(make_detector, model={"uri": "ftp://host/a.onnx"})
    assert "spec.model.uri (ftp://host/a.onnx): the scheme must be one of" in said
    said = await refused(make_detector, inference={"deadline": "11m"})
    assert "spec.inference.deadline (11m): must be at most 10m" in said


@pytest.mark.parametrize(("wrong", "told"), BOUNDS)
async def test_bounds_name_the_field(
    make_detector: Callable[..., Any], wrong: Any, told: str
) -> None:
    assert told in await refused(make_detector, **wrong)


async def test_amounts_need_no_quotes(make_detector: Callable[..., Any]) -> None:
    """As in a pod: cpu: 0.5 was refused for being no string, and nobody said to quote it."""
    half = {"requests": {"cpu": 0.5, "memory": 1e9}, "limits": {"cpu": 1, "memory": "2Gi"}}
    slow = {"maxReplicas": 3, "behavior": {"scaleUp": {"tolerance": 0.05}}}
    proxy = {"name": "proxy", "image": "proxy:1", "resources": half}
    made = await make_detector(
        resources=half,
        autoscaling=slow,
        podTemplate={"spec": {"containers": [proxy]}},
        canary={"resources": {"requests": {"cpu": 0.25}}},
    )
    assert made["spec"]["resources"]["requests"]["cpu"] == 0.5


async def test_a_name_must_do_for_a_service(make_detector: Callable[..., Any]) -> None:
    assert "must begin with a letter" in await refused(make_detector, name="7gates")
    assert "at most 63 characters" in await refused(make_detector, name="g" * 64)
    assert await make_detector(name="g" * 63)


async def test_a_name_must_do_for_a_ray_service(make_detector: Callable[..., Any]) -> None:
    canary = {"canary": {"runtime": ON_RAY, "replicas": 1}}
    for spec in ({"runtime": ON_RAY}, canary):
        assert "at most 38 characters" in await refused(make_detector, name="g" * 39, **spec)
    assert await make_detector(name="g" * 38, runtime=ON_RAY)


async def test_a_canary_may_have_another_ray_of_its_own(make_detector: Callable[..., Any]) -> None:
    ray = {"engine": "ray", "ray": {"redis": {"address": "redis:6379"}}}
    other = {"runtime": {"ray": {"redis": {"address": "other:6379"}}}, "replicas": 1}
    assert await make_detector(runtime=ray, canary=other)


async def test_a_misspelt_field_is_refused_by_strict_clients(
    client: Client, namespace: str
) -> None:
    manifest = {
        "apiVersion": API_VERSION,
        "kind": "YoloDetector",
        "metadata": {"name": "gate"},
        "spec": {"model": MODEL, "replica": 2},
    }
    path = kinds.DETECTOR.path(namespace)
    with pytest.raises(Invalid, match=r'unknown field "spec.replica"'):
        await client.send(Request("POST", path, {"fieldValidation": "Strict"}, manifest))


async def test_kubectl_scale_works_until_an_autoscaler_owns_the_replicas(
    make_detector: Callable[..., Any], kube: Kube, namespace: str
) -> None:
    await make_detector(replicas=1)
    await kube.merge(kinds.DETECTOR, namespace, "gate", {"spec": {"replicas": 3}}, "scale")
    assert (await kube.get(kinds.DETECTOR, namespace, "gate"))["spec"]["replicas"] == 3
    scaled = {"spec": {"autoscaling": SCALED, "replicas": None}}
    await kube.merge(kinds.DETECTOR, namespace, "gate", scaled)
    with pytest.raises(Invalid, match="the autoscaler owns the replicas"):
        await kube.merge(kinds.DETECTOR, namespace, "gate", {"spec": {"replicas": 3}}, "scale")


async def test_replicas_do_not_fall_unsaid_when_the_autoscaler_goes(
    make_detector: Callable[..., Any], kube: Kube, namespace: str
) -> None:
    await make_detector(autoscaling=SCALED)
    stable = {"revision": "gate-0", "desired": 3}
    await kube.merge(kinds.DETECTOR, namespace, "gate", {"status": {"stable": stable}}, "status")
    without: Any = {"spec": {"autoscaling": None}}
    with pytest.raises(Invalid, match="say with how many replicas to go on"):
        await kube.merge(kinds.DETECTOR, namespace, "gate", without)
    without["spec"]["replicas"] = 3
    await kube.merge(kinds.DETECTOR, namespace, "gate", without)
    await kube.merge(kinds.DETECTOR, namespace, "gate", {"spec": {"replicas": 1}})


async def test_an_autoscaler_of_ones_own_moves_what_ours_gave_up(
    make_detector: Callable[..., Any], kube: Kube, namespace: str
) -> None:
    await make_detector(autoscaling=SCALED)
    stable = {"revision": "gate-0", "desired": 3}
    await kube.merge(kinds.DETECTOR, namespace, "gate", {"status": {"stable": stable}}, "status")
    own: Any = {"spec": {"autoscaling": {"provider": "none"}}}
    with pytest.raises(Invalid, match="provider to none, at least 2"):
        await kube.merge(kinds.DETECTOR, namespace, "gate", own)
    own["spec"]["replicas"] = 3
    await kube.merge(kinds.DETECTOR, namespace, "gate", own)
    for replicas in (4, 1):
        to = {"spec": {"replicas": replicas}}
        await kube.merge(kinds.DETECTOR, namespace, "gate", to, "scale")
    assert (await kube.get(kinds.DETECTOR, namespace, "gate"))["spec"]["replicas"] == 1


async def test_an_autoscaler_of_others_finds_replicas_that_nobody_wrote(
    make_detector: Callable[..., Any], client: Client, kube: Kube, namespace: str
) -> None:
    """Without a number in the spec `scale` had none, and an HPA told FailedGetScale for ever."""
    await make_detector()
    path = f"{kinds.DETECTOR.path(namespace, 'gate')}/scale"
    scale = await client.send(Request("GET", path))
    assert scale["spec"]["replicas"] == 1
    await client.send(Request("PUT", path, {}, scale | {"spec": {"replicas": 4}}))
    await kube.merge(kinds.DETECTOR, namespace, "gate", {"spec": {"revisionHistory": 1}})
    assert (await kube.get(kinds.DETECTOR, namespace, "gate"))["spec"]["replicas"] == 4
