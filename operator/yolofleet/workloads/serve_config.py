"""What Ray Serve is asked for, in the names of Ray 2.60, and read back from a RayService.

Typed, because Serve takes names that it does not know in silence: with `max_concurrent_queries`, as
older versions called it, a deployment runs with the default and nobody is told.
"""

import json
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError

APPLICATION: Final = "detector"
DEPLOYMENT: Final = "yoloserve"
IMPORT_PATH: Final = "yoloserve.rayserve:app"
PORT: Final = 8000


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Autoscaling(_Part):
    """The bounds of Serve's own autoscaler; of a number that is asked for, both are that.

    Serve takes the step from `num_replicas` to an autoscaler, and back, for other code: it replaces
    all replicas, each before there is another one. With `initial_replicas` it would go there
    whenever anything of the deployment changes; without, it goes on from what runs.
    """

    min_replicas: int
    max_replicas: int
    target_ongoing_requests: float
    upscale_delay_s: float = 10.0
    downscale_delay_s: float = 300.0


class Backpressure(_Part):
    """What is answered to requests for which the queue has no place."""

    status_code: int = 503
    retry_after_s: int = 1


class ActorOptions(_Part):
    """What Ray keeps free for one replica: as much as its worker has, so that each has one."""

    num_cpus: int
    num_gpus: int = 0


class Deployment(_Part):
    """The replicas."""

    name: str = DEPLOYMENT
    autoscaling_config: Autoscaling
    max_ongoing_requests: int
    max_queued_requests: int
    backpressure_config: Backpressure = Backpressure()
    graceful_shutdown_wait_loop_s: float = 2.0
    graceful_shutdown_timeout_s: float
    health_check_period_s: float = 10.0
    health_check_timeout_s: float = 30.0
    ray_actor_options: ActorOptions


class Application(_Part):
    """The application of a revision: one deployment."""

    name: str = APPLICATION
    import_path: str = IMPORT_PATH
    route_prefix: str = "/"
    deployments: tuple[Deployment]


class HttpOptions(_Part):
    """Ray's proxies. They keep connections for longer than any gateway does."""

    host: str = "0.0.0.0"
    port: int = PORT
    request_timeout_s: float
    keep_alive_timeout_s: int = 3700


class ServeConfig(_Part):
    """The whole of it."""

    proxy_location: str = "EveryNode"
    http_options: HttpOptions
    applications: tuple[Application]

    @property
    def deployment(self) -> Deployment:
        """The only one."""
        return self.applications[0].deployments[0]

    def text(self) -> str:
        """Return it as KubeRay takes it: JSON is YAML, and is read by people as well."""
        return json.dumps(self.model_dump(exclude_none=True), indent=2)

    @classmethod
    def read(cls, text: Any) -> Self | None:
        """Read it back; None where somebody else wrote something else."""
        try:
            return cls.model_validate_json(str(text))
        except ValidationError:
            return None
