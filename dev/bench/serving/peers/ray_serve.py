"""Ray Serve with the careful model, in batches of 8 that wait 10 ms (its default) for company."""

import os
import sys
from typing import Any

import numpy as np
import ray
from ray import serve
from starlette.requests import Request

from bench.serving.peers.careful import Model


# By default 5 requests are let in at a time, which never fill a batch of 8.
@serve.deployment(max_ongoing_requests=1000, ray_actor_options={"num_cpus": 1})
class Detector:
    """One replica: the machine has no room for two."""

    def __init__(self, path: str, threads: int) -> None:
        self.model = Model(path, threads)

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.01)
    async def infer(self, bodies: list[bytes]) -> list[Any]:
        """Run one batch."""
        prepared = [self.model.prepare(body) for body in bodies]
        outputs = self.model.infer(np.stack([planes for planes, _ in prepared]))
        return [
            self.model.detections(output, fit)
            for output, (_, fit) in zip(outputs, prepared, strict=True)
        ]

    async def __call__(self, request: Request) -> dict[str, Any]:
        """Answer with the boxes."""
        return {"detections": await self.infer(await request.body())}


if __name__ == "__main__":
    cores = len(os.sched_getaffinity(0))
    ray.init(num_cpus=max(2, cores), include_dashboard=False, configure_logging=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
    deployment: Any = Detector  # the decorator made another type of it
    serve.run(deployment.bind(sys.argv[1], cores), route_prefix="/predict", blocking=True)
