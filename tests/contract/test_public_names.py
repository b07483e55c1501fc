"""What the pull way asks registries and sites for, against the sources that state it: Go modules.

Most machines that run these tests cannot pull any of it, so that a name that does not exist would
be found by users alone. No source within reach states the tag ISTIO of Istio's charts and images
(but their minor), nor PYTHON_IMAGE; dev/cluster/README.md lists what is unproved.
"""

import re
from pathlib import Path

import pytest
import yaml

from cluster import (
    components,
    gateway_api,
    gobuild,
    istio,
    metrics_server,
    pulled,
    released,
    versions,
)
from cluster.mode import Mode

ROOT = Path(__file__).parents[2]
IMAGE = re.compile(
    r"(?P<registry>[a-z0-9.-]+\.[a-z]+/)?(?P<path>[a-z0-9]+([._-][a-z0-9]+)*(/[a-z0-9]+([._-][a-z0-9]+)*)*)"
    r":(?P<tag>[\w][\w.-]{0,127})(@sha256:[0-9a-f]{64})?"
)


def kubeadm(name: str) -> str:
    constants = gobuild.source(components.KUBERNETES) / "cmd/kubeadm/app/constants/constants.go"
    found = re.search(rf'^\s*{name} = "([^"]+)"$', constants.read_text(), re.MULTILINE)
    assert found, name
    return found[1]


@pytest.mark.parametrize(
    "image",
    [
        versions.NODE_IMAGE,
        versions.PYTHON_IMAGE,
        versions.PAUSE_IMAGE,
        versions.ETCD_IMAGE,
        versions.COREDNS_IMAGE,
    ],
)
def test_an_image_is_named_by_a_tag_and_at_most_a_digest(image: str) -> None:
    assert IMAGE.fullmatch(image)
    assert ":latest" not in image


def test_the_node_is_the_default_of_the_kind_that_makes_it() -> None:
    stated = (gobuild.source(components.KIND) / "pkg/apis/config/defaults/image.go").read_text()
    assert f'const Image = "{versions.NODE_IMAGE}"' in stated
    assert re.fullmatch(r"1\.\d+\.\d+", pulled.kubernetes())


def test_the_images_of_a_control_plane_are_those_of_its_kubeadm() -> None:
    registry = "registry.k8s.io"
    assert f"{registry}/pause:{kubeadm('PauseVersion')}" == versions.PAUSE_IMAGE
    assert f"{registry}/etcd:{kubeadm('DefaultEtcdVersion')}" == versions.ETCD_IMAGE
    assert f"{registry}/coredns/coredns:{kubeadm('CoreDNSVersion')}" == versions.COREDNS_IMAGE


@pytest.mark.parametrize("name", ["base", "istiod", "gateway"])
def test_a_chart_of_istio_is_published_where_its_module_says(name: str) -> None:
    module = gobuild.source(components.ISTIO)
    charts = module / "manifests/charts"
    folder = "istio-control/istio-discovery" if name == "istiod" else name
    assert yaml.safe_load((charts / folder / "Chart.yaml").read_text())["name"] == name
    assert (
        f"`{istio.CHARTS}` (charts for official release versions)"
        in (charts / "README.md").read_text()
    )
    minor = (module / "VERSION").read_text().strip()
    assert re.fullmatch(rf"{re.escape(minor)}\.\d+", versions.ISTIO)
    asked = istio._chart(Mode.PULL, name)
    assert asked == [name, "--repo", istio.CHARTS, "--version", versions.ISTIO]


def test_the_gateway_api_is_the_one_that_istio_was_built_with() -> None:
    stated = (gobuild.source(components.ISTIO) / "go.mod").read_text()
    assert f"\tsigs.k8s.io/gateway-api {gateway_api.VERSION}\n" in stated


def test_the_chart_of_metrics_server_is_one_that_its_module_has() -> None:
    folder = gobuild.source(components.METRICS_SERVER) / "charts/metrics-server"
    stated = yaml.safe_load((folder / "Chart.yaml").read_text())
    assert stated["name"] == "metrics-server"
    assert stated["version"] == versions.METRICS_SERVER_CHART
    assert f"{metrics_server.CHARTS}/\n" in (folder / "README.md").read_text()


@pytest.mark.parametrize("dockerfile", ["operator/Dockerfile", "serving_image/Dockerfile"])
def test_an_image_starts_from_the_same_python_whoever_builds_it(dockerfile: str) -> None:
    stated = (ROOT / dockerfile).read_text()
    assert re.findall(r"^ARG BASE_IMAGE=(\S+)$", stated, re.MULTILINE) == [versions.PYTHON_IMAGE]


@pytest.mark.parametrize(
    ("client", "will_do"),
    [
        ("v1.34.3", False),
        ("v1.36.0", True),
        ("v1.37.4-gke.1", True),
        ("v1.38.0", True),
        ("v1.39.0", False),
        ("v2.37.0", False),
        ("", False),
    ],
)
def test_a_kubectl_further_away_than_a_minor_is_not_used(client: str, will_do: bool) -> None:
    assert released.near({"clientVersion": {"gitVersion": client}}, "1.37.0") is will_do


@pytest.mark.parametrize(
    ("told", "will_do"),
    [
        (f"kind v{versions.KIND} go1.26.8 linux/amd64", True),
        ("kind v0.99.0-alpha+1 go1.30 darwin/arm64", True),
        ("kind v1.0.0 go1.30 linux/amd64", True),
        ("kind v0.20.0 go1.20.4 linux/amd64", False),
        ("", False),
    ],
)
def test_a_kind_older_than_the_node_is_not_used(told: str, will_do: bool) -> None:
    assert released.knows_the_node(told) is will_do


def test_prometheus_is_the_version_that_its_module_says() -> None:
    stated = (gobuild.source(components.PROMETHEUS) / "VERSION").read_text().strip()
    assert stated == versions.PROMETHEUS
