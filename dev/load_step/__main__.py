"""`python -m load_step`: what callers see while the load of one replica becomes that of three.

On the local cluster, with the real HorizontalPodAutoscaler controller and the stub engine, whose
service time is a sleep: two cores carry it. Nothing but the operator feeds the autoscaler. Prints a
row each ten seconds, then `load-step-result: {json}`; 1 where an aim is missed.
"""

import argparse
import itertools
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Final

import cv2

from cluster import images
from cluster.errors import ClusterError
from demo.dataset import HELD_BACK
from demo.pictures import draw
from demo_cluster import screen
from demo_cluster.detector import Detector
from demo_cluster.errors import DemoError
from demo_cluster.installation import install
from demo_cluster.kube import Manifest
from demo_cluster.load import Load, Target, wait_until_served

NAME: Final = "step"
HOST: Final = "step.example.com"
SERVICE_MS: Final = 100
REPLICA: Final = 1000 / SERVICE_MS
"""What a replica answers a second."""

LOAD: Final = 70
MOST: Final = 6
CALLERS: Final = 64  # so many wait at once at most: requests come whether others were answered
WINDOW_S: Final = 10.0
SERVED_IN_S: Final = 60.0
REFUSED: Final = 0.01


@dataclass(frozen=True, slots=True)
class Window:
    """Ten seconds. refused: of the requests that ended in it."""

    at_s: float
    per_second: float
    requests: int
    refused: int
    replicas: int

    @property
    def share(self) -> float:
        """Which part was refused."""
        return self.refused / self.requests if self.requests else 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """One run.

    served_s: from the step until no window has as much as a hundredth refused. refused_after: of
    what was asked later than SERVED_IN_S. turns: how often the number of replicas went back.
    """

    served_s: float
    refused_after: float
    most_replicas: int
    turns: int
    seconds: float


def main() -> int:
    """Run it; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m load_step", description=__doc__)
    parser.add_argument("--before", type=float, default=60.0, help="seconds before the step")
    parser.add_argument("--after", type=float, default=180.0, help="seconds at three times as much")
    parser.add_argument("--noise", type=float, default=600.0, help="seconds at that, give or take")
    asked = parser.parse_args()
    try:
        result = run(asked.before, asked.after, asked.noise)
    except (ClusterError, DemoError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    print(f"load-step-result: {json.dumps(asdict(result))}")
    return int(result.served_s > SERVED_IN_S or result.turns > 1)


def run(before_s: float, after_s: float, noise_s: float) -> Result:
    """Take the step; return what became of it."""
    installation = install()
    detector = Detector(installation.kubectl("default"), NAME)
    target, picture = installation.target(HOST), _jpeg()
    swing = random.Random(0)
    with _served(detector, images.build_and_load_upon(images.STUB)):
        wait_until_served(target, [picture], within_s=120)
        screen.show(["   seconds  per second  requests  refused  replicas"])
        list(_windows(detector, target, picture, itertools.repeat(REPLICA * LOAD / 100), before_s))
        step = list(_windows(detector, target, picture, itertools.repeat(3 * REPLICA), after_s))
        rates = (3 * REPLICA * swing.uniform(0.8, 1.2) for _ in itertools.count())
        noise = list(_windows(detector, target, picture, rates, noise_s))
    late = [window for window in step if window.at_s > SERVED_IN_S]
    requests = sum(window.requests for window in late)
    return Result(
        served_s=max((window.at_s for window in step if window.share >= REFUSED), default=0.0),
        refused_after=round(sum(window.refused for window in late) / requests, 4),
        most_replicas=max(window.replicas for window in step + noise),
        turns=turns([window.replicas for window in step + noise]),
        seconds=after_s + noise_s,
    )


def turns(replicas: Sequence[int]) -> int:
    """Count how often a number that went one way went the other."""
    moves = [later > now for now, later in itertools.pairwise(replicas) if later != now]
    return sum(now != later for now, later in itertools.pairwise(moves))


def _windows(
    detector: Detector, target: Target, picture: bytes, rates: Iterator[float], lasts_s: float
) -> Iterator[Window]:
    for at_s in range(int(WINDOW_S), int(lasts_s) + 1, int(WINDOW_S)):
        rate = next(rates)
        with Load(target, [picture], callers=CALLERS, per_second=rate) as load:
            time.sleep(WINDOW_S)
            found = load.summary()
        stable = detector.raw()["status"]["stable"]
        window = Window(at_s, rate, found.requests, found.failed, stable["ready"])
        screen.show(
            [
                f"{at_s:>8} s  {rate:10.1f}  {found.requests:8}  {found.failed:7}  "
                f"{window.replicas:8}  {dict(found.failures) or ''}"
            ]
        )
        yield window


@contextmanager
def _served(detector: Detector, image: str) -> Iterator[None]:
    if detector.exists() or detector.pods():
        detector.delete()
    detector.kubectl.apply(_manifest(image))
    try:
        detector.wait_ready()
        yield
    finally:
        detector.leave()


def _manifest(image: str) -> Manifest:
    env = [{"name": "YOLOSTUB_SERVICE_MS", "value": str(SERVICE_MS)}]
    return {
        "apiVersion": "yolofleet.io/v1alpha1",
        "kind": "YoloDetector",
        "metadata": {"name": NAME},
        "spec": {
            "model": {"uri": "demo://shapes"},
            "runtime": {"image": image},
            "inference": {"deadline": "2s"},
            "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}},
            "traffic": {"hosts": [HOST], "gateways": ["istio-system/public"], "retries": 0},
            "autoscaling": {"minReplicas": 1, "maxReplicas": MOST, "load": LOAD},
            "podTemplate": {"spec": {"containers": [{"name": "yoloserve", "env": env}]}},
        },
    }


def _jpeg() -> bytes:
    """Return a small picture: the client has to cost little."""
    _, data = cv2.imencode(".jpg", cv2.resize(draw(HELD_BACK, 0).image, (160, 120)))
    return bytes(data)


if __name__ == "__main__":
    sys.exit(main())
