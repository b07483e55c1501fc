"""YoloFleet on the local cluster: the cluster, the images, the chart."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster import images, prometheus
from cluster.client import helm_install
from cluster.definitions import is_established
from cluster.paths import REPOSITORY, tools
from cluster.up import up
from demo_cluster.errors import NotYet
from demo_cluster.kube import DETECTORS, Kubectl
from demo_cluster.load import Target
from demo_cluster.waiting import eventually

RELEASE: Final = "yolofleet"
NAMESPACE: Final = prometheus.OPERATOR
CHART: Final = REPOSITORY / "charts" / "yolofleet"


@dataclass(frozen=True, slots=True)
class Installation:
    """A cluster with YoloFleet in it."""

    serving_image: str

    def kubectl(self, namespace: str) -> Kubectl:
        """Return kubectl for a namespace."""
        return Kubectl(namespace)

    def target(self, host: str) -> Target:
        """Return where requests for `host` go: to the ingress gateway of the cluster."""
        return Target(tools().ingress_url, host)


def install(*values: Path, ray: str = "") -> Installation:
    """Make what is missing, from nothing if need be; what is there already is kept.

    values: files for the chart, besides the images. ray: the image for `engine: ray`. A Prometheus
    that is there is told to it, too.
    """
    up(metrics=False)  # nothing here scales by load
    built = images.build_and_load()
    asked = {"prometheus.url": prometheus.INSIDE} if prometheus.there() else {}
    if ray:
        asked["servingImages.ray"] = ray
    repository, tag = built["operator"].rsplit(":", 1)
    helm_install(
        RELEASE,
        [str(CHART)],
        namespace=NAMESPACE,
        values=values,
        settings={
            "image.repository": repository,
            "image.tag": tag,
            "servingImages.cpu": built["yoloserve_cpu"],
            **asked,
        },
    )
    operator = Kubectl(NAMESPACE)
    eventually(
        "the API server to serve YoloDetectors",
        lambda: _served(operator),
        within_s=30,
        hint=f"See: kubectl get crd {DETECTORS}",
    )
    return Installation(serving_image=built["yoloserve_cpu"])


def _served(kubectl: Kubectl) -> None:
    crd = kubectl.find("customresourcedefinition", DETECTORS)
    if not is_established(crd or {}):
        raise NotYet("its CustomResourceDefinition is not established")
