"""`python -m bench.ray.hosted PORT`: the server on a Ray of one node, until SIGTERM.

`RAY_SERVE_ENABLE_HA_PROXY=1` puts HAProxy in the place of Ray's own proxy.
"""

import signal
import sys

import ray
from ray import serve

from yoloserve.rayserve import app

OBJECT_STORE = 100_000_000


def main() -> None:
    """Serve; Ray ends the process by its own handler."""
    ray.init(num_cpus=1, object_store_memory=OBJECT_STORE, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(app, name="detector", route_prefix="/")
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
