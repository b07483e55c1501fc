"""What is compiled, and with which settings: a table, and a function for each result."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cluster import gobuild, versions
from cluster.gobuild import Module

_MAJOR, _MINOR, _ = versions.KUBERNETES.split(".")
# As a Go module Prometheus 3.16.0 is v0.316.0.
_PROMETHEUS_MAJOR, _PROMETHEUS_MINOR, _PROMETHEUS_PATCH = versions.PROMETHEUS.split(".")

KUBERNETES: Final = Module(
    name="kubernetes",
    path="k8s.io/kubernetes",
    version=f"v{versions.KUBERNETES}",
    packages=tuple(
        f"k8s.io/kubernetes/cmd/{command}"
        for command in (
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kube-proxy",
            "kubelet",
            "kubectl",
            "kubeadm",
        )
    ),
    staging_version=f"v0.{_MINOR}.{versions.KUBERNETES.rsplit('.', 1)[-1]}",
    # kubeadm refuses binaries that do not know their version.
    stamps=(
        f"k8s.io/component-base/version.gitVersion=v{versions.KUBERNETES}",
        f"k8s.io/component-base/version.gitMajor={_MAJOR}",
        f"k8s.io/component-base/version.gitMinor={_MINOR}",
    ),
    cost="the first of Kubernetes takes minutes, the others share its packages",
)
ETCD: Final = Module(
    name="etcd", path="go.etcd.io/etcd/server/v3", version=f"v{versions.ETCD}", main="etcd.go"
)
COREDNS: Final = Module(
    name="coredns",
    path="github.com/coredns/coredns",
    version=f"v{versions.COREDNS}",
    main="coredns.go",
    cost="1 to 2 min: its own Kubernetes client",
)
KIND: Final = Module(
    name="kind",
    path="sigs.k8s.io/kind",
    version=f"v{versions.KIND}",
    packages=("sigs.k8s.io/kind",),
)
HELM: Final = Module(
    name="helm",
    path="helm.sh/helm/v3",
    version=f"v{versions.HELM}",
    packages=("helm.sh/helm/v3/cmd/helm",),
    # Without these it takes every cluster it is not connected to for Kubernetes 1.20.
    stamps=(
        f"helm.sh/helm/v3/internal/version.version=v{versions.HELM}",
        f"helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor={_MAJOR}",
        f"helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor={_MINOR}",
        f"helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor={_MAJOR}",
        f"helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor={_MINOR}",
    ),
    cost="about 1 min",
)
# The longest build, with nothing to spare: istiod imports 1,774 packages, and its agent 85 more
# (`go list -deps`). 314 of them are types of Envoy's that only an EnvoyFilter may name, because of
# pkg/config/xds/filter_types.gen.go. They take 37 s of a core, and to leave that file out takes a
# copy of Istio that is no longer Istio. Its own tag `agent` leaves it out, and with it the Pods,
# Services and Gateways that istiod watches. No library of Kubernetes is shared with those compiled
# before, since Istio's are two minors later. Without DWARF the compiler is no faster.
ISTIO: Final = Module(
    name="istio",
    path="istio.io/istio",
    version=versions.ISTIO_MODULE,
    packages=("istio.io/istio/pilot/cmd/pilot-discovery", "istio.io/istio/pilot/cmd/pilot-agent"),
    replacements=versions.ISTIO_REPLACEMENTS,
    tags="vtprotobuf,disable_pgv",
    tidy_may_complain=True,
    cost="minutes: all of Envoy's API",
)
METRICS_SERVER: Final = Module(
    name="metrics-server",
    path="sigs.k8s.io/metrics-server",
    version=f"v{versions.METRICS_SERVER}",
    packages=("sigs.k8s.io/metrics-server/cmd/metrics-server",),
    checksum="h1:Zlsi3sBWEtFKCD3+xSysThvXyLQ363rUAlqpnsY5JwI=",
    stamps=KUBERNETES.stamps,  # the version that its libraries report
    like=KUBERNETES,  # half of its packages are compiled then
)

REGISTRY: Final = Module(
    name="registry",
    path="github.com/distribution/distribution/v3",
    version=f"v{versions.REGISTRY}",
    main="registry.go",
)
PROMETHEUS: Final = Module(
    name="prometheus",
    path="github.com/prometheus/prometheus",
    version=f"v0.{_PROMETHEUS_MAJOR}{int(_PROMETHEUS_MINOR):02}.{_PROMETHEUS_PATCH}",
    packages=tuple(f"github.com/prometheus/prometheus/cmd/{c}" for c in ("prometheus", "promtool")),
    # Clouds to discover targets in are most of what there is to compile; the cluster finds pods.
    tags="remove_all_sd,enable_kubernetes_sd",
    stamps=(f"github.com/prometheus/common/version.Version={versions.PROMETHEUS}",),
    cost="1 to 2 min",
)
KUBERAY: Final = Module(
    name="kuberay",
    path="github.com/ray-project/kuberay/ray-operator",
    version=f"v{versions.KUBERAY}",
    packages=("github.com/ray-project/kuberay/ray-operator",),
    cost="2 to 4 min: a Kubernetes client of its own version",
)
KSERVE: Final = Module(
    name="kserve",
    path="github.com/kserve/kserve",
    version=f"v{versions.KSERVE}",
    packages=("github.com/kserve/kserve/cmd/manager",),
    replacements=versions.KSERVE_REPLACEMENTS,
    cost="3 to 5 min: the APIs of Knative, Istio and the Gateway API",
)
PROMETHEUS_OPERATOR: Final = Module(
    name="prometheus-operator",
    path="github.com/prometheus-operator/prometheus-operator",
    version=f"v{versions.PROMETHEUS_OPERATOR}",
)
KEDA: Final = Module(
    name="keda",
    path="github.com/kedacore/keda/v2",
    version=f"v{versions.KEDA}",
    packages=tuple(
        f"github.com/kedacore/keda/v2/cmd/{command}" for command in ("operator", "adapter")
    ),
    pinned=True,
    cost="minutes: a client for each cloud that it scales by",
)


def kubernetes(command: str) -> Path:
    """Return one of the commands of Kubernetes."""
    return gobuild.binary(KUBERNETES, f"k8s.io/kubernetes/cmd/{command}")


def istio(command: str) -> Path:
    """Return pilot-discovery or pilot-agent."""
    return gobuild.binary(ISTIO, f"istio.io/istio/pilot/cmd/{command}")


def etcd() -> Path:
    """Return etcd's server."""
    return gobuild.binary(ETCD)


def coredns() -> Path:
    """Return CoreDNS with the plugins of kubeadm's Corefile."""
    return gobuild.binary(COREDNS)


def kind() -> Path:
    """Return kind."""
    return gobuild.binary(KIND, "sigs.k8s.io/kind")


def helm() -> Path:
    """Return helm."""
    return gobuild.binary(HELM, "helm.sh/helm/v3/cmd/helm")


def metrics_server() -> Path:
    """Return metrics-server."""
    return gobuild.binary(METRICS_SERVER, "sigs.k8s.io/metrics-server/cmd/metrics-server")


def registry() -> Path:
    """Return a container registry that ends with whoever started it."""
    return gobuild.binary(REGISTRY)


def prometheus(command: str) -> Path:
    """Return prometheus or promtool. Without its web pages, and most ways to discover targets."""
    return gobuild.binary(PROMETHEUS, f"github.com/prometheus/prometheus/cmd/{command}")


def kuberay() -> Path:
    """Return the manager of KubeRay."""
    return gobuild.binary(KUBERAY, KUBERAY.packages[0])


def kserve() -> Path:
    """Return the manager of KServe."""
    return gobuild.binary(KSERVE, KSERVE.packages[0])


def keda(command: str) -> Path:
    """Return KEDA's operator, or the adapter by which the API server asks it for metrics."""
    return gobuild.binary(KEDA, f"github.com/kedacore/keda/v2/cmd/{command}")
