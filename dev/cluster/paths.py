"""Where everything lies: one cache folder, and the tools that `up` leaves there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

DEFAULT_CLUSTER = "yolofleet"
# Another name makes another cluster, with a kubeconfig of its own.
CLUSTER = os.environ.get("YOLOFLEET_CLUSTER") or DEFAULT_CLUSTER
HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]


def cache_root() -> Path:
    """Return the folder of all downloads and builds (YOLOFLEET_CACHE, else under ~/.cache)."""
    return Path(os.environ.get("YOLOFLEET_CACHE") or "~/.cache/yolofleet").expanduser().absolute()


def ingress_port() -> int:
    """Return the port of 127.0.0.1 behind which the cluster's ingress gateway answers.

    -1 leaves the choice to the engine.
    """
    return int(os.environ.get("YOLOFLEET_INGRESS_PORT") or 8080)


@dataclass(frozen=True, slots=True)
class Tools:
    """What a script or test needs to talk to the cluster; the files exist once `up` succeeded."""

    kubeconfig: Path
    kubectl: Path
    helm: Path
    kind: Path
    ingress_url: str

    def environment(self) -> dict[str, str]:
        """Return the variables that `python3 -m cluster env` prints."""
        return {
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECTL": str(self.kubectl),
            "HELM": str(self.helm),
            "KIND": str(self.kind),
            "INGRESS_URL": self.ingress_url,
        }


def tools() -> Tools:
    """Return the tools under the cache folder that the environment names now."""
    root = cache_root()
    return Tools(
        kubeconfig=root / ("kubeconfig" if CLUSTER == DEFAULT_CLUSTER else f"kubeconfig-{CLUSTER}"),
        kubectl=root / "tools" / "kubectl",
        helm=root / "tools" / "helm",
        kind=root / "tools" / "kind",
        ingress_url=f"http://127.0.0.1:{ingress_port()}",
    )


TOOLS = tools()
