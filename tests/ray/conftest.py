"""A Ray of one node that is ours, and detectors deployed on it as KubeRay deploys them."""

import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from controlplane import ports

ROOT = Path(__file__).parents[2]
RAYS_OWN = range(10_002, 20_000)  # Ray's workers listen there; it refuses to start if we do
PATIENCE_S = 300
TOKEN = secrets.token_hex(16)  # one for all clusters: Ray reads it once in a process
APPLICATION = "detector"


def ours() -> int:
    """Return a port that is neither Ray's nor anybody's."""
    while (port := ports.reserve(1)[0]) in RAYS_OWN:
        pass
    return port


@dataclass
class Deployed:
    """What runs on the cluster: one application, changed by a new configuration."""

    client: Any
    port: int
    stub: Path
    evidence: int
    metrics: int
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def until(self, what: str, holds: Callable[[], Any]) -> Any:
        """Wait until something holds, and return it."""
        end = time.monotonic() + PATIENCE_S
        while not (found := holds()):
            assert time.monotonic() < end, f"not in {PATIENCE_S} s: {what}; {self.details()}"
            time.sleep(0.1)  # Ray has nothing that tells us
        return found

    def apply(self, import_path: str, environment: dict[str, str], **deployment: Any) -> None:
        """Send the configuration, as the head's agent does with what KubeRay sends it."""
        from ray.serve.schema import ServeDeploySchema

        told = {
            "YOLOSERVE_DEADLINE_MS": "60000",
            "YOLOSERVE_EVIDENCE_PORT": str(self.evidence),
            "YOLOSERVE_METRICS_PORT": str(self.metrics),
            "YOLOSTUB_FILE": str(self.stub),
        }
        options = {"num_cpus": 1, "runtime_env": {"env_vars": told | environment}}
        self.config = {
            "http_options": {"host": "127.0.0.1", "port": self.port},
            "applications": [
                {
                    "name": APPLICATION,
                    "route_prefix": "/",
                    "import_path": import_path,
                    "deployments": [
                        {
                            "name": "yoloserve",
                            "num_replicas": 1,
                            "health_check_period_s": 0.2,
                            "ray_actor_options": options,
                            **deployment,
                        }
                    ],
                }
            ],
        }
        self.client.deploy_apps(ServeDeploySchema.model_validate(self.config))

    def change(self, **deployment: Any) -> None:
        """Send the configuration again, with what is another now."""
        from ray.serve.schema import ServeDeploySchema

        self.config["applications"][0]["deployments"][0] |= deployment
        self.client.deploy_apps(ServeDeploySchema.model_validate(self.config))

    def behave(self, **told: Any) -> None:
        """Tell the stub engine how to be, from now on."""
        lines = (f"YOLOSTUB_{name.upper()}={value}" for name, value in told.items())
        self.stub.write_text("\n".join(lines))

    def details(self) -> dict[str, Any]:
        return self.client.get_serve_details()["applications"].get(APPLICATION, {})

    def deployment(self) -> dict[str, Any]:
        return self.details().get("deployments", {}).get("yoloserve", {})

    def replicas(self) -> list[dict[str, Any]]:
        return [
            each for each in self.deployment().get("replicas", ()) if each["state"] == "RUNNING"
        ]

    def ready(self) -> dict[str, Any]:
        """Wait until all is as it was configured; return the one replica."""

        def settled() -> bool:
            details = self.details()
            assert details.get("status") != "DEPLOY_FAILED", details["message"]
            return details.get("status") == "RUNNING" and len(self.replicas()) == 1

        self.until("the application runs", settled)
        (replica,) = self.replicas()
        return replica

    def detect(self, picture: bytes, **headers: str) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/detect", content=picture, headers=headers, timeout=60)


@pytest.fixture(scope="session", params=["haproxy", "ray"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Ray and Serve behind either proxy, with Ray's token authentication on; its client."""
    with pytest.MonkeyPatch.context() as patch:
        sources = os.pathsep.join(str(ROOT / each) for each in ("serving_image", "dev"))
        patch.setenv("PYTHONPATH", sources)  # of the workers
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_agent_register_timeout_ms", str(1000 * PATIENCE_S))
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)
        patch.setenv("RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S", "1")  # 30 behind HAProxy
        patch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1" if request.param == "haproxy" else "0")
        stats, *others = (ours() for _ in range(3))
        patch.setenv("RAY_SERVE_HAPROXY_STATS_PORT", str(stats))
        for listens, number in zip(("HAPROXY_METRICS", "FALLBACK_PROXY_HTTP"), others, strict=True):
            patch.setenv(f"RAY_SERVE_{listens}_PORT", str(number))
        import ray  # reads its environment
        from ray import serve
        from ray._private import services
        from ray.serve._private.api import serve_start

        patch.setattr(services, "get_node", _patiently(services.get_node))
        _start(ray)
        try:
            port = ours()
            client = serve_start(http_options={"host": "127.0.0.1", "port": port})
            client.test_port = port
            client.stats_port = stats
            yield client
        finally:
            serve.shutdown()
            ray.shutdown()


def _start(ray: Any) -> None:
    """Start a node. Its parts wait some seconds for each other, by no setting, and then give up."""
    end = time.monotonic() + 3 * PATIENCE_S
    while True:
        try:
            ray.init(
                num_cpus=2,
                object_store_memory=80_000_000,
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
            )
        except Exception:
            ray.shutdown()
            if time.monotonic() > end:
                raise
        else:
            return


def _patiently(look: Callable[..., Any]) -> Callable[..., Any]:
    """Look for a node for longer than the 30 s that Ray gives its own, on a busy machine too."""

    def looking(*asked: Any) -> Any:
        end = time.monotonic() + 60
        while True:
            try:
                return look(*asked)
            except RuntimeError:
                if time.monotonic() > end:
                    raise

    return looking


@pytest.fixture
def deployed(cluster: Any, tmp_path: Path) -> Iterator[Deployed]:
    """An application of one test."""
    made = Deployed(cluster, cluster.test_port, tmp_path / "stub", ours(), ours())
    yield made
    cluster.delete_apps([APPLICATION])


@pytest.fixture(scope="session")
def picture() -> bytes:
    return (ROOT / "examples/images/shapes-1.jpg").read_bytes()
