"""Every version the cluster is made of, in one place: a change here makes new cache entries."""

from __future__ import annotations

from typing import Final

KUBERNETES: Final = "1.34.3"
ETCD: Final = "3.6.5"
COREDNS: Final = "1.12.4"
KIND: Final = "0.33.0"
HELM: Final = "3.22.0"
METRICS_SERVER: Final = "0.8.0"
ENVOY: Final = "1.40.0"
REGISTRY: Final = "3.1.2"  # CNCF's distribution
PROMETHEUS: Final = "3.16.0"
KUBERAY: Final = "1.5.1"  # the oldest that is supported; module proxies lack 1.7.0
KSERVE: Final = "0.17.0"  # the same
KSERVE_REPLACEMENTS: Final = (  # those of its own go.mod
    ("sigs.k8s.io/controller-runtime", "v0.19.7"),
    ("github.com/expr-lang/expr", "v1.17.7"),
)
PROMETHEUS_OPERATOR: Final = "0.85.0"  # its kinds alone: nothing of it runs
KEDA: Final = "2.17.0"  # the lowest that the operator asks for
DEBIAN: Final = "bookworm"  # newer systemd refuses to boot on a cgroup v1 host

# What is pulled where a registry answers, all of it public; `tests/contract/test_public_names.py`
# holds these names against whatever states them within reach.
NODE_IMAGE: Final = (  # the default of KIND; kubectl follows it, at most a minor away
    "kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5"
)
PYTHON_IMAGE: Final = "python:3.12-slim-bookworm"
METRICS_SERVER_CHART: Final = "3.12.2"  # brings 0.7.2; the newest that METRICS_SERVER's module has
ISTIO: Final = "1.31.1"
# The same minor as a Go module. Istio tags no module versions, so this is a commit of its release
# branch; the replacements stand in for pseudo-versions it asks for that module proxies lack.
ISTIO_MODULE: Final = "v0.0.0-20260827124520-eed52ebb66ad"
ISTIO_REPLACEMENTS: Final = (
    ("istio.io/api", "v1.31.1"),
    ("istio.io/client-go", "v1.31.1"),
    ("github.com/envoyproxy/go-control-plane/envoy", "v1.40.0"),
    (
        "github.com/envoyproxy/go-control-plane/contrib",
        "v1.36.1-0.20260729145720-a2d8c7492908",
    ),
)

# What `kubeadm config images list` of KUBERNETES prints beside its own components.
PAUSE_IMAGE: Final = "registry.k8s.io/pause:3.10.1"
ETCD_IMAGE: Final = "registry.k8s.io/etcd:3.6.5-0"
COREDNS_IMAGE: Final = "registry.k8s.io/coredns/coredns:v1.12.1"
